"""Runs that are resumed, and runs that start from the weights of other runs."""

import json
import re
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from PIL import Image
from safetensors.torch import load_file

import foveate as library
from cli.conftest import Foveate, Outcome
from cli.unsplit import BOXES, QUICK, boxed, photos, record
from foveate import files, models
from foveate.cli import run as command
from foveate.errors import DataError, UsageError
from foveate.experiment import data as experiment_data
from foveate.experiment import run_folder as runs
from foveate.experiment.model import build_host
from foveate.experiment.options import StudyOptions
from foveate.models import YOLOv4Tiny, save_darknet
from foveate.models.detectors import trained_anchors

pytestmark = pytest.mark.usefixtures("opened_anew")


def times(folder: Path) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}


def interrupt_training(
    foveate: Foveate, monkeypatch: pytest.MonkeyPatch, *arguments: object, number: int = signal.SIGINT
) -> Outcome:
    """Run a training that a signal interrupts in its second epoch."""
    save, calls = models.save_weights, []

    def breaks_off(*given: Any) -> str:
        calls.append(given)
        if len(calls) == 2:
            signal.raise_signal(number)
        return save(*given)

    with monkeypatch.context() as patch:
        patch.setattr("foveate.experiment.train_one.save_weights", breaks_off)
        return foveate(*arguments)


def test_resuming_a_finished_run_trains_nothing(foveate: Foveate) -> None:
    arguments = ("train", photos("photos"), *QUICK, "--name", "p")
    first = foveate(*arguments)
    assert first.code == 0, first.err
    folder = Path(first.last)
    before = times(folder)
    again = foveate(*arguments, "--resume")
    assert (again.code, again.out) == (0, first.out)
    assert "nothing was trained" in again.err
    assert json.loads(foveate(*arguments, "--resume", "--json").out) == {
        **record(folder, "results.json"),
        "run": str(folder),
    }
    for changed in (
        ("--freeze",),
        ("--freeze-epochs", "1"),
        ("--attention-lr", "0.5", "--attention", "eca"),
        ("--no-augment",),
    ):
        refused = foveate(*arguments, *changed, "--resume")
        name = changed[0].removeprefix("--no").lstrip("-").replace("-", "[_-]")
        assert (refused.code, bool(re.search(f"{name}: ", refused.err))) == (2, True), refused.err
    assert times(folder) == before


def test_the_stopped_run_is_resumed_and_not_a_finished_one_of_its_name(
    foveate: Foveate, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = ("train", photos("photos"), *QUICK)
    first = Path(foveate(*arguments).last)
    stopped = interrupt_training(foveate, monkeypatch, *arguments)
    assert (stopped.code, "with --resume to continue" in stopped.err) == (130, True)
    for verb in ("val", "predict"):
        outcome = foveate(verb, "photos", "--run", f"{first}-2")
        assert (outcome.code, "a run that is not finished" in outcome.err, "with --resume" in outcome.err) == (
            2,
            True,
            True,
        )
    for strange in ("args.yaml", "weights/best.pt"):  # files of another program
        Path("theirs", strange).parent.mkdir(parents=True, exist_ok=True)
        Path("theirs", strange).write_text("")
    assert "a folder without" in foveate("val", "--run", "theirs").err
    before = times(first)
    torn = first.with_name(f"{first.name}-2") / "weights" / f".last.safetensors.1{files.TEMPORARY}"
    torn.write_bytes(b"half")
    resumed = foveate(*arguments, "--resume")
    assert (resumed.code, torn.exists()) == (0, False), resumed.err
    assert Path(resumed.last) == first.with_name(f"{first.name}-2")
    assert "nothing was trained" not in resumed.err
    assert record(resumed.last, "results.json") == record(first, "results.json")
    again = foveate(*arguments, "--resume")
    assert (again.last, "nothing was trained" in again.err) == (resumed.last, True)
    assert times(first) == before


@pytest.mark.parametrize("how", ["--resume", "--exist-ok"])
def test_a_run_that_another_process_works_on_is_refused(
    foveate: Foveate, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    arguments = ("train", photos("photos"), *QUICK, "--name", "p")
    assert interrupt_training(foveate, monkeypatch, *arguments).code == 130
    folder = Path("runs/train/p").resolve()
    before = times(folder)
    with files.locked(folder):
        refused = foveate(*arguments, how)
    assert (refused.code, times(folder)) == (2, before)
    assert "another process is working on" in refused.err
    assert foveate(*arguments, how).code == 0


STOPPED, FINISHED, OTHERWISE = {}, {"finished": True}, {"asked": 2}
WHAT = {"classes": ["a", "b"], "fingerprint": "f"}


def begun(*kinds: dict[str, Any], name: str = "x") -> list[Path]:
    """Runs of the same name, begun one after the other."""
    folders = [runs.new_folder(Path("runs"), "train", name, exist_ok=False) for _ in kinds]
    for folder, kind in zip(folders, kinds, strict=True):
        runs.begin(folder, {"asked": kind.get("asked", 1), "name": name}, WHAT)
        if "finished" in kind:
            (folder / "results.json").write_text("{}")
    return folders


@pytest.mark.parametrize(
    ("kinds", "wanted"),
    [
        ([FINISHED, STOPPED], 1),
        ([STOPPED, FINISHED], 0),
        ([STOPPED, STOPPED], 1),
        ([FINISHED, FINISHED], 1),
        ([STOPPED, OTHERWISE], 0),
        ([FINISHED, OTHERWISE], 0),
        ([FINISHED] * 9 + [STOPPED, STOPPED], 10),
    ],
)
def test_the_newest_unfinished_run_with_these_options_is_resumed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kinds: list[dict[str, Any]], wanted: int
) -> None:
    monkeypatch.chdir(tmp_path)
    folders = begun(*kinds)
    for other in ("x-more", "x-²", "xy"):
        begun(STOPPED, name=other)
    assert runs.begun_folder(Path("runs"), "train", "x", {"asked": 1}, WHAT) == folders[wanted]


def test_runs_with_other_options_are_not_resumed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match="Received none"):
        runs.begun_folder(Path("runs"), "train", "x", {"asked": 3}, WHAT)
    begun(STOPPED, OTHERWISE, FINISHED)
    with pytest.raises(UsageError, match=r"options, data and version that .*x-2 began with\nReceived asked: 2 -> 3"):
        runs.begun_folder(Path("runs"), "train", "x", {"asked": 3}, WHAT)


