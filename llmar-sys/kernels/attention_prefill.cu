// Attention of many rows on tensor cores: prompts of packed clips behind a shared prefix, and label nodes that see their ancestors.
//
// A block takes a tile of 64 consecutive rows of one query head, a warp sixteen of them. It walks the union of the slots that the tile's rows see,
// which the host has made: S = Q Kᵀ, softmax as it goes, O += P V, in blocks of 64 (head_dim 64) or 32 (128) slots that need not be neighbours. While
// one block of keys and values is worked on, the next comes into shared memory. What each row sees of a block is a word of bits, made from the row's
// own ranges; a warp whose rows see nothing of a block skips it.
//
// The query heads of a KV head are different blocks, neighbours in the grid, so all but the first find keys and values in the L2 cache. Q, K, V and P
// are halves, all sums f32. The order of the sum over slots is that of the union: a row's last bits can change with the other rows of its tile, no more.
//
// A weight of 0 times an infinite value is NaN, so on tensor cores a value that is not finite reaches the rows that do not see it, too. Nothing can
// turn such a sum finite again: rows with a result that is not finite are computed once more at the end, alone and without tensor cores. So an
// overflow in one clip stays in that clip, for one test of each result. Queries beyond the halves' range take the same way.
#include "common.cuh"

namespace attention_prefill {

// Rows of a tile; the host cuts a pass into such tiles (TILE_ROWS in src/device/cuda/rows.rs).
constexpr int TILE_ROWS = 64;
constexpr int WARPS = TILE_ROWS / 16;
constexpr int THREADS = 32 * WARPS;
// No slot: no range ends behind it.
constexpr unsigned NONE = 0xffffffffu;
// The maximum of no score at all. Finite, so that nothing here subtracts infinities: 2^(−∞ − LEAST) is 0 and so is 2^(LEAST − any score).
constexpr float LEAST = -3.402823466e38f;
__device__ __forceinline__ float minus_infinity() { return __uint_as_float(0xff800000u); }
constexpr float LOG2_E = 1.44269504f;

// What one layer's kernel reads; D is head_dim.
struct Layer {
    const float* qkv;  // [n, (heads + 2 kv_heads) · D]
    const f16* keys;   // [slots, kv_heads · D]
    const f16* values; // as keys
    const unsigned *row_first, *row_last, *ranges;
    int n, heads, kv_heads;
};

// 2^x within two units in the last place, 0 where that is below the normal range.
__device__ __forceinline__ float exp2_fast(float x) {
#ifdef LLMAR_EMULATED
    return exp2f(x);
#else
    float y;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
#endif
}

// The slots of sorted intervals, one after another, read with indices that never fall.
struct Slots {
    const unsigned* interval; // {start, end} of the one reached
    unsigned before;          // slots in front of it

    __device__ __forceinline__ unsigned at(unsigned index) {
        unsigned start = interval[0], length = interval[1] - start;
        while (index - before >= length) {
            before += length;
            interval += 2;
            start = interval[0];
            length = interval[1] - start;
        }
        return start + (index - before);
    }
};

__device__ __forceinline__ unsigned total_of_warp(unsigned v) {
#pragma unroll
    for (int mask = 16; mask > 0; mask >>= 1) v += __shfl_xor_sync(ALL_LANES, v, mask);
    return v;
}

// How many of the first `count` slots, which rise, are below `slot`.
__device__ __forceinline__ int below(const unsigned* slots, int count, unsigned slot) {
    int low = 0;
    while (low < count) {
        const int middle = (low + count) / 2;
        if (slots[middle] < slot) low = middle + 1;
        else count = middle;
    }
    return low;
}

// A word whose lowest bits are ones, `count` of them, clamped to 0..=32.
__device__ __forceinline__ unsigned ones(int count) { return count >= 32 ? ~0u : count <= 0 ? 0 : (1u << count) - 1; }

// Bit i: the ranges contain slot `skip` + i of the `count` slots of a block, which rise.
__device__ __forceinline__ unsigned visible(const unsigned* range, const unsigned* end, const unsigned* slots, int count, int skip) {
    const unsigned first = slots[0], last = slots[count - 1];
    const bool neighbours = last - first == static_cast<unsigned>(count) - 1;
    unsigned bits = 0;
    for (; range != end; range += 2) {
        const unsigned low = max(range[0], first), high = min(range[1], last + 1);
        if (low >= high) continue;
        const int from = neighbours ? low - first : below(slots, count, low);
        const int to = neighbours ? high - first : below(slots, count, high);
        bits |= ones(to - skip) & ~ones(from - skip);
    }
    return bits;
}

template <int D>
struct Tile {
    static constexpr int KEYS = 4096 / D; // slots of a block
    static constexpr int CHUNKS = D / 8;  // of 16 bytes
    static constexpr int WORDS = KEYS / 32;

