// 1-D convolution over time in f32: the encoder's features decide tokens, so nothing is rounded to halves here.
#include "common.cuh"

namespace conv1d {

// A block computes 32 output frames times 64 channels as a matrix product over taps and input channels, sixteen at a time; a thread four times four.
constexpr int FRAMES = 32, CHANNELS = 64, DEPTH = 16, THREADS = 128;

struct Shape {
    int batch, frames, c_in, c_out, out, kernel, stride, dilation, left;
};

template <bool RELU, bool ADD>
__device__ __forceinline__ void run(const float* weight, const float* bias, const float* x, float* y, const Shape& s) {
    // Columns of x and of the weight, one depth a row; a row of four more floats keeps both 16-byte aligned and out of each other's banks.
    __align__(16) __shared__ float inputs[DEPTH][FRAMES + 4];
    __align__(16) __shared__ float weights[DEPTH][CHANNELS + 4];
    const int depth = s.kernel * s.c_in, first_row = blockIdx.x * FRAMES, first_channel = blockIdx.y * CHANNELS, rows = s.batch * s.out;
    const int frame4 = threadIdx.x / 16 * 4, channel4 = threadIdx.x % 16 * 4;
    float sums[4][4] = {};
    for (int d = 0; d < depth; d += DEPTH) {
#pragma unroll
        for (int i = 0; i < FRAMES * DEPTH / THREADS; i++) {
            const int at = threadIdx.x + i * THREADS, k = at % DEPTH, f = at / DEPTH, row = first_row + f;
            float v = 0.0f;
            if (d + k < depth && row < rows) {
                const int clip = row / s.out, t = row % s.out, tap = (d + k) / s.c_in, c = (d + k) % s.c_in;
                const int frame = t * s.stride + tap * s.dilation - s.left;
                if (frame >= 0 && frame < s.frames) v = x[(static_cast<size_t>(clip) * s.frames + frame) * s.c_in + c];
                if (RELU && v < 0.0f) v = 0.0f; // NaN stays NaN
            }
            inputs[k][f] = v;
        }
#pragma unroll
        for (int i = 0; i < CHANNELS * DEPTH / THREADS; i++) {
            const int at = threadIdx.x + i * THREADS, k = at % DEPTH, o = at / DEPTH, channel = first_channel + o;
            weights[k][o] = d + k < depth && channel < s.c_out ? weight[static_cast<size_t>(channel) * depth + d + k] : 0.0f;
        }
        __syncthreads();
#pragma unroll
        for (int k = 0; k < DEPTH; k++) {
            const float4 a = *reinterpret_cast<const float4*>(&inputs[k][frame4]), b = *reinterpret_cast<const float4*>(&weights[k][channel4]);
            const float left[4] = {a.x, a.y, a.z, a.w}, right[4] = {b.x, b.y, b.z, b.w};
#pragma unroll
            for (int i = 0; i < 4; i++) {
#pragma unroll
                for (int j = 0; j < 4; j++) sums[i][j] = fmaf(left[i], right[j], sums[i][j]);
            }
        }
        __syncthreads();
    }
#pragma unroll
    for (int i = 0; i < 4; i++) {
        const int row = first_row + frame4 + i;
        if (row >= rows) break;
#pragma unroll
        for (int j = 0; j < 4; j++) {
            const int channel = first_channel + channel4 + j;
            if (channel >= s.c_out) break;
            float& out = y[static_cast<size_t>(row) * s.c_out + channel];
            const float sum = sums[i][j] + bias[channel];
            out = ADD ? out + sum : sum;
        }
    }
}

} // namespace conv1d

// y [batch, out, c_out] = or += bias + Σ_tap Σ_c weight[o, tap · c_in + c] · x[b, t · stride + tap · dilation − left, c], x [batch, frames, c_in], zero outside
// 0..frames; conv1d_relu_*: of max(x, 0). weight f32 [c_out, kernel · c_in]. Sums run over taps, then channels, whatever the batch.
// Grid (⌈batch · out / 32⌉, ⌈c_out / 64⌉), block 128.
#define CONV1D(NAME, RELU, ADD)                                                                                                          \
    extern "C" __global__ void __launch_bounds__(conv1d::THREADS)                                                                       \
        NAME(const float* __restrict__ weight, const float* __restrict__ bias, const float* __restrict__ x, float* __restrict__ y, int batch, \
             int frames, int c_in, int c_out, int out, int kernel, int stride, int dilation, int left) {                                \
        conv1d::run<RELU, ADD>(weight, bias, x, y, {batch, frames, c_in, c_out, out, kernel, stride, dilation, left});                  \
    }                                                                                                                                   \
    EMU_KERNEL(NAME)

CONV1D(conv1d_store, false, false)
CONV1D(conv1d_add, false, true)
CONV1D(conv1d_relu_store, true, false)
CONV1D(conv1d_relu_add, true, true)
