// Encoder features → indices of the nearest codes, in one kernel: conditioning, exponential map, distances and their least. Neither conditioned
// features nor points nor scores are ever in device memory, and the features are read once for 512 codes.
//
// The point of a feature f is x = s f with one scalar s, ‖x‖ = h(‖f‖), h(r) = min(g r, clip) in flat space and tanh(√c min(g r, clip)) / √c in the
// ball. Codes are ordered by ‖x − c_u‖² · gap_u = (‖x‖² − 2 s ⟨f, c_u⟩ + ‖c_u‖²) · gap_u, where gap_u = 1 / (1 − c‖c_u‖²), or 1 in flat space. The
// tensor cores give ⟨f, c_u⟩ of halves while ‖f‖² is summed beside them, and s comes last. That product is known to within a proven bound (see
// `Bounds` and nearest_codes_prepare), so each code's value lies in an interval, and a code whose interval lies above another's end is not the
// nearest. What is left, one code in the usual case, is compared by ‖x − c_u‖² itself: in f32 with a bound of its own, and where that leaves
// several, in f64. So the result is the f64 argmin, the lower index on ties, whatever the features hold.
//
// Each feature is multiplied by a power of two before it is rounded to halves, one that brings the largest of its first columns to 1..2.
#include "common.cuh"

namespace nearest_codes {

constexpr int THREADS = 256;
constexpr int WARPS = 8;
constexpr int WARP_CODES = 64;
constexpr int TILES = WARP_CODES / 8;       // products eight codes wide
constexpr int CHUNK = WARPS * WARP_CODES;   // codes that a block compares at a time
constexpr int WORDS = CHUNK / 32;           // of a set of them
constexpr float UNIT = 0x1p-24f;            // an f32 operation is off by at most this share of its result
constexpr float ENDLESS = 0x1p-56f;         // above √d · 2^-63: what squares below f32's range can hide of a norm

__device__ __forceinline__ float infinity() { return __int_as_float(0x7f800000); }
__device__ __forceinline__ float not_a_number() { return __int_as_float(0x7fffffff); }
// 2^(biased − 127) for 1..254.
__device__ __forceinline__ float power_of_two(unsigned biased) { return __uint_as_float(biased << 23); }

struct Problem {
    const float* features; // [n, d]
    int n, d;
    float gain, clip, curvature;
    const float* points;         // [U, d]
    const f16* halves;           // [U, ld]
    const float4* codes;         // [U] {‖c‖², gap, ‖c‖, error}, see nearest_codes_prepare
    const double* inverse_gap;   // [U]
    int count, ld;               // U, ⌈d / 32⌉ · 32
    float half_unit;             // the halves are multiples of this: 1 / scale of nearest_codes_prepare
    unsigned short* out;         // [n]
    unsigned* damaged;
};

// What is known of one feature's products and of its point, with e the exponent of the feature's power of two. A value t = ‖x‖² + ‖c‖² − twice_s p
// is off by at most of_norm ‖c‖ + of_error E + fixed + 2^-19 ‖c‖².
struct Bounds {
    float squared;  // ‖x‖²
    float twice_s;  // 2 s, for products of halves
    float of_norm, of_error, fixed;
    float s;        // NaN where f32 does not hold it
    float spread;   // bound of the error of s f, as a norm
    float strange;  // not 0: a feature that may not be finite
};

// Rows of features and columns at a time. Shared memory: stages of codes, two stages of features, and by row what outlives them.
template <int TILES_DOWN, int COLUMNS, int COPIES, int LOADERS_A_ROW, bool WHOLE_STAGES>
struct Shape {
    static constexpr int SHARERS = LOADERS_A_ROW; // threads that share the loads of a row
    static constexpr bool WHOLE = WHOLE_STAGES; // d is a multiple of 32
    static constexpr int DOWN = TILES_DOWN, ROWS = 16 * TILES_DOWN, DEPTH = COLUMNS, STAGES = COPIES;
    static constexpr int SEGMENTS = DEPTH / 8;                // of 16 bytes in a row of a stage
    static constexpr int CODE_BYTES = CHUNK * DEPTH * 2, FEATURE_BYTES = ROWS * DEPTH * 2;
    static constexpr int BOUNDS_AT = STAGES * CODE_BYTES + 2 * FEATURE_BYTES;
    static constexpr int SETS_AT = BOUNDS_AT + ROWS * static_cast<int>(sizeof(Bounds));
    static constexpr int LEAST_AT = SETS_AT + ROWS * WORDS * 4;
    static constexpr int BEST_AT = LEAST_AT + ROWS * 4;
    static constexpr int BYTES = BEST_AT + ROWS * 4;
    // After the product the stages' memory holds the codes' numbers and each warp's least ends.
    static constexpr int ENDS_AT = CHUNK * 16;
    static_assert(ENDS_AT + WARPS * ROWS * 4 <= STAGES * CODE_BYTES, "room for what follows the product");

