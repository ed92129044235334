"""What the Triton kernels take. The import of this imports Triton and registers the kernels."""

import importlib
import importlib.util
import math
from collections.abc import Sequence

import torch
from torch import Tensor

from foveate.kernels import ops, table
from foveate.kernels.signatures import ChannelSpatial, Coordinate
from foveate.kernels.table import Unfit, Work

DTYPES = (torch.float32, torch.bfloat16, torch.float16)
OLDEST = (8, 0)  # the compute capability of the first GPUs with bfloat16
LARGEST_SAMPLE = 2**31  # entries; places within a sample are 32-bit numbers
LONGEST_ROW = 4096  # a tile of coordinate attention holds whole rows


def _load() -> str | None:
    """Import Triton and register the kernels; return why there are none, None where there are. Never raises."""
    if torch.version.hip is not None:
        return "an AMD GPU, on which the Triton kernels were never tried"
    if importlib.util.find_spec("triton") is None:
        return "Triton is not installed"
    try:
        found = [torch.cuda.get_device_capability(index) for index in range(torch.cuda.device_count())]
        if found and min(found) < OLDEST:
            return f"a GPU of compute capability {'.'.join(map(str, min(found)))}, where the Triton kernels need 8.0"
        importlib.import_module("foveate.kernels.gpu.cuda_forms").register(ops.registrations)
    except (ImportError, OSError, AttributeError, RuntimeError) as error:
        return f"Triton does not load, {' '.join(str(error).split())}"
    return None


# At import, and not at the first call: torch.compile runs an import while it traces, but would trace a call.
unavailable: str | None = _load()
"""The reason why no Triton kernel runs, None where they are registered."""


def check_map(x: Tensor) -> None:
    """Raise Unfit for a map on a GPU that the kernels do not take."""
    if unavailable is not None:
        raise Unfit(unavailable)
    if x.dtype not in DTYPES:
        raise Unfit(f"an input of {_name(x.dtype)}")
    if math.prod(x.shape[1:]) >= LARGEST_SAMPLE:
        raise Unfit("a sample of more than 2^31 values")


def check_work(x: Tensor, found: Work, convolutions: Sequence[Tensor]) -> None:
    """Raise Unfit for an operation, or weights, for which there is no Triton kernel."""
    operation, args, _ = found
    reason = why_no_case(operation.signature(*args), x)
    if reason is not None:
        raise Unfit(reason)
    weights = [value for value in args if isinstance(value, Tensor) and value is not table.ONE]
    if any(weight.device != x.device or weight.dtype not in DTYPES for weight in weights):
        raise Unfit(f"weights that are not floats on {x.device}, as the input is")
    if not torch.is_autocast_enabled("cuda") and any(weight.dtype is not x.dtype for weight in convolutions):
        raise Unfit(f"weights that are not {_name(x.dtype)}, as the input is")


def why_no_case(given: ChannelSpatial | Coordinate, x: Tensor) -> str | None:
    """Return why the Triton kernels leave a case of an operation to the plain operations, None where they do not."""
    if isinstance(given, Coordinate):
        return f"rows of more than {LONGEST_ROW} values on a GPU" if x.shape[3] > LONGEST_ROW else None
    if given.euclidean or given.deviation:
        return "no kernel for a GPU pools by norms or deviations"
    return "no kernel for a GPU takes the greater of two results" if given.greater else None


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
