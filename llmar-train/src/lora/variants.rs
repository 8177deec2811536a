//! Tests of what stage 2 can do otherwise: checkpointing, precisions, all weights, features, a head, listed labels, unseen classes, the words' map.

use std::path::PathBuf;

use llmar::text::Tokenizer;
use tch::{Reduction, Tensor};

use super::adapter::Lora;
use super::llama::{Dropout, Llama, Packing};
use super::tests::{agrees_with_the_runtime, folder, imported, small_lora};
use super::{Adapter, Config, Head, Precision, Prompt, Words, code_rows, train};
use crate::artifacts::{self, AdapterMeta, Answer, BaseMeta, HEAD, Reads};
use crate::error::{Error, Result};
use crate::export::export;
use crate::import::tokenizer;
use crate::peft;
use crate::testing::shared;
use crate::torch::{Params, Rng, tensor, values};
use crate::vqvae::tests::{IDLE, WINDOWS, alone, small_live_run, small_run};
use crate::vqvae::{self, ClipSet, Stage1};

const CPU: tch::Device = tch::Device::Cpu;

/// The small real model; tests without it are skipped.
fn stories(test: &str) -> Option<PathBuf> {
    shared(test, "golden/stories260k")
}

/// Words, an adapter with dropout whose B is not zero, and code embeddings that want a gradient, for a small model.
fn made_up(llama: &Llama, base: &artifacts::Opened<BaseMeta>) -> Result<(Words, Params, Lora, Tensor)> {
    let tokenizer = Tokenizer::new(tokenizer::from_base(base)?)?;
    let labels = ["walk".to_owned(), "wave hand".to_owned()];
    let words = Words::new(&tokenizer, &Prompt::default(), &labels, base.meta.eos_id, llama.config.vocab_size)?;
    let mut params = Params::new(CPU, 3);
    let lora = Lora::new(&mut params, &Adapter { rank: 4, dropout: 0.2, ..Adapter::default() }, &llama.config)?;
    let mut rng = Rng::new(9, "test", 0);
    tch::no_grad(|| {
        for (_, t) in params.entries() {
            let drawn: Vec<f32> = (0..t.numel()).map(|_| 0.1 * rng.normal()).collect();
            t.shallow_clone().copy_(&tensor(&drawn, &t.size(), CPU));
        }
    });
    let hidden = llama.config.hidden_size as i64;
    let drawn: Vec<f32> = (0..8 * hidden).map(|_| 0.1 * rng.normal()).collect();
    let codes = params.add("codes", &tensor(&drawn, &[8, hidden], CPU));
    Ok((words, params, lora, codes))
}

/// One pass of two clips, and every gradient of its loss.
fn gradients(llama: &Llama, made: &(Words, Params, Lora, Tensor), checkpointing: bool) -> Result<(f64, Vec<Vec<f32>>)> {
    let (words, params, lora, codes) = made;
    let rows = code_rows(codes, &[vec![1, 2, 3], vec![4, 0, 7]]);
    let (packed, targets) = words.with_answers(llama, &rows, &words.suffix, &[0, 1]);
    let targets = Tensor::from_slice(&targets);
    let loss = |hidden: &Tensor| llama.words(hidden).cross_entropy_loss(&targets, None::<&Tensor>, Reduction::Sum, -100, 0.0);
    let dropout = Dropout::Seeded(77);
    let value = if checkpointing {
        llama.backward_checkpointed(&packed.x, &packed.packing, &packed.keep, Some(lora), dropout, loss)
    } else {
        let value = loss(&llama.hidden(&packed.x, &packed.packing, &packed.keep, Some(lora), dropout));
        value.backward();
        value.double_value(&[])
    };
    let all = params.entries().map(|(_, t)| values(&t.grad())).collect::<Result<_>>()?;
    for (_, t) in params.entries() {
        let _ = t.grad().zero_();
    }
    Ok((value, all))
}