    // Bytes from a stage's start to a segment. Any eight neighbouring rows of one segment lie in different banks.
    static __device__ __forceinline__ int place(int row, int segment) {
        return row * (DEPTH * 2) + (segment ^ (row / (8 / SEGMENTS) & (SEGMENTS - 1))) * 16;
    }
};

// Asks for memory that is going to be read, without waiting.
__device__ __forceinline__ void prefetch(const void* global) {
#ifdef LLMAR_EMULATED
    (void)*static_cast<const volatile char*>(global);
#else
    asm volatile("prefetch.global.L2 [%0];" ::"l"(global));
#endif
}

// Two halves of one register; one conversion where the GPU has it.
__device__ __forceinline__ unsigned pack(float low, float high) {
#if defined(LLMAR_EMULATED) || __CUDA_ARCH__ < 800
    return pack_halves(low, high);
#else
    unsigned pair;
    asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(high), "f"(low));
    return pair;
#endif
}

// --- features ----------------------------------------------------------------------------------------------------------------------------

// This thread's part of the features, where it has one: of one row four of every 4 · SHARERS columns, and sums over all stages of φ² and of what
// rounding took from φ, where φ is the feature times its power of two.
template <class S>
struct Features {
    static constexpr int HALF = S::DEPTH / 16; // a stage comes in two, so that fewer registers wait for memory, or in one
    static constexpr int STEP = 4 * S::SHARERS, PIECES = S::DEPTH / STEP / HALF;
    const float* at; // its columns of the next stage
    int left;        // columns of the row from there on
    float scale, norm, lost;

    static __device__ __forceinline__ bool has_part() { return threadIdx.x < S::SHARERS * S::ROWS; } // the same for all lanes of a warp
    static __device__ __forceinline__ int row() { return threadIdx.x / S::SHARERS; }
    static __device__ __forceinline__ int column() { return threadIdx.x % S::SHARERS * 4; }

    // A row beyond the last is read as the last one.
    __device__ __forceinline__ void start(const Problem& p, size_t first) {
        const size_t wanted = first + row(), last = p.n - 1;
        at = p.features + (wanted < last ? wanted : last) * p.d + column();
        left = p.d - column();
        norm = lost = 0.0f;
    }

    // Loads a half of the next stage; after the last half that is the one behind it.
    __device__ __forceinline__ void load(int half, float4 (&value)[PIECES]) {
        if (!has_part()) return;
#pragma unroll
        for (int i = 0; i < PIECES; i++) {
            const int skipped = (half * PIECES + i) * STEP;
            const float* from = at + skipped;
            if (S::WHOLE) {
                const uint4 bits = load_streaming(from);
                value[i] = make_float4(__uint_as_float(bits.x), __uint_as_float(bits.y), __uint_as_float(bits.z), __uint_as_float(bits.w));
            } else {
                value[i].x = left > skipped ? from[0] : 0.0f;
                value[i].y = left > skipped + 1 ? from[1] : 0.0f;
                value[i].z = left > skipped + 2 ? from[2] : 0.0f;
                value[i].w = left > skipped + 3 ? from[3] : 0.0f;
            }
        }
        if (half == HALF - 1) {
            at += S::DEPTH;
            left -= S::DEPTH;
        }
    }

    // Asks for the stage `ahead` of the next.
    __device__ __forceinline__ void ask_for(int ahead) const {
        if (!has_part()) return;
#pragma unroll
        for (int skipped = 0; skipped < S::DEPTH; skipped += STEP) {
            if (S::WHOLE || left > ahead * S::DEPTH + skipped) prefetch(at + ahead * S::DEPTH + skipped);
        }
    }

    // Chooses the power of two by what has been loaded: 2^-E for a largest magnitude of 2^E..2^(E + 1), 1 where that is zero.
    __device__ __forceinline__ void choose_scale(const float4 (&value)[PIECES]) {
        unsigned largest = 0;
#pragma unroll
        for (int i = 0; i < PIECES; i++) {
            const float v[4] = {value[i].x, value[i].y, value[i].z, value[i].w};
#pragma unroll
            for (int k = 0; k < 4; k++) largest = max(largest, __float_as_uint(v[k]) & 0x7fffffffu);
        }
#pragma unroll
        for (int mask = 1; mask < S::SHARERS; mask *= 2) largest = max(largest, __shfl_xor_sync(ALL_LANES, largest, mask));
        const unsigned exponent = min(largest >> 23, 253u); // so that 2^-E is not subnormal
        scale = exponent == 0 || largest >= 0x7f800000u ? 1.0f : power_of_two(254 - exponent);
    }

