//! A real Chromium without a window, driven over its DevTools pipe: what a page shows, what happens on a click, what it complains of.

// Every test crate that includes this file uses another part of it.
#![allow(dead_code, reason = "shared by several test crates")]

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

/// Longest wait for an answer of the browser.
const PATIENCE: Duration = Duration::from_secs(60);

/// A browser with one page.
pub struct Browser {
    process: Child,
    commands: ChildStdin,
    messages: Receiver<Value>,
    session: String,
    next: u64,
    /// Events since the page was opened.
    events: Vec<Value>,
    /// Its profile, removed with it.
    _profile: tempfile::TempDir,
}

/// The browser's program: `LLMAR_CHROMIUM`, or `chromium` on the path.
fn program() -> Option<PathBuf> {
    let named = std::env::var_os("LLMAR_CHROMIUM").map(PathBuf::from);
    let path = std::env::var_os("PATH").unwrap_or_default();
    named.or_else(|| std::env::split_paths(&path).map(|folder| folder.join("chromium")).find(|file| file.exists()))
}

impl Browser {
    /// Starts it with an empty page; `None`, and a line that says so, where there is none.
    pub fn start(test: &str) -> Option<Self> {
        let Some(program) = program() else {
            println!("SKIPPED {test}: no chromium (`make browser`)");
            return None;
        };
        let profile = tempfile::tempdir().expect("a temporary folder");
        // The pipe is read from descriptor 3 and written to 4.
        let mut process = Command::new("sh")
            .args(["-c", "exec \"$@\" 3<&0 4>&1 0</dev/null 1>/dev/null", "sh"])
            .arg(program)
            .args(["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"])
            .args(["--disable-background-networking", "--disable-component-update", "--remote-debugging-pipe", "--window-size=1200,900"])
            .arg(format!("--user-data-dir={}", profile.path().display()))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("chromium starts");
        let commands = process.stdin.take().expect("a pipe to it");
        let mut answers = BufReader::new(process.stdout.take().expect("a pipe from it"));
        let (sender, messages) = channel();
        std::thread::spawn(move || {
            let mut bytes = Vec::new();
            while answers.read_until(0, &mut bytes).is_ok_and(|n| n > 0) {
                bytes.pop();
                let message = serde_json::from_slice(&bytes).expect("the browser speaks JSON");
                if sender.send(message).is_err() {
                    break;
                }
                bytes.clear();
            }
        });
        let mut browser = Self { process, commands, messages, session: String::new(), next: 0, events: Vec::new(), _profile: profile };
        let target = browser.command("Target.createTarget", json!({ "url": "about:blank" }))["targetId"].clone();
        let attached = browser.command("Target.attachToTarget", json!({ "targetId": target, "flatten": true }));
        browser.session = attached["sessionId"].as_str().expect("a session").to_owned();
        for domain in ["Page.enable", "Runtime.enable", "Log.enable"] {
            browser.command(domain, json!({}));
        }
        Some(browser)
    }

    /// Sends a command and gives its result.
    pub fn command(&mut self, method: &str, parameters: Value) -> Value {
        self.next += 1;
        let mut message = json!({ "id": self.next, "method": method, "params": parameters });
        if !self.session.is_empty() {
            message["sessionId"] = self.session.clone().into();
        }
        self.commands.write_all(format!("{message}\0").as_bytes()).expect("the browser listens");
        loop {
            let answer = self.messages.recv_timeout(PATIENCE).unwrap_or_else(|_| panic!("{method}: no answer in {PATIENCE:?}"));
            if answer["id"] == self.next {
                assert!(answer["error"].is_null(), "{method}: {}", answer["error"]);
                return answer["result"].clone();
            }
            self.events.push(answer);
        }
    }

    /// Opens a file and waits until it has loaded.
    pub fn open(&mut self, page: &Path) {
        self.visit(&format!("file://{}", page.canonicalize().expect("the page is there").display()));
    }

    /// Opens an address and waits until it has loaded.
    pub fn visit(&mut self, url: &str) {
        self.events.clear();
        self.command("Page.navigate", json!({ "url": url }));
        self.wait_until("document.readyState === 'complete' && location.protocol !== 'about:'");
    }

    /// Value of a JavaScript expression; a promise is waited for.
    pub fn eval(&mut self, expression: &str) -> Value {
        let parameters = json!({ "expression": expression, "returnByValue": true, "awaitPromise": true });
        let result = self.command("Runtime.evaluate", parameters);
        assert!(result["exceptionDetails"].is_null(), "{expression}: {}", result["exceptionDetails"]);
        result["result"]["value"].clone()
    }

    /// Waits until an expression is true.
    pub fn wait_until(&mut self, expression: &str) {
        let start = Instant::now();
        while self.eval(expression) != true {
            assert!(start.elapsed() < PATIENCE, "not true after {PATIENCE:?}: {expression}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Moves the pointer to the middle of the first element that a selector finds, scrolled into view.
    fn point(&mut self, selector: &str, kind: &str) -> (f64, f64) {
        let place = self.eval(&format!(
            "(() => {{ const node = document.querySelector({selector:?}); node.scrollIntoView({{block: 'center'}}); \
             const box = node.getBoundingClientRect(); return [box.x + box.width / 2, box.y + box.height / 2]; }})()"
        ));
        let (x, y) = (place[0].as_f64().expect("a place"), place[1].as_f64().expect("a place"));
        self.command("Input.dispatchMouseEvent", json!({ "type": kind, "x": x, "y": y }));
        (x, y)
    }

    /// Hovers over an element.
    pub fn hover(&mut self, selector: &str) {
        self.point(selector, "mouseMoved");
    }

    /// Clicks on an element.
    pub fn click(&mut self, selector: &str) {
        let (x, y) = self.point(selector, "mouseMoved");
        for kind in ["mousePressed", "mouseReleased"] {
            self.command("Input.dispatchMouseEvent", json!({ "type": kind, "x": x, "y": y, "button": "left", "clickCount": 1 }));
        }
    }

    /// Presses a key, by its DOM name.
    pub fn press(&mut self, key: &str) {
        for kind in ["keyDown", "keyUp"] {
            self.command("Input.dispatchKeyEvent", json!({ "type": kind, "key": key, "code": key }));
        }
    }

    /// Exceptions, errors and warnings of the console and the log since the page was opened.
    pub fn complaints(&mut self) -> Vec<String> {
        self.eval("1"); // what happened before it has been told by then
        let complaint = |event: &Value| {
            let parameters = &event["params"];
            match event["method"].as_str()? {
                "Runtime.exceptionThrown" => Some(parameters["exceptionDetails"].to_string()),
                "Runtime.consoleAPICalled" if ["error", "warning", "assert"].iter().any(|kind| parameters["type"] == *kind) => {
                    Some(parameters["args"].to_string())
                }
                "Log.entryAdded" if parameters["entry"]["level"] != "verbose" && parameters["entry"]["level"] != "info" => {
                    Some(parameters["entry"].to_string())
                }
                _ => None,
            }
        };
        self.events.iter().filter_map(complaint).collect()
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        let _ = self.process.kill(); // it may have ended
        let _ = self.process.wait();
    }
}
