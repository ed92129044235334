// The kernels for x86-64 processors with AVX-512.
#if defined(__x86_64__)

#include <cstdint>
#include <utility>

#include <immintrin.h>

#include "kernels.h"

#pragma GCC target("avx512f,avx512bw,avx512vl,avx512dq,fma,bmi2,prefer-vector-width=512")
#define FOVEATE_ISA avx512
#define FOVEATE_WIDTH 16
#include "isa.h"

const foveate::Kernels foveate::avx512_kernels = {
    "avx512",
    foveate::avx512::channel_spatial,
    foveate::avx512::channel_spatial_backward,
    foveate::avx512::channel_spatial_work,
    foveate::avx512::coordinate,
    foveate::avx512::coordinate_backward,
    foveate::avx512::coordinate_work,
};

#endif
