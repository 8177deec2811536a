// What the products of gemm.cu are made of: weights as halves, results, tiles in shared memory and products of tiles.
#pragma once
#include "common.cuh"

namespace gemm {

enum Result { STORE, ADD, SWIGLU };

// --- weights as halves -------------------------------------------------------------------------------------------------------------------

// Halves of two quants: quants i and i + 1 of the four bytes in `word`, i = 0 or 2. The bytes are put under the exponent of 1024, where a step of
// the last bit is 1; what follows is exact but for the last rounding, so the result is that of f32 arithmetic rounded once.
struct Q8Scale {
    unsigned scale; // twice, in both halves

    __device__ __forceinline__ unsigned pair(unsigned word, int i) const {
#ifdef LLMAR_EMULATED
        const float s = to_float(static_cast<f16>(scale)), low = static_cast<float>(word >> 8 * i & 0xff), high = static_cast<float>(word >> 8 * i + 8 & 0xff);
        return pack_halves((low - 128.0f) * s, (high - 128.0f) * s);
#else
        unsigned h;
        asm("{\n\t"
            ".reg .b32 q;\n\t"
            "sub.f16x2 q, %1, %2;\n\t"
            "mul.f16x2 %0, q, %3;\n\t"
            "}"
            : "=r"(h)
            : "r"(__byte_perm(word, 0x64646464u, i ? 0x4342 : 0x4140)), "r"(0x64806480u), "r"(scale));
        return h;
#endif
    }
};

// The same for bytes in 0..16 and a minimum.
struct Q4Scale {
    unsigned scale, min;

