// What every kernel shares: half-precision conversion, warp reductions, tensor-core products, asynchronous copies, rounding of activations.
//
// Rules of this folder
// - One .cu file an op. All of them are compiled as one program, by NVRTC or by the emulator of the tests, without any CUDA header: names of
//   helpers that only one file needs live in a namespace of that file.
// - Activations are row-major. A *half operand* is f16 [n, ld] with ld = columns rounded up to 32 and zeros in the columns beyond the last, so a row
//   starts at a 64-byte boundary and 16-byte loads need no tail. Pointers come 256-byte aligned from the allocator.
// - Sums run in f32 (f64 where it says so). Nothing is allocated, nothing is printed, no kernel waits for another block.
// - Launch shapes are decided in src/device/cuda/; each kernel says above itself which grid and block it wants.
// - Inline assembly stands in a function of its own, with a plain branch for the emulator (LLMAR_EMULATED).
#pragma once

#ifdef LLMAR_EMULATED
#include "emulator.h"
#else
// Registers a kernel with the emulator; nothing on a GPU.
#define EMU_KERNEL(name)
// Dynamic shared memory of a block, 16-byte aligned.
#define DYN_SHARED(T, name)                                                \
    extern __shared__ __align__(16) unsigned char llmar_dynamic_shared[]; \
    T* name = reinterpret_cast<T*>(llmar_dynamic_shared)
#endif

// Bits of an IEEE half.
typedef unsigned short f16;

// Columns that share one scale, in weights and in rounded activations.
constexpr int GROUP = 32;
// Rows interleaved in one block of a packed matrix (see src/device/matrix.rs).
constexpr int ROW_BLOCK = 16;
constexpr unsigned ALL_LANES = 0xffffffffu;

// --- half precision ----------------------------------------------------------------------------------------------------------------------

__device__ __forceinline__ float to_float(f16 h) {
#ifdef LLMAR_EMULATED
    return emu::half_to_float(h);
#else
    float f;
    asm("cvt.f32.f16 %0, %1;" : "=f"(f) : "h"(h));
    return f;
#endif
}

// Nearest half, ties to even; beyond the range ±infinity.
__device__ __forceinline__ f16 to_half(float f) {
#ifdef LLMAR_EMULATED
    return emu::float_to_half(f);
#else
    f16 h;
    asm("cvt.rn.f16.f32 %0, %1;" : "=h"(h) : "f"(f));
    return h;
#endif
}

// Two halves of one register, the lower address in the lower bits.
__device__ __forceinline__ unsigned pack_halves(float low, float high) {
    return static_cast<unsigned>(to_half(low)) | static_cast<unsigned>(to_half(high)) << 16;
}

__device__ __forceinline__ float2 unpack_halves(unsigned pair) {
    float2 f;
    f.x = to_float(static_cast<f16>(pair & 0xffffu));
    f.y = to_float(static_cast<f16>(pair >> 16));
    return f;
}

// --- warps -------------------------------------------------------------------------------------------------------------------------------

__device__ __forceinline__ int lane_id() { return threadIdx.x & 31; }
__device__ __forceinline__ int warp_id() { return threadIdx.x >> 5; }

// Sum over the lanes of a full warp, the same bits in every lane.
__device__ __forceinline__ float warp_sum(float v) {
#pragma unroll
    for (int mask = 16; mask > 0; mask >>= 1) v += __shfl_xor_sync(ALL_LANES, v, mask);
    return v;
}

__device__ __forceinline__ float warp_max(float v) {
#pragma unroll
    for (int mask = 16; mask > 0; mask >>= 1) v = fmaxf(v, __shfl_xor_sync(ALL_LANES, v, mask));
    return v;
}

// --- integer products --------------------------------------------------------------------------------------------------------------------

// c + Σ a_i b_i over the four signed bytes of a and b.
__device__ __forceinline__ int dot4(int a, int b, int c) {
#ifdef LLMAR_EMULATED
    return __dp4a(a, b, c);
#else // NVRTC 11 declares __dp4a without a body
    int d;
    asm("dp4a.s32.s32 %0, %1, %2, %3;" : "=r"(d) : "r"(a), "r"(b), "r"(c));
    return d;
#endif
}

// An integer of magnitude below 2^22 as a float, by one addition instead of a conversion, which runs at a quarter of the rate: dot4 starts from
// FLOAT_BIAS, and the sum's bits are 1.5 · 2^23 + sum as a float.
constexpr int FLOAT_BIAS = 0x4b400000;
__device__ __forceinline__ float biased_to_float(int biased) { return __int_as_float(biased) - 12582912.0f; }

// --- tensor cores ------------------------------------------------------------------------------------------------------------------------

// d [16, 8] += a [16, 16] · b [16, 8], f16 in, f32 sums. Fragments as in the PTX ISA (g = lane / 4, t = lane % 4):
// a: {row g, columns 2t, 2t+1}, {row g + 8, same}, {row g, columns 2t + 8, 2t + 9}, {row g + 8, same};
// b: {rows 2t, 2t + 1, column g}, {rows 2t + 8, 2t + 9, column g}; d: {row g, columns 2t, 2t + 1}, {row g + 8, same}.
__device__ __forceinline__ void mma_16x8x16(float (&d)[4], const unsigned (&a)[4], const unsigned (&b)[2]) {
#ifdef LLMAR_EMULATED
    emu::mma_16x8x16(d, a, b);
#elif __CUDA_ARCH__ >= 800
    asm volatile(
        "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
        : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
#else // Turing's tensor cores take eight columns at a time
    asm volatile(
        "mma.sync.aligned.m16n8k8.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5}, {%6}, {%0,%1,%2,%3};"
        : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
        : "r"(a[0]), "r"(a[1]), "r"(b[0]));
    asm volatile(
        "mma.sync.aligned.m16n8k8.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5}, {%6}, {%0,%1,%2,%3};"
        : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
        : "r"(a[2]), "r"(a[3]), "r"(b[1]));
#endif
}

// Four 8 × 8 matrices of halves from shared memory. Lane i gives the address of row i % 8 of matrix i / 8 (16 bytes, 16-byte aligned) and
// receives, of matrix m, row lane / 4, columns 2 (lane % 4) and the next, in r[m].
__device__ __forceinline__ void load_matrices(unsigned (&r)[4], const void* row) {
#ifdef LLMAR_EMULATED
    emu::load_matrices(r, row, false);
#else
    const unsigned address = static_cast<unsigned>(__cvta_generic_to_shared(row));
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(address)
                 : "memory");
#endif
}