@pytest.mark.parametrize("name", ["args.yaml", "data.json", "env.json"])
@pytest.mark.parametrize("content", [b"", b"[", b"3", b"\xff"])
def test_resuming_from_damaged_records_says_how_to_begin_a_new_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, content: bytes
) -> None:
    monkeypatch.chdir(tmp_path)
    (folder,) = begun(STOPPED)
    (folder / name).write_bytes(content)
    with pytest.raises(DataError, match="leave --resume out") as raised:
        runs.begun_folder(Path("runs"), "train", "x", {"asked": 1}, WHAT)
    assert "remove it and --resume" not in str(raised.value)


@pytest.mark.parametrize("verb", ["train", "val", "predict"])
@pytest.mark.parametrize("name", ["../x", "a/b", ".."])
def test_a_name_that_is_a_path_is_refused_before_anything_is_done(foveate: Foveate, verb: str, name: str) -> None:
    outcome = foveate(verb, "nowhere", *(() if verb == "train" else ("--run", "nowhere")), "--name", name)
    assert outcome.code == 2
    assert "--name as the name of a folder" in outcome.err
    assert not Path("runs").exists()


def test_predict_with_damaged_weights_leaves_no_folder(foveate: Foveate, old: Path) -> None:
    copy = Path(shutil.copytree(old, "copy"))
    path = copy / "weights" / "best.safetensors"
    path.write_bytes(path.read_bytes()[:-1])
    outcome = foveate("predict", boxed("data"), "--run", copy)
    assert (outcome.code, "sha256 differs" in outcome.err) == (3, True)
    assert not Path("runs").exists()


