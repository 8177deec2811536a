//! Frames on their way in: whose they are, whether their times can be believed, and where they wait. A push does this and nothing else.

use std::collections::VecDeque;
use std::time::Instant;

use super::Pose;
use super::options::StreamOptions;
use crate::error::{Error, Result};

/// What waits for the engine, in the order in which it came.
#[derive(Clone, Copy, Debug)]
pub(super) enum Item {
    /// A frame of a body; its values lie at `at` of the inbox's store.
    Frame { place: usize, body: u64, time_ns: u64, arrived: Instant, at: usize },
    /// A body's place is free from here on.
    Forget { place: usize },
    /// Decisions that are not due yet are made, and actions end.
    Flush,
}

/// Who is where, and what waits.
#[derive(Debug)]
pub(super) struct Inbox {
    places: Vec<Option<Known>>,
    items: VecDeque<Item>,
    frames: usize,
    frame_limit: usize,
    /// Values [frame_limit, width]; NaN where a joint was not seen.
    store: Vec<f32>,
    /// Parts of the store that no item uses.
    free: Vec<usize>,
    joints: usize,
    coords: usize,
    min_confidence: f32,
    forget_ns: u64,
    jump_ns: u64,
    /// Newest time of any frame.
    newest: Option<u64>,
    /// A time too far ahead, until a second one confirms it.
    suspect: Option<u64>,
}

/// A body that has a place.
#[derive(Clone, Copy, Debug)]
struct Known {
    body: u64,
    newest: u64,
}

impl Inbox {
    pub fn new(options: &StreamOptions, joints: usize, coords: usize) -> Self {
        let width = joints * coords;
        let nanoseconds = |time: std::time::Duration| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        Self {
            places: vec![None; options.max_bodies],
            // Room for every frame, a word about every place, and a flush.
            items: VecDeque::with_capacity(options.queued_frames + options.max_bodies + 1),
            frames: 0,
            frame_limit: options.queued_frames,
            store: vec![0.0; options.queued_frames * width],
            free: (0..options.queued_frames).map(|at| at * width).collect(),
            joints,
            coords,
            min_confidence: options.min_confidence,
            forget_ns: nanoseconds(options.forget_after),
            jump_ns: nanoseconds(options.max_jump),
            newest: None,
            suspect: None,
        }
    }