    // Rounds what has been loaded into a stage of shared memory.
    __device__ __forceinline__ void store(unsigned char* stage, int half, const float4 (&value)[PIECES]) {
        if (!has_part()) return;
#pragma unroll
        for (int i = 0; i < PIECES; i++) {
            const float x = value[i].x * scale, y = value[i].y * scale, z = value[i].z * scale, w = value[i].w * scale;
            uint2 pairs;
            pairs.x = pack(x, y);
            pairs.y = pack(z, w);
            *reinterpret_cast<uint2*>(stage + S::place(row(), ((half * PIECES + i) * STEP + column()) / 8) + column() % 8 * 2) = pairs;
            norm += fmaf(x, x, fmaf(y, y, fmaf(z, z, w * w)));
            const float2 xy = unpack_halves(pairs.x), zw = unpack_halves(pairs.y);
            const float dx = x - xy.x, dy = y - xy.y, dz = z - zw.x, dw = w - zw.y; // exact
            lost += fmaf(dx, dx, fmaf(dy, dy, fmaf(dz, dz, dw * dw)));
        }
    }

    // Leaves its sums where `bounds_of` finds them.
    __device__ __forceinline__ void leave(Bounds* bounds, int stages) {
#pragma unroll
        for (int mask = 1; mask < S::SHARERS; mask *= 2) {
            norm += __shfl_xor_sync(ALL_LANES, norm, mask);
            lost += __shfl_xor_sync(ALL_LANES, lost, mask);
        }
        if (!has_part() || column() != 0) return;
        bounds[row()].squared = norm;
        bounds[row()].of_norm = lost;
        bounds[row()].s = scale;
        bounds[row()].spread = (stages * (S::DEPTH / 8) + 16) * UNIT;
    }
};

// Bounds of one feature from its sums, as Features::leave left them. What is known of norms: a sum of squares is off by a share of η, 2^-24 for
// each of the at most d / 8 + 16 roundings that a square goes through, and squares below f32's range hide at most ENDLESS of a norm.
__device__ __forceinline__ Bounds bounds_of(const Problem& p, const Bounds& sums) {
    Bounds b;
    const float eta = sums.spread, norm = sqrtf(sums.squared), scale = sums.s;
    b.strange = sums.squared < infinity() ? 0.0f : 1.0f;
    if (norm < 0x1p-30f) {
        // All halves are zero: the point is anywhere within `reach` of the origin. Here the power of two is 1, so `reach` is in range.
        const float reach = p.gain * (1.01f * norm + ENDLESS);
        b.squared = b.twice_s = b.of_error = b.spread = 0.0f;
        b.of_norm = 2.01f * reach;
        b.fixed = fmaf(1.01f * reach, reach, 1e-35f);
        b.s = not_a_number();
        return b;
    }
    // ‖x‖ = h(‖f‖) by a few f32 operations, tanhf good to some units in the last place. h is concave from 0 on and so does not amplify relative errors.
    const double long_norm = static_cast<double>(p.gain) * norm * power_of_two(254 - (__float_as_uint(scale) >> 23));
    float length = long_norm < p.clip ? static_cast<float>(long_norm) : p.clip;
    if (p.curvature > 0.0f) {
        const float root = sqrtf(p.curvature);
        length = tanhf(root * length) / root;
    }
    const float share = eta + 32 * UNIT, s = length / norm;
    b.squared = length * length;
    b.twice_s = 2.0f * s * p.half_unit;
    // |⟨φ, c⟩ − ⟨φ̂, ĉ⟩| ≤ ‖φ − φ̂‖ ‖c‖ + ‖φ̂‖ E, and an error of 3 `share` of s and of ‖x‖².
    const float lost = fmaf(sqrtf(sums.of_norm), 1.0f + eta, ENDLESS);
    b.of_norm = 1.001f * (2.0f * s * lost + 6.0f * share * length);
    b.of_error = 1.001f * (2.0f * s * (norm * (1.0f + eta) + lost));
    b.fixed = fmaf(3.01f * share + 0x1p-19f, b.squared, 1e-35f);
    b.s = s * scale;
    if (!(b.s > 1e-30f && b.s < 1e30f)) b.s = not_a_number();
    b.spread = 3.01f * share * length;
    return b;
}

