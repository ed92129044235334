"""What is exported: a model as a function from tensors to tensors, with an example of its inputs."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import torch
from torch import Tensor, nn
from torch.utils._pytree import TreeSpec, tree_flatten, tree_unflatten

from foveate.detection import CONF, IOU, MAX_DET
from foveate.detection.heads import Head
from foveate.errors import UsageError
from foveate.surgery.torch.example import Example, probe
from foveate.torch_utils.tensors import tensors
from foveate.torch_utils.unchanged import as_found

Boxes: TypeAlias = Literal["outputs", "decoded", "nms"]
BOXES: tuple[Boxes, ...] = ("outputs", "decoded", "nms")
"""What the file of a detector returns: the network's outputs, boxes with scores, or the boxes that NMS keeps."""


@dataclass(frozen=True)
class Thresholds:
    """Which boxes a detector's file is compared on; those of NMS if this is in the file."""

    conf: float = CONF
    iou: float = IOU
    max_det: int = MAX_DET


class Flat(nn.Module):
    """A model that takes its tensors by position and returns the tensors of its result as a tuple."""

    def __init__(self, model: nn.Module, spec: TreeSpec, constants: Sequence[Any]):
        super().__init__()
        self.model, self.spec, self.constants = model, spec, constants

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """Call the model with these tensors in the places of its example's tensors."""
        given = iter(inputs)
        leaves = [next(given) if isinstance(one, Tensor) else one for one in self.constants]
        args, kwargs = tree_unflatten(leaves, self.spec)
        return tuple(tensors(self.model(*args, **kwargs)))


@dataclass(frozen=True)
class TorchReference:
    """A module that is called in eval mode, without gradients, and does not change."""

    module: nn.Module

    @torch.no_grad()
    def __call__(self, *inputs: Tensor) -> list[Tensor]:
        """Return the tensors of the result, in float32."""
        with as_found(self.module):
            return [output.float() for output in self.module(*inputs)]


@dataclass(frozen=True)
class Subject:
    """A model to export.

    `module` is what is traced. `reference` is the model itself, in eval mode, without what `boxes` adds. `inputs` are
    an example; `step` (pixels) divides the sides of its images. `heads` describe the outputs of a detector, and `boxes`
    says what its file returns.
    """

    module: nn.Module
    reference: Callable[..., Sequence[Tensor]]
    inputs: tuple[Tensor, ...]
    input_names: tuple[str, ...]
    output_names: tuple[str, ...]
    step: int = 1
    heads: tuple[Head, ...] = ()
    boxes: Boxes = "outputs"
    channels_last: bool = False

    def positions(self, x: Tensor) -> range:
        """Return the axes of an input that are positions, such as height and width."""
        return positions(x.ndim, self.channels_last)


def positions(axes: int, channels_last: bool) -> range:
    """Return which of so many axes of an input are positions, such as height and width."""
    return range(1, axes - 1) if channels_last else range(2, axes)


def subject_of(model: nn.Module, example: Example = None, *, channels_last: bool = False) -> Subject:
    """Return a model on the CPU as a subject, with the example as `foveate.attach` takes it.

    Raises UsageError for a model that does not run on the example or returns no tensor.
    """
    args, kwargs = _arguments(model, example)
    leaves, spec = tree_flatten((args, kwargs))
    inputs = tuple(leaf.detach() for leaf in leaves if isinstance(leaf, Tensor))
    flat = Flat(model, spec, [leaf if not isinstance(leaf, Tensor) else torch.empty(0) for leaf in leaves])
    with as_found(flat), torch.no_grad():
        outputs = flat(*inputs)
    if not outputs:
        raise UsageError(
            expected="a model that returns tensors", received="one without any", do="export the part that returns them"
        )
    heads = tuple(one for one in getattr(model, "heads", ()) if isinstance(one, Head))
    heads = heads if len(heads) == len(outputs) else ()
    names = numbered("output", len(outputs))
    if heads:
        names = tuple(f"stride_{head.stride}" for head in heads)
    step = max((head.stride for head in heads), default=1)
    inputs_named = ("images",) if len(inputs) == 1 and inputs[0].ndim == 4 else numbered("input", len(inputs))
    return Subject(flat, TorchReference(flat), inputs, inputs_named, names, step, heads, channels_last=channels_last)


def _arguments(model: nn.Module, example: Example) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Return what the example calls the model with."""
    run, seen = probe(model, example).run, list[Any]()
    handle = model.register_forward_pre_hook(lambda _, args, kwargs: seen.append((args, kwargs)), with_kwargs=True)
    try:
        run(model)
    finally:
        handle.remove()
    if len(seen) != 1:
        raise UsageError(
            expected="an example that calls the model once",
            received=f"{len(seen)} calls",
            do="pass the arguments of one call as example=",
        )
    return seen[0]


def numbered(name: str, count: int) -> tuple[str, ...]:
    """Return the names of so many inputs or outputs."""
    return (name,) if count == 1 else tuple(f"{name}_{number}" for number in range(1, count + 1))
