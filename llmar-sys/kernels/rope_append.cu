// Turns queries and keys by their positions and appends keys and values to the KV cache of one layer.
#include "common.cuh"

namespace rope {

// Features i and i + head_dim / 2 of one head, whose place in the row is that of its first feature.
struct Pair {
    float low, high;

    __device__ __forceinline__ void turn(float2 rotation) {
        const float turned = low * rotation.x - high * rotation.y;
        high = high * rotation.x + low * rotation.y;
        low = turned;
    }
};

} // namespace rope

// qkv f32 [n, (heads + 2 kv_heads) · head_dim], queries, keys and values of each row. Queries are turned in place; turned keys and values go to
// slot[row] of keys and values, f16 [slots, kv_heads · head_dim], nearest halves. rotations [positions, head_dim / 2] holds (cos, sin).
//
// Grid (n, blocks of a row), block 256, one thread a pair and then those 256 · gridDim.y further on: ⌈(heads + 2 kv_heads) · head_dim / 512⌉ blocks
// for few rows, whose launch is all latency; one block a row is enough for many. Slots of different rows differ, so no two threads meet.
extern "C" __global__ void __launch_bounds__(256)
    rope_append(float* __restrict__ qkv, const float2* __restrict__ rotations, const unsigned* __restrict__ positions,
                const unsigned* __restrict__ slots, f16* __restrict__ keys, f16* __restrict__ values, int heads, int kv_heads, int head_dim) {
    const size_t row = blockIdx.x;
    const int half = head_dim / 2, kv_dim = kv_heads * head_dim;
    float* const x = qkv + row * (heads + 2 * kv_heads) * head_dim;
    const float2* const rotation = rotations + static_cast<size_t>(positions[row]) * half;
    const size_t at = static_cast<size_t>(slots[row]) * kv_dim;

    for (int item = blockIdx.y * blockDim.x + threadIdx.x; item < (heads + 2 * kv_heads) * half; item += gridDim.y * blockDim.x) {
        const int head = item / half, i = item % half;
        float* const feature = x + head * head_dim + i;
        rope::Pair pair = {feature[0], feature[half]};
        if (head < heads) {
            pair.turn(rotation[i]);
            feature[0] = pair.low;
            feature[half] = pair.high;
            continue;
        }
        const bool is_key = head < heads + kv_heads;
        if (is_key) pair.turn(rotation[i]);
        f16* const kept = (is_key ? keys : values) + at + (head - heads - (is_key ? 0 : kv_heads)) * head_dim + i;
        kept[0] = to_half(pair.low);
        kept[half] = to_half(pair.high);
    }
}
EMU_KERNEL(rope_append)
