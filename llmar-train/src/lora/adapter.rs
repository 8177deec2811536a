//! What stage 2 learns: LoRA matrices and the codes' embeddings.

use llmar::llama::LlamaConfig;
use tch::{Kind, Tensor};

use super::config::{Adapter, Form, Map, Point, Start, Target};
use crate::artifacts::{FloatTensor, Store};
use crate::error::Result;
use crate::torch::{Params, Rng, round_f16, setting, tensor, values};
use crate::vqvae::{Ball, Stage1};

/// LoRA beside the matrices of some layers.
#[derive(Debug)]
pub struct Lora {
    /// (layer, target, A [rank, in], B [out, rank])
    pairs: Vec<(usize, Target, Tensor, Tensor)>,
    scale: f64,
    dropout: f64,
}

impl Lora {
    /// A uniform in ±1/√in (Kaiming with a = √5, as in the LoRA code), B zero: the model starts unchanged. Parameters under `lora.`.
    pub fn new(params: &mut Params, settings: &Adapter, config: &LlamaConfig) -> Result<Self> {
        let (q, kv) = (config.num_attention_heads * config.head_dim, config.num_key_value_heads * config.head_dim);
        let (hidden, inner) = (config.hidden_size, config.intermediate_size);
        let (from, to) = settings.layers.unwrap_or((0, config.num_hidden_layers));
        if from >= to || to > config.num_hidden_layers {
            return Err(setting("adapter.layers", format!("from < to ≤ {}", config.num_hidden_layers), format!("{from}, {to}")));
        }
        let mut targets = settings.targets.clone();
        targets.sort_unstable();
        targets.dedup();
        let mut pairs = Vec::new();
        for layer in from..to {
            for &target in &targets {
                let (cols, rows) = match target {
                    Target::Q => (hidden, q),
                    Target::K | Target::V => (hidden, kv),
                    Target::O => (q, hidden),
                    Target::Gate | Target::Up => (hidden, inner),
                    Target::Down => (inner, hidden),
                };
                let name = format!("lora.layers.{layer}.{}", target.name());
                let a = params.uniform(format!("{name}.a"), &[settings.rank as i64, cols as i64], 1.0 / (cols as f32).sqrt());
                let b = params.uniform(format!("{name}.b"), &[rows as i64, settings.rank as i64], 0.0);
                pairs.push((layer, target, a, b));
            }
        }
        Ok(Self { pairs, scale: f64::from(settings.alpha) / settings.rank as f64, dropout: settings.dropout })
    }

    /// (alpha / rank) · B A x for x [rows, in], where this matrix has an adapter; `drops`: with dropout before A.
    pub fn delta(&self, layer: usize, target: Target, x: &Tensor, drops: bool) -> Option<Tensor> {
        let (_, _, a, b) = self.pairs.iter().find(|(l, t, _, _)| (*l, *t) == (layer, target))?;
        let x = if drops { x.dropout(self.dropout, true) } else { x.shallow_clone() };
        Some(x.linear::<&Tensor>(a, None).linear::<&Tensor>(b, None) * self.scale)
    }

    /// Whether its settings ask for dropout.
    pub fn drops(&self) -> bool {
        self.dropout > 0.0
    }

    /// Rounds all matrices to f16, in place: what is measured afterwards is what ships.
    pub fn round(&mut self) {
        tch::no_grad(|| {
            for (_, _, a, b) in &mut self.pairs {
                a.copy_(&round_f16(a));
                b.copy_(&round_f16(b));
            }
        });
    }

    /// Tensors in the artifact's form.
    pub fn export(&self) -> Result<Vec<FloatTensor>> {
        let mut out = Vec::new();
        for (layer, target, a, b) in &self.pairs {
            for (part, t) in [("a", a), ("b", b)] {
                let shape = t.size().iter().map(|n| *n as usize).collect();
                out.push((format!("lora.layers.{layer}.{}.{part}", target.name()), shape, values(t)?, Store::F16));
            }
        }
        Ok(out)
    }
}

/// What stage 1 knows of its codes.
#[derive(Clone, Copy, Debug)]
pub struct Codebook<'a> {
    /// v_u [codes, dim]
    pub tangent: &'a Tensor,
    /// Where they live.
    pub ball: Ball,
    /// [hidden, dim] and `[hidden]`, where the MMD learned them.
    pub word_map: Option<(&'a Tensor, &'a Tensor)>,
    /// How often each code occurs in clips of each label, and the mean token embedding of each label's text: [codes, labels] and [labels, hidden].
    pub labels: Option<(&'a Tensor, &'a Tensor)>,
}

