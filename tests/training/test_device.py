"""Which device is used; the tests simulate GPUs, as the machines that run them have none."""

from typing import Any

import pytest
import torch

from foveate.errors import UsageError
from foveate.experiment.environment import cores
from foveate.experiment.options import StudyOptions
from foveate.studies.outline import _jobs
from foveate.training import FitOptions, pick_device
from foveate.training.device import gpus_of


def pretend(monkeypatch: pytest.MonkeyPatch, count: int, visible: str | None = None, mps: bool = False) -> None:
    """Simulate a number of CUDA GPUs, with these names in CUDA_VISIBLE_DEVICES."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: count > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: count)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)
    if visible is None:
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    else:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)


def test_auto_is_the_default_of_trainings_and_studies() -> None:
    assert FitOptions().device == StudyOptions().device == "auto"


@pytest.mark.parametrize(
    ("count", "mps", "device"),
    [(0, False, "cpu"), (1, False, "cuda"), (4, False, "cuda"), (0, True, "mps"), (1, True, "cuda")],
)
def test_auto_is_a_gpu_where_there_is_one(monkeypatch: pytest.MonkeyPatch, count: int, mps: bool, device: str) -> None:
    pretend(monkeypatch, count, mps=mps)
    assert pick_device("auto") == device
    assert StudyOptions().resolve().device == StudyOptions().resolve().asked()["device"] == device
    assert StudyOptions(device="cpu").resolve().device == pick_device("cpu") == "cpu"


@pytest.mark.parametrize(
    ("count", "mps", "asked", "there"),
    [(0, False, "cuda", "cpu"), (1, False, "mps", "cpu, cuda"), (0, True, "gpu", "cpu, mps")],
)
def test_a_device_that_is_absent_is_refused(
    monkeypatch: pytest.MonkeyPatch, count: int, mps: bool, asked: Any, there: str
) -> None:
    pretend(monkeypatch, count, mps=mps)
    with pytest.raises(UsageError, match=f"a device of this machine: {there} or auto"):
        pick_device(asked)


@pytest.mark.parametrize(
    ("count", "visible", "names"),
    [
        (0, None, []),
        (0, "", []),
        (2, None, ["0", "1"]),
        (2, "3,5", ["3", "5"]),
        (1, "3,5", ["3"]),  # the second does not exist
        (1, "GPU-8932f937,", ["GPU-8932f937"]),
    ],
)
def test_gpus_have_the_names_of_the_environment(
    monkeypatch: pytest.MonkeyPatch, count: int, visible: str | None, names: list[str]
) -> None:
    pretend(monkeypatch, count, visible)
    assert gpus_of("cuda") == names
    assert gpus_of("cpu") == []
    asked = StudyOptions().resolve()
    assert _jobs(asked) == (count or cores())
    assert _jobs(StudyOptions(jobs=5).resolve()) == 5
