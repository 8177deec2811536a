// A stand-in for libcublasLt.so: the one kind of product that the runtime asks for, y [rows, n] (f32) = W [ld, rows]ᵀ · X [ld, n] (f16), column-major, plainly.
#include <stdint.h>
#include <string.h>

#include "half.h"

#define API extern "C" __attribute__((visibility("default"))) int

namespace {
enum : int { SUCCESS = 0, INVALID_VALUE = 7, NOT_SUPPORTED = 15 };
enum : int { R_32F = 0, R_16F = 2 };

struct Description {
    int compute, scale, transpose[2] = {0, 0};
};
struct Layout {
    int type;
    uint64_t rows, columns;
    int64_t ld;
};
// cublasLtMatmulHeuristicResult_t
struct Heuristic {
    uint64_t algorithm[8];
    size_t workspace;
    int state;
    float waves;
    int reserved[4];
};
} // namespace

API cublasLtCreate(void** handle) { return *handle = new int, SUCCESS; }
API cublasLtDestroy(void* handle) { return delete static_cast<int*>(handle), SUCCESS; }
API cublasLtMatmulDescCreate(void** made, int compute, int scale) { return *made = new Description{compute, scale}, SUCCESS; }
API cublasLtMatmulDescDestroy(void* made) { return delete static_cast<Description*>(made), SUCCESS; }
API cublasLtMatmulDescSetAttribute(void* made, int attribute, const void* value, size_t bytes) {
    if ((attribute != 3 && attribute != 4) || bytes != sizeof(int)) return INVALID_VALUE;
    memcpy(&static_cast<Description*>(made)->transpose[attribute - 3], value, bytes);
    return SUCCESS;
}
API cublasLtMatrixLayoutCreate(void** made, int type, uint64_t rows, uint64_t columns, int64_t ld) {
    if (ld < static_cast<int64_t>(rows) || !rows || !columns) return INVALID_VALUE;
    return *made = new Layout{type, rows, columns, ld}, SUCCESS;
}
API cublasLtMatrixLayoutDestroy(void* made) { return delete static_cast<Layout*>(made), SUCCESS; }
API cublasLtMatmulPreferenceCreate(void** made) { return *made = new size_t(0), SUCCESS; }
API cublasLtMatmulPreferenceDestroy(void* made) { return delete static_cast<size_t*>(made), SUCCESS; }
API cublasLtMatmulPreferenceSetAttribute(void* made, int attribute, const void* value, size_t bytes) {
    if (attribute != 1 || bytes != sizeof(size_t)) return INVALID_VALUE;
    memcpy(made, value, bytes);
    return SUCCESS;
}

// Whether shapes and types are those of the one product.
static bool fits(const Description* d, const Layout* a, const Layout* b, const Layout* y) {
    return d->compute == 68 && d->scale == R_32F && d->transpose[0] == 1 && d->transpose[1] == 0 && a->type == R_16F && b->type == R_16F &&
           y->type == R_32F && a->rows == b->rows && a->columns == y->rows && b->columns == y->columns;
}

API cublasLtMatmulAlgoGetHeuristic(void*, void* description, void* a, void* b, void* c, void* d, void*, int asked, Heuristic* found, int* count) {
    if (c != d || asked < 1) return INVALID_VALUE;
    *count = 0;
    if (!fits(static_cast<Description*>(description), static_cast<Layout*>(a), static_cast<Layout*>(b), static_cast<Layout*>(d))) return NOT_SUPPORTED;
    *found = {};
    *count = 1;
    return SUCCESS;
}

API cublasLtMatmul(void*, void* description, const float* alpha, const uint16_t* a, void* a_layout, const uint16_t* b, void* b_layout, const float* beta,
                   const float* c, void*, float* d, void* d_layout, const void* algorithm, void* workspace, size_t workspace_bytes, void*) {
    const auto *w = static_cast<Layout*>(a_layout), *x = static_cast<Layout*>(b_layout), *y = static_cast<Layout*>(d_layout);
    if (!a || !b || !c || !d || !algorithm || (workspace_bytes && !workspace)) return INVALID_VALUE;
    if (!fits(static_cast<Description*>(description), w, x, y)) return NOT_SUPPORTED;
    for (uint64_t column = 0; column < y->columns; column++) {
        for (uint64_t row = 0; row < y->rows; row++) {
            float sum = 0;
            for (uint64_t k = 0; k < w->rows; k++) sum += emu::half_to_float(a[row * w->ld + k]) * emu::half_to_float(b[column * x->ld + k]);
            float& out = d[column * y->ld + row];
            out = *alpha * sum + (*beta != 0 ? *beta * c[column * y->ld + row] : 0);
        }
    }
    return SUCCESS;
}
