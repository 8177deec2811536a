// The first rows of a pass: embeddings of words and of action codes.
#include "common.cuh"

namespace embed {

// Set in the id of an action code; the other bits are its row. Without it an id is a row of the vocabulary's matrix.
constexpr unsigned CODE = 0x80000000u;

// The embedding matrix in each of its forms. Each gives weights 4 quad to 4 quad + 3 of a row, the bits of Matrix::row: a quant has at most
// 8 bits and a scale 11, so their product is exact, fused or not. Columns beyond the last are memory of the matrix and hold anything.

// f16 [vocab, 32 groups]
struct Half {
    const f16* words;

    __device__ __forceinline__ float4 weights(unsigned row, int quad, int groups) const {
        const uint2 halves = *reinterpret_cast<const uint2*>(words + static_cast<size_t>(row) * groups * GROUP + 4 * quad);
        const float2 low = unpack_halves(halves.x), high = unpack_halves(halves.y);
        return make_float4(low.x, low.y, high.x, high.y);
    }
};

// u8 [B, G, 8, 16, 4], four columns of a row in a word; f16 [B, G, 16]
struct Q8 {
    const unsigned* q;
    const f16* scale;

    __device__ __forceinline__ float4 weights(unsigned row, int quad, int groups) const {
        const unsigned lane = row % ROW_BLOCK;
        const size_t group = static_cast<size_t>(row / ROW_BLOCK) * groups + quad / 8;
        const unsigned word = q[(group * 8 + quad % 8) * ROW_BLOCK + lane];
        const float s = to_float(scale[group * ROW_BLOCK + lane]);
        const auto weight = [=](int i) { return static_cast<float>(static_cast<int>(word >> 8 * i & 255u) - 128) * s; };
        return make_float4(weight(0), weight(1), weight(2), weight(3));
    }
};

// u8 [B, G, 4, 16, 4], columns 16 to 31 of a group in the high nibbles; f16 [B, G, 16] twice
struct Q4 {
    const unsigned* q;
    const f16* scale;
    const f16* min;

    __device__ __forceinline__ float4 weights(unsigned row, int quad, int groups) const {
        const unsigned lane = row % ROW_BLOCK;
        const size_t group = static_cast<size_t>(row / ROW_BLOCK) * groups + quad / 8;
        const unsigned word = q[(group * 4 + quad % 4) * ROW_BLOCK + lane] >> (quad % 8 < 4 ? 0 : 4);
        const float s = to_float(scale[group * ROW_BLOCK + lane]), m = to_float(min[group * ROW_BLOCK + lane]);
        const auto weight = [=](int i) { return static_cast<float>(word >> 8 * i & 15u) * s + m; };
        return make_float4(weight(0), weight(1), weight(2), weight(3));
    }
};

// Each thread writes four columns of one row.
template <typename Words>
__device__ __forceinline__ void rows(const Words& words, const float* codes, const unsigned* ids, float* x, int hidden) {
    const int quad = blockIdx.y * blockDim.x + threadIdx.x, column = 4 * quad;
    if (column >= hidden) return;
    const unsigned id = ids[blockIdx.x]; // the same for the block
    const float* code = codes + static_cast<size_t>(id & ~CODE) * hidden + column;
    float* out = x + static_cast<size_t>(blockIdx.x) * hidden + column;
    const int groups = (hidden + GROUP - 1) / GROUP;
    if (hidden % 4 == 0) {
        const bool coded = id & CODE;
        *reinterpret_cast<float4*>(out) = coded ? *reinterpret_cast<const float4*>(code) : words.weights(id, quad, groups);
        return;
    }
    // Rows of x and of the codes do not start at 16 bytes.
    const int left = hidden - column;
    if (id & CODE) {
        for (int i = 0; i < 4 && i < left; i++) out[i] = code[i];
        return;
    }
    const float4 w = words.weights(id, quad, groups);
    out[0] = w.x;
    if (left > 1) out[1] = w.y;
    if (left > 2) out[2] = w.z;
    if (left > 3) out[3] = w.w;
}

} // namespace embed

// x f32 [n, hidden] = row ids[i] of the vocabulary's matrix [vocab, hidden], or with embed::CODE set, of codes f32 [U, hidden]. The host
// has checked the ids. Grid (n, ⌈hidden / 1024⌉), block 256.
extern "C" __global__ void embed_f16(const f16* words, const float* codes, const unsigned* ids, float* x, int hidden) {
    embed::rows(embed::Half{words}, codes, ids, x, hidden);
}
EMU_KERNEL(embed_f16)

extern "C" __global__ void embed_q8(const unsigned* q, const f16* scale, const float* codes, const unsigned* ids, float* x, int hidden) {
    embed::rows(embed::Q8{q, scale}, codes, ids, x, hidden);
}
EMU_KERNEL(embed_q8)

extern "C" __global__ void embed_q4(const unsigned* q, const f16* scale, const f16* min, const float* codes, const unsigned* ids, float* x,
                                    int hidden) {
    embed::rows(embed::Q4{q, scale, min}, codes, ids, x, hidden);
}
EMU_KERNEL(embed_q4)
