// IEEE half precision on the CPU, as a GPU converts it.
#pragma once
#include <cstring>

namespace emu {

template <class To, class From>
inline To bits_as(From from) {
    static_assert(sizeof(To) == sizeof(From), "a change of type, not of size");
    To to;
    std::memcpy(&to, &from, sizeof to);
    return to;
}

inline float half_to_float(unsigned short h) {
    const unsigned sign = (h & 0x8000u) << 16, magnitude = (h & 0x7fffu) << 13;
    if ((h & 0x7c00u) == 0x7c00u) return bits_as<float>(sign | 0x7f800000u | magnitude); // infinity or NaN
    // The exponents' offsets differ by 127 - 15 = 112; the product is exact and right for subnormal numbers too.
    return bits_as<float>(sign | bits_as<unsigned>(bits_as<float>(magnitude) * 0x1p112f));
}

// Nearest half, ties to even; infinity beyond the range; NaN becomes the one NaN that a GPU gives.
inline unsigned short float_to_half(float f) {
    const unsigned bits = bits_as<unsigned>(f), magnitude = bits & 0x7fffffffu;
    const unsigned short sign = static_cast<unsigned short>(bits >> 16 & 0x8000u);
    if (magnitude > 0x7f800000u) return 0x7fff;
    if (magnitude >= 0x477ff000u) return sign | 0x7c00; // 65520, half way between the largest half and the next power of two
    if (magnitude < 0x38800000u) {
        // Below 2^-14 halves are multiples of 2^-24, as are floats in [0.5, 1): the addition rounds.
        const float shifted = bits_as<float>(magnitude) + 0.5f;
        return static_cast<unsigned short>(sign | (bits_as<unsigned>(shifted) - bits_as<unsigned>(0.5f)));
    }
    const unsigned rebased = magnitude - (112u << 23);
    return static_cast<unsigned short>(sign | (rebased + 0xfffu + (rebased >> 13 & 1u)) >> 13);
}

} // namespace emu
