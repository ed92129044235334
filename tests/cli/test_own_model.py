"""`--model FILE.py:FUNCTION` in plan, train, val and predict."""

import shutil
from pathlib import Path

import pytest
import yaml

from cli.conftest import Foveate
from cli.unsplit import photos

pytestmark = pytest.mark.usefixtures("opened_anew")

NET = """
from torch import nn
def make(classes):
    features = nn.Conv2d(3, 8, 3, 2), nn.BatchNorm2d(8), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()
    return nn.Sequential(*features, nn.Linear(8, classes))
"""
QUICK = (
    "--imgsz",
    "32",
    "--model",
    "nets/mine.py:make",
    "--where",
    "1",
    "--attention",
    "eca",
    "--epochs",
    "1",
    "--batch",
    "8",
)


@pytest.fixture
def net() -> Path:
    path = Path("nets/mine.py")
    path.parent.mkdir()
    path.write_text(NET)
    return path


@pytest.fixture
def trained(foveate: Foveate, net: Path) -> Path:
    outcome = foveate("train", photos("photos"), *QUICK, "--freeze")
    assert outcome.code == 0, outcome.err
    assert "has learnt nothing" not in outcome.err, "the function may have loaded weights"
    return Path(outcome.last)


def test_a_plan_of_the_users_own_network(foveate: Foveate, net: Path) -> None:
    outcome = foveate("plan", "nets/mine.py:make", "--attention", "eca", "--where", "1", "--imgsz", "32")
    assert outcome.code == 0, outcome.err
    assert "8×15×15" in outcome.out
    wrong = foveate("plan", "nets/mine.py:maek")
    assert (wrong.code, "did you mean 'make'?" in wrong.err) == (2, True)
    failing = foveate("plan", "nets/mine.py:make", "--channels", "1", "--debug")
    assert failing.code == 2
    assert "RuntimeError: Given groups=1" in failing.err
    assert "Traceback" in failing.err


def test_a_run_names_its_file_and_is_found_again_from_anywhere(
    foveate: Foveate, trained: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert trained.name == "mine.py-make-eca-identity__1"
    home = Path.cwd()
    assert yaml.safe_load((trained / "args.yaml").read_bytes())["model"] == f"{home / 'nets' / 'mine.py'}:make"
    Path("elsewhere").mkdir()
    monkeypatch.chdir("elsewhere")
    for verb in ("val", "predict"):
        outcome = foveate(verb, *([home / "photos"] if verb == "predict" else []), "--run", trained)
        assert outcome.code == 0, outcome.err
        builder = f"{home / 'nets' / 'mine.py'}:make"
        assert f"The code of {builder} runs now, unchanged since the training." in outcome.err
    shutil.move(home / "nets", home / "moved")
    monkeypatch.chdir(home / "moved" / "..")
    gone = foveate("val", "--run", trained)
    assert (gone.code, "the file of a model at" in gone.err, "no such file" in gone.err) == (2, True, True)


@pytest.mark.parametrize("verb", ["val", "predict"])
def test_code_that_has_changed_is_not_run(foveate: Foveate, net: Path, trained: Path, verb: str) -> None:
    net.write_text("raise SystemExit('run')\n" + NET)
    outcome = foveate(verb, *(["photos"] if verb == "predict" else []), "--run", trained)
    assert (outcome.code, "the code that the run was trained with" in outcome.err) == (3, True)
    assert "restore the file" in outcome.err


def test_a_run_is_resumed_only_with_the_same_code(foveate: Foveate, net: Path, trained: Path) -> None:
    again = foveate("train", "photos", *QUICK, "--freeze", "--resume")
    assert "nothing was trained" in again.err
    absolute = [f"{net.resolve()}:make" if part == "nets/mine.py:make" else part for part in QUICK]
    assert "nothing was trained" in foveate("train", "photos", *absolute, "--freeze", "--resume").err
    net.write_text(NET + "# another\n")
    outcome = foveate("train", "photos", *QUICK, "--freeze", "--resume")
    assert (outcome.code, "the content of the model's file: " in outcome.err) == (2, True)
