import csv
import functools
import json
import os
import shutil
import signal
import subprocess
import sys
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from cli.test_train_again import interrupt_training
from foveate.cli import flags
from foveate.cli import run as command
from foveate.errors import DataError, UsageError
from foveate.experiment import run_folder as runs
from foveate.experiment.data import open_study_data
from foveate.experiment.options import StudyOptions
from foveate.experiment.run_folder import new_folder, read_run
from foveate.studies.costs import measure_costs
from foveate.training import FitOptions
from work import HANG

SMALL = ("--train-count", "320", "--val-count", "40", "--test-count", "60", "--epochs", "2", "--batch", "32")


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    project = tmp_path_factory.mktemp("runs")
    assert (
        command(
            ["train", *SMALL, "--attention", "se:reduction=4", "--seed", "3", "--project", str(project), "--name", "t"]
        )
        == 0
    )
    return project / "train" / "t"


def table(path: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(path.read_text(encoding="utf-8").splitlines()))


def test_a_trained_run_is_complete_and_describes_itself(trained: Path) -> None:
    assert {path.name for path in trained.iterdir()} == {
        "args.yaml",
        "env.json",
        "data.json",
        "results.csv",
        "results.json",
        "weights",
    }
    assert {path.name for path in (trained / "weights").iterdir()} == {
        "adapter.safetensors",
        "best.safetensors",
        "last.safetensors",
    }
    args = yaml.safe_load((trained / "args.yaml").read_text(encoding="utf-8"))
    assert {name: args[name] for name in ("attention", "model", "epochs", "seed", "train_count", "batch", "lr")} == {
        "attention": "se:reduction=4",
        "model": "resnet8",
        "epochs": 2,
        "seed": 3,
        "train_count": 320,
        "batch": 32,
        "lr": StudyOptions().resolve().lr,
    }
    assert [row["epoch"] for row in table(trained / "results.csv")] == ["1", "2"]


def test_the_model_comes_back_as_it_was(trained: Path) -> None:
    found = read_run(trained)
    model = runs.load_model(found)
    assert found.arm.slug == "se-reduction4-identity__residual"
    assert sum("foveate_attention" in name for name, _ in model.named_parameters()) > 0
    assert not model.training
    again = command(
        ["train", "--config", str(trained / "args.yaml"), "--project", str(trained.parent.parent), "--name", "again"]
    )
    assert again == 0
    twin = runs.load_model(read_run(trained.parent / "again"))
    assert all(
        torch.equal(one, two) for one, two in zip(model.state_dict().values(), twin.state_dict().values(), strict=True)
    )


def test_val_repeats_the_test_score(foveate: Any, trained: Path) -> None:
    done = foveate("val", "--run", trained, "--json")
    result = json.loads(done.out)
    before = json.loads((trained / "results.json").read_text(encoding="utf-8"))
    assert result["accuracy"] == before["test_score"]
    assert result["count"] == sum(one["count"] for one in result["classes"]) == 60
    assert (
        json.loads((Path(result["run"]) / "results.json").read_text(encoding="utf-8"))["accuracy"] == result["accuracy"]
    )
    text = foveate("val", "--run", trained, "--split", "val")
    assert text.last == str(Path("runs/val/t-2").resolve())
    assert len([line for line in text.out.splitlines() if line[:1].isdigit()]) == 10


def photos(folder: str, *classes: str) -> Path:
    for split in ("train", "val", "test"):
        for kind in classes:
            for k in range(2):
                path = Path(folder) / split / kind / f"{k}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.new("RGB", (40, 40), (k, 100 * ord(kind[0]) % 256, len(split))).save(path)
    return Path(folder)


def test_val_requires_classes_that_the_model_knows(foveate: Any, trained: Path) -> None:
    done = foveate("val", photos("pets", "cat", "dog", "7"), "--run", trained)
    assert done.code == 3
    assert "received cat, dog" in done.err


