//! 1-D convolution as a matrix product: the taps of each output frame are laid side by side first.

use super::Cpu;
use crate::device::{Conv1d, Store};

impl Cpu {
    /// See [`Device::conv1d`](crate::device::Device::conv1d).
    pub fn conv1d(&self, conv: &Conv1d, x: &[f32], frames: usize, relu_in: bool, y: &mut [f32], store: Store) {
        if conv.kernel == 0 || frames == 0 {
            return;
        }
        let c_in = conv.weight.cols / conv.kernel;
        let t_out = conv.out_len(frames);
        let mut scratch = self.scratch();
        scratch.taps.clear();
        for t in 0..t_out {
            for tap in 0..conv.kernel {
                let frame = (t * conv.stride + tap * conv.dilation).checked_sub(conv.left).filter(|&frame| frame < frames);
                match frame.map(|frame| &x[frame * c_in..][..c_in]) {
                    None => scratch.taps.resize(scratch.taps.len() + c_in, 0.0),
                    // NaN stays NaN: it must not be mistaken for a zero.
                    Some(values) if relu_in => scratch.taps.extend(values.iter().map(|&v| if v < 0.0 { 0.0 } else { v })),
                    Some(values) => scratch.taps.extend_from_slice(values),
                }
            }
        }
        for y in y[..t_out * conv.weight.rows].chunks_exact_mut(conv.weight.rows.max(1)) {
            match store {
                Store::Overwrite => y.copy_from_slice(conv.bias.values()),
                Store::Add => y.iter_mut().zip(conv.bias.values()).for_each(|(y, b)| *y += b),
            }
        }
        self.linear(&conv.weight, &scratch.taps, t_out, y, Store::Add);
        self.put_back(scratch);
    }
}
