//! As much of HTTP/1.1 as the page needs: three files, a stream of events, and commands. One request a connection.
//!
//! Only programs of this machine reach it. Pages of other sites that a browser of this machine shows must not: a request for a foreign name
//! (DNS rebinding) and a command from a foreign page are refused.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{RecvTimeoutError, Sender};
use std::thread::Builder;
use std::time::{Duration, Instant};

use super::Command;
use super::hub::Hub;

/// Largest request line and headers.
const HEAD_LIMIT: usize = 8192;
/// Largest command.
const BODY_LIMIT: usize = 256;
/// Connections at one time.
const CONNECTIONS: usize = 64;
/// A request is there after so long, and an answer is taken.
const PATIENCE: Duration = Duration::from_secs(5);
/// A viewer who is gone is noticed when something is written to it, at the latest after this.
const HEARTBEAT: Duration = Duration::from_secs(2);

/// Nothing from elsewhere, nothing inline, in nobody's frame.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:; base-uri 'none'; \
                      form-action 'none'; frame-ancestors 'none'";

const PAGE: &str = include_str!("page.html");
const SCRIPT: &str = concat!(include_str!("skeleton.js"), include_str!("page.js"));
const STYLE: &str = include_str!("page.css");

/// Serves until the process ends.
pub fn serve(listener: TcpListener, hub: Arc<Hub>, commands: Sender<Command>) -> io::Result<()> {
    let open = Arc::new(AtomicUsize::new(0));
    let accept = move || {
        for stream in listener.incoming() {
            let Ok(stream) = stream else {
                std::thread::sleep(Duration::from_millis(50)); // no descriptor is left, say: it would fail at once again
                continue;
            };
            let guard = Guard::new(&open);
            if guard.count > CONNECTIONS {
                let _ = answer(&stream, 503, "text/plain", "too many connections\n"); // it may have gone
                continue;
            }
            let (hub, commands) = (Arc::clone(&hub), commands.clone());
            // Where no thread can be had, the connection is closed and the next one is served.
            let _ = Builder::new().name("llmar-viewer".into()).spawn(move || {
                let _guard = guard;
                let _ = serve_one(&stream, &hub, &commands); // whoever goes has no need to be told
            });
        }
    };
    Builder::new().name("llmar-http".into()).spawn(accept).map(drop)
}

/// Counts a connection while it lives.
struct Guard {
    open: Arc<AtomicUsize>,
    /// With this one.
    count: usize,
}

impl Guard {
    fn new(open: &Arc<AtomicUsize>) -> Self {
        Self { open: Arc::clone(open), count: open.fetch_add(1, Ordering::Relaxed) + 1 }
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        self.open.fetch_sub(1, Ordering::Relaxed);
    }
}

/// What is asked for, or the status that refuses it.
struct Request {
    method: String,
    path: String,
    host: String,
    origin: Option<String>,
    body: Vec<u8>,
}

fn serve_one(stream: &TcpStream, hub: &Arc<Hub>, commands: &Sender<Command>) -> io::Result<()> {
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    stream.set_nodelay(true)?;
    let request = match read(stream)? {
        Ok(request) => request,
        Err(status) => return answer(stream, status, "text/plain", "refused\n"),
    };
    if !is_local(&request.host) {
        return answer(stream, 403, "text/plain", "this page is for this machine alone\n");
    }
    match (request.method.as_str(), request.path.as_str()) {
        ("GET", "/") => answer(stream, 200, "text/html; charset=utf-8", PAGE),
        ("GET", "/page.js") => answer(stream, 200, "text/javascript; charset=utf-8", SCRIPT),
        ("GET", "/page.css") => answer(stream, 200, "text/css; charset=utf-8", STYLE),
        ("GET", "/events") => events(stream, hub),
        // Browsers name the page that a command comes from.
        ("POST", "/control") if request.origin.is_none_or(|origin| origin == format!("http://{}", request.host)) => {
            let Ok(command) = serde_json::from_slice::<Command>(&request.body) else {
                return answer(stream, 400, "text/plain", "no command\n");
            };
            let taken = commands.send(command).is_ok();
            answer(stream, if taken { 200 } else { 503 }, "text/plain", "")
        }
        ("POST", "/control") => answer(stream, 403, "text/plain", "commands come from this page alone\n"),
        ("GET", _) => answer(stream, 404, "text/plain", "there is no such page\n"),
        _ => answer(stream, 405, "text/plain", "GET alone\n"),
    }
}

/// Whether a Host header names this machine; any port, as a tunnel may have another.
fn is_local(host: &str) -> bool {
    let (name, port) = host.rsplit_once(':').unwrap_or((host, "80"));
    !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit()) && (name == "127.0.0.1" || name.eq_ignore_ascii_case("localhost"))
}

