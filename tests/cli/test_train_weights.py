"""First weights in a training: a frozen host, heads that start again, and weights with attention."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from cli.conftest import Foveate
from cli.unsplit import BOXES, QUICK, boxed, photos, record
from foveate.errors import HostMovedWarning
from foveate.experiment import run_folder as runs
from foveate.experiment.model import build_host
from foveate.models import YOLOv4Tiny, build, save_darknet, save_weights
from foveate.studies.trial import open_study_data
from foveate.surgery import load_adapter
from foveate.torch_utils.names import CHILD
from foveate.training import evaluate

pytestmark = pytest.mark.usefixtures("opened_anew")

HOST = Path("host.safetensors")
FASTER = ("--lr", "0.02")
HEADS = {"classify": ("linear",), "detect": ("coarse_head", "fine_head")}


def asked(task: str, classes: int | None = None) -> tuple[object, ...]:
    """Return a quick training on two classes, or boxes of ten, from weights of a host for `classes`."""
    torch.manual_seed(3)
    if task == "classify":
        save_weights(build("resnet8", classes or 2), HOST)
        return ("train", photos("photos"), *QUICK, "--weights", HOST, *FASTER)
    save_weights(YOLOv4Tiny(classes or 10), HOST)
    return ("train", boxed("boxes"), *BOXES, "--weights", HOST, *FASTER)


def host_of(folder: Path) -> tuple[torch.nn.Module, Any]:
    """The plain host with its first weights, and the run's data."""
    run = runs.read_run(folder)
    data = open_study_data(dataclasses.replace(run.options, imgsz=run.data["size"]), run.split)
    host = build_host(run.options, run.data, run.seed)
    return host.to(memory_format=torch.channels_last), data  # pyright: ignore[reportCallIssue]


@pytest.mark.parametrize("task", ["classify", "detect"])
@pytest.mark.parametrize("attention", ["cbam", "coordinate", "none"])
def test_only_the_adapter_and_the_head_of_a_frozen_host_learn(foveate: Foveate, task: str, attention: str) -> None:
    outcome = foveate(*asked(task), "--attention", attention, "--freeze")
    assert outcome.code == 0, outcome.err
    folder, first = Path(outcome.last), load_file(HOST)
    host, data = host_of(folder)
    before = {name: value.clone() for name, value in host.state_dict().items()}
    assert all(torch.equal(value, first[name]) for name, value in before.items())
    heads = HEADS[task]
    if attention != "none":
        with pytest.warns(HostMovedWarning, match=rf"trained in: ({'|'.join(heads)})[\w., ]* differ"):
            load_adapter(host, folder / runs.ADAPTER, example=(1, 3, 64, 64))
    best, result = load_file(folder / runs.BEST), record(folder, "results.json")
    assert host.state_dict().keys() == best.keys()
    learnt = {name for name, value in host.state_dict().items() if not torch.equal(value, best[name])}
    assert learnt == {name for name in before if name.startswith(heads)}
    host.load_state_dict(best)
    last = {"cbam": ("spatial.norm.weight", "expand.weight"), "coordinate": ("row.weight", "column.weight")}.get(
        attention, ()
    )
    assert all(value.any() for name, value in best.items() if name.endswith(last)), "the attention has learnt nothing"
    measured = evaluate(host, data.test, 8, name=task)  # type: ignore[arg-type]
    assert (measured.pop("score"), measured.pop("loss")) == (result["test_score"], result["test_loss"])
    assert json.loads(json.dumps(measured)) == result["test"]


@pytest.mark.parametrize("kind", ["classify", "detect", "darknet"])
def test_a_frozen_hosts_head_for_other_classes_learns(foveate: Foveate, kind: str) -> None:
    arguments = asked("classify" if kind == "classify" else "detect", classes=5)
    if kind == "darknet":
        torch.manual_seed(3)
        save_darknet(YOLOv4Tiny(5), Path("host.weights"))
        arguments = tuple(Path("host.weights") if part == HOST else part for part in arguments)
    outcome = foveate(*arguments, "--attention", "eca", "--freeze")
    assert outcome.code == 0, outcome.err
    folder = Path(outcome.last)
    heads = HEADS["classify" if kind == "classify" else "detect"]
    first, best = load_file(HOST), load_file(folder / runs.BEST)
    assert all(torch.equal(best[name], value) for name, value in first.items() if not name.startswith(heads))
    fresh = build_host(
        dataclasses.replace(runs.read_run(folder).options, weights=None), record(folder, "data.json"), 0
    ).state_dict()
    assert all(not torch.equal(best[f"{head}.weight"], fresh[f"{head}.weight"]) for head in heads)


def test_a_frozen_host_without_weights_is_reported_as_untrained(foveate: Foveate) -> None:
    data = photos("photos")
    for weights, warned in (((), True), (("--weights", HOST), False)):
        asked("classify")
        done = foveate("train", data, *QUICK, *weights, "--attention", "eca", "--freeze")
        assert (done.code, "has learnt nothing" in done.err) == (0, warned), done.err


STILL = ("--lr", "1e-12", "--ema", "0")


