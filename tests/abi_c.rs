//! C and C++ programs (tests/c, examples/c) against libllmar.so and a tiny model: under the compilers' sanitizers, and under valgrind.

#![cfg(target_os = "linux")]

#[path = "common/cdylib.rs"]
mod cdylib;
#[cfg(feature = "cuda")]
#[path = "common/emulator.rs"]
mod emulator;
#[path = "common/tiny.rs"]
mod tiny;

use std::fs;
use std::path::Path;
use std::process::Command;

use cdylib::{Build, compile, have, run};
use llmar::device::Scheme;
use tempfile::TempDir;

/// Whether `build` can be made here; otherwise says why `test` is skipped.
fn can(test: &str, build: Build) -> bool {
    let reason = match build {
        Build::Plain if !have("valgrind") => "valgrind is missing",
        _ if !have("cc") || !have("c++") => "no C and C++ compiler",
        Build::Sanitized if !sanitizers() => "the compiler has no AddressSanitizer runtime",
        _ => return true,
    };
    println!("SKIPPED {test}: {reason}");
    false
}

fn sanitizers() -> bool {
    let folder = tempfile::tempdir().unwrap();
    let (source, out) = (folder.path().join("probe.c"), folder.path().join("probe"));
    fs::write(&source, "int main(void) { return 0; }\n").unwrap();
    Command::new("cc").arg("-fsanitize=address,undefined").arg(source).arg("-o").arg(out).output().is_ok_and(|o| o.status.success())
}

/// Builds a program and runs it on the tiny model; it must end with 0 and print nothing.
fn check(build: Build, sources: &[&str], arguments: impl FnOnce(&Path) -> Vec<String>) {
    let folder = tempfile::tempdir().unwrap();
    let program = compile(sources, folder.path(), build);
    let mut command = match build {
        Build::Sanitized => Command::new(&program),
        Build::Plain => {
            let mut valgrind = Command::new("valgrind");
            // Valgrind runs one thread at a time: without fair turns a loop that waits for another thread can starve it.
            valgrind.args(["--quiet", "--fair-sched=try", "--error-exitcode=99", "--leak-check=full"]);
            valgrind.args(["--show-leak-kinds=definite", "--errors-for-leak-kinds=definite"]);
            valgrind.arg(format!("--suppressions={}", cdylib::root().join("tests/c/valgrind.supp").display())).arg(&program);
            valgrind
        }
    };
    command.args(arguments(folder.path()));
    command.env("UBSAN_OPTIONS", "print_stacktrace=1");
    // The library prints nothing, and so do these programs.
    assert_eq!(run(&mut command), "");
}

fn model(folder: &Path) -> Vec<String> {
    vec![tiny::file_in(folder, Scheme::Q8).display().to_string()]
}

fn model_and_folder(folder: &Path) -> Vec<String> {
    let mut arguments = model(folder);
    arguments.push(folder.display().to_string());
    arguments
}

fn two_models(folder: &Path) -> Vec<String> {
    let mut arguments = model(folder);
    arguments.push(tiny::file_in(folder, Scheme::F32).display().to_string());
    arguments
}

fn described_and_plain(folder: &Path) -> Vec<String> {
    [tiny::described_in(folder, Scheme::Q8), tiny::file_in(folder, Scheme::Q8)].map(|path| path.display().to_string()).to_vec()
}

fn two_models_states(folder: &Path) -> Vec<String> {
    let mut arguments = two_models(folder);
    arguments.push("states".to_owned());
    arguments
}

/// One test a program and build, so that each is named when it fails or is skipped.
macro_rules! programs {
    ($($name:ident: $build:expr, $sources:expr, $arguments:expr;)*) => {$(
        #[test]
        fn $name() {
            if can(stringify!($name), $build) {
                check($build, &$sources, $arguments);
            }
        }
    )*};
}

programs! {
    sanitized_layout: Build::Sanitized, ["tests/c/layout.c"], |_| Vec::new();
    sanitized_open: Build::Sanitized, ["tests/c/open.c"], model_and_folder;
    sanitized_misuse: Build::Sanitized, ["tests/c/misuse.c"], model;
    sanitized_answers: Build::Sanitized, ["tests/c/answers.c"], model;
    sanitized_words: Build::Sanitized, ["tests/c/words.c"], described_and_plain;
    sanitized_threads: Build::Sanitized, ["tests/c/threads.c"], model;
    sanitized_cpp: Build::Sanitized, ["tests/c/smoke.cpp"], model;
    sanitized_clip_text: Build::Sanitized, ["tests/c/clip_text_test.c", "examples/c/clip_text.c"], |folder| vec![folder.display().to_string()];
    sanitized_stream: Build::Sanitized, ["tests/c/stream.c"], two_models;
    sanitized_stream_states: Build::Sanitized, ["tests/c/stream.c"], two_models_states;
    sanitized_stream_threads: Build::Sanitized, ["tests/c/stream_threads.c"], model;
    valgrind_misuse: Build::Plain, ["tests/c/misuse.c"], model;
    valgrind_answers: Build::Plain, ["tests/c/answers.c"], model;
    valgrind_words: Build::Plain, ["tests/c/words.c"], described_and_plain;
    valgrind_threads: Build::Plain, ["tests/c/threads.c"], model;
    valgrind_cpp: Build::Plain, ["tests/c/smoke.cpp"], model;
    valgrind_stream: Build::Plain, ["tests/c/stream.c"], two_models;
    valgrind_stream_states: Build::Plain, ["tests/c/stream.c"], two_models_states;
    valgrind_stream_threads: Build::Plain, ["tests/c/stream_threads.c"], model;
}