    // A block of keys or values [KEYS, D]. The chunks of a row are permuted by its number, so that eight rows' chunks of the same columns, which
    // load_matrices reads at once, lie in different banks.
    struct Block {
        uint4 chunks[KEYS * CHUNKS];

        __device__ __forceinline__ uint4* at(int key, int chunk) { return chunks + key * CHUNKS + (chunk ^ (key & 7)); }
    };

    struct Shared {
        Block keys[2], values[2];
        unsigned slots[2][KEYS];
    };

    // Starts the copies of block `block` of `total` slots; what is missing in the last one becomes zeros.
    static __device__ __forceinline__ void fetch(const Layer& layer, Shared& shared, int block, unsigned total, Slots& slots, int kv_head) {
        constexpr int STEP = THREADS / CHUNKS;
        const int stage = block & 1, chunk = threadIdx.x % CHUNKS;
        const size_t width = static_cast<size_t>(layer.kv_heads) * D;
#pragma unroll
        for (int i = 0; i < KEYS / STEP; i++) {
            const int key = threadIdx.x / CHUNKS + i * STEP;
            const unsigned index = static_cast<unsigned>(block) * KEYS + key;
            const bool valid = index < total;
            const unsigned slot = valid ? slots.at(index) : NONE;
            const size_t at = valid ? slot * width + kv_head * D + chunk * 8 : 0;
            if (chunk == 0) shared.slots[stage][key] = slot;
            copy_async(shared.keys[stage].at(key, chunk), layer.keys + at, valid);
            copy_async(shared.values[stage].at(key, chunk), layer.values + at, valid);
        }
    }

    // Sixteen rows of a warp. Lane (g, t) = (lane / 4, lane % 4) has rows g and g + 8, [0] and [1] of the arrays of two; of every eight features
    // columns 2t and 2t + 1. Scores are in units of log 2.
    unsigned q[D / 16][4];
    float o[D / 8][4];
    float largest[2], total[2]; // the total is this lane's columns' alone

    __device__ __forceinline__ void load_queries(const Layer& layer, int head, int first_row) {
        const size_t width = static_cast<size_t>(layer.heads + 2 * layer.kv_heads) * D;
#pragma unroll
        for (int i = 0; i < 2; i++) {
            const int row = first_row + lane_id() / 4 + 8 * i;
            const float* from = layer.qkv + row * width + head * D + lane_id() % 4 * 2;
#pragma unroll
            for (int k = 0; k < D / 8; k++) {
                const float2 pair = row < layer.n ? *reinterpret_cast<const float2*>(from + 8 * k) : make_float2(0.0f, 0.0f);
                q[k / 2][k % 2 * 2 + i] = pack_halves(pair.x, pair.y);
            }
            largest[i] = LEAST;
            total[i] = 0.0f;
        }
#pragma unroll
        for (int f = 0; f < D / 8; f++) {
#pragma unroll
            for (int i = 0; i < 4; i++) o[f][i] = 0.0f;
        }
    }

