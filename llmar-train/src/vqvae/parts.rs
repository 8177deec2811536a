//! What the head reads of a live model's windows: each action or rest in them by itself, as of a clip that is nothing else.

use tch::{Device, Kind, Tensor};

use super::live::Batch;

/// Actions and rests of a batch of windows.
#[derive(Debug)]
pub struct Parts {
    /// Of each part, i64.
    pub labels: Tensor,
    /// Number of the window that ends with the part, −1 for parts that no window ends with.
    pub ends: Vec<i64>,
    /// Tokens of the parts, numbered through the batch; i64.
    tokens: Tensor,
    /// Where each goes: part · segments + segment; i64.
    places: Tensor,
    segments: i64,
}

impl Parts {
    /// Of windows; a part's segments are those of its whole action, of which a window may show some.
    pub fn new(batch: &Batch, segments: usize, device: Device) -> Self {
        let (mut tokens, mut places) = (Vec::new(), Vec::new());
        for (i, part) in batch.parts.iter().enumerate() {
            for (token, progress) in &part.tokens {
                let segment = ((progress * segments as f32) as usize).min(segments - 1);
                tokens.push(*token as i64);
                places.push((i * segments + segment) as i64);
            }
        }
        let labels: Vec<i64> = batch.parts.iter().map(|part| part.label as i64).collect();
        let ends = batch.parts.iter().map(|part| part.ends.map_or(-1, |window| window as i64)).collect();
        let [labels, tokens, places] = [labels, tokens, places].map(|all| Tensor::from_slice(&all).to_device(device));
        Self { labels, ends, tokens, places, segments: segments as i64 }
    }

    /// Means of the segments [parts, segments · dim] of features [windows, w, dim]; zero where a window does not show a segment.
    pub fn means(&self, features: &Tensor) -> Tensor {
        let (parts, dim) = (self.labels.size()[0], features.size()[2]);
        let options = (Kind::Float, features.device());
        let read = features.reshape([-1, dim]).index_select(0, &self.tokens);
        let sums = Tensor::zeros([parts * self.segments, dim], options).index_add(0, &self.places, &read);
        let ones = Tensor::ones([self.tokens.size()[0], 1], options);
        let counts = Tensor::zeros([parts * self.segments, 1], options).index_add(0, &self.places, &ones);
        (sums / counts.clamp_min(1.0)).view([parts, self.segments * dim])
    }
}

#[cfg(test)]
mod tests {
    use super::super::live::Part;
    use super::*;
    use crate::error::Result;
    use crate::torch::{tensor, values};

    #[test]
    fn each_part_is_read_by_itself_segment_by_segment() -> Result<()> {
        // Two windows of three tokens of one feature: an action of which the second half is shown, then a rest; and a whole action.
        let parts = vec![
            Part { label: 1, tokens: vec![(0, 0.5), (1, 0.9)], ends: None },
            Part { label: 2, tokens: vec![(2, 0.0)], ends: Some(0) },
            Part { label: 0, tokens: vec![(3, 0.0), (4, 0.4), (5, 0.7)], ends: Some(1) },
        ];
        let parts = Parts::new(&Batch { inputs: Vec::new(), labels: vec![2, 0], parts }, 2, Device::Cpu);
        let features = tensor(&[1.0, 3.0, 5.0, 7.0, 9.0, 11.0], &[2, 3, 1], Device::Cpu);
        assert_eq!(values(&parts.means(&features))?, [0.0, 2.0, 5.0, 0.0, 8.0, 11.0]);
        assert_eq!((Vec::<i64>::try_from(&parts.labels)?, parts.ends), (vec![1, 2, 0], vec![-1, 0, 1]));
        Ok(())
    }
}
