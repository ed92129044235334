"""Each instruction set of this processor: narrower ones in their own process, because the choice is made only once."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch.nn import functional as F

from foveate.kernels import finish, ops
from foveate.kernels.finish import Activation
from kernels.cases import INSTRUCTION_SETS

pytestmark = pytest.mark.usefixtures("built")

HERE = Path(__file__)
# The tests for every set: all options on a small map, and a large map.
TRIED = "test_every_option and paper or test_ugly_shapes and train and 63 and 8"


def test_the_widest_set_runs_or_the_one_wished_for() -> None:
    assert ops.instruction_set() == (os.environ.get("FOVEATE_CPU_ISA") or INSTRUCTION_SETS[-1])


@pytest.mark.parametrize("slope", [1.0, 1.5, 0.7311, -0.7311, 1e-3, 3e38, 1 + 2**-8])
def test_bfloat16_is_rounded_to_the_nearest_number(slope: float) -> None:
    """Every number times a slope: ties go to the even one; subnormal numbers, infinity and NaN stay what they are."""
    every = torch.arange(-(2**15), 2**15).to(torch.int16).view(torch.bfloat16).reshape(1, 1, 256, 256)
    want = F.leaky_relu(every.float(), slope).bfloat16()
    got = every.clone()
    assert finish.add(got, None, Activation("leaky_relu", slope)) is got, "no kernel ran"
    nan = want.isnan()
    assert torch.equal(nan, got.isnan())
    assert torch.equal(want.view(torch.int16)[~nan], got.view(torch.int16)[~nan])
    subnormal = (want != 0) & (want.abs() < torch.finfo(torch.bfloat16).tiny)
    assert int(subnormal.sum()) > 100


HERE_TOO = (test_the_widest_set_runs_or_the_one_wished_for, test_bfloat16_is_rounded_to_the_nearest_number)
NARROWER = [pytest.param(name, marks=pytest.mark.slow if name == "baseline" else ()) for name in INSTRUCTION_SETS[:-1]]


@pytest.mark.parametrize("instruction_set", NARROWER)
def test_numbers(instruction_set: str) -> None:
    # Memory from malloc is filled with large negative numbers, memory from torch with NaN.
    environment = {**os.environ, "FOVEATE_CPU_ISA": instruction_set, "MALLOC_PERTURB_": "1"}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:xdist"]
    chosen = [
        *(f"{HERE}::{test.__name__}" for test in HERE_TOO),
        str(HERE.with_name("test_numbers.py")),
        "-k",
    ]
    done = subprocess.run(
        [*command, *chosen, f"{' or '.join(test.__name__ for test in HERE_TOO)} or ({TRIED})"],
        env=environment,
        capture_output=True,
        text=True,
        cwd=HERE.parents[2],
    )
    assert done.returncode == 0, done.stdout[-4000:]
    passed = int(done.stdout.rsplit(" passed", 1)[0].rsplit(maxsplit=1)[-1])
    assert passed > 50
