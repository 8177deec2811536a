//! `llmar-train report` on a run of its own, looked at in a real browser.

#[path = "common/browser.rs"]
mod browser;
#[path = "common/shared.rs"]
mod shared;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use browser::Browser;
use safetensors::tensor::{Dtype, TensorView};

/// A label that would break out of careless markup, script or attribute.
const HOSTILE: &str = "</script><b>&\"'";
const CLASSES: [&str; 4] = ["wave", "sit down", HOSTILE, "walk"];
const JOINTS: [&str; 20] = [
    "hip_center",
    "spine",
    "shoulder_center",
    "head",
    "left_shoulder",
    "left_elbow",
    "left_wrist",
    "left_hand",
    "right_shoulder",
    "right_elbow",
    "right_wrist",
    "right_hand",
    "left_hip",
    "left_knee",
    "left_ankle",
    "left_foot",
    "right_hip",
    "right_knee",
    "right_ankle",
    "right_foot",
];
const FRAMES: usize = 24;

const STAGE1: &str = r#"
snapshot_steps = 0
[data]
archive = "ARCHIVE"
split = "half"
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
width = 16
dim = 8
dilations = [3, 1]
[quantizer]
codes = 16
[losses]
head_segments = 2
reconstruction = 0.5
[features]
steps = 12
batch = 8
lr = 1e-2
[codes]
steps = 8
batch = 8
lr = 3e-3
"#;

const STAGE2: &str = r#"
name = "made up"
snapshot_steps = 0
[data]
archive = "ARCHIVE"
split = "half"
[adapter]
rank = 2
[train]
steps = 3
batch = 4
micro_batch = 4
"#;

fn good(arguments: &[&str]) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_llmar-train")).args(arguments).stdin(Stdio::null()).output().unwrap();
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// 48 clips: a figure whose joints swing, each class at a pace of its own; every other clip is a test clip.
fn archive(path: &Path) {
    let clips = 48usize;
    let mut joints: Vec<f32> = Vec::new();
    for clip in 0..clips {
        let (class, shift) = (clip % CLASSES.len(), clip as f32 * 0.37);
        for frame in 0..FRAMES {
            for joint in 0..JOINTS.len() {
                let swing = (shift + frame as f32 * (0.2 + 0.2 * class as f32)).sin() * 0.02 * joint as f32;
                joints.extend([0.1 * (joint % 4) as f32 + swing, 1.6 - 0.08 * joint as f32, 2.0 + 0.5 * swing]);
            }
        }
    }
    let integers = |values: Vec<i64>| values.iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<u8>>();
    let positions: Vec<u8> = joints.iter().flat_map(|v| v.to_le_bytes()).collect();
    let offsets = integers((0..=clips).map(|i| (i * FRAMES) as i64).collect());
    let labels = integers((0..clips).map(|i| (i % CLASSES.len()) as i64).collect());
    let subjects = integers((0..clips).map(|i| (i / 8) as i64).collect());
    let half: Vec<u8> = (0..clips).map(|i| (i / 4 % 2) as u8).collect();
    let tensor = |dtype, shape: &[usize], bytes| TensorView::new(dtype, shape.to_vec(), bytes).unwrap();
    let tensors = [
        ("joints", tensor(Dtype::F32, &[clips * FRAMES, 1, JOINTS.len(), 3], &positions)),
        ("offsets", tensor(Dtype::I64, &[clips + 1], &offsets)),
        ("labels", tensor(Dtype::I64, &[clips], &labels)),
        ("subjects", tensor(Dtype::I64, &[clips], &subjects)),
        ("split.half.test", tensor(Dtype::U8, &[clips], &half)),
    ];
    let about = serde_json::json!({ "name": "made_up", "classes": CLASSES, "joints": JOINTS, "fps": 30 }).to_string();
    fs::write(path, safetensors::serialize(tensors, Some([("clips".to_owned(), about)].into())).unwrap()).unwrap();
}

