//! The shipped library as a C program sees it. The only place of this crate that crosses the C boundary.

use std::ffi::{CStr, CString};
use std::path::Path;
use std::ptr;

use llmar::ffi;
use llmar::formats::OwnedClip;

use crate::error::{Error, Result};

/// What the library said about one clip.
#[derive(Clone, Debug)]
pub struct Answer {
    /// All labels, best first.
    pub ranking: Vec<usize>,
    /// Probability of each of `ranking`; they sum to 1.
    pub probabilities: Vec<f32>,
    /// The action sentence.
    pub tokens: Vec<u16>,
    /// The best probability was below the model's threshold.
    pub unknown: bool,
}

/// How the library is asked.
#[derive(Clone, Debug, Default)]
pub struct Asking {
    /// Worker threads; 0 computes on the calling thread.
    pub threads: usize,
    /// Only the label that greedy decoding gives, instead of all of them ranked.
    pub greedy: bool,
    /// Labels are told by the words of their texts, without the language model.
    pub by_words: bool,
    /// Labels in place of the model's own, which the prompt then lists. Empty: the model's.
    pub labels: Vec<String>,
    /// Views of each clip, turned about the vertical, whose answers are averaged; 0 and 1: the clip as it is.
    pub views: usize,
    /// Clips of other actions: what labels get on them is taken out of the answers. None: nothing is.
    pub balance: Vec<OwnedClip>,
}

/// Opens `model` and recognises `clips` one by one, all labels ranked. Returns the labels it chose from and the answers.
pub fn recognize_all(
    model: &Path,
    clips: impl Iterator<Item = Result<OwnedClip>>,
    asking: &Asking,
    mut after_each: impl FnMut(),
) -> Result<(Vec<String>, Vec<Answer>)> {
    let model = ModelHandle::open(model)?;
    let labels = if asking.labels.is_empty() { model.labels()? } else { asking.labels.clone() };
    let recognizer = RecognizerHandle::create(&model, labels.len(), asking)?;
    if !asking.labels.is_empty() {
        recognizer.set_labels(&labels)?;
    }
    if !asking.balance.is_empty() {
        recognizer.balance(&asking.balance)?;
    }
    let answers = clips
        .map(|clip| {
            let answer = recognizer.recognize(&clip?, labels.len());
            after_each();
            answer
        })
        .collect::<Result<_>>()?;
    Ok((labels, answers))
}

/// Turns a status into an error that carries the library's own words.
fn check(what: &str, status: ffi::llmar_status) -> Result<()> {
    if status == ffi::LLMAR_OK {
        return Ok(());
    }
    let mut detail = vec![0u8; 512];
    // SAFETY: the buffer is writable for the length given with it.
    unsafe { ffi::llmar_last_error(detail.as_mut_ptr().cast(), detail.len()) };
    let detail = CStr::from_bytes_until_nul(&detail).map_or("", |s| s.to_str().unwrap_or(""));
    Err(Error::format(what, format!("status {status}: {detail}")))
}

fn c_string(text: &str) -> Result<CString> {
    CString::new(text).map_err(|_| Error::format(text.escape_debug(), "holds a NUL character"))
}

struct ModelHandle(*mut ffi::llmar_model);

impl ModelHandle {
    fn open(path: &Path) -> Result<Self> {
        let text = path.to_str().ok_or_else(|| Error::format(path.display(), "path is not UTF-8"))?;
        let text = c_string(text)?;
        let mut handle = ptr::null_mut();
        // SAFETY: a NUL-terminated path, NULL for default parameters, a place for the handle.
        check(&path.display().to_string(), unsafe { ffi::llmar_model_open_path(text.as_ptr(), ptr::null(), &mut handle) })?;
        Ok(Self(handle))
    }

    fn labels(&self) -> Result<Vec<String>> {
        let mut count = 0;
        // SAFETY: the handle lives as long as `self`.
        check("label count", unsafe { ffi::llmar_model_label_count(self.0, &mut count) })?;
        (0..count)
            .map(|index| {
                let mut text = ptr::null();
                // SAFETY: as above; the text belongs to the model and is copied at once.
                let bytes = unsafe {
                    check("label", ffi::llmar_model_label(self.0, index, &mut text))?;
                    CStr::from_ptr(text)
                };
                Ok(bytes.to_string_lossy().into_owned())
            })
            .collect()
    }
}

