// y [n, rows] = X [n, ld] · W [rows, ld]ᵀ on the tensor cores, f16 in, f32 sums, for more rows of activations than gemv.cu takes.
//
// X is the half operand. W is f16 [rows, ld], or q8 or q4 as in the checkpoint (src/device/matrix.rs), whose weights become halves on their
// way: (q − 128) · scale or q · scale + min, rounded once. What becomes of the sums:
// - *_store: y = X Wᵀ; *_add: y += X Wᵀ (the residual); both for any number of rows.
// - *_swiglu: W is gate_up [2f, hidden], the result silu(gate) · up as halves [n, f]. f must be a multiple of 32; otherwise take the plain
//   product and swiglu.cu. Of the operand only `half` is written.
//
// | family | n | tile: activations × features | launch (F = rows, or 2f for swiglu) |
// |---|---|---|---|
// | skinny_* | 1 to 32 | 32 × 32 | grid ⌈F / 32⌉, block 256 |
// | small_* | any | 64 × 64 | grid ⌈n / 64⌉ · ⌈F / 64⌉, block 128, 48 KB of dynamic shared memory |
// | gemm_* | any | 128 × 128 | grid ⌈n / 128⌉ · ⌈F / 128⌉, block 128, 48 KB |
// | wide_* | any | 256 × 128 | grid ⌈n / 256⌉ · ⌈F / 128⌉, block 256, 96 KB: not on sm_75 |
//
// A larger tile asks less of the L2 cache and has fewer blocks: 64 × 64 does 32 operations a byte, 128 × 128 does 64, 256 × 128 does 85. An
// estimate, not yet measured: at 600 TFLOP/s, about the most that mma.sync can do on an H100, 128 × 128 reads 9 TB/s and 256 × 128 7 TB/s,
// of an L2 that gives 6 or 7. So take the largest tile that gives every processor its blocks (two of gemm_*, one of wide_*).
//
// Each output is summed in an order that does not depend on what stands beside it: skinny_* has one order, the three others have another.
#include "gemm_tiles.cuh"

namespace gemm {

using Small = Tile<2, 2, 2, 4, 6, 4, 3>;
using Large = Tile<2, 2, 4, 8, 3, 1, 2>;
using Wide = Tile<4, 2, 4, 8, 4, 1, 1>;

// --- few rows ----------------------------------------------------------------------------------------------------------------------------

// Up to 32 rows: memory is what limits. A block owns 32 features, its warps take turns at the groups, and the parts of a sum meet in shared
// memory. No tile passes through shared memory: W is the first operand, and both come from global memory straight into fragments. For that
// the features of a block and the columns of a group are taken in an order of their own. With g = lane / 4, t = lane % 4:
// - Row g + 8h of product m (m, h = 0, 1) is feature 4g + 2m + h, so a lane has four neighbouring rows: of q8 and q4 sixteen bytes.
// - In the two steps of a group a lane has columns 8t to 8t + 3 and 8t + 4 to 8t + 7 of f16, 4t to 4t + 3 and 16 + 4t to 16 + 4t + 3 of q8
//   and q4, of W and X alike.
// Every block reads all of X, 64 bytes a row and group; W bypasses the first-level cache so that X may stay there from block to block.
constexpr int SKINNY_WARPS = 8, SKINNY_ROWS = 32, SKINNY_FEATURES = 32;

// What a lane reads of W: load() fetches its part of a group, fragment() makes the first operand of product m in step k of it, and
// activations() gives the lane's part of a row of X, two words a step.
template <class Weights, Result RESULT>
struct Lane;

template <Result RESULT>
__device__ __forceinline__ int skinny_row(int local, int width) {
    // What a missing row gives is not written, so any other may stand for it.
    return max(row_of<RESULT, SKINNY_FEATURES, SKINNY_FEATURES>(blockIdx.x, local, width), 0);
}

template <Result RESULT>
struct Lane<F16, RESULT> {
    struct Held {
        uint4 row[4];
    };
    const f16* row[4];