@pytest.mark.parametrize("task", ["classify", "detect"])
def test_training_starts_from_weights_with_the_same_attention(foveate: Foveate, task: str) -> None:
    data, quick = (photos("photos"), QUICK) if task == "classify" else (boxed("boxes"), BOXES)
    first = Path(foveate("train", data, *quick, *FASTER, "--attention", "cbam", "--name", "first").last)
    weights = first / runs.BEST
    outcome = foveate("train", data, *quick, *STILL, "--attention", "cbam", "--weights", weights, "--name", "second")
    assert outcome.code == 0, outcome.err
    before, after = load_file(weights), load_file(Path(outcome.last) / runs.BEST)
    learnt = [name for name in before if not name.endswith(("running_mean", "running_var", "num_batches_tracked"))]
    assert any(CHILD in name and before[name].any() for name in learnt if name.endswith("expand.weight"))
    assert all(torch.allclose(before[name], after[name], atol=1e-6) for name in learnt)
    assert record(outcome.last, "data.json").get("anchors") == record(first, "data.json").get("anchors")
    again = foveate(
        "train", data, *quick, *STILL, "--attention", "cbam", "--weights", weights, "--name", "second", "--resume"
    )
    assert "nothing was trained" in again.err
    assert foveate("val", "--run", outcome.last).code == 0


def test_heads_for_other_classes_start_again_and_the_loaded_attention_stays(foveate: Foveate) -> None:
    first = foveate("train", boxed("boxes"), *BOXES, *FASTER, "--attention", "eca", "--name", "first")
    weights = Path(first.last) / runs.BEST
    outcome = foveate(
        "train", boxed("fewer", classes=4), *BOXES, *STILL, "--attention", "eca", "--freeze", "--weights", weights
    )
    assert outcome.code == 0, outcome.err
    before, after = load_file(weights), load_file(Path(outcome.last) / runs.BEST)
    gates = [name for name in before if CHILD in name]
    assert gates
    assert all(torch.allclose(before[name], after[name], atol=1e-6) for name in gates)


@pytest.mark.parametrize(
    ("other", "said"),
    [
        (
            ("--attention", "none"),
            "a model without, and first.safetensors with attention at layer1.0.bn2, layer2.0.bn2, layer3.0.bn2",
        ),
        (
            ("--attention", "eca", "--where", "stage"),
            "a model with attention at layer1.0, layer2.0, layer3.0, and first.safetensors with",
        ),
        (("--attention", "se"), "attention at layer1.0.bn2 has mechanism 'eca', here 'se'; options"),
        (("--attention", "eca:kernel_size=5"), "attention at layer1.0.bn2 has options {'kernel_size': 3, "),
        (("--attention", "eca-paper"), "; start 'identity', here 'paper'"),
    ],
    ids=str,
)
def test_other_attention_than_that_of_the_weights_is_refused(
    foveate: Foveate, other: tuple[str, ...], said: str
) -> None:
    from foveate.surgery import attach

    model = build("resnet8", 2)
    attach(model, "eca", example=(1, 3, 32, 32), kernel_size=3)
    save_weights(model, Path("first.safetensors"))
    outcome = foveate("train", photos("photos"), *QUICK, *other, "--weights", "first.safetensors")
    assert (outcome.code, Path("runs").exists()) == (2, False)
    assert said in outcome.err
    assert "--attention none" in outcome.err


def test_the_arms_of_a_study_start_from_a_host_without_attention(foveate: Foveate) -> None:
    from foveate.surgery import attach

    model = build("resnet8", 2)
    attach(model, "eca", example=(1, 3, 32, 32))
    save_weights(model, Path("first.safetensors"))
    study = ("study", photos("photos"), *QUICK, "--attention", "eca", "--weights", "first.safetensors", "--dry-run")
    outcome = foveate(*study)
    assert (outcome.code, "first.safetensors, of a model with attention" in outcome.err) == (2, True)


@pytest.mark.parametrize(
    "arguments",
    [
        ("train", "boxes", *BOXES, "--imgsz", "32", "--batch", "1"),
        ("train", "boxes", *BOXES, "--batch", "1", "--multi-scale"),
        ("train", "boxes", *BOXES, "--imgsz", "32", "--fraction", "0.01"),
        ("train", "photos", *QUICK, "--model", "timm/resnet18", "--batch", "1"),
        ("study", "photos", *QUICK, "--model", "timm/resnet18", "--batch", "1"),
    ],
    ids=" ".join,
)
def test_a_batch_of_one_too_small_picture_is_refused_before_anything_is_written(
    foveate: Foveate, arguments: tuple[str, ...]
) -> None:
    (boxed if "boxes" in arguments else photos)(arguments[1])
    outcome = foveate(*arguments)
    assert (outcome.code, Path("runs").exists()) == (2, False)
    assert "one image in a batch, of 32 x 32 pixels, whose map is 1 x 1 at a norm" in outcome.err


@pytest.mark.parametrize("json_", [(), ("--json",)])
def test_how_the_data_were_split_is_reported_at_the_beginning(foveate: Foveate, json_: tuple[str, ...]) -> None:
    outcome = foveate("train", photos("photos"), *QUICK, *json_)
    line = "photos: one folder, split 70 / 15 / 15 within each class (seed 0)"
    assert line in outcome.err.splitlines()[:2]
    assert line not in outcome.out
    boxes = foveate("train", boxed("boxes"), *BOXES, *json_)
    assert "boxes: YOLO; one set, split 70 / 15 / 15 (seed 0)\n" in boxes.err
    for text, name in ((outcome.err, "photos"), (boxes.err, "boxes")):
        assert len([line for line in text.splitlines() if line.startswith(f"{name}: val: 4 images")]) == 1
    if json_:
        assert json.loads(outcome.out)["test"]["count"] == json.loads(boxes.out)["test"]["count"] == 4
