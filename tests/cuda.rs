//! The whole recogniser on a GPU, beside the CPU: the same tokens, labels and scores to rounding, budgets kept, and every way in which a GPU can be
//! missing or fail. On a real GPU where `LLMAR_TEST_GPU` is set, otherwise in the emulator (tests/cuda_emu).

#[path = "common/emulator.rs"]
mod emulator;
#[path = "common/golden.rs"]
mod golden;
#[path = "common/scores.rs"]
mod scores;
#[path = "common/shared.rs"]
mod shared;
#[path = "common/tiny.rs"]
mod tiny;

use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use llmar::Error;
use llmar::control::{CancelToken, Control};
use llmar::device::{Place, Scheme};
use llmar::motion::ActionSentence;
use llmar::recognizer::stream::{Event, EventKind, Pose, Stream, StreamOptions};
use llmar::recognizer::{Model, OpenOptions, Options, Recognition, Recognizer};
use llmar::skeleton::{Axes, Clip};
use llmar::text::Decoding;
use tiny::{Random, clip, motion};

fn open(scheme: Scheme, device: Place, memory_budget: u64) -> llmar::Result<Arc<Model>> {
    emulator::load();
    Model::from_bytes(&tiny::bytes(scheme), OpenOptions { device, memory_budget, ..OpenOptions::default() })
}

/// GPUs of the test: the emulator has two, with opposite orders of threads.
fn places() -> Vec<Place> {
    if emulator::is_real() { vec![Place::Cuda(0)] } else { vec![Place::Cuda(0), Place::Cuda(1)] }
}

fn recognizer(model: &Arc<Model>, top_k: usize, decoding: Decoding) -> Recognizer {
    Recognizer::new(Arc::clone(model), Options { top_k, decoding, ..Options::default() }).unwrap()
}

/// The GPU's answer agrees with the CPU's: the same tokens; scores of the same labels within `bound`; the same best label where the two best of the
/// CPU are further apart than that.
fn assert_agree(cpu: &Recognition, gpu: &Recognition, bound: f32, what: &str) {
    assert_eq!(cpu.sentence, gpu.sentence, "{what}");
    assert_eq!(cpu.missing, gpu.missing, "{what}");
    for score in &gpu.top {
        if let Some(same) = cpu.top.iter().find(|s| s.label == score.label) {
            let difference = (score.log_prob - same.log_prob).abs();
            assert!(difference <= bound, "{what}: label {}: {} for {}", score.label, score.log_prob, same.log_prob);
        }
    }
    if let [first, second, ..] = &cpu.top[..]
        && first.log_prob - second.log_prob > 0.05 + 2.0 * bound
    {
        assert_eq!(gpu.top[0].label, first.label, "{what}");
    }
}

/// How far scores of the tiny model may be apart: 2e-2. With quantised weights the CPU rounds every activation to 8 bits, a GPU those of more than eight
/// rows to halves, and random weights make much of it: there the bound is what the CPU's own rounding does to the scores of these clips, twice over.
fn bound(model: &Model, clips: &[Recognition]) -> f32 {
    if matches!(model.metadata().scheme, Scheme::F32 | Scheme::F16) {
        return 2e-2;
    }
    let exact = scores::dequantised(model.llama());
    let metadata = model.metadata();
    let labels: Vec<_> = metadata.labels.iter().map(|l| l.ids.clone()).collect();
    let mut worst = 0.0f32;
    for clip in clips {
        let prompt = &metadata.prompt;
        let want = scores::spelled_out(&exact, model, &prompt.prefix_ids, &clip.sentence, &prompt.suffix_ids, &labels);
        worst = clip.top.iter().map(|s| (s.log_prob - want[s.label] as f32).abs()).fold(worst, f32::max);
    }
    2e-2 + 2.0 * worst
}

/// A GPU's scores are at least as near to those of the dequantised weights as the CPU's, which rounds more.
#[test]
fn quantised_scores_are_as_good_as_the_cpus() {
    let control = Control::default();
    for scheme in [Scheme::Q8, Scheme::Q4] {
        let cpu = open(scheme, Place::Cpu, 0).unwrap();
        let exact = scores::dequantised(cpu.llama());
        let metadata = cpu.metadata();
        let labels: Vec<_> = metadata.labels.iter().map(|l| l.ids.clone()).collect();
        for place in places() {
            let gpu = open(scheme, place, 0).unwrap();
            let (mut here, mut there) = (0.0f64, 0.0f64);
            for seed in 0..6 {
                let mut random = Random(seed);
                let tokens = (0..16).map(|_| (((random.next_f32() + 1.0) * 16.0) as u16).min(31)).collect();
                let sentence = ActionSentence { tokens };
                let want = scores::spelled_out(&exact, &cpu, &metadata.prompt.prefix_ids, &sentence, &metadata.prompt.suffix_ids, &labels);
                for (model, error) in [(&cpu, &mut here), (&gpu, &mut there)] {
                    let got = recognizer(model, 4, Decoding::Exact).score_sentences(std::slice::from_ref(&sentence), &control).unwrap();
                    *error += got[0].iter().zip(&want).map(|(g, w)| (f64::from(*g) - w).powi(2)).sum::<f64>();
                }
            }
            println!("{scheme:?}, {place:?}: squared error of scores {there:.2e}, of the CPU's {here:.2e}");
            assert!(there <= here, "{scheme:?}, {place:?}: {there} against {here}");
        }
    }
}

