// The kernels for any processor: vectors of four floats, which compilers turn into SSE or plain code.
#include <cstdint>
#include <utility>

#include "kernels.h"

#define FOVEATE_ISA baseline
#define FOVEATE_WIDTH 4
#include "isa.h"

const foveate::Kernels foveate::baseline_kernels = {
    "baseline",
    foveate::baseline::channel_spatial,
    foveate::baseline::channel_spatial_backward,
    foveate::baseline::channel_spatial_work,
    foveate::baseline::coordinate,
    foveate::baseline::coordinate_backward,
    foveate::baseline::coordinate_work,
};
