import re
from pathlib import Path
from typing import Any

import pytest
import torch

from foveate.errors import UsageError
from foveate.experiment.arms import Arm, Control, choose_arms, control_widths, labels
from foveate.experiment.model import attach_arm, build_host
from foveate.experiment.options import StudyOptions
from foveate.surgery import host_state_dict, plan

SHAPE = (1, 1, 24, 24)
GREY = {"mean": [0.1], "deviation": [0.3], "source": ""}
ASKED = StudyOptions(attention=("se", "cbam", "cbam-paper", "se:reduction=4"), model="resnet8").resolve()


def slugs(**options: Any) -> list[str]:
    return [arm.slug for arm in choose_arms(StudyOptions(**options).resolve())]


def host(seed: int = 0) -> torch.nn.Module:
    return build_host(ASKED, {"classes": list("0123456789"), "channels": 1, "size": 24, "normalisation": GREY}, seed)


def attached(arm: Arm, seed: int = 0) -> torch.nn.Module:
    model = host(seed)
    attach_arm(model, arm, seed, SHAPE, control_widths(model, choose_arms(ASKED), SHAPE))
    return model


def test_the_default_arms_have_both_starts_of_cbam() -> None:
    assert slugs() == [
        *("none__host", "control__residual", "se-identity__residual"),
        *("cbam-identity__residual", "cbam-paper__residual", "coordinate-identity__residual"),
    ]


def test_mechanisms_sites_and_starts_multiply() -> None:
    found = slugs(attention=("se", "eca"), where=("residual", "stage"), start=("identity", "paper"), control=False)
    assert len(found) == len(set(found)) == 1 + 2 * 2 * 2


@pytest.mark.parametrize(
    "where", ["layer[34].*.bn3", "../../etc", "", "a" * 300, "<script>", "con", "bn.é", "x/y", "x y"]
)
def test_a_slug_is_a_safe_folder_name_and_differs_between_sites(where: str) -> None:
    slug = Arm("se", where, "identity").slug
    assert re.fullmatch(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,200}", slug)
    assert slug != Arm("se", where + "x", "identity").slug


def test_options_are_part_of_the_arm() -> None:
    _, four, true = choose_arms(StudyOptions(attention=("se:reduction=4", "se:bias=false"), control=False).resolve())
    assert (four.options, true.options) == ({"reduction": 4}, {"bias": False})
    assert four.slug != true.slug
    assert labels([four, true])[four.slug] == "SE (reduction=4, identity start)"


def test_labels_name_the_site_if_there_are_several() -> None:
    named = labels(choose_arms(StudyOptions(attention=("se",), where=("residual", "stage")).resolve()))
    assert len(set(named.values())) == len(named)
    assert named["se-identity__stage"].endswith("at stage")
    assert named["none__host"] == "plain host"


def test_arms_replace_modules_and_the_plain_host_keeps_them() -> None:
    asked = StudyOptions(attention=("se", "eca:kernel_size=3"), model="resnet8", replace="BatchNorm2d")
    arms = choose_arms(StudyOptions.from_dict(asked.to_dict()).resolve())
    assert [arm.slug for arm in arms] == [
        *("none__host", "control__BatchNorm2d"),
        *("se-identity__BatchNorm2d", "eca-kernel_size3-identity__BatchNorm2d"),
    ]
    assert labels(arms)[arms[1].slug] == "control (no attention, replaces BatchNorm2d)"
    assert labels(arms)[arms[2].slug] == "SE (identity start, replaces BatchNorm2d)"
    assert [Arm(**arm.to_dict()) for arm in arms] == arms
    plain = host()
    norms = sum(isinstance(module, torch.nn.BatchNorm2d) for module in plain.modules())
    widths = control_widths(plain, arms, SHAPE)
    plans = [attach_arm(host(), arm, 0, SHAPE, widths) for arm in arms]
    assert plans[0] is None
    assert [(len(made.sites), made.replaced) for made in plans[1:]] == [(norms, ["BatchNorm2d"])] * 3

    some = choose_arms(StudyOptions(attention=("se",), where=("layer1", "layer2"), replace="BatchNorm2d").resolve())
    assert {arm.slug for arm in some if arm.is_attention} == {
        *("se-identity__BatchNorm2d-layer1", "se-identity__BatchNorm2d-layer2")
    }


@pytest.mark.parametrize(
    ("entry", "part"),
    [
        ("cbma", "did you mean 'cbam'"),
        ("se:reductoin=4", "did you mean 'reduction'"),
        ("se:reduction", "name:option=value"),
        ("se:reduction=[", "plain value"),
        ("se:reduction=-1", "reduction"),
        ("", "mechanism"),
    ],
)
def test_a_wrong_entry_is_refused_with_the_nearest(entry: str, part: str) -> None:
    with pytest.raises(UsageError, match=re.escape(part)):
        slugs(attention=(entry,))


def test_an_arm_asked_for_twice_is_refused() -> None:
    with pytest.raises(UsageError, match="se-identity__residual twice"):
        slugs(attention=("se", "se"))


def test_the_host_starts_equal_in_every_arm_of_a_seed() -> None:
    plain = host().state_dict()
    for arm in choose_arms(ASKED)[1:]:
        state = host_state_dict(attached(arm))
        assert state.keys() == plain.keys()
        assert all(torch.equal(state[name], plain[name]) for name in plain), arm.slug
    other = host(seed=1).state_dict()
    assert not torch.equal(other["conv1.weight"], plain["conv1.weight"])


