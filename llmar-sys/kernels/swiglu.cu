// SwiGLU behind a product that could not do it itself: an intermediate size that is no multiple of 32, or a product of cuBLASLt.
#include "common.cuh"

// out [n, f] = silu(gate) · up, each row of gate_up f32 [n, 2f] gate then up. Grid (⌈G / 4⌉, n), block 128: a warp a group of 32 outputs.
extern "C" __global__ void __launch_bounds__(128) swiglu(const float* __restrict__ gate_up, Operand out, int f) {
    const int groups = (f + GROUP - 1) / GROUP, group = blockIdx.x * 4 + warp_id();
    if (group >= groups) return;
    const size_t row = blockIdx.y;
    const int k = group * GROUP + lane_id();
    float v = 0.0f;
    if (k < f) {
        const float gate = gate_up[row * 2 * f + k], up = gate_up[row * 2 * f + f + k];
        v = gate / (1.0f + expf(-gate)) * up;
    }
    store_group(out, row, group, groups, v);
}
EMU_KERNEL(swiglu)