def test_val_takes_data_of_some_of_the_classes(foveate: Any) -> None:
    known = (
        "train",
        photos("known", "ant", "bee", "cat"),
        "--imgsz",
        32,
        "--model",
        "resnet8",
        "--epochs",
        1,
        "--name",
        "pets",
    )
    assert foveate(*known).code == 0
    done = foveate("val", photos("some", "bee", "cat"), "--run", "runs/train/pets", "--json")
    assert done.code == 0, done.err
    assert [(one["name"], one["count"]) for one in json.loads(done.out)["classes"]] == [
        ("ant", 0),
        ("bee", 2),
        ("cat", 2),
    ]


def test_val_of_a_model_of_digits_takes_no_photos(foveate: Any, trained: Path) -> None:
    done = foveate("val", photos("numbers", "3", "7"), "--run", trained)
    assert done.code == 2
    assert "foveate predict" in done.err


OF_BOXES = ("--conf 0.5", "--iou 0.5", "--max-det 9")
IDLE = [
    *(("val", one) for one in OF_BOXES),
    *(("predict", one) for one in (*OF_BOXES, "--every 2", "--pictures", "--no-pictures")),
]


@pytest.mark.parametrize(("verb", "idle"), IDLE)
def test_an_option_that_does_nothing_for_a_classifier_is_refused(
    foveate: Any, trained: Path, verb: str, idle: str
) -> None:
    done = foveate(verb, ".", "--run", trained, *idle.split())
    assert done.code == 2
    assert f"received {idle.split()[0]} for a model trained with --task classify" in done.err
    assert not Path("runs").exists()


@pytest.mark.parametrize("verb", ["val", "predict"])
def test_the_device_is_chosen_before_anything_is_read(foveate: Any, verb: str) -> None:
    outcome = foveate(verb, "nowhere", "--run", "no-run", "--device", "abacus", "--name", "other")
    assert outcome.code == 2
    assert "a device of this machine: cpu" in outcome.err
    assert "received 'abacus'" in outcome.err
    assert not list(Path("runs").glob("*/other"))


