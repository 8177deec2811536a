//! The recogniser on the tiny model: exact scores, the same bits for any threads and batches, replaced labels, and calls that fail.

#[path = "common/golden.rs"]
mod golden;
#[path = "common/scores.rs"]
mod scores;
#[path = "common/shared.rs"]
mod shared;
#[path = "common/tiny.rs"]
mod tiny;

use std::sync::Arc;
use std::time::{Duration, Instant};

use llmar::Error;
use llmar::checkpoint::{Metadata, TensorData, write_checkpoint};
use llmar::control::{CancelToken, Control};
use llmar::device::Scheme;
use llmar::motion::ActionSentence;
use llmar::recognizer::{Model, OpenOptions, Options, Recognition, Recognizer};
use llmar::text::PROBABILITY_TOLERANCE;
use tiny::{Random, clip, motion};

fn model(scheme: Scheme) -> Arc<Model> {
    Model::from_bytes(&tiny::bytes(scheme), OpenOptions::default()).unwrap()
}

/// The tiny model with other metadata.
fn changed(scheme: Scheme, change: impl FnOnce(&mut Metadata)) -> llmar::Result<Arc<Model>> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("changed.llmar");
    let mut metadata = tiny::metadata(scheme);
    change(&mut metadata);
    write_checkpoint(&path, &metadata, &tiny::tensors(scheme))?;
    Model::from_bytes(&std::fs::read(path).unwrap(), OpenOptions::default())
}

fn recognizer(model: &Arc<Model>, threads: usize, top_k: usize) -> Recognizer {
    Recognizer::new(Arc::clone(model), Options { threads, top_k, ..Options::default() }).unwrap()
}

/// Weights that are finite but overflow: an error, not a confident answer about nothing.
#[test]
fn an_encoder_that_overflows_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("loud.llmar");
    let mut tensors = tiny::tensors(Scheme::Q8);
    for tensor in tensors.iter_mut().filter(|t| t.name.starts_with("encoder.") && t.name.ends_with(".weight")) {
        match &mut tensor.data {
            TensorData::F16(values) => values.to_mut().fill(half::f16::MAX),
            TensorData::F32(values) => values.to_mut().fill(1e30),
            other => panic!("an encoder of {other:?}"),
        }
    }
    write_checkpoint(&path, &tiny::metadata(Scheme::Q8), &tensors).unwrap();
    let model = Model::open(&path, OpenOptions::default()).unwrap();
    let joints = motion(1, 20);
    let error = recognizer(&model, 1, 1).recognize(&clip(&joints), &Control::default()).unwrap_err();
    assert!(matches!(&error, Error::Format { what, .. } if what == "encoder"), "{error}");
}

/// Labels with the bits of score and probability, tokens, bits of `missing`, unknown.
type Bits = (Vec<(usize, u32, u32)>, Vec<u16>, u32, bool);

/// Everything of an answer that must be equal bit for bit.
fn bits(answer: &Recognition) -> Bits {
    let top = answer.top.iter().zip(&answer.probabilities).map(|(s, p)| (s.label, s.log_prob.to_bits(), p.to_bits())).collect();
    (top, answer.sentence.tokens.clone(), answer.missing.to_bits(), answer.unknown)
}

fn random_sentence(seed: u64, len: usize) -> ActionSentence {
    let mut random = Random(seed);
    ActionSentence { tokens: (0..len).map(|_| ((random.next_f32() + 1.0) * 16.0) as u16).map(|t| t.min(31)).collect() }
}

