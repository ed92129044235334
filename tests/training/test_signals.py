"""Ctrl-C and SIGTERM during training reach the caller."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from foveate.cli.failures import Terminated
from foveate.training import EpochRow, fit
from foveate.training.loop import _EachEpoch
from training.toy import QUICK, toy_data, toy_model


@contextmanager
def sigterm(answer: Any) -> Iterator[None]:
    """Let the caller of `fit` answer SIGTERM in this way."""
    before = signal.signal(signal.SIGTERM, answer)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@pytest.mark.parametrize("kind", [KeyboardInterrupt, Terminated])
def test_an_interruption_stays_what_it_was(kind: type[KeyboardInterrupt]) -> None:
    def interrupt(row: EpochRow) -> None:
        raise kind

    with pytest.raises(KeyboardInterrupt) as raised:
        fit(toy_model(), toy_data(), QUICK, interrupt)
    assert type(raised.value) is kind


def test_sigterm_that_the_caller_does_not_answer_is_an_interruption() -> None:
    with sigterm(signal.SIG_DFL), pytest.raises(KeyboardInterrupt):
        fit(toy_model(), toy_data(), QUICK, lambda row: signal.raise_signal(signal.SIGTERM))


def test_sigterm_before_the_first_epoch_is_answered_by_the_caller_too(monkeypatch: pytest.MonkeyPatch) -> None:
    def terminate(*_: Any) -> None:
        raise Terminated

    monkeypatch.setattr(_EachEpoch, "on_fit_start", lambda *_: signal.raise_signal(signal.SIGTERM))
    with sigterm(terminate):
        with pytest.raises(Terminated):
            fit(toy_model(), toy_data(), QUICK)
        assert signal.getsignal(signal.SIGTERM) is terminate


def test_sigterm_is_answered_by_the_caller_alone() -> None:
    heard: list[int] = []
    with sigterm(lambda number, _: heard.append(number)):
        rows = fit(toy_model(), toy_data(), QUICK, lambda row: signal.raise_signal(signal.SIGTERM))
    assert len(rows) == QUICK.epochs
    assert heard == [signal.SIGTERM] * QUICK.epochs
