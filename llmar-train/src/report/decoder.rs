//! Stage 1's decoder in plain Rust: `vqvae::Decoder` without libtorch, for a look at what the tokens keep.

use llmar::device::{Conv1d, Device, Matrix, Scheme, Store, Vector};
use llmar::motion::EncoderConfig;

use crate::artifacts::{DecoderMeta, Opened, decoder_convs};
use crate::error::Result;

/// What the buffers hold, for errors.
const BUFFER: &str = "the motion decoder";

/// The decoder with its weights.
#[derive(Debug)]
pub struct Decoder {
    config: EncoderConfig,
    /// In the order of [`decoder_convs`].
    convs: Vec<Conv1d>,
}

impl Decoder {
    /// Takes the weights out of their file.
    ///
    /// # Errors
    /// Sizes beyond the encoder's caps; tensors that are missing, of another shape or not finite.
    pub fn read(file: &Opened<DecoderMeta>) -> Result<Self> {
        let config = file.meta.encoder.clone();
        config.check()?;
        let conv = |shape: &llmar::motion::ConvShape| {
            let weight = file.floats(&shape.weight(), &[shape.c_out, shape.cols()])?;
            let bias = Vector::of(&file.floats(&shape.bias(), &[shape.c_out])?);
            let weight = Matrix::pack(Scheme::F32, shape.c_out, shape.cols(), &weight);
            let (kernel, stride, dilation, left, right) = (shape.kernel, shape.stride, shape.dilation, shape.left, shape.right);
            Ok(Conv1d { weight, bias, kernel, stride, dilation, left, right })
        };
        let convs = decoder_convs(&config).iter().map(conv).collect::<Result<_>>()?;
        Ok(Self { config, convs })
    }

    /// The shape of the encoder that it mirrors.
    pub fn config(&self) -> &EncoderConfig {
        &self.config
    }

    /// A clip [w << halvings, inputs] of tangent codes [w, outputs].
    pub fn forward(&self, device: &Device, codes: &[f32]) -> Result<Vec<f32>> {
        let end = self.convs.len() - 2;
        let mut h = run(device, &self.convs[0], codes, false)?;
        h.iter_mut().for_each(|x| *x = x.max(0.0));
        for stage in self.convs[1..end].chunks(2 * self.config.dilations.len() + 1) {
            let (up, pairs) = (&stage[stage.len() - 1], &stage[..stage.len() - 1]);
            for pair in pairs.chunks(2) {
                let inner = run(device, &pair[0], &h, true)?;
                let change = run(device, &pair[1], &inner, true)?;
                h.iter_mut().zip(change).for_each(|(x, change)| *x += change);
            }
            let doubled: Vec<f32> = h.chunks_exact(self.config.width).flat_map(|frame| [frame, frame]).flatten().copied().collect();
            h = run(device, up, &doubled, false)?;
        }
        let h = run(device, &self.convs[end], &h, false)?;
        run(device, &self.convs[end + 1], &h, true)
    }
}

/// One convolution over x [frames, c_in], of max(x, 0) with `relu`.
fn run(device: &Device, conv: &Conv1d, x: &[f32], relu: bool) -> Result<Vec<f32>> {
    let frames = x.len() * conv.kernel / conv.weight.cols;
    let (mut input, mut output) = (device.buffer(), device.buffer());
    let mut y = vec![0.0; conv.out_len(frames) * conv.weight.rows];
    device.write(BUFFER, &mut input, x)?;
    device.reserve(BUFFER, &mut output, y.len())?;
    device.conv1d(conv, &input, (1, frames), relu, &mut output, Store::Overwrite)?;
    device.read(&output, &mut y)?;
    Ok(y)
}

#[cfg(all(test, feature = "torch"))]
mod tests {
    use super::*;
    use crate::artifacts;
    use crate::torch::{Params, Rng, tensor, values};
    use crate::vqvae;

    #[test]
    fn gives_what_libtorchs_gives() -> Result<()> {
        let folder = tempfile::tempdir().map_err(crate::Error::io("temporary folder"))?;
        let path = folder.path().join("decoder.safetensors");
        for (seed, halvings, dilations) in [(1, 2, vec![9, 3, 1]), (2, 0, vec![]), (3, 1, vec![]), (4, 3, vec![2])] {
            let config = EncoderConfig { inputs: 30, width: 24, halvings, dilations, outputs: 8, causal: seed == 3 };
            let mut params = Params::new(tch::Device::Cpu, seed);
            let mut trained = vqvae::Decoder::new(&mut params, &config);
            trained.round();
            let meta = DecoderMeta { encoder: config.clone(), stage1_sha256: String::new() };
            artifacts::write(&path, &meta, &trained.export()?)?;
            let plain = Decoder::read(&artifacts::open(&path)?)?;
            let mut rng = Rng::new(seed, "codes", 0);
            let codes: Vec<f32> = (0..5 * 8).map(|_| 3.0 * rng.normal()).collect();
            let expected = tch::no_grad(|| trained.forward(&tensor(&codes, &[1, 5, 8], tch::Device::Cpu)));
            let (expected, got) = (values(&expected)?, plain.forward(&Device::cpu(1)?, &codes)?);
            assert_eq!(got.len(), (5 << halvings) * 30);
            assert_eq!(got.len(), expected.len());
            let spread = expected.iter().map(|x| x.abs()).fold(0.0, f32::max);
            assert!(spread > 0.1, "seed {seed}: nothing comes out of it, at most {spread}");
            for (a, b) in got.iter().zip(&expected) {
                assert!((a - b).abs() < 1e-4, "seed {seed}: {a} against {b}");
            }
        }
        Ok(())
    }
}