#[test]
fn scores_are_those_of_every_label_spelled_out() {
    for scheme in tiny::SCHEMES {
        let model = model(scheme);
        let mut recognizer = recognizer(&model, 1, 0);
        let sentences = [random_sentence(1, 8), random_sentence(2, 3), random_sentence(3, 20)];
        let got = recognizer.score_sentences(&sentences, &Control::default()).unwrap();
        let metadata = model.metadata();
        let labels: Vec<_> = metadata.labels.iter().map(|l| l.ids.clone()).collect();
        for (sentence, got) in sentences.iter().zip(&got) {
            let want =
                scores::spelled_out(model.llama(), &model, &metadata.prompt.prefix_ids, sentence, &metadata.prompt.suffix_ids, &labels);
            for (got, want) in got.iter().zip(&want) {
                assert!((f64::from(*got) - want).abs() <= 1e-5 * want.abs(), "{scheme:?}: {got} against {want}");
            }
        }
    }
}

#[test]
fn the_ranking_is_that_of_all_scores() {
    let temperature = 2.5;
    let model = changed(Scheme::F32, |m| m.calibration.temperature = temperature).unwrap();
    let joints = motion(5, 40);
    for top_k in 1..=5 {
        let mut recognizer = recognizer(&model, 1, top_k);
        let answer = recognizer.recognize(&clip(&joints), &Control::default()).unwrap();
        let scores = recognizer.score_sentences(std::slice::from_ref(&answer.sentence), &Control::default()).unwrap().remove(0);
        let mut order: Vec<usize> = (0..scores.len()).collect();
        order.sort_by(|&a, &b| scores[b].total_cmp(&scores[a]));
        assert_eq!(answer.top.len(), top_k.min(4));
        let total: f64 = scores.iter().map(|s| f64::from(s / temperature).exp()).sum();
        for (place, (score, probability)) in answer.top.iter().zip(&answer.probabilities).enumerate() {
            assert_eq!((score.label, score.log_prob), (order[place], scores[order[place]]));
            let exact = f64::from(score.log_prob / temperature).exp() / total;
            let allowed = if top_k >= 4 { 1e-6 } else { 0.5 * PROBABILITY_TOLERANCE + 1e-6 };
            assert!((f64::from(*probability) - exact).abs() <= allowed, "{probability} against {exact}");
        }
        assert_eq!(answer.timings.prompt_rows, 8 + model.metadata().prompt.suffix_ids.len() as u64, "the prefix is not run again");
        assert!(answer.timings.label_rows > 0 && answer.timings.label_ns > 0 && answer.timings.prompt_ns > 0);
    }
}

#[test]
fn threads_and_batches_do_not_change_a_bit() {
    // More rows than one chunk holds, clips of several lengths.
    let motions: Vec<_> = (0..24).map(|i| motion(100 + i, 5 + 7 * i as usize)).collect();
    let clips: Vec<_> = motions.iter().map(|m| clip(m)).collect();
    for scheme in tiny::SCHEMES {
        let model = model(scheme);
        for top_k in [1, 2, 4] {
            let mut one = recognizer(&model, 1, top_k);
            let want: Vec<_> = clips.iter().map(|c| bits(&one.recognize(c, &Control::default()).unwrap())).collect();
            assert!(want.iter().any(|w| w.0 != want[0].0), "clips differ in their answers");
            for threads in [1, 2, 4] {
                let mut many = recognizer(&model, threads, top_k);
                let got = many.recognize_batch(&clips, &Control::default()).unwrap();
                assert_eq!(got.iter().map(bits).collect::<Vec<_>>(), want, "{scheme:?}, {threads} threads, top {top_k}");
                assert_eq!(bits(&many.recognize(&clips[7], &Control::default()).unwrap()), want[7]);
            }
        }
    }
    assert!(recognizer(&model(Scheme::F32), 1, 0).recognize_batch(&[], &Control::default()).unwrap().is_empty());
}

#[test]
fn one_model_serves_several_threads() {
    fn shareable<T: Send + Sync>(_: &T) {}
    let model = model(Scheme::Q8);
    shareable(&model);
    let joints = motion(9, 30);
    let want = bits(&recognizer(&model, 1, 0).recognize(&clip(&joints), &Control::default()).unwrap());
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let mut own = recognizer(&model, 1, 0);
                assert_eq!(bits(&own.recognize(&clip(&joints), &Control::default()).unwrap()), want);
            });
        }
    });
}

