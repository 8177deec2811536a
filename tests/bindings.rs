//! The bindings for C++ and Python, and the live example that there is in C, C++, Rust and Python, on the tiny model.

#![cfg(target_os = "linux")]

#[path = "common/cdylib.rs"]
mod cdylib;
#[path = "common/tiny.rs"]
mod tiny;

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use cdylib::{Build, compile, have, root, run};
use llmar::device::Scheme;

/// Of the package's dependencies, the version that is tested.
const NUMPY: &str = "numpy==2.2.6";
/// What pyproject.toml asks for.
const SETUPTOOLS: &str = "setuptools==80.9.0";

/// All of llmar.hpp, with exceptions and without in one program, free of warnings; what it runs is clean for the sanitizers.
#[test]
fn cpp_binding() {
    let compilers = ["c++", "clang++"].into_iter().filter(|name| have(name)).collect::<Vec<_>>();
    if compilers.is_empty() {
        return println!("SKIPPED cpp_binding: no C++ compiler");
    }
    let folder = tempfile::tempdir().unwrap();
    let model = tiny::file_in(folder.path(), Scheme::Q8);
    for compiler in compilers {
        let sanitize = sanitizer(compiler, folder.path());
        let command = |extra: &[&str]| {
            let mut command = Command::new(compiler);
            command.args(["-std=c++17", "-g", "-O1", "-Wall", "-Wextra", "-pedantic", "-Wconversion", "-Wshadow", "-Werror", "-pthread"]);
            command.arg("-I").arg(root().join("include")).arg("-I").arg(root().join("bindings/cpp")).args(sanitize).args(extra);
            command
        };
        let (object, program) = (folder.path().join("nothrow.o"), folder.path().join("binding"));
        let mut nothrow = command(&["-fno-exceptions", "-fno-rtti", "-c"]);
        run(nothrow.arg(root().join("tests/cpp/nothrow.cpp")).arg("-o").arg(&object));
        let mut binding = command(&[]);
        binding.arg(root().join("tests/cpp/binding.cpp")).arg(&object).arg("-o").arg(&program);
        binding.arg("-L").arg(cdylib::folder()).arg("-lllmar").arg(format!("-Wl,-rpath,{}", cdylib::folder().display()));
        run(&mut binding);
        assert_eq!(run(Command::new(&program).arg(&model)), "", "{compiler}");
    }
}

/// Flags for the sanitizers, where the compiler has them.
fn sanitizer(compiler: &str, folder: &Path) -> &'static [&'static str] {
    let flags = &["-fsanitize=address,undefined", "-fno-sanitize-recover=all"];
    let source = folder.join("probe.cpp");
    fs::write(&source, "int main() { return 0; }\n").unwrap();
    let probe = Command::new(compiler).args(flags).arg(&source).arg("-o").arg(folder.join("probe")).output();
    if probe.is_ok_and(|output| output.status.success()) { flags } else { &[] }
}

/// An interpreter of a fresh environment in which numpy and the package are installed, from a wheel around this test's library; `Err`: why there is none.
fn python() -> &'static Result<PathBuf, String> {
    static PYTHON: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    PYTHON.get_or_init(|| {
        let interpreter = std::env::var("LLMAR_PYTHON").unwrap_or_else(|_| "python3".to_owned());
        let folder = cdylib::folder().with_file_name("python");
        let environment = folder.join("venv");
        let python = environment.join("bin/python");
        let attempt = |what: &str, command: &mut Command| {
            let output = command.stdin(Stdio::null()).output().map_err(|e| format!("{what}: {e}"))?;
            let text = String::from_utf8_lossy(&output.stderr);
            if output.status.success() { Ok(()) } else { Err(format!("{what}: {}", text.lines().last().unwrap_or_default())) }
        };
        attempt(&format!("{interpreter} -m venv"), Command::new(&interpreter).args(["-m", "venv", "--clear"]).arg(&environment))?;
        let pip = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check"];
        attempt("pip install", Command::new(&python).args(pip).args([NUMPY, SETUPTOOLS]))?;
        // From here on nothing may fail.
        let mut build = Command::new(root().join("bindings/python/build.sh"));
        let wheel = run(build.arg(&python).arg(cdylib::folder().join("libllmar.so")).arg(&folder));
        let wheel = Path::new(wheel.lines().last().unwrap());
        let name = wheel.file_name().unwrap().to_str().unwrap();
        assert!(name.starts_with("llmar-") && name.contains("-py3-none-linux_"), "a wheel with a native library is not for `any`: {name}");
        let listing = run(Command::new(&python).args(["-m", "zipfile", "-l"]).arg(wheel));
        assert!(listing.contains("\nllmar/libllmar.so ") && listing.contains("\nllmar/py.typed "), "{listing}");
        run(Command::new(&python).args(pip).arg("--no-deps").arg(wheel));
        Ok(python)
    })
}

