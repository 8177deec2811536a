// What the products of gemm.cu are made of: weights as halves, results, tiles in shared memory and products of tiles.
#pragma once
#include "common.cuh"

namespace gemm {

enum Result { STORE, ADD, SWIGLU };

// --- weights as halves -------------------------------------------------------------------------------------------------------------------

// 1024 + q of bytes i and i + 1 of four, i = 0 or 2, as halves: under the exponent of 1024 a step of the last bit is 1.
__device__ __forceinline__ unsigned raised(unsigned word, int i) { return __byte_perm(word, 0x64646464u, i ? 0x4342 : 0x4140); }

// pair() gives the weights of bytes i and i + 1 by two instructions that are exact but for the last rounding. quant · scale is exact in f32
// too; with a minimum f32 may round the sum first, and the half then differ in its last bit.
struct Q8Scale {
    unsigned scale; // in both halves

    __device__ __forceinline__ unsigned pair(unsigned word, int i) const {
#ifdef LLMAR_EMULATED
        const float2 q = unpack_halves(raised(word, i)), s = unpack_halves(scale);
        return pack_halves((q.x - 1152.0f) * s.x, (q.y - 1152.0f) * s.y);
#else
        unsigned h;
        asm("{\n\t"
            ".reg .b32 q;\n\t"
            "sub.rn.f16x2 q, %1, %2;\n\t"
            "mul.rn.f16x2 %0, q, %3;\n\t"
            "}"
            : "=r"(h)
            : "r"(raised(word, i)), "r"(0x64806480u), "r"(scale));
        return h;
#endif
    }

    // Weights of eight quants.
    __device__ __forceinline__ uint4 eight(unsigned left, unsigned right) const {
        return make_uint4(pair(left, 0), pair(left, 2), pair(right, 0), pair(right, 2));
    }
};

// The same for bytes in 0..16 and a minimum.
struct Q4Scale {
    unsigned scale, min;

    __device__ __forceinline__ unsigned pair(unsigned word, int i) const {
#ifdef LLMAR_EMULATED
        const float2 q = unpack_halves(raised(word, i)), s = unpack_halves(scale), m = unpack_halves(min);
        return pack_halves((q.x - 1024.0f) * s.x + m.x, (q.y - 1024.0f) * s.y + m.y);
#else
        unsigned h;
        asm("{\n\t"
            ".reg .b32 q;\n\t"
            "sub.rn.f16x2 q, %1, %2;\n\t"
            "fma.rn.f16x2 %0, q, %3, %4;\n\t"
            "}"
            : "=r"(h)
            : "r"(raised(word, i)), "r"(0x64006400u), "r"(scale), "r"(min));
        return h;
#endif
    }

    // Weights of eight quants.
    __device__ __forceinline__ uint4 eight(unsigned left, unsigned right) const {
        return make_uint4(pair(left, 0), pair(left, 2), pair(right, 0), pair(right, 2));
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

// The matrix's row that is feature `local` of tile `tile` of COLUMNS features; below zero where there is none. `width` is rows, or f for
// swiglu: there each SPAN features, those of one warp, are SPAN / 2 rows of the gate and then the rows of `up` for the same outputs.
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
    const unsigned left = pack_halves(silu(gate.x) * up.x, silu(gate.y) * up.y);
    const unsigned right = pack_halves(silu(gate.z) * up.z, silu(gate.w) * up.w);
    *reinterpret_cast<uint2*>(out + row * f + feature) = make_uint2(left, right);
}

// --- tiles in shared memory --------------------------------------------------------------------------------------------------------------

// A tile holds one group of each of its rows: 32 halves, four pieces of 16 bytes. This is the byte where piece c of row r begins. Two rows
// that differ in bit 2 share 128 bytes, and c is XORed with bits 3 and 0. What eight lanes access at a time then lies in all 32 banks:
// - reading, the rows of one 8 × 8 matrix, which agree in bit 1 (see matrix_row);
// - writing halves or q8, all pieces of two rows that differ in bit 2;
// - writing q4, pieces 0 and 1, or 2 and 3, of four rows that differ in bits 2 and 3.
constexpr int BLOCK_BYTES = ROW_BLOCK * GROUP * 2;
__device__ __forceinline__ int place(int r, int c) {
    const int line = (r >> 3 & 1) << 2 | (r & 3);
    return (r / ROW_BLOCK) * BLOCK_BYTES + line * 128 + (r >> 2 & 1) * 64 + (c ^ (r >> 2 & 2) ^ (r & 1)) * 16;
}

// Row of a block of 16 that is row i of 8 × 8 matrix m: matrix 0 has the rows whose bit 1 is clear, matrix 1 the others. A thread that
// holds columns 2t and 2t + 1 of the products of both matrices then has features 4t to 4t + 3, 16 bytes of y.
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
            unsigned char* to = tile + target + i * (STEP / ROW_BLOCK * BLOCK_BYTES);
            copy_async(to, source[i] + static_cast<size_t>(group) * GROUP, valid[i]);
        }
    }
};

