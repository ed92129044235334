import json
import os
from pathlib import Path
from typing import Any

import pytest

import foveate
from foveate import files
from foveate.errors import DataError, UsageError
from foveate.experiment.arms import Arm
from foveate.experiment.options import StudyOptions
from foveate.files import read_json
from foveate.studies.study_folder import StudyFolder, require_same
from studies.tiny import tiny

ARMS = [Arm("none"), Arm("se", "residual", "identity")]


def new(project: Path, **changes: Any) -> StudyFolder:
    record = StudyFolder.create(tiny(project, **changes).resolve(), "digits")
    record.begin(study("f"), {"epochs": 1}, {}, {})
    return record


def study(content: str, **asked: Any) -> dict[str, Any]:
    return {"data": content, "asked": asked, "foveate": foveate.__version__}


def test_names_count_up_and_the_newest_is_resumed(tmp_path: Path) -> None:
    folders = [new(tmp_path).folder.name for _ in range(11)]
    assert folders == ["digits", *(f"digits-{k}" for k in range(2, 12))]
    (tmp_path / "study" / "digits-12").mkdir()  # never began
    (tmp_path / "study" / "digits-other").mkdir()
    assert StudyFolder.find(tiny(tmp_path).resolve(), "digits", "f", {}).folder.name == "digits-11"
    files.write_json(tmp_path / "study" / "digits-3" / "study.json", study("g", lr=1, data="where it lay then"))
    assert StudyFolder.find(tiny(tmp_path).resolve(), "digits", "g", {"lr": 1}).folder.name == "digits-3"
    assert StudyFolder.find(tiny(tmp_path).resolve(), "digits", "g", {"lr": 2}).folder.name == "digits-11"


def test_resuming_without_a_study_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="Received none"):
        StudyFolder.find(tiny(tmp_path).resolve(), "digits", "f", {})


def test_exist_ok_empties_only_the_folder_of_a_study(tmp_path: Path) -> None:
    record = new(tmp_path, name="a")
    record.write("trials/x__seed0/trial.json", {})
    again = StudyFolder.create(tiny(tmp_path, name="a", exist_ok=True).resolve(), "digits")
    assert again.folder == record.folder
    with files.locked(again.folder):
        again.begin(study("f"), {}, {}, {})
        assert not (again.folder / "trials").exists()
        with pytest.raises(UsageError, match="another process"), files.locked(again.folder):
            pass
    StudyFolder.create(tiny(tmp_path, name="a", exist_ok=True).resolve(), "digits")
    (again.folder / "thesis.tex").write_text("mine")
    with pytest.raises(UsageError, match=r"thesis\.tex"):
        StudyFolder.create(tiny(tmp_path, name="a", exist_ok=True).resolve(), "digits")
    assert (again.folder / "study.json").exists()


def test_missing_trials(tmp_path: Path) -> None:
    record = new(tmp_path)
    for arm, seed, status in ((ARMS[0], 0, "done"), (ARMS[1], 0, "diverged"), (ARMS[0], 1, "failed")):
        files.write_json(record.trial_folder(arm.slug, seed) / "trial.json", {"status": status})
    (record.trial_folder(ARMS[1].slug, 1) / "weights").mkdir(parents=True)
    torn = record.trial_folder(ARMS[0].slug, 0) / f".trial.json.1{files.TEMPORARY}"
    torn.write_text("{")
    assert record.missing(ARMS, [0, 1]) == [(ARMS[0], 1), (ARMS[1], 1)]
    record.sweep()
    assert not torn.exists()
    assert not record.trial_folder(ARMS[1].slug, 1).exists()
    assert record.trial_folder(ARMS[0].slug, 0).exists()


def test_other_arguments_are_refused_with_each_difference() -> None:
    asked, changed = StudyOptions(epochs=3).resolve().asked(), StudyOptions(epochs=4, seeds=2).resolve().asked()
    begun = study("abc", **asked)
    require_same(begun, "abc", asked)
    with pytest.raises(UsageError, match="epochs: 3 -> 4") as caught:
        require_same(begun, "abc", changed)
    assert "seeds: 5 -> 2" in caught.value.received
    with pytest.raises(UsageError, match="weights' or model's content"):
        require_same(begun, "abd", asked)
    with pytest.raises(UsageError, match="foveate: '0' -> "):
        require_same({**begun, "foveate": "0"}, "abc", asked)


def test_places_and_processes_may_change() -> None:
    assert (
        StudyOptions(jobs=1, project=Path("a"), resume=True).resolve().asked()
        == StudyOptions(jobs=3, name="b").resolve().asked()
    )


def test_a_damaged_record_is_named(tmp_path: Path) -> None:
    path = tmp_path / "study.json"
    for content in (b"", b"{", b"[]", b"\xff\xfe", b"[" * 100_000):
        path.write_bytes(content)
        with pytest.raises(DataError, match=r"study\.json"):
            read_json(path)


@pytest.mark.parametrize("moment", ["open", "fsync", "replace"])
@pytest.mark.reliability(17)
def test_a_failed_write_keeps_the_old_content_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    path = tmp_path / "results.json"
    files.write_json(path, {"good": 1})

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os if moment == "fsync" else Path, moment, full)
    with pytest.raises(OSError, match="No space"):
        files.write_json(path, {"good": 2})
    monkeypatch.undo()
    assert read_json(path) == {"good": 1}
    assert [file.name for file in tmp_path.iterdir()] == ["results.json"]


def test_json_never_holds_nan(tmp_path: Path) -> None:
    files.write_json(tmp_path / "a.json", {"x": [float("nan"), (float("-inf"), 1.5)], 3: None})
    assert json.loads((tmp_path / "a.json").read_text()) == {"x": [None, [None, 1.5]], "3": None}


@pytest.mark.reliability(18)
def test_every_cut_of_the_log_reopens_and_appends(tmp_path: Path, tried: Any) -> None:
    log = tmp_path / "log.jsonl"
    for k in range(12):
        files.append_line(log, {"event": "epoch", "k": k, "text": 'é\n"' * 3})
    whole = log.read_bytes()
    for cut in range(len(whole) + 1):
        log.write_bytes(whole[:cut])
        files.append_line(log, {"event": "resumed"})
        lines = list(files.read_lines(log))
        assert lines[-1] == {"event": "resumed"}
        kept = [line["k"] for line in lines[:-1]]
        assert kept == list(range(len(kept)))
        assert len(kept) >= whole[:cut].count(b"\n")
    tried(len(whole) + 1)