/// Streams of one model in eight threads: no access to anything shared that is not ordered. Nothing is suppressed.
#[test]
fn helgrind_stream_threads() {
    if !can("helgrind_stream_threads", Build::Plain) {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let program = compile(&["tests/c/stream_threads.c"], folder.path(), Build::Plain);
    let mut valgrind = Command::new("valgrind");
    valgrind.args(["--tool=helgrind", "--quiet", "--fair-sched=try", "--error-exitcode=99"]).arg(program).args(model(folder.path()));
    assert_eq!(run(&mut valgrind), "");
}

/// A model on a GPU from C, in the emulator, with each thing missing or failing: one status each, and the CPU goes on.
#[test]
#[cfg(feature = "cuda")]
fn emulated_device() {
    if !can("emulated_device", Build::Sanitized) {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let program = compile(&["tests/c/device.c"], folder.path(), Build::Sanitized);
    let model = tiny::file_in(folder.path(), Scheme::Q8).display().to_string();
    // Knobs of tests/cuda_emu/README.md, the device asked for, the status of opening it, that of recognising.
    let cases = [
        (None, "cuda:0", "-50", "0"),
        (Some("noinit=1"), "cuda:0", "-50", "0"),
        (Some("driver=11010"), "cuda:0", "-51", "0"),
        (Some("devices=1"), "cuda:1", "-52", "0"),
        (Some("cc=61"), "cuda:0", "-53", "0"),
        (Some("cc=101,nvrtc_fail=1"), "cuda:0", "-54", "0"),
        (Some("memory=100000"), "cuda:0", "-10", "0"),
        (Some("fail_launch=60"), "cuda:0", "0", "-55"),
        (Some(""), "cuda:0", "0", "0"),
        (Some(""), "cuda:1", "0", "0"),
        (Some(""), "auto", "0", "0"),
        (None, "auto", "0", "0"),
        (Some("devices=0"), "auto", "0", "0"),
        (None, "cpu", "0", "0"),
    ];
    for (knobs, device, status, clips) in cases {
        let mut command = Command::new(&program);
        command.args([&model, device, status, clips]).env("LLMAR_KERNEL_CACHE", folder.path().join("cache"));
        // The emulator keeps what the process leaves to it.
        command.env("ASAN_OPTIONS", "detect_leaks=0:use_sigaltstack=0:handle_segv=0").env_remove("LD_LIBRARY_PATH");
        if let Some(knobs) = knobs {
            command.env("LLMAR_EMU", knobs).env("LD_LIBRARY_PATH", emulator::folder());
        }
        println!("{knobs:?} {device}");
        assert_eq!(run(&mut command), "", "{knobs:?} {device}");
    }
}

/// The example as a user runs it: what it prints, and how it fails.
#[test]
fn example_recognize() {
    if !can("example_recognize", Build::Sanitized) {
        return;
    }
    let folder: TempDir = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).display().to_string();
    let program = compile(&["examples/c/recognize.c", "examples/c/clip_text.c"], folder.path(), Build::Sanitized);
    let model = tiny::file_in(folder.path(), Scheme::Q8).display().to_string();
    let mut random = tiny::Random(7);
    let body: String = (0..30 * 20 * 3).map(|i| if i == 4 { "nan ".to_owned() } else { format!("{} ", random.next_f32()) }).collect();
    fs::write(path("walk.txt"), format!("kinect1_20 30 1 20 3 30\n{body}\n")).unwrap();
    fs::write(path("odd.txt"), format!("no_such_layout 30 1 20 3 30\n{body}\n")).unwrap();
    fs::write(path("cut.txt"), "kinect1_20 30 1 20 3 30\n1 2 3\n").unwrap();

    let run = |arguments: &[&str]| {
        let output = Command::new(&program).args(arguments).output().unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        (output.status.code(), text(output.stdout), text(output.stderr))
    };
    let (code, out, err) = run(&["--threads", "2", &model, &path("walk.txt")]);
    assert_eq!((code, err.as_str()), (Some(0), ""));
    assert!(out.starts_with("walk.txt") && out.matches(" %").count() == 4 && out.contains("missing 0.2 %") && out.contains(" ms"), "{out}");
    assert!(tiny::LABELS.iter().filter(|label| out.contains(*label)).count() >= 3, "{out}");

    let (code, out, err) = run(&[&model, &path("odd.txt"), &path("cut.txt"), &path("walk.txt")]);
    assert_eq!((code, out.lines().count(), err.lines().count()), (Some(1), 1, 2), "{err}");
    assert!(err.contains("odd.txt: llmar_recognize_clip: ") && err.contains("no_such_layout"), "{err}");
    let walk = path("walk.txt");
    let wrong: [&[&str]; 5] = [&[], &[&model], &["--threads", "many", &model, "x"], &[&walk, &walk], &["/nowhere", "x"]];
    for arguments in wrong {
        let (code, out, err) = run(arguments);
        assert_eq!((code, out.as_str()), (Some(2), ""), "{arguments:?}");
        assert!(!err.is_empty());
    }
}
