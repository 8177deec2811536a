// y [n, rows] = W x for n ≤ 8 rows of activations: every weight is read once, and memory is what limits.
//
// Variants NT = 1, 2, 4, 8: the least that is not below n. Activations and results beyond row n are neither read nor written, and a row's result does
// not depend on what the other rows hold. f16 weights are row-major [rows, ld] and meet the half operand; q8 and q4 stay as they are in the checkpoint
// (src/device/matrix.rs) and meet the rounded operand. What becomes of the sums:
// - gemv_*_store: y = W x; gemv_*_add: y += W x (the residual); both for any number of rows.
// - gemv_*_swiglu: W is gate_up [2f, hidden], the result silu(gate) · up as an operand [n, f]. A block owns 32 neighbouring outputs, one group of
//   the operand, so f must be a multiple of 32; otherwise take the plain product and swiglu.cu.
//
// Launch: block 256; grid f / 32 for swiglu, else ⌈rows / 32⌉ for q8 and q4 with NT = 8 and ⌈rows / 16⌉ for the others. A matrix of 5120 rows gives
// 320 blocks, 2.4 on each of an H100's 132 processors, and with 4 KB of weights asked for by each warp ten megabytes in flight.
//
// A block is eight warps. Each takes a *unit* of neighbouring rows and every PARTS-th piece of their columns; the parts of a sum meet in shared memory
// and are added in a fixed order. Up to four rows of activations run on ordinary multiply-adds, eight fill a tile of the tensor cores. Two blocks a
// processor leave 128 registers a thread: the loads of a step are then all under way before the first is used.
//
// | scheme | bytes a weight |
// |---|---|
// | f16 | 2 |
// | q8 | 1 + 2/32 = 1.0625 |
// | q4 | 0.5 + 4/32 = 0.625, so at the same bandwidth 3.2 times as fast as f16 |
#include "common.cuh"

