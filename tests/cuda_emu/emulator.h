// CUDA on the CPU, for tests: what a kernel source needs of the language, over the fibres of fibres.h.
//
// A translation unit includes this header and then the kernels; with LLMAR_EMULATED defined, common.cuh includes it itself. Compile with
//     c++ -std=c++17 -O1 -g -fno-strict-aliasing -ffp-contract=off -Wno-unknown-pragmas -DLLMAR_EMULATED -I llmar-sys/kernels -I tests/cuda_emu
// A harness of one's own launches a kernel that EMU_KERNEL(name) registers so:
//     #include "../../llmar-sys/kernels/rms_norm.cu"
//     ...
//     emu::Result r = emu::run("rms_norm", dim3(rows), dim3(256), shared_bytes, emu::Order::REVERSE, x, y, n, 1e-5f);
//     if (!r.ok()) std::puts(r.message.c_str());
// Sizes of the values are compared to those of the parameters, so a size_t parameter wants size_t(n). With the addresses of the values instead:
//     void* arguments[] = {&x, &y, &n, &eps};
//     emu::launch("rms_norm", grid, block, shared_bytes, arguments, emu::Order::FORWARD, most_shared_bytes);
// launch() is strict about dynamic shared memory (99 KB unless told otherwise), run() allows what the largest GPU has.
//
// Seen as errors of the launch: a barrier that not all threads reach, or reach in different lines; lanes missing from a mask, named by it after they
// have returned, or in different operations; a shuffle from a lane outside its mask; invalid memory; wrong alignment of ldmatrix and cp.async.
// Shared memory is full of 0xff (NaN) at the start of each block, the target of an asynchronous copy from its start to copy_wait.
#pragma once
#include "half.h"
#include "launch.h"
#include <math.h>
#include <limits>
#include <stddef.h>
#include <type_traits>

// --- declarations ------------------------------------------------------------------------------------------------------------------------

#define __global__
#define __device__
#define __host__
#define __constant__
#define __forceinline__ inline
#define __noinline__ __attribute__((noinline))
#define __launch_bounds__(...)
#define __align__(n) alignas(n)
#define __grid_constant__
// Thread-local so that these variables lie together and apart from all others: run_grid poisons them.
#define __shared__ static thread_local

// Dynamic shared memory of the block.
#define DYN_SHARED(T, name) T* name = reinterpret_cast<T*>(::emu::engine.shared)
// Makes a kernel known by name.
#define EMU_KERNEL(name) static const ::emu::Registration emu_registration_of_##name(#name, ::emu::Thread<&name>::kernel());

// clang-format off
#define EMU_VECTOR2(T, name, align) \
    struct alignas(align) name { T x, y; }; \
    inline name make_##name(T x, T y) { return {x, y}; }
#define EMU_VECTOR3(T, name) \
    struct name { T x, y, z; }; \
    inline name make_##name(T x, T y, T z) { return {x, y, z}; }
#define EMU_VECTOR4(T, name, align) \
    struct alignas(align) name { T x, y, z, w; }; \
    inline name make_##name(T x, T y, T z, T w) { return {x, y, z, w}; }
// clang-format on
EMU_VECTOR2(signed char, char2, 2)
EMU_VECTOR2(unsigned char, uchar2, 2)
EMU_VECTOR2(short, short2, 4)
EMU_VECTOR2(unsigned short, ushort2, 4)
EMU_VECTOR2(int, int2, 8)
EMU_VECTOR2(unsigned, uint2, 8)
EMU_VECTOR2(float, float2, 8)
EMU_VECTOR2(double, double2, 16)
EMU_VECTOR2(long long, longlong2, 16)
EMU_VECTOR2(unsigned long long, ulonglong2, 16)
EMU_VECTOR3(int, int3)
EMU_VECTOR3(float, float3)
EMU_VECTOR4(signed char, char4, 4)
EMU_VECTOR4(unsigned char, uchar4, 4)
EMU_VECTOR4(short, short4, 8)
EMU_VECTOR4(unsigned short, ushort4, 8)
EMU_VECTOR4(int, int4, 16)
EMU_VECTOR4(unsigned, uint4, 16)
EMU_VECTOR4(float, float4, 16)
inline uint3 make_uint3(unsigned x, unsigned y, unsigned z) { return {x, y, z}; }
#undef EMU_VECTOR2
#undef EMU_VECTOR3
#undef EMU_VECTOR4

// --- barriers and operations of a warp ---------------------------------------------------------------------------------------------------

// The parameters that each of these ends with: the line of the call, for reports and to tell one call from another.
#define EMU_CALLER const char *file = __builtin_FILE(), int line = __builtin_LINE()

