// Made-up weights for measurements without a checkpoint: of sensible size, the same for the same seed on every GPU.
#include "common.cuh"

namespace fill {

// What a buffer is filled with; the numbers are those of src/device/cuda/place.rs.
enum Mode { HALVES, QUANTS, SCALES, MINIMA, ONES };

// Standard deviation of f16 weights.
constexpr float DEVIATION = 0.02f;

// Every bit of the result depends on every bit of v.
__device__ __forceinline__ unsigned mix(unsigned v) {
    v ^= v >> 16;
    v *= 0x85ebca6bu;
    v ^= v >> 13;
    v *= 0xc2b2ae35u;
    return v ^ v >> 16;
}

// Roughly normal: the sum of four uniform bytes has mean 510 and standard deviation 147.8.
__device__ __forceinline__ float normal(unsigned random) {
    const int sum = (random & 255u) + (random >> 8 & 255u) + (random >> 16 & 255u) + (random >> 24);
    return static_cast<float>(sum - 510) * (DEVIATION / 147.8f);
}

// Two halves from `base` up to an eighth beyond it in magnitude: seven random bits at the end of its ten.
__device__ __forceinline__ unsigned near(unsigned base, unsigned random) { return base * 0x10001u + (random & 0x007f007fu); }

__device__ __forceinline__ unsigned word(unsigned random, int mode) {
    switch (mode) {
    case HALVES:
        return pack_halves(normal(random), normal(mix(random + 0x9e3779b9u)));
    case QUANTS: {
        // Uniform, but for byte 0: q8 does not use −128.
        unsigned bytes = random;
        for (int shift = 0; shift < 32; shift += 8) bytes |= (bytes >> shift & 255u) == 0 ? 0x80u << shift : 0;
        return bytes;
    }
    case SCALES:
        return near(0x1000u, random); // 2^-11: q8 weights to ±0.07, q4 weights to ±0.004
    case MINIMA:
        return near(0x9b80u, random); // −7.5 · 2^-11, which centres q4
    default:
        return 0x3f800000u;
    }
}

} // namespace fill

// Fills `count` words. HALVES: two f16 weights a word; QUANTS: four q8 or eight q4 quants; SCALES, MINIMA: two f16; ONES: one f32. Any grid
// and block.
extern "C" __global__ void fill_random(unsigned* words, size_t count, int seed, int mode) {
    const size_t step = static_cast<size_t>(gridDim.x) * blockDim.x;
    for (size_t i = static_cast<size_t>(blockIdx.x) * blockDim.x + threadIdx.x; i < count; i += step) {
        const unsigned high = fill::mix(static_cast<unsigned>(seed) + 0x9e3779b9u * static_cast<unsigned>(i >> 32));
        words[i] = fill::word(fill::mix(high ^ static_cast<unsigned>(i)), mode);
    }
}
EMU_KERNEL(fill_random)