#[test]
fn replaced_labels_are_listed_in_the_prompt_and_scored() {
    let model = model(Scheme::F32);
    let mut recognizer = recognizer(&model, 1, 0);
    let joints = motion(11, 30);
    let before = bits(&recognizer.recognize(&clip(&joints), &Control::default()).unwrap());

    let labels = ["jump", "jump rope", "wave", "ärmel hoch"];
    recognizer.set_labels(&labels).unwrap();
    assert_eq!(recognizer.labels(), labels);
    let sentence = random_sentence(4, 8);
    let got = recognizer.score_sentences(std::slice::from_ref(&sentence), &Control::default()).unwrap().remove(0);
    let tokenizer = model.tokenizer().unwrap();
    let suffix = tokenizer.encode_continuation(", please predict the corresponding action from [jump, jump rope, wave, ärmel hoch].");
    let ids: Vec<_> = labels.iter().map(|l| tokenizer.encode_continuation(&format!(" {l}"))).collect();
    let want = scores::spelled_out(model.llama(), &model, &model.metadata().prompt.prefix_ids, &sentence, &suffix, &ids);
    for (got, want) in got.iter().zip(&want) {
        assert!((f64::from(*got) - want).abs() <= 1e-5 * want.abs(), "{got} against {want}");
    }

    // A refused list leaves the one before.
    let long = "x".repeat(1_025);
    let too_much: Vec<String> = (0..100).map(|i| format!("label {i}")).collect();
    let too_much: Vec<&str> = too_much.iter().map(|l| &l[..]).collect();
    let bad: [&[&str]; 6] = [&[], &["wave", ""], &["wave", " \t"], &["wave", "jump", "wave"], &["wave", &long], &too_much];
    for labels in bad {
        let error = recognizer.set_labels(labels).unwrap_err();
        assert!(matches!(error, Error::InvalidArgument { .. } | Error::Limit { .. }), "{error}");
    }
    assert_eq!(recognizer.labels(), ["jump", "jump rope", "wave", "ärmel hoch"]);
    // The end of an answer cannot be part of a label.
    assert!(recognizer.set_labels(&["wave<|im_end|>", "jump"]).is_err());
    assert_eq!(recognizer.score_sentences(&[sentence], &Control::default()).unwrap().remove(0), got);

    recognizer.reset_labels().unwrap();
    assert_eq!(recognizer.labels(), tiny::LABELS);
    assert_eq!(bits(&recognizer.recognize(&clip(&joints), &Control::default()).unwrap()), before);
}