#[test]
fn a_gpu_gives_the_cpus_answers() {
    let clips: Vec<Vec<f32>> = (0..5).map(|i| motion(i, 20 + 13 * i as usize)).collect();
    let views: Vec<Clip<'_>> = clips.iter().map(|joints| clip(joints)).collect();
    let control = Control::default();
    for scheme in tiny::SCHEMES {
        let cpu = open(scheme, Place::Cpu, 0).unwrap();
        for place in places() {
            let gpu = open(scheme, place, 0).unwrap();
            assert!(gpu.placed().name().starts_with("cuda:"));
            for (top_k, decoding) in [(4, Decoding::Exact), (1, Decoding::Exact), (1, Decoding::Greedy)] {
                let mut here = recognizer(&cpu, top_k, decoding);
                let mut there = recognizer(&gpu, top_k, decoding);
                let want = here.recognize_batch(&views, &control).unwrap();
                let bound = bound(&cpu, &want);
                // One at a time twice, so that passes are recorded and run again, and all together.
                for round in 0..2 {
                    for (view, want) in views.iter().zip(&want) {
                        let what = format!("{scheme:?}, {place:?}, top {top_k}, {decoding:?}, round {round}");
                        assert_agree(want, &there.recognize(view, &control).unwrap(), bound, &what);
                    }
                }
                for (got, want) in there.recognize_batch(&views, &control).unwrap().iter().zip(&want) {
                    assert_agree(want, got, bound, &format!("{scheme:?}, {place:?}, batch, top {top_k}, {decoding:?}"));
                }
            }
            if matches!(scheme, Scheme::Q8 | Scheme::Q4) {
                continue;
            }
            // Other labels, which the prompt lists.
            let (mut here, mut there) = (recognizer(&cpu, 0, Decoding::Exact), recognizer(&gpu, 0, Decoding::Exact));
            for recognizer in [&mut here, &mut there] {
                recognizer.set_labels(&["jump", "sit", "walk away", "walk"]).unwrap();
            }
            let want = here.recognize(&views[3], &control).unwrap();
            assert_agree(&want, &there.recognize(&views[3], &control).unwrap(), 2e-2, "other labels");
        }
    }
}

#[test]
fn the_same_gpu_gives_the_same_bits() {
    let joints = motion(5, 40);
    for place in places() {
        let model = open(Scheme::Q8, place, 0).unwrap();
        let answer = || {
            let mut recognizer = recognizer(&model, 4, Decoding::Exact);
            let answer = recognizer.recognize(&clip(&joints), &Control::default()).unwrap();
            answer.top.iter().map(|s| (s.label, s.log_prob.to_bits())).collect::<Vec<_>>()
        };
        assert_eq!(answer(), answer());
    }
}

#[test]
fn two_threads_share_a_model_on_a_gpu() {
    let model = open(Scheme::F16, Place::Cuda(0), 0).unwrap();
    let joints = motion(6, 40);
    let answers: Vec<_> = std::thread::scope(|scope| {
        let spawn = |_| {
            scope.spawn(|| {
                let mut recognizer = recognizer(&model, 4, Decoding::Exact);
                (0..3).map(|_| recognizer.recognize(&clip(&joints), &Control::default()).unwrap().top[0]).collect::<Vec<_>>()
            })
        };
        let threads: Vec<_> = (0..2).map(spawn).collect();
        threads.into_iter().flat_map(|t| t.join().unwrap()).collect()
    });
    assert!(answers.iter().all(|a| *a == answers[0]), "{answers:?}");
}

