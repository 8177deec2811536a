// Attention of few rows, such as one token of each search: the keys of a row are split over blocks, sums and softmax are f32. For any even head_dim
// up to 256 and any number of query heads a KV head. Also for any number of rows where attention_prefill.cu does not take the head_dim; then with
// one split.
//
// A row sees the slots ranges[row_first[row]..row_last[row]], {start, end} pairs, one after another: L slots, of which each of splits · WARPS warps
// takes a nearly equal run. A warp keeps a maximum, a total and a sum of values; those of a block meet in shared memory, those of the splits in
// attention_combine, always in the same order. Launch shapes depend on the number of rows and splits alone, never on what the rows see, so that a
// recorded pass can be run again. A row's results do not depend on the other rows.
#include "common.cuh"

namespace attention_decode {

constexpr int WARPS = 4;
constexpr int THREADS = 32 * WARPS;
// Keys, and as many values, that a lane has under way at once.
constexpr int KEYS = 4;
// The maximum of no score at all. Finite, so that nothing here subtracts infinities: 2^(−∞ − LEAST) is 0 and so is 2^(LEAST − any score).
constexpr float LEAST = -3.402823466e38f;
constexpr float LOG2_E = 1.44269504f;

// What one layer's kernel reads.
struct Layer {
    const float* qkv;  // [n, (heads + 2 kv_heads) · head_dim]
    const f16* keys;   // [slots, kv_heads · head_dim]
    const f16* values; // as keys
    const unsigned *row_first, *row_last, *ranges;
    int heads, kv_heads, head_dim;
};

// Maximum and total of each (row, head, split), float2 [n, heads, splits], and behind them the sums of values, f32 [n, heads, splits, head_dim].
struct Partials {
    float2* softmax;
    float* sums;

    __device__ __forceinline__ Partials(float* memory, size_t parts)
        : softmax(reinterpret_cast<float2*>(memory)), sums(memory + 2 * parts) {}
};

__device__ __forceinline__ unsigned total_of_warp(unsigned v) {
#pragma unroll
    for (int mask = 16; mask > 0; mask >>= 1) v += __shfl_xor_sync(ALL_LANES, v, mask);
    return v;
}

// The slots of a list of ranges, one after another, read with indices that never fall.
struct Slots {
    const unsigned* range; // the one reached
    unsigned before;       // slots in front of it

    __device__ __forceinline__ unsigned at(unsigned index) {
        unsigned start = range[0], length = range[1] - start;
        while (index - before >= length) {
            before += length;
            range += 2;
            start = range[0];
            length = range[1] - start;
        }
        return start + (index - before);
    }
};

// Start of run `i` of `count` nearly equal runs of `length`.
__device__ __forceinline__ unsigned cut(unsigned length, unsigned count, unsigned i) {
    return i * (length / count) + min(i, length % count);
}

__device__ __forceinline__ void unpack(const uint4& v, float (&f)[8]) {
    const unsigned pairs[4] = {v.x, v.y, v.z, v.w};
#pragma unroll
    for (int i = 0; i < 4; i++) {
        const float2 pair = unpack_halves(pairs[i]);
        f[2 * i] = pair.x;
        f[2 * i + 1] = pair.y;
    }
}

// Up to eight halves, `left` of them a head's own, zeros for the others; 4-byte aligned.
__device__ __forceinline__ uint4 load_words(const f16* from, int left) {
    const unsigned* words = reinterpret_cast<const unsigned*>(from);
    uint4 v = make_uint4(0, 0, 0, 0);
    if (left > 0) v.x = words[0];
    if (left > 2) v.y = words[1];
    if (left > 4) v.z = words[2];
    if (left > 6) v.w = words[3];
    return v;
}

// Softmax state of HEADS query heads over some keys, and eight features of their sums of values. Scores are in units of log 2.
template <int HEADS>
struct State {
    float largest[HEADS], total[HEADS], sum[HEADS][8];

    __device__ __forceinline__ State() {
#pragma unroll
        for (int h = 0; h < HEADS; h++) {
            largest[h] = LEAST;
            total[h] = 0.0f;
#pragma unroll
            for (int e = 0; e < 8; e++) sum[h][e] = 0.0f;
        }
    }