/// Each probability over its mean on other clips, normalised, whatever number of labels comes back and whoever asks.
#[test]
fn what_labels_get_whatever_is_shown_is_taken_out() {
    let model = model(Scheme::F32);
    let (mut all, mut best) = (recognizer(&model, 1, 16), recognizer(&model, 2, 1));
    let others: Vec<_> = (50..55).map(|seed| motion(seed, 30)).collect();
    let asked: Vec<_> = (60..63).map(|seed| motion(seed, 24)).collect();
    let (others, asked): (Vec<_>, Vec<_>) = (others.iter().map(|m| clip(m)).collect(), asked.iter().map(|m| clip(m)).collect());
    let control = Control::default();
    let labels = ["jump", "wave", "sit down"];
    all.set_labels(&labels).unwrap();
    best.set_labels(&labels).unwrap();
    let probabilities = |answer: &Recognition| {
        let mut by_label = [0f64; 3];
        answer.top.iter().zip(&answer.probabilities).for_each(|(s, p)| by_label[s.label] = f64::from(*p));
        by_label
    };
    let plain = all.recognize_batch(&asked, &control).unwrap();
    let mut prior = [0f64; 3];
    for answer in all.recognize_batch(&others, &control).unwrap() {
        prior.iter_mut().zip(probabilities(&answer)).for_each(|(sum, p)| *sum += p / 5.0);
    }
    all.balance(&others, &control).unwrap();
    best.balance(&others, &control).unwrap();
    let balanced = all.recognize_batch(&asked, &control).unwrap();
    let mut moved = false;
    for (i, (before, after)) in plain.iter().zip(&balanced).enumerate() {
        let weights: Vec<f64> = probabilities(before).iter().zip(prior).map(|(p, prior)| p / prior).collect();
        let sum: f64 = weights.iter().sum();
        for (label, (got, weight)) in probabilities(after).iter().zip(&weights).enumerate() {
            assert!((got - weight / sum).abs() < 1e-5, "clip {i}, label {label}: {got} against {}", weight / sum);
        }
        assert!(after.probabilities.is_sorted_by(|a, b| a >= b));
        for score in &after.top {
            assert!(before.top.contains(score), "scores stay what they were");
        }
        moved |= probabilities(before).iter().zip(probabilities(after)).any(|(a, b)| (a - b).abs() > 1e-3);
        // One label of a single clip is the best of them, over all labels.
        let one = best.recognize(&asked[i], &control).unwrap();
        assert_eq!((&one.top[..], &one.probabilities[..]), (&after.top[..1], &after.probabilities[..1]));
    }
    assert!(moved, "these labels are as good as equal: the test shows nothing");

    // A refused or stopped call changes nothing; other labels end it, and so do no clips.
    let broken = [others[0], llmar::skeleton::Clip { frames: 0, joints: &[], ..others[1] }];
    assert!(matches!(all.balance(&broken, &control), Err(Error::Clip { index: 1, .. })));
    let cancel = CancelToken::default();
    cancel.request();
    assert!(matches!(all.balance(&others, &Control { cancel: Some(cancel), ..Control::default() }), Err(Error::Cancelled)));
    assert!(all.set_labels(&[]).is_err());
    assert_eq!(bits(&all.recognize(&asked[0], &control).unwrap()), bits(&balanced[0]));
    all.balance(&[], &control).unwrap();
    assert_eq!(bits(&all.recognize(&asked[0], &control).unwrap()), bits(&plain[0]));
    best.set_labels(&labels).unwrap();
    assert_eq!(best.recognize(&asked[0], &control).unwrap().top, plain[0].top[..1]);
    let greedy = Options { decoding: llmar::text::Decoding::Greedy, ..Options::default() };
    let error = Recognizer::new(Arc::clone(&model), greedy).unwrap().balance(&others, &control).unwrap_err();
    assert!(matches!(&error, Error::InvalidArgument { what, .. } if *what == "decoding"), "{error}");
}

#[test]
fn a_prompt_of_many_rows_runs_in_parts() {
    // A list of labels that makes the suffix longer than one pass.
    let model = changed(Scheme::F32, |m| m.llama.max_position_embeddings = 2_048).unwrap();
    let mut recognizer = recognizer(&model, 2, 0);
    let labels: Vec<String> = (0..60).map(|i| format!("action {i}")).collect();
    let labels: Vec<&str> = labels.iter().map(|l| &l[..]).collect();
    recognizer.set_labels(&labels).unwrap();
    let sentences = [random_sentence(6, 8), random_sentence(7, 9)];
    let got = recognizer.score_sentences(&sentences, &Control::default()).unwrap();
    let tokenizer = model.tokenizer().unwrap();
    let suffix = tokenizer.encode_continuation(&format!(", please predict the corresponding action from [{}].", labels.join(", ")));
    assert!(suffix.len() > 256, "{} rows", suffix.len());
    let ids: Vec<_> = labels.iter().take(3).map(|l| tokenizer.encode_continuation(&format!(" {l}"))).collect();
    for (sentence, got) in sentences.iter().zip(&got) {
        let want = scores::spelled_out(model.llama(), &model, &model.metadata().prompt.prefix_ids, sentence, &suffix, &ids);
        for (got, want) in got.iter().zip(&want) {
            assert!((f64::from(*got) - want).abs() <= 1e-5 * want.abs(), "{got} against {want}");
        }
    }
}