// The loaders of W's tile of COLUMNS features. start() asks for a group's weights, finish() puts into the tile what did not go there by
// itself: quants come to the thread's registers, as Held, and what they stand for goes on from there.
template <class Weights, Result RESULT, int COLUMNS, int SPAN, int THREADS>
struct Loader;

template <Result RESULT, int COLUMNS, int SPAN, int THREADS>
struct Loader<F16, RESULT, COLUMNS, SPAN, THREADS> {
    static constexpr bool HOLDS = false;
    struct Held {};
    Copies<COLUMNS, THREADS> copies;

    __device__ __forceinline__ Loader(const F16& w, int tile, int width)
        : copies(w.w, w.groups * GROUP, [=](int local) { return row_of<RESULT, COLUMNS, SPAN>(tile, local, width); }) {}
    __device__ __forceinline__ void start(Held&, unsigned char* tile, int group) const { copies.start(tile, group); }
    __device__ __forceinline__ void finish(const Held&, unsigned char*) const {}
};

// 16 threads turn a block of 16 rows: a thread takes four rows and one piece of each, 16 bytes of quants for each half of the piece.
// Threads beyond the tile's blocks have nothing to do.
template <Result RESULT, int COLUMNS, int SPAN, int THREADS>
struct Loader<Q8, RESULT, COLUMNS, SPAN, THREADS> {
    static_assert(COLUMNS <= THREADS, "16 threads a block");
    static constexpr bool HOLDS = true;
    struct Held {
        uint4 quants[2];
        uint2 scales;
    };
    const unsigned char* q;
    const f16* scale;
    bool valid;

    __device__ __forceinline__ Loader(const Q8& w, int tile, int width) {
        const int piece = threadIdx.x % 4, four = threadIdx.x / 4 % 4, local = threadIdx.x / 16 * ROW_BLOCK;
        const int row = local < COLUMNS ? row_of<RESULT, COLUMNS, SPAN>(tile, local, width) : -1;
        valid = row >= 0;
        const size_t at = static_cast<size_t>((valid ? row : 0) / ROW_BLOCK) * w.groups;
        q = w.q + at * (GROUP * ROW_BLOCK) + piece * 128 + four * 16;
        scale = w.scale + at * ROW_BLOCK + four * 4;
    }

    __device__ __forceinline__ void start(Held& held, unsigned char*, int group) const {
        held.quants[0] = held.quants[1] = make_uint4(0, 0, 0, 0);
        held.scales = make_uint2(0, 0);
        if (!valid) return;
        const unsigned char* at = q + static_cast<size_t>(group) * (GROUP * ROW_BLOCK);
        held.quants[0] = load_streaming(at);
        held.quants[1] = load_streaming(at + 64);
        held.scales = *reinterpret_cast<const uint2*>(scale + static_cast<size_t>(group) * ROW_BLOCK);
    }