#[test]
fn checkpointing_gives_the_same_gradients() -> Result<()> {
    let _alone = alone();
    let Some(source) = stories("checkpointing_gives_the_same_gradients") else { return Ok(()) };
    let folder = folder()?;
    let base = artifacts::open::<BaseMeta>(&imported(&source, folder.path())?)?;
    let llama = Llama::read(&base, CPU, Precision::F32)?;
    let made = made_up(&llama, &base)?;
    let (plain, expected) = gradients(&llama, &made, false)?;
    let (value, got) = gradients(&llama, &made, true)?;
    assert_eq!(value, plain, "the forward pass is the same, dropout included");
    for (((name, _), expected), got) in made.1.entries().zip(&expected).zip(&got) {
        let size = expected.iter().map(|g| g.abs()).fold(0f32, f32::max);
        assert!(size > 0.0, "{name} has no gradient");
        let worst = expected.iter().zip(got).map(|(a, b)| (a - b).abs()).fold(0f32, f32::max);
        assert!(worst <= 1e-5 * size, "{name}: {worst} apart of {size}");
    }
    Ok(())
}

/// Rounding every factor to p bits of mantissa leaves logits apart by the order of u = 2⁻ᵖ of their norm: no less, or it was not done, and no
/// more than a few u over five layers.
#[test]
fn half_precision_weights_give_nearly_the_same_logits() -> Result<()> {
    let _alone = alone();
    let Some(source) = stories("half_precision_weights_give_nearly_the_same_logits") else { return Ok(()) };
    let folder = folder()?;
    let base = artifacts::open::<BaseMeta>(&imported(&source, folder.path())?)?;
    let logits = |precision: Precision| -> Result<Vec<f32>> {
        let llama = Llama::read(&base, CPU, precision)?;
        let (words, _, lora, codes) = made_up(&llama, &base)?;
        let rows = code_rows(&codes, &[vec![1, 2, 3], vec![4, 0, 7]]);
        let (packed, _) = words.with_answers(&llama, &rows, &words.suffix, &[0, 1]);
        values(&tch::no_grad(|| llama.logits(&packed.x, &packed.packing, &packed.keep, Some(&lora), Dropout::Off)))
    };
    let exact = logits(Precision::F32)?;
    let norm = |x: &mut dyn Iterator<Item = f32>| x.map(|x| f64::from(x).powi(2)).sum::<f64>().sqrt();
    let size = norm(&mut exact.iter().copied());
    for (precision, bits) in [(Precision::F16, 11), (Precision::Bf16, 8)] {
        let u = 2f64.powi(-bits);
        let error = norm(&mut logits(precision)?.iter().zip(&exact).map(|(a, b)| a - b)) / size;
        assert!(error > u / 4.0 && error < 4.0 * u, "{precision:?}: {error}");
    }
    Ok(())
}

#[test]
fn all_weights_can_be_tuned_and_the_runtime_agrees() -> Result<()> {
    let _alone = alone();
    let Some(source) = stories("all_weights_can_be_tuned_and_the_runtime_agrees") else { return Ok(()) };
    let (folder, mut config) =
        small_lora(&source, &["tune=all", "train.lr=3e-3", "train.steps=40", "snapshot_steps=0", "train.checkpointing=true"])?;
    let out = folder.path().join("all");
    let summary = train(&config, &out, false, true)?;
    assert!(summary["validation"]["top1"].as_f64() >= Some(60.0), "{summary:#}");
    let untouched = artifacts::open::<BaseMeta>(&config.base)?;
    let tuned = artifacts::open::<BaseMeta>(&out.join("base.safetensors"))?;
    assert_eq!(tuned.names().collect::<Vec<_>>(), untouched.names().collect::<Vec<_>>());
    let matrix = "model.layers.0.self_attn.v_proj.weight";
    let shape = tuned.info(matrix).map(|(shape, _)| shape.to_vec()).unwrap_or_default();
    assert_ne!(tuned.floats(matrix, &shape)?, untouched.floats(matrix, &shape)?);
    // The adapter goes with its own base and no other.
    let adapter = out.join("adapter.safetensors");
    let path = folder.path().join("wrong.llmar");
    assert!(export(&config.base, &config.stage1, &adapter, llmar::device::Scheme::F16, &path).is_err());
    config.base = out.join("base.safetensors");
    config.adapter.targets.clear();
    agrees_with_the_runtime(&config, &adapter, folder.path(), usize::MAX)
}