@pytest.mark.parametrize("verb", ["val", "predict"])
def test_the_given_device_is_used(foveate: Any, trained: Path, verb: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def load(trained: Any, device: str) -> None:
        raise UsageError(expected="a test", received=device, do="")

    monkeypatch.setattr("foveate.training.pick_device", lambda name: f"{name}:1")
    monkeypatch.setattr("foveate.experiment.run_folder.load_model", load)
    folder = photos("some", "3", "7") / "val"
    for asked, used in ((("--device", "cuda"), "cuda:1"), ((), "auto:1")):
        outcome = foveate(verb, *([folder] if verb == "predict" else []), "--run", trained, *asked)
        assert (outcome.code, f"received {used}" in outcome.err) == (2, True)


@pytest.mark.parametrize("verb", ["val", "predict"])
def test_an_empty_batch_is_refused(foveate: Any, trained: Path, verb: str) -> None:
    done = foveate(verb, ".", "--run", trained, "--batch", 0)
    assert done.code == 2
    assert "--batch" in done.err


def test_predict_writes_a_row_for_every_image(foveate: Any, trained: Path) -> None:
    data = open_study_data(StudyOptions(train_count=320, val_count=40, test_count=60).resolve())
    folder = Path("images")
    (folder / "deep er").mkdir(parents=True)
    for k in range(5):
        Image.fromarray(data.image("test", k)).save(folder / "deep er" / f"{k}.png")
    done = foveate("predict", folder, "--run", trained, "--top-k", 2)
    assert done.code == 0
    assert done.last == str(Path("runs/predict/images").resolve())
    rows = table(Path(done.last) / "predictions.csv")
    assert [row["file"] for row in rows] == [f"deep er/{k}.png" for k in range(5)]
    assert list(rows[0]) == ["file", "class", "probability", "class_2", "probability_2", "error"]
    model = runs.load_model(read_run(trained))
    with torch.inference_mode():
        expected = model(torch.stack([data.test[k][0] for k in range(5)])).softmax(1)
    assert [row["class"] for row in rows] == [str(int(k)) for k in expected.argmax(1)]
    assert [float(row["probability"]) for row in rows] == pytest.approx(expected.amax(1).tolist(), abs=1e-3)


def test_predict_continues_after_a_damaged_image(foveate: Any, trained: Path) -> None:
    Path("images").mkdir()
    Path("images/a.png").write_bytes(b"no image")
    Image.fromarray(np.zeros((32, 32), np.uint8)).save("images/b.png")
    done = foveate("predict", "images", "--run", trained, "--json")
    assert done.code == 3
    rows = json.loads(done.out)["predictions"]
    assert rows[0]["class"] is None
    assert "images/a.png" in rows[0]["error"]
    assert rows[1]["error"] is None
    assert "1 of 2 files" in done.err


def test_predict_names_a_file_whose_name_is_no_utf8(foveate: Any, trained: Path) -> None:
    odd = os.fsdecode(b"caf\xe9.png")
    Path("images").mkdir()
    Image.fromarray(np.zeros((32, 32), np.uint8)).save(Path("images") / odd)
    done = foveate("predict", "images", "--run", trained, "--json")
    assert (done.code, [row["file"] for row in json.loads(done.out)["predictions"]]) == (0, [odd])


def test_predict_requires_images(foveate: Any, trained: Path) -> None:
    Path("empty").mkdir()
    assert foveate("predict", "empty", "--run", trained).code == 3
    assert foveate("predict", "absent", "--run", trained).code == 3


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda folder: _flip(folder / "weights" / "best.safetensors"), "sha256 differs"),
        (lambda folder: (folder / "args.yaml").write_text("model: resnet14", encoding="utf-8"), "weights of resnet14"),
        (lambda folder: (folder / "args.yaml").write_text("[", encoding="utf-8"), "the records of a trained model"),
        (lambda folder: (folder / "data.json").unlink(), "a readable record"),
        (
            lambda folder: (folder / "results.json").write_text('{"arm": {}}', encoding="utf-8"),
            "the records of a trained model",
        ),
    ],
)
def test_a_damaged_run_is_refused(tmp_path: Path, trained: Path, spoil: Any, said: str) -> None:
    copy = Path(shutil.copytree(trained, tmp_path / "copy"))
    spoil(copy)
    with pytest.raises(DataError, match=said):
        runs.load_model(read_run(copy))


def _flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


def test_folders_are_numbered_unless_asked_otherwise(tmp_path: Path) -> None:
    made = [new_folder(tmp_path, "val", "x", exist_ok=False).name for _ in range(3)]
    assert made == ["x", "x-2", "x-3"]
    assert new_folder(tmp_path, "val", "x", exist_ok=True).name == "x"
    with pytest.raises(UsageError):
        new_folder(tmp_path, "val", "../x", exist_ok=True)


