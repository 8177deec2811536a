// f32 activations as a matrix product reads them: halves, 8-bit groups, or both. Producers of activations do this themselves; this kernel is
// for activations that come from the host.
#include "common.cuh"

// x f32 [n, columns] → out. Grid (⌈G / 4⌉, n), block 128: a warp a group of 32 columns.
extern "C" __global__ void __launch_bounds__(128) operand(const float* __restrict__ x, Operand out, int columns) {
    const int groups = (columns + GROUP - 1) / GROUP;
    const int group = blockIdx.x * 4 + warp_id();
    if (group >= groups) return;
    const size_t row = blockIdx.y;
    const int column = group * GROUP + lane_id();
    store_group(out, row, group, groups, column < columns ? x[row * columns + column] : 0.0f);
}
EMU_KERNEL(operand)
