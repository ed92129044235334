"""Code of a run that is inside its folder is refused, by whatever name the records give it."""

from pathlib import Path

import pytest

from foveate.errors import UsageError
from foveate.experiment.run_code import check_code

SHARED = Path("shared", "train", "exp")


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Make a run with code, a folder beside it, and a link to each, in the current folder, which is on the path."""
    for folder in (SHARED, SHARED.with_name("expert")):
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / "net.py").touch()
    (tmp_path / "linked").symlink_to(SHARED.parent, target_is_directory=True)
    (tmp_path / "shared" / "linked.py").symlink_to(tmp_path / SHARED / "net.py")
    (tmp_path / SHARED / "out").symlink_to(tmp_path / "shared", target_is_directory=True)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend("")
    return tmp_path


@pytest.mark.parametrize(
    "home", ["shared.train.exp.net", "linked.exp.net", "linked.exp", "shared.linked", "shared.train.exp.out.net"]
)
def test_a_module_of_the_folder_in_packages_outside_is_refused(home: str) -> None:
    with pytest.raises(UsageError, match=f"a run whose code is outside .*\n.*{home}"):
        check_code(SHARED, [f"{home}:make"])


@pytest.mark.parametrize("home", ["shared.train.expert.net", "linked.expert.net", "foveate.models", "no.such", "os.\0"])
def test_a_module_outside_the_folder_passes(home: str) -> None:
    check_code(SHARED, [f"{home}:make"])


def test_another_spelling_of_the_folder_is_seen_through(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A link that is not resolved stands for `Exp`, where the file system ignores the case of letters."""
    (here / "Exp").symlink_to(SHARED, target_is_directory=True)
    monkeypatch.setattr(Path, "resolve", lambda self, strict=False: self)
    check_code(here / SHARED, [f"{here / SHARED.with_name('expert')}/net.py:make"])
    with pytest.raises(UsageError, match="Exp/net"):
        check_code(here / SHARED, [f"{here / 'Exp' / 'net.py'}:make"])
