//! `llmar view`: what its server answers and refuses, what it records, and its page in a real browser.

#[path = "common/archive.rs"]
mod archive;
#[path = "common/browser.rs"]
mod browser;
#[path = "common/tiny.rs"]
mod tiny;

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use browser::Browser;
use llmar::device::Scheme;
use serde_json::Value;

/// Frames of the clip, at 30 a second.
const FRAMES: usize = 180;
/// A joint that is not seen in the second half of the clip.
const UNSEEN: usize = 7;

/// A tiny model and a clip.
struct Files {
    folder: tempfile::TempDir,
}

impl Files {
    fn new() -> Self {
        let files = Self { folder: tempfile::tempdir().unwrap() };
        tiny::file_in(files.folder.path(), Scheme::Q8);
        let mut clip = tiny::motion(5, FRAMES);
        for frame in FRAMES / 2..FRAMES {
            clip[(frame * 20 + UNSEEN) * 3..][..3].fill(f32::NAN);
        }
        archive::archive(&files.path("clip.safetensors"), &[&clip]);
        files
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn text(&self, name: &str) -> String {
        self.path(name).display().to_string()
    }

    fn view(&self, arguments: &[&str]) -> View {
        let mut command = Command::new(env!("CARGO_BIN_EXE_llmar"));
        command.arg("view").arg(self.path("tiny-q8.llmar")).args(arguments).args(["--threads", "1"]);
        let mut process = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(process.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let address = line.trim().strip_prefix("http://").and_then(|line| line.strip_suffix('/'));
        let address = address.unwrap_or_else(|| panic!("an address, not `{line}`")).to_owned();
        View { process, address }
    }
}

/// A running `llmar view`.
struct View {
    process: Child,
    address: String,
}

impl View {
    fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(&self.address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        stream
    }

    /// What comes back for these bytes.
    fn send(&self, bytes: &[u8]) -> String {
        let mut stream = self.connect();
        let _ = stream.write_all(bytes); // it may be refused before it was read
        let (mut answer, mut part) = (Vec::new(), [0; 4096]);
        // A refusal may be followed by a reset: not all of the request was read.
        while let Ok(count) = stream.read(&mut part) {
            if count == 0 {
                break;
            }
            answer.extend_from_slice(&part[..count]);
        }
        String::from_utf8(answer).unwrap()
    }

    fn status(&self, request: &str) -> u16 {
        let answer = self.send(request.as_bytes());
        answer.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or_else(|| panic!("{request}: `{answer}`"))
    }

    /// Somebody who watches; gives line by line what is told.
    fn watch(&self) -> BufReader<TcpStream> {
        let mut stream = self.connect();
        write!(stream, "GET /events HTTP/1.1\r\nHost: {}\r\n\r\n", self.address).unwrap();
        BufReader::new(stream)
    }

    /// Waits for its end.
    fn end(&mut self) {
        let start = Instant::now();
        loop {
            if let Some(status) = self.process.try_wait().unwrap() {
                let mut said = String::new();
                self.process.stderr.take().unwrap().read_to_string(&mut said).unwrap();
                assert!(status.success() && said.is_empty(), "{status}: {said}");
                return;
            }
            assert!(start.elapsed() < Duration::from_secs(60), "it does not end");
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for View {
    fn drop(&mut self) {
        let _ = self.process.kill(); // it may have ended
        let _ = self.process.wait();
    }
}

/// The next message of a kind.
fn told(viewer: &mut impl BufRead, kind: &str) -> Value {
    loop {
        let mut line = String::new();
        assert!(viewer.read_line(&mut line).unwrap() > 0, "no {kind} before the end");
        if let Some(data) = line.strip_prefix("data: ") {
            let message: Value = serde_json::from_str(data).unwrap();
            if message["kind"] == kind {
                return message;
            }
        }
    }
}

#[test]
fn only_this_machine_is_served() {
    let files = Files::new();
    let view = files.view(&[&files.text("clip.safetensors")]);
    let host = &view.address;
    let page = view.send(format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n").as_bytes());
    assert!(page.starts_with("HTTP/1.1 200 ") && page.contains("<canvas") && page.contains("default-src 'none'"), "{page}");
    for file in ["/page.js", "/page.css"] {
        assert_eq!(view.status(&format!("GET {file} HTTP/1.1\r\nHost: {host}\r\n\r\n")), 200, "{file}");
    }
    // Nothing is fetched from elsewhere.
    assert!(["page.html", "page.js", "skeleton.js", "page.css"].iter().all(|file| {
        let text = fs::read_to_string(format!("{}/src/bin/llmar/view/{file}", env!("CARGO_MANIFEST_DIR"))).unwrap();
        !text.contains("http://") && !text.contains("https://") && !text.contains("@import")
    }));
    let port = host.rsplit(':').next().unwrap();
    for (status, request) in [
        (200, format!("GET / HTTP/1.1\r\nHost: localhost:{port}\r\n\r\n")),
        (403, format!("GET / HTTP/1.1\r\nHost: example.org:{port}\r\n\r\n")),
        (403, "GET /events HTTP/1.1\r\nHost: 127.0.0.1.example.org\r\n\r\n".into()),
        (400, "GET / HTTP/1.1\r\n\r\n".into()),
        (400, format!("GET / HTTP/1.1\r\nHost: {host}\r\nHost: example.org\r\n\r\n")),
        (404, format!("GET /../Cargo.toml HTTP/1.1\r\nHost: {host}\r\n\r\n")),
        (405, format!("PUT / HTTP/1.1\r\nHost: {host}\r\n\r\n")),
        (400, "nonsense\r\n\r\n".into()),
        (431, format!("GET / HTTP/1.1\r\nHost: {host}\r\nX: {}", "x".repeat(20_000))),
        (413, format!("POST /control HTTP/1.1\r\nHost: {host}\r\nContent-Length: 100000\r\n\r\n")),
        (400, format!("POST /control HTTP/1.1\r\nHost: {host}\r\nContent-Length: 2\r\n\r\n{{}}")),
        (403, format!("POST /control HTTP/1.1\r\nHost: {host}\r\nOrigin: http://example.org\r\nContent-Length: 9\r\n\r\n\"restart\"")),
    ] {
        assert_eq!(view.status(&request), status, "{request:.200}");
    }
    // Every socket that listens on this port does so on 127.0.0.1.
    if let Ok(sockets) = fs::read_to_string("/proc/net/tcp") {
        let port = format!(":{:04X}", port.parse::<u16>().unwrap());
        let listening = sockets.lines().filter_map(|line| {
            let mut words = line.split_ascii_whitespace().skip(1);
            words.next().filter(|local| local.ends_with(&port) && words.nth(1) == Some("0A"))
        });
        assert_eq!(listening.collect::<Vec<_>>(), [format!("0100007F{port}")]);
    }
}

#[test]
fn viewers_come_and_go_and_control() {
    let files = Files::new();
    let view = files.view(&[&files.text("clip.safetensors")]);
    // It waits for somebody to look.
    let mut first = view.watch();
    let about = told(&mut first, "hello");
    assert_eq!((about["joints"].as_array().unwrap().len(), &about["sides"][7], &about["live"]), (20, &"left".into(), &false.into()));
    assert!(told(&mut first, "frame")["time_ns"] == 0, "from the beginning");
    let mut second = view.watch();
    told(&mut second, "frame");
    drop(second);
    told(&mut first, "decision");
    let command = |body: &str| {
        let head =
            format!("POST /control HTTP/1.1\r\nHost: {0}\r\nOrigin: http://{0}\r\nContent-Length: {1}\r\n\r\n", view.address, body.len());
        assert_eq!(view.status(&format!("{head}{body}")), 200, "{body}");
    };
    command("{\"pause\":true}");
    assert_eq!(told(&mut first, "state")["paused"], true);
    // Who comes while it stands is told so, and that somebody left troubles nobody.
    let mut third = view.watch();
    assert_eq!(told(&mut third, "state")["paused"], true);
    told(&mut third, "frame");
    told(&mut third, "decision");
    command("{\"speed\":8}");
    command("\"restart\"");
    for viewer in [&mut first, &mut third] {
        let state = loop {
            let state = told(viewer, "state");
            if state["paused"] == false {
                break state;
            }
        };
        assert!(state["start_s"].as_f64() > Some(1.0) && state["phase"] == "playing" && state["speed"] == 8.0, "{state}");
        while told(viewer, "state")["phase"] != "ended" {}
    }
}

#[test]
fn a_recording_has_every_frame_and_can_be_played() {
    let files = Files::new();
    let recording = files.text("seen.jsonl");
    let lines =
        |file: &str| -> Vec<Value> { fs::read_to_string(file).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect() };
    files.view(&[&files.text("clip.safetensors"), "--once", "--record", &recording]).end();
    let all = lines(&recording);
    let of = |lines: &[Value], kind: &str| lines.iter().filter(|line| line["kind"] == kind).cloned().collect::<Vec<_>>();
    let frames = of(&all, "frame");
    assert_eq!((all[0]["layout"].clone(), frames.len()), ("kinect1_20".into(), FRAMES));
    assert!(frames[0]["joints"][UNSEEN].is_array() && frames[FRAMES - 1]["joints"][UNSEEN].is_null());
    let decisions = of(&all, "decision");
    assert!(decisions.len() > 5, "{}", decisions.len());

    // Played again it gives the same frames and the same answers.
    let again = files.text("again.jsonl");
    let mut view = files.view(&[&recording, "--once", "--record", &again]);
    let mut viewer = view.watch();
    told(&mut viewer, "bye");
    view.end();
    assert_eq!(of(&lines(&again), "frame"), frames);
    let answers = |decisions: &[Value]| decisions.iter().map(|line| (line["time_s"].clone(), line["label"].clone())).collect::<Vec<_>>();
    assert_eq!(answers(&of(&lines(&again), "decision")), answers(&decisions));

    // And as live frames.
    let mut view = files.view(&["-", "--record", &again]);
    view.process.stdin.take().unwrap().write_all(&fs::read(&recording).unwrap()).unwrap();
    view.end();
    assert_eq!(of(&lines(&again), "frame"), frames);
}

#[test]
fn the_page_shows_what_happens() {
    let Some(mut browser) = Browser::start("the_page_shows_what_happens") else { return };
    let files = Files::new();
    let view = files.view(&[&files.text("clip.safetensors")]);
    browser.visit(&format!("http://{}/", view.address));
    let picture = "document.getElementById('canvas').toDataURL()";
    let changes = |browser: &mut Browser, expression: &str| {
        let before = browser.eval(expression);
        browser.wait_until(&format!("({expression}) !== {before}"));
    };
    browser.wait_until("document.getElementById('connection').textContent === 'playing'");
    changes(&mut browser, picture);
    assert!(browser.eval("document.title").as_str().is_some_and(|title| title.contains("clip")));
    // Labels with their probabilities, which change.
    browser.wait_until("[...document.querySelectorAll('#bars .row')].filter((row) => !row.hidden).length === 4");
    let labels =
        browser.eval("[...document.querySelectorAll('#bars .row span:first-child')].map((name) => name.textContent).sort().join()");
    assert_eq!(labels, "drink water,sit down,walk,wave");
    changes(&mut browser, "[...document.querySelectorAll('#bars .row')].map((row) => row.textContent).join()");
    assert_eq!(browser.eval("document.getElementById('now').textContent !== 'no decision yet'"), true);
    browser.wait_until("document.getElementById('latency').textContent.endsWith(' ms')");
    browser.wait_until("document.getElementById('percentiles').textContent.includes('ms')");
    // Controls have names, and what is not seen is hollow.
    let nameless = "[...document.querySelectorAll('button, select, input, canvas')]\
                    .filter((node) => !node.textContent.trim() && !node.ariaLabel && !node.labels?.[0]?.textContent.trim()).length";
    assert_eq!(browser.eval(nameless), 0);
    browser.wait_until(&format!("bodies.get(0).seen[{UNSEEN}] === false && bodies.get(0).at[{UNSEEN}].length === 3"));

    // Pause by keyboard: the picture stands. Arrow keys turn it all the same.
    browser.press("r");
    browser.wait_until("state.start_s > 1 && newest - state.start_s < 5");
    browser.eval("document.getElementById('canvas').focus()");
    browser.press(" ");
    browser.wait_until("document.getElementById('connection').textContent === 'paused'");
    std::thread::sleep(Duration::from_millis(200)); // what was under way has come
    let (still, time) = (browser.eval(picture), browser.eval("newest"));
    std::thread::sleep(Duration::from_millis(300));
    assert!(browser.eval(picture) == still && browser.eval("newest") == time);
    let facing = browser.eval("view.yaw");
    browser.press("ArrowRight");
    browser.wait_until(&format!("view.yaw > {facing} && {picture} !== {still}"));
    browser.click("#pause");
    browser.wait_until(&format!("newest > {time}"));
    // The end, and the beginning by the button.
    browser.wait_until("document.getElementById('connection').textContent === 'ended'");
    browser.click("#restart");
    browser.wait_until("document.getElementById('connection').textContent === 'playing'");
    assert_eq!(browser.complaints(), [""; 0]);
}