impl<'a> Codebook<'a> {
    /// Of a stage 1, with what its codes say of labels.
    pub fn of(stage1: &'a Stage1, labels: Option<(&'a Tensor, &'a Tensor)>) -> Self {
        Self { tangent: stage1.tangent(), ball: Ball::new(stage1.meta.quantizer.geometry), word_map: stage1.word_map(), labels }
    }
}

/// Codes as the language model reads them.
#[derive(Debug)]
pub struct CodeMap {
    /// [codes, dim]
    points: Tensor,
    point: Point,
    ball: Ball,
    through: Through,
}

#[derive(Debug)]
enum Through {
    /// [hidden, dim] and `[hidden]`
    Affine(Tensor, Tensor),
    Factor(f64),
}

impl CodeMap {
    /// From the codebook of a stage 1 and token embeddings [vocab, hidden]. Trained parts stand under `map.`.
    pub fn new(params: &mut Params, settings: &Map, codebook: &Codebook<'_>, tokens: &Tensor, seed: u64) -> Result<Self> {
        let &Codebook { tangent, ball, word_map, labels } = codebook;
        let (dim, hidden) = (tangent.size()[1] as usize, tokens.size()[1] as usize);
        let points = placed(settings.point, ball, tangent);
        let device = params.device();
        let mut own = |name: &str, t: Tensor, trained: bool| if trained { params.add(name, &t) } else { t };
        let points = own("map.points", points, settings.points_lr_factor > 0.0);
        let through = match settings.form {
            Form::Identity if dim != hidden => {
                return Err(setting("map.form", format!("affine, as a code has {dim} features and an embedding {hidden}"), "identity"));
            }
            Form::Identity => Through::Factor(f64::from(settings.scale)),
            Form::Affine if dim > hidden => {
                return Err(setting("encoder.dim of stage 1", format!("at most the language model's {hidden}"), dim));
            }
            Form::Affine if settings.start == Start::Words => {
                let Some((weight, bias)) = word_map.filter(|(weight, _)| weight.size()[0] == hidden as i64) else {
                    return Err(setting("map.start", format!("orthonormal, as stage 1 has no map to {hidden} features"), "words"));
                };
                let (weight, bias) = (weight.shallow_clone(), bias.shallow_clone());
                Through::Affine(own("map.weight", weight, settings.trainable), own("map.bias", bias, settings.trainable))
            }
            Form::Affine if settings.start == Start::Labels => {
                let Some((counts, texts)) = labels else {
                    return Err(setting("map.start", "orthonormal or words, as no clips with labels are given", "labels"));
                };
                let mean = tokens.mean_dim([0i64].as_slice(), false, Kind::Float);
                let (weight, bias) = towards_labels(&points, counts, texts, &mean, f64::from(settings.scale));
                Through::Affine(own("map.weight", weight, settings.trainable), own("map.bias", bias, settings.trainable))
            }
            Form::Affine => {
                let weight = tensor(&orthonormal_columns(hidden, dim, settings.scale, seed), &[hidden as i64, dim as i64], device);
                let bias = tokens.mean_dim([0i64].as_slice(), false, Kind::Float);
                Through::Affine(own("map.weight", weight, settings.trainable), own("map.bias", bias, settings.trainable))
            }
        };
        Ok(Self { points, point: settings.point, ball, through })
    }

    /// [codes, hidden]
    pub fn embeddings(&self) -> Tensor {
        self.through(&self.points)
    }

    /// Rows [clips, w, hidden] of clipped tangent features [clips, w, dim], as if each were a code of its own.
    pub fn of_features(&self, features: &Tensor) -> Tensor {
        self.through(&placed(self.point, self.ball, features))
    }

    fn through(&self, points: &Tensor) -> Tensor {
        match &self.through {
            Through::Affine(weight, bias) => points.linear(weight, Some(bias)),
            Through::Factor(factor) => points * *factor,
        }
    }
}

/// Tangent vectors as the points that go in.
fn placed(point: Point, ball: Ball, tangent: &Tensor) -> Tensor {
    match point {
        Point::Ball => ball.exp0(tangent),
        Point::Tangent => tangent.shallow_clone(),
    }
}

