"""Narrower instruction sets of this processor, each in its own process, because the choice is made only once."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from foveate.kernels import ops
from kernels.cases import INSTRUCTION_SETS

pytestmark = pytest.mark.usefixtures("built")

HERE = Path(__file__)
# The tests for every set: all options on a small map, and a large map.
TRIED = "test_every_option and paper or test_ugly_shapes and train and 63 and 8"


def test_the_widest_set_runs_or_the_one_wished_for() -> None:
    assert ops.instruction_set() == (os.environ.get("FOVEATE_CPU_ISA") or INSTRUCTION_SETS[-1])


NARROWER = [pytest.param(name, marks=pytest.mark.slow if name == "baseline" else ()) for name in INSTRUCTION_SETS[:-1]]


@pytest.mark.parametrize("instruction_set", NARROWER)
def test_numbers(instruction_set: str) -> None:
    # Memory from malloc is filled with large negative numbers, memory from torch with NaN.
    environment = {**os.environ, "FOVEATE_CPU_ISA": instruction_set, "MALLOC_PERTURB_": "1"}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:xdist"]
    chosen = [
        f"{HERE}::{test_the_widest_set_runs_or_the_one_wished_for.__name__}",
        str(HERE.with_name("test_numbers.py")),
        "-k",
    ]
    done = subprocess.run(
        [*command, *chosen, f"widest or ({TRIED})"],
        env=environment,
        capture_output=True,
        text=True,
        cwd=HERE.parents[2],
    )
    assert done.returncode == 0, done.stdout[-4000:]
    passed = int(done.stdout.rsplit(" passed", 1)[0].rsplit(maxsplit=1)[-1])
    assert passed > 50