// --- intervals ---------------------------------------------------------------------------------------------------------------------------

struct Interval {
    float low, high; // NaN where nothing is known
};

// Of ‖x − c‖² gap. With X = ‖x‖² and C = ‖c‖² as they are, the f32 operations here are off by less than 16 · 2^-24 (X + C) and some 2^-22 of the bound
// itself: that is in the 2^-19 and in the factors 1.001 of the bounds.
__device__ __forceinline__ Interval interval(const Bounds& b, const float4& code, float product) {
    const float middle = fmaf(-b.twice_s, product, b.squared + code.x);
    const float error = fmaf(b.of_norm, code.z, fmaf(b.of_error, code.w, fmaf(0x1p-19f, code.x, b.fixed)));
    return {(middle - error) * code.y, (middle + error) * code.y};
}

// --- decision among candidates -----------------------------------------------------------------------------------------------------------

// ‖s f − c‖² of two codes in f32, the same in all lanes. The order of the sums depends on d alone.
__device__ __forceinline__ float2 squared_distances(const float* f, float s, const float* c0, const float* c1, int d) {
    float2 sum = make_float2(0.0f, 0.0f);
    if (d % 4 == 0) {
        float4 a = make_float4(0.0f, 0.0f, 0.0f, 0.0f), b = a;
        const int lane = 4 * lane_id();
#pragma unroll 4
        for (int i = 0; i < d; i += 128) {
            if (i + lane >= d) break;
            const float4 v = *reinterpret_cast<const float4*>(f + i + lane);
            const float4 p = *reinterpret_cast<const float4*>(c0 + i + lane), q = *reinterpret_cast<const float4*>(c1 + i + lane);
            const float px = fmaf(s, v.x, -p.x), py = fmaf(s, v.y, -p.y), pz = fmaf(s, v.z, -p.z), pw = fmaf(s, v.w, -p.w);
            const float qx = fmaf(s, v.x, -q.x), qy = fmaf(s, v.y, -q.y), qz = fmaf(s, v.z, -q.z), qw = fmaf(s, v.w, -q.w);
            a.x = fmaf(px, px, a.x), a.y = fmaf(py, py, a.y), a.z = fmaf(pz, pz, a.z), a.w = fmaf(pw, pw, a.w);
            b.x = fmaf(qx, qx, b.x), b.y = fmaf(qy, qy, b.y), b.z = fmaf(qz, qz, b.z), b.w = fmaf(qw, qw, b.w);
        }
        sum.x = (a.x + a.y) + (a.z + a.w);
        sum.y = (b.x + b.y) + (b.z + b.w);
    } else {
#pragma unroll 1
        for (int i = lane_id(); i < d; i += 32) {
            const float p = fmaf(s, f[i], -c0[i]), q = fmaf(s, f[i], -c1[i]);
            sum.x = fmaf(p, p, sum.x);
            sum.y = fmaf(q, q, sum.y);
        }
    }
    sum.x = warp_sum(sum.x);
    sum.y = warp_sum(sum.y);
    return sum;
}

// The same of x known to within `spread`: a norm of differences is off by that, by the rounding of each of them and of their sum.
__device__ __forceinline__ Interval interval_of_distance(float squared, float spread, float gap, int d) {
    const float root = sqrtf(squared), off = fmaf((d / 32 + 24) * UNIT, root, spread + ENDLESS);
    const float low = fmaxf(root - off, 0.0f), high = root + off;
    return {squared < infinity() ? low * low * gap * (1.0f - 8 * UNIT) : -infinity(), high * high * gap * (1.0f + 8 * UNIT)};
}

__device__ __forceinline__ double warp_sum_f64(double v) {
#pragma unroll
    for (int mask = 16; mask > 0; mask >>= 1) v += __shfl_xor_sync(ALL_LANES, v, mask);
    return v;
}

