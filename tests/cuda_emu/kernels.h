// What the driver sees of the kernels, without the emulator's words for CUDA.
#pragma once
#include <stddef.h>
#include <string>
#include <utility>
#include <vector>

namespace emu {

std::vector<std::string> kernel_names();
// Bytes of each parameter of a kernel; nullptr where there is no kernel of that name.
const std::vector<size_t>* kernel_sizes(const char* name);
// Status (OK, INVALID, FAULT, DEADLOCK as 0 to 3) and what went wrong.
std::pair<int, std::string> run_kernel(const char* name, const unsigned (&grid)[3], const unsigned (&block)[3], size_t shared, void** arguments,
                                       bool reverse, size_t most_shared);

} // namespace emu
