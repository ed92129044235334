"""The share of a training's time that it waited for images, and the options that it names."""

import logging
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from foveate.experiment import waiting
from foveate.experiment.options import StudyOptions
from foveate.experiment.waiting import say_waiting, waited

ROWS = [{"seconds": 10.0, "waiting": 0.4}, {"seconds": 30.0, "waiting": 0.2}, {"seconds": 0.0}]


def folder(whole: bool = True) -> Any:
    return SimpleNamespace(copies=SimpleNamespace(store=SimpleNamespace(whole=whole)))


def test_epochs_count_by_their_time() -> None:
    assert waited(ROWS) == 0.25
    assert waited([]) == waited(ROWS[2:]) == 0


@pytest.mark.parametrize(
    ("options", "data", "cores", "words"),
    [
        ({}, folder(), 2, ["25 % of its time", "--workers 2"]),
        ({}, folder(), 16, ["--workers 4"]),
        ({}, folder(), 1, ["more cores, or a smaller --imgsz"]),
        ({"workers": 2, "cache": "none"}, folder(), 2, ["--cache ram"]),
        ({"cache": "none"}, folder(), 2, ["--workers 2", "--cache ram"]),
        ({"workers": 2}, folder(whole=False), 2, ["a larger --cache-size"]),
        ({"workers": 2}, folder(), 2, ["more cores, or a smaller --imgsz"]),
        ({"workers": 2, "data": None}, SimpleNamespace(copies=None), 2, ["more cores, or a smaller --imgsz"]),
    ],
)
def test_only_what_may_help_is_named(
    options: dict[str, Any],
    data: Any,
    cores: int,
    words: list[str],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(waiting, "cores", lambda: cores)
    asked = StudyOptions(**{"data": Path("photos"), **options}).resolve()
    with caplog.at_level(logging.INFO, "foveate"):
        say_waiting([{"seconds": 99.0, "waiting": 0.09}], asked, data)
        say_waiting([{"seconds": 4.0, "waiting": 0.9}, {"seconds": 5.0, "waiting": 0.9}], asked, data)
        assert not caplog.records
        say_waiting(ROWS, asked, data)
    (said,) = caplog.messages
    named = ("--workers", "--cache ram", "--cache-size", "--imgsz")
    assert all(word in said for word in words)
    assert {name for name in named if name in said} == {name for name in named if any(name in word for word in words)}