    __device__ __forceinline__ Lane(const F16& w, int width) {
#pragma unroll
        for (int i = 0; i < 4; i++) {
            const int from = skinny_row<RESULT>(lane_id() / 4 * 4 + i, width);
            row[i] = w.w + static_cast<size_t>(from) * (w.groups * GROUP) + lane_id() % 4 * 8;
        }
    }

    __device__ __forceinline__ void load(Held& held, int group) const {
#pragma unroll
        for (int i = 0; i < 4; i++) held.row[i] = load_streaming(row[i] + static_cast<size_t>(group) * GROUP);
    }

    static __device__ __forceinline__ uint4 activations(const f16* x) {
        return *reinterpret_cast<const uint4*>(x + lane_id() % 4 * 8);
    }

    static __device__ __forceinline__ void fragment(unsigned (&a)[4], const Held& held, int m, int k) {
#pragma unroll
        for (int h = 0; h < 2; h++) {
            a[h] = word_of(held.row[2 * m + h], 2 * k);
            a[2 + h] = word_of(held.row[2 * m + h], 2 * k + 1);
        }
    }
};

// Columns 4t to 4t + 3 and 16 + 4t to 16 + 4t + 3 of a group.
__device__ __forceinline__ uint4 quads(const f16* x) {
    const uint2 left = *reinterpret_cast<const uint2*>(x + lane_id() % 4 * 4);
    const uint2 right = *reinterpret_cast<const uint2*>(x + GROUP / 2 + lane_id() % 4 * 4);
    return make_uint4(left.x, left.y, right.x, right.y);
}

template <Result RESULT>
struct Lane<Q8, RESULT> {
    struct Held {
        uint4 quants[2];
        uint2 scales;
    };
    const unsigned char* q;
    const f16* scale;

    __device__ __forceinline__ Lane(const Q8& w, int width) {
        const int row = lane_id() / 4 * 4;
        const size_t at = static_cast<size_t>(skinny_row<RESULT>(row, width) / ROW_BLOCK) * w.groups;
        q = w.q + at * (GROUP * ROW_BLOCK) + lane_id() % 4 * 64 + row % ROW_BLOCK * 4;
        scale = w.scale + at * ROW_BLOCK + row % ROW_BLOCK;
    }

    __device__ __forceinline__ void load(Held& held, int group) const {
        const unsigned char* at = q + static_cast<size_t>(group) * (GROUP * ROW_BLOCK);
        held.quants[0] = load_streaming(at);
        held.quants[1] = load_streaming(at + 256);
        held.scales = *reinterpret_cast<const uint2*>(scale + static_cast<size_t>(group) * ROW_BLOCK);
    }

    static __device__ __forceinline__ uint4 activations(const f16* x) { return quads(x); }

    static __device__ __forceinline__ void fragment(unsigned (&a)[4], const Held& held, int m, int k) {
#pragma unroll
        for (int h = 0; h < 2; h++) {
            const Q8Scale s{twice(held.scales, 2 * m + h)};
            const unsigned word = word_of(held.quants[k], 2 * m + h);
            a[h] = s.pair(word, 0);
            a[2 + h] = s.pair(word, 2);
        }
    }
};

template <Result RESULT>
struct Lane<Q4, RESULT> {
    struct Held {
        uint4 quants;
        uint2 scales, mins;
    };
    const unsigned char* q;
    const f16* scale;
    const f16* min;

    __device__ __forceinline__ Lane(const Q4& w, int width) {
        const int row = lane_id() / 4 * 4;
        const size_t at = static_cast<size_t>(skinny_row<RESULT>(row, width) / ROW_BLOCK) * w.groups;
        q = w.q + at * (GROUP * ROW_BLOCK / 2) + lane_id() % 4 * 64 + row % ROW_BLOCK * 4;
        scale = w.scale + at * ROW_BLOCK + row % ROW_BLOCK;
        min = w.min + at * ROW_BLOCK + row % ROW_BLOCK;
    }