    /// Frames that wait.
    pub fn frames(&self) -> usize {
        self.frames
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// Bodies that have a place.
    pub fn bodies(&self) -> usize {
        self.places.iter().flatten().count()
    }

    /// Takes one frame of one body. `convert` turns its joints [joints, coords] into the library's axes.
    pub fn push(&mut self, pose: &Pose<'_>, convert: impl FnOnce(&mut [f32])) -> Result<()> {
        self.check_shape(pose)?;
        let place = self.check_time(pose.body, pose.time_ns)?;
        let Some(at) = self.free.pop() else {
            return Err(Error::QueueFull { limit: self.frame_limit });
        };
        let values = &mut self.store[at..at + self.joints * self.coords];
        values.copy_from_slice(pose.joints);
        convert(values);
        for (joint, values) in values.chunks_exact_mut(self.coords).enumerate() {
            let flagged = pose.valid.is_some_and(|valid| valid[joint] == 0);
            // A confidence that is not a number is none.
            let doubtful = pose.confidence.is_some_and(|confidence| confidence[joint].is_nan() || confidence[joint] < self.min_confidence);
            if flagged || doubtful || !values.iter().all(|x| x.is_finite()) {
                values.fill(f32::NAN);
            }
        }
        self.places[place] = Some(Known { body: pose.body, newest: pose.time_ns });
        self.items.push_back(Item::Frame { place, body: pose.body, time_ns: pose.time_ns, arrived: Instant::now(), at });
        self.frames += 1;
        self.pass_time(pose.time_ns);
        Ok(())
    }

    fn check_shape(&self, pose: &Pose<'_>) -> Result<()> {
        let shape = |what: &str, expected: &[usize], got: usize| match expected.iter().product::<usize>() == got {
            true => Ok(()),
            false => Err(Error::Shape { what: what.into(), expected: expected.to_vec(), got: vec![got] }),
        };
        shape("joints of a frame", &[self.joints, self.coords], pose.joints.len())?;
        shape("valid of a frame", &[self.joints], pose.valid.map_or(self.joints, <[u8]>::len))?;
        shape("confidence of a frame", &[self.joints], pose.confidence.map_or(self.joints, <[f32]>::len))
    }

    /// The place of a body whose frame of this time is believed.
    fn check_time(&mut self, body: u64, got_ns: u64) -> Result<usize> {
        let newest = self.newest.unwrap_or(got_ns);
        if got_ns.saturating_sub(newest) > self.jump_ns {
            // A clock that stands elsewhere for good is believed at its second, later frame; a single wrong stamp is not.
            let confirmed = self.suspect.is_some_and(|suspect| got_ns > suspect && got_ns - suspect <= self.jump_ns);
            if !confirmed {
                if self.suspect.is_none_or(|suspect| got_ns.abs_diff(suspect) > 0) {
                    self.suspect = Some(got_ns);
                }
                return Err(Error::FutureTime { body, newest_ns: newest, limit_ns: self.jump_ns, got_ns });
            }
        }
        if let Some(place) = self.place_of(body)
            && let Some(known) = self.places[place]
        {
            if got_ns == known.newest {
                return Err(Error::DuplicateTime { body, got_ns });
            }
            if got_ns < known.newest {
                return Err(Error::BackwardTime { body, newest_ns: known.newest, got_ns });
            }
            return Ok(place);
        }
        if newest.saturating_sub(got_ns) > self.forget_ns {
            return Err(Error::BackwardTime { body, newest_ns: newest, got_ns });
        }
        if self.places.iter().all(Option::is_some) {
            // Those that left by this time make room: nobody else may say what time it is.
            self.pass_time(got_ns);
        }
        let limit = self.places.len();
        self.places.iter().position(Option::is_none).ok_or(Error::BodyLimit { body, limit })
    }

    fn place_of(&self, body: u64) -> Option<usize> {
        self.places.iter().position(|known| known.is_some_and(|known| known.body == body))
    }

    /// Says that it is `time_ns` now, also when no body is seen: bodies that were not seen for too long are forgotten.
    pub fn advance(&mut self, time_ns: u64) -> Result<()> {
        let newest = self.newest.unwrap_or(time_ns);
        if time_ns < newest {
            return Err(Error::argument("time", format!("at least {newest} ns"), time_ns));
        }
        self.pass_time(time_ns);
        Ok(())
    }

    fn pass_time(&mut self, time_ns: u64) {
        self.suspect = None;
        let newest = self.newest.unwrap_or(time_ns).max(time_ns);
        self.newest = Some(newest);
        for place in 0..self.places.len() {
            if self.places[place].is_some_and(|known| newest - known.newest > self.forget_ns) {
                self.forget(place);
            }
        }
    }

    /// Frees a place; where no room is left for the word about it, the next frame tries again.
    fn forget(&mut self, place: usize) -> bool {
        if self.items.len() == self.items.capacity() {
            return false;
        }
        self.items.push_back(Item::Forget { place });
        self.places[place] = None;
        true
    }

    /// Forgets a body.
    pub fn remove(&mut self, body: u64) -> Result<()> {
        let place = self.place_of(body).ok_or(Error::UnknownBody { body })?;
        if self.forget(place) { Ok(()) } else { Err(Error::QueueFull { limit: self.frame_limit }) }
    }

    /// Asks for what is not due yet.
    pub fn flush(&mut self) -> Result<()> {
        if self.items.len() == self.items.capacity() {
            return Err(Error::QueueFull { limit: self.frame_limit });
        }
        self.items.push_back(Item::Flush);
        Ok(())
    }

    /// What comes next, left where it is.
    pub fn first(&self) -> Option<Item> {
        self.items.front().copied()
    }

    /// Takes what comes first; a frame's values go to `values` [joints, coords].
    pub fn take(&mut self, values: &mut [f32]) {
        if let Some(Item::Frame { at, .. }) = self.items.pop_front() {
            values.copy_from_slice(&self.store[at..at + values.len()]);
            self.free.push(at);
            self.frames -= 1;
        }
    }

    /// Nobody is known, nothing waits, and any time is believed.
    pub fn clear(&mut self) {
        while let Some(item) = self.items.pop_front() {
            if let Item::Frame { at, .. } = item {
                self.free.push(at);
            }
        }
        self.frames = 0;
        self.places.fill(None);
        (self.newest, self.suspect) = (None, None);
    }

    /// For a state that is saved: newest time, and per place body and newest time.
    pub fn known(&self) -> (Option<u64>, impl Iterator<Item = Option<(u64, u64)>> + '_) {
        (self.newest, self.places.iter().map(|known| known.map(|known| (known.body, known.newest))))
    }

    /// The opposite: nothing waits afterwards.
    pub fn restore(&mut self, newest: Option<u64>, known: impl Iterator<Item = Option<(u64, u64)>>) {
        self.clear();
        self.newest = newest;
        for (place, known) in self.places.iter_mut().zip(known) {
            *place = known.map(|(body, newest)| Known { body, newest });
        }
    }
}