#[test]
fn a_budget_is_kept_or_says_what_it_needs() {
    let clips: Vec<Vec<f32>> = (0..6).map(|i| motion(i, 30)).collect();
    let views: Vec<Clip<'_>> = clips.iter().map(|joints| clip(joints)).collect();
    let control = Control::default();
    for place in [Place::Cpu, Place::Cuda(0)] {
        let free = open(Scheme::F16, place, 0).unwrap();
        let want = recognizer(&free, 4, Decoding::Exact).recognize_batch(&views, &control).unwrap();
        let used = free.placed().budget().used();
        // What the model alone takes is not enough for a recogniser.
        match open(Scheme::F16, place, used.max(1)).and_then(|model| Recognizer::new(model, Options::default()).map(drop)) {
            Err(Error::Budget { bytes, budget, .. }) => assert!(bytes > 0 && budget == used.max(1), "{place:?}"),
            other => panic!("{place:?}: {other:?}"),
        }
        // From some budget on it works, in passes that fit; the answers are the same.
        let mut budget = used + 50_000;
        let got = loop {
            let model = open(Scheme::F16, place, budget).unwrap();
            let result = Recognizer::new(Arc::clone(&model), Options { top_k: 4, ..Options::default() })
                .and_then(|mut recognizer| recognizer.recognize_batch(&views, &control));
            assert!(model.placed().budget().used() <= budget, "{place:?}");
            match result {
                Ok(got) => break got,
                Err(Error::Budget { .. }) => budget += budget / 4,
                Err(e) => panic!("{place:?}: {e}"),
            }
        };
        for (got, want) in got.iter().zip(&want) {
            assert_agree(want, got, 2e-2, &format!("{place:?}, {budget} bytes"));
        }
    }
}

#[test]
fn a_cancelled_call_leaves_the_recogniser_usable() {
    let model = open(Scheme::Q4, Place::Cuda(0), 0).unwrap();
    let mut recognizer = recognizer(&model, 1, Decoding::Exact);
    let joints = motion(2, 30);
    let want = recognizer.recognize(&clip(&joints), &Control::default()).unwrap();
    let token = CancelToken::default();
    token.request();
    let control = Control { cancel: Some(token), deadline: None };
    assert!(matches!(recognizer.recognize(&clip(&joints), &control), Err(Error::Cancelled)));
    let again = recognizer.recognize(&clip(&joints), &Control::default()).unwrap();
    assert_eq!(want.top, again.top);
}

/// Runs `llmar` where the emulator is the driver, set up by `knobs` (see tests/cuda_emu/README.md); status and standard error.
fn llmar(knobs: &str, libraries: Option<&Path>, arguments: &[&str]) -> (i32, String, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_llmar"));
    // An emptied cache of compiled kernels: what one test's compiler made must not help another.
    let cache = tempfile::tempdir().unwrap();
    command.args(arguments).env("LLMAR_EMU", knobs).env("LLMAR_KERNEL_CACHE", cache.path()).env_remove("LD_LIBRARY_PATH");
    if let Some(folder) = libraries {
        command.env("LD_LIBRARY_PATH", folder);
    }
    let output = command.output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code().expect("no signal ends it"), text(output.stdout), text(output.stderr))
}

