// Packed matrices of a checkpoint as row-major halves: once when a model is placed, and for q8 and q4 before each product of cuBLASLt.
#include "common.cuh"

namespace unpack {

// A block turns one row block of so many columns: 16 · 64 weights, four a thread.
constexpr int COLUMNS = 64;
constexpr int THREADS = 256;
// Halves from one row of the tile to the next: 34 words. Rows then start at 8 bytes, and the threads that write at a time meet in no bank:
// those of floats write rows 0, 4, 8 and 12 of eight columns, those of quants 8 bytes of all sixteen rows.
constexpr int PITCH = COLUMNS + 4;

// Each form writes its part of the tile f16 [16, PITCH]: row block `block`, columns from `first` on, zeros from column `cols` on.

// [B, cols, 16] of T: a thread takes four rows of one column, so that the block reads one run of memory.
template <typename T>
struct Floats {
    const T* packed;

    __device__ __forceinline__ void fill(f16* tile, int block, int first, int cols, int) const {
        const int column = threadIdx.x / 4, row = threadIdx.x % 4 * 4;
        f16 w[4] = {0, 0, 0, 0};
        if (first + column < cols) load(w, packed + (static_cast<size_t>(block) * cols + first + column) * ROW_BLOCK + row);
#pragma unroll
        for (int i = 0; i < 4; i++) tile[(row + i) * PITCH + column] = w[i];
    }

    static __device__ __forceinline__ void load(f16 (&w)[4], const f16* from) {
        const uint2 pairs = *reinterpret_cast<const uint2*>(from);
        w[0] = static_cast<f16>(pairs.x & 0xffffu);
        w[1] = static_cast<f16>(pairs.x >> 16);
        w[2] = static_cast<f16>(pairs.y & 0xffffu);
        w[3] = static_cast<f16>(pairs.y >> 16);
    }

    static __device__ __forceinline__ void load(f16 (&w)[4], const float* from) {
        const uint4 bits = load_streaming(from);
        w[0] = to_half(__uint_as_float(bits.x));
        w[1] = to_half(__uint_as_float(bits.y));
        w[2] = to_half(__uint_as_float(bits.z));
        w[3] = to_half(__uint_as_float(bits.w));
    }
};

// Quants as the table at the top of src/device/matrix.rs has them: a thread takes four columns of one row, which lie in one word. `Bits` is
// 8 or 4; for 8, `min` is not read. The weight is what Matrix::row gives in f32, bit for bit: quant · scale is exact, fused or not.
template <int Bits>
struct Quants {
    const unsigned* q;
    const f16* scale;
    const f16* min;

    __device__ __forceinline__ void fill(f16* tile, int block, int first, int cols, int groups) const {
        const int row = threadIdx.x % ROW_BLOCK, quad = threadIdx.x / ROW_BLOCK;
        const int column = first + 4 * quad, part = quad % 8;
        uint2 halves = make_uint2(0, 0);
        // Behind the last column a q4 quant is zero, but what it stands for is the group's minimum.
        if (column < cols) {
            const size_t group = static_cast<size_t>(block) * groups + column / GROUP;
            const float s = to_float(scale[group * ROW_BLOCK + row]);
            float w[4];
            if (Bits == 8) {
                const unsigned word = q[(group * 8 + part) * ROW_BLOCK + row];
#pragma unroll
                for (int i = 0; i < 4; i++) w[i] = static_cast<float>(static_cast<int>(word >> 8 * i & 255u) - 128) * s;
            } else {
                const float m = to_float(min[group * ROW_BLOCK + row]);
                const unsigned word = q[(group * 4 + part % 4) * ROW_BLOCK + row] >> (part < 4 ? 0 : 4);
#pragma unroll
                for (int i = 0; i < 4; i++) w[i] = static_cast<float>(word >> 8 * i & 15u) * s + m;
            }
#pragma unroll
            for (int i = 1; i < 4; i++) w[i] = column + i < cols ? w[i] : 0.0f;
            halves = make_uint2(pack_halves(w[0], w[1]), pack_halves(w[2], w[3]));
        }
        *reinterpret_cast<uint2*>(tile + row * PITCH + 4 * quad) = halves;
    }
};

template <typename Packed>
__device__ __forceinline__ void convert(const Packed& packed, f16* out, int first_row, int rows, int cols, int ld) {
    __align__(16) __shared__ f16 tile[ROW_BLOCK * PITCH];
    const int first = blockIdx.x * COLUMNS, block = blockIdx.y;
    packed.fill(tile, block, first, cols, ld / GROUP);
    __syncthreads();
    const int row = threadIdx.x / 16, column = threadIdx.x % 16 * 4;
    if (block * ROW_BLOCK + row >= rows || first + column >= ld) return;
    const size_t at = (static_cast<size_t>(first_row) + block * ROW_BLOCK + row) * ld + first + column;
    *reinterpret_cast<uint2*>(out + at) = *reinterpret_cast<const uint2*>(tile + row * PITCH + column);
}

} // namespace unpack

// out f16 [.., ld]: its rows first_row to first_row + rows, zeros from column `cols` on; ld = cols rounded up to 32. The tensors start at
// the row block whose first row is first_row, so that a large matrix can come in pieces, and hold the last row block to its end. Nothing is
// written behind the last row. Grid (⌈ld / 64⌉, ⌈rows / 16⌉), block 256.

// packed f16 [B, cols, 16]
extern "C" __global__ void __launch_bounds__(unpack::THREADS)
    unpack_f16(const f16* packed, f16* out, int first_row, int rows, int cols, int ld) {
    unpack::convert(unpack::Floats<f16>{packed}, out, first_row, rows, cols, ld);
}
EMU_KERNEL(unpack_f16)

// packed f32 [B, cols, 16], rounded to the nearest half
extern "C" __global__ void __launch_bounds__(unpack::THREADS)
    unpack_f32(const float* packed, f16* out, int first_row, int rows, int cols, int ld) {
    unpack::convert(unpack::Floats<float>{packed}, out, first_row, rows, cols, ld);
}
EMU_KERNEL(unpack_f32)

extern "C" __global__ void __launch_bounds__(unpack::THREADS)
    unpack_q8(const unsigned* q, const f16* scale, f16* out, int first_row, int rows, int cols, int ld) {
    unpack::convert(unpack::Quants<8>{q, scale, nullptr}, out, first_row, rows, cols, ld);
}
EMU_KERNEL(unpack_q8)

extern "C" __global__ void __launch_bounds__(unpack::THREADS)
    unpack_q4(const unsigned* q, const f16* scale, const f16* min, f16* out, int first_row, int rows, int cols, int ld) {
    unpack::convert(unpack::Quants<4>{q, scale, min}, out, first_row, rows, cols, ld);
}
EMU_KERNEL(unpack_q4)
