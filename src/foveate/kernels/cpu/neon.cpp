// The kernels for 64-bit ARM processors (Apple, Graviton, Raspberry Pi), all of which have NEON.
#if defined(__aarch64__)

#include <cstdint>
#include <utility>

#include <arm_neon.h>

#include "kernels.h"

#define FOVEATE_ISA neon
#define FOVEATE_WIDTH 4
#define FOVEATE_NEON
#include "isa.h"

const foveate::Kernels foveate::neon_kernels = {
    "neon",
    foveate::neon::channel_spatial,
    foveate::neon::channel_spatial_backward,
    foveate::neon::channel_spatial_work,
    foveate::neon::coordinate,
    foveate::neon::coordinate_backward,
    foveate::neon::coordinate_work,
};

#endif
