"""Write golden data: outputs, gradients and statistics of a reference module, as tests/golden holds them."""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

Shape = tuple[int, ...]


def write(path: str | Path, modules: Mapping[str, nn.Module], shapes: Sequence[Shape], context: Shape = ()) -> None:
    """Run each reference module in float64 with random weights, on a random map of each shape, in eval and train mode.

    A shape is (N, C, H, W). `context` is (D, H, W) of a second input, for modules that take one. Weights and inputs are
    numbers that float32 holds exactly.
    """
    held: dict[str, np.ndarray[Any, Any]] = {}
    configs: list[dict[str, Any]] = []
    generator = torch.Generator().manual_seed(0)
    for id, module in modules.items():
        _draw(module.double(), generator)
        before = {key: value.clone() for key, value in module.state_dict().items()}
        held |= {f"{id}/sd/{key}": value.numpy() for key, value in before.items()}
        cases = [
            {"id": f"case{place}-{mode}", "shape": shape, "mode": mode}
            for place, shape in enumerate(shapes)
            for mode in ("eval", "train")
        ]
        for case in cases:
            module.load_state_dict(before)
            inputs = [_random(shape, generator) for shape in (case["shape"], *_context(case["shape"], context))]
            for name, value in _run(module.train(case["mode"] == "train"), inputs, generator):
                held[f"{id}/{case['id']}/{name}"] = value.numpy().copy()
        configs.append({"id": id, "params": sum(one.numel() for one in module.parameters()), "cases": cases})
    about = np.frombuffer(json.dumps({"dtype": "float64", "configs": configs}).encode(), np.uint8)
    arrays: dict[str, Any] = {"meta": about, **held}
    np.savez_compressed(path, **arrays)


def _run(module: nn.Module, inputs: Sequence[Tensor], generator: torch.Generator) -> Iterator[tuple[str, Tensor]]:
    """Yield the arrays of one case: inputs, output, upstream gradient, all gradients, and buffers after training."""
    module.zero_grad()
    y = module(*inputs)
    upstream = _random(tuple(y.shape), generator).detach()
    y.backward(upstream)
    yield from (("y", y.detach()), ("gy", upstream))
    for name, x in zip(("x", "context"), inputs, strict=False):
        yield name, x.detach()
        yield f"g{name}", torch.zeros_like(x) if x.grad is None else x.grad
    for name, parameter in module.named_parameters():
        yield f"gw/{name}", torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
    if module.training:
        yield from ((f"post/{name}", buffer) for name, buffer in module.named_buffers())


def _draw(module: nn.Module, generator: torch.Generator) -> None:
    for value in module.state_dict().values():
        if value.is_floating_point():
            drawn = _random(tuple(value.shape), generator).detach()
            scaled = drawn / value[0].numel() ** 0.5 if value.ndim > 1 else 0.5 + drawn.abs()
            value.copy_(scaled.float())


def _random(shape: Shape, generator: torch.Generator) -> Tensor:
    return torch.randn(shape, generator=generator).double().requires_grad_()


def _context(shape: Shape, context: Shape) -> list[Shape]:
    return [(shape[0], *context)] if context else []