/// Weight [hidden, dim] and bias `[hidden]` of the affine map of points [codes, dim] that comes nearest to μ + s (Σ_l p(l | u) e_l − ē), weighted by
/// how often a code u occurs: ridge regression. `counts` [codes, labels] give p, `texts` [labels, hidden] are the e_l with mean ē, `mean` `[hidden]` is
/// μ, and s makes the e_l − ē as long as `scale`, on average.
fn towards_labels(points: &Tensor, counts: &Tensor, texts: &Tensor, mean: &Tensor, scale: f64) -> (Tensor, Tensor) {
    /// Of the mean square of a feature: enough for features that hardly vary.
    const RIDGE: f64 = 1e-3;
    let (double, dim) = (Kind::Double, points.size()[1]);
    let norms = |x: &Tensor| x.square().sum_dim_intlist([-1i64].as_slice(), true, double);
    let texts = texts.to_kind(double);
    let centred = &texts - texts.mean_dim([0i64].as_slice(), true, double);
    let length = norms(&centred).sqrt().mean(double).clamp_min(1e-12);
    let uses = counts.to_kind(double).sum_dim_intlist([1i64].as_slice(), true, double);
    let shares = counts.to_kind(double) / uses.clamp_min(1.0);
    let targets = shares.matmul(&centred) * (length.reciprocal() * scale);
    // Features and targets around their weighted means: the bias takes up the rest.
    let weights = &uses / uses.sum(double).clamp_min(1.0);
    let middle = |x: &Tensor| (x * &weights).sum_dim_intlist([0i64].as_slice(), true, double);
    let features = points.to_kind(double);
    let (feature_mean, target_mean) = (middle(&features), middle(&targets));
    let (x, y) = (&features - &feature_mean, &targets - &target_mean);
    let weighted = (&x * &weights).tr();
    let square = weighted.matmul(&x);
    let ridge = square.diag(0).mean(double) * RIDGE + 1e-12;
    let solved = Tensor::linalg_solve(&(square + Tensor::eye(dim, (double, points.device())) * ridge), &weighted.matmul(&y), true);
    let bias = mean.to_kind(double) + (target_mean - feature_mean.matmul(&solved)).squeeze_dim(0);
    (solved.tr().contiguous().to_kind(Kind::Float), bias.to_kind(Kind::Float))
}

/// `rows` × `cols`, row-major: orthonormal columns (Gram and Schmidt, twice, in f64) times `scale`.
fn orthonormal_columns(rows: usize, cols: usize, scale: f32, seed: u64) -> Vec<f32> {
    let mut rng = Rng::new(seed, "code map", 0);
    let mut columns: Vec<Vec<f64>> = Vec::with_capacity(cols);
    for _ in 0..cols {
        let mut column: Vec<f64> = (0..rows).map(|_| f64::from(rng.normal())).collect();
        for _ in 0..2 {
            for other in &columns {
                let along: f64 = column.iter().zip(other).map(|(a, b)| a * b).sum();
                column.iter_mut().zip(other).for_each(|(a, b)| *a -= along * b);
            }
            let norm = column.iter().map(|a| a * a).sum::<f64>().sqrt().max(1e-30);
            column.iter_mut().for_each(|a| *a /= norm);
        }
        columns.push(column);
    }
    (0..rows * cols).map(|i| (columns[i % cols][i / cols] * f64::from(scale)) as f32).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Codes whose labels follow from their features linearly come to lie on their labels' words; a code of two labels between them.
    #[test]
    fn codes_start_at_the_words_of_their_labels() -> crate::Result<()> {
        let points = Tensor::from_slice(&[1f32, 0.0, 0.0, 1.0, -1.0, -1.0, 0.5, 0.5]).view([4, 2]);
        let counts = Tensor::from_slice(&[30f32, 0.0, 0.0, 0.0, 30.0, 0.0, 0.0, 0.0, 30.0, 20.0, 20.0, 0.0]).view([4, 3]);
        let texts = Tensor::from_slice(&[2f32, 0.0, 0.0, 0.0, 2.0, 0.0, 0.0, 0.0, 2.0]).view([3, 3]);
        let mean = Tensor::from_slice(&[5f32, 5.0, 5.0]);
        let (weight, bias) = towards_labels(&points, &counts, &texts, &mean, 3.0);
        let rows = values(&points.linear(&weight, Some(&bias)))?;
        let away = |row: usize| [0, 1, 2].map(|i| rows[3 * row + i] - 5.0);
        for row in 0..3 {
            let length = away(row).iter().map(|x| x * x).sum::<f32>().sqrt();
            let at = (0..3).max_by(|a, b| away(row)[*a].total_cmp(&away(row)[*b])).unwrap_or(9);
            assert!(at == row && (length - 3.0).abs() < 0.5, "code {row}: {:?}", away(row));
        }
        let between = away(3);
        assert!((between[0] - between[1]).abs() < 0.1 && between[2] < between[0], "{between:?}");
        Ok(())
    }

    #[test]
    fn columns_are_orthonormal() {
        let (rows, cols) = (40, 24);
        let m = orthonormal_columns(rows, cols, 2.0, 1);
        for i in 0..cols {
            for j in 0..=i {
                let dot: f32 = (0..rows).map(|r| m[r * cols + i] * m[r * cols + j]).sum();
                let expected = if i == j { 4.0 } else { 0.0 };
                assert!((dot - expected).abs() < 1e-5, "columns {i} and {j}: {dot}");
            }
        }
    }
}