/// A trained run and its page.
fn run_with_page(folder: &Path, base_source: &Path) -> PathBuf {
    let at = |name: &str| folder.join(name).display().to_string();
    archive(&folder.join("clips.safetensors"));
    for (name, text) in [("stage1.toml", STAGE1), ("stage2.toml", STAGE2)] {
        fs::write(at(name), text.replace("ARCHIVE", &at("clips.safetensors"))).unwrap();
    }
    good(&["import", &base_source.display().to_string(), "--out", &at("base.safetensors")]);
    good(&["vqvae", &at("stage1.toml"), "--out", &at("run/stage1")]);
    let (stage1, base) = (at("run/stage1/stage1.safetensors"), at("base.safetensors"));
    good(&["lora", &at("stage2.toml"), "--stage1", &stage1, "--base", &base, "--out", &at("run/stage2")]);
    let adapter = at("run/stage2/adapter.safetensors");
    good(&["export", "--base", &base, "--stage1", &stage1, "--adapter", &adapter, "--scheme", "q8", "--out", &at("run/model.llmar")]);
    let page = good(&["report", &at("run"), "--data", &at("clips.safetensors"), "--split", "half", "--title", HOSTILE]);
    PathBuf::from(page.trim())
}

#[test]
fn a_run_can_be_judged_in_a_browser() {
    let test = "a_run_can_be_judged_in_a_browser";
    let Some(source) = shared::shared(test, "golden/stories260k") else { return };
    let folder = tempfile::tempdir().unwrap();
    let page = run_with_page(folder.path(), &source);
    let text = fs::read_to_string(&page).unwrap();
    assert!(
        !text.contains("http://") || text.matches("http://").count() == text.matches("http://www.w3.org/").count(),
        "loads from elsewhere"
    );
    assert!(!text.contains("https://") && !text.contains(HOSTILE));

    let Some(mut browser) = Browser::start(test) else { return };
    browser.open(&page);
    assert_eq!(browser.complaints(), [""; 0]);
    assert_eq!(browser.eval("document.title"), HOSTILE);
    assert_eq!(browser.eval("document.querySelectorAll('main b').length > 0 && ![...document.querySelectorAll('b')].some(b => b.textContent.startsWith('&'))"), true);
    for id in ["summary", "stage1", "stage2", "confusions", "reliability", "usage", "codebook", "reconstructions", "mistakes"] {
        assert_eq!(browser.eval(&format!("document.querySelectorAll('section#{id}').length")), 1, "{id}");
    }
    assert_eq!(browser.eval("document.getElementById('left-out') === null"), true);
    // Twelve figures of stage 1 and 2 at least: loss, parts, learning rate, gradient norm.
    assert_eq!(browser.eval("document.querySelectorAll('.curves svg path').length >= 10"), true);
    assert_eq!(browser.eval("document.querySelectorAll('#disk-chart circle.dot').length"), 16);
    assert_eq!(browser.eval("document.querySelectorAll('#pairs canvas').length"), 4);

    // The matrix says what a cell means, to the pointer and to the keyboard.
    browser.hover("#matrix tbody tr:nth-child(3) td:nth-child(4)");
    let said = browser.eval("document.getElementById('matrix-text').textContent");
    assert!(said.as_str().is_some_and(|s| s.starts_with(&format!("{HOSTILE}: ")) && s.contains("of 6 clips right")), "{said}");
    browser.eval("document.querySelector('#matrix tbody tr:nth-child(1) td:nth-child(2)').focus()");
    browser.press("ArrowRight");
    let said = browser.eval("document.getElementById('matrix-text').textContent");
    assert!(said.as_str().is_some_and(|s| s.starts_with("wave taken for sit down: ")), "{said}");

    // A code and a point of a curve are read with the arrow keys; the reconstructions go to the frame that is asked for.
    browser.eval("document.querySelector('#disk-chart svg').focus()");
    browser.press("ArrowRight");
    let said = browser.eval("document.getElementById('disk-text').textContent");
    assert!(said.as_str().is_some_and(|s| s.starts_with("Code ") && s.contains(" uses")), "{said}");
    browser.eval("document.querySelector('#stage1 .curves svg').focus()");
    browser.press("Home");
    let said = browser.eval("document.querySelector('#stage1 .curves figcaption span:last-child').textContent");
    assert!(said.as_str().is_some_and(|s| s.starts_with("step 1: ")), "{said}");
    browser.eval(
        "(() => { const bar = document.querySelector('#pairs-bar input'); bar.value = 3; bar.dispatchEvent(new Event('input')); })()",
    );
    let said = browser.eval("document.querySelector('#pairs-bar span').textContent");
    assert!(said.as_str().is_some_and(|s| s.starts_with("frame 4 of 16")), "{said}");

    // Hardly trained, it makes mistakes; each is a row whose clip plays.
    let wrong = browser.eval("document.querySelectorAll('#mistakes-list tbody tr').length");
    assert!(wrong.as_u64().is_some_and(|n| n > 0 && n <= 24), "{wrong}");
    browser.click("#mistakes-list tbody tr:last-child button");
    let shown = "document.getElementById('player-canvas').toDataURL()";
    let counter = "document.querySelector('#player-bar span').textContent";
    let (first, count) = (browser.eval(shown), browser.eval(counter));
    browser.wait_until(&format!("{counter} !== {count}"));
    browser.wait_until(&format!("{shown} !== {first}"));
    let title = browser.eval("document.getElementById('player-title').textContent");
    assert!(title.as_str().is_some_and(|t| t.contains(", answered ")), "{title}");
    browser.click("#player-bar button");
    assert_eq!(browser.eval("document.querySelector('#player-bar button').textContent"), "Play");
    let before = browser.eval(shown);
    browser.eval("document.getElementById('player-canvas').focus()");
    browser.press("ArrowLeft");
    browser.wait_until(&format!("{shown} !== {before}"));
    assert_eq!(browser.complaints(), [""; 0]);
}

