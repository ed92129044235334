"""The choice whether kernels run: by `using` and by FOVEATE_KERNELS."""

import os
import subprocess
import sys

import pytest

from foveate import kernels
from foveate.errors import UsageError
from foveate.kernels import chosen
from foveate.kernels.dispatch import KernelError
from kernels.cases import Subject, draw


def test_choices_nest_and_end_with_their_block() -> None:
    given, x = Subject("se", {}).module(24).eval(), draw(1, 24, 3, 3)
    assert chosen.choice is None
    with kernels.using("reference"):
        assert kernels.why_not(given, x) == "FOVEATE_KERNELS=reference"
        with kernels.using(None):
            assert kernels.why_not(given, x) is None
        assert chosen.choice == "reference"
    with pytest.raises(KernelError), kernels.using("cpu"):
        given(x.double())
    assert chosen.choice is None


def test_blocks_of_two_threads_may_end_in_any_order() -> None:
    first, second = kernels.using("reference"), kernels.using("off")
    before = chosen.choice
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    assert chosen.choice == "off"
    second.__exit__(None, None, None)
    assert chosen.choice == before


def test_no_such_choice(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError, match=r"'fast'"), kernels.using("fast"):
        pass
    monkeypatch.setattr(chosen, "choice", "fast")
    with pytest.raises(UsageError, match=r"(?s)FOVEATE_KERNELS as one of 'off', 'reference', 'cpu', 'triton'.*'fast'"):
        Subject("se", {}).module(24).eval()(draw(1, 24, 3, 3))


@pytest.mark.parametrize(
    ("choice", "loaded", "runs"),
    [("", True, True), ("off", False, False), ("reference", True, False), ("cpu", True, True)],
    ids=str,
)
def test_the_environment_chooses(choice: str, loaded: bool, runs: bool) -> None:
    code = (
        "import torch, foveate; from foveate import kernels; m = foveate.attention('se', 64); "
        "x = torch.ones(1, 64, 3, 3); m(x);"
        "print(any('_cpu' in path for path in torch.ops.loaded_libraries), kernels.why_not(m, x) is None)"
    )
    environment = {**os.environ, "FOVEATE_KERNELS": choice}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.split() == [str(loaded), str(runs)]