    // Takes a block. `bits` of lane r and of lane 16 + r say what row r sees of its first and of its last 32 slots.
    __device__ __forceinline__ void take(Block& keys, Block& values, unsigned bits, float scale) {
        const int lane = lane_id(), g = lane / 4, t = lane % 4;
        // Of four matrices that a load brings, this lane gives the address of a row of matrix `part`.
        const int part = lane / 8, line = lane % 8;

        float s[KEYS / 8][4];
#pragma unroll
        for (int j = 0; j < KEYS / 8; j++) s[j][0] = s[j][1] = s[j][2] = s[j][3] = 0.0f;
#pragma unroll
        for (int k = 0; k < D / 16; k++) {
#pragma unroll
            for (int j = 0; j < KEYS / 8; j += 2) { // keys 8j..8j + 16, features 16k..16k + 16
                unsigned b[4];
                load_matrices(b, keys.at((j + part / 2) * 8 + line, 2 * k + part % 2));
                mma_16x8x16(s[j], q[k], {b[0], b[1]});
                mma_16x8x16(s[j + 1], q[k], {b[2], b[3]});
            }
        }

#pragma unroll
        for (int i = 0; i < 2; i++) {
            unsigned seen[WORDS];
#pragma unroll
            for (int w = 0; w < WORDS; w++) seen[w] = __shfl_sync(ALL_LANES, bits, g + 8 * i + 16 * w) >> 2 * t;
            float most = minus_infinity();
#pragma unroll
            for (int j = 0; j < KEYS / 8; j++) {
#pragma unroll
                for (int c = 0; c < 2; c++) {
                    float& score = s[j][2 * i + c];
                    score = seen[j / 4] >> (j % 4 * 8 + c) & 1 ? score : minus_infinity();
                    most = fmaxf(most, score);
                }
            }
            most = fmaxf(most, __shfl_xor_sync(ALL_LANES, most, 1));
            most = fmaxf(most, __shfl_xor_sync(ALL_LANES, most, 2));
            most = fmaxf(largest[i], most * scale);
            const float factor = exp2_fast(largest[i] - most);
            largest[i] = most;
            total[i] *= factor;
#pragma unroll
            for (int f = 0; f < D / 8; f++) {
                o[f][2 * i] *= factor;
                o[f][2 * i + 1] *= factor;
            }
#pragma unroll
            for (int j = 0; j < KEYS / 8; j++) {
#pragma unroll
                for (int c = 0; c < 2; c++) {
                    float& score = s[j][2 * i + c];
                    score = exp2_fast(fmaf(score, scale, -most));
                    total[i] += score;
                }
            }
        }

#pragma unroll
        for (int k = 0; k < KEYS / 16; k++) {
            // Where scores lie as results, weights lie as the left factor.
            const unsigned p[4] = {pack_halves(s[2 * k][0], s[2 * k][1]), pack_halves(s[2 * k][2], s[2 * k][3]),
                                   pack_halves(s[2 * k + 1][0], s[2 * k + 1][1]), pack_halves(s[2 * k + 1][2], s[2 * k + 1][3])};
#pragma unroll
            for (int f = 0; f < D / 8; f += 2) { // slots 16k..16k + 16, features 8f..8f + 16
                unsigned b[4];
                load_matrices_transposed(b, values.at(16 * k + part % 2 * 8 + line, f + part / 2));
                mma_16x8x16(o[f], p, {b[0], b[1]});
                mma_16x8x16(o[f + 1], p, {b[2], b[3]});
            }
        }
    }

