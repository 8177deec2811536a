//! A linear layer in the place of the labels' words: what a classifier on the same language model would say.

use std::ops::Range;

use tch::{Kind, Tensor};

use super::adapter::Lora;
use super::llama::{Dropout, Llama};
use super::prompt::Words;
use crate::artifacts::{FloatTensor, HEAD, Store};
use crate::error::Result;
use crate::torch::{Params, round_f16, values};

/// A row a label, read against the hidden state behind the final norm at the prompt's last token.
#[derive(Debug)]
pub struct Head {
    /// [labels, hidden]
    weight: Tensor,
}

impl Head {
    /// Zero: at first all labels are equally likely.
    pub fn new(params: &mut Params, labels: usize, hidden: usize) -> Self {
        Self { weight: params.uniform(HEAD, &[labels as i64, hidden as i64], 0.0) }
    }

    /// Logits [rows, labels] of hidden states [rows, hidden].
    pub fn logits(&self, hidden: &Tensor) -> Tensor {
        hidden.linear::<&Tensor>(&self.weight, None)
    }

    /// log p(label | prompt) of every label for each of `count` sentences, `[sentences][labels]`; the arguments are those of
    /// [`score::scores`](super::score::scores).
    pub fn scores(
        &self,
        llama: &Llama,
        lora: Option<&Lora>,
        words: &Words,
        (count, at_once): (usize, usize),
        rows: impl Fn(Range<usize>) -> Tensor,
    ) -> Result<Vec<Vec<f64>>> {
        let mut out = Vec::with_capacity(count);
        for start in (0..count).step_by(at_once.max(1)) {
            let part = start..(start + at_once.max(1)).min(count);
            let scores = tch::no_grad(|| {
                let packed = words.prompts(llama, &rows(part));
                let hidden = llama.hidden(&packed.x, &packed.packing, &packed.keep, lora, Dropout::Off);
                self.logits(&hidden).log_softmax(-1, Kind::Double)
            });
            out.extend(Vec::<Vec<f64>>::try_from(scores)?);
        }
        Ok(out)
    }

    /// Rounds the weights to f16, in place, as all that an adapter stores.
    pub fn round(&mut self) {
        tch::no_grad(|| self.weight.copy_(&round_f16(&self.weight)));
    }

    /// The tensor in the artifact's form.
    pub fn export(&self) -> Result<FloatTensor> {
        let shape = self.weight.size().iter().map(|n| *n as usize).collect();
        Ok((HEAD.to_owned(), shape, values(&self.weight)?, Store::F16))
    }
}