// The nearest in f64 of the codes that the lanes of the set `left` hold, the lower index on ties; -1 if all of them are infinitely far away.
__device__ __forceinline__ int nearest_exactly(const Problem& p, const float* f, int mine, unsigned left) {
    double squared = 0.0;
#pragma unroll 1
    for (int i = lane_id(); i < p.d; i += 32) squared += static_cast<double>(f[i]) * f[i];
    const double norm = sqrt(warp_sum_f64(squared));
    const bool finite = norm < 1e100; // of finite f32 it is below 1e41
    const double gain = p.gain, clip = p.clip;
    double s = gain * norm > clip ? gain * (clip / (gain * norm)) : gain;
    if (p.curvature > 0.0f) {
        const double scaled = sqrt(static_cast<double>(p.curvature)) * s * norm;
        if (scaled > 0.0) s *= tanh(scaled) / scaled;
    }
    int best = -1;
    double least = infinity();
    for (; left; left &= left - 1) {
        const int code = __shfl_sync(ALL_LANES, mine, __ffs(left) - 1);
        const float* c = p.points + static_cast<size_t>(code) * p.d;
        double sum = 0.0;
#pragma unroll 4
        for (int i = 0; i < p.d; i += 32) {
            if (i + lane_id() >= p.d) break;
            const double apart = (finite ? s * f[i + lane_id()] : 0.0) - c[i + lane_id()];
            sum += apart * apart;
        }
        const double value = warp_sum_f64(sum) * p.inverse_gap[code];
        if (value < least || (value == least && code < best)) {
            least = value;
            best = code;
        }
    }
    return best;
}

// The nearest of the codes that the first `held` lanes hold.
__device__ __forceinline__ int decide(const Problem& p, const Bounds& b, const float* f, int mine, int held) {
    unsigned left = ALL_LANES >> (32 - held);
    if (b.s > 0.0f) {
        float low = 0.0f, least = infinity();
        for (int j = 0; j < held; j += 2) {
            const int k = min(j + 1, held - 1);
            const int code0 = __shfl_sync(ALL_LANES, mine, j), code1 = __shfl_sync(ALL_LANES, mine, k);
            const float* points = p.points;
            const float2 squared = squared_distances(f, b.s, points + static_cast<size_t>(code0) * p.d, points + static_cast<size_t>(code1) * p.d, p.d);
            const Interval i0 = interval_of_distance(squared.x, b.spread, p.codes[code0].y, p.d);
            const Interval i1 = interval_of_distance(squared.y, b.spread, p.codes[code1].y, p.d);
            if (lane_id() == j) low = i0.low;
            if (lane_id() == k) low = i1.low;
            least = fminf(least, fminf(i0.high, i1.high));
        }
        left = __ballot_sync(ALL_LANES, lane_id() < held && !(low > least));
    }
    if (__popc(left) == 1) return __shfl_sync(ALL_LANES, mine, __ffs(left) - 1);
    return nearest_exactly(p, f, mine, left);
}

// Whether a feature holds a value that is not finite.
__device__ __forceinline__ bool is_damaged(const float* f, int d) {
    unsigned largest = 0;
#pragma unroll 1
    for (int i = lane_id(); i < d; i += 32) largest = max(largest, __float_as_uint(f[i]) & 0x7fffffffu);
    return __any_sync(ALL_LANES, largest >= 0x7f800000u);
}

// The nearest of one feature's candidates in a chunk, bits of a set whose word i lane i holds, and of `best`, the nearest in the chunks before; -1 is none.
__device__ __forceinline__ int settle(const Problem& p, const Bounds& b, const float* f, int chunk, unsigned word, int best) {
    int mine = best, held = best >= 0 ? 1 : 0;
    for (unsigned words = __ballot_sync(ALL_LANES, word != 0); words; words &= words - 1) {
        const int i = __ffs(words) - 1;
        for (unsigned set = __shfl_sync(ALL_LANES, word, i); set; set &= set - 1) {
            if (held == 32) {
                mine = decide(p, b, f, mine, held);
                held = mine >= 0 ? 1 : 0;
            }
            if (lane_id() == held) mine = chunk + 32 * i + __ffs(set) - 1;
            held++;
        }
    }
    if (held == 0) return -1;
    return held == 1 ? __shfl_sync(ALL_LANES, mine, 0) : decide(p, b, f, mine, held);
}

// --- the product -------------------------------------------------------------------------------------------------------------------------

// Starts the copies of one stage of codes: columns stage · DEPTH.. of the codes chunk.., zeros where there is no code.
template <class S>
__device__ __forceinline__ void copy_codes(const Problem& p, int chunk, int stage, unsigned char* to) {
    const int row = threadIdx.x / S::SEGMENTS, segment = threadIdx.x % S::SEGMENTS;
    constexpr int STRIDE = THREADS / S::SEGMENTS;
    const f16* from = p.halves + static_cast<size_t>(chunk + row) * p.ld + stage * S::DEPTH + segment * 8;
    to += S::place(row, segment);
    // Not unrolled: addresses that stay the same would take the registers of sums.
#pragma unroll 1
    for (int i = 0; i < CHUNK; i += STRIDE) {
        copy_async(to, from, row + i < p.count - chunk);
        to += STRIDE * S::DEPTH * 2;
        from += STRIDE * p.ld;
    }
}

