"""The tables that `foveate val` writes for a detector, with any class names."""

import csv
from pathlib import Path

import pytest

from foveate.training.tasks import detect

NAMES = ["recall", "true", "(missed)", "a,b", "a b"]


def rows(path: Path) -> list[list[str]]:
    return list(csv.reader(path.read_text(encoding="utf-8").splitlines()))


def test_a_class_may_have_the_name_of_a_column(tmp_path: Path) -> None:
    count = len(NAMES)
    result = {
        "classes": [{"name": name, "truths": 9, "detections": 9, "ap": 0.5, "ap50": 0.5} for name in NAMES],
        "precision": [[k + share / 1000 for share in range(101)] for k in range(count - 1)] + [[None] * 101],
        "confusion": [[10 * true + found for found in range(count + 1)] for true in range(count + 1)],
    }
    detect.write(result, tmp_path)
    curves, confusion = (rows(tmp_path / f"{name}.csv") for name in ("precision_recall", "confusion"))
    assert curves[0] == ["recall", *NAMES]
    assert [row[0] for row in curves[1:]] == [str(k / 100) for k in range(101)]
    assert curves[2] == ["0.01", "0.001", "1.001", "2.001", "3.001", ""]
    assert confusion[0] == ["true", *NAMES, "(missed)"]
    assert [row[0] for row in confusion[1:]] == [*NAMES, "(background)"]
    assert [row[1:] for row in confusion[1:]] == [[str(number) for number in row] for row in result["confusion"]]


@pytest.mark.parametrize(
    ("asked", "conf", "counted"), [(None, 0.001, 0.25), (0.1, 0.1, 0.1), (0.5, 0.5, 0.5), (0.001, 0.001, 0.001)]
)
def test_the_table_counts_boxes_above_the_given_confidence(
    monkeypatch: pytest.MonkeyPatch, asked: float | None, conf: float, counted: float
) -> None:
    numbers = dict.fromkeys(("ap50", "ap75", "ap", "ar_100"), 0.5)
    measured = {
        "coco": numbers,
        "count": 1,
        "classes": [{"truths": 1, "ap50": 0.5, "ap": 0.5}],
        "confusion": [[1, 0], [0, 0]],
    }
    monkeypatch.setattr(detect, "_relabelled", lambda dataset, numbers: dataset)
    monkeypatch.setattr(detect, "evaluate", lambda *asked, **thresholds: measured)
    result = detect.measure(None, None, [0], ["a"], 1, 0, conf=asked)  # type: ignore[arg-type]
    assert (result["thresholds"]["conf"], result["thresholds"]["counted"]) == (conf, counted)
    line, tables = detect.tables(result, "test", "data")
    assert "1 image:" in line
    assert f"detections (columns), above confidence {counted} and with an IoU above 0.45:" in tables[1].caption
