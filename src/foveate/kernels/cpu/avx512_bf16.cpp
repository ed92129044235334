// The kernels for x86-64 processors that have an instruction of AVX-512 to round to bfloat16.
#if defined(__x86_64__)

#include <cstdint>
#include <utility>

#include <immintrin.h>

#include "kernels.h"

#pragma GCC target("avx512f,avx512bw,avx512vl,avx512dq,avx512bf16,fma,bmi2,prefer-vector-width=512")
#define FOVEATE_ISA avx512_bf16
#define FOVEATE_WIDTH 16
#define FOVEATE_BF16
#include "isa.h"

const foveate::Kernels foveate::avx512_bf16_kernels = {
    "avx512_bf16",
    foveate::avx512_bf16::channel_spatial,
    foveate::avx512_bf16::channel_spatial_backward,
    foveate::avx512_bf16::channel_spatial_work,
    foveate::avx512_bf16::coordinate,
    foveate::avx512_bf16::coordinate_backward,
    foveate::avx512_bf16::coordinate_work,
};

#endif