// sums += φ̂ ĉ over columns 16 k.. of one stage, for all rows and this warp's codes.
template <class S>
__device__ __forceinline__ void multiply(float (&sums)[S::DOWN][TILES][4], const unsigned char* codes, const unsigned char* features, int k) {
    const int row = lane_id() % 8, matrix = lane_id() / 8;
    // Matrices of codes in order {codes 0..7, columns 0..7}, {same, 8..15}, {codes 8..15, ..}; of features {rows 0..7, columns 0..7}, {rows 8..15, same}, ..
    const unsigned char* code = codes + S::place(warp_id() * WARP_CODES + matrix / 2 * 8 + row, 0);
    const unsigned char* feature = features + S::place(matrix % 2 * 8 + row, 0);
    const int turn = S::place(row, 0) - row * S::DEPTH * 2; // a row's segments are permuted by an exclusive or with this
    const int of_code = ((2 * k + matrix % 2) * 16 ^ turn) - turn, of_feature = ((2 * k + matrix / 2) * 16 ^ turn) - turn;
    unsigned b[TILES][2];
#pragma unroll
    for (int i = 0; i < TILES; i += 2) {
        unsigned two[4];
        load_matrices(two, code + i * 8 * S::DEPTH * 2 + of_code);
        b[i][0] = two[0], b[i][1] = two[1], b[i + 1][0] = two[2], b[i + 1][1] = two[3];
    }
#pragma unroll
    for (int m = 0; m < S::DOWN; m++) {
        unsigned a[4];
        load_matrices(a, feature + m * 16 * S::DEPTH * 2 + of_feature);
#pragma unroll
        for (int i = 0; i < TILES; i++) mma_16x8x16(sums[m][i], a, b[i]);
    }
}

// Products of the block's rows with a chunk of codes; leaves the rows' sums in shared memory. Ends without a barrier.
template <class S>
__device__ __forceinline__ void product(const Problem& p, size_t first, int chunk, unsigned char* memory, float (&sums)[S::DOWN][TILES][4]) {
    unsigned char* const features = memory + S::STAGES * S::CODE_BYTES;
    const int stages = p.ld / S::DEPTH;
#pragma unroll
    for (int s = 0; s < S::STAGES - 1; s++) {
        if (s < stages) copy_codes<S>(p, chunk, s, memory + s * S::CODE_BYTES);
        copy_commit();
    }
    Features<S> mine;
    mine.start(p, first);
    for (int half = 0; half < mine.HALF; half++) {
        float4 value[mine.PIECES] = {};
        mine.load(half, value);
        if (half == 0) mine.choose_scale(value);
        mine.store(features, half, value);
    }
#pragma unroll 1
    for (int s = 0; s < stages; s++) {
        copy_wait<S::STAGES - 2>();
        __syncthreads(); // stage s is there, and nobody reads the one before it any more
        const int ahead = s + S::STAGES - 1;
        if (ahead < stages) copy_codes<S>(p, chunk, ahead, memory + ahead % S::STAGES * S::CODE_BYTES);
        copy_commit();
        if (s + 3 < stages) mine.ask_for(2);
        // The next features come from the second-level cache while the tensor cores work.
#pragma unroll 1
        for (int half = 0; half < mine.HALF; half++) {
            float4 value[mine.PIECES] = {};
            if (s + 1 < stages) mine.load(half, value);
            multiply<S>(sums, memory + s % S::STAGES * S::CODE_BYTES, features + s % 2 * S::FEATURE_BYTES, half);
            if (s + 1 < stages) mine.store(features + (s + 1) % 2 * S::FEATURE_BYTES, half, value);
        }
    }
    mine.leave(reinterpret_cast<Bounds*>(memory + S::BOUNDS_AT), stages);
}