    // Multiplies what head h has by 2^(old maximum − new maximum).
    __device__ __forceinline__ void raise(int h, float new_largest) {
        const float factor = exp2f(largest[h] - new_largest);
        largest[h] = new_largest;
        total[h] *= factor;
#pragma unroll
        for (int e = 0; e < 8; e++) sum[h][e] *= factor;
    }

    // Takes scores, which become weights, with their values.
    __device__ __forceinline__ void take(float (&score)[HEADS][KEYS], const uint4 (&value)[KEYS]) {
#pragma unroll
        for (int h = 0; h < HEADS; h++) {
            float most = largest[h];
#pragma unroll
            for (int i = 0; i < KEYS; i++) most = fmaxf(most, score[h][i]);
            raise(h, most);
#pragma unroll
            for (int i = 0; i < KEYS; i++) {
                score[h][i] = exp2f(score[h][i] - most);
                total[h] += score[h][i];
            }
        }
#pragma unroll
        for (int i = 0; i < KEYS; i++) {
            float v[8];
            unpack(value[i], v);
#pragma unroll
            for (int h = 0; h < HEADS; h++) {
#pragma unroll
                for (int e = 0; e < 8; e++) sum[h][e] = fmaf(score[h][i], v[e], sum[h][e]);
            }
        }
    }

