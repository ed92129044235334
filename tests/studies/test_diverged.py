"""RELIABILITY rows 19 and 20 in a study: NaN in one arm leaves the others alone; workers and threads change none."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from foveate.experiment.arms import Arm
from foveate.files import read_json
from foveate.studies import run, trial
from foveate.studies.run import exit_code, run_study
from studies.tiny import InProcess, tiny

TIMES = ("seconds", "history")
NAN, INFINITY = float("nan"), float("inf")


@pytest.fixture(autouse=True)
def _nothing_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run, "measure_costs", lambda models, shape, **_: dict.fromkeys(models))
    monkeypatch.setattr("foveate.studies.outline._step_seconds", lambda *_: 0.01)


def study(project: Path, **changes: Any) -> Path:
    folder = run_study(tiny(project, name="s", **changes), engine=InProcess(), command="foveate study")
    assert folder is not None
    return folder


def trials(folder: Path) -> dict[str, dict[str, Any]]:
    found = {path.parent.name: read_json(path) for path in (folder / "trials").glob("*/trial.json")}
    return {name: {key: value for key, value in one.items() if key not in TIMES} for name, one in found.items()}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, dict[str, Any]]]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run, "measure_costs", lambda models, shape, **_: dict.fromkeys(models))
        patch.setattr("foveate.studies.outline._step_seconds", lambda *_: 0.01)
        yield trials(study(tmp_path_factory.mktemp("whole")))


def in_data(model: nn.Module) -> None:
    def spoil(module: nn.Module, inputs: tuple[Any, ...]) -> Any:
        return (inputs[0] * NAN,) if module.training else None

    model.register_forward_pre_hook(spoil)


def in_loss(model: nn.Module) -> None:
    def spoil(module: nn.Module, inputs: Any, output: torch.Tensor) -> Any:
        return output * INFINITY if module.training else None

    model.register_forward_hook(spoil)


def in_gradient(model: nn.Module) -> None:
    next(model.parameters()).register_hook(lambda gradient: gradient * NAN)


def in_weights(model: nn.Module) -> None:
    with torch.no_grad():
        next(model.parameters())[0] = NAN


@pytest.mark.reliability(19)
@pytest.mark.parametrize("spoil", [in_data, in_loss, in_gradient, in_weights])
def test_an_arm_that_diverges_is_flagged_and_the_others_stay(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, whole: dict[str, dict[str, Any]], spoil: Any
) -> None:
    build = trial.build_model

    def spoilt(options: Any, arm: Arm, *rest: Any) -> nn.Module:
        model = build(options, arm, *rest)
        if arm.is_attention:
            spoil(model)
        return model

    monkeypatch.setattr(trial, "build_model", spoilt)
    folder = study(tmp_path)
    results, found = read_json(folder / "results.json"), trials(folder)
    (spoilt_one,) = (name for name, one in found.items() if one["status"] == "diverged")
    assert found[spoilt_one]["error"].endswith("in epoch 1, step 1")
    assert not (folder / "trials" / spoilt_one / "weights").exists()
    assert {name: one for name, one in found.items() if name != spoilt_one} == {
        name: one for name, one in whole.items() if name != spoilt_one
    }
    assert exit_code(folder) == 4
    assert [arm["mean"] is None for arm in results["arms"]] == [False, True]
    assert results["arms"][1]["verdict"] == "not run"


@pytest.mark.slow
@pytest.mark.reliability(20)
@pytest.mark.parametrize("workers", [0, 2, 4])
@pytest.mark.parametrize("threads", [1, 2])
def test_a_study_is_the_same_again_and_with_any_workers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, workers: int, threads: int
) -> None:
    monkeypatch.setattr("foveate.studies.outline.cores", lambda: threads)
    first, again = (trials(study(tmp_path / str(k), workers=number)) for k, number in enumerate((0, workers)))
    assert first == again
    assert {one["status"] for one in first.values()} == {"done"}