/// A command that runs the installed package and no other library than the wheel's.
fn interpret(python: &Path) -> Command {
    let mut command = Command::new(python);
    command.arg("-B").env_remove("LLMAR_LIBRARY").env_remove("PYTHONPATH").env("PYTHONWARNINGS", "error");
    command
}

#[test]
fn python_package() {
    let python = match python() {
        Ok(python) => python,
        Err(reason) => return println!("SKIPPED python_package: {reason}"),
    };
    let folder = tempfile::tempdir().unwrap();
    let mut tests = interpret(python);
    tests
        .arg(root().canonicalize().unwrap().join("tests/python/test_llmar.py"))
        .current_dir(folder.path())
        .env("LLMAR_EXPECT_INSTALLED", "1");
    tests.env("LLMAR_TINY", tiny::file_in(folder.path(), Scheme::Q8)).env("LLMAR_TINY_OTHER", tiny::file_in(folder.path(), Scheme::F32));
    let report = run(&mut tests);
    assert!(report.contains("\nOK"), "{report}");
}

/// The example in Rust, built as this test was.
fn rust_example() -> PathBuf {
    let profile = cdylib::folder().parent().unwrap();
    let name = profile.file_name().unwrap().to_str().unwrap();
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.args(["build", "--quiet", "--locked", "-p", "llmar-sys", "--example", "stream"]);
    cargo.args(["--profile", if name == "debug" { "test" } else { name }, "--target-dir"]).arg(profile.parent().unwrap());
    run(cargo.current_dir(root()));
    profile.join("examples/stream")
}

/// Two people for eight seconds, 20 frames each; one leaves after three, and a hand of the other is not seen for a while.
fn write_clip(path: &Path, frames: usize) {
    let (first, second) = (tiny::motion(3, frames), tiny::motion(4, frames));
    let mut text = format!("kinect1_20 {frames} 2 20 3 20\n");
    for (t, (a, b)) in first.chunks_exact(60).zip(second.chunks_exact(60)).enumerate() {
        for (i, x) in a.iter().chain(b).enumerate() {
            let unseen = (i >= 60 && t >= 60) || (i / 3 == 11 && (40..50).contains(&t));
            if unseen { text.push_str("nan ") } else { write!(text, "{x} ").unwrap() }
        }
        text.push('\n');
    }
    fs::write(path, text).unwrap();
}

/// One stream in four languages: the same lines.
#[test]
fn example_stream() {
    if !have("cc") || !have("c++") {
        return println!("SKIPPED example_stream: no C and C++ compiler");
    }
    let folder = tempfile::tempdir().unwrap();
    let model = tiny::file_in(folder.path(), Scheme::Q8);
    let (clip, short) = (folder.path().join("clip.txt"), folder.path().join("short.txt"));
    write_clip(&clip, 160);
    write_clip(&short, 8);
    let (in_c, in_cpp) = (folder.path().join("c"), folder.path().join("cpp"));
    fs::create_dir(&in_c).unwrap();
    fs::create_dir(&in_cpp).unwrap();
    let c = compile(&["examples/c/stream.c", "examples/c/clip_text.c"], &in_c, Build::Plain);
    let cpp = compile(&["examples/cpp/stream.cpp"], &in_cpp, Build::Plain);
    let rust = rust_example();
    // Name of a language, and what starts its example.
    type Program = (&'static str, Box<dyn Fn() -> Command>);
    let mut programs: Vec<Program> = vec![
        ("C", Box::new(move || Command::new(&c))),
        ("C++", Box::new(move || Command::new(&cpp))),
        ("Rust", Box::new(move || Command::new(&rust))),
    ];
    match python() {
        Ok(python) => programs.push((
            "Python",
            Box::new(move || {
                let mut command = interpret(python);
                command.arg(root().join("examples/python/stream.py"));
                command
            }),
        )),
        Err(reason) => println!("SKIPPED example_stream: in Python: {reason}"),
    }
    let mut first = None;
    for (language, program) in &programs {
        let told = run(program().arg(&model).arg(&clip));
        let count = |kind: &str| told.lines().filter(|line| line.contains(kind)).count();
        assert!(count(" decision ") > 8 && count(" begin ") > 0 && count(" begin ") == count(" end "), "{language}:\n{told}");
        assert_eq!(count("body 1 forgotten"), 1, "{language}:\n{told}");
        assert_eq!(&told, first.get_or_insert(told.clone()), "{language}");

        let begin = Instant::now();
        run(program().arg(&model).arg(&short).arg("--real-time"));
        assert!(begin.elapsed() >= Duration::from_millis(350), "{language}: eight frames of a twentieth of a second");

        for wrong in [vec![], vec![&model], vec![&model, &model], vec![&clip, &clip], vec![&model, &clip, &clip]] {
            let output = program().args(&wrong).output().unwrap();
            assert_eq!((output.status.code(), output.stdout.len()), (Some(1), 0), "{language}: {wrong:?}");
            assert!(!output.stderr.is_empty() && !String::from_utf8_lossy(&output.stderr).contains("Traceback"), "{language}: {wrong:?}");
        }
    }
}