    __device__ __forceinline__ void finish(const Held& held, unsigned char* tile) const {
        if (COLUMNS < THREADS && threadIdx.x >= COLUMNS) return;
        const int piece = threadIdx.x % 4, row = threadIdx.x / 4 * 4;
#pragma unroll
        for (int i = 0; i < 4; i++) {
            const Q8Scale s{twice(held.scales, i)};
            *reinterpret_cast<uint4*>(tile + place(row + i, piece)) = s.eight(word_of(held.quants[0], i), word_of(held.quants[1], i));
        }
    }
};

// As for q8, but a thread takes two rows and two pieces of each: a word's low nibbles lie 16 columns before its high ones.
template <Result RESULT, int COLUMNS, int SPAN, int THREADS>
struct Loader<Q4, RESULT, COLUMNS, SPAN, THREADS> {
    static_assert(COLUMNS <= THREADS, "16 threads a block");
    static constexpr bool HOLDS = true;
    struct Held {
        uint2 quants[2];
        unsigned scales, mins;
    };
    const unsigned char* q;
    const f16* scale;
    const f16* min;
    bool valid;

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

    __device__ __forceinline__ void start(Held& held, unsigned char*, int group) const {
        held.quants[0] = held.quants[1] = make_uint2(0, 0);
        held.scales = held.mins = 0;
        if (!valid) return;
        const unsigned char* at = q + static_cast<size_t>(group) * (GROUP * ROW_BLOCK / 2);
        held.quants[0] = *reinterpret_cast<const uint2*>(at);
        held.quants[1] = *reinterpret_cast<const uint2*>(at + 64);
        held.scales = *reinterpret_cast<const unsigned*>(scale + static_cast<size_t>(group) * ROW_BLOCK);
        held.mins = *reinterpret_cast<const unsigned*>(min + static_cast<size_t>(group) * ROW_BLOCK);
    }

    __device__ __forceinline__ void finish(const Held& held, unsigned char* tile) const {
        if (COLUMNS < THREADS && threadIdx.x >= COLUMNS) return;
        const int piece = threadIdx.x % 2, row = threadIdx.x / 16 * ROW_BLOCK + two();
#pragma unroll
        for (int i = 0; i < 2; i++) {
            const Q4Scale s{twice(make_uint2(held.scales, 0), i), twice(make_uint2(held.mins, 0), i)};
            const unsigned a = i ? held.quants[0].y : held.quants[0].x, b = i ? held.quants[1].y : held.quants[1].x;
            *reinterpret_cast<uint4*>(tile + place(row + i, piece)) = s.eight(low_nibbles(a), low_nibbles(b));
            *reinterpret_cast<uint4*>(tile + place(row + i, piece + 2)) = s.eight(high_nibbles(a), high_nibbles(b));
        }
    }
};

// --- products of tiles -------------------------------------------------------------------------------------------------------------------

// WM × WN warps of MT · 16 activations × NT · 8 features each; STAGES groups in shared memory; quants of SETS groups on their way to it;
// BLOCKS to a processor. X is the first operand of the products and W the second: a thread then has neighbouring features, which lie side
// by side in y.
template <int WM, int WN, int MT, int NT, int STAGES, int SETS, int BLOCKS>
struct Tile {
    static constexpr int THREADS = WM * WN * 32, ROWS = WM * MT * 16, SPAN = NT * 8, COLUMNS = WN * SPAN, RESIDENT = BLOCKS;
    static constexpr int X_BYTES = ROWS * GROUP * 2, STAGE_BYTES = X_BYTES + COLUMNS * GROUP * 2, SHARED_BYTES = STAGES * STAGE_BYTES;
    static_assert(SETS <= STAGES - 2, "what finish() writes is read behind the next barrier at the earliest");
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