inline void __syncthreads(EMU_CALLER) { emu::barrier({"__syncthreads", file, line}, 0); }
inline int __syncthreads_and(int vote, EMU_CALLER) {
    emu::barrier({"__syncthreads_and", file, line}, vote);
    return emu::engine.outcome.all;
}
inline int __syncthreads_or(int vote, EMU_CALLER) {
    emu::barrier({"__syncthreads_or", file, line}, vote);
    return emu::engine.outcome.any;
}
inline int __syncthreads_count(int vote, EMU_CALLER) {
    emu::barrier({"__syncthreads_count", file, line}, vote);
    return emu::engine.outcome.count;
}

// Lanes may come to a __syncwarp from different lines.
inline void __syncwarp(unsigned mask = 0xffffffffu) {
    emu::exchange(mask, 0, {"__syncwarp", "", 0}, [](const emu::Round&) { return 0; });
}

namespace emu {

inline unsigned lane() { return engine.current % LANES; }

// The value that lane `source` has brought.
template <class T>
inline T shuffle(unsigned mask, T value, unsigned source, const Site& site) {
    return exchange(mask, value, site, [&](const Round& round) {
        if (!(mask >> source & 1)) {
            fail(Status::DEADLOCK, "%s at %s:%d: lane %u reads lane %u, which is not in mask %08x", site.what, file_name(site.file), site.line, lane(),
                 source, mask);
        }
        return slot<T>(round, source);
    });
}

// The lanes of the mask whose vote is not 0.
inline unsigned ballot(unsigned mask, int vote, const Site& site) {
    return exchange(mask, vote, site, [&](const Round& round) {
        unsigned votes = 0;
        for (unsigned i = 0; i < LANES; i++) votes |= (mask >> i & 1 && slot<int>(round, i) != 0 ? 1u : 0u) << i;
        return votes;
    });
}

} // namespace emu

// Lanes fall into sections of `width`, a power of two; a lane that would read beyond its section reads itself.
template <class T>
inline T __shfl_sync(unsigned mask, T value, int source, int width = 32, EMU_CALLER) {
    const unsigned section = emu::lane() & ~(width - 1u);
    return emu::shuffle(mask, value, section | (source & (width - 1u)), {"__shfl_sync", file, line});
}
template <class T>
inline T __shfl_xor_sync(unsigned mask, T value, int bits, int width = 32, EMU_CALLER) {
    const unsigned lane = emu::lane(), other = lane ^ bits;
    return emu::shuffle(mask, value, other <= (lane | (width - 1u)) ? other : lane, {"__shfl_xor_sync", file, line});
}
template <class T>
inline T __shfl_down_sync(unsigned mask, T value, unsigned delta, int width = 32, EMU_CALLER) {
    const unsigned lane = emu::lane();
    return emu::shuffle(mask, value, (lane & (width - 1u)) + delta < unsigned(width) ? lane + delta : lane, {"__shfl_down_sync", file, line});
}
template <class T>
inline T __shfl_up_sync(unsigned mask, T value, unsigned delta, int width = 32, EMU_CALLER) {
    const unsigned lane = emu::lane();
    return emu::shuffle(mask, value, (lane & (width - 1u)) >= delta ? lane - delta : lane, {"__shfl_up_sync", file, line});
}
inline unsigned __ballot_sync(unsigned mask, int vote, EMU_CALLER) { return emu::ballot(mask, vote, {"__ballot_sync", file, line}); }
inline int __any_sync(unsigned mask, int vote, EMU_CALLER) { return emu::ballot(mask, vote, {"__any_sync", file, line}) != 0; }
inline int __all_sync(unsigned mask, int vote, EMU_CALLER) { return emu::ballot(mask, vote, {"__all_sync", file, line}) == mask; }
#undef EMU_CALLER

inline void __threadfence() {}
inline void __threadfence_block() {}
inline void __threadfence_system() {}
[[noreturn]] inline void __trap() { emu::fail(emu::Status::FAULT, "__trap"); }

// --- atomics -----------------------------------------------------------------------------------------------------------------------------

// No fibre runs beside another one, so plain code is atomic. The value's type follows from the address, as with CUDA's overloads. There are none for
// floats: their sum would depend on the order of threads.
namespace emu {
template <class T, class Change>
inline T change(T* at, Change to) {
    static_assert(std::is_same<T, int>::value || std::is_same<T, unsigned>::value || std::is_same<T, unsigned long long>::value, "types with atomics");
    const T old = *at;
    *at = to(old);
    return old;
}
} // namespace emu
#define EMU_ATOMIC(name, expression)                                           \
    template <class T>                                                         \
    inline T name(T* at, std::common_type_t<T> v) {                            \
        return emu::change(at, [=]([[maybe_unused]] T old) -> T { return expression; }); \
    }