    __device__ __forceinline__ unsigned pair(unsigned word, int i) const {
#ifdef LLMAR_EMULATED
        const float s = to_float(static_cast<f16>(scale)), m = to_float(static_cast<f16>(min));
        return pack_halves(fmaf(static_cast<float>(word >> 8 * i & 0xff), s, m), fmaf(static_cast<float>(word >> 8 * i + 8 & 0xff), s, m));
#else
        unsigned h;
        asm("{\n\t"
            ".reg .b32 q;\n\t"
            "sub.f16x2 q, %1, %2;\n\t"
            "fma.rn.f16x2 %0, q, %3, %4;\n\t"
            "}"
            : "=r"(h)
            : "r"(__byte_perm(word, 0x64646464u, i ? 0x4342 : 0x4140)), "r"(0x64006400u), "r"(scale), "r"(min));
        return h;
#endif
    }
};

// Half i of four, in both halves of a word.
__device__ __forceinline__ unsigned twice(uint2 halves, int i) {
    return __byte_perm(i < 2 ? halves.x : halves.y, 0, i % 2 ? 0x3232 : 0x1010);
}

__device__ __forceinline__ unsigned word_of(const uint4& v, int i) { return i == 0 ? v.x : i == 1 ? v.y : i == 2 ? v.z : v.w; }
__device__ __forceinline__ unsigned low_nibbles(unsigned word) { return word & 0x0f0f0f0fu; }
__device__ __forceinline__ unsigned high_nibbles(unsigned word) { return word >> 4 & 0x0f0f0f0fu; }

// W as the kernels get it; G groups of columns.
struct F16 {
    const f16* w;
    int groups;
};
struct Q8 {
    const unsigned char* q;
    const f16* scale;
    int groups;
};
struct Q4 {
    const unsigned char* q;
    const f16* scale;
    const f16* min;
    int groups;
};

// The matrix's row that is feature `local` of tile `tile` of COLUMNS features; below zero where there is none. `width` is rows, or f for swiglu: there
// each SPAN features, those of one warp, are the gate's rows of SPAN / 2 outputs and then the rows of `up` for the same outputs.
template <Result RESULT, int COLUMNS, int SPAN>
__device__ __forceinline__ int row_of(int tile, int local, int width) {
    if (RESULT != SWIGLU) {
        const int row = tile * COLUMNS + local;
        return row < width ? row : -1;
    }
    constexpr int HALF = SPAN / 2;
    const int output = tile * (COLUMNS / 2) + local / SPAN * HALF + local % HALF;
    return output < width ? local % SPAN / HALF * width + output : -1;
}

// --- results -----------------------------------------------------------------------------------------------------------------------------

// Writes, or adds, four neighbouring features of one row; those beyond the last are dropped.
template <Result RESULT>
__device__ __forceinline__ void put(float* y, int rows, size_t row, int feature, float4 sum) {
    float* at = y + row * rows + feature;
    if (rows % 4 == 0) {
        if (feature >= rows) return;
        if (RESULT == ADD) {
            const float4 old = *reinterpret_cast<const float4*>(at);
            sum = make_float4(old.x + sum.x, old.y + sum.y, old.z + sum.z, old.w + sum.w);
        }
        *reinterpret_cast<float4*>(at) = sum;
        return;
    }
    const float sums[4] = {sum.x, sum.y, sum.z, sum.w};
#pragma unroll
    for (int i = 0; i < 4; i++) {
        if (feature + i < rows) at[i] = RESULT == ADD ? at[i] + sums[i] : sums[i];
    }
}

__device__ __forceinline__ float silu(float x) { return __fdividef(x, 1.0f + __expf(-x)); }

// Writes silu(gate) · up of four neighbouring outputs of one row.
__device__ __forceinline__ void put_activated(f16* out, int f, size_t row, int feature, float4 gate, float4 up) {
    if (feature >= f) return;
    const uint2 halves = make_uint2(pack_halves(silu(gate.x) * up.x, silu(gate.y) * up.y), pack_halves(silu(gate.z) * up.z, silu(gate.w) * up.w));
    *reinterpret_cast<uint2*>(out + row * f + feature) = halves;
}

// --- tiles in shared memory --------------------------------------------------------------------------------------------------------------

// A tile holds, of each of its rows, one group: 32 halves, four pieces of 16 bytes. Byte where piece c of row r begins: two rows that differ in bit 2
// share 128 bytes, and c is XORed with bits 3 and 0. So no two of these meet in a bank: the eight rows of one 8 × 8 matrix (they agree in bit 1, see
// matrix_row), all pieces of rows r and r + 4 (what eight lanes write), pieces 0 and 1 or 2 and 3 of rows r, r + 4, r + 8, r + 12.
constexpr int BLOCK_BYTES = ROW_BLOCK * GROUP * 2;
__device__ __forceinline__ int place(int r, int c) {
    const int line = (r >> 3 & 1) << 2 | (r & 3);
    return (r / ROW_BLOCK) * BLOCK_BYTES + line * 128 + (r >> 2 & 1) * 64 + (c ^ (r >> 2 & 2) ^ (r & 1)) * 16;
}

// Row of a block of 16 that is row i of 8 × 8 matrix m: matrix 0 has the rows whose bit 1 is clear, matrix 1 the others. A thread that holds columns
// 2t and 2t + 1 of the products of both matrices then has features 4t to 4t + 3.
__device__ __forceinline__ int matrix_row(int m, int i) { return (i >> 1) * 4 + m * 2 + (i & 1); }

// Rows of halves on their way to shared memory: each thread copies its piece of every THREADS / 4-th row.
template <int ROWS, int THREADS>
struct Copies {
    static constexpr int STEP = THREADS / 4, COUNT = ROWS / STEP;
    static_assert(STEP % ROW_BLOCK == 0 && ROWS % STEP == 0, "whole blocks");
    const f16* source[COUNT];
    bool valid[COUNT];
    int target;

    // `row` gives the source's row that is row `local` of the tile, below zero for one of zeros.
    template <class Row>
    __device__ __forceinline__ Copies(const f16* base, int ld, Row row) {
        // Neighbouring quads of lanes take rows r and r + 4: see place().
        const int quad = threadIdx.x / 4, piece = threadIdx.x % 4;
        const int first = (quad & ~5) | (quad & 1) << 2 | (quad >> 2 & 1);
        target = place(first, piece);
#pragma unroll
        for (int i = 0; i < COUNT; i++) {
            const int from = row(first + i * STEP);
            valid[i] = from >= 0;
            source[i] = base + static_cast<size_t>(valid[i] ? from : 0) * ld + piece * 8;
        }
    }

    __device__ __forceinline__ void start(unsigned char* tile, int group) const {
#pragma unroll
        for (int i = 0; i < COUNT; i++) {
            copy_async(tile + target + i * (STEP / ROW_BLOCK * BLOCK_BYTES), source[i] + static_cast<size_t>(group) * GROUP, valid[i]);
        }
    }
};

// The loaders of W's tile. start() asks for a group's weights, finish() puts into the tile what did not go there by itself; between the two a
// thread may compute. COLUMNS features.
template <class Weights, Result RESULT, int COLUMNS, int SPAN, int THREADS>
struct Loader;

template <Result RESULT, int COLUMNS, int SPAN, int THREADS>
struct Loader<F16, RESULT, COLUMNS, SPAN, THREADS> {
    Copies<COLUMNS, THREADS> copies;