@pytest.mark.parametrize("change", ["an image more", "another image", "other weights", "another version"])
def test_a_run_is_resumed_only_with_its_own_data_and_options(
    foveate: Foveate, monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    torch.manual_seed(0)
    models.save_weights(models.build("resnet8", 2), Path("host.safetensors"))
    arguments = ("train", photos("photos"), *QUICK, "--name", "p", "--weights", "host.safetensors")
    assert interrupt_training(foveate, monkeypatch, *arguments).code == 130
    folder = Path("runs/train/p")
    before = times(folder)
    assert folder / "weights" / "last.ckpt" in before
    if change == "an image more":
        shutil.copy("photos/dark/00.png", "photos/dark/zz.png")
    elif change == "another image":
        Image.new("RGB", (32, 32)).save("photos/dark/00.png")
    elif change == "other weights":
        models.save_weights(models.build("resnet8", 2), Path("host.safetensors"))
    else:
        monkeypatch.setattr(library, "__version__", "99.0")
    experiment_data._open.cache_clear()
    outcome = foveate(*arguments, "--resume")
    assert outcome.code == 2
    said = {"other weights": "the content of --weights: ", "another version": "-> 99.0"}
    assert said.get(change, "the data's content: ") in outcome.err
    assert times(folder) == before


def test_a_folder_used_again_holds_nothing_of_the_run_before(foveate: Foveate, monkeypatch: pytest.MonkeyPatch) -> None:
    arguments = ("train", photos("photos"), *QUICK, "--name", "p", "--exist-ok")
    assert foveate(*arguments, "--seed", 1, "--attention", "eca").code == 0
    assert Path("runs/train/p/weights/adapter.safetensors").exists()
    assert interrupt_training(foveate, monkeypatch, *arguments).code == 130
    assert not any((Path("runs/train/p") / name).exists() for name in ("results.json", "weights/adapter.safetensors"))
    outcome = foveate(*arguments, "--resume", "--json")
    assert (outcome.code, json.loads(outcome.out)["seed"]) == (0, 0)


def test_the_last_weights_are_the_measured_ones(foveate: Foveate) -> None:
    folder = Path(foveate("train", photos("photos"), *QUICK, "--name", "p").last)
    name = {1: "other", 2: "best"}[record(folder, "results.json")["best_epoch"]]
    best, last = (load_file(folder / "weights" / f"{kind}.safetensors") for kind in ("best", "last"))
    assert all(torch.equal(best[key], last[key]) for key in best) is (name == "best")
    shutil.copy(folder / "weights" / "last.safetensors", folder / "weights" / "best.safetensors")
    (folder / "results.json").write_text(json.dumps({**record(folder, "results.json"), "sha256": None}))
    rows = (folder / "results.csv").read_text().splitlines()
    result = json.loads(foveate("val", "--run", folder, "--split", "val", "--json").out)
    assert result["accuracy"] == pytest.approx(float(rows[-1].split(",")[rows[0].split(",").index("val_score")]))


@pytest.fixture(scope="module")
def old(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of a detector on other boxes than those of the tests."""
    project = tmp_path_factory.mktemp("old")
    digits = (
        "--canvas",
        "96",
        "--train-count",
        "16",
        "--val-count",
        "10",
        "--test-count",
        "10",
        "--batch",
        "8",
        "--epochs",
        "1",
    )
    assert command(["train", "--task", "detect", *digits, "--project", str(project), "--name", "old"]) == 0
    return project / "train" / "old"


def heads(folder: Path | str) -> list[tuple[float, float]]:
    """Return the anchors of a run's loaded model."""
    return anchors_in(runs.load_model(runs.read_run(Path(folder))))


def anchors_in(model: Any) -> list[tuple[float, float]]:
    """Return the anchors of the fine output, then of the coarse one."""
    coarse, fine = model.heads
    return [*fine.anchors, *coarse.anchors]


def test_heads_keep_the_anchors_that_they_were_trained_for(
    foveate: Foveate, old: Path, caplog: pytest.LogCaptureFixture
) -> None:
    data, weights = boxed("data"), old / "weights" / "best.safetensors"
    outcome = foveate("train", data, *BOXES, "--weights", weights, "--name", "p")
    assert outcome.code == 0, outcome.err
    assert heads(outcome.last) == heads(old) == trained_anchors(Path(outcome.last) / "weights" / "last.safetensors", 10)
    assert record(outcome.last, "data.json")["anchors"] == record(old, "data.json")["anchors"]

    asked = StudyOptions(
        task="detect", data=data, imgsz=64, weights=Path(shutil.copy(weights, "alone.safetensors"))
    ).resolve()
    opened: Any = experiment_data.open_study_data(asked)
    assert opened.anchors != heads(old)
    assert "does not say what its attention" not in caplog.text
    assert (
        anchors_in(build_host(asked, opened.describe(), 0))
        == opened.anchors
        == experiment_data.data_record(asked, opened)["anchors"]
    )
    assert "alone.safetensors does not say which anchors its heads were trained for" in caplog.text


def test_a_trial_of_a_study_records_its_anchors_too(tmp_path: Path) -> None:
    path = tmp_path / "trials" / "eca__seed0" / "weights" / "best.safetensors"
    anchors = [(float(k), 2.0 * k) for k in range(1, 7)]
    (tmp_path / "data.json").write_text(json.dumps({"anchors": anchors, "classes": ["a", "b"]}))
    assert trained_anchors(path, 2) == anchors
    assert trained_anchors(path, 3) is None
    for damaged in (
        "",
        "[]",
        '{"anchors": 3, "classes": []}',
        '{"anchors": [[1, 2]], "classes": ["a", "b"]}',
        "[" * 100_000,
    ):
        (tmp_path / "data.json").write_text(damaged)
        assert trained_anchors(path, 2) is None


def test_heads_for_classes_of_other_names_are_reported(foveate: Foveate, old: Path) -> None:
    data = boxed("data")
    (data / "data.yaml").write_text((data / "data.yaml").read_text().replace("'3'", "'three'"))
    outcome = foveate("train", data, *BOXES, "--weights", old / "weights" / "best.safetensors")
    assert outcome.code == 0, outcome.err
    before, after = "0, 1, 2, 3, 4, 5, 6, 7, 8, 9", "0, 1, 2, 4, 5, 6, 7, 8, 9, three"
    logged = " ".join(outcome.err.split())
    assert f"was trained for the classes {before}; they are read as {after}, in this order" in logged


def test_heads_for_other_classes_start_again(foveate: Foveate, old: Path) -> None:
    data = boxed("data", classes=4)
    weights = old / "weights" / "best.safetensors"
    outcome = foveate("train", data, *BOXES, "--lr", "1e-12", "--ema", "0", "--weights", weights, "--name", "p")
    assert outcome.code == 0, outcome.err
    assert "was trained for other classes: everything but 'coarse_head' and 'fine_head' was loaded" in outcome.err
    assert heads(outcome.last) != heads(old)
    before, after = load_file(weights), load_file(Path(outcome.last) / "weights" / "best.safetensors")
    assert torch.allclose(before["deep.conv.weight"], after["deep.conv.weight"], atol=1e-6)
    assert before["fine_head.weight"].shape != after["fine_head.weight"].shape


@pytest.mark.parametrize("classes", [10, 4])
def test_a_darknet_file_through_train_val_and_predict(foveate: Foveate, classes: int) -> None:
    """Its heads keep COCO's anchors, unless they start again for other classes."""
    torch.manual_seed(0)
    save_darknet(YOLOv4Tiny(10), Path("host.weights"))
    data = boxed("data", classes=classes)
    outcome = foveate("train", data, *BOXES, "--attention", "eca", "--weights", "host.weights", "--name", "p")
    assert outcome.code == 0, outcome.err
    assert ("was trained for other classes" in outcome.err) is (classes == 4)
    assert ("cannot say which anchors" in outcome.err) is (classes == 10)
    folder = Path(outcome.last)
    assert (heads(folder) == anchors_in(YOLOv4Tiny(10))) is (classes == 10)
    assert heads(folder) == [tuple(anchor) for anchor in record(folder, "data.json")["anchors"]]
    Path("host.weights").unlink()  # the run does not need it any more
    if classes == 4:
        return
    measured = foveate("val", "--run", folder, "--json")
    assert json.loads(measured.out)["coco"] == record(folder, "results.json")["test"]["coco"]
    found = foveate("predict", data / "images" / "train", "--run", folder, "--no-pictures", "--json")
    assert (found.code, len(json.loads(found.out)["images"])) == (0, 24)


def test_weights_with_attention_are_refused_clearly(foveate: Foveate) -> None:
    first = foveate("train", photos("photos"), *QUICK, "--attention", "eca", "--name", "p")
    weights = Path(first.last) / "weights" / "best.safetensors"
    outcome = foveate("train", "photos", *QUICK, "--weights", weights, "--name", "q")
    assert outcome.code == 2
    assert "with attention at layer1.0.bn2" in outcome.err
    assert "--attention none" in outcome.err
    assert not Path("runs/train/q").exists()


def test_a_missing_device_changes_no_run(foveate: Foveate, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    arguments = ("train", photos("photos"), *QUICK, "--name", "p", "--exist-ok")
    folder = Path(foveate(*arguments).last)
    before = times(folder)
    assert yaml.safe_load((folder / "args.yaml").read_bytes())["device"] == "cpu", "what auto found"
    outcome = foveate(*arguments, "--device", "cuda")
    assert (outcome.code, times(folder)) == (2, before)


def test_a_damaged_test_picture_is_reported_before_the_training(foveate: Foveate) -> None:
    for split in ("train", "val", "test"):
        photos(f"data/{split}", 4)
    path = Path("data/test/dark/00.png")
    path.write_bytes(path.read_bytes()[:-500])
    outcome = foveate("train", "data", *QUICK, "--name", "p")
    assert (outcome.code, Path("runs").exists()) == (3, False)
    assert "data/test/dark/00.png" in outcome.err


def test_a_seed_from_the_clock_works(foveate: Foveate) -> None:
    outcome = foveate("train", photos("photos"), *QUICK, "--seed", "1763749688123456789", "--name", "p")
    assert outcome.code == 0, outcome.err
    assert foveate("val", "--run", outcome.last).code == 0
    assert foveate("train", "photos", *QUICK, "--seed", 2**63, "--name", "q").code == 2
