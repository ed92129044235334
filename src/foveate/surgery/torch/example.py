"""The example of a probe run, which a caller gives or the model suggests, as a function that runs the model on it."""

import reprlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

from foveate.errors import UsageError
from foveate.spec import layout
from foveate.surgery.core.trace import Trace
from foveate.surgery.torch.probe import Run, called_with, watch
from foveate.torch_utils.tensors import tensors

Example: TypeAlias = Any
"""What a model is called with in a probe run; `foveate.attach` says how it is given."""
SIZES = {3: ((1024,), (128,)), 4: ((224, 224), (64, 64), (32, 32)), 5: ((16, 112, 112), (32, 32, 32))}
FORMS = "a tensor, a shape, a tuple of arguments, a dict of keyword arguments, or a function that runs the model"


def probe(model: nn.Module, example: Example = None) -> Trace:
    """Record one run on the example, in eval mode, or where that fails in training mode.

    Without an example, try shapes guessed from the model: timm's `default_cfg`, else the first convolution's channels
    at usual sizes. Raises UsageError when the model runs on none of them.
    """
    if example is not None:
        return _watch_given(model, example)
    failures = []
    for shape in _guesses(model):
        try:
            return watch(model, called_with((_random(model, shape),)))
        except Exception as error:
            failures.append(f"{shape}: {_told(error)}")
    raise UsageError(
        expected="a model that runs on a random input of a usual size",
        received="; ".join(failures) or f"a {type(model).__name__} without a convolution",
        do=f"pass example=: {FORMS}",
    )


def _watch_given(model: nn.Module, example: Example) -> Trace:
    run = _run(model, example)
    try:
        return watch(model, run)
    except UsageError:
        raise
    except Exception as error:
        try:
            return watch(model, run.in_training())
        except Exception as other:
            alike = type(other) is type(error) and str(other) == str(error)
            raise UsageError(
                expected="a model that runs on the example",
                received=_told(error) if alike else f"{_told(error)}; and in training mode {_told(other)}",
                do=f"pass example= {_advice(example)}",
            ) from error


def _run(model: nn.Module, example: Any) -> Run:
    """Return how to run the model on the example. Raises UsageError for what gives the model no tensor."""
    if _is_shape(example):
        return called_with((_random(model, _with_batch(model, tuple(example))),))
    if callable(example) and not isinstance(example, nn.Module | Mapping | type):
        return Run(example)
    if isinstance(example, Tensor) or tensors(example):
        match example:
            case (tuple() as args, Mapping() as kwargs) if isinstance(example, tuple) and _are_keywords(kwargs):
                return called_with(args, kwargs)
            case tuple():
                return called_with(example)
            case Mapping() if _are_keywords(example):
                return called_with((), example)
        return called_with((example,))
    raise UsageError(
        expected=f"example as {FORMS}",
        received=f"{reprlib.repr(example)}, which holds no tensor",
        do=f"pass example={layout(_rank(model)).replace('N', '1')} as numbers, such as (1, 3, 224, 224) for images; a "
        "shape inside a tuple or a dict stands for itself, so write torch.rand(shape) there",
    )


def _advice(example: Any) -> str:
    """Return what to pass instead of an example that a model does not run on."""
    if isinstance(example, Mapping):
        return "with the names that forward has; a dict holds the keyword arguments, and (d,) passes the dict d itself"
    if isinstance(example, list) and not _is_shape(example):
        return "as a tuple of the arguments; a list is one argument, as for detectors that take a list of images"
    if isinstance(example, tuple) and not _is_shape(example):
        return "with what forward takes: a tuple holds its arguments, and ((x,), {'mask': m}) keyword arguments too"
    return f"that the model accepts: {FORMS}"


def _is_shape(example: Any) -> bool:
    numbers = isinstance(example, list | tuple) and all(type(size) is int and size > 0 for size in example)
    return numbers and len(example) > 0


def _are_keywords(kwargs: Mapping[Any, Any]) -> bool:
    return all(isinstance(name, str) for name in kwargs)


def _with_batch(model: nn.Module, shape: tuple[int, ...]) -> tuple[int, ...]:
    """Return a shape, of an image or a video without its batch as that of a batch of one."""
    rank = _rank(model)
    return (1, *shape) if rank > 3 and len(shape) == rank - 1 else shape


def _random(model: nn.Module, shape: tuple[int, ...]) -> Tensor:
    parameter = next((p for p in model.parameters() if p.is_floating_point()), torch.empty(0))
    made = torch.rand(shape, generator=torch.Generator().manual_seed(0))
    return made.to(parameter.device, parameter.dtype)


def _convolution(model: nn.Module) -> _ConvNd | None:
    return next((module for module in model.modules() if isinstance(module, _ConvNd)), None)


def _rank(model: nn.Module) -> int:
    convolution = _convolution(model)
    return 4 if convolution is None else 2 + len(convolution.kernel_size)


def _guesses(model: nn.Module) -> Iterator[tuple[int, ...]]:
    convolution, rank = _convolution(model), _rank(model)
    if convolution is None:
        return
    config = getattr(model, "default_cfg", None)
    size = config.get("input_size") if isinstance(config, dict) else None
    if isinstance(size, Sequence) and len(size) == 3:
        yield 1, convolution.in_channels, *size[1:]
    for sizes in SIZES[rank]:
        yield 1, convolution.in_channels, *sizes


def _told(error: Exception) -> str:
    return f"{type(error).__name__}: {(str(error).strip().splitlines() or [''])[0]}"
