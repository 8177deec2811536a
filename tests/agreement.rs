//! CPU and GPU on real clips with the real language model: the committed demo adapter on UTD-MHAD's test subjects, in every storage scheme.
//!
//! On a real GPU where `LLMAR_TEST_GPU` is set, otherwise in the emulator, which takes some seconds a clip: so a few clips are enough for every run,
//! and `LLMAR_AGREEMENT_EVERY=1` takes all 430 (`make agreement`).

use std::path::Path;

use llmar::control::Control;
use llmar::device::{Place, Scheme};
use llmar::formats::{ClipArchive, OwnedClip};
use llmar::recognizer::{Model, OpenOptions, Options, Recognition, Recognizer};
use llmar_train::{export, import};

#[path = "common/emulator.rs"]
mod emulator;
#[path = "common/shared.rs"]
mod shared;
#[path = "common/smollm2.rs"]
mod smollm2;

/// What two devices make of the same clips.
#[derive(Default)]
struct Agreement {
    clips: usize,
    tokens: usize,
    other_tokens: usize,
    /// Clips whose two best labels on the CPU differ by over .05, and of these those with another best label on the GPU.
    clear: usize,
    other_label: usize,
    /// Largest difference of log-probabilities of the same label of the same sentence: of the best label, and of the first five.
    best: f32,
    five: f32,
}

impl Agreement {
    fn add(&mut self, cpu: &Recognition, gpu: &Recognition) {
        self.clips += 1;
        self.tokens += cpu.sentence.tokens.len();
        let different = cpu.sentence.tokens.iter().zip(&gpu.sentence.tokens).filter(|(a, b)| a != b).count();
        self.other_tokens += different;
        if different > 0 {
            return; // another question
        }
        if cpu.top[0].log_prob - cpu.top[1].log_prob > 0.05 {
            self.clear += 1;
            self.other_label += usize::from(cpu.top[0].label != gpu.top[0].label);
        }
        for (place, here) in cpu.top.iter().enumerate() {
            if let Some(there) = gpu.top.iter().find(|s| s.label == here.label) {
                let difference = (here.log_prob - there.log_prob).abs();
                self.five = self.five.max(difference);
                if place == 0 {
                    self.best = self.best.max(difference);
                }
            }
        }
    }
}

fn recognizer(path: &Path, device: Place) -> Recognizer {
    let model = Model::open(path, OpenOptions { device, ..OpenOptions::default() }).expect("the exported model");
    Recognizer::new(model, Options { threads: 1, top_k: 5, ..Options::default() }).expect("a recogniser")
}

#[test]
fn a_gpu_names_the_actions_that_the_cpu_names() {
    const TEST: &str = "a_gpu_names_the_actions_that_the_cpu_names";
    let (Some(gguf), Some(data)) = (smollm2::gguf(TEST), shared::shared(TEST, "data/utd_mhad.safetensors")) else { return };
    emulator::load();
    let folder = tempfile::tempdir().expect("a temporary folder");
    import::import(&gguf, &folder.path().join("base.safetensors")).expect("SmolLM2 imports");
    let archive = ClipArchive::read(&data).expect("the archive of UTD-MHAD");
    let test = &archive.splits["cross_subject"];
    let clips: Vec<&OwnedClip> = archive.clips.iter().zip(test).filter_map(|(clip, &test)| test.then_some(clip)).collect();
    let every = std::env::var("LLMAR_AGREEMENT_EVERY").ok().and_then(|n| n.parse().ok()).unwrap_or(215);
    let schemes = match std::env::var("LLMAR_AGREEMENT_SCHEME").as_deref() {
        Ok("f16") => vec![Scheme::F16],
        Ok("q8") => vec![Scheme::Q8],
        Ok("q4") => vec![Scheme::Q4],
        _ => vec![Scheme::F16, Scheme::Q8, Scheme::Q4],
    };
    let adapter = Path::new(env!("CARGO_MANIFEST_DIR")).join("adapters/utd-mhad");
    for scheme in schemes {
        let path = folder.path().join(format!("{scheme:?}.llmar"));
        let (stage1, lora) = (adapter.join("stage1.safetensors"), adapter.join("adapter.safetensors"));
        export::export(&folder.path().join("base.safetensors"), &stage1, &lora, scheme, &path).expect("the committed adapter exports");
        let (mut cpu, mut gpu) = (recognizer(&path, Place::Cpu), recognizer(&path, Place::Cuda(0)));
        let mut agreement = Agreement::default();
        for clip in clips.iter().step_by(every) {
            let view = clip.view();
            let control = Control::default();
            let here = cpu.recognize(&view, &control).expect("the CPU's answer");
            let there = gpu.recognize(&view, &control).expect("the GPU's answer");
            agreement.add(&here, &there);
        }
        let Agreement { clips, tokens, other_tokens, clear, other_label, best, five } = agreement;
        println!(
            "{scheme:?}: {clips} clips, {other_tokens} of {tokens} tokens differ, {other_label} of {clear} clear best labels differ, \
             log-probabilities of the best label differ by at most {best:.1e}, of the five best by {five:.1e}"
        );
        assert!(other_tokens * 2000 <= tokens, "{scheme:?}: {other_tokens} of {tokens} tokens differ");
        assert_eq!(other_label, 0, "{scheme:?}: best labels that were clear differ");
        // With halves the two differ by rounding alone. With quantised weights the CPU rounds activations to 8 bits where a GPU keeps halves, and labels
        // of small probability show it: benches/results/gpu.md has the figures.
        if scheme == Scheme::F16 {
            assert!(best <= 2e-2, "{scheme:?}: log-probabilities of the best label differ by {best}");
        }
    }
}
