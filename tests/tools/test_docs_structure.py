"""The pictures of the mechanisms' structure show every operation and part, and nothing lies on anything else."""

from itertools import pairwise
from xml.etree import ElementTree

import pytest

import docs_structure
from foveate.mechanisms import names
from foveate.parts import Gate, flat
from foveate.spec import Mechanism
from subjects import Subject


def mechanism(name: str) -> Mechanism:
    return Subject(name).made


def texts(picture: str) -> list[str]:
    return [node.text or "" for node in ElementTree.fromstring(picture).iter() if node.tag.endswith("text")]


def overlapping(rows: list[list[docs_structure.Box]]) -> list[tuple[str, str]]:
    return [
        (one.text, two.text)
        for row in rows
        for one, two in pairwise(row)
        if two.x - one.x < (docs_structure.WIDE if one.text and two.text else 0)
    ]


@pytest.mark.filterwarnings("ignore::foveate.errors.ReductionWarning")
@pytest.mark.parametrize("name", names())
def test_a_picture_shows_every_part_from_x_to_y(name: str) -> None:
    boxes = docs_structure.trace(mechanism(name))
    assert (boxes[0].text, boxes[-1].text) == ("x", "y")
    assert all(box.reads for box in boxes if box.role != "end" or box.text == "y")
    shown = texts(docs_structure.svg(mechanism(name)))
    for path, part in flat(mechanism(name).parts(docs_structure.SIZE[0])).items():
        assert any(text.startswith(path.rpartition(".")[2].replace("_", " ")) for text in shown), path
        if isinstance(part, Gate):
            assert any(text.endswith(f": {part.activation.replace('_', ' ')}") for text in shown)


@pytest.mark.parametrize("name", names())
def test_no_box_lies_on_another(name: str) -> None:
    rows = docs_structure.arranged(docs_structure.trace(mechanism(name)))
    assert overlapping(rows) == []
    rows[1][0].x = rows[0][0].x = 0.0
    rows[0].append(docs_structure.Box("on it", "", "part", [], 0, 10.0))
    assert "on it" in {text for pair in overlapping(rows) for text in pair}


def test_the_picture_of_se() -> None:
    boxes = docs_structure.trace(mechanism("se"))
    assert [box.text for box in boxes] == [
        "x", "mean over H, W", "reduce: conv 1×1", "relu", "expand: conv 1×1", "gate: sigmoid", "y"
    ]  # fmt: skip
    assert boxes[2].shape == "128 × 1 × 1"
    assert [one.text for one in boxes[5].reads] == ["x", "expand: conv 1×1"]
    assert docs_structure.svg(mechanism("se")) == docs_structure.svg(mechanism("se"))
