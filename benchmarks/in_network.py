"""What attention takes inside a network, where the caches hold neither its code nor its data when it begins.

The network is timm's ResNet-50 with one channels_last image. Each of its blocks looks at the clock between its parts.
Of the rounds the quickest tenth counts, part by part, so that phases in which the machine is slow do not.
"""

import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

import foveate
from benchmarks.harness import make_record
from benchmarks.options import Options
from foveate.experiment.environment import load_average
from foveate.experiment.latency import summary
from foveate.kernels import ops
from foveate.kernels.prepared import PreparedOperation
from foveate.models.torchvision_guard import ensure_torchvision
from foveate.surgery.torch import child
from foveate.torch_utils.names import CHILD

HOST, SHAPE, WHERE = "resnet50", (1, 3, 224, 224), "residual"
PARTS = ("convolutions", "last norm", "at the site", "shortcut", "addition", "activation")
MORE_ROUNDS = 4  # times the rounds of other benchmarks
QUICK = 0.1  # of the rounds
UNIT = "y.mul_(1)"

Step = Callable[[Tensor], object]


def measure(options: Options) -> Iterator[dict[str, Any]]:
    """Yield one record: the milliseconds of a site by what runs there, and those of the parts of the plain host."""
    before, rounds = load_average(), options.rounds * MORE_ROUNDS
    results = [_mechanism(name, rounds) for name in options.mechanisms]
    yield make_record("in_network", rounds, before, results)


def _mechanism(name: str, rounds: int) -> dict[str, Any]:
    x = torch.rand(SHAPE, generator=torch.Generator().manual_seed(0)).contiguous(memory_format=torch.channels_last)
    looks: list[tuple[float, ...]] = []
    models = {step: _model(name, make, looks) for step, make in STEPS.items()}
    steps, rng, seconds = list(models), np.random.default_rng(0), {step: [] for step in models}
    with torch.inference_mode():
        for _ in range(rounds):
            for step in (steps[index] for index in rng.permutation(len(steps))):
                models[step](x)
                looks.clear()
                models[step](x)
                seconds[step].append(np.diff(looks))
    site = PARTS.index("at the site")
    means = {step: np.array(values)[:, :, site].mean(axis=1) for step, values in seconds.items()}  # of each round
    quick = {step: 1000 * np.quantile(values, QUICK, axis=0) for step, values in seconds.items()}  # blocks, parts
    calls = {
        step: {**summary(values, means[UNIT]), "quick": float(quick[step][:, site].mean())}
        for step, values in means.items()
    }
    shown = "; ".join(f"{step} {1000 * one['quick']:.0f}" for step, one in calls.items())
    print(f"in_network {name}: {shown}", flush=True)
    host = dict(zip(PARTS, quick["nothing"].sum(axis=0).tolist(), strict=True))
    return {"mechanism": name, "sites": len(quick["nothing"]), "calls": calls, "host": host}


def _model(name: str, make: Callable[[nn.Module], Step], looks: list[tuple[float, ...]]) -> nn.Module:
    """Return the network with the mechanism attached, whose blocks run a step of it and note the time."""
    ensure_torchvision()
    import timm

    torch.manual_seed(0)
    model: Any = timm.create_model(HOST)
    foveate.attach(model, name, where=WHERE, start="paper")
    model.eval().to(memory_format=torch.channels_last)
    for block in (block for layer in (model.layer1, model.layer2, model.layer3, model.layer4) for block in layer):
        block.forward = _timed(block, make(block.bn3), looks)
    return model


def _timed(block: Any, step: Step, looks: list[tuple[float, ...]]) -> Callable[[Tensor], Tensor]:
    now = time.perf_counter

    def forward(x: Tensor) -> Tensor:
        began = now()
        y = block.act1(block.bn1(block.conv1(x)))
        y = block.conv3(block.act2(block.bn2(block.conv2(y))))
        convolved = now()
        y = nn.BatchNorm2d.forward(block.bn3, y)
        normed = now()
        step(y)
        attended = now()
        shortcut = x if block.downsample is None else block.downsample(x)
        joined = now()
        y += shortcut
        added = now()
        y = block.act3(y)
        looks.append((began, convolved, normed, attended, joined, added, now()))
        return y

    return forward


def _hook(site: nn.Module) -> Step:
    return lambda y: child.apply_attention(site, (), y)


def _long_way(site: nn.Module) -> Step:
    attention: Any = site._modules[CHILD]
    return lambda y: child.may_overwrite(site, attention) and attention.overwrite(y)


def _operation(site: nn.Module) -> Step:
    attention: Any = site._modules[CHILD]
    held = PreparedOperation(attention, attention.channels, torch.float32)  # its number is valid as long as it is
    return lambda y: ops.run_prepared(y, held.number)


STEPS: dict[str, Callable[[nn.Module], Step]] = {
    "nothing": lambda site: lambda y: None,
    UNIT: lambda site: lambda y: y.mul_(1.0),
    "y.sum((2, 3))": lambda site: lambda y: y.sum((2, 3)),
    "the operation alone": _operation,
    "the hook": _hook,
    "the module, as before": _long_way,
}
