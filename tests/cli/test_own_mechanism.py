"""`--attention FILE.py:CLASS` in plan, train and val."""

from pathlib import Path

import pytest
import yaml

from cli.conftest import Foveate
from cli.unsplit import photos

pytestmark = pytest.mark.usefixtures("opened_anew")

OWN = Path(__file__).parents[1] / "mechanisms" / "own.py"
ENTRY = "nets/own.py:Pixel"
QUICK = ("--imgsz", "32", "--model", "resnet8", "--epochs", "1", "--batch", "8")


@pytest.fixture
def own() -> Path:
    path = Path("nets/own.py")
    path.parent.mkdir()
    path.write_bytes(OWN.read_bytes())
    return path


def test_a_plan_with_the_users_own_mechanism(foveate: Foveate, own: Path) -> None:
    outcome = foveate("plan", "resnet8", "--attention", f"{ENTRY}:bias=false", "--imgsz", "32")
    assert outcome.code == 0, outcome.err
    assert "pixel" in outcome.out.lower()
    wrong = foveate("plan", "resnet8", "--attention", "nets/own.py:Pixl")
    assert (wrong.code, "did you mean 'Pixel'?" in wrong.err) == (2, True)
    option = foveate("plan", "resnet8", "--attention", f"{ENTRY}:bais=false")
    assert (option.code, "did you mean 'bias'?" in option.err) == (2, True)


def test_a_run_with_it_is_found_again_and_needs_the_same_code(
    foveate: Foveate, own: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    outcome = foveate("train", photos("photos"), *QUICK, "--attention", f"{ENTRY}-paper:bias=false")
    assert outcome.code == 0, outcome.err
    run, home = Path(outcome.last).resolve(), Path.cwd()
    located = f"{home / 'nets' / 'own.py'}:Pixel-paper:bias=false"
    assert yaml.safe_load((run / "args.yaml").read_bytes())["attention"] == located
    Path("elsewhere").mkdir()
    monkeypatch.chdir("elsewhere")
    again = foveate("val", "--run", run)
    assert again.code == 0, again.err
    assert f"The code of {home / 'nets' / 'own.py'}:Pixel runs now" in again.err
    (home / "nets" / "own.py").write_text(OWN.read_text() + "# another\n")
    changed = foveate("val", "--run", run)
    assert (changed.code, "the code that the run was trained with" in changed.err) == (3, True)