    __device__ __forceinline__ Loader(const F16& w, int tile, int width)
        : copies(w.w, w.groups * GROUP, [=](int local) { return row_of<RESULT, COLUMNS, SPAN>(tile, local, width); }) {}
    __device__ __forceinline__ void start(unsigned char* tile, int group) { copies.start(tile, group); }
    __device__ __forceinline__ void finish(unsigned char*) const {}
};

// 16 threads turn a block of 16 rows: a thread takes four rows and one piece of each, so its words are those of 4 neighbouring rows in two quads of
// columns. Threads beyond the tile's blocks have nothing to do.
template <Result RESULT, int COLUMNS, int SPAN, int THREADS>
struct Loader<Q8, RESULT, COLUMNS, SPAN, THREADS> {
    static_assert(COLUMNS <= THREADS, "16 threads a block");
    const unsigned char* q;
    const f16* scale;
    bool valid;
    uint4 quants[2];
    uint2 scales;

    __device__ __forceinline__ Loader(const Q8& w, int tile, int width) {
        const int piece = threadIdx.x % 4, four = threadIdx.x / 4 % 4, local = threadIdx.x / 16 * ROW_BLOCK;
        const int row = local < COLUMNS ? row_of<RESULT, COLUMNS, SPAN>(tile, local, width) : -1;
        valid = row >= 0;
        const size_t at = static_cast<size_t>((valid ? row : 0) / ROW_BLOCK) * w.groups;
        q = w.q + at * (GROUP * ROW_BLOCK) + piece * 128 + four * 16;
        scale = w.scale + at * ROW_BLOCK + four * 4;
    }

    __device__ __forceinline__ void start(unsigned char*, int group) {
        quants[0] = quants[1] = make_uint4(0, 0, 0, 0);
        scales = make_uint2(0, 0);
        if (!valid) return;
        const unsigned char* at = q + static_cast<size_t>(group) * (GROUP * ROW_BLOCK);
        quants[0] = load_streaming(at);
        quants[1] = load_streaming(at + 64);
        scales = *reinterpret_cast<const uint2*>(scale + static_cast<size_t>(group) * ROW_BLOCK);
    }

    __device__ __forceinline__ void finish(unsigned char* tile) const {
        if (COLUMNS < THREADS && threadIdx.x >= COLUMNS) return;
        const int piece = threadIdx.x % 4, row = threadIdx.x / 4 * 4;
#pragma unroll
        for (int i = 0; i < 4; i++) {
            const Q8Scale s{twice(scales, i)};
            const unsigned low = word_of(quants[0], i), high = word_of(quants[1], i);
            *reinterpret_cast<uint4*>(tile + place(row + i, piece)) = make_uint4(s.pair(low, 0), s.pair(low, 2), s.pair(high, 0), s.pair(high, 2));
        }
    }
};

// As for q8, but a thread takes two rows and two pieces of each: a word's low nibbles lie 16 columns before its high ones.
template <Result RESULT, int COLUMNS, int SPAN, int THREADS>
struct Loader<Q4, RESULT, COLUMNS, SPAN, THREADS> {
    static_assert(COLUMNS <= THREADS, "16 threads a block");
    const unsigned char* q;
    const f16* scale;
    const f16* min;
    bool valid;
    uint2 quants[2];
    unsigned scales, mins;

    // First of the thread's two rows in its block: eight lanes write rows r, r + 4, r + 8, r + 12, see place().
    static __device__ __forceinline__ int two() { return (threadIdx.x >> 1 & 3) * 4 + (threadIdx.x >> 3 & 1) * 2; }

    __device__ __forceinline__ Loader(const Q4& w, int tile, int width) {
        const int piece = threadIdx.x % 2, local = threadIdx.x / 16 * ROW_BLOCK;
        const int row = local < COLUMNS ? row_of<RESULT, COLUMNS, SPAN>(tile, local, width) : -1;
        valid = row >= 0;
        const size_t at = static_cast<size_t>((valid ? row : 0) / ROW_BLOCK) * w.groups;
        q = w.q + at * (GROUP * ROW_BLOCK / 2) + piece * 128 + two() * 4;
        scale = w.scale + at * ROW_BLOCK + two();
        min = w.min + at * ROW_BLOCK + two();
    }

