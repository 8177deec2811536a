//! Who watches, and what they are told. A viewer who does not keep up is let go; its page comes back by itself.

use std::collections::VecDeque;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde_json::Value;

/// Messages that wait for a viewer: some ten seconds of frames.
const BACKLOG: usize = 1024;
/// Beginnings and ends of actions that a viewer who comes late is told of.
const MARKS: usize = 256;
/// Longest wait for viewers to be told the last message.
const FAREWELL: Duration = Duration::from_secs(2);

/// A message of JSON in one line.
pub type Message = Arc<str>;

/// What a message is about, of which body.
pub type Subject = (&'static str, u64);

pub struct Hub {
    inner: Mutex<Inner>,
    /// A viewer came or went.
    changed: Condvar,
    about: Message,
}

#[derive(Default)]
struct Inner {
    viewers: Vec<SyncSender<Message>>,
    /// Pages that are being served.
    watching: usize,
    state: Option<Message>,
    /// The newest message of each kind about each body.
    newest: Vec<(Subject, Message)>,
    marks: VecDeque<Message>,
    closed: bool,
}

impl Hub {
    pub fn new(about: Value) -> Self {
        Self { inner: Mutex::default(), changed: Condvar::new(), about: about.to_string().into() }
    }

    /// Every change of the state is complete before anything can panic, so a poisoned lock guards sound data.
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins to tell somebody: first what there is to know, then what happens.
    pub fn subscribe(self: &Arc<Self>) -> Viewer {
        let (sender, messages) = sync_channel(BACKLOG);
        let mut inner = self.lock();
        let newest = inner.newest.iter().map(|(_, message)| message);
        for message in [&self.about].into_iter().chain(&inner.state).chain(&inner.marks).chain(newest) {
            let _ = sender.try_send(Arc::clone(message)); // there is room for all of these
        }
        if !inner.closed {
            inner.viewers.push(sender);
        }
        inner.watching += 1;
        self.changed.notify_all();
        Viewer { messages, hub: Arc::clone(self) }
    }

    pub fn has_viewers(&self) -> bool {
        self.lock().watching > 0
    }

    /// Tells everybody, and who comes later until there is something newer of its kind.
    pub fn tell_newest(&self, subject: Subject, message: Message) {
        let mut inner = self.lock();
        inner.tell(&message);
        match inner.newest.iter_mut().find(|(of, _)| *of == subject) {
            Some((_, newest)) => *newest = message,
            None => inner.newest.push((subject, message)),
        }
    }

    /// Tells everybody, and who comes later.
    pub fn tell_state(&self, message: Message) {
        let mut inner = self.lock();
        inner.tell(&message);
        inner.state = Some(message);
    }

    /// Tells everybody, and who comes later too.
    pub fn tell_mark(&self, message: Message) {
        let mut inner = self.lock();
        inner.tell(&message);
        if inner.marks.len() == MARKS {
            inner.marks.pop_front();
        }
        inner.marks.push_back(message);
    }

    /// There is nothing to tell any more of a body, or of all.
    pub fn forget(&self, body: Option<u64>) {
        let mut inner = self.lock();
        match body {
            Some(body) => inner.newest.retain(|(subject, _)| subject.1 != body),
            None => {
                inner.newest.clear();
                inner.marks.clear();
            }
        }
    }

    /// The end: waits a moment until everybody was told everything.
    pub fn close(&self) {
        let end = Instant::now() + FAREWELL;
        let mut inner = self.lock();
        inner.tell(&r#"{"kind":"bye"}"#.into());
        inner.closed = true;
        inner.viewers.clear();
        while inner.watching > 0 {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            inner = self.changed.wait_timeout(inner, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

impl Inner {
    fn tell(&mut self, message: &Message) {
        self.viewers.retain(|viewer| viewer.try_send(Arc::clone(message)).is_ok());
    }
}

/// Somebody who is told; no more once it is dropped.
pub struct Viewer {
    pub messages: Receiver<Message>,
    hub: Arc<Hub>,
}

impl Drop for Viewer {
    fn drop(&mut self) {
        self.hub.lock().watching -= 1;
        self.hub.changed.notify_all();
    }
}