    // Writes finite results; returns, in every lane, a bit for each of the sixteen rows that has another one, or no total.
    __device__ __forceinline__ unsigned store(f16* out, size_t ld, int first_row, int n) {
        const int lane = lane_id();
        unsigned bad = 0;
#pragma unroll
        for (int i = 0; i < 2; i++) {
            float sum = total[i];
            sum += __shfl_xor_sync(ALL_LANES, sum, 1);
            sum += __shfl_xor_sync(ALL_LANES, sum, 2);
            float flaw = 0.0f;
#pragma unroll
            for (int f = 0; f < D / 8; f++) {
                flaw += o[f][2 * i] * 0.0f;
                flaw += o[f][2 * i + 1] * 0.0f;
            }
            const int row = first_row + lane / 4 + 8 * i;
            const bool good = sum > 0.0f && flaw == 0.0f;
            const unsigned votes = __ballot_sync(ALL_LANES, row < n && !good);
            for (int g = 0; g < 8; g++) bad |= (votes >> 4 * g & 15u ? 1u : 0u) << (g + 8 * i);
            if (row < n && !(bad >> (lane / 4 + 8 * i) & 1)) {
                const float inverse = 1.0f / sum;
                unsigned* to = reinterpret_cast<unsigned*>(out + row * ld) + lane % 4;
#pragma unroll
                for (int f = 0; f < D / 8; f++) to[4 * f] = pack_halves(o[f][2 * i] * inverse, o[f][2 * i + 1] * inverse);
            }
        }
        return bad;
    }
};

// One row by a warp that reads only what the row sees, in f32; zeros where that is nothing. Lane l has features l, l + 32, …
template <int D>
__device__ __forceinline__ void attend_alone(const Layer& layer, int row, int head, float scale, f16* out) {
    const size_t width = static_cast<size_t>(layer.kv_heads) * D;
    const int kv_head = head / (layer.heads / layer.kv_heads);
    const float* query = layer.qkv + (static_cast<size_t>(row) * (layer.heads + 2 * layer.kv_heads) + head) * D + lane_id();
    float q[D / 32], o[D / 32], largest = LEAST, total = 0.0f;
#pragma unroll
    for (int i = 0; i < D / 32; i++) {
        q[i] = query[32 * i] * scale;
        o[i] = 0.0f;
    }
    for (unsigned r = layer.row_first[row]; r < layer.row_last[row]; r++) {
        const unsigned end = layer.ranges[2 * static_cast<size_t>(r) + 1];
#pragma unroll 1
        for (unsigned slot = layer.ranges[2 * static_cast<size_t>(r)]; slot < end; slot++) {
            const size_t at = slot * width + kv_head * D + lane_id();
            float score = 0.0f;
#pragma unroll
            for (int i = 0; i < D / 32; i++) score = fmaf(q[i], to_float(layer.keys[at + 32 * i]), score);
            score = warp_sum(score);
            const float most = fmaxf(largest, score);
            const float factor = exp2f(largest - most), weight = exp2f(score - most);
            largest = most;
            total = fmaf(total, factor, weight);
#pragma unroll
            for (int i = 0; i < D / 32; i++) o[i] = fmaf(weight, to_float(layer.values[at + 32 * i]), o[i] * factor);
        }
    }
#pragma unroll
    for (int i = 0; i < D / 32; i++) out[lane_id() + 32 * i] = to_half(total == 0.0f ? 0.0f : o[i] / total);
}

template <int D>
__device__ __forceinline__ void attend(const Layer& layer, const unsigned* tile_first, const unsigned* tile_ranges, f16* out) {
    using Warp = Tile<D>;
    __shared__ typename Warp::Shared shared;
    const int head = blockIdx.x, kv_head = head / (layer.heads / layer.kv_heads), lane = lane_id();
    const int first_row = blockIdx.y * TILE_ROWS + warp_id() * 16;
    const float scale = LOG2_E / sqrtf(static_cast<float>(D));

    const unsigned first = tile_first[blockIdx.y], intervals = tile_first[blockIdx.y + 1] - first;
    Slots slots = {tile_ranges + 2 * static_cast<size_t>(first), 0};
    unsigned total = 0;
    for (unsigned i = lane; i < intervals; i += 32) total += slots.interval[2 * i + 1] - slots.interval[2 * i];
    total = total_of_warp(total);
    const int blocks = (total + Warp::KEYS - 1) / Warp::KEYS;

    // The ranges of row lane % 16.
    const int row = first_row + lane % 16;
    const unsigned* ranges = layer.ranges;
    const unsigned* ranges_end = layer.ranges;
    if (row < layer.n) {
        ranges += 2 * static_cast<size_t>(layer.row_first[row]);
        ranges_end += 2 * static_cast<size_t>(layer.row_last[row]);
    }

    if (blocks > 0) Warp::fetch(layer, shared, 0, total, slots, kv_head);
    copy_commit();
    Warp warp;
    warp.load_queries(layer, head, first_row);
#pragma unroll 1
    for (int block = 0; block < blocks; block++) {
        if (block + 1 < blocks) Warp::fetch(layer, shared, block + 1, total, slots, kv_head);
        copy_commit();
        copy_wait<1>();
        __syncthreads();
        const int stage = block & 1;
        const int count = min(total - static_cast<unsigned>(block) * Warp::KEYS, static_cast<unsigned>(Warp::KEYS));
        const int skip = Warp::WORDS == 1 ? 0 : lane / 16 * 32;
        const unsigned bits = visible(ranges, ranges_end, shared.slots[stage], count, skip);
        if (__any_sync(ALL_LANES, bits != 0)) warp.take(shared.keys[stage], shared.values[stage], bits, scale);
        __syncthreads(); // before this stage is filled again
    }

    const size_t ld = static_cast<size_t>(layer.heads) * D;
    unsigned bad = warp.store(out + head * D, ld, first_row, layer.n);
#pragma unroll 1
    for (int i = 0; i < 16; i++) {
        if (bad >> i & 1) attend_alone<D>(layer, first_row + i, head, scale, out + (first_row + i) * ld + head * D);
    }
}

} // namespace attention_prefill