    __device__ __forceinline__ void start(unsigned char*, int group) {
        quants[0] = quants[1] = make_uint2(0, 0);
        scales = mins = 0;
        if (!valid) return;
        const unsigned char* at = q + static_cast<size_t>(group) * (GROUP * ROW_BLOCK / 2);
        quants[0] = *reinterpret_cast<const uint2*>(at);
        quants[1] = *reinterpret_cast<const uint2*>(at + 64);
        scales = *reinterpret_cast<const unsigned*>(scale + static_cast<size_t>(group) * ROW_BLOCK);
        mins = *reinterpret_cast<const unsigned*>(min + static_cast<size_t>(group) * ROW_BLOCK);
    }

    __device__ __forceinline__ void finish(unsigned char* tile) const {
        if (COLUMNS < THREADS && threadIdx.x >= COLUMNS) return;
        const int piece = threadIdx.x % 2, row = threadIdx.x / 16 * ROW_BLOCK + two();
#pragma unroll
        for (int i = 0; i < 2; i++) {
            const Q4Scale s{twice(make_uint2(scales, 0), i), twice(make_uint2(mins, 0), i)};
            const unsigned a = i ? quants[0].y : quants[0].x, b = i ? quants[1].y : quants[1].x;
            const unsigned al = low_nibbles(a), ah = high_nibbles(a), bl = low_nibbles(b), bh = high_nibbles(b);
            *reinterpret_cast<uint4*>(tile + place(row + i, piece)) = make_uint4(s.pair(al, 0), s.pair(al, 2), s.pair(bl, 0), s.pair(bl, 2));
            *reinterpret_cast<uint4*>(tile + place(row + i, piece + 2)) = make_uint4(s.pair(ah, 0), s.pair(ah, 2), s.pair(bh, 0), s.pair(bh, 2));
        }
    }
};

// --- products of tiles -------------------------------------------------------------------------------------------------------------------

// WM × WN warps of MT · 16 activations × NT · 8 features each. X is the first operand of the products and W the second: a thread then has neighbouring
// features, which lie side by side in y.
template <int WM, int WN, int MT, int NT, int STAGES, int BLOCKS>
struct Tile {
    static constexpr int THREADS = WM * WN * 32, ROWS = WM * MT * 16, SPAN = NT * 8, COLUMNS = WN * SPAN, RESIDENT = BLOCKS;
    static constexpr int X_BYTES = ROWS * GROUP * 2, STAGE_BYTES = X_BYTES + COLUMNS * GROUP * 2, SHARED_BYTES = STAGES * STAGE_BYTES;
    static_assert(STAGES >= 3, "weights that pass through registers are seen one barrier late");
    static_assert(NT % 4 == 0, "a warp has gate and up");

    // What a warp multiplies at a time: 16 of a group's columns.
    struct Fragments {
        unsigned x[MT][4], w[NT][2];
    };

    // `x` and `w`: where the lane's row begins in the first block of its warp.
    static __device__ __forceinline__ void load(Fragments& f, const unsigned char* x, const unsigned char* w) {
#pragma unroll
        for (int i = 0; i < MT; i++) load_matrices(f.x[i], x + i * BLOCK_BYTES);
#pragma unroll
        for (int i = 0; i < NT; i += 2) {
            unsigned r[4];
            load_matrices(r, w + i / 2 * BLOCK_BYTES);
            f.w[i][0] = r[0], f.w[i][1] = r[1], f.w[i + 1][0] = r[2], f.w[i + 1][1] = r[3];
        }
    }

    static __device__ __forceinline__ void multiply(float (&sums)[MT][NT][4], const Fragments& f) {
#pragma unroll
        for (int i = 0; i < MT; i++) {
#pragma unroll
            for (int j = 0; j < NT; j++) mma_16x8x16(sums[i][j], f.x[i], f.w[j]);
        }
    }

    // Features 4t to 4t + 3 of block j of 16, of the row that sums[i][..][2h..] belongs to.
    static __device__ __forceinline__ float4 four(const float (&sums)[NT][4], int j, int h) {
        return make_float4(sums[2 * j][2 * h], sums[2 * j][2 * h + 1], sums[2 * j + 1][2 * h], sums[2 * j + 1][2 * h + 1]);
    }

