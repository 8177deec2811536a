//! `llmar-train` as a program: errors that name what is wrong, and files that survive when it is killed.

#[path = "common/shared.rs"]
mod shared;
#[path = "common/smollm2.rs"]
mod smollm2;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

fn trainer(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_llmar-train"));
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

fn good(arguments: &[&str]) -> String {
    let output = trainer(arguments).output().unwrap();
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// Starts it and kills it (SIGKILL) after `after`; false when it had ended by then.
fn killed(arguments: &[&str], after: Duration) -> bool {
    let mut child = trainer(arguments).spawn().unwrap();
    std::thread::sleep(after);
    let running = child.try_wait().unwrap().is_none();
    let _ = child.kill(); // it may end between the two calls
    child.wait().unwrap();
    running
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

#[test]
fn errors_are_one_line_that_names_the_culprit() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).display().to_string();
    fs::write(path("not.gguf"), "GGUX").unwrap();
    fs::write(path("broken.toml"), "seed = \"one\"\n").unwrap();
    let adapter = root().join("llmar-train/adapters/utd-mhad/adapter.safetensors").display().to_string();
    let (absent, out, gguf, toml) = (path("absent"), path("out"), path("not.gguf"), path("broken.toml"));
    let cases: [(&[&str], &str); 7] = [
        (&["import", &absent, "--out", &out], "absent"),
        (&["import", &gguf, "--out", &out], "not.gguf"),
        (&["data", "inspect", &gguf], "not.gguf"),
        (
            &["export", "--base", &adapter, "--stage1", &adapter, "--adapter", &adapter, "--scheme", "q8", "--out", &out],
            "adapter.safetensors",
        ),
        (&["evaluate", "--model", &gguf, "--data", &absent, "--split", "cross_subject"], "absent"),
        (&["vqvae", &toml, "--out", &out], "seed"),
        (&["lora", &absent, "--out", &out], "absent"),
    ];
    for (arguments, needle) in cases {
        let output = trainer(arguments).output().unwrap();
        let error = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{arguments:?}: {error}");
        assert!(output.stdout.is_empty() && error.starts_with("error: ") && error.contains(needle), "{arguments:?}: {error}");
    }
    assert_eq!(trainer(&["export"]).output().unwrap().status.code(), Some(2), "missing arguments are wrong usage");
    assert!(!Path::new(&out).exists());
}

/// An import or export that is killed at any moment leaves the file that was there.
#[test]
fn a_killed_export_leaves_the_old_file() {
    let Some(gguf) = smollm2::gguf("a_killed_export_leaves_the_old_file") else { return };
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).display().to_string();
    let adapters = root().join("llmar-train/adapters/utd-mhad");
    let (base, model) = (path("base.safetensors"), path("model.llmar"));
    let (stage1, adapter) =
        (adapters.join("stage1.safetensors").display().to_string(), adapters.join("adapter.safetensors").display().to_string());
    let gguf = gguf.display().to_string();
    let import = ["import", &gguf, "--out", &base];
    let export = ["export", "--base", &base, "--stage1", &stage1, "--adapter", &adapter, "--scheme", "q8", "--out", &model];
    good(&import);
    for (file, arguments) in [(&base, &import[..]), (&model, &export[..])] {
        fs::write(file, if file == &base { fs::read(&base).unwrap() } else { b"old".to_vec() }).unwrap();
        let old = fs::read(file).unwrap();
        let mut killed_while_running = 0;
        for milliseconds in [30, 100, 250, 500, 800, 1200] {
            if killed(arguments, Duration::from_millis(milliseconds)) {
                killed_while_running += 1;
                assert!(fs::read(file).unwrap() == old, "{arguments:?} killed after {milliseconds} ms changed the file");
            } else {
                break;
            }
        }
        assert!(killed_while_running > 0, "{arguments:?} was never caught running");
    }
    good(&export);
    let model = llmar::recognizer::Model::open(Path::new(&model), llmar::recognizer::OpenOptions { verify: true, ..Default::default() });
    assert_eq!(model.unwrap().metadata().labels.len(), 27);
}

/// A training run that is killed and resumed, again and again, ends in the same bytes as one that was left alone.
#[test]
fn a_killed_run_resumes_to_the_same_artifact() {
    let Some(archive) = shared::shared("a_killed_run_resumes_to_the_same_artifact", "data/utd_mhad.safetensors") else { return };
    let folder = tempfile::tempdir().unwrap();
    let config = root().join("llmar-train/configs/utd-mhad-stage1.toml").display().to_string();
    let archive = format!("data.archive={:?}", archive.display().to_string());
    let (alone, broken) = (folder.path().join("alone"), folder.path().join("broken"));
    let arguments = |out: &Path| -> Vec<String> {
        let sets = ["snapshot_steps=5", "encoder.width=16", "features.steps=30", "codes.steps=20", "quantizer.kmeans_rounds=2", &archive];
        let mut all: Vec<String> = ["vqvae", &config, "--resume", "--out", &out.display().to_string()].map(str::to_owned).into();
        all.extend(sets.iter().flat_map(|set| ["--set".to_owned(), (*set).to_owned()]));
        all
    };
    let (whole, cut) = (arguments(&alone), arguments(&broken));
    let (whole, cut): (Vec<&str>, Vec<&str>) = (whole.iter().map(String::as_str).collect(), cut.iter().map(String::as_str).collect());
    good(&whole);
    let mut interruptions = 0;
    let mut wait = 700;
    while !broken.join("stage1.safetensors").exists() {
        interruptions += u32::from(killed(&cut, Duration::from_millis(wait)));
        wait += 300; // a slow machine must come further each time
    }
    assert!(interruptions > 0, "the run was never caught running");
    good(&cut); // resumes a finished run: nothing is left to do
    let artifact = |folder: &Path| fs::read(folder.join("stage1.safetensors")).unwrap();
    assert!(artifact(&alone) == artifact(&broken), "{interruptions} interruptions changed the result");
    let lines = |folder: &Path| fs::read_to_string(folder.join("metrics.jsonl")).unwrap();
    assert_eq!(lines(&alone), lines(&broken));
}
