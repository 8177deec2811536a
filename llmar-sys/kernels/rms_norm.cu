// RMSNorm of the residual stream, written as the operand of the product behind it.
#include "common.cuh"

// out [n, d] = x · weight / √(mean(x²) + eps), x f32 [.., d], weight f32 [d]; columns beyond d are zero. With `rows`, row i of the result is that of
// row rows[i] of x. Grid n, block 256: one block a row, each warp every eighth group of 32 columns; sums by lanes, then warps, in a fixed order.
extern "C" __global__ void __launch_bounds__(256)
    rms_norm(const float* __restrict__ x, const unsigned* __restrict__ rows, const float* __restrict__ weight, Operand out, int d, float eps) {
    __shared__ float sums[8];
    const int groups = (d + GROUP - 1) / GROUP;
    const float* row = x + static_cast<size_t>(rows ? rows[blockIdx.x] : blockIdx.x) * d;
    float sum = 0.0f;
    for (int k = threadIdx.x; k < d; k += 256) sum = fmaf(row[k], row[k], sum);
    sum = warp_sum(sum);
    if (lane_id() == 0) sums[warp_id()] = sum;
    __syncthreads();
    sum = sums[0];
#pragma unroll
    for (int i = 1; i < 8; i++) sum += sums[i];
    const float inverse = 1.0f / sqrtf(sum / static_cast<float>(d) + eps);
    for (int g = warp_id(); g < groups; g += 8) {
        const int k = g * GROUP + lane_id();
        store_group(out, blockIdx.x, g, groups, k < d ? row[k] * inverse * weight[k] : 0.0f);
    }
}
EMU_KERNEL(rms_norm)