namespace gemv {

constexpr int WARPS = 8;
constexpr int THREADS = 32 * WARPS;

// Adds v over the lanes that differ in the bits TOP down to LOW of their number. While a lane holds several values it hands half of them to its
// partner and keeps the others, so with L lanes it ends with max(1, N / L) sums, from v[0] on: those of the values from ⌊lane / LOW⌋ · N / L on.
template <int TOP, int LOW, int N>
__device__ __forceinline__ void scatter_sum(float (&v)[N]) {
    int held = N;
#pragma unroll
    for (int mask = TOP; mask >= LOW; mask >>= 1) {
        if (held == 1) {
            v[0] += __shfl_xor_sync(ALL_LANES, v[0], mask);
            continue;
        }
        held /= 2;
        const bool upper = lane_id() & mask;
#pragma unroll
        for (int i = 0; i < N / 2; i++) {
            if (i >= held) break;
            const float given = upper ? v[i] : v[i + held], kept = upper ? v[i + held] : v[i];
            v[i] = kept + __shfl_xor_sync(ALL_LANES, given, mask);
        }
    }
}

// d [16, 8] += a [16, 32] · b [32, 8], bytes with sign in, exact sums. Fragments (g = lane / 4, t = lane % 4), four bytes a register:
// a: {row g, columns 4t..}, {row g + 8, same}, {row g, columns 4t + 16..}, {row g + 8, same}; b: {rows 4t.., column g}, {rows 4t + 16.., column g};
// d: {row g, columns 2t, 2t + 1}, {row g + 8, same}.
__device__ __forceinline__ void mma_bytes(int (&d)[4], const unsigned (&a)[4], const unsigned (&b)[2]) {
#ifdef LLMAR_EMULATED
    const int g = lane_id() / 4, t = lane_id() % 4;
    for (int k = 0; k < 8; k++) {
        const int low = __shfl_sync(ALL_LANES, static_cast<int>(a[k / 4 * 2]), 4 * g + k % 4);
        const int high = __shfl_sync(ALL_LANES, static_cast<int>(a[k / 4 * 2 + 1]), 4 * g + k % 4);
        const int left = __shfl_sync(ALL_LANES, static_cast<int>(b[k / 4]), 8 * t + k % 4);
        const int right = __shfl_sync(ALL_LANES, static_cast<int>(b[k / 4]), 8 * t + 4 + k % 4);
        d[0] = dot4(low, left, d[0]);
        d[1] = dot4(low, right, d[1]);
        d[2] = dot4(high, left, d[2]);
        d[3] = dot4(high, right, d[3]);
    }
#elif __CUDA_ARCH__ >= 800
    asm volatile(
        "mma.sync.aligned.m16n8k32.row.col.s32.s8.s8.s32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
        : "+r"(d[0]), "+r"(d[1]), "+r"(d[2]), "+r"(d[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
#else // Turing: eight rows and sixteen columns at a time
#pragma unroll
    for (int i = 0; i < 4; i++) {
        asm volatile("mma.sync.aligned.m8n8k16.row.col.s32.s8.s8.s32 {%0,%1}, {%2}, {%3}, {%0,%1};"
                     : "+r"(d[i % 2 * 2]), "+r"(d[i % 2 * 2 + 1])
                     : "r"(a[i]), "r"(b[i / 2]));
    }
#endif
}

// --- f16 ---------------------------------------------------------------------------------------------------------------------------------

// Weights [rows, ld] and activations [n, ld], both with zeros beyond the last column.
//
// A unit is eight rows; a lane takes eight columns of each, 16 bytes, every 256 columns.
template <int NT>
struct F16 {
    static constexpr int UNIT = 8;
    const f16* w;
    const f16* x;
    int rows, ld, n;

    // Sums over part `part` of the columns, for the rows from `row` on; out[t · stride + r].
    template <int PARTS>
    __device__ __forceinline__ void sum(int row, int part, float* out, int stride) const {
        float sums[8 * NT] = {};
        row = min(row, rows - 1);
        const f16* first = w + static_cast<size_t>(row) * ld;
        const int last = rows - 1 - row;
        for (int k = (part * 32 + lane_id()) * 8; k < ld; k += PARTS * 256) {
            uint4 weights[8];
#pragma unroll
            for (int r = 0; r < 8; r++) weights[r] = load_streaming(first + static_cast<size_t>(min(r, last)) * ld + k);
            float values[NT][8];
#pragma unroll
            for (int t = 0; t < NT; t++) unpack(*reinterpret_cast<const uint4*>(x + static_cast<size_t>(min(t, n - 1)) * ld + k), values[t]);
#pragma unroll
            for (int r = 0; r < 8; r++) {
                float weight[8];
                unpack(weights[r], weight);
#pragma unroll
                for (int t = 0; t < NT; t++) {
#pragma unroll
                    for (int i = 0; i < 8; i++) sums[t * 8 + r] = fmaf(weight[i], values[t][i], sums[t * 8 + r]);
                }
            }
        }
        scatter_sum<16, 1>(sums);
        constexpr int LANES = 4 / NT; // that hold the same sum
        const int at = lane_id() / LANES;
        if (lane_id() % LANES == 0) out[at / 8 * stride + at % 8] = sums[0];
    }

    static __device__ __forceinline__ void unpack(const uint4& v, float (&f)[8]) {
        const unsigned pairs[4] = {v.x, v.y, v.z, v.w};
#pragma unroll
        for (int i = 0; i < 4; i++) {
            const float2 pair = unpack_halves(pairs[i]);
            f[2 * i] = pair.x;
            f[2 * i + 1] = pair.y;
        }
    }
};

// On tensor cores. A unit is sixteen rows. The order of columns within a product is free as long as weights and activations agree: of 32 columns,
// lane (g, t) loads the eight from 8t on, of the rows g and g + 8 and of token g, and hands them to two products.
template <>
struct F16<8> {
    static constexpr int UNIT = 16;
    const f16* w;
    const f16* x;
    int rows, ld, n;

    template <int PARTS>
    __device__ __forceinline__ void sum(int row, int part, float* out, int stride) const {
        constexpr int AT_ONCE = 4; // times 32 columns
        const int g = lane_id() / 4, t = lane_id() % 4;
        const f16* low = w + static_cast<size_t>(min(row + g, rows - 1)) * ld + 8 * t;
        const f16* high = w + static_cast<size_t>(min(row + g + 8, rows - 1)) * ld + 8 * t;
        const f16* token = x + static_cast<size_t>(min(g, n - 1)) * ld + 8 * t;
        float d[4] = {};
        for (int k = part * AT_ONCE * 32; k < ld; k += PARTS * AT_ONCE * 32) {
            uint4 a[AT_ONCE], b[AT_ONCE], values[AT_ONCE];
#pragma unroll
            for (int i = 0; i < AT_ONCE; i++) {
                a[i] = b[i] = values[i] = make_uint4(0, 0, 0, 0);
                if (k + 32 * i >= ld) continue;
                a[i] = load_streaming(low + k + 32 * i);
                b[i] = load_streaming(high + k + 32 * i);
                values[i] = *reinterpret_cast<const uint4*>(token + k + 32 * i);
            }
#pragma unroll
            for (int i = 0; i < AT_ONCE; i++) {
                mma_16x8x16(d, {a[i].x, b[i].x, a[i].y, b[i].y}, {values[i].x, values[i].y});
                mma_16x8x16(d, {a[i].z, b[i].z, a[i].w, b[i].w}, {values[i].z, values[i].w});
            }
        }
#pragma unroll
        for (int i = 0; i < 4; i++) out[(2 * t + i % 2) * stride + g + i / 2 * 8] = d[i];
    }
};

// --- q8 and q4 ---------------------------------------------------------------------------------------------------------------------------

// What a lane holds of one group of columns: COUNT times 16 bytes, each a word (four columns) of four rows, and these rows' scales and minima.
template <int COUNT>
struct Slice {
    uint4 q[COUNT];
    uint2 scale, min;
};

// Four halves as floats.
__device__ __forceinline__ void unpack(const uint2& v, float (&f)[4]) {
    const float2 low = unpack_halves(v.x), high = unpack_halves(v.y);
    f[0] = low.x;
    f[1] = low.y;
    f[2] = high.x;
    f[3] = high.y;
}

// Both schemes: `at` is row block · G + group, `quad` which four of the block's rows.
struct Q8 {
    static constexpr int WORDS = 8; // loads of 16 bytes for all columns of four rows
    static constexpr bool AHEAD = false, MINIMA = false;
    const unsigned char* q;
    const f16* scale;

    // Every STEP-th word from `word` on.
    template <int STEP>
    __device__ __forceinline__ Slice<WORDS / STEP> load(size_t at, int quad, int word) const {
        Slice<WORDS / STEP> slice;
#pragma unroll
        for (int i = 0; i < WORDS / STEP; i++) slice.q[i] = load_streaming(q + at * (GROUP * ROW_BLOCK) + (i * STEP + word) * 64 + quad * 16);
        slice.scale = *reinterpret_cast<const uint2*>(scale + at * ROW_BLOCK + quad * 4);
        slice.min = uint2();
        return slice;
    }

    // Bytes with sign: words in the order of their columns, four rows.
    template <int COUNT>
    static __device__ __forceinline__ void expand(const Slice<COUNT>& slice, unsigned (&words)[COUNT][4]) {
#pragma unroll
        for (int i = 0; i < COUNT; i++) { // q − 128
            words[i][0] = slice.q[i].x ^ 0x80808080u;
            words[i][1] = slice.q[i].y ^ 0x80808080u;
            words[i][2] = slice.q[i].z ^ 0x80808080u;
            words[i][3] = slice.q[i].w ^ 0x80808080u;
        }
    }
};

struct Q4 {
    static constexpr int WORDS = 4;
    // A group is half as long as in q8: the next one is asked for before this one is worked on.
    static constexpr bool AHEAD = true, MINIMA = true;
    const unsigned char* q;
    const f16* scale;
    const f16* min;

    template <int STEP>
    __device__ __forceinline__ Slice<WORDS / STEP> load(size_t at, int quad, int word) const {
        Slice<WORDS / STEP> slice;
#pragma unroll
        for (int i = 0; i < WORDS / STEP; i++) slice.q[i] = load_streaming(q + at * (GROUP * ROW_BLOCK / 2) + (i * STEP + word) * 64 + quad * 16);
        slice.scale = *reinterpret_cast<const uint2*>(scale + at * ROW_BLOCK + quad * 4);
        slice.min = *reinterpret_cast<const uint2*>(min + at * ROW_BLOCK + quad * 4);
        return slice;
    }

    // The low nibbles are the first half of the columns, the high nibbles the second.
    template <int COUNT>
    static __device__ __forceinline__ void expand(const Slice<COUNT>& slice, unsigned (&words)[2 * COUNT][4]) {
#pragma unroll
        for (int i = 0; i < COUNT; i++) {
            const unsigned pairs[4] = {slice.q[i].x, slice.q[i].y, slice.q[i].z, slice.q[i].w};
#pragma unroll
            for (int r = 0; r < 4; r++) {
                words[i][r] = pairs[r] & 0x0f0f0f0fu;
                words[COUNT + i][r] = pairs[r] >> 4 & 0x0f0f0f0fu;
            }
        }
    }
};

// Quantised weights and rounded activations x [n, G, 32], scales [n, G]. For each group:
// sum = fma(min, scale_x Σx, fma(Σ q x, weight scale · scale_x, sum)).
//
// A unit is one row block. A lane takes all columns of every eighth group, of four of the rows, so that the integer sum of a group is complete
// before it is scaled; the four lanes of one group read 64 neighbouring bytes at a time.
template <class Weights, int NT>
struct Quantised {
    static constexpr int UNIT = ROW_BLOCK;
    Weights w;
    const signed char* x;
    const float2* x_scale;
    int rows, groups, n;

    template <int PARTS>
    __device__ __forceinline__ void sum(int row, int part, float* out, int stride) const {
        float sums[4 * NT] = {};
        const int quad = lane_id() % 4;
        const size_t block = static_cast<size_t>(row / ROW_BLOCK) * groups;
        int g = part * 8 + lane_id() / 4;
        Slice<Weights::WORDS> next;
        if (Weights::AHEAD && g < groups) next = w.template load<1>(block + g, quad, 0);
        while (g < groups) {
            const int ahead = g + PARTS * 8;
            Slice<Weights::WORDS> slice;
            if (Weights::AHEAD) {
                slice = next;
                if (ahead < groups) next = w.template load<1>(block + ahead, quad, 0);
            } else {
                slice = w.template load<1>(block + g, quad, 0);
            }
            unsigned words[8][4];
            float scale[4], least[4];
            Weights::expand(slice, words);
            unpack(slice.scale, scale);
            unpack(slice.min, least);
#pragma unroll
            for (int t = 0; t < NT; t++) {
                const int at = min(t, n - 1) * groups + g;
                const uint4* from = reinterpret_cast<const uint4*>(x) + at * 2;
                const uint4 low = from[0], high = from[1];
                const float2 meta = x_scale[at];
                const unsigned values[8] = {low.x, low.y, low.z, low.w, high.x, high.y, high.z, high.w};
                int dots[4] = {FLOAT_BIAS, FLOAT_BIAS, FLOAT_BIAS, FLOAT_BIAS};
#pragma unroll
                for (int j = 0; j < 8; j++) {
#pragma unroll
                    for (int r = 0; r < 4; r++) dots[r] = dot4(words[j][r], values[j], dots[r]);
                }
#pragma unroll
                for (int r = 0; r < 4; r++) {
                    float& sum = sums[t * 4 + r];
                    sum = fmaf(biased_to_float(dots[r]), scale[r] * meta.x, sum);
                    if (Weights::MINIMA) sum = fmaf(least[r], meta.y, sum);
                }
            }
            g = ahead;
        }
        scatter_sum<16, 4>(sums);
        constexpr int HELD = NT > 2 ? NT / 2 : 1, LANES = NT > 2 ? 1 : 2 / NT; // sums that a lane holds, eighths of a warp that hold the same
        const int at = lane_id() / 4 / LANES * HELD;
        if (lane_id() / 4 % LANES != 0) return;
#pragma unroll
        for (int i = 0; i < HELD; i++) out[(at + i) / 4 * stride + quad * 4 + (at + i) % 4] = sums[i];
    }
};

// On tensor cores. A unit is two row blocks, eight times four rows: lane (g, t) loads the words t and t + 4 of rows 4g to 4g + 3, which are rows g and
// g + 8 of two products. It receives the sums of its four rows for the tokens 2t and 2t + 1.
template <class Weights>
struct Quantised<Weights, 8> {
    static constexpr int UNIT = 2 * ROW_BLOCK;
    Weights w;
    const signed char* x;
    const float2* x_scale;
    int rows, groups, n;

    template <int PARTS>
    __device__ __forceinline__ void sum(int row, int part, float* out, int stride) const {
        constexpr int COUNT = Weights::WORDS / 4, AT_ONCE = 8 / COUNT;
        const int g = lane_id() / 4, t = lane_id() % 4;
        const size_t block = static_cast<size_t>(min(row + 4 * g, rows - 1) / ROW_BLOCK) * groups;
        const unsigned* values = reinterpret_cast<const unsigned*>(x) + min(g, n - 1) * groups * 8 + t;
        const float2* meta[2] = {x_scale + min(2 * t, n - 1) * groups, x_scale + min(2 * t + 1, n - 1) * groups};
        float sums[2][4] = {};
        for (int first = part * AT_ONCE; first < groups; first += PARTS * AT_ONCE) {
            Slice<COUNT> slices[AT_ONCE];
#pragma unroll
            for (int i = 0; i < AT_ONCE; i++) {
                if (first + i < groups) slices[i] = w.template load<4>(block + first + i, g % 4, t);
            }
#pragma unroll
            for (int i = 0; i < AT_ONCE; i++) {
                if (first + i >= groups) break; // the same for all lanes
                unsigned words[2][4];
                float scale[4], least[4];
                Weights::expand(slices[i], words);
                unpack(slices[i].scale, scale);
                unpack(slices[i].min, least);
                const unsigned token[2] = {values[(first + i) * 8], values[(first + i) * 8 + 4]};
                int dots[2][4] = {{FLOAT_BIAS, FLOAT_BIAS, FLOAT_BIAS, FLOAT_BIAS}, {FLOAT_BIAS, FLOAT_BIAS, FLOAT_BIAS, FLOAT_BIAS}};
                mma_bytes(dots[0], {words[0][0], words[0][1], words[1][0], words[1][1]}, token);
                mma_bytes(dots[1], {words[0][2], words[0][3], words[1][2], words[1][3]}, token);
#pragma unroll
                for (int s = 0; s < 2; s++) {
                    const float2 m = meta[s][first + i];
#pragma unroll
                    for (int r = 0; r < 4; r++) {
                        sums[s][r] = fmaf(biased_to_float(dots[r / 2][r % 2 * 2 + s]), scale[r] * m.x, sums[s][r]);
                        if (Weights::MINIMA) sums[s][r] = fmaf(least[r], m.y, sums[s][r]);
                    }
                }
            }
        }
#pragma unroll
        for (int s = 0; s < 2; s++) {
#pragma unroll
            for (int r = 0; r < 4; r++) out[(2 * t + s) * stride + 4 * g + r] = sums[s][r];
        }
    }
};

// --- what becomes of the sums ------------------------------------------------------------------------------------------------------------

// The parts of sum [t][r], added in their order.
template <int PARTS, int NT, int ROWS>
__device__ __forceinline__ float total(const float (&sums)[PARTS][NT][ROWS], int t, int r) {
    float sum = sums[0][t][r];
#pragma unroll
    for (int part = 1; part < PARTS; part++) sum += sums[part][t][r];
    return sum;
}

// y = or y += the sums of at least 16 neighbouring rows.
template <bool ADD>
struct Plain {
    static constexpr int LEAST = 16;
    float* y;
    int rows, n;

    // The matrix's row that is row r of this block.
    template <int ROWS>
    __device__ __forceinline__ int row(int r) const {
        return blockIdx.x * ROWS + r;
    }

    template <int PARTS, int NT, int ROWS>
    __device__ __forceinline__ void write(const float (&sums)[PARTS][NT][ROWS]) const {
        static_assert(NT * ROWS <= THREADS, "a thread has one sum at most");
        const int t = threadIdx.x / ROWS, r = threadIdx.x % ROWS, at = row<ROWS>(r);
        if (t >= NT || t >= n || at >= rows) return;
        float& out = y[static_cast<size_t>(t) * rows + at];
        const float sum = total(sums, t, r);
        out = ADD ? out + sum : sum;
    }
};

// silu(gate) · up of 32 neighbouring outputs: 32 rows of the gate, then the 32 of `up` that belong to them. A warp writes a token.
struct Activated {
    static constexpr int LEAST = 64;
    Operand out;
    int f, n;

    template <int ROWS>
    __device__ __forceinline__ int row(int r) const {
        return blockIdx.x * 32 + (r < 32 ? r : f + r - 32);
    }

    template <int PARTS, int NT, int ROWS>
    __device__ __forceinline__ void write(const float (&sums)[PARTS][NT][ROWS]) const {
        const int t = warp_id();
        if (t >= NT || t >= n) return;
        const float gate = total(sums, t, lane_id()), up = total(sums, t, 32 + lane_id());
        store_group(out, t, blockIdx.x, f / 32, gate / (1.0f + expf(-gate)) * up);
    }
};

template <int NT, class Product, class Result>
__device__ __forceinline__ void run(const Product& product, const Result& result) {
    constexpr int UNIT = Product::UNIT, ROWS = UNIT > Result::LEAST ? UNIT : Result::LEAST, UNITS = ROWS / UNIT, PARTS = WARPS / UNITS;
    __shared__ float sums[PARTS][NT][ROWS];
    const int unit = warp_id() % UNITS, part = warp_id() / UNITS;
    product.template sum<PARTS>(result.template row<ROWS>(unit * UNIT), part, &sums[part][0][unit * UNIT], ROWS);
    __syncthreads();
    result.write(sums);
}

} // namespace gemv

// --- kernels -----------------------------------------------------------------------------------------------------------------------------

#define GEMV_KERNEL(name, NT, product, result, ...)                                    \
    extern "C" __global__ void __launch_bounds__(gemv::THREADS, 2) name(__VA_ARGS__) { \
        gemv::run<NT>(product, result);                                                \
    }                                                                                  \
    EMU_KERNEL(name)

// y [n, rows] and out [n, f]; w [rows, ld] or [2f, ld], x [n, ld].
#define GEMV_F16(NT)                                                                                                              \
    GEMV_KERNEL(gemv_f16_n##NT##_store, NT, (gemv::F16<NT>{w, x, rows, ld, n}), (gemv::Plain<false>{y, rows, n}),                \
                const f16* __restrict__ w, const f16* __restrict__ x, float* __restrict__ y, int rows, int ld, int n)            \
    GEMV_KERNEL(gemv_f16_n##NT##_add, NT, (gemv::F16<NT>{w, x, rows, ld, n}), (gemv::Plain<true>{y, rows, n}),                   \
                const f16* __restrict__ w, const f16* __restrict__ x, float* __restrict__ y, int rows, int ld, int n)            \
    GEMV_KERNEL(gemv_f16_n##NT##_swiglu, NT, (gemv::F16<NT>{w, x, 2 * f, ld, n}), (gemv::Activated{out, f, n}),                  \
                const f16* __restrict__ w, const f16* __restrict__ x, Operand out, int f, int ld, int n)

GEMV_F16(1)
GEMV_F16(2)
GEMV_F16(4)
GEMV_F16(8)

// q and scale as in the checkpoint, x [n, groups, 32] and x_scale [n, groups] of the rounded operand.
#define GEMV_Q8_KERNEL(name, NT, rows, result, ...)                                                                               \
    GEMV_KERNEL(name, NT, (gemv::Quantised<gemv::Q8, NT>{{q, scale}, x, x_scale, rows, groups, n}), result,                      \
                const unsigned char* __restrict__ q, const f16* __restrict__ scale, const signed char* __restrict__ x,           \
                const float2* __restrict__ x_scale, __VA_ARGS__, int groups, int n)
#define GEMV_Q8(NT)                                                                                                               \
    GEMV_Q8_KERNEL(gemv_q8_n##NT##_store, NT, rows, (gemv::Plain<false>{y, rows, n}), float* __restrict__ y, int rows)           \
    GEMV_Q8_KERNEL(gemv_q8_n##NT##_add, NT, rows, (gemv::Plain<true>{y, rows, n}), float* __restrict__ y, int rows)              \
    GEMV_Q8_KERNEL(gemv_q8_n##NT##_swiglu, NT, 2 * f, (gemv::Activated{out, f, n}), Operand out, int f)

GEMV_Q8(1)
GEMV_Q8(2)
GEMV_Q8(4)
GEMV_Q8(8)

// The same with the minima.
#define GEMV_Q4_KERNEL(name, NT, rows, result, ...)                                                                               \
    GEMV_KERNEL(name, NT, (gemv::Quantised<gemv::Q4, NT>{{q, scale, min}, x, x_scale, rows, groups, n}), result,                 \
                const unsigned char* __restrict__ q, const f16* __restrict__ scale, const f16* __restrict__ min,                 \
                const signed char* __restrict__ x, const float2* __restrict__ x_scale, __VA_ARGS__, int groups, int n)
#define GEMV_Q4(NT)                                                                                                               \
    GEMV_Q4_KERNEL(gemv_q4_n##NT##_store, NT, rows, (gemv::Plain<false>{y, rows, n}), float* __restrict__ y, int rows)           \
    GEMV_Q4_KERNEL(gemv_q4_n##NT##_add, NT, rows, (gemv::Plain<true>{y, rows, n}), float* __restrict__ y, int rows)              \
    GEMV_Q4_KERNEL(gemv_q4_n##NT##_swiglu, NT, 2 * f, (gemv::Activated{out, f, n}), Operand out, int f)

GEMV_Q4(1)
GEMV_Q4(2)
GEMV_Q4(4)
GEMV_Q4(8)
