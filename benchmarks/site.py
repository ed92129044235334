"""Where the time of one attached module goes that does not depend on the map: hooks, checks, reading, the operation."""

import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import nn

import foveate
from benchmarks.calls import Call
from benchmarks.harness import make_record
from benchmarks.options import Options
from foveate.experiment.environment import load_average
from foveate.experiment.latency import summary, time_rounds
from foveate.kernels import dispatch, ops
from foveate.kernels.finish import Activation
from foveate.kernels.prepared import PREPARED
from foveate.kernels.torch_modules import TORCH
from foveate.surgery.torch import child
from foveate.surgery.torch.inference import Finished
from foveate.torch_utils.names import CHILD

SHAPE = (1, 64, 4, 4)  # so small that the work on the map takes little
PLAIN = "the layer without attention"
REPEATED = 100  # calls for each look at the clock
MORE_ROUNDS = 20  # times the rounds of other benchmarks


def measure(options: Options) -> Iterator[dict[str, Any]]:
    """Yield one record: the time of each step of a call, by mechanism.

    The hook contains the prepared operation. From the module on, a step of the long way contains those that follow it.
    """
    before, rounds = load_average(), options.rounds * MORE_ROUNDS
    # A map that is scaled in place again and again ends in subnormal numbers, which take many times as long.
    torch.set_flush_denormal(True)
    try:
        results = [{"mechanism": name, "calls": _steps(name, rounds)} for name in options.mechanisms]
    finally:
        torch.set_flush_denormal(False)
    yield make_record("site", rounds, before, results)


def _steps(name: str, rounds: int) -> dict[str, dict[str, float]]:
    torch.manual_seed(0)
    model = nn.Sequential(nn.BatchNorm2d(SHAPE[1])).eval()
    x, shortcut = torch.rand(SHAPE), torch.rand(SHAPE)
    plain = nn.BatchNorm2d(SHAPE[1]).eval()
    foveate.attach(model, name, where=["0"], start="paper", example=x)
    site: Any = model.eval()[0]
    attention = site._modules[CHILD]
    finished = Finished(attention, Activation("relu")).eval()
    with torch.inference_mode():
        site(site(x))  # the first two calls prepare
        y = plain(x)
        number = site.__dict__[PREPARED].number
        operation, arguments, _ = dispatch.find(attention.mechanism, attention, y, TORCH)
        calls: dict[str, Call] = {
            PLAIN: lambda: plain(x),
            "the layer with attention": lambda: site(x),
            "its hook": lambda: child.apply_attention(site, (x,), y),
            "its prepared operation": lambda: ops.run_prepared(y, number),
            "the module": lambda: attention.overwrite(y),
            "the choice of the kernel": lambda: dispatch.run(attention.mechanism, attention, y, inplace=True),
            "reading the layers": lambda: dispatch.find(attention.mechanism, attention, y, TORCH),
            "the operation": lambda: operation.inplace(y, *arguments),
            "baked: attention, addition, activation": lambda: finished(y, shortcut),
        }
        repeated = {step: _repeated(call) for step, call in calls.items()}
        seconds = time_rounds(repeated, seconds=math.inf, least=rounds, most=rounds)
    found = {step: summary(values / REPEATED, seconds[PLAIN] / REPEATED) for step, values in seconds.items()}
    print(f"site {name}: " + "; ".join(f"{step} {1000 * one['ms']:.1f}" for step, one in found.items()), flush=True)
    return found


def _repeated(call: Call) -> Call:
    def run() -> None:
        for _ in range(REPEATED):
            call()

    return run
