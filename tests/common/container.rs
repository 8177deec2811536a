//! A checkpoint taken apart into its document, tensor table and data, to be damaged and put together again with a right checksum.

// Every test crate that includes this file uses another part of it.
#![allow(dead_code, reason = "shared by several test crates")]

use std::collections::BTreeMap;

use llmar::device::Scheme;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::tiny;

const BLANK: &str = "0000000000000000000000000000000000000000000000000000000000000000";

/// The parts of a file.
#[derive(Clone)]
pub struct Container {
    /// The metadata document.
    pub document: Value,
    /// The header's entries.
    pub tensors: BTreeMap<String, Value>,
    /// The data section.
    pub data: Vec<u8>,
    data_start: usize,
}

impl Container {
    /// Takes a sound file apart.
    pub fn read(file: &[u8]) -> Self {
        let data_start = 8 + u64::from_le_bytes(file[..8].try_into().unwrap()) as usize;
        let mut tensors: BTreeMap<String, Value> = serde_json::from_slice(&file[8..data_start]).unwrap();
        let metadata = tensors.remove("__metadata__").unwrap();
        let document = serde_json::from_str(metadata["llmar"].as_str().unwrap()).unwrap();
        Self { document, tensors, data: file[data_start..].to_vec(), data_start }
    }

    /// The tiny model.
    pub fn tiny(scheme: Scheme) -> Self {
        static FILES: std::sync::Mutex<BTreeMap<String, Container>> = std::sync::Mutex::new(BTreeMap::new());
        let mut files = FILES.lock().unwrap();
        files.entry(format!("{scheme:?}")).or_insert_with(|| Self::read(&tiny::bytes(scheme))).clone()
    }

    /// Offset of the data section in the file it was read from.
    pub fn data_start(&self) -> usize {
        self.data_start
    }

    /// The header with a blank checksum.
    pub fn header_text(&self) -> String {
        let mut header = self.tensors.clone();
        let document = serde_json::to_string(&self.document).unwrap();
        header.insert("__metadata__".to_owned(), json!({ "header_sha256": BLANK, "llmar": document }));
        serde_json::to_string(&header).unwrap()
    }

    /// The file, its header's checksum right.
    pub fn bytes(&self) -> Vec<u8> {
        seal(self.header_text(), &self.data)
    }

    /// The file with a blank checksum.
    pub fn unsealed_bytes(&self) -> Vec<u8> {
        join(&pad(self.header_text()), &self.data)
    }

    /// Makes the document's checksum that of the data.
    pub fn hash_data(&mut self) {
        self.document["tensors_sha256"] = json!(hex(&self.data));
    }

    /// Takes a tensor out, its data too.
    pub fn remove(&mut self, name: &str) {
        let [start, end] = offsets(&self.tensors.remove(name).unwrap());
        self.data.drain(start..end);
        for tensor in self.tensors.values_mut() {
            let [a, b] = offsets(tensor);
            if a >= end && b > end {
                tensor["data_offsets"] = json!([a - (end - start), b - (end - start)]);
            }
        }
    }
}

/// Data offsets of a header entry.
pub fn offsets(tensor: &Value) -> [usize; 2] {
    [0, 1].map(|i| tensor["data_offsets"][i].as_u64().unwrap() as usize)
}

/// Joins a header, in which the checksum is blank, with the data and puts the checksum in.
pub fn seal(text: String, data: &[u8]) -> Vec<u8> {
    let text = pad(text);
    let head = join(&text, &[]);
    let sealed = text.replacen(BLANK, &hex(&head), 1);
    join(&sealed, data)
}

fn pad(mut text: String) -> String {
    while !(8 + text.len()).is_multiple_of(64) {
        text.push(' ');
    }
    text
}

fn join(text: &str, data: &[u8]) -> Vec<u8> {
    [&(text.len() as u64).to_le_bytes()[..], text.as_bytes(), data].concat()
}

fn hex(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}
