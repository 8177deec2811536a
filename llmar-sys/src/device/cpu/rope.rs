//! Rotary position embedding. Sines and cosines are computed once per position and kept.

use std::sync::{Arc, Mutex, PoisonError};

use super::Cpu;

/// Positions beyond this are computed anew on every call, so that one absurd position cannot ask for gigabytes.
const TABLE_POSITIONS: usize = 1 << 14;

/// One table per (theta, head_dim) that was ever asked for.
#[derive(Debug, Default)]
pub(super) struct Tables(Mutex<Vec<Arc<Table>>>);

/// Sines and cosines of positions 0..`positions`.
#[derive(Debug)]
struct Table {
    theta: f32,
    head_dim: usize,
    positions: usize,
    /// [positions, head_dim / 2]: (cos, sin)
    rotations: Vec<(f32, f32)>,
}

/// (cos, sin) of pair `i` at `position`. The angle is rounded to f32 as in the model's training: inverse frequency 1 / theta^(2i/head_dim), times
/// the position.
pub(in crate::device) fn rotation(position: u32, i: usize, head_dim: usize, theta: f32) -> (f32, f32) {
    let exponent = (2 * i) as f32 / head_dim as f32;
    let inverse_frequency = 1.0 / (f64::from(theta).powf(f64::from(exponent)) as f32);
    let (sin, cos) = (position as f32 * inverse_frequency).sin_cos();
    (cos, sin)
}

impl Tables {
    /// A table that covers at least `positions`, grown in powers of two.
    fn get(&self, theta: f32, head_dim: usize, positions: usize) -> Arc<Table> {
        let mut tables = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let at = tables.iter().position(|table| table.theta == theta && table.head_dim == head_dim);
        if let Some(at) = at
            && tables[at].positions >= positions
        {
            return Arc::clone(&tables[at]);
        }
        let positions = positions.next_power_of_two();
        let rotations = (0..positions as u32).flat_map(|p| (0..head_dim / 2).map(move |i| rotation(p, i, head_dim, theta))).collect();
        let table = Arc::new(Table { theta, head_dim, positions, rotations });
        match at {
            Some(at) => tables[at] = Arc::clone(&table),
            None => tables.push(Arc::clone(&table)),
        }
        table
    }
}

impl Cpu {
    /// Rotates, in place, the first `heads` heads of every row of x [n, stride] by its position: half-split pairs (i, i + head_dim/2), angle
    /// position · theta^(−2i/head_dim).
    pub fn rope(&self, x: &mut [f32], stride: usize, heads: usize, head_dim: usize, positions: &[u32], theta: f32) {
        let half = head_dim / 2;
        if half == 0 || heads == 0 {
            return;
        }
        let needed = positions.iter().map(|&p| p as usize + 1).max().unwrap_or(0).min(TABLE_POSITIONS);
        let table = self.rope.get(theta, head_dim, needed);
        let mut beyond = Vec::new();
        for (row, &position) in x.chunks_mut(stride).zip(positions) {
            let rotations = match table.rotations.get(position as usize * half..(position as usize + 1) * half) {
                Some(rotations) => rotations,
                None => {
                    beyond.clear();
                    beyond.extend((0..half).map(|i| rotation(position, i, head_dim, theta)));
                    &beyond
                }
            };
            for head in row[..heads * head_dim].chunks_exact_mut(head_dim) {
                let (low, high) = head.split_at_mut(half);
                for ((a, b), &(cos, sin)) in low.iter_mut().zip(high).zip(rotations) {
                    (*a, *b) = (*a * cos - *b * sin, *b * cos + *a * sin);
                }
            }
        }
    }
}