    __device__ __forceinline__ void load(Held& held, int group) const {
        held.quants = load_streaming(q + static_cast<size_t>(group) * (GROUP * ROW_BLOCK / 2));
        held.scales = *reinterpret_cast<const uint2*>(scale + static_cast<size_t>(group) * ROW_BLOCK);
        held.mins = *reinterpret_cast<const uint2*>(min + static_cast<size_t>(group) * ROW_BLOCK);
    }

    static __device__ __forceinline__ uint4 activations(const f16* x) { return quads(x); }

    static __device__ __forceinline__ void fragment(unsigned (&a)[4], const Held& held, int m, int k) {
#pragma unroll
        for (int h = 0; h < 2; h++) {
            const Q4Scale s{twice(held.scales, 2 * m + h), twice(held.mins, 2 * m + h)};
            const unsigned word = word_of(held.quants, 2 * m + h), quants = k ? high_nibbles(word) : low_nibbles(word);
            a[h] = s.pair(quants, 0);
            a[2 + h] = s.pair(quants, 2);
        }
    }
};

// Sums of four neighbouring features; nine a row, so that no two lanes that write at a time meet in a bank.
using Parts = float4[SKINNY_WARPS][SKINNY_ROWS][SKINNY_FEATURES / 4 + 1];

// The warp's part of the sums of TILES times eight rows. It takes two groups at a time, which are 128 neighbouring bytes of an f16 row.
template <int TILES, class Reader>
__device__ __forceinline__ void sum_part(Parts& parts, const Reader& reader, const f16* x, int groups, int n) {
    constexpr int AHEAD = 2;
    const int g = lane_id() / 4, t = lane_id() % 4;
    const f16* row[TILES];
#pragma unroll
    for (int j = 0; j < TILES; j++) row[j] = x + static_cast<size_t>(min(8 * j + g, n - 1)) * (groups * GROUP);

    float sums[TILES][2][4] = {};
    for (int first = warp_id() * AHEAD; first < groups; first += SKINNY_WARPS * AHEAD) {
        typename Reader::Held w[AHEAD];
        uint4 b[AHEAD][TILES];
        // All loads before the first use; behind the last group that one again, without a branch.
#pragma unroll
        for (int i = 0; i < AHEAD; i++) reader.load(w[i], min(first + i, groups - 1));
#pragma unroll
        for (int i = 0; i < AHEAD; i++) {
#pragma unroll
            for (int j = 0; j < TILES; j++) b[i][j] = Reader::activations(row[j] + min(first + i, groups - 1) * GROUP);
        }
#pragma unroll
        for (int i = 0; i < AHEAD; i++) {
            if (first + i >= groups) break;
#pragma unroll
            for (int k = 0; k < 2; k++) {
                unsigned a[2][4];
                Reader::fragment(a[0], w[i], 0, k);
                Reader::fragment(a[1], w[i], 1, k);
#pragma unroll
                for (int j = 0; j < TILES; j++) {
                    const unsigned columns[2] = {word_of(b[i][j], 2 * k), word_of(b[i][j], 2 * k + 1)};
                    mma_16x8x16(sums[j][0], a[0], columns);
                    mma_16x8x16(sums[j][1], a[1], columns);
                }
            }
        }
    }
#pragma unroll
    for (int j = 0; j < TILES; j++) {
#pragma unroll
        for (int e = 0; e < 2; e++) {
            parts[warp_id()][8 * j + 2 * t + e][g] = make_float4(sums[j][0][e], sums[j][0][2 + e], sums[j][1][e], sums[j][1][2 + e]);
        }
    }
}

template <Result RESULT, class Weights>
__device__ __forceinline__ void skinny(const Weights& weights, const f16* x, void* out, int width, int n) {
    __shared__ Parts parts;
    const Lane<Weights, RESULT> reader(weights, width);
    if (n <= SKINNY_ROWS / 2) {
        sum_part<SKINNY_ROWS / 16>(parts, reader, x, weights.groups, n);
    } else {
        sum_part<SKINNY_ROWS / 8>(parts, reader, x, weights.groups, n);
    }
    __syncthreads();

    // Each thread has one sum of four features.
    const int at = threadIdx.x / 8, four = threadIdx.x % 8;
    if (at >= n) return;
    const auto total = [&](int four) {
        float4 sum = parts[0][at][four];
#pragma unroll
        for (int i = 1; i < SKINNY_WARPS; i++) {
            const float4 part = parts[i][at][four];
            sum = make_float4(sum.x + part.x, sum.y + part.y, sum.z + part.z, sum.w + part.w);
        }
        return sum;
    };
    if (RESULT != SWIGLU) {
        put<RESULT>(static_cast<float*>(out), width, at, blockIdx.x * SKINNY_FEATURES + four * 4, total(four));
    } else if (four < 4) {
        const int feature = blockIdx.x * (SKINNY_FEATURES / 2) + four * 4;
        put_activated(static_cast<f16*>(out), width, at, feature, total(four), total(4 + four));
    }
}

// The families as macros see them.
struct Skinny {
    static constexpr int THREADS = SKINNY_WARPS * 32, RESIDENT = 2;
    template <Result RESULT, class Weights>
    static __device__ __forceinline__ void run(const Weights& weights, const f16* x, void* out, int width, int n) {
        skinny<RESULT>(weights, x, out, width, n);
    }
};

} // namespace gemm

