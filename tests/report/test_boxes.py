from xml.etree import ElementTree as ET

import pytest

from foveate.report.confusion_plots import confusion, precision_recall
from foveate.report.svg import Drawing

SVG = "{http://www.w3.org/2000/svg}"


def texts(plot: Drawing) -> list[str]:
    return ["".join(element.itertext()) for element in ET.fromstring(plot.file.partition("?>")[2]).iter(f"{SVG}text")]


def lines(plot: Drawing) -> int:
    """The curves: long paths, with a point for each recall."""
    paths = ET.fromstring(plot.file.partition("?>")[2]).iter(f"{SVG}path")
    return sum(path.get("d", "").count("L") > 50 for path in paths)


@pytest.mark.parametrize(("count", "expected"), [(1, 1), (3, 4), (20, 21)])
def test_a_line_for_each_class_and_their_mean(count: int, expected: int) -> None:
    classes = [{"name": f"kind {k}", "ap50": 0.5 + k / 100} for k in range(count)]
    falling = [[1 - (k % 3 + 1) * r / 400 for r in range(101)] for k in range(count)]
    plot = precision_recall(classes, falling)
    assert lines(plot) == expected
    assert any(text.startswith("kind 0") and "50.00" in text for text in texts(plot)) == (count < 20)
    assert any("all 3 classes  51.00" in text for text in texts(plot)) == (count == 3)


def test_a_class_without_truth_has_no_line() -> None:
    classes = [{"name": "cat", "ap50": 0.8}, {"name": "dog", "ap50": None}]
    plot = precision_recall(classes, [[1.0] * 50 + [0.5] * 51, [None] * 101])
    assert "cat" in plot.label
    assert "dog" not in plot.file
    assert precision_recall([{"name": "dog", "ap50": None}], [[None] * 101]).file


def test_a_class_may_have_any_name() -> None:
    plot = precision_recall([{"name": "_b", "ap50": 0.8}, {"name": "$x$", "ap50": 0.7}], [[1.0] * 101] * 2)
    assert {"_b  80.00", "$x$  70.00"} <= set(texts(plot))


def test_counts_are_in_their_cells() -> None:
    plot = confusion(["a<b>", "$x$"], [[7, 0, 2], [1, 5, 0], [3, 0, 0]])
    assert sorted(text for text in texts(plot) if text.isdigit()) == ["1", "2", "3", "5", "7"]
    assert {"a<b>", "$x$", "missed", "background"} <= set(texts(plot))
    assert plot.label.endswith("12 correct, 2 missed, 3 false")


def test_a_title_that_fits_a_small_matrix_is_not_cut() -> None:
    title = "CoordinateAttention (reduction=16, identity start)"
    assert title in texts(confusion(["few", "many"], [[3, 1], [0, 4]], title))
    assert any(text.endswith("…") for text in texts(confusion(["few", "many"], [[3, 1], [0, 4]], title * 4)))


def test_eighty_classes_make_a_small_file() -> None:
    names = [f"class {k}" for k in range(80)]
    matrix = [[(row * column) % 7 for column in range(81)] for row in range(81)]
    plot = confusion(names, matrix)
    assert len(plot.file) < 2_000_000
    assert not [text for text in texts(plot) if text.isdigit()]
