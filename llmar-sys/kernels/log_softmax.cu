// Log-probabilities of a few tokens of each row of logits.
#include "common.cuh"

namespace log_softmax {

// Part of the result: it fixes the order of the sum.
constexpr int THREADS = 512;
constexpr int WARPS = THREADS / 32;
// 16-byte loads of a thread under way at once.
constexpr int LOADS = 4;

// A sum as two floats, high + low. Adding rounds in `low` alone, so that the sum over a row of any length is as good as its terms, without
// f64, which many GPUs run at 1/64 of the rate.
struct Pair {
    float high, low;

    __device__ __forceinline__ void add(float v) {
        const float sum = high + v, part = sum - high;
        low += (high - (sum - part)) + (v - part); // what the sum's rounding lost, exactly
        high = sum;
    }

    __device__ __forceinline__ void add(const Pair& other) {
        add(other.high);
        low += other.low;
    }
};

// First pass: the largest logit, and NaN in `flaw` where one is not finite, −∞ included.
struct Largest {
    float largest, flaw;

    __device__ __forceinline__ void take(float x) {
        largest = fmaxf(largest, x);
        flaw += x * 0.0f;
    }

    __device__ __forceinline__ void take(const float4& x) {
        largest = fmaxf(largest, fmaxf(fmaxf(x.x, x.y), fmaxf(x.z, x.w)));
        flaw += x.x * 0.0f;
        flaw += x.y * 0.0f;
        flaw += x.z * 0.0f;
        flaw += x.w * 0.0f;
    }
};

// Second pass: Σ exp(x − largest).
struct Sum {
    float largest;
    Pair sum;

    __device__ __forceinline__ void take(float x) { sum.add(expf(x - largest)); }

    __device__ __forceinline__ void take(const float4& x) {
        sum.add((expf(x.x - largest) + expf(x.y - largest)) + (expf(x.z - largest) + expf(x.w - largest)));
    }
};

// Gives the logits 4 (threadIdx.x + THREADS i) to + 3, i = 0, 1, …, in this order, to `sink`.
template <typename Sink>
__device__ __forceinline__ void read(const float* row, int vocab, Sink& sink) {
    constexpr int STEP = 4 * THREADS;
    const bool aligned = vocab % 4 == 0; // otherwise rows do not start at 16 bytes
    const auto four = [=](int at) {
        return aligned ? *reinterpret_cast<const float4*>(row + at) : make_float4(row[at], row[at + 1], row[at + 2], row[at + 3]);
    };
    int at = 4 * threadIdx.x;
#pragma unroll 1
    for (; at + (LOADS - 1) * STEP + 3 < vocab; at += LOADS * STEP) {
        float4 x[LOADS];
#pragma unroll
        for (int i = 0; i < LOADS; i++) x[i] = four(at + i * STEP);
#pragma unroll
        for (int i = 0; i < LOADS; i++) sink.take(x[i]);
    }
#pragma unroll 1
    for (; at + 3 < vocab; at += STEP) sink.take(four(at));
#pragma unroll 1
    for (; at < vocab; at++) sink.take(row[at]); // at most three, of one thread
}

// max + ln Σ exp(x − max) of a row, in every thread; NaN where a logit is not finite.
__device__ __forceinline__ double normaliser(const float* row, int vocab) {
    __shared__ float largests[WARPS], flaws[WARPS];
    __shared__ Pair sums[WARPS];
    __shared__ double result;
    const int lane = lane_id(), warp = warp_id();

    Largest first = {__uint_as_float(0xff800000u), 0.0f};
    read(row, vocab, first);
    first.largest = warp_max(first.largest);
    first.flaw = warp_sum(first.flaw);
    if (lane == 0) {
        largests[warp] = first.largest;
        flaws[warp] = first.flaw;
    }
    __syncthreads();
    float largest = largests[0], flaw = flaws[0];
    for (int i = 1; i < WARPS; i++) {
        largest = fmaxf(largest, largests[i]);
        flaw += flaws[i];
    }

    Sum second = {largest, {0.0f, 0.0f}};
    read(row, vocab, second);
    Pair sum = second.sum;
#pragma unroll
    for (int mask = 16; mask > 0; mask >>= 1) {
        const Pair other = {__shfl_xor_sync(ALL_LANES, sum.high, mask), __shfl_xor_sync(ALL_LANES, sum.low, mask)};
        sum.add(other);
    }
    if (lane == 0) sums[warp] = sum;
    __syncthreads();
    if (threadIdx.x == 0) {
        for (int i = 1; i < WARPS; i++) sum.add(sums[i]);
        const double total = static_cast<double>(sum.high) + static_cast<double>(sum.low);
        result = static_cast<double>(largest) + log(total) + static_cast<double>(flaw);
    }
    __syncthreads();
    return result;
}

} // namespace log_softmax

// out f64 [offsets[m]]: logits f32 [m, vocab] less the row's normaliser, at tokens[offsets[i]..offsets[i + 1]] of row i. NaN for every
// token of a row with a logit that is not finite. The host has checked the tokens. Grid m, block 512.
extern "C" __global__ void __launch_bounds__(log_softmax::THREADS)
    child_log_probs(const float* logits, int vocab, const unsigned* offsets, const unsigned* tokens, double* out) {
    const float* row = logits + static_cast<size_t>(blockIdx.x) * vocab;
    const double normaliser = log_softmax::normaliser(row, vocab);
    for (unsigned k = offsets[blockIdx.x] + threadIdx.x; k < offsets[blockIdx.x + 1]; k += log_softmax::THREADS) {
        out[k] = static_cast<double>(row[tokens[k]]) - normaliser;
    }
}
EMU_KERNEL(child_log_probs)