    // Adds the states of the lanes whose numbers differ in bits from `low` up.
    __device__ __forceinline__ void merge(int low) {
        for (int mask = low; mask < 32; mask <<= 1) {
#pragma unroll
            for (int h = 0; h < HEADS; h++) {
                raise(h, fmaxf(largest[h], __shfl_xor_sync(ALL_LANES, largest[h], mask)));
                total[h] += __shfl_xor_sync(ALL_LANES, total[h], mask);
#pragma unroll
                for (int e = 0; e < 8; e++) sum[h][e] += __shfl_xor_sync(ALL_LANES, sum[h][e], mask);
            }
        }
    }
};

// Scores and weighs the keys `from`..`to` of a row's list for the query heads in q [HEADS, 8 lanes], which are scaled already. `lanes` neighbouring
// lanes share a key, eight features each, so 16 bytes a lane make whole heads; a warp has 32 / lanes keys at a time, KEYS times.
template <int HEADS>
__device__ __forceinline__ void scan(const Layer& layer, Slots slots, unsigned from, unsigned to, int lanes, const float* q,
                                     State<HEADS>& state) {
    const int feature = lane_id() % lanes * 8, left = layer.head_dim - feature;
    const unsigned together = 32 / lanes, mine = lane_id() / lanes;
    const size_t width = static_cast<size_t>(layer.kv_heads) * layer.head_dim;
    const size_t column = static_cast<size_t>(blockIdx.y) * layer.head_dim + feature;
    const bool aligned = layer.head_dim % 8 == 0; // and so is the width

#pragma unroll 1
    for (unsigned index = from; index < to; index += KEYS * together) {
        uint4 key[KEYS], value[KEYS];
        bool seen[KEYS];
        size_t at[KEYS];
#pragma unroll
        for (int i = 0; i < KEYS; i++) {
            const unsigned k = index + i * together + mine;
            seen[i] = k < to;
            at[i] = seen[i] ? slots.at(k) * width + column : 0;
            key[i] = value[i] = make_uint4(0, 0, 0, 0);
        }
        if (aligned) {
#pragma unroll
            for (int i = 0; i < KEYS; i++) {
                if (!seen[i] || left <= 0) continue;
                key[i] = *reinterpret_cast<const uint4*>(layer.keys + at[i]);
                value[i] = *reinterpret_cast<const uint4*>(layer.values + at[i]);
            }
        } else {
#pragma unroll
            for (int i = 0; i < KEYS; i++) {
                if (!seen[i]) continue;
                key[i] = load_words(layer.keys + at[i], left);
                value[i] = load_words(layer.values + at[i], left);
            }
        }

        float score[HEADS][KEYS];
        float k[KEYS][8];
#pragma unroll
        for (int i = 0; i < KEYS; i++) unpack(key[i], k[i]);
#pragma unroll
        for (int h = 0; h < HEADS; h++) {
            const float4* query = reinterpret_cast<const float4*>(q + h * 8 * lanes + feature);
            const float4 low = query[0], high = query[1];
#pragma unroll
            for (int i = 0; i < KEYS; i++) {
                float s = low.x * k[i][0];
                s = fmaf(low.y, k[i][1], s);
                s = fmaf(low.z, k[i][2], s);
                s = fmaf(low.w, k[i][3], s);
                s = fmaf(high.x, k[i][4], s);
                s = fmaf(high.y, k[i][5], s);
                s = fmaf(high.z, k[i][6], s);
                score[h][i] = fmaf(high.w, k[i][7], s);
            }
        }
#pragma unroll 1
        for (int mask = lanes / 2; mask > 0; mask >>= 1) {
#pragma unroll
            for (int h = 0; h < HEADS; h++) {
#pragma unroll
                for (int i = 0; i < KEYS; i++) score[h][i] += __shfl_xor_sync(ALL_LANES, score[h][i], mask);
            }
        }
#pragma unroll
        for (int h = 0; h < HEADS; h++) {
#pragma unroll
            for (int i = 0; i < KEYS; i++) score[h][i] = seen[i] ? score[h][i] : __uint_as_float(0xff800000u); // −∞
        }
        state.take(score, value);
    }
}

// o / l; zero for a row that has seen nothing.
__device__ __forceinline__ float weighted(float sum, float total) { return total == 0.0f ? 0.0f : sum / total; }

template <int HEADS>
__device__ __forceinline__ void attend(const Layer& layer, float* partials, const Operand& out) {
    const int heads = layer.heads, head_dim = layer.head_dim, group = heads / layer.kv_heads;
    const size_t row = blockIdx.x, splits = gridDim.z;
    int lanes = 1;
    while (8 * lanes < head_dim) lanes *= 2;
    const int width = 8 * lanes;
    // q [HEADS, width], sums [WARPS, HEADS, width], softmax [WARPS, HEADS]
    DYN_SHARED(float, q);
    float* const sums = q + HEADS * width;
    float2* const softmax = reinterpret_cast<float2*>(sums + WARPS * HEADS * width);

    const unsigned first = layer.row_first[row], last = layer.row_last[row];
    const unsigned* const ranges = layer.ranges + 2 * static_cast<size_t>(first);
    unsigned length = 0;
    for (unsigned i = lane_id(); i < last - first; i += 32) length += ranges[2 * i + 1] - ranges[2 * i];
    length = total_of_warp(length);
    const unsigned part = blockIdx.z * WARPS + warp_id();
    const unsigned from = cut(length, gridDim.z * WARPS, part), to = cut(length, gridDim.z * WARPS, part + 1);
    const Slots slots = {ranges, 0};

    const float scale = LOG2_E / sqrtf(static_cast<float>(head_dim));
    const int row_width = (heads + 2 * layer.kv_heads) * head_dim;
    // More heads than HEADS read keys and values again, which a cache still has.
#pragma unroll 1
    for (int base = 0; base < group; base += HEADS) {
        const int head = blockIdx.y * group + base, count = min(HEADS, group - base);
        for (int i = threadIdx.x; i < HEADS * width; i += THREADS) {
            const int h = i / width, feature = i % width;
            const bool exists = h < count && feature < head_dim;
            q[i] = exists ? layer.qkv[row * row_width + (head + h) * head_dim + feature] * scale : 0.0f;
        }
        __syncthreads();

        State<HEADS> state;
        scan(layer, slots, from, to, lanes, q, state);
        state.merge(lanes);
        if (lane_id() < lanes) {
#pragma unroll
            for (int h = 0; h < HEADS; h++) {
                float4* const sum = reinterpret_cast<float4*>(sums + (warp_id() * HEADS + h) * width + lane_id() * 8);
                sum[0] = make_float4(state.sum[h][0], state.sum[h][1], state.sum[h][2], state.sum[h][3]);
                sum[1] = make_float4(state.sum[h][4], state.sum[h][5], state.sum[h][6], state.sum[h][7]);
                if (lane_id() == 0) softmax[warp_id() * HEADS + h] = make_float2(state.largest[h], state.total[h]);
            }
        }
        __syncthreads();

        for (int i = threadIdx.x; i < count * head_dim; i += THREADS) {
            const int h = i / head_dim, feature = i % head_dim;
            float largest = LEAST, total = 0.0f, sum = 0.0f;
#pragma unroll
            for (int w = 0; w < WARPS; w++) largest = fmaxf(largest, softmax[w * HEADS + h].x);
#pragma unroll
            for (int w = 0; w < WARPS; w++) {
                const float2 other = softmax[w * HEADS + h];
                const float factor = exp2f(other.x - largest);
                total = fmaf(other.y, factor, total);
                sum = fmaf(sums[(w * HEADS + h) * width + feature], factor, sum);
            }
            if (!partials) { // 32 neighbouring features a warp: head_dim is a multiple of 32
                store_group(out, row, (head * head_dim + i) / GROUP, heads * head_dim / GROUP, weighted(sum, total));
                continue;
            }
            const Partials to_combine(partials, gridDim.x * heads * splits);
            const size_t at = (row * heads + head + h) * splits + blockIdx.z;
            to_combine.sums[at * head_dim + feature] = sum;
            if (feature == 0) to_combine.softmax[at] = make_float2(largest, total);
        }
        __syncthreads(); // before q and sums are written again
    }
}

} // namespace attention_decode