#[test]
fn features_can_be_read_without_codes_but_not_by_the_runtime() -> Result<()> {
    let _alone = alone();
    let Some(source) = stories("features_can_be_read_without_codes_but_not_by_the_runtime") else { return Ok(()) };
    let (folder, config) = small_lora(&source, &["map.reads=features"])?;
    let out = folder.path().join("features");
    let summary = train(&config, &out, false, true)?;
    assert!(summary["validation"]["top1"].as_f64() >= Some(60.0), "{summary:#}");
    assert!(summary["test"]["top1"].as_f64().is_some() && summary["test_clips"].as_u64() > Some(0), "{summary:#}");
    let (adapter, model) = (out.join("adapter.safetensors"), folder.path().join("model.llmar"));
    let refused = |result: Result<()>| {
        assert!(matches!(&result, Err(Error::Unsupported { name, got, .. }) if name == "reads" && got == "features"), "{result:?}");
    };
    refused(export(&config.base, &config.stage1, &adapter, llmar::device::Scheme::F16, &model).map(|_| ()));
    refused(peft::export(&adapter, &config.base, None, &folder.path().join("peft")).map(|_| ()));
    assert!(!model.exists() && !folder.path().join("peft").exists());
    Ok(())
}

/// Scores of a head against its definition, one clip a pass and both in one; 3 labels, as the words' own count does not matter.
#[test]
fn a_head_reads_the_last_hidden_state_of_the_prompt() -> Result<()> {
    let _alone = alone();
    let Some(source) = stories("a_head_reads_the_last_hidden_state_of_the_prompt") else { return Ok(()) };
    let folder = folder()?;
    let base = artifacts::open::<BaseMeta>(&imported(&source, folder.path())?)?;
    let llama = Llama::read(&base, CPU, Precision::F32)?;
    let (words, mut params, lora, codes) = made_up(&llama, &base)?;
    let head = Head::new(&mut params, 3, llama.config.hidden_size);
    let sentences = [vec![1, 2, 3], vec![4, 0, 7]];
    let scores = |at_once| head.scores(&llama, Some(&lora), &words, (2, at_once), |part| code_rows(&codes, &sentences[part]));
    let even = scores(2)?;
    assert!(even.iter().flatten().all(|s| (s + 3f64.ln()).abs() < 1e-6), "at first all labels are equally likely: {even:?}");
    let Some((_, weight)) = params.entries().find(|(name, _)| *name == HEAD) else { return Err(Error::format(HEAD, "not trained")) };
    let drawn: Vec<f32> = (0..weight.numel()).map(|i| (i as f32 * 0.7).sin()).collect();
    tch::no_grad(|| weight.shallow_clone().copy_(&tensor(&drawn, &weight.size(), CPU)));
    let (together, alone) = (scores(2)?, scores(1)?);
    for (clip, sentence) in sentences.iter().enumerate() {
        // The prompt as one chain of rows without a shared prefix, and every row kept: the last one counts.
        let rows = code_rows(&codes, std::slice::from_ref(sentence)).squeeze_dim(0);
        let x = Tensor::cat(&[llama.embed(&words.prefix), rows, llama.embed(&words.suffix)], 0);
        let n = x.size()[0];
        let packing = Packing::causal(0, 1, n as usize, CPU);
        let keep: Vec<i64> = (0..n).collect();
        let hidden = values(&tch::no_grad(|| llama.hidden(&x, &packing, &keep, Some(&lora), Dropout::Off)))?;
        let last = &hidden[hidden.len() - llama.config.hidden_size..];
        let logits = drawn.chunks(last.len()).map(|row| row.iter().zip(last).map(|(w, h)| f64::from(*w) * f64::from(*h)).sum::<f64>());
        let logits: Vec<f64> = logits.collect();
        let sum = logits.iter().map(|l| l.exp()).sum::<f64>().ln();
        for (label, logit) in logits.iter().enumerate() {
            for got in [together[clip][label], alone[clip][label]] {
                assert!((got - (logit - sum)).abs() < 1e-3, "clip {clip}, label {label}: {got}, expected {}", logit - sum);
            }
        }
    }
    Ok(())
}