EMU_ATOMIC(atomicAdd, old + v)
EMU_ATOMIC(atomicSub, old - v)
EMU_ATOMIC(atomicMax, old > v ? old : v)
EMU_ATOMIC(atomicMin, old < v ? old : v)
EMU_ATOMIC(atomicAnd, old & v)
EMU_ATOMIC(atomicOr, old | v)
EMU_ATOMIC(atomicXor, old ^ v)
EMU_ATOMIC(atomicExch, v)
EMU_ATOMIC(atomicInc, old >= v ? 0 : old + 1)
EMU_ATOMIC(atomicDec, old == 0 || old > v ? v : old - 1)
#undef EMU_ATOMIC
template <class T>
inline T atomicCAS(T* at, std::common_type_t<T> expected, std::common_type_t<T> v) {
    return emu::change(at, [=](T old) { return old == expected ? v : old; });
}

// --- memory ------------------------------------------------------------------------------------------------------------------------------

// clang-format off
template <class T> inline T __ldg(const T* p) { return *p; }
template <class T> inline T __ldca(const T* p) { return *p; }
template <class T> inline T __ldcg(const T* p) { return *p; }
template <class T> inline T __ldcs(const T* p) { return *p; }
template <class T> inline void __stcg(T* p, std::common_type_t<T> v) { *p = v; }
template <class T> inline void __stcs(T* p, std::common_type_t<T> v) { *p = v; }

// --- arithmetic --------------------------------------------------------------------------------------------------------------------------

inline int __float_as_int(float f) { return emu::bits_as<int>(f); }
inline unsigned __float_as_uint(float f) { return emu::bits_as<unsigned>(f); }
inline float __int_as_float(int i) { return emu::bits_as<float>(i); }
inline float __uint_as_float(unsigned u) { return emu::bits_as<float>(u); }
inline long long __double_as_longlong(double d) { return emu::bits_as<long long>(d); }
inline double __longlong_as_double(long long i) { return emu::bits_as<double>(i); }

inline int __popc(unsigned x) { return __builtin_popcount(x); }
inline int __popcll(unsigned long long x) { return __builtin_popcountll(x); }
inline int __ffs(int x) { return __builtin_ffs(x); }
inline int __ffsll(long long x) { return __builtin_ffsll(x); }
inline int __clz(int x) { return x ? __builtin_clz(x) : 32; }
inline int __clzll(long long x) { return x ? __builtin_clzll(x) : 64; }
inline int __mulhi(int a, int b) { return static_cast<int>(static_cast<long long>(a) * b >> 32); }
inline unsigned __umulhi(unsigned a, unsigned b) { return static_cast<unsigned>(static_cast<unsigned long long>(a) * b >> 32); }
inline unsigned __funnelshift_l(unsigned low, unsigned high, unsigned shift) {
    return static_cast<unsigned>((static_cast<unsigned long long>(high) << 32 | low) << (shift & 31) >> 32);
}
inline unsigned __funnelshift_r(unsigned low, unsigned high, unsigned shift) {
    return static_cast<unsigned>((static_cast<unsigned long long>(high) << 32 | low) >> (shift & 31));
}
// Byte i of the result is byte (selector >> 4 i) % 8 of {y, x}, or its sign where the fourth bit is set.
inline unsigned __byte_perm(unsigned x, unsigned y, unsigned selector) {
    const unsigned long long both = static_cast<unsigned long long>(y) << 32 | x;
    unsigned result = 0;
    for (int i = 0; i < 4; i++) {
        const unsigned which = selector >> 4 * i & 15, byte = static_cast<unsigned>(both >> 8 * (which & 7)) & 0xff;
        result |= (which & 8 ? (byte & 0x80 ? 0xffu : 0u) : byte) << 8 * i;
    }
    return result;
}
// c plus the product of the four bytes of a and b; wraps around.
inline int __dp4a(int a, int b, int c) {
    unsigned sum = static_cast<unsigned>(c);
    for (int i = 0; i < 4; i++) sum += static_cast<unsigned>(static_cast<signed char>(a >> 8 * i) * static_cast<signed char>(b >> 8 * i));
    return static_cast<int>(sum);
}
inline unsigned __dp4a(unsigned a, unsigned b, unsigned c) {
    for (int i = 0; i < 4; i++) c += (a >> 8 * i & 0xff) * (b >> 8 * i & 0xff);
    return c;
}