// Partial results of every (row, head, split), or with `partials` null, a single split and head_dim a multiple of 32, the result itself. The row's
// part of keys and values is read once for HEADS query heads.
//
// Grid (n, kv_heads, splits), block 128; dynamic shared memory for D = 8 · 2^⌈log2 ⌈head_dim / 8⌉⌉: 4 · HEADS · (5 D + 8) bytes. HEADS is the kernel's
// number: the least that is not below heads / kv_heads, or 8. `partials` has room for n · heads · splits · (head_dim + 2) floats. Keys and values are
// 16-byte aligned.
#define ATTENTION_DECODE(HEADS)                                                                                                              \
    extern "C" __global__ void __launch_bounds__(attention_decode::THREADS)                                                                  \
        attention_decode_##HEADS(const float* __restrict__ qkv, const f16* __restrict__ keys, const f16* __restrict__ values,                \
                                 const unsigned* __restrict__ row_first, const unsigned* __restrict__ row_last,                              \
                                 const unsigned* __restrict__ ranges, float* __restrict__ partials, Operand out, int heads, int kv_heads,    \
                                 int head_dim) {                                                                                             \
        const attention_decode::Layer layer = {qkv, keys, values, row_first, row_last, ranges, heads, kv_heads, head_dim};                   \
        attention_decode::attend<HEADS>(layer, partials, out);                                                                               \
    }                                                                                                                                        \
    EMU_KERNEL(attention_decode_##HEADS)

ATTENTION_DECODE(1)
ATTENTION_DECODE(2)
ATTENTION_DECODE(3)
ATTENTION_DECODE(4)
ATTENTION_DECODE(8)
#undef ATTENTION_DECODE

// out [n, heads · head_dim] of the partial results; zeros for rows that see nothing. Grid (⌈heads · head_dim / 128⌉, n), block 128: a warp a group
// of 32 columns.
extern "C" __global__ void __launch_bounds__(128) attention_combine(float* __restrict__ partials, Operand out, int splits, int heads, int head_dim) {
    const int columns = heads * head_dim, groups = (columns + GROUP - 1) / GROUP;
    const int group = blockIdx.x * 4 + warp_id();
    if (group >= groups) return;
    const size_t row = blockIdx.y;
    const int column = group * GROUP + lane_id();
    const attention_decode::Partials parts(partials, static_cast<size_t>(gridDim.y) * heads * splits);
    float total = 0.0f, sum = 0.0f;
    if (column < columns) {
        const size_t first = (row * heads + column / head_dim) * splits;
        const float2* const softmax = parts.softmax + first;
        const float* const sums = parts.sums + first * head_dim + column % head_dim;
        float largest = attention_decode::LEAST;
#pragma unroll 4
        for (int s = 0; s < splits; s++) largest = fmaxf(largest, softmax[s].x);
#pragma unroll 4
        for (int s = 0; s < splits; s++) {
            const float factor = exp2f(softmax[s].x - largest);
            total = fmaf(softmax[s].y, factor, total);
            sum = fmaf(sums[static_cast<size_t>(s) * head_dim], factor, sum);
        }
    }
    store_group(out, row, group, groups, attention_decode::weighted(sum, total));
}
EMU_KERNEL(attention_combine)