// The same, each matrix transposed: r[m] holds column lane / 4 of matrix m, rows 2 (lane % 4) and the next.
__device__ __forceinline__ void load_matrices_transposed(unsigned (&r)[4], const void* row) {
#ifdef LLMAR_EMULATED
    emu::load_matrices(r, row, true);
#else
    const unsigned address = static_cast<unsigned>(__cvta_generic_to_shared(row));
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(address)
                 : "memory");
#endif
}

// --- asynchronous copies -----------------------------------------------------------------------------------------------------------------

// Copies 16 bytes from global to shared memory, or writes zeros where `valid` is false (the source is then not read). Complete for the calling
// thread after copy_wait, for others after a barrier behind that. Both addresses 16-byte aligned.
__device__ __forceinline__ void copy_async(void* shared, const void* global, bool valid) {
#ifdef LLMAR_EMULATED
    emu::copy_async(shared, global, valid);
#elif __CUDA_ARCH__ >= 800
    const unsigned address = static_cast<unsigned>(__cvta_generic_to_shared(shared));
    const int bytes = valid ? 16 : 0;
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(address), "l"(global), "r"(bytes) : "memory");
#else
    *static_cast<uint4*>(shared) = valid ? *static_cast<const uint4*>(global) : make_uint4(0, 0, 0, 0);
#endif
}

// Ends a group of copies.
__device__ __forceinline__ void copy_commit() {
#ifdef LLMAR_EMULATED
    emu::copy_commit();
#elif __CUDA_ARCH__ >= 800
    asm volatile("cp.async.commit_group;" ::: "memory");
#endif
}

// Waits until at most the last `Pending` groups of this thread are still under way.
template <int Pending>
__device__ __forceinline__ void copy_wait() {
#ifdef LLMAR_EMULATED
    emu::copy_wait(Pending);
#elif __CUDA_ARCH__ >= 800
    asm volatile("cp.async.wait_group %0;" ::"n"(Pending) : "memory");
#endif
}

// --- loads -------------------------------------------------------------------------------------------------------------------------------

// 16 bytes that are read once: weights pass through the caches without staying there.
__device__ __forceinline__ uint4 load_streaming(const void* global) {
#ifdef LLMAR_EMULATED
    return *static_cast<const uint4*>(global);
#else
    uint4 v;
    asm volatile("ld.global.nc.L1::no_allocate.v4.u32 {%0,%1,%2,%3}, [%4];"
                 : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w)
                 : "l"(global));
    return v;
#endif
}

// --- operands of matrix products ---------------------------------------------------------------------------------------------------------

// Activations [n, columns] as a matrix product reads them; each part may be null and is then not written. G = ⌈columns / 32⌉.
struct Operand {
    f16* half;        // [n, 32 G]
    signed char* q;   // [n, G, 32], in −127..=127: x ≈ q · scale
    float2* scale;    // [n, G]: {scale, scale · Σq}
};

// Writes 32 neighbouring values of one row, one a lane: value `v` of column 32 · group + lane, zero beyond the last column. All lanes call it.
//
// The rule of src/device/reference.rs: scale = max|x| / 127, q = x · (127 / max|x|) to nearest even; all zero where the largest magnitude is below
// 1e-30; scale NaN where a value is not finite.
__device__ __forceinline__ void store_group(const Operand& out, size_t row, int group, int groups, float v) {
    const size_t at = row * groups + group;
    const int lane = lane_id();
    if (out.half) out.half[at * GROUP + lane] = to_half(v);
    if (!out.q) return; // the same for all lanes
    // Bits of magnitudes order as the magnitudes do, with NaN above all.
    unsigned largest = __float_as_uint(v) & 0x7fffffffu;
#pragma unroll
    for (int mask = 16; mask > 0; mask >>= 1) {
        const unsigned other = __shfl_xor_sync(ALL_LANES, largest, mask);
        largest = other > largest ? other : largest;
    }
    const float magnitude = __uint_as_float(largest);
    float scale = magnitude / 127.0f;
    int q = 0;
    if (largest >= 0x7f800000u) {
        scale = __uint_as_float(0x7fc00000u);
    } else if (magnitude < 1e-30f) {
        scale = 0.0f;
    } else {
        // Adding and taking away 1.5 · 2^23 rounds to an integer, ties to even. Product and sum must not be fused: the rule rounds both.
        q = __float_as_int(__fadd_rn(__fmul_rn(v, 127.0f / magnitude), 12582912.0f)) - FLOAT_BIAS;
    }
    int sum = q;
#pragma unroll
    for (int mask = 16; mask > 0; mask >>= 1) sum += __shfl_xor_sync(ALL_LANES, sum, mask);
    out.q[at * GROUP + lane] = static_cast<signed char>(q);
    if (lane == 0) {
        float2 meta;
        meta.x = scale;
        meta.y = scale * static_cast<float>(sum);
        out.scale[at] = meta;
    }
}
