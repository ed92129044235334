"""The input of the probe run: given by the caller, else guessed from the model."""

import reprlib
from collections.abc import Iterator, Sequence
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

from foveate.errors import UsageError
from foveate.surgery.core.trace import Trace
from foveate.surgery.torch.probe import watch

Example: TypeAlias = Tensor | Sequence[Tensor] | Sequence[int] | None
SIZES = (224, 64, 32)


def probe(model: nn.Module, example: Example = None) -> Trace:
    """Record one run on the example: a tensor, a tuple of input tensors, or a shape such as (1, 3, 224, 224).

    Without an example, try shapes guessed from the model: timm's `default_cfg`, else the first convolution's channels
    at 224, 64 and 32 pixels. Raises UsageError when the model runs on none of them.
    """
    if example is not None:
        try:
            return watch(model, _inputs(model, example))
        except UsageError:
            raise
        except Exception as error:
            raise UsageError(
                expected="a model that runs on the example in eval mode",
                received=f"{type(error).__name__}: {_first_line(error)}",
                do="pass example=: an input, a tuple of inputs or a shape (1, C, H, W) that the model accepts",
            ) from error
    failures = []
    for shape in _guesses(model):
        try:
            return watch(model, _inputs(model, shape))
        except Exception as error:
            failures.append(f"{shape}: {type(error).__name__}: {_first_line(error)}")
    raise UsageError(
        expected="a model that runs on an image of a usual size",
        received="; ".join(failures) or f"a {type(model).__name__} without a 2-D convolution",
        do="pass example=: an input, a tuple of inputs or a shape (1, C, H, W)",
    )


def _inputs(model: nn.Module, example: Any) -> tuple[Tensor, ...]:
    if isinstance(example, Tensor):
        return (example,)
    items = tuple(example) if isinstance(example, Sequence) else ()
    if items and all(isinstance(item, Tensor) for item in items):
        return items
    if len(items) in (3, 4) and all(isinstance(item, int) and item > 0 for item in items):
        return (_image(model, (1, *items) if len(items) == 3 else items),)
    raise UsageError(
        expected="example as a tensor, a tuple of tensors or a shape (N, C, H, W)",
        received=reprlib.repr(example),
        do="pass, for example, example=(1, 3, 224, 224)",
    )


def _image(model: nn.Module, shape: tuple[int, ...]) -> Tensor:
    parameter = next((p for p in model.parameters() if p.is_floating_point()), torch.empty(0))
    image = torch.rand(shape, generator=torch.Generator().manual_seed(0))
    return image.to(parameter.device, parameter.dtype)


def _guesses(model: nn.Module) -> Iterator[tuple[int, ...]]:
    convolution = next((module for module in model.modules() if isinstance(module, nn.Conv2d)), None)
    if convolution is None:
        return
    config = getattr(model, "default_cfg", None)
    size = config.get("input_size") if isinstance(config, dict) else None
    if isinstance(size, Sequence) and len(size) == 3:
        yield 1, convolution.in_channels, *size[1:]
    for pixels in SIZES:
        yield 1, convolution.in_channels, pixels, pixels


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [""])[0]
