"""Ctrl-C and SIGTERM during training reach the caller."""

import signal
from typing import Any

import pytest

from foveate.cli.failures import Terminated
from foveate.training import EpochRow, fit
from foveate.training.loop import _EachEpoch
from training.toy import QUICK, toy_data, toy_model


@pytest.mark.parametrize("kind", [KeyboardInterrupt, Terminated])
def test_an_interruption_stays_what_it_was(kind: type[KeyboardInterrupt]) -> None:
    def interrupt(row: EpochRow) -> None:
        raise kind

    with pytest.raises(KeyboardInterrupt) as raised:
        fit(toy_model(), toy_data(), QUICK, interrupt)
    assert type(raised.value) is kind


def test_sigterm_that_the_caller_does_not_answer_is_an_interruption() -> None:
    before = signal.signal(signal.SIGTERM, signal.SIG_DFL)
    try:
        with pytest.raises(KeyboardInterrupt):
            fit(toy_model(), toy_data(), QUICK, lambda row: signal.raise_signal(signal.SIGTERM))
    finally:
        signal.signal(signal.SIGTERM, before)


def test_sigterm_before_the_first_epoch_is_answered_by_the_caller_too(monkeypatch: pytest.MonkeyPatch) -> None:
    def terminate(*_: Any) -> None:
        raise Terminated

    monkeypatch.setattr(_EachEpoch, "on_fit_start", lambda *_: signal.raise_signal(signal.SIGTERM))
    before = signal.signal(signal.SIGTERM, terminate)
    try:
        with pytest.raises(Terminated):
            fit(toy_model(), toy_data(), QUICK)
        assert signal.getsignal(signal.SIGTERM) is terminate
    finally:
        signal.signal(signal.SIGTERM, before)


def test_sigterm_is_answered_by_the_caller_alone() -> None:
    heard: list[int] = []
    before = signal.signal(signal.SIGTERM, lambda number, _: heard.append(number))
    try:
        rows = fit(toy_model(), toy_data(), QUICK, lambda row: signal.raise_signal(signal.SIGTERM))
    finally:
        signal.signal(signal.SIGTERM, before)
    assert len(rows) == QUICK.epochs
    assert heard == [signal.SIGTERM] * QUICK.epochs