def test_every_arm_except_the_papers_start_equals_the_plain_host_at_first() -> None:
    images = torch.randn(2, *SHAPE[1:])
    plain = host().eval()(images)
    same = {arm.slug: torch.equal(attached(arm).eval()(images), plain) for arm in choose_arms(ASKED)}
    assert {slug for slug, equal in same.items() if not equal} == {"cbam-paper__residual"}


def test_both_starts_share_their_first_weights_and_seeds_do_not() -> None:
    identity = attached(Arm("cbam", "residual", "identity")).state_dict()
    paper, other = (attached(Arm("cbam", "residual", "paper"), seed).state_dict() for seed in (0, 1))
    gates = [name for name in paper if "foveate_attention" in name and name.endswith("reduce.weight")]
    assert gates
    assert all(
        torch.equal(identity[name], paper[name]) for name in gates
    )  # but not the last layers, where one start has zeros
    assert not any(torch.equal(other[name], paper[name]) for name in gates)


def test_the_random_state_does_not_change() -> None:
    state = torch.get_rng_state()
    attached(Arm("cbam", "residual", "identity"))
    assert torch.equal(torch.get_rng_state(), state)


def test_the_control_has_the_parameters_of_the_median_arm() -> None:
    arms = choose_arms(ASKED)
    model = host()
    rivals = [arm for arm in arms if arm.is_attention]
    counts = sorted(
        plan(model, a.mechanism, example=SHAPE, start=a.start or "paper", **a.options).parameters for a in rivals
    )
    control = attach_arm(model, arms[1], 0, SHAPE, control_widths(host(), arms, SHAPE))
    steps = sum(2 * site.shape[1] + 1 for site in control.sites)
    assert abs(control.parameters - counts[1]) <= steps / 2


@pytest.mark.parametrize(("channels", "width"), [(1, 1), (5, 1), (5, 3)])
def test_the_control_is_the_identity_at_first_and_learns(channels: int, width: int) -> None:
    control, x = Control(channels, width), torch.randn(2, channels, 3, 4)
    assert torch.equal(control(x), x)
    control(x).square().sum().backward()
    assert control.expand.weight.grad is not None
    assert control.expand.weight.grad.abs().sum() > 0


@pytest.mark.parametrize(
    "wrong",
    [
        *({"seeds": 0}, {"where": ()}, {"start": ()}, {"start": ("papre",)}, {"jobs": 0}, {"budget": -1.0}),
        {"attention": (), "control": False},
        {"canvas": 40, "imgsz": 48},
        {"augment": False},  # of digits
    ],
    ids=str,
)
def test_wrong_options_are_refused_by_name(wrong: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match=f"Expected {next(iter(wrong))}"):
        StudyOptions(**wrong)


def test_options_are_the_same_after_json() -> None:
    options = StudyOptions(data=Path("photos"), attention=("se",), weights=Path("w.safetensors"), imgsz=64)
    assert StudyOptions.from_dict(options.to_dict()) == options


@pytest.mark.parametrize(
    ("given", "canvas", "imgsz"),
    [
        ({"imgsz": 48}, 48, 48),  # digits are classified at their own size
        ({"canvas": 48}, 48, None),
        ({"canvas": 48, "imgsz": 48}, 48, 48),
        ({"task": "detect", "imgsz": 32}, 128, 32),  # a scene is resized to the model's input
        ({"task": "detect", "canvas": 100}, 100, None),
        ({"task": "detect", "canvas": 100, "imgsz": 64}, 100, 64),
    ],
    ids=str,
)
def test_canvas_is_the_size_of_a_scene_and_imgsz_that_of_the_input(
    given: dict[str, Any], canvas: int, imgsz: int | None
) -> None:
    asked = StudyOptions(**given)
    assert (asked.resolve().canvas, asked.resolve().imgsz) == (canvas, imgsz)
    assert asked.resolve().resolve() == asked.resolve()


@pytest.mark.parametrize("task", ["classify", "detect"])
def test_the_pictures_of_a_folder_take_any_imgsz(task: Any) -> None:
    asked = StudyOptions(task=task, data=Path("photos"), imgsz=640).resolve()
    assert (asked.imgsz, asked.generated) == (640, {"noise": 0.0})


@pytest.mark.parametrize(
    "idle",
    [
        *({"multi_scale": True}, {"mosaic": False}),
        *({"noise": 0.5, "task": "detect"}, {"channels": 1, "task": "detect"}),
    ],
    ids=str,
)
def test_an_option_that_would_do_nothing_is_refused(idle: dict[str, Any]) -> None:
    name, task = next(iter(idle)), "classify" if "task" in idle else "detect"
    with pytest.raises(UsageError, match=f"Expected {name} only with --task {task}"):
        StudyOptions(**idle)


@pytest.mark.parametrize(
    "idle", [{"canvas": 64}, {"noise": 0.5}, {"fragments": 3}, {"train_count": 100}, {"test_count": 100}], ids=str
)
def test_options_of_generated_data_are_refused_for_a_folder(idle: dict[str, Any]) -> None:
    flag = "--" + next(iter(idle)).replace("_", "-")
    with pytest.raises(UsageError, match=f"Expected {flag} only with generated data"):
        StudyOptions(data=Path("photos"), **idle)
    assert StudyOptions(**idle).on_folder(Path("photos")) == StudyOptions(data=Path("photos"))


def test_a_host_is_frozen_for_some_epochs_or_for_all() -> None:
    with pytest.raises(UsageError, match="--freeze and --freeze-epochs 2"):
        StudyOptions(freeze=True, freeze_epochs=2)


def test_resolved_options_of_each_task_are_valid_options() -> None:
    for asked in (StudyOptions(), StudyOptions(task="detect"), StudyOptions(task="detect", channels=3)):
        assert StudyOptions.from_dict(asked.resolve().to_dict()).resolve() == asked.resolve()