#[test]
fn whatever_is_missing_is_named_and_auto_takes_the_cpu() {
    if emulator::is_real() {
        println!("SKIPPED whatever_is_missing_is_named_and_auto_takes_the_cpu: needs the emulator's faults");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let model = tiny::file_in(folder.path(), Scheme::Q8);
    let clips = folder.path().join("clip.json");
    let joints = motion(4, 30);
    let frames: Vec<Vec<&[f32]>> = joints.chunks(60).map(|frame| frame.chunks(3).collect()).collect();
    std::fs::write(&clips, serde_json::json!({"file_name": "a01_s01_e00_v01", "skeletons": frames, "label": 1}).to_string()).unwrap();
    let (model, clips) = (model.to_str().unwrap(), clips.to_str().unwrap());
    // The emulator without its compiler: kernels that are not embedded cannot be made.
    let bare = folder.path().join("bare");
    std::fs::create_dir(&bare).unwrap();
    std::fs::copy(emulator::folder().join("libcuda.so"), bare.join("libcuda.so")).unwrap();
    let all = Some(emulator::folder());
    let run = |knobs: &str, libraries, device: &str| {
        let mut command_line = vec!["recognize", model, clips, "--threads", "1", "--top", "1"];
        command_line.extend(["--device", device]);
        llmar(knobs, libraries, &command_line)
    };
    let (_, want, _) = run("", None, "cpu");
    let answer = |out: &str| out.split("  (").next().unwrap_or_default().to_owned();

    let cases: [(&str, Option<&Path>, &str); 7] = [
        ("", None, "no CUDA driver library is installed"),
        ("noinit=1", all, "does not start"),
        ("devices=0", all, "expected a number below 0"),
        ("driver=10020", all, "expected a driver of CUDA 11.4 or newer, got CUDA 10.2"),
        ("cc=70", all, "expected compute capability 7.5 or newer, got 7.0"),
        ("cc=101", Some(&bare), "none for sm_101, and the run-time compiler (libnvrtc) is not installed"),
        ("nvrtc_fail=1,cc=101", all, "libnvrtc does not compile the kernels"),
    ];
    for (knobs, libraries, words) in cases {
        let (code, out, err) = run(knobs, libraries, "cuda:0");
        assert_eq!((code, out.as_str()), (1, ""), "{knobs}: {err}");
        assert!(err.contains("device `cuda:0` cannot be used") && err.contains(words), "{knobs}: {err}");
        let (code, out, err) = run(knobs, libraries, "auto");
        assert_eq!((code, answer(&out)), (0, answer(&want)), "{knobs}: {err}");
        assert!(err.contains("runs on the CPU") && err.contains(words), "{knobs}: {err}");
    }
    let (code, out, err) = run("", all, "auto");
    assert_eq!((code, err.as_str(), answer(&out).split(' ').next()), (0, "", answer(&want).split(' ').next()), "{out}");

    // Faults while it runs: errors, not crashes.
    for (knobs, words) in [("fail_launch=40", "failed in"), ("memory=40000", "no memory for")] {
        let (code, out, err) = run(knobs, all, "cuda:0");
        assert_eq!((code, out.as_str()), (1, ""), "{knobs}: {err}");
        assert!(err.contains(words), "{knobs}: {err}");
    }
    let (code, _, err) = run("", all, "cuda:7");
    assert!(code == 1 && err.contains("expected a number below 2"), "{err}");
    let (code, _, err) = run("", all, "gpu");
    assert!(code == 2 && err.contains("--device: device: expected `cpu`"), "{err}");
}

#[test]
fn the_harness_of_the_benchmark_runs() {
    if emulator::is_real() {
        println!("SKIPPED the_harness_of_the_benchmark_runs: `make bench-gpu` is for a real GPU");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let model = tiny::file_in(folder.path(), Scheme::F16);
    let arguments = [
        "bench",
        model.to_str().unwrap(),
        "--device",
        "cuda:0",
        "--synthetic",
        "tiny",
        "--batch",
        "3",
        "--prompt",
        "12",
        "--seconds",
        ".001",
        "--json",
    ];
    let (code, out, err) = llmar("", Some(emulator::folder()), &arguments);
    assert_eq!((code, err.as_str()), (0, ""), "{out}");
    let report: serde_json::Value = serde_json::from_str(&out).unwrap();
    let lines = report["lines"].as_array().unwrap();
    for work in ["decode", "prefill", "recognise 3 clip(s)", "quantiser", "gate, up, SwiGLU"] {
        assert!(lines.iter().any(|line| line["work"].as_str().unwrap().contains(work)), "{work}: {out}");
    }
    assert_eq!(report["decode_speed_over_f16"].as_array().unwrap().len(), 2);
}

/// Bodies in a stream on the GPU: the decisions of the CPU, at the same times, with scores within the bound of full precision.
#[test]
fn a_stream_on_a_gpu_decides_as_on_the_cpu() {
    let decisions = |place: Place| {
        emulator::load();
        let options = OpenOptions { device: place, ..OpenOptions::default() };
        let model = Model::from_bytes(&tiny::live_bytes(Scheme::F16), options).unwrap();
        let mut stream =
            Stream::new(model, StreamOptions { smoothing: 0.0, top_k: 1, ..StreamOptions::default() }, Axes::default()).unwrap();
        let bodies: Vec<Vec<f32>> = (0..2).map(|body| motion(40 + body, 60)).collect();
        let (mut events, mut out) = ([Event::default(); 16], Vec::new());
        for frame in 0..60 {
            for (body, joints) in (0..).zip(&bodies) {
                let time_ns = frame as u64 * 1_000_000_000 / 30;
                let joints = &joints[frame * 60..][..60];
                stream.push(&Pose { body, time_ns, joints, valid: None, confidence: None }).unwrap();
            }
            loop {
                let count = stream.poll(&Control::default(), &mut events).unwrap();
                out.extend(events[..count].iter().filter(|event| event.kind == EventKind::Decision).copied());
                if count < events.len() {
                    break;
                }
            }
        }
        assert!(stream.stats().unwrap().reanchored > 0);
        out
    };
    let want = decisions(Place::Cpu);
    assert!(want.len() > 10);
    for place in places() {
        let got = decisions(place);
        assert_eq!(got.len(), want.len(), "{place:?}");
        for (got, want) in got.iter().zip(&want) {
            let of = |event: &Event| (event.body, event.time_ns, event.tokens, event.missing_joints);
            assert_eq!(of(got), of(want), "{place:?}");
            // Where two labels are nearly as good, rounding may choose.
            if got.label == want.label {
                let difference = (got.top[0].log_prob - want.top[0].log_prob).abs();
                assert!(difference <= 2e-2, "{place:?}: {} for {}", got.top[0].log_prob, want.top[0].log_prob);
            } else {
                assert!((got.probability - want.probability).abs() < 0.05, "{place:?}: {got:?} for {want:?}");
            }
        }
    }
}