// A block's rows against all codes.
template <class S>
__device__ __forceinline__ void run(const Problem& p) {
    DYN_SHARED(unsigned char, memory);
    Bounds* const bounds = reinterpret_cast<Bounds*>(memory + S::BOUNDS_AT);
    unsigned* const sets = reinterpret_cast<unsigned*>(memory + S::SETS_AT); // [ROWS, WORDS] candidates
    float* const least = reinterpret_cast<float*>(memory + S::LEAST_AT);     // [ROWS] least upper end so far
    int* const best = reinterpret_cast<int*>(memory + S::BEST_AT);           // [ROWS] nearest code so far, -1 for none
    float4* const codes = reinterpret_cast<float4*>(memory);                 // [CHUNK]
    float* const ends = reinterpret_cast<float*>(memory + S::ENDS_AT);       // [WARPS, ROWS] least upper ends
    const size_t first = static_cast<size_t>(blockIdx.x) * S::ROWS;
    const int warp = warp_id(), g = lane_id() / 4, t = lane_id() % 4;
    const int own_row = threadIdx.x; // where a thread works for a whole row
    if (own_row < S::ROWS) {
        least[own_row] = infinity();
        best[own_row] = -1;
    }
#pragma unroll 1
    for (int chunk = 0; chunk < p.count; chunk += CHUNK) {
        float sums[S::DOWN][TILES][4] = {};
        product<S>(p, first, chunk, memory, sums);
        __syncthreads();
        if (own_row < S::ROWS) bounds[own_row] = bounds_of(p, bounds[own_row]);
        for (int i = threadIdx.x; i < CHUNK; i += THREADS) {
            codes[i] = chunk + i < p.count ? p.codes[chunk + i] : make_float4(infinity(), infinity(), 0.0f, 0.0f);
        }
        __syncthreads();
        const float4* const own = codes + warp * WARP_CODES + 2 * t;
#pragma unroll
        for (int r = 0; r < 2 * S::DOWN; r++) {
            const int row = r / 2 * 16 + r % 2 * 8 + g;
            const Bounds b = bounds[row];
            float end = infinity();
#pragma unroll
            for (int i = 0; i < 2 * TILES; i++) {
                const float4 code = own[i / 2 * 8 + i % 2];
                const float high = interval(b, code, sums[r / 2][i / 2][r % 2 * 2 + i % 2]).high;
                if (code.y < infinity()) end = fminf(end, high);
            }
            end = fminf(end, __shfl_xor_sync(ALL_LANES, end, 1));
            end = fminf(end, __shfl_xor_sync(ALL_LANES, end, 2));
            if (t == 0) ends[warp * S::ROWS + row] = end;
        }
        __syncthreads();
        if (own_row < S::ROWS) {
            float end = least[own_row];
            for (int w = 0; w < WARPS; w++) end = fminf(end, ends[w * S::ROWS + own_row]);
            least[own_row] = end;
        }
        __syncthreads();
#pragma unroll
        for (int r = 0; r < 2 * S::DOWN; r++) {
            const int row = r / 2 * 16 + r % 2 * 8 + g;
            const Bounds b = bounds[row];
            const float end = least[row];
            unsigned set[2] = {0, 0};
#pragma unroll
            for (int i = 0; i < 2 * TILES; i++) {
                const float4 code = own[i / 2 * 8 + i % 2];
                const float low = interval(b, code, sums[r / 2][i / 2][r % 2 * 2 + i % 2]).low;
                // A code on the rim is infinitely far away, and none of these for absent ones.
                if (code.y < infinity() && !(low > end)) set[i / 8] |= 1u << (i / 2 % 4 * 8 + i % 2);
            }
#pragma unroll
            for (int w = 0; w < 2; w++) {
                unsigned word = set[w] << 2 * t;
                word |= __shfl_xor_sync(ALL_LANES, word, 1);
                word |= __shfl_xor_sync(ALL_LANES, word, 2);
                if (t == 0) sets[row * WORDS + warp * 2 + w] = word;
            }
        }
        __syncthreads();
        for (int row = warp; row < S::ROWS && first + row < p.n; row += WARPS) {
            const Bounds b = bounds[row];
            const float* f = p.features + (first + row) * p.d;
            const unsigned word = lane_id() < WORDS ? sets[row * WORDS + lane_id()] : 0;
            const int nearest = settle(p, b, f, chunk, word, best[row]);
            if (chunk == 0 && b.strange != 0.0f && is_damaged(f, p.d) && lane_id() == 0) *p.damaged = 1;
            __syncwarp();
            if (lane_id() == 0) best[row] = nearest;
        }
    }
    __syncthreads();
    if (own_row < S::ROWS && first + own_row < p.n) p.out[first + own_row] = static_cast<unsigned short>(max(best[own_row], 0));
}

typedef Shape<6, 32, 2, 2, true> Many;
typedef Shape<2, 16, 3, 4, false> Few;
static_assert(Many::BYTES == 87808 && Few::BYTES == 54528, "as the launches ask for");

} // namespace nearest_codes