// out f16 [n, heads · D], D = 64 or 128 in the kernel's name: softmax(q·k/√D) v over the slots ranges[row_first[row]..row_last[row]] of each row, with
// pairs {start, end}; zeros for rows that see nothing. Tile i, rows 64 i to 64 i + 63, reads the slots tile_ranges[tile_first[i]..tile_first[i + 1]]:
// intervals {start, end} that rise, do not overlap and cover what the tile's rows see. Grid (heads, ⌈n / 64⌉), block 128, static shared memory.
extern "C" __global__ void __launch_bounds__(attention_prefill::THREADS)
    attention_prefill_64(const float* __restrict__ qkv, const f16* __restrict__ keys, const f16* __restrict__ values,
                         const unsigned* __restrict__ row_first, const unsigned* __restrict__ row_last, const unsigned* __restrict__ ranges,
                         const unsigned* __restrict__ tile_first, const unsigned* __restrict__ tile_ranges, f16* __restrict__ out, int n, int heads,
                         int kv_heads) {
    attention_prefill::attend<64>({qkv, keys, values, row_first, row_last, ranges, n, heads, kv_heads}, tile_first, tile_ranges, out);
}
EMU_KERNEL(attention_prefill_64)

extern "C" __global__ void __launch_bounds__(attention_prefill::THREADS)
    attention_prefill_128(const float* __restrict__ qkv, const f16* __restrict__ keys, const f16* __restrict__ values,
                          const unsigned* __restrict__ row_first, const unsigned* __restrict__ row_last, const unsigned* __restrict__ ranges,
                          const unsigned* __restrict__ tile_first, const unsigned* __restrict__ tile_ranges, f16* __restrict__ out, int n, int heads,
                          int kv_heads) {
    attention_prefill::attend<128>({qkv, keys, values, row_first, row_last, ranges, n, heads, kv_heads}, tile_first, tile_ranges, out);
}
EMU_KERNEL(attention_prefill_128)
