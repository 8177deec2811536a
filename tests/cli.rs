//! The command-line tool as its users run it: what it prints for a sound model, and a status and one line for what is not.

#[path = "common/archive.rs"]
mod archive;
#[path = "common/tiny.rs"]
mod tiny;

use std::fs;
use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use archive::archive;
use llmar::device::Scheme;
use serde_json::Value;

/// What a run gave: exit status, standard output, standard error.
struct Ran {
    code: i32,
    out: String,
    err: String,
}

fn llmar(arguments: &[&str]) -> Ran {
    let output = Command::new(env!("CARGO_BIN_EXE_llmar")).args(arguments).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    Ran { code: output.status.code().expect("no signal ends it"), out: text(output.stdout), err: text(output.stderr) }
}

/// A run that must succeed without a word on standard error.
fn good(arguments: &[&str]) -> String {
    let ran = llmar(arguments);
    assert_eq!((ran.code, ran.err.as_str()), (0, ""), "{arguments:?}");
    ran.out
}

/// A run that must fail with `code`, without output, and a message that holds `needle`.
fn bad(code: i32, needle: &str, arguments: &[&str]) {
    let ran = llmar(arguments);
    assert_eq!((ran.code, ran.out.as_str()), (code, ""), "{arguments:?}: {}", ran.err);
    assert!(ran.err.starts_with("llmar: ") && ran.err.contains(needle), "{arguments:?}: expected `{needle}` in `{}`", ran.err);
}

/// A folder with a tiny model, an archive of three clips, an archive whose second clip has no valid joint, and a clip of each JSON format.
struct Files {
    folder: tempfile::TempDir,
}

