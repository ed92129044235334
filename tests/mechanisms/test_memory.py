"""A training step of every mechanism on a large map stays below 2 GiB: no matrix of all pairs of positions is kept."""

import subprocess
import sys

import pytest
import torch

from foveate.bind.torch import ops
from foveate.mechanisms import names

SHAPE = (8, 256, 64, 64)
MOST = 2 * 2**30
STEP = """
import pathlib, re, sys, torch, foveate
torch.set_num_threads(1)
name, shape = sys.argv[1], [int(size) for size in sys.argv[2].split("x")]
module, small, x = foveate.attention(name, shape[1]), torch.randn(2, shape[1], 16, 16), torch.randn(shape)
module(small.requires_grad_()).sum().backward()  # some have no weights

def kilobytes(what):
    return int(re.search(rf"{what}:\\s+(\\d+)", pathlib.Path("/proc/self/status").read_text())[1])

pathlib.Path("/proc/self/clear_refs").write_text("5")  # the greatest memory so far is that of now
before = kilobytes("VmRSS")
module(x.requires_grad_()).sum().backward()
print((kilobytes("VmHWM") - before) * 1024)
"""


def peak(name: str, shape: tuple[int, ...] = SHAPE) -> int:
    """Return the bytes that a training step needs beyond those of a small one."""
    size = "x".join(map(str, shape))
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", STEP, name, size], capture_output=True, text=True, check=True
    )
    return int(done.stdout)


@pytest.mark.parametrize(("wide", "values"), [(4, 6), (6, 4), (5, 5)])
def test_fused_attention_equals_a_matrix_of_pairs(wide: int, values: int, monkeypatch: pytest.MonkeyPatch) -> None:
    shapes = [(2, wide, 5, 6), (2, wide, 3, 4), (2, values, 3, 4)]
    maps = [torch.randn(shape, dtype=torch.float64) for shape in shapes]
    results = []
    for least in (2**24, 0):
        monkeypatch.setattr(ops, "PAIRS", least)
        monkeypatch.setattr(ops, "PAIRS_OF_WIDTHS", least)
        q, k, v = (x.clone().requires_grad_() for x in maps)
        y = ops.TorchOps().attend(q, k, v, 0.3)
        results.append([y, *torch.autograd.grad(y.square().sum(), (q, k, v))])
    for one, other in zip(*results, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-12)


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="Linux tells the greatest memory of a process")
@pytest.mark.parametrize("name", names())
def test_a_training_step_fits_in_2_gib(name: str) -> None:
    assert peak(name) < MOST


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="Linux tells the greatest memory of a process")
def test_the_measure_sees_a_larger_map() -> None:
    assert peak("se", (8, 256, 128, 128)) > 2 * peak("se") > 2 * 8 * 256 * 64 * 64 * 4