/// Reads a request of bounded size in bounded time.
fn read(mut stream: &TcpStream) -> io::Result<Result<Request, u16>> {
    let (mut bytes, start) = (Vec::new(), Instant::now());
    let mut more = |bytes: &mut Vec<u8>| -> io::Result<bool> {
        let mut part = [0; 1024];
        // A byte now and then does not keep a connection.
        if start.elapsed() > PATIENCE {
            return Err(ErrorKind::TimedOut.into());
        }
        let count = stream.read(&mut part)?;
        bytes.extend_from_slice(&part[..count]);
        Ok(count > 0)
    };
    let end = loop {
        if let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") {
            break end;
        }
        if bytes.len() > HEAD_LIMIT {
            return Ok(Err(431));
        }
        if !more(&mut bytes)? {
            return Err(ErrorKind::UnexpectedEof.into());
        }
    };
    let Ok(head) = std::str::from_utf8(&bytes[..end]) else { return Ok(Err(400)) };
    let (request, length) = match parse(head) {
        Ok(parsed) => parsed,
        Err(status) => return Ok(Err(status)),
    };
    if length > BODY_LIMIT {
        return Ok(Err(413));
    }
    let mut body = bytes.split_off(end + 4);
    while body.len() < length {
        if !more(&mut body)? {
            return Err(ErrorKind::UnexpectedEof.into());
        }
    }
    body.truncate(length);
    Ok(Ok(Request { body, ..request }))
}

/// A request without its body, and the body's length.
fn parse(head: &str) -> Result<(Request, usize), u16> {
    let mut lines = head.split("\r\n");
    let mut words = lines.next().unwrap_or("").split(' ');
    let (Some(method), Some(target), Some(version), None) = (words.next(), words.next(), words.next(), words.next()) else {
        return Err(400);
    };
    if !version.starts_with("HTTP/1.") {
        return Err(505);
    }
    let (mut hosts, mut origin, mut length) = (Vec::new(), None, 0);
    for line in lines {
        let (name, value) = line.split_once(':').ok_or(400_u16)?;
        let value = value.trim();
        match name.to_ascii_lowercase().as_str() {
            "host" => hosts.push(value.to_owned()),
            "origin" => origin = Some(value.to_owned()),
            "content-length" => length = value.parse().map_err(|_| 400_u16)?,
            "transfer-encoding" => return Err(501),
            _ => {}
        }
    }
    // None or two: nobody can say which one a proxy or a browser went by.
    let [host] = &hosts[..] else { return Err(400) };
    let path = target.split('?').next().unwrap_or(target).to_owned();
    Ok((Request { method: method.to_owned(), path, host: host.clone(), origin, body: Vec::new() }, length))
}

fn answer(mut stream: &TcpStream, status: u16, kind: &str, body: &str) -> io::Result<()> {
    let reason = match status {
        200 => "OK",
        400 => "Bad Request",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        413 => "Content Too Large",
        431 => "Request Header Fields Too Large",
        501 => "Not Implemented",
        503 => "Service Unavailable",
        _ => "HTTP Version Not Supported",
    };
    let head = head(&format!("{status} {reason}"), kind);
    stream.write_all(format!("{head}Content-Length: {}\r\n\r\n{body}", body.len()).as_bytes())
}

fn head(status: &str, kind: &str) -> String {
    format!(
        "HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nCache-Control: no-store\r\nX-Content-Type-Options: nosniff\r\n\
         Content-Security-Policy: {POLICY}\r\nCross-Origin-Resource-Policy: same-origin\r\nReferrer-Policy: no-referrer\r\n\
         Connection: close\r\n"
    )
}

/// Server-sent events until the viewer goes, or is let go.
fn events(mut stream: &TcpStream, hub: &Arc<Hub>) -> io::Result<()> {
    stream.write_all(format!("{}\r\n", head("200 OK", "text/event-stream")).as_bytes())?;
    let viewer = hub.subscribe();
    loop {
        match viewer.messages.recv_timeout(HEARTBEAT) {
            Ok(message) => stream.write_all(format!("data: {message}\n\n").as_bytes())?,
            Err(RecvTimeoutError::Timeout) => stream.write_all(b":\n\n")?,
            Err(RecvTimeoutError::Disconnected) => return Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_of_this_machine_are_local() {
        for host in ["127.0.0.1:8080", "localhost:1", "LOCALHOST", "127.0.0.1"] {
            assert!(is_local(host), "{host}");
        }
        for host in [
            "",
            "example.org",
            "127.0.0.1.example.org:80",
            "localhost.example.org",
            "127.0.0.1:",
            "127.0.0.1:8080:1",
            "[::1]:80",
            "a@127.0.0.1:x",
        ] {
            assert!(!is_local(host), "{host}");
        }
    }

    #[test]
    fn a_request_has_one_host_and_a_length_that_is_a_number() {
        let status = |head: &str| parse(head).err();
        assert_eq!(status("GET / HTTP/1.1\r\nHost: localhost"), None);
        for bad in [
            "",
            "GET /",
            "GET / HTTP/1.1",
            "GET / HTTP/1.1\r\nHost: a\r\nHost: b",
            "GET / HTTP/1.1\r\nHost",
            "GET / /x HTTP/1.1\r\nHost: a",
        ] {
            assert_eq!(status(bad), Some(400), "{bad}");
        }
        assert_eq!(status("GET / HTTP/2\r\nHost: a"), Some(505));
        assert_eq!(status("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: -1"), Some(400));
        assert_eq!(status("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked"), Some(501));
    }
}