impl Files {
    fn new() -> Self {
        let files = Self { folder: tempfile::tempdir().unwrap() };
        tiny::file_in(files.folder.path(), Scheme::Q8);
        let mut random = tiny::Random(3);
        let mut body = |frames: usize| random.values(frames * 20 * 3, 1.0);
        let (a, b, c) = (body(30), body(41), body(64));
        archive(&files.path("clips.safetensors"), &[&a, &b, &c]);
        archive(&files.path("unseen.safetensors"), &[&a, &vec![f32::NAN; b.len()], &c]);

        let frames: Vec<Vec<&[f32]>> = a.chunks(60).map(|frame| frame.chunks(3).collect()).collect();
        let nw_ucla = serde_json::json!({"file_name": "a01_s01_e00_v01", "skeletons": frames, "label": 1});
        fs::write(files.path("nw_ucla.json"), nw_ucla.to_string()).unwrap();
        // Duration, root, eight rotations as quaternions and four hinges: the character at rest.
        let quaternion = [1.0, 0.0, 0.0, 0.0];
        let mut pose = vec![0.0333, 0.0, 0.9, 0.0];
        for joint in ["root", "chest", "neck", "right hip", "knee", "right ankle", "right shoulder", "elbow"].into_iter().chain([
            "left hip",
            "knee",
            "left ankle",
            "left shoulder",
            "elbow",
        ]) {
            pose.extend_from_slice(if matches!(joint, "knee" | "elbow") { &[0.0] } else { &quaternion });
        }
        let deepmimic = serde_json::json!({"Loop": "none", "Frames": vec![pose; 40]});
        fs::write(files.path("humanoid3d_rest.txt"), deepmimic.to_string()).unwrap();
        files
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn text(&self, name: &str) -> String {
        self.path(name).display().to_string()
    }
}

#[test]
fn a_model_is_described_and_verified() {
    let files = Files::new();
    let model = files.text("tiny-q8.llmar");
    let text = good(&["info", &model]);
    assert!(["tiny", "kinect1_20", "32 codes", "walk, sit down, wave, drink water"].iter().all(|part| text.contains(part)), "{text}");
    let json: Value = serde_json::from_str(&good(&["info", &model, "--json"])).unwrap();
    assert_eq!(json["labels"][1]["text"], "sit down");
    assert_eq!(json["file_bytes"], fs::metadata(&model).unwrap().len());
    assert!(good(&["verify", &model]).contains(&format!("sound, SHA-256 {}", json["tensors_sha256"].as_str().unwrap())));

    // One bit of the weights: the file opens, and only verify notices.
    let mut bytes = fs::read(&model).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    let damaged = files.text("damaged.llmar");
    fs::write(&damaged, bytes).unwrap();
    bad(1, "checksum mismatch", &["verify", &damaged]);
}

#[test]
fn clips_of_every_format_are_recognised() {
    let files = Files::new();
    let model = files.text("tiny-q8.llmar");
    let (clips, nw_ucla, deepmimic) = (files.text("clips.safetensors"), files.text("nw_ucla.json"), files.text("humanoid3d_rest.txt"));
    let lines = |arguments: &[&str]| good(&[&["recognize", &model, &clips, &nw_ucla, &deepmimic], arguments].concat());

    let text = lines(&[]);
    assert_eq!(text.lines().count(), 5, "{text}");
    for (line, name) in text.lines().zip(["clips#0", "clips#1", "clips#2", "a01_s01_e00_v01", "humanoid3d_rest"]) {
        assert!(line.starts_with(&format!("{name}: ")) && line.matches('%').count() == 3 && line.ends_with("ms)"), "{line}");
    }

    let json = |arguments: &[&str]| -> Vec<Value> {
        let text = lines(&[&["--json"], arguments].concat());
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    };
    let all = json(&["--top", "4"]);
    for answer in &all {
        let sum: f64 = answer["top"].as_array().unwrap().iter().map(|label| label["probability"].as_f64().unwrap()).sum();
        assert!((sum - 1.0).abs() < 1e-5 && answer["top"].as_array().unwrap().len() == 4, "{answer}");
        assert_eq!((answer["tokens"].as_array().unwrap().len(), &answer["unknown"]), (8, &Value::Bool(false)));
    }
    // The same clip as archive and as JSON, alone and in a batch, with one thread and two: the same answer to the last digit.
    let answers = |answers: Vec<Value>| answers.into_iter().map(|a| (a["top"].clone(), a["tokens"].clone())).collect::<Vec<_>>();
    let all = answers(all);
    assert_eq!(all[0], all[3]);
    assert_eq!(all, answers(json(&["--top", "4", "--batch", "8", "--threads", "2"])));

    assert!(json(&["--unknown-below", "1"]).iter().all(|answer| answer["unknown"] == true));
    assert!(json(&["--greedy"]).iter().all(|answer| answer["top"].as_array().unwrap().len() == 1));
    let replaced = json(&["--labels", "run, jump", "--top", "9"]);
    for answer in replaced {
        let mut names: Vec<&str> = answer["top"].as_array().unwrap().iter().map(|l| l["label"].as_str().unwrap()).collect();
        names.sort_unstable();
        assert_eq!(names, ["jump", "run"]);
    }
    // What the labels get on one clip taken out: on that clip nothing is left but equal shares.
    let balanced = json(&["--labels", "run, jump", "--balance", &deepmimic]);
    let rest = balanced.last().unwrap()["top"].as_array().unwrap();
    assert!(rest.iter().all(|label| (label["probability"].as_f64().unwrap() - 0.5).abs() < 1e-5), "{rest:?}");
    assert_ne!(balanced[0]["top"][0]["probability"], rest[0]["probability"]);
    bad(1, "decoding", &["recognize", &model, &clips, "--balance", &clips, "--greedy"]);
    bad(1, "nowhere", &["recognize", &model, &clips, "--balance", "nowhere"]);
}

#[test]
fn labels_are_told_by_their_words() {
    let files = Files::new();
    let model = tiny::described_in(files.folder.path(), Scheme::Q8).display().to_string();
    let known = "words        6, temperature 0.25: both down hands left right up\n";
    assert!(good(&["info", &model]).contains(known));
    assert!(!good(&["info", &files.text("tiny-q8.llmar")]).contains("words  "));
    let clips = files.text("clips.safetensors");
    let text = good(&["recognize", &model, &clips, "--by-words", "--labels", "LEFT up, both hands once", "--top", "9", "--json"]);
    for line in text.lines() {
        let answer: Value = serde_json::from_str(line).unwrap();
        let top = answer["top"].as_array().unwrap();
        let sum: f64 = top.iter().map(|label| label["probability"].as_f64().unwrap()).sum();
        let mut names: Vec<&str> = top.iter().map(|label| label["label"].as_str().unwrap()).collect();
        names.sort_unstable();
        assert!((sum - 1.0).abs() < 1e-5 && names == ["LEFT up", "both hands once"], "{line}");
    }
    bad(1, "scoring by words", &["recognize", &files.text("tiny-q8.llmar"), &clips, "--by-words"]);
    bad(1, "6 words that the model knows", &["recognize", &model, &clips, "--by-words", "--labels", "up,somersault"]);
    bad(1, "decoding", &["recognize", &model, &clips, "--by-words", "--greedy"]);
    bad(2, "usage:", &["stream", &model, &clips, "--by-words"]);
}

#[test]
fn a_clip_is_written_as_text() {
    let files = Files::new();
    let text = good(&["clip", &files.text("clips.safetensors"), "--index", "1"]);
    assert_eq!(text.lines().next(), Some("kinect1_20 41 1 20 3 30"));
    assert_eq!(text.lines().count(), 42);
    let out = files.text("one.txt");
    assert_eq!(good(&["clip", &files.text("clips.safetensors"), "--index", "1", "--out", &out]), "");
    assert_eq!(fs::read_to_string(&out).unwrap(), text);
    let unseen = good(&["clip", &files.text("unseen.safetensors"), "--index", "1"]);
    assert_eq!(unseen.matches("nan").count(), 41 * 60);
    bad(2, "--index 3", &["clip", &files.text("clips.safetensors"), "--index", "3"]);
}

#[test]
fn a_bench_reports_every_figure() {
    let files = Files::new();
    let text = good(&["bench", &files.text("tiny-q8.llmar"), "--seconds", "0.01", "--threads", "1", "--json"]);
    let report: Value = serde_json::from_str(&text).unwrap();
    for figure in
        ["open_ms", "recognition_ms", "recognitions_per_s", "batch_recognitions_per_s", "prefill_tokens_per_s", "decode_tokens_per_s"]
    {
        assert!(report[figure].as_f64().is_some_and(|v| v > 0.0), "{figure}: {report}");
    }
    for floor in ["weight_bytes", "read_gb_per_s", "decode_tokens_per_s", "kernel_gflop_per_s", "prefill_tokens_per_s"] {
        assert!(report["floors"][floor].as_f64().is_some_and(|v| v > 0.0), "{floor}: {report}");
    }
    assert!(good(&["bench", &files.text("tiny-q8.llmar"), &files.text("nw_ucla.json"), "--seconds", "0.01"]).contains("one recognition"));
}

/// What `llmar stream` prints: its lines and its statistics.
fn stream(arguments: &[&str]) -> (Vec<String>, String) {
    let ran = llmar(&[&["stream"], arguments].concat());
    assert_eq!(ran.code, 0, "{arguments:?}: {}", ran.err);
    assert!(ran.err.lines().count() == 1 && ran.err.starts_with("llmar: ") && ran.err.contains("p99"), "{}", ran.err);
    (ran.out.lines().map(str::to_owned).collect(), ran.err)
}

/// The same with frames on standard input.
fn stream_of(input: &str, arguments: &[&str]) -> Ran {
    let mut command = Command::new(env!("CARGO_BIN_EXE_llmar"));
    let pipes = command.arg("stream").args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut process = pipes.spawn().unwrap();
    process.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    let output = process.wait_with_output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    Ran { code: output.status.code().unwrap(), out: text(output.stdout), err: text(output.stderr) }
}

#[test]
fn clips_are_streamed() {
    let files = Files::new();
    let (model, clip) = (files.text("tiny-q8.llmar"), files.text("long.safetensors"));
    archive(&files.path("long.safetensors"), &[&tiny::motion(5, 150), &tiny::motion(6, 120)]);
    let (text, statistics) = stream(&[&model, &clip]);
    let decisions: Vec<_> = text.iter().filter(|line| line.contains("  decision  ")).collect();
    assert!(decisions.len() > 10 && statistics.contains("270 frames (0 refused)"), "{text:#?} {statistics}");
    assert!(statistics.contains(&format!("{} decisions", decisions.len())), "{statistics}");
    for line in decisions {
        assert!(line.contains(" s  body 0  ") && line.matches('%').count() == 3 && line.ends_with("ms)"), "{line}");
    }

    let json = |arguments: &[&str]| -> Vec<Value> {
        let (lines, _) = stream(&[&[model.as_str(), &clip, "--json"], arguments].concat());
        lines.iter().map(|line| serde_json::from_str(line).unwrap()).collect()
    };
    let all = json(&["--top", "4"]);
    assert_eq!(all.len(), text.len());
    for event in &all {
        assert!(event["body"] == 0 && event["start_s"].as_f64() <= event["end_s"].as_f64(), "{event}");
        if event["kind"] == "decision" {
            let sum: f64 = event["top"].as_array().unwrap().iter().map(|label| label["probability"].as_f64().unwrap()).sum();
            assert!((sum - 1.0).abs() < 1e-4 && event["top"][0]["label"] == event["label"] && event["tokens"] == 8, "{event}");
        }
    }
    // The second clip follows a pause of a second, or of another length.
    let last = |events: &[Value]| events.iter().filter_map(|event| event["time_s"].as_f64()).fold(0.0, f64::max);
    assert!((last(&all) - (149.0 / 30.0 + 1.0 + 119.0 / 30.0)).abs() < 0.01, "{}", last(&all));
    assert!((last(&json(&["--pause", "2.5"])) - (149.0 / 30.0 + 2.5 + 119.0 / 30.0)).abs() < 0.01);
    // A worker and more threads change nothing but the time; fewer decisions are fewer.
    let answers =
        |events: Vec<Value>| -> Vec<_> { events.into_iter().map(|event| (event["time_s"].clone(), event["label"].clone())).collect() };
    let (all, worked) = (answers(json(&[])), answers(json(&["--worker", "--threads", "2"])));
    assert_eq!(all, worked);
    assert!(json(&["--every", "4"]).len() < all.len() / 2);
    assert!(json(&["--actions"]).iter().all(|event| event["kind"] != "decision"));
    assert!(json(&["--unknown-below", "1"]).iter().filter(|event| event["kind"] == "decision").all(|event| event["unknown"] == true));
}

#[test]
fn live_frames_are_streamed() {
    let files = Files::new();
    let model = files.text("tiny-q8.llmar");
    let frame = |(frame, joints): (usize, &[f32])| {
        let joints: Vec<_> = joints.chunks(3).enumerate().map(|(joint, p)| (joint != 3 || frame % 2 == 0).then_some(p)).collect();
        let line = serde_json::json!({"time_ns": 1_700_000_000_000_000_000_u64 + frame as u64 * 33_333_333, "body": 7, "joints": joints});
        format!("{line}\n")
    };
    let lines: Vec<String> = tiny::motion(5, 150).chunks(60).enumerate().map(frame).collect();
    let ran = stream_of(&lines.concat(), &[&model, "-", "--layout", "kinect1_20"]);
    assert_eq!((ran.code, ran.err.lines().count()), (0, 1), "{}", ran.err);
    assert!(ran.err.contains("150 frames (0 refused)") && ran.out.lines().all(|line| line.contains("body 7")), "{}", ran.out);
    assert!(ran.out.lines().count() > 5, "{}", ran.out);

    // The same frames as Unity has them, z the other way: the same answers with the axes' name, others without.
    let mirrored: Vec<f32> = tiny::motion(5, 150).as_chunks::<3>().0.iter().flat_map(|[x, y, z]| [*x, *y, -*z]).collect();
    let mirrored: String = mirrored.chunks(60).enumerate().map(frame).collect();
    let answers = |input: &str, axes: &[&str]| -> Vec<_> {
        let ran = stream_of(input, &[&[model.as_str(), "-", "--json"], axes].concat());
        assert_eq!(ran.code, 0, "{axes:?}: {}", ran.err);
        let event = |line: &str| serde_json::from_str::<Value>(line).unwrap();
        ran.out.lines().map(event).map(|event| (event["time_s"].clone(), event["top"].clone())).collect()
    };
    let right = answers(&lines.concat(), &[]);
    assert!(right.len() > 5 && right == answers(&lines.concat(), &["--axes", "openxr"]));
    assert_eq!(right, answers(&mirrored, &["--axes", "unity"]));
    assert_ne!(right, answers(&mirrored, &[]));

    // What is no frame, and a frame that comes twice, is said and left out.
    let bad =
        [lines[0].as_str(), "{\"time_ns\": 1}\n", "no\n", "\n", &lines[1], &lines[1], "{\"time_ns\":9,\"joints\":[null]}\n", &lines[2]];
    let ran = stream_of(&bad.concat(), &[&model, "-", "--json"]);
    assert!(ran.code == 0 && ran.err.contains("3 frames (4 refused)"), "{}", ran.err);
    for said in ["line 2: expected the keys", "line 3: not a frame", "a second frame at", "line 7: expected 20 joints, got 1"] {
        assert!(ran.err.contains(said), "{said}: {}", ran.err);
    }
    let ran = stream_of("no\n", &[&model, "-"]);
    assert!(ran.code == 1 && ran.err.contains("no line holds a frame"), "{}", ran.err);
}

#[test]
fn what_cannot_be_streamed_is_said() {
    let files = Files::new();
    let (model, clips) = (files.text("tiny-q8.llmar"), files.text("clips.safetensors"));
    bad(1, "No such file", &["stream", &model, &files.text("absent.json")]);
    bad(1, "no joint is seen", &["stream", &model, &files.text("unseen.safetensors")]);
    bad(1, "unknown skeleton layout", &["stream", &model, "-", "--layout", "octopus"]);
    bad(1, "top_k", &["stream", &model, &clips, "--top", "9"]);
    bad(1, "tokens_per_decision", &["stream", &model, &clips, "--every", "0"]);
    archive(&files.path("empty.safetensors"), &[]);
    for (needle, wrong) in [
        ("CLIPS", &["stream", model.as_str()][..]),
        ("- alone", &["stream", &model, "-", &clips]),
        ("--layout", &["stream", &model, &clips, "--layout", "coco17"]),
        ("--axes is for -", &["stream", &model, &clips, "--axes", "ros"]),
        ("azure_kinect", &["stream", &model, "-", "--axes", "maya"]),
        ("--pause", &["stream", &model, &clips, "--pause", "-1"]),
        ("--fps", &["stream", &model, &clips, "--fps", "nan"]),
        ("--deadline-ms", &["stream", &model, &clips, "--deadline-ms", "0"]),
        ("no clip", &["stream", &model, &files.text("empty.safetensors")]),
        ("usage:", &["stream", &model, &clips, "--batch", "2"]),
        ("70000", &["view", &model, &clips, "--port", "70000"]),
        ("would overwrite", &["view", &model, &clips, "--record", &clips]),
    ] {
        bad(2, needle, wrong);
    }
    let recording = files.text("bad.jsonl");
    let header = r#"{"kind":"stream","model":"tiny","layout":"kinect1_20","coords":3}"#;
    for (text, needle) in [("", "without a frame"), ("{\"time_ns\":1,\"joints\":[]}\n", "line 2: expected 20 joints")] {
        fs::write(&recording, format!("{header}\n{text}")).unwrap();
        bad(1, needle, &["stream", &model, &recording]);
    }
}

/// A model that asks for more memory than there is: an error, and the process lives to tell.
#[cfg(target_os = "linux")]
#[test]
fn lack_of_memory_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("long.llmar");
    let mut metadata = tiny::metadata(Scheme::Q8);
    metadata.llama.max_position_embeddings = 1 << 20;
    metadata.prompt.prefix_ids = vec![5; 900_000];
    llmar::checkpoint::write_checkpoint(&path, &metadata, &tiny::tensors(Scheme::Q8)).unwrap();
    let files = Files::new();
    // 300 MB of address space; keys and values of the prefix alone take more.
    let script = r#"ulimit -v 300000; exec "$0" recognize "$1" "$2" --threads 1"#;
    let output =
        Command::new("sh").args(["-c", script, env!("CARGO_BIN_EXE_llmar")]).arg(&path).arg(files.path("nw_ucla.json")).output().unwrap();
    let error = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{error}");
    assert!(error.contains("no memory for"), "{error}");
}