#[test]
fn parts_that_are_missing_are_said_and_damaged_ones_refused() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let report = |run: &Path| {
        let output = Command::new(env!("CARGO_BIN_EXE_llmar-train")).arg("report").arg(run).output().unwrap();
        (output.status.success(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let (fine, said) = report(folder.path());
    assert!(!fine && said.contains("stage1/metrics.jsonl") && said.contains("none of them is there"), "{said}");

    fs::create_dir(at("stage1")).unwrap();
    let line = |step: usize| {
        format!("{{\"step\":{step},\"phase\":\"features\",\"loss\":{},\"lr\":0.1,\"grad_norm\":1,\"parts\":{{}}}}\n", 1.0 / step as f64)
    };
    let whole: String = (1..=5).map(line).collect();
    // A run that was killed leaves half a line behind.
    fs::write(at("stage1/metrics.jsonl"), format!("{whole}{{\"step\":6,\"lo")).unwrap();
    let (fine, said) = report(folder.path());
    assert!(fine, "{said}");
    let text = fs::read_to_string(at("report.html")).unwrap();
    assert!(text.contains("id=left-out") && text.contains("model.llmar is missing") && text.contains("section id=stage1"));

    fs::write(at("stage1/metrics.jsonl"), whole.replacen("\"loss\":0.5", "\"loss\":", 1)).unwrap();
    let (fine, said) = report(folder.path());
    assert!(!fine && said.contains("metrics.jsonl") && said.contains('2'), "{said}");
    // The page that was there stays.
    assert_eq!(fs::read_to_string(at("report.html")).unwrap(), text);

    // Files of one run go together; an adapter with another stage 1 does not.
    fs::remove_file(at("stage1/metrics.jsonl")).unwrap();
    fs::create_dir(at("stage2")).unwrap();
    let shipped = Path::new(env!("CARGO_MANIFEST_DIR")).join("adapters/utd-mhad");
    fs::copy(shipped.join("stage1.safetensors"), at("stage1/stage1.safetensors")).unwrap();
    fs::copy(shipped.join("adapter.safetensors"), at("stage2/adapter.safetensors")).unwrap();
    let (fine, said) = report(folder.path());
    assert!(fine, "{said}");
    let mut other = fs::read(at("stage1/stage1.safetensors")).unwrap();
    let last = other.len() - 3; // of the last number's mantissa
    other[last] ^= 1;
    fs::write(at("stage1/stage1.safetensors"), other).unwrap();
    let (fine, said) = report(folder.path());
    assert!(!fine && said.contains("adapter.safetensors") && said.contains("stage-1"), "{said}");
}