#[test]
fn a_head_learns_resumes_and_is_not_exported() -> Result<()> {
    let _alone = alone();
    let Some(source) = stories("a_head_learns_resumes_and_is_not_exported") else { return Ok(()) };
    let sets = ["answer=linear_head", "train.checkpointing=true", "train.validate_steps=30", "train.patience=9"];
    let (folder, config) = small_lora(&source, &sets)?;
    let out = folder.path().join("head");
    let summary = train(&config, &out, false, true)?;
    assert!(summary["validation"]["top1"].as_f64() >= Some(60.0), "{summary:#}");
    assert!(summary["test"]["top1"].as_f64().is_some() && summary["test_clips"].as_u64() > Some(0), "{summary:#}");
    let path = out.join("adapter.safetensors");
    let adapter = artifacts::open::<AdapterMeta>(&path)?;
    let (labels, hidden) = (adapter.meta.labels.len(), artifacts::open::<BaseMeta>(&config.base)?.meta.config.hidden_size);
    assert!(adapter.meta.answer == Answer::LinearHead && adapter.floats(HEAD, &[labels, hidden])?.iter().any(|w| *w != 0.0));
    let fitted = summary["validation"]["temperature"].as_f64().map(|t| t as f32);
    assert_eq!(Some(adapter.meta.calibration.temperature), fitted);
    // A run that was killed behind its last snapshot (60 steps, one every 4), or behind an early one, ends in the same file.
    let whole = std::fs::read(&path).map_err(Error::io(&path))?;
    train(&config, &out, true, true)?;
    assert!(std::fs::read(&path).map_err(Error::io(&path))? == whole, "a resumed run ends elsewhere");
    let killed = Config { snapshot_steps: 57, ..config.clone() };
    let out = folder.path().join("killed");
    train(&killed, &out, false, false)?;
    let first = std::fs::read(out.join("adapter.safetensors")).map_err(Error::io(&out))?;
    train(&killed, &out, true, false)?;
    assert!(std::fs::read(out.join("adapter.safetensors")).map_err(Error::io(&out))? == first, "a resumed run ends elsewhere");

    let listed = Config { prompt: Prompt { listed: 0.5, ..Prompt::default() }, ..config.clone() };
    assert!(listed.check().is_err_and(|e| e.to_string().contains("prompt.listed")));
    let model = folder.path().join("model.llmar");
    let error = export(&config.base, &config.stage1, &path, llmar::device::Scheme::F16, &model).map(|_| ());
    assert!(matches!(&error, Err(Error::Unsupported { name, .. }) if name == "answer"), "{error:?}");
    assert!(error.is_err_and(|e| e.to_string().contains("expected label_text") && e.to_string().contains("got linear_head")));
    let error = peft::export(&path, &config.base, None, &folder.path().join("peft"));
    assert!(matches!(&error, Err(Error::Unsupported { name, .. }) if name == "answer"), "{error:?}");
    assert!(!model.exists() && !folder.path().join("peft").exists());
    Ok(())
}

#[test]
fn unseen_classes_are_neither_read_nor_answered_and_labels_can_be_listed() -> Result<()> {
    let _alone = alone();
    let Some(source) = stories("unseen_classes_are_neither_read_nor_answered_and_labels_can_be_listed") else { return Ok(()) };
    let (folder, stage1) = small_run(&["features.steps=10"])?;
    let classes = ClipSet::read_and_measure(&stage1.data, &stage1.input)?.0.classes;
    let unseen = format!("data.unseen=[{:?}]", classes[1]);
    let mut stage1 = vqvae::Config { ..stage1 };
    stage1.data.unseen = vec![classes[1].clone()];
    vqvae::train(&stage1, &folder.path().join("stage1"), false)?;
    let listed = ["prompt.listed=1", "prompt.list=[2, 2]", "train.steps=4", &unseen];
    let (other, mut config) = small_lora(&source, &listed)?;
    config.stage1 = folder.path().join("stage1/stage1.safetensors");
    config.data.archive.clone_from(&stage1.data.archive);
    train(&config, &other.path().join("lora"), false, false)?;
    let adapter = artifacts::open::<AdapterMeta>(&other.path().join("lora/adapter.safetensors"))?;
    let rest: Vec<String> = classes.iter().filter(|c| **c != classes[1]).cloned().collect();
    assert_eq!(adapter.meta.labels, rest);
    let preprocess = Stage1::read(&config.stage1, CPU)?.meta.preprocess;
    let test = ClipSet::read_test(&config.data, &preprocess)?;
    assert!(!test.is_empty() && test.labels().iter().all(|label| *label < rest.len()));
    config.data.unseen = vec!["no such class".to_owned()];
    let error = train(&config, &other.path().join("lora"), false, false).map_err(|e| e.to_string());
    assert!(error.as_ref().is_err_and(|e| e.contains("data.unseen")), "{error:?}");
    Ok(())
}

