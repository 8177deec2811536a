//! Whole stage-1 runs on a small made-up data set, and the shipped settings.

use std::f32::consts::TAU;
use std::path::{Path, PathBuf};

use llmar::device::Device;
use llmar::formats::ClipArchive;
use llmar::motion::{self, QuantizerConfig};
use llmar::skeleton::{Layout, prepare};
use safetensors::tensor::{Dtype, TensorView};
use serde_json::json;

use super::{Config, Stage1, train};
use crate::artifacts::{self, Stage1Meta};
use crate::error::{Error, Result};
use crate::settings::{Setting, read_config};
use crate::testing::shared;
use crate::torch::Rng;

/// How the made-up body moves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moves {
    /// To and fro all the time, from any pose on: 24 frames.
    Always,
    /// Once, from rest to rest: 36 frames.
    FromRest,
}

/// Writes an archive of three made-up actions (a hand goes up, a leg goes up, the body sinks) by three subjects, the third of them test.
pub fn made_up_archive(path: &Path, moves: Moves) -> Result<()> {
    const CLIPS: usize = 54;
    let count = if moves == Moves::Always { 24 } else { 36 };
    let layout = Layout::find("kinect1_20")?;
    let joint = |name: &str| layout.joints.iter().position(|j| j == name).ok_or_else(|| Error::format(name, "no such joint"));
    let (hand, foot, base) = (joint("right_hand")?, joint("left_foot")?, joint("hip_center")?);
    let mut rng = Rng::new(1, "made up", 0);
    let stature: Vec<f32> = (0..layout.joints.len() * 3).map(|_| rng.normal() * 0.3).collect();
    let (mut joints, mut offsets, mut labels, mut subjects, mut test) = (Vec::new(), vec![0i64], Vec::new(), Vec::new(), Vec::new());
    for clip in 0..CLIPS {
        let (label, subject) = (clip % 3, clip / 3 % 3);
        let phase = 0.3 * rng.signed();
        for frame in 0..count {
            let time = frame as f32 / count as f32;
            let moved = match moves {
                Moves::Always => 0.4 * (TAU * (time + phase)).sin(),
                Moves::FromRest => 0.2 * (1.0 + phase) * (1.0 - (TAU * time).cos()),
            };
            let mut points = stature.clone();
            match label {
                0 => points[hand * 3 + 1] += moved,
                1 => points[foot * 3 + 1] += moved,
                _ => points.iter_mut().enumerate().filter(|(i, _)| i % 3 == 1 && *i != base * 3 + 1).for_each(|(_, p)| *p += 0.5 * moved),
            }
            joints.extend(points.into_iter().map(|p| p + 0.005 * rng.normal() + 0.01 * subject as f32));
        }
        offsets.push(offsets[clip] + count as i64);
        labels.push(label as i64);
        subjects.push(subject as i64 + 1);
        test.push(u8::from(subject == 2));
    }
    let document = json!({ "name": "made up", "classes": ["wave", "kick", "sink"], "joints": layout.joints, "fps": 30.0 }).to_string();
    let frames = CLIPS * count;
    let tensors: [(&str, Dtype, Vec<usize>, Vec<u8>); 5] = [
        ("joints", Dtype::F32, vec![frames, 1, layout.joints.len(), 3], bytemuck::cast_slice(&joints).to_vec()),
        ("offsets", Dtype::I64, vec![CLIPS + 1], bytemuck::cast_slice(&offsets).to_vec()),
        ("labels", Dtype::I64, vec![CLIPS], bytemuck::cast_slice(&labels).to_vec()),
        ("subjects", Dtype::I64, vec![CLIPS], bytemuck::cast_slice(&subjects).to_vec()),
        ("split.subjects.test", Dtype::U8, vec![CLIPS], test),
    ];
    let bad = |e: safetensors::SafeTensorError| Error::format(path.display(), e);
    let views: Vec<(&str, TensorView<'_>)> =
        tensors.iter().map(|(n, d, s, b)| Ok((*n, TensorView::new(*d, s.clone(), b).map_err(bad)?))).collect::<Result<_>>()?;
    let bytes = safetensors::serialize(views, Some([("clips".to_owned(), document)].into())).map_err(bad)?;
    std::fs::write(path, bytes).map_err(Error::io(path))
}

const SMALL: &str = r#"
snapshot_steps = 8
[data]
archive = "made_up.safetensors"
split = "subjects"
validation_subjects = [2]
[input]
persons = 1
coords = 3
frames = 16
resample = { kind = "stretch" }
root = "hip_center"
centre = "first_frame"
heading = "keep"
scale = { kind = "keep" }
velocities = true
[encoder]
width = 24
dim = 8
dilations = [3, 1]
[quantizer]
codes = 32
[losses]
head_segments = 2
[features]
steps = 30
batch = 9
lr = 1e-2
[codes]
steps = 12
batch = 9
lr = 3e-3
"#;

/// A folder with the made-up archive and its settings, changed by `sets`.
pub fn small_run(sets: &[&str]) -> Result<(tempfile::TempDir, Config)> {
    run_of(Moves::Always, sets)
}

/// The idle label of [`small_live_run`] and how its windows are cut: long enough to hold what tells an action that is just over from rest.
pub const IDLE: &str = "data.idle=\"stand still\"";
pub const WINDOWS: &str = "{tokens=[4,12],whole=0.3,idle=0.3}";

/// The same of a live model, of actions with rest before and behind them.
pub fn small_live_run(sets: &[&str]) -> Result<(tempfile::TempDir, Config)> {
    let windows = format!("augment.windows={WINDOWS}");
    let live = [
        "input.resample={kind=\"live\",fps=30.0}",
        "input.frames=48",
        "encoder.causal=true",
        IDLE,
        &windows,
        "features.steps=400",
        "features.lr=3e-3",
    ];
    run_of(Moves::FromRest, &[&live[..], sets].concat())
}

fn run_of(moves: Moves, sets: &[&str]) -> Result<(tempfile::TempDir, Config)> {
    let folder = tempfile::tempdir().map_err(Error::io("temporary folder"))?;
    let archive = folder.path().join("made_up.safetensors");
    made_up_archive(&archive, moves)?;
    let path = folder.path().join("small.toml");
    std::fs::write(&path, SMALL).map_err(Error::io(&path))?;
    let sets: Vec<Setting> = sets.iter().filter_map(|s| s.parse().ok()).collect();
    let mut config: Config = read_config(&path, &sets)?;
    config.data.archive = archive;
    Ok((folder, config))
}

/// libtorch's generator is the process's: runs of tests must not draw from it at the same time.
pub fn alone() -> std::sync::MutexGuard<'static, ()> {
    static RUNNING: std::sync::Mutex<()> = std::sync::Mutex::new(());
    RUNNING.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

fn bytes(path: PathBuf) -> Result<Vec<u8>> {
    std::fs::read(&path).map_err(Error::io(path))
}

#[test]
fn a_run_learns_repeats_and_resumes() -> Result<()> {
    let _alone = alone();
    let (folder, config) = small_run(&[])?;
    let out = folder.path().join("run");
    let summary = train(&config, &out, false)?;
    assert!(summary["probe_tokens"].as_f64() >= Some(85.0), "{summary:#}");
    assert!(summary["head_tokens"].as_f64() >= Some(70.0), "{summary:#}");
    assert_eq!(summary["validation_usage"]["tokens"], 18 * 4);
    let first = bytes(out.join("stage1.safetensors"))?;
    let lines = bytes(out.join("metrics.jsonl"))?;
    // The last snapshot is of step 40 of 42: killed after it and resumed, the run ends in the same files.
    std::fs::remove_file(out.join("stage1.safetensors")).map_err(Error::io(&out))?;
    train(&config, &out, true)?;
    assert!(bytes(out.join("stage1.safetensors"))? == first, "a resumed run ends elsewhere");
    assert!(bytes(out.join("metrics.jsonl"))? == lines, "the metrics of a resumed run differ");
    // Other settings are refused.
    let other = Config { seed: 1, ..config.clone() };
    assert!(train(&other, &out, true).is_err_and(|e| e.to_string().contains("--resume")));
    // Alone, without snapshots: the same again, and another seed gives another file.
    let again = folder.path().join("again");
    train(&config, &again, false)?;
    assert!(bytes(again.join("stage1.safetensors"))? == first, "equal settings gave other weights");
    train(&other, &again, false)?;
    assert!(bytes(again.join("stage1.safetensors"))? != first, "the seed has no effect");
    Ok(())
}

#[test]
fn a_run_resumes_across_the_phases() -> Result<()> {
    let _alone = alone();
    let mut runs = Vec::new();
    for restyled in [&[][..], &["augment.posture=0.05", "augment.amplitude=0.2"], &["augment.tilt=0.3"]] {
        let (folder, config) = small_run(&[&["features.steps=10", "codes.steps=5"][..], restyled].concat())?;
        let out = folder.path().join("run");
        train(&config, &out, false)?;
        let first = bytes(out.join("stage1.safetensors"))?;
        train(&config, &out, true)?; // from step 8, in phase one
        assert!(bytes(out.join("stage1.safetensors"))? == first);
        runs.push(first);
    }
    assert!(runs[0] != runs[1], "another style has no effect");
    assert!(runs[0] != runs[2], "a tilt has no effect");
    Ok(())
}

/// What the digests of finished runs are of: settings that came later do not show where they are not used.
#[test]
fn settings_of_before_are_written_as_they_were() -> Result<()> {
    let (_folder, config) = small_run(&[])?;
    let text = serde_json::to_string(&config).map_err(|e| Error::format("settings", e))?;
    assert!(["idle", "windows", "\"start\"", "amplitude", "posture", "tilt", "derived"].iter().all(|name| !text.contains(name)), "{text}");
    Ok(())
}

#[test]
fn a_run_starts_from_anothers_encoder() -> Result<()> {
    let _alone = alone();
    let (folder, first) = small_run(&[])?;
    let at = |name: &str| folder.path().join(name);
    train(&first, &at("first"), false)?;
    let encoder = |run: &str| -> Result<(Stage1Meta, Vec<f32>)> {
        let file = artifacts::open::<Stage1Meta>(&at(run).join("stage1.safetensors"))?;
        let name = "encoder.in.weight";
        let (shape, _) = file.info(name).ok_or_else(|| Error::format(name, "not in the artifact"))?;
        let weight = file.floats(name, shape)?;
        Ok((file.meta, weight))
    };
    // Other clips: their own statistics would be others. Hardly a step: the encoder is still the one it started from.
    let mut second = first.clone();
    second.data.validation_subjects = vec![1];
    (second.features.steps, second.codes.steps, second.codes.lr) = (0, 1, 1e-9);
    train(&second, &at("alone"), false)?;
    second.encoder.start = Some(at("first/stage1.safetensors"));
    train(&second, &at("second"), false)?;
    let (from, to, other) = (encoder("first")?, encoder("second")?, encoder("alone")?);
    assert_eq!((&to.1, &to.0.preprocess), (&from.1, &from.0.preprocess));
    assert!((to.0.quantizer.gain - from.0.quantizer.gain).abs() < 1e-6 && to.0.quantizer.gain != other.0.quantizer.gain);
    assert!(other.1 != from.1 && other.0.preprocess != from.0.preprocess);
    // Only the name of the file it started from is recorded.
    assert!(to.0.provenance["settings"].contains("\"start\":\"stage1.safetensors\""), "{}", to.0.provenance["settings"]);
    // What does not fit is refused.
    for name in ["shape", "input", "encoder.members"] {
        let mut wrong = second.clone();
        match name {
            "shape" => wrong.encoder.width = 32,
            "input" => wrong.input.frames = 32,
            _ => wrong.encoder.members = 2,
        }
        let error = train(&wrong, &at("wrong"), false).map(|_| ()).map_err(|e| e.to_string());
        assert!(error.as_ref().is_err_and(|e| e.contains("encoder.start") && e.contains(name)), "{name}: {error:?}");
    }
    Ok(())
}

#[test]
fn encoders_side_by_side_learn_resume_and_run_as_one() -> Result<()> {
    let _alone = alone();
    let (folder, config) = small_run(&["encoder.members=2"])?;
    let out = folder.path().join("run");
    let summary = train(&config, &out, false)?;
    assert!(summary["probe_tokens"].as_f64() >= Some(90.0) && summary["head_tokens"].as_f64() >= Some(90.0), "{summary:#}");
    let first = bytes(out.join("stage1.safetensors"))?;
    std::fs::remove_file(out.join("stage1.safetensors")).map_err(Error::io(&out))?;
    train(&config, &out, true)?;
    assert!(bytes(out.join("stage1.safetensors"))? == first, "a resumed run ends elsewhere");
    let (total, different) = compare_tokens(&out.join("stage1.safetensors"), &config.data.archive)?;
    assert!(total == 54 * 4 && different * 2000 < total.max(2000), "{different} of {total}");
    // Half of what is stored between a convolution's channels is zero.
    let file = artifacts::open::<Stage1Meta>(&out.join("stage1.safetensors"))?;
    let zeros = file.floats("encoder.out.weight", &[8, 24 * 3])?.iter().filter(|w| **w == 0.0).count();
    assert!((8 * 24 * 3 / 2..8 * 24 * 3 / 2 + 20).contains(&zeros), "{zeros}");
    Ok(())
}

/// Clips of twenty joints for a model of eighteen, of which it derives two: trainer and runtime read them alike.
#[test]
fn a_model_reads_fewer_joints_than_its_clips_have() -> Result<()> {
    let _alone = alone();
    let (folder, config) =
        small_run(&["input.layout=\"kinect1_20 without head, right_foot\"", "input.derived=[\"hip_center\",\"spine\"]"])?;
    let out = folder.path().join("run");
    let summary = train(&config, &out, false)?;
    assert!(summary["probe_tokens"].as_f64() >= Some(90.0), "{summary:#}");
    let stage1 = out.join("stage1.safetensors");
    let meta = artifacts::open::<Stage1Meta>(&stage1)?.meta;
    assert_eq!((meta.preprocess.joints.len(), meta.encoder.inputs), (18, 18 * 3 * 2));
    assert_eq!((meta.preprocess.layout.as_str(), meta.preprocess.derived.len()), ("kinect1_20 without head, right_foot", 2));
    let (total, different) = compare_tokens(&stage1, &config.data.archive)?;
    assert!(total == 54 * 4 && different * 2000 < total.max(2000), "{different} of {total}");
    for (setting, named) in [
        ("input.layout=\"kinect1_20 without tail\"", "`tail`"),
        ("input.layout=\"kinect1_20 without hip_center\"", "preprocess.root"),
        ("input.derived=[\"left_knee\"]", "preprocess.derived"),
    ] {
        let (folder, wrong) = small_run(&[setting])?;
        let error = train(&wrong, &folder.path().join("wrong"), false).map(|_| ()).map_err(|e| e.to_string());
        assert!(error.as_ref().is_err_and(|e| e.contains(named)), "{setting}: {error:?}");
    }
    Ok(())
}

#[test]
fn a_live_run_learns_repeats_and_resumes() -> Result<()> {
    let _alone = alone();
    let (folder, config) = small_live_run(&["codes.steps=18"])?;
    let out = folder.path().join("run");
    let summary = train(&config, &out, false)?;
    assert!(summary["probe_tokens"].as_f64() >= Some(95.0), "{summary:#}");
    assert!(summary["head_windows"]["named"].as_f64() >= Some(90.0), "{summary:#}");
    assert!(summary["head_windows"]["idle_recall"].as_f64() >= Some(90.0), "{summary:#}");
    let first = bytes(out.join("stage1.safetensors"))?;
    std::fs::remove_file(out.join("stage1.safetensors")).map_err(Error::io(&out))?;
    train(&config, &out, true)?; // from step 416
    assert!(bytes(out.join("stage1.safetensors"))? == first, "a resumed run ends elsewhere");
    // Clips of 36 rows: nine tokens each, as the runtime gives them.
    let (total, different) = compare_tokens(&out.join("stage1.safetensors"), &config.data.archive)?;
    assert!(total == 54 * 9 && different * 2000 < total.max(2000), "{different} of {total}");
    Ok(())
}

#[test]
fn the_papers_form_runs_with_every_loss() -> Result<()> {
    let _alone = alone();
    let sets = [
        "features.steps=0",
        "losses.supervised_features=0",
        "losses.supervised_codes=0",
        "losses.reconstruction=1",
        "losses.embed=1",
        "losses.commit=0.02",
        "losses.commit_metric=tangent",
        "losses.zipf=0.2",
        "losses.context=0.2",
        "losses.beta=1",
        "losses.bias_ramp=0",
        "quantizer.update={kind=\"gradient\"}",
        "quantizer.shell=false",
        "encoder.causal=true",
        "codes.steps=80",
        "codes.lr=1e-2",
    ];
    let (folder, config) = small_run(&sets)?;
    let out = folder.path().join("run");
    train(&config, &out, false)?;
    let text = std::fs::read_to_string(out.join("metrics.jsonl")).map_err(Error::io(&out))?;
    let parse = |line: &str| serde_json::from_str::<serde_json::Value>(line).map_err(|e| Error::format("metrics", e));
    let first = parse(text.lines().next().unwrap_or_default())?;
    let parts: Vec<&str> = first["parts"].as_object().into_iter().flatten().map(|(name, _)| name.as_str()).collect();
    assert_eq!(parts, ["commit", "context", "embed", "reconstruction", "zipf"]);
    let last = parse(text.lines().nth(79).unwrap_or_default())?;
    let reconstruction = |line: &serde_json::Value| line["parts"]["reconstruction"].as_f64().unwrap_or(f64::NAN);
    assert!(reconstruction(&last) < 0.9 * reconstruction(&first), "{first} {last}");
    Ok(())
}

#[test]
fn bad_settings_are_named() -> Result<()> {
    let _alone = alone();
    for (set, name) in [
        ("quantizer.codes=33", "quantizer.codes"),
        ("quantizer.update={kind=\"average\",decay=1.5}", "quantizer.update.decay"),
        ("codes.steps=0", "codes.steps"),
        ("losses.commit=-0.1", "losses.commit"),
        ("losses.mmd=0.2", "quantizer.update"),
        ("input.frames=18", "input.frames"),
        ("encoder.members=5", "encoder.members"),
        ("encoder.members=0", "encoder.members"),
        ("losses.head_segments=3", "losses.head_segments"),
        ("data.split=nowhere", "data.split"),
        ("data.validation_subjects=[9]", "data.validation_subjects"),
        ("augment.warp=2.0", "augment.warp"),
        ("augment.tilt=1.7", "augment.tilt"),
        ("augment.amplitude=1.0", "augment.amplitude"),
        ("augment.posture=-0.1", "augment.posture"),
        ("device=abacus", "device"),
        ("threads=0", "threads"),
        ("input.root=tail", "root"),
        ("data.idle=\"stand still\"", "data.idle"),
        ("augment.windows={}", "input.resample"),
        ("input.resample={kind=\"live\",fps=30.0}", "encoder.causal"),
    ] {
        let (folder, config) = small_run(&[set])?;
        let error = train(&config, &folder.path().join("run"), false).map(|_| ()).map_err(|e| e.to_string());
        assert!(error.as_ref().is_err_and(|e| e.contains(name)), "{set}: {error:?}");
    }
    assert!(small_run(&["features.speed=1"]).is_err_and(|e| e.to_string().contains("speed")));
    Ok(())
}

#[test]
fn shipped_settings_are_valid() -> Result<()> {
    for name in
        ["demo-stage1.toml", "utd-mhad-stage1.toml", "utd-mhad-live-stage1.toml", "utd-mhad-biases-stage1.toml", "paper-ntu60-stage1.toml"]
    {
        read_config::<Config>(&Path::new(env!("CARGO_MANIFEST_DIR")).join("configs").join(name), &[])?.check()?;
    }
    Ok(())
}

/// The runtime's tokens of every clip of an archive against the trainer's. Every difference must be a near-tie, and fewer than one token in
/// 2,000 may differ.
fn compare_tokens(stage1: &Path, archive: &Path) -> Result<(usize, usize)> {
    let trainer = Stage1::read(stage1, tch::Device::Cpu)?;
    let file = artifacts::open::<Stage1Meta>(stage1)?;
    let find = |name: &str| {
        let (shape, _) = file.info(name).ok_or_else(|| llmar::Error::format(name, "not in the artifact"))?;
        let values = file.floats(name, shape).map_err(|e| llmar::Error::format(name, e.to_string()))?;
        Ok((shape.to_vec(), values))
    };
    let encoder = motion::Encoder::from_tensors(&file.meta.encoder, find)?;
    let quantizer = motion::Quantizer::from_tensors(&file.meta.quantizer, 0, find)?;
    let device = Device::cpu(1)?;
    let mut scratch = motion::EncoderScratch::new(&device);
    let archive = ClipArchive::read(archive)?;
    let prepared = archive.clips.iter().map(|c| Ok(prepare(&file.meta.preprocess, &c.view())?.features)).collect::<Result<Vec<_>>>()?;
    let QuantizerConfig { codes, dim, .. } = file.meta.quantizer;
    let points = file.meta.quantizer.points(&file.floats(QuantizerConfig::TANGENT, &[codes, dim])?);
    let (mut total, mut different) = (0, 0);
    for (input, tokens) in prepared.iter().zip(trainer.tokens(&prepared)?) {
        let frames = input.len() / file.meta.preprocess.features();
        let encoded = encoder.forward(&device, input, 1, frames, &mut scratch)?;
        let runtime = quantizer.quantize(&device, encoded, encoder.config().tokens(frames))?.tokens;
        let mut features = vec![0.0; runtime.len() * dim];
        device.read(encoded, &mut features)?;
        assert_eq!(runtime.len(), tokens.len());
        total += tokens.len();
        file.meta.quantizer.condition(&mut features);
        for (i, (ours, theirs)) in runtime.iter().zip(&tokens).enumerate().filter(|(_, (a, b))| a != b) {
            different += 1;
            let x = file.meta.quantizer.points(&features[i * dim..(i + 1) * dim]);
            let distance = |code: u16| {
                let c = &points[usize::from(code) * dim..][..dim];
                let squared: f64 = x.iter().zip(c).map(|(x, c)| (f64::from(*x) - f64::from(*c)).powi(2)).sum();
                let norm = |v: &[f32]| v.iter().map(|v| f64::from(*v).powi(2)).sum::<f64>();
                (1.0 + 2.0 * squared / ((1.0 - norm(&x)) * (1.0 - norm(c)))).acosh()
            };
            let (a, b) = (distance(*ours), distance(*theirs));
            assert!((a - b).abs() < 1e-4 * a.max(b), "token {i}: {ours} at {a}, trainer {theirs} at {b}");
        }
    }
    Ok((total, different))
}

#[test]
fn runtime_and_trainer_give_the_same_tokens() -> Result<()> {
    let _alone = alone();
    let (folder, config) = small_run(&[])?;
    let out = folder.path().join("run");
    train(&config, &out, false)?;
    let (total, different) = compare_tokens(&out.join("stage1.safetensors"), &config.data.archive)?;
    assert!(total == 54 * 4 && different * 2000 < total.max(2000), "{different} of {total}");
    let Some(archive) = shared("runtime_and_trainer_give_the_same_tokens", "data/utd_mhad.safetensors") else { return Ok(()) };
    let shipped = Path::new(env!("CARGO_MANIFEST_DIR")).join("adapters/utd-mhad/stage1.safetensors");
    let (total, different) = compare_tokens(&shipped, &archive)?;
    println!("shipped stage 1: {different} of {total} tokens differ");
    assert!(total == 861 * 16 && different * 2000 < total, "shipped: {different} of {total}");
    let live = Path::new(env!("CARGO_MANIFEST_DIR")).join("adapters/utd-mhad-live/stage1.safetensors");
    let (total, different) = compare_tokens(&live, &archive)?;
    println!("shipped stage 1 for streams: {different} of {total} tokens differ");
    assert!(total > 861 * 10 && different * 2000 < total, "shipped for streams: {different} of {total}");
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("configs/utd-mhad-stage1.toml");
    let sets = ["encoder.width=32", "features.steps=40", "codes.steps=10", "quantizer.kmeans_rounds=3"];
    let sets: Vec<Setting> = sets.iter().filter_map(|s| s.parse().ok()).collect();
    let mut config: Config = read_config(&path, &sets)?;
    config.data.archive.clone_from(&archive);
    train(&config, &out, false)?;
    let (total, different) = compare_tokens(&out.join("stage1.safetensors"), &archive)?;
    assert!(total == 861 * 16 && different * 2000 < total, "{different} of {total}");
    Ok(())
}