// Never fused and rounded to nearest, as long as the compiler gets -ffp-contract=off.
inline float __fadd_rn(float a, float b) { return a + b; }
inline float __fsub_rn(float a, float b) { return a - b; }
inline float __fmul_rn(float a, float b) { return a * b; }
inline float __fdiv_rn(float a, float b) { return a / b; }
inline float __frcp_rn(float a) { return 1.0f / a; }
inline float __fsqrt_rn(float a) { return sqrtf(a); }
inline float __fmaf_rn(float a, float b, float c) { return fmaf(a, b, c); }
inline double __dadd_rn(double a, double b) { return a + b; }
inline double __dsub_rn(double a, double b) { return a - b; }
inline double __dmul_rn(double a, double b) { return a * b; }
inline double __fma_rn(double a, double b, double c) { return fma(a, b, c); }
inline float __fdividef(float a, float b) { return a / b; }
inline float fdividef(float a, float b) { return a / b; }
inline float __saturatef(float a) { return a > 0 ? (a < 1 ? a : 1.0f) : 0.0f; }
inline float rsqrtf(float a) { return static_cast<float>(1.0 / sqrt(static_cast<double>(a))); }
inline double rsqrt(double a) { return 1.0 / sqrt(a); }

namespace emu {
// An integer where the type ends, and 0 for NaN, as a GPU converts; in C++ that is undefined.
template <class T> inline T saturated(double whole) {
    constexpr T low = std::numeric_limits<T>::min(), high = std::numeric_limits<T>::max();
    return whole != whole ? T(0) : whole <= double(low) ? low : whole >= double(high) ? high : static_cast<T>(whole);
}
} // namespace emu
inline int __float2int_rn(float a) { return emu::saturated<int>(rint(a)); }
inline int __float2int_rz(float a) { return emu::saturated<int>(trunc(a)); }
inline int __float2int_rd(float a) { return emu::saturated<int>(floor(a)); }
inline int __float2int_ru(float a) { return emu::saturated<int>(ceil(a)); }
inline unsigned __float2uint_rn(float a) { return emu::saturated<unsigned>(rint(a)); }
inline unsigned __float2uint_rz(float a) { return emu::saturated<unsigned>(trunc(a)); }
inline float __int2float_rn(int a) { return static_cast<float>(a); }
inline float __uint2float_rn(unsigned a) { return static_cast<float>(a); }
inline float __double2float_rn(double a) { return static_cast<float>(a); }

// The less exact functions of a GPU, here as exact as the others. The C library declares such names for itself, hence macros.
#define __expf expf
#define __exp10f exp10f
#define __logf logf
#define __log2f log2f
#define __powf powf
#define __sinf sinf
#define __cosf cosf
#define __sincosf sincosf

#define EMU_MIN_MAX(T) \
    inline T min(T a, T b) { return b < a ? b : a; } \
    inline T max(T a, T b) { return a < b ? b : a; }
EMU_MIN_MAX(int)
EMU_MIN_MAX(unsigned)
EMU_MIN_MAX(long)
EMU_MIN_MAX(unsigned long)
EMU_MIN_MAX(long long)
EMU_MIN_MAX(unsigned long long)
#undef EMU_MIN_MAX
inline unsigned min(unsigned a, int b) { return min(a, static_cast<unsigned>(b)); }
inline unsigned min(int a, unsigned b) { return min(static_cast<unsigned>(a), b); }
inline unsigned max(unsigned a, int b) { return max(a, static_cast<unsigned>(b)); }
inline unsigned max(int a, unsigned b) { return max(static_cast<unsigned>(a), b); }
inline float min(float a, float b) { return fminf(a, b); }
inline float max(float a, float b) { return fmaxf(a, b); }
inline double min(double a, double b) { return fmin(a, b); }
inline double max(double a, double b) { return fmax(a, b); }
// clang-format on

// --- what common.cuh has inline assembly for -----------------------------------------------------------------------------------------------