// --- kernels -----------------------------------------------------------------------------------------------------------------------------

// The weights' tensors, x f16 [n, ld], y f32 [n, rows] or out [n, f]. ld is a multiple of 32.
#define GEMM_KERNEL(name, Family, RESULT, weights, result, width, ...)                                              \
    extern "C" __global__ void __launch_bounds__(gemm::Family::THREADS, gemm::Family::RESIDENT) name(__VA_ARGS__) { \
        gemm::Family::run<gemm::RESULT>(weights, x, result, width, n);                                              \
    }                                                                                                               \
    EMU_KERNEL(name)

#define GEMM_SCHEME(prefix, Family, weights, ...)                                           \
    GEMM_KERNEL(prefix##_store, Family, STORE, weights, y, rows, __VA_ARGS__,               \
                const f16* __restrict__ x, float* __restrict__ y, int rows, int ld, int n)  \
    GEMM_KERNEL(prefix##_add, Family, ADD, weights, y, rows, __VA_ARGS__,                   \
                const f16* __restrict__ x, float* __restrict__ y, int rows, int ld, int n)  \
    GEMM_KERNEL(prefix##_swiglu, Family, SWIGLU, weights, out.half, f, __VA_ARGS__,         \
                const f16* __restrict__ x, Operand out, int f, int ld, int n)

#define GEMM_FAMILY(family, Family)                                                                                             \
    GEMM_SCHEME(family##_f16, Family, (gemm::F16{w, ld / GROUP}), const f16* __restrict__ w)                                    \
    GEMM_SCHEME(family##_q8, Family, (gemm::Q8{q, scale, ld / GROUP}),                                                          \
                const unsigned char* __restrict__ q, const f16* __restrict__ scale)                                             \
    GEMM_SCHEME(family##_q4, Family, (gemm::Q4{q, scale, min, ld / GROUP}),                                                     \
                const unsigned char* __restrict__ q, const f16* __restrict__ scale, const f16* __restrict__ min)

GEMM_FAMILY(skinny, Skinny)
GEMM_FAMILY(small, Small)
GEMM_FAMILY(gemm, Large)
GEMM_FAMILY(wide, Wide)