    // `width` is rows, or f for swiglu; `out` is y, or the halves.
    template <Result RESULT, class Weights>
    static __device__ __forceinline__ void run(const Weights& weights, const f16* x, void* out, int width, int n) {
        DYN_SHARED(unsigned char, shared);
        const int lane = lane_id(), warp_m = warp_id() / WN, warp_n = warp_id() % WN, groups = weights.groups;

        // Blocks that run at the same time share what they read: activations of up to eight tiles and as many tiles of features as there is room for.
        constexpr int TOGETHER = 8, OUTPUTS = RESULT == SWIGLU ? COLUMNS / 2 : COLUMNS;
        const int tiles_m = (n + ROWS - 1) / ROWS, strip = TOGETHER * ((width + OUTPUTS - 1) / OUTPUTS);
        const int first_m = blockIdx.x / strip * TOGETHER, high = min(tiles_m - first_m, TOGETHER);
        const int tile_m = first_m + blockIdx.x % strip % high, tile_n = blockIdx.x % strip / high;

        const Copies<ROWS, THREADS> activations(x, groups * GROUP, [=](int local) {
            const int row = tile_m * ROWS + local;
            return row < n ? row : -1;
        });
        Loader<Weights, RESULT, COLUMNS, SPAN, THREADS> loader(weights, tile_n, width);

        // Lane 8 m + i gives row i of matrix m. Of X the matrices are rows 0 and 1 of the block's left columns, then of the right ones; of W
        // the left and right columns of rows 0, then of rows 1. In `place` the right half of the group is bit 5.
        const int m = lane / 8, i = lane % 8;
        const int x_lane = warp_m * MT * BLOCK_BYTES + place(matrix_row(m & 1, i), m >> 1);
        const int w_lane = X_BYTES + warp_n * (NT / 2) * BLOCK_BYTES + place(matrix_row(m >> 1, i), m & 1);

        float sums[MT][NT][4] = {};
        Fragments left, right;
#pragma unroll
        for (int stage = 0; stage < STAGES - 1; stage++) {
            unsigned char* tile = shared + stage * STAGE_BYTES;
            if (stage < groups) {
                activations.start(tile, stage);
                loader.start(tile + X_BYTES, stage);
                loader.finish(tile + X_BYTES);
            }
            copy_commit();
        }
        copy_wait<STAGES - 2>();
        __syncthreads();
        load(left, shared + x_lane, shared + w_lane);

        unsigned char *current = shared, *free = shared + (STAGES - 1) * STAGE_BYTES;
        for (int group = 0; group < groups; group++) {
            load(right, current + (x_lane ^ 32), current + (w_lane ^ 32));
            // All warps have read the tile of the group before: they did so before the last barrier. Its place is for a group to come.
            const bool more = group + STAGES - 1 < groups;
            if (more) {
                activations.start(free, group + STAGES - 1);
                loader.start(free + X_BYTES, group + STAGES - 1);
            }
            copy_commit();
            multiply(sums, left);
            copy_wait<STAGES - 2>();
            __syncthreads();
            unsigned char* next = current + STAGE_BYTES == shared + SHARED_BYTES ? shared : current + STAGE_BYTES;
            // Behind the last group this reads what nobody uses.
            load(left, next + x_lane, next + w_lane);
            multiply(sums, right);
            if (more) loader.finish(free + X_BYTES);
            free = current;
            current = next;
        }

        const int g = lane / 4, t = lane % 4;
#pragma unroll
        for (int i = 0; i < MT; i++) {
#pragma unroll
            for (int h = 0; h < 2; h++) {
                const int row = tile_m * ROWS + (warp_m * MT + i) * 16 + matrix_row(h, g);
                if (row >= n) continue;
#pragma unroll
                for (int j = 0; j < NT / (RESULT == SWIGLU ? 4 : 2); j++) {
                    const int feature = tile_n * OUTPUTS + warp_n * (OUTPUTS / WN) + j * 16 + 4 * t;
                    if (RESULT == SWIGLU) {
                        put_activated(static_cast<f16*>(out), width, row, feature, four(sums[i], j, h), four(sums[i], NT / 4 + j, h));
                    } else {
                        put<RESULT>(static_cast<float*>(out), width, row, feature, four(sums[i], j, h));
                    }
                }
            }
        }
    }
};

} // namespace gemm