namespace emu {

constexpr unsigned ALL = 0xffffffffu;

// d [16, 8] += a [16, 16] · b [16, 8] of a warp; fragments as common.cuh describes them. Sums run upwards in f32.
inline void mma_16x8x16(float (&d)[4], const unsigned (&a)[4], const unsigned (&b)[2]) {
    struct Fragments {
        float d[4];
        unsigned a[4], b[2];
    } mine;
    std::memcpy(mine.d, d, sizeof d);
    std::memcpy(mine.a, a, sizeof a);
    std::memcpy(mine.b, b, sizeof b);
    const auto product = [](Round& round) {
        float a[16][16], b[16][8], d[16][8];
        const auto low = [](unsigned pair) { return half_to_float(static_cast<unsigned short>(pair)); };
        const auto high = [](unsigned pair) { return half_to_float(static_cast<unsigned short>(pair >> 16)); };
        for (unsigned i = 0; i < LANES; i++) {
            const auto f = slot<Fragments>(round, i);
            const unsigned g = i / 4, t = i % 4 * 2;
            for (unsigned k = 0; k < 4; k++) {
                a[g + k % 2 * 8][t + k / 2 * 8] = low(f.a[k]);
                a[g + k % 2 * 8][t + k / 2 * 8 + 1] = high(f.a[k]);
                d[g + k / 2 * 8][t + k % 2] = f.d[k];
            }
            for (unsigned k = 0; k < 2; k++) {
                b[t + k * 8][g] = low(f.b[k]);
                b[t + k * 8 + 1][g] = high(f.b[k]);
            }
        }
        for (int row = 0; row < 16; row++) {
            for (int k = 0; k < 16; k++) {
                for (int column = 0; column < 8; column++) d[row][column] += a[row][k] * b[k][column];
            }
        }
        for (unsigned i = 0; i < LANES; i++) {
            float mine[4];
            for (unsigned k = 0; k < 4; k++) mine[k] = d[i / 4 + k / 2 * 8][i % 4 * 2 + k % 2];
            std::memcpy(round.slots[i], mine, sizeof mine);
        }
    };
    const float4 sums = exchange(ALL, mine, {"mma_16x8x16", "", 0}, [](const Round& round) { return slot<float4>(round, lane()); }, product);
    std::memcpy(d, &sums, sizeof d);
}

// ldmatrix.x4, see common.cuh. The last lane reads all rows, as if at one moment.
inline void load_matrices(unsigned (&r)[4], const void* row, bool transposed) {
    if (reinterpret_cast<uintptr_t>(row) % 16) fail(Status::FAULT, "load_matrices: address %p is not a multiple of 16", row);
    if (!is_shared(row, 16)) fail(Status::FAULT, "load_matrices: address %p is not in shared memory", row);
    const auto read = [](Round& round) {
        for (unsigned i = 0; i < LANES; i++) std::memcpy(round.slots[i] + 16, slot<const void*>(round, i), 16);
    };
    const uint4 words = exchange(
        ALL, row, {transposed ? "load_matrices_transposed" : "load_matrices", "", 0},
        [&](const Round& round) {
            unsigned words[4];
            for (unsigned m = 0; m < 4; m++) {
                const unsigned g = lane() / 4, t = lane() % 4 * 2;
                unsigned short pair[2];
                for (unsigned k = 0; k < 2; k++) {
                    const unsigned row = transposed ? t + k : g, column = transposed ? g : t + k;
                    std::memcpy(&pair[k], round.slots[m * 8 + row] + 16 + column * 2, 2);
                }
                words[m] = pair[0] | unsigned(pair[1]) << 16;
            }
            return uint4{words[0], words[1], words[2], words[3]};
        },
        read);
    std::memcpy(r, &words, sizeof r);
}

// Copies of 16 bytes are made when the thread waits for them; until then the target holds poison, whether somebody reads what was there or what will.
inline void copy_async(void* shared, const void* global, bool valid) {
    const auto misaligned = [](const void* at) { return reinterpret_cast<uintptr_t>(at) % 16 != 0; };
    if (misaligned(shared) || (valid && misaligned(global))) fail(Status::FAULT, "copy_async: address %p or %p is not a multiple of 16", shared, global);
    if (!is_shared(shared, 16)) fail(Status::FAULT, "copy_async: target %p is not in shared memory", shared);
    std::memset(shared, POISON, 16);
    engine.fibres[engine.current].copies.push_back({shared, global, valid});
}

inline void copy_commit() {
    Fibre& fibre = engine.fibres[engine.current];
    size_t before = 0;
    for (size_t n : fibre.groups) before += n;
    fibre.groups.push_back(fibre.copies.size() - before);
}

// Makes the copies of all groups but the last `pending` ones.
inline void copy_wait(int pending) {
    Fibre& fibre = engine.fibres[engine.current];
    while (fibre.groups.size() > static_cast<size_t>(pending)) {
        const size_t count = fibre.groups.front();
        for (size_t i = 0; i < count; i++) {
            const Copy& copy = fibre.copies[i];
            if (copy.valid) std::memcpy(copy.shared, copy.global, 16);
            else std::memset(copy.shared, 0, 16);
        }
        fibre.copies.erase(fibre.copies.begin(), fibre.copies.begin() + count);
        fibre.groups.erase(fibre.groups.begin());
    }
}

} // namespace emu