#[test]
fn codes_can_start_where_the_words_lie() -> Result<()> {
    let _alone = alone();
    let Some(source) = stories("codes_can_start_where_the_words_lie") else { return Ok(()) };
    let (folder, mut config) = small_lora(&source, &["map.start=words", "train.steps=2"])?;
    let out = folder.path().join("lora");
    let error = train(&config, &out, false, false).map_err(|e| e.to_string());
    assert!(error.as_ref().is_err_and(|e| e.contains("map.start")), "{error:?}");
    let base = format!("losses.mmd_base={:?}", config.base.display().to_string());
    let (_made, stage1) =
        small_run(&["quantizer.codes=16", "quantizer.update={kind=\"gradient\"}", "losses.mmd=1", "losses.embed=1", &base])?;
    vqvae::train(&stage1, &folder.path().join("words"), false)?;
    config.stage1 = folder.path().join("words/stage1.safetensors");
    config.data.archive.clone_from(&stage1.data.archive);
    config.train.steps = 0;
    train(&config, &out, false, false)?;
    // Untrained, the codes' rows are the map's image of the codebook.
    let stage1 = Stage1::read(&config.stage1, CPU)?;
    let Some((weight, bias)) = stage1.word_map() else { return Err(Error::format("stage 1", "no map")) };
    let expected = values(&stage1.tangent().linear(weight, Some(bias)))?;
    let adapter = artifacts::open::<AdapterMeta>(&out.join("adapter.safetensors"))?;
    let shape = [stage1.meta.quantizer.codes, weight.size()[0] as usize];
    let got = adapter.floats("quantizer.embedding", &shape)?;
    assert!(got.iter().zip(&expected).all(|(a, b)| (a - b).abs() <= 1e-3 * b.abs().max(1e-2)));
    Ok(())
}

#[test]
fn a_live_model_reads_windows_and_names_rest() -> Result<()> {
    let _alone = alone();
    let Some(source) = shared("a_live_model_reads_windows_and_names_rest", "golden/stories260k") else { return Ok(()) };
    let (folder, stage1) = small_live_run(&["quantizer.codes=16"])?;
    vqvae::train(&stage1, &folder.path().join("stage1"), false)?;
    let windows = format!("variation.clip.windows={WINDOWS}");
    let (other, mut config) = small_lora(&source, &[IDLE, &windows, "map.start=labels", "train.steps=90", "train.lr=5e-3"])?;
    // A stage 1 that is not live takes neither.
    let error = train(&config, &other.path().join("lora"), false, false).map_err(|e| e.to_string());
    assert!(error.as_ref().is_err_and(|e| e.contains("variation.clip.windows")), "{error:?}");
    config.stage1 = folder.path().join("stage1/stage1.safetensors");
    config.data.archive.clone_from(&stage1.data.archive);
    let out = other.path().join("lora");
    let summary = train(&config, &out, false, false)?;
    let windows = &summary["validation_windows"];
    assert!(summary["validation"]["top1"].as_f64() >= Some(90.0) && windows["named"].as_f64() >= Some(90.0), "{summary:#}");
    assert!(windows["idle_recall"].as_f64() >= Some(85.0), "{summary:#}");
    let adapter = artifacts::open::<AdapterMeta>(&out.join("adapter.safetensors"))?.meta;
    assert_eq!((adapter.labels.len(), adapter.idle.as_deref()), (4, Some("stand still")));
    assert_eq!(adapter.needs.get("wave").map(Vec::len), Some(3));
    // Interrupted and resumed, it ends in the same file.
    let first = std::fs::read(out.join("adapter.safetensors")).map_err(Error::io(&out))?;
    train(&config, &out, true, false)?;
    assert!(std::fs::read(out.join("adapter.safetensors")).map_err(Error::io(&out))? == first, "a resumed run ends elsewhere");
    agrees_with_the_runtime(&config, &out.join("adapter.safetensors"), other.path(), usize::MAX)?;
    config.map.reads = Reads::Features;
    assert!(train(&config, &out, false, false).is_err_and(|e| e.to_string().contains("map.reads")));
    Ok(())
}