def test_a_study_from_the_command_line(foveate: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("foveate.studies.run.measure_costs", functools.partial(measure_costs, seconds=0))
    options = "--train-count 64 --seeds 2 --attention eca --no-control --jobs 1 --name s"
    asked = ("study", *SMALL, *options.split())
    planned = foveate(*asked, "--dry-run", "--json")
    assert json.loads(planned.out)["plan"]["trials"] == 4
    assert not Path("runs").exists()

    done = foveate(*asked)
    assert done.code == 0
    folder = Path("runs/study/s").resolve()
    assert done.last == str(folder / "report.html")
    assert (folder / "report.html").is_file()
    assert "about" in done.err
    assert sum("epoch 2/2" in line for line in done.err.splitlines()) == 4
    assert "ECA (identity start)" in done.out
    assert "undecided" in done.out

    again = foveate(*asked, "--resume", "--json")
    assert again.code == 0, again.err
    results = json.loads(again.out)
    assert "(4 of 4 trials are already finished)" in again.err
    assert "epoch 1/2" not in again.err
    assert results["schema"] == 2
    assert results["run"] == str(folder)
    assert results["args"]["attention"] == ["eca"]

    tested = foveate("val", "--run", folder / "trials" / "eca-identity__residual__seed1", "--json")
    assert json.loads(tested.out)["accuracy"] == results["arms"][1]["scores"]["1"]
    whole = foveate("val", "--run", folder)
    assert whole.code == 2
    assert "trials/eca-identity__residual__seed0" in whole.err


ONE_TRIAL = {"strategy", "nodes", "devices", "sync_batch_norm"}  # of `train` alone: a study refuses them


@pytest.mark.parametrize(
    ("verb", "options", "others"),
    [("study", StudyOptions, ONE_TRIAL), ("train", FitOptions, {"close_mosaic", "threads"})],
)
def test_the_command_line_says_what_every_option_means(verb: str, options: Any, others: set[str]) -> None:
    from typer.main import get_command

    from foveate.cli import app

    found: Any = get_command(app)
    said = {parameter.name: parameter.help for parameter in found.commands[verb].params}
    assert {field.name for field in fields(options) if not said.get(field.name)} == others
    assert f"`foveate {verb} -h`" in (options.__doc__ or "")


def test_the_defaults_in_the_help_are_the_defaults() -> None:
    import re
    from typing import get_type_hints

    from foveate.cli.study import study

    hints = get_type_hints(study, include_extras=True)
    documented: dict[str, dict[str, float]] = {"classify": {}, "detect": {}}
    for name, hint in hints.items():
        for extra in getattr(hint, "__metadata__", ()):
            if match := re.search(r"\(([\d.]+)(?:; detect ([\d.]+))?\)\.?$", extra.help or ""):
                documented["classify"][name], documented["detect"][name] = float(match[1]), float(match[2] or match[1])
    assert set(documented["classify"]) >= {"seeds", "margin", "canvas", "train_count"}
    for task, values in documented.items():
        asked: Any = StudyOptions(task=task).resolve()  # type: ignore[arg-type]
        assert values == {name: float(getattr(asked, name)) for name in values}


@pytest.mark.slow
@pytest.mark.parametrize(("sent", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
@pytest.mark.reliability(16)
def test_an_interrupted_study_is_kept(tmp_path: Path, sent: signal.Signals, code: int) -> None:
    arguments = ["study", *SMALL, "--epochs", "50", "--seeds", "2", "--attention", "se", "--jobs", "1", "--name", "s"]
    code_text = f"from foveate.cli import main; main({arguments})"
    process = subprocess.Popen([sys.executable, "-c", code_text], cwd=tmp_path, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    next(line for line in process.stderr if "epoch 2/50" in line)
    process.send_signal(sent)
    rest = process.communicate(timeout=HANG)[1]
    assert process.returncode == code
    assert rest.count("epoch ") <= 2, "it went on learning"
    assert "--resume" in rest
    assert (tmp_path / "runs/study/s/study.json").is_file()


@pytest.mark.reliability(16)
def test_sigterm_keeps_the_finished_epochs(foveate: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    arguments = ("train", *SMALL, "--attention", "se", "--name", "p")
    stopped = interrupt_training(foveate, monkeypatch, *arguments, number=signal.SIGTERM)
    assert stopped.code == 143
    assert "Error: terminated" in stopped.err
    assert "--resume" in stopped.err
    assert Path("runs/train/p/weights/last.ckpt").is_file()
    assert foveate(*arguments, "--resume").code == 0


def test_durations() -> None:
    assert flags.seconds("2h") == 7200
    for wrong in ("", "2 parsecs", "-3", "h", "1..5h"):
        with pytest.raises(UsageError):
            flags.seconds(wrong)
