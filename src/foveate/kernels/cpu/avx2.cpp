// The kernels for x86-64 processors with AVX2 (since 2013).
#if defined(__x86_64__)

#include <cstdint>
#include <utility>

#include <immintrin.h>

#include "kernels.h"

#pragma GCC target("avx2,fma,bmi2")
#define FOVEATE_ISA avx2
#define FOVEATE_WIDTH 8
#include "isa.h"

const foveate::Kernels foveate::avx2_kernels = {
    "avx2",
    foveate::avx2::channel_spatial,
    foveate::avx2::channel_spatial_backward,
    foveate::avx2::channel_spatial_work,
    foveate::avx2::coordinate,
    foveate::avx2::coordinate_backward,
    foveate::avx2::coordinate_work,
};

#endif