        // Blocks that run at the same time share what they read in L2: strips of eight tiles of activations, features outside.
        constexpr int TOGETHER = 8, OUTPUTS = RESULT == SWIGLU ? COLUMNS / 2 : COLUMNS;
        const int tiles_m = (n + ROWS - 1) / ROWS, strip = TOGETHER * ((width + OUTPUTS - 1) / OUTPUTS);
        const int first_m = blockIdx.x / strip * TOGETHER, high = min(tiles_m - first_m, TOGETHER);
        const int tile_m = first_m + blockIdx.x % strip % high, tile_n = blockIdx.x % strip / high;

        const Copies<ROWS, THREADS> activations(x, groups * GROUP, [=](int local) {
            const int row = tile_m * ROWS + local;
            return row < n ? row : -1;
        });

        // What the lane gives load_matrices: row lane % 8 of matrix m. The products want, of X, both matrices of the left piece and then of
        // the right one; of W, both pieces of matrix 0 and then of matrix 1. The group's right half is two pieces on: bit 5 flipped.
        const int m = lane / 8, of_matrix = lane % 8;
        const int x_lane = warp_m * MT * BLOCK_BYTES + place(matrix_row(m & 1, of_matrix), m >> 1);
        const int w_lane = X_BYTES + warp_n * (NT / 2) * BLOCK_BYTES + place(matrix_row(m >> 1, of_matrix), m & 1);

        // Group i goes to stage i % STAGES and waits in set i % HELD. It is finished HELD - 1 groups after it was started.
        using Loading = Loader<Weights, RESULT, COLUMNS, SPAN, THREADS>;
        constexpr int HELD = Loading::HOLDS ? SETS : 1, AHEAD = STAGES - 1;
        const Loading loader(weights, tile_n, width);
        typename Loading::Held held[HELD];
#pragma unroll
        for (int i = 0; i < AHEAD; i++) {
            if (i < groups) {
                activations.start(shared + i * STAGE_BYTES, i);
                loader.start(held[i % HELD], shared + i * STAGE_BYTES + X_BYTES, i);
            }
            copy_commit();
            const int ready = i - (HELD - 1);
            if (ready >= 0 && ready < groups) loader.finish(held[ready % HELD], shared + ready * STAGE_BYTES + X_BYTES);
        }
        copy_wait<AHEAD - 1>();
        __syncthreads();

        float sums[MT][NT][4] = {};
        Fragments left, right;
        load(left, shared + x_lane, shared + w_lane);
        // Stages of the group at hand, of the one that is started, and of the one that is finished.
        unsigned char *current = shared, *started = shared + AHEAD * STAGE_BYTES, *finished = started - (HELD - 1) * STAGE_BYTES;
        const auto next = [=](unsigned char* stage) { return stage == shared + AHEAD * STAGE_BYTES ? shared : stage + STAGE_BYTES; };
        for (int first = 0; first < groups; first += HELD) {
#pragma unroll
            for (int i = 0; i < HELD; i++) {
                const int group = first + i;
                if (group >= groups) break;
                load(right, current + (x_lane ^ 32), current + (w_lane ^ 32));
                // The stage that is started was that of the group before, which all warps had read at the last barrier.
                if (group + AHEAD < groups) {
                    activations.start(started, group + AHEAD);
                    loader.start(held[(i + AHEAD) % HELD], started + X_BYTES, group + AHEAD);
                }
                copy_commit();
                multiply(sums, left);
                copy_wait<AHEAD - 1>();
                __syncthreads();
                current = next(current);
                // Behind the last group this reads what nobody uses.
                load(left, current + x_lane, current + w_lane);
                multiply(sums, right);
                if (group + STAGES - HELD < groups) loader.finish(held[(i + STAGES) % HELD], finished + X_BYTES);
                started = next(started);
                finished = next(finished);
            }
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
                        const float4 gate = four(sums[i], j, h), up = four(sums[i], NT / 4 + j, h);
                        put_activated(static_cast<f16*>(out), width, row, feature, gate, up);
                    } else {
                        put<RESULT>(static_cast<float*>(out), width, row, feature, four(sums[i], j, h));
                    }
                }
            }
        }
    }
};

} // namespace gemm
