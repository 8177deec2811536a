//! Clip archives made up for tests.

use std::collections::HashMap;
use std::fs;
use std::path::Path;

use safetensors::tensor::{Dtype, TensorView};

/// Writes clips [frames, 1, 20, 3] of kinect1_20 as a clip archive.
pub fn archive(path: &Path, clips: &[&[f32]]) {
    let about = serde_json::json!({
        "name": "made_up", "classes": ["walk", "wave"], "fps": 30.0, "parents": vec![-1; 20],
        "joints": llmar::skeleton::Layout::find("kinect1_20").unwrap().joints,
    });
    let joints: Vec<u8> = clips.iter().flat_map(|clip| clip.iter().flat_map(|x| x.to_le_bytes())).collect();
    let mut offsets = vec![0i64];
    offsets.extend(clips.iter().scan(0, |end, clip| {
        *end += clip.len() as i64 / 60;
        Some(*end)
    }));
    let le = |numbers: &[i64]| numbers.iter().flat_map(|n| n.to_le_bytes()).collect::<Vec<u8>>();
    let (labels, frames) = (le(&vec![0; clips.len()]), offsets[clips.len()] as usize);
    let (count, offsets) = (offsets.len(), le(&offsets));
    let tensors = [
        ("joints", TensorView::new(Dtype::F32, vec![frames, 1, 20, 3], &joints).unwrap()),
        ("offsets", TensorView::new(Dtype::I64, vec![count], &offsets).unwrap()),
        ("labels", TensorView::new(Dtype::I64, vec![clips.len()], &labels).unwrap()),
    ];
    let bytes = safetensors::serialize(tensors, Some(HashMap::from([("clips".to_owned(), about.to_string())]))).unwrap();
    fs::write(path, bytes).unwrap();
}
