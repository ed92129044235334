"""The forms in which a model runs (PyTorch, compiled, an exported file): time them side by side, and their memory."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import nn

from foveate.errors import UsageError
from foveate.experiment.environment import peak_memory
from foveate.experiment.latency import summary, time_rounds
from foveate.exporting.exported import read_record
from foveate.exporting.formats import run_file
from foveate.exporting.subject import positions, subject_of
from foveate.surgery.torch.example import Example

Call: TypeAlias = Callable[[], object]
CALLS = 3  # of a form whose memory is measured


def model_call(model: nn.Module, example: Example, batch: int, *, compiled: bool = False) -> Call:
    """Return a call of a model in eval mode on random values of so many images; compiled for their shape if asked."""
    subject = subject_of(model, example)
    inputs = [torch.rand(batch, *x.shape[1:]).to(x.dtype) for x in subject.inputs]
    flat = torch.compile(subject.module, dynamic=False) if compiled else subject.module

    @torch.inference_mode()
    def call() -> None:
        flat(*inputs)

    return call


def file_call(path: Path, batch: int, size: int | None, threads: int) -> Call:
    """Return a call of an exported file on random values of so many images; `size` is their side, if that is open.

    Raises UsageError for a file without its record, or of another fixed size; MissingExtra.
    """
    record = read_record(path) if path.is_file() else None
    if record is None:
        raise UsageError(
            expected="a file that foveate export wrote, with its .json beside it",
            received=str(path) if path.is_file() else f"{path}, which does not exist",
            do="export the model, or name its run",
        )
    rng = np.random.default_rng(0)
    shapes = [_shape(path, record, shape, batch, size) for shape in record["inputs"].values()]
    inputs = [rng.random(shape).astype(dtype) for shape, dtype in zip(shapes, record["dtypes"], strict=True)]
    run = run_file(path, threads)
    return lambda: run(inputs)


def _shape(path: Path, record: Mapping[str, Any], shape: Sequence[int], batch: int, size: int | None) -> list[int]:
    sides = positions(len(shape), record["channels_last"]) if size else ()
    asked = [batch, *((size if axis in sides else shape[axis]) for axis in range(1, len(shape)))]
    if not record["dynamic"] and asked != [*shape]:
        raise UsageError(
            expected=f"the fixed input of {path}, {'x'.join(map(str, shape))}",
            received="x".join(map(str, asked)),
            do="ask for that batch and size, or export it without --static",
        )
    return asked


def measure(calls: Mapping[str, Call], seconds: float, **rounds: Any) -> dict[str, dict[str, float]]:
    """Time the calls in interleaved rounds; return milliseconds, and ratios to the first call with their intervals."""
    timings = time_rounds(calls, seconds=seconds, **rounds)
    first = timings[next(iter(calls))]
    return {name: {**summary(values, first), "rounds": len(values)} for name, values in timings.items()}


def memory_rise(make: Callable[[], Call]) -> int | None:
    """Return by how many bytes opening and running a form raises the peak memory of this process.

    It measures what it should only in a process that has done nothing but import the form's packages. None where the
    system does not say.
    """
    before = peak_memory()
    call = make()
    for _ in range(CALLS):
        call()
    after = peak_memory()
    return None if before is None or after is None else after - before