// out [n] = nearest code of each feature [n, d]; *damaged becomes 1 where a value of a feature is not finite, and is not written otherwise. curvature 0 is
// flat space. `halves`, `codes` and half_unit = 1 / scale as nearest_codes_prepare left them.
//
// Grid ⌈n / rows⌉, block 256. nearest_codes_96 takes 96 rows a block and 87,808 bytes of shared memory; it reads the codes least often and wants
// n ≥ 96 · processors. nearest_codes_32 takes 32 rows and 54,528 bytes: for fewer features and for GPUs with 64 KB of shared memory.
extern "C" __global__ void __launch_bounds__(256, 1)
nearest_codes_96(const float* __restrict__ features, int n, int d, float gain, float clip, float curvature, const float* __restrict__ points,
                 const f16* __restrict__ halves, const float4* __restrict__ codes, const double* __restrict__ inverse_gap, int count, float half_unit,
                 unsigned short* __restrict__ out, unsigned* damaged) {
    const int ld = (d + GROUP - 1) / GROUP * GROUP;
#if !defined(__CUDA_ARCH__) || __CUDA_ARCH__ >= 800 // others have less shared memory
    nearest_codes::run<nearest_codes::Many>(
        {features, n, d, gain, clip, curvature, points, halves, codes, inverse_gap, count, ld, half_unit, out, damaged});
#endif
}
EMU_KERNEL(nearest_codes_96)

extern "C" __global__ void __launch_bounds__(256, 1)
nearest_codes_32(const float* __restrict__ features, int n, int d, float gain, float clip, float curvature, const float* __restrict__ points,
                 const f16* __restrict__ halves, const float4* __restrict__ codes, const double* __restrict__ inverse_gap, int count, float half_unit,
                 unsigned short* __restrict__ out, unsigned* damaged) {
    const int ld = (d + GROUP - 1) / GROUP * GROUP;
    nearest_codes::run<nearest_codes::Few>(
        {features, n, d, gain, clip, curvature, points, halves, codes, inverse_gap, count, ld, half_unit, out, damaged});
}
EMU_KERNEL(nearest_codes_32)

// Of a codebook, once: halves [U, ld] of the points [U, d] times `scale`, and codes [U] = {‖c‖², gap, ‖c‖, E}. `scale` is a power of two that brings the
// largest magnitude of all points near 1 (1 where that is zero). Grid ⌈U / 8⌉, block 256: a warp a code.
//
// E bounds the error of the product ⟨φ̂, c⟩ for ‖φ̂‖ = 1: by what rounding took from c, ‖c − ĉ‖, and by the sums of the tensor cores. Of those PTX
// promises at least single precision and no order. Assumed is an instruction that adds K ≥ 4 products to the sum at once, each of the K + 1
// terms cut off below 2^-23 of the largest, as the result is: an error below (K + 2) 2^-23 T, where T is the sum of all magnitudes so far, at
// most ‖φ̂‖ times the norm of the code's columns so far. Over all columns that is less than 1.5 · 2^-23 Σ_columns ‖ĉ up to there‖.
extern "C" __global__ void __launch_bounds__(256)
nearest_codes_prepare(const float* __restrict__ points, const double* __restrict__ squared_norm, const double* __restrict__ inverse_gap, int count, int d,
                      float scale, f16* __restrict__ halves, float4* __restrict__ codes) {
    const int code = blockIdx.x * nearest_codes::WARPS + warp_id(), groups = (d + GROUP - 1) / GROUP;
    if (code >= count) return;
    double lost = 0.0, squared = 0.0, norms = 0.0;
    for (int i = 0; i < groups; i++) {
        const int column = i * GROUP + lane_id();
        const float scaled = column < d ? points[static_cast<size_t>(code) * d + column] * scale : 0.0f;
        const f16 half = to_half(scaled);
        halves[(static_cast<size_t>(code) * groups + i) * GROUP + lane_id()] = half;
        const double rounded = to_float(half);
        lost += (scaled - rounded) * (scaled - rounded);
        squared += nearest_codes::warp_sum_f64(rounded * rounded);
        norms += GROUP * sqrt(squared);
    }
    lost = sqrt(nearest_codes::warp_sum_f64(lost));
    if (lane_id() != 0) return;
    const double error = (lost + 1.5 * 0x1p-23 * norms) / scale, norm = sqrt(squared_norm[code]);
    float4 numbers;
    numbers.x = static_cast<float>(squared_norm[code]);
    numbers.y = static_cast<float>(inverse_gap[code]);
    numbers.z = static_cast<float>(norm * 1.0001);
    numbers.w = static_cast<float>(error * 1.0001);
    codes[code] = numbers;
}
EMU_KERNEL(nearest_codes_prepare)