impl Drop for ModelHandle {
    fn drop(&mut self) {
        // SAFETY: made by `open`, freed once.
        unsafe { ffi::llmar_model_free(self.0) }
    }
}

struct RecognizerHandle(*mut ffi::llmar_recognizer);

impl RecognizerHandle {
    fn create(model: &ModelHandle, top_k: usize, asking: &Asking) -> Result<Self> {
        let params = ffi::llmar_recognizer_params {
            struct_size: size_of::<ffi::llmar_recognizer_params>() as u32,
            threads: asking.threads as u32,
            top_k: top_k as u32,
            decoding: if asking.greedy { ffi::LLMAR_DECODING_GREEDY } else { ffi::LLMAR_DECODING_EXACT },
            scoring: if asking.by_words { ffi::LLMAR_SCORING_WORDS } else { ffi::LLMAR_SCORING_LANGUAGE_MODEL },
            ..Default::default()
        };
        let mut handle = ptr::null_mut();
        // SAFETY: a live model, parameters with their size, a place for the handle.
        check("recogniser", unsafe { ffi::llmar_recognizer_create(model.0, &params, &mut handle) })?;
        Ok(Self(handle))
    }

    fn set_labels(&self, labels: &[String]) -> Result<()> {
        let texts = labels.iter().map(|label| c_string(label)).collect::<Result<Vec<_>>>()?;
        let pointers: Vec<_> = texts.iter().map(|text| text.as_ptr()).collect();
        // SAFETY: a live recogniser, and as many NUL-terminated texts as said; they are copied.
        check("labels", unsafe { ffi::llmar_recognizer_set_labels(self.0, pointers.as_ptr(), pointers.len()) })
    }

    fn balance(&self, clips: &[OwnedClip]) -> Result<()> {
        let layouts = clips.iter().map(|clip| c_string(&clip.layout)).collect::<Result<Vec<_>>>()?;
        let clips: Vec<_> = clips.iter().zip(&layouts).map(|(clip, layout)| c_clip(clip, layout)).collect();
        // SAFETY: a live recogniser, and as many clips as said, whose pointers are valid for the duration of the call.
        check("balance", unsafe { ffi::llmar_recognizer_balance(self.0, clips.as_ptr(), clips.len(), ptr::null()) })
    }

    fn recognize(&self, clip: &OwnedClip, labels: usize) -> Result<Answer> {
        let layout = c_string(&clip.layout)?;
        let input = c_clip(clip, &layout);
        let mut top = vec![ffi::llmar_label_score::default(); labels];
        let mut tokens = vec![0u16; 4096];
        let mut output = ffi::llmar_recognition {
            struct_size: size_of::<ffi::llmar_recognition>() as u32,
            top: top.as_mut_ptr(),
            top_capacity: top.len(),
            tokens: tokens.as_mut_ptr(),
            token_capacity: tokens.len(),
            ..Default::default()
        };
        // SAFETY: every pointer of the clip and the result is valid for the lengths given beside it, for the duration of the call.
        check(&clip.name, unsafe { ffi::llmar_recognize_clip(self.0, &input, ptr::null(), &mut output) })?;
        top.truncate(output.top_count);
        tokens.truncate(output.token_count);
        Ok(Answer {
            ranking: top.iter().map(|s| s.label as usize).collect(),
            probabilities: top.iter().map(|s| s.probability).collect(),
            tokens,
            unknown: output.unknown != 0,
        })
    }
}

/// Points at the joints of `clip` and at `layout`.
fn c_clip(clip: &OwnedClip, layout: &CStr) -> ffi::llmar_clip {
    ffi::llmar_clip {
        struct_size: size_of::<ffi::llmar_clip>() as u32,
        joints: clip.joints.as_ptr(),
        frames: clip.frames,
        persons: clip.persons,
        joint_count: clip.joints_per_person,
        coords: clip.coords as u32,
        layout: layout.as_ptr(),
        valid: clip.valid.as_ref().map_or(ptr::null(), |v| v.as_ptr()),
        fps: clip.fps.unwrap_or(0.0),
        ..Default::default()
    }
}

impl Drop for RecognizerHandle {
    fn drop(&mut self) {
        // SAFETY: made by `create`, freed once.
        unsafe { ffi::llmar_recognizer_free(self.0) }
    }
}
