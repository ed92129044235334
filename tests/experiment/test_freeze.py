"""A study with a frozen host: only the attention, the control's layers and the head change."""

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from foveate.experiment.arms import choose_arms, control_widths
from foveate.experiment.data import describe, open_study_data
from foveate.experiment.model import build_model, example_of
from foveate.studies.trial import Trial, run_trial
from foveate.torch_utils.names import CHILD
from studies.tiny import tiny

SMALL: dict[str, dict[str, Any]] = {
    "classify": {},
    "detect": {
        "canvas": 64,
        "imgsz": 32,
        "train_count": 16,
        "val_count": 10,
        "test_count": 10,
        "batch": 4,
        "where": ("sites.*",),
    },
}


def changed_weights(tmp_path: Path, task: Any, mechanism: str, **changes: Any) -> tuple[set[str], set[str]]:
    """Return the names of all weights and statistics, and of those that a trial changed."""
    options = tiny(tmp_path, task=task, control=True, **{**SMALL[task], "lr": 0.02, **changes}).resolve()
    arm = next(arm for arm in choose_arms(options) if arm.mechanism == mechanism)
    data = open_study_data(options)
    described, widths = describe(options, data), {}
    if mechanism == "control":
        host = build_model(options, choose_arms(options)[0], 0, described, {})
        widths = control_widths(host, choose_arms(options), example_of(described))
    before = build_model(options, arm, 0, described, widths).state_dict()
    result = run_trial(Trial(tmp_path / "trial", options, arm, 0, widths, 1, keeps_maps=False))
    assert result["status"] == "done", result["error"]
    after = load_file(tmp_path / "trial" / "weights" / "best.safetensors")
    return set(before), {name for name, value in before.items() if not torch.equal(value, after[name])}


@pytest.mark.parametrize("mechanism", ["none", "control", "cbam"])
@pytest.mark.parametrize(("task", "heads"), [("classify", ("linear",)), ("detect", ("coarse_head", "fine_head"))])
def test_only_the_attached_layers_and_the_head_learn(
    tmp_path: Path, task: str, heads: tuple[str, ...], mechanism: str
) -> None:
    names, changed = changed_weights(tmp_path, task, mechanism, attention=("cbam",), freeze=True)
    assert {name for name in changed if CHILD not in name} == {name for name in names if name.startswith(heads)}
    assert any(CHILD in name for name in changed) is (mechanism != "none")
    if mechanism == "cbam":
        assert any(name.endswith("running_mean") for name in changed), "the norms of the attention keep learning"


def test_without_freeze_everything_learns(tmp_path: Path) -> None:
    """This shows that the comparison can fail."""
    names, changed = changed_weights(tmp_path, "classify", "cbam", attention=("cbam",))
    assert {name for name in names if CHILD not in name} <= changed


def test_the_backbone_of_a_classifier_is_frozen_at_first(tmp_path: Path) -> None:
    _, changed = changed_weights(tmp_path, "classify", "cbam", attention=("cbam",), freeze_epochs=1)
    assert {name for name in changed if CHILD not in name} == {"linear.weight", "linear.bias"}


def test_the_attention_has_its_own_learning_rate(tmp_path: Path) -> None:
    options = {"attention": ("cbam",), "freeze": True, "lr": 1e-12, "weight_decay": 0.0}
    _, slow = changed_weights(tmp_path / "slow", "classify", "cbam", **options)
    folder = tmp_path / "fast"
    changed_weights(folder, "classify", "cbam", attention_lr=0.02, **options)
    slow_weights, fast = (
        load_file(place / "trial" / "weights" / "best.safetensors") for place in (tmp_path / "slow", folder)
    )
    far = {
        name for name, value in fast.items() if not torch.allclose(value.float(), slow_weights[name].float(), atol=1e-5)
    }
    assert slow
    assert far
    assert all(CHILD in name for name in far)