#[test]
fn what_cannot_be_done_is_said_in_one_line() {
    let files = Files::new();
    let model = files.text("tiny-q8.llmar");
    let clips = files.text("clips.safetensors");
    bad(1, "No such file", &["info", &files.text("absent.llmar")]);
    bad(1, "No such file", &["recognize", &model, &files.text("absent.json")]);
    bad(1, "", &["info", &clips]);
    let plain = files.text("plain.txt");
    fs::write(&plain, "kinect1_20 30 1 20 3 30\n").unwrap();
    bad(1, "another kind of file", &["recognize", &model, &plain]);
    let bytes = fs::read(&model).unwrap();
    let cut = files.text("cut.llmar");
    for part in 0..64 {
        fs::write(&cut, &bytes[..bytes.len() * part / 64]).unwrap();
        bad(1, "", &["info", &cut]);
    }
    bad(1, "unseen#1: clip cannot be used", &["recognize", &model, &files.text("unseen.safetensors"), "--batch", "3"]);
    bad(1, "unknown_below", &["recognize", &model, &clips, "--unknown-below", "2"]);
    bad(1, "number of threads", &["recognize", &model, &clips, "--threads", "1000"]);
    bad(1, "labels", &["recognize", &model, &clips, "--labels", "a,a"]);
    for wrong in [&["frobnicate"][..], &["info"], &["info", &model, &clips], &["recognize", &model], &["info", &model, "--threads", "2"]] {
        bad(2, "usage:", wrong);
    }
    archive(&files.path("empty.safetensors"), &[]);
    bad(2, "no clip", &["bench", &model, &files.text("empty.safetensors")]);
    for (option, values) in
        [("--seconds", ["nan", "-1", "1e9"]), ("--batch", ["0", "5000", "18446744073709551615"]), ("--prompt", ["0", "241", "99999999"])]
    {
        for value in values {
            bad(2, option, &["bench", &model, &clips, option, value]);
        }
    }
    bad(2, "many", &["recognize", &model, &clips, "--threads", "many"]);
    assert!(good(&["stream", "--help"]).contains("usage:") && good(&["bench", "-h"]).contains("usage:"));
    assert!(good(&["--help"]).contains("usage:") && good(&["--version"]).starts_with("llmar "));
}