#[test]
fn a_stopped_or_failed_call_leaves_the_recogniser_usable() {
    let model = model(Scheme::Q4);
    let mut recognizer = recognizer(&model, 2, 3);
    let joints = motion(13, 30);
    let control = Control::default();
    let want = bits(&recognizer.recognize(&clip(&joints), &control).unwrap());

    let cancel = CancelToken::default();
    let cancelled = Control { cancel: Some(cancel.clone()), deadline: None };
    cancel.request();
    assert!(matches!(recognizer.recognize(&clip(&joints), &cancelled), Err(Error::Cancelled)));
    assert!(matches!(recognizer.score_sentences(&[random_sentence(1, 8)], &cancelled), Err(Error::Cancelled)));
    cancel.clear();
    assert_eq!(bits(&recognizer.recognize(&clip(&joints), &cancelled).unwrap()), want);

    // Deadlines that fall anywhere into the call: the answer is right or there is none.
    for microseconds in (0..4_000).step_by(100) {
        let deadline = Control { cancel: None, deadline: Some(Instant::now() + Duration::from_micros(microseconds)) };
        match recognizer.recognize(&clip(&joints), &deadline) {
            Ok(answer) => assert_eq!(bits(&answer), want),
            Err(error) => assert!(matches!(error, Error::DeadlineExceeded), "{error}"),
        }
        assert_eq!(bits(&recognizer.recognize(&clip(&joints), &control).unwrap()), want);
    }

    let broken = vec![f32::NAN; joints.len()];
    let error = recognizer.recognize_batch(&[clip(&joints), clip(&broken)], &control).unwrap_err();
    assert!(matches!(&error, Error::Clip { index: 1, source } if matches!(**source, Error::EmptyClip { .. })), "{error}");
    assert!(matches!(recognizer.recognize(&clip(&broken), &control), Err(Error::EmptyClip { .. })));
    for sentence in [ActionSentence { tokens: Vec::new() }, ActionSentence { tokens: vec![32] }, random_sentence(1, 300)] {
        let error = recognizer.score_sentences(&[random_sentence(1, 8), sentence], &control).unwrap_err();
        assert!(matches!(error, Error::InvalidArgument { .. } | Error::Limit { .. }), "{error}");
    }
    assert_eq!(bits(&recognizer.recognize(&clip(&joints), &control).unwrap()), want);
}

#[test]
fn options_outside_their_ranges_are_refused() {
    let model = model(Scheme::F32);
    let new = |options| Recognizer::new(Arc::clone(&model), options);
    assert!(matches!(new(Options { threads: 257, ..Options::default() }), Err(Error::Limit { limit: 256, got: 257, .. })));
    for threshold in [-0.1, 1.1, f32::NAN, f32::INFINITY] {
        assert!(matches!(new(Options { unknown_below: Some(threshold), ..Options::default() }), Err(Error::InvalidArgument { .. })));
    }
    let joints = motion(17, 30);
    for (threshold, unknown) in [(0.0, false), (1.0, true)] {
        let mut recognizer = new(Options { unknown_below: Some(threshold), ..Options::default() }).unwrap();
        assert_eq!(recognizer.recognize(&clip(&joints), &Control::default()).unwrap().unknown, unknown);
    }
}

#[test]
fn a_model_too_short_for_its_prompt_is_refused() {
    let open = |positions| {
        let model = changed(Scheme::F32, |m| m.llama.max_position_embeddings = positions)?;
        Recognizer::new(model, Options::default()).map(drop)
    };
    let m = tiny::metadata(Scheme::F32);
    let longest = m.labels.iter().map(|l| l.ids.len()).max().unwrap();
    let needed = m.prompt.prefix_ids.len() + tiny::FRAMES / 4 + m.prompt.suffix_ids.len() + longest;
    open(needed).unwrap();
    let error = open(needed - 1).unwrap_err();
    assert!(matches!(error, Error::Limit { .. } | Error::Format { .. }), "{error}");
}
