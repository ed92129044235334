"""Events of a study or a training while it runs."""

from pathlib import Path
from typing import Any


class Progress:
    """Receives the events of a run; override the methods that should show something.

    A training sends the events of a study with one trial.
    """

    def outlined(self, plan: Any) -> None:
        """The study is planned, and nothing is written yet; `str(plan)` is text for people."""

    def started(self, folder: Path, trials: int, finished: int) -> None:
        """The trials begin; `finished` of them are done already."""

    def trial_started(self, slug: str, seed: int) -> None:
        """A trial begins."""

    def epoch_done(self, slug: str, seed: int, row: dict[str, Any], epochs: int) -> None:
        """An epoch of a trial ended; `row` is its row in trial.json."""

    def trial_done(self, slug: str, seed: int, status: str, trial: dict[str, Any]) -> None:
        """A trial ended; `trial` is the content of trial.json."""

    def measuring(self) -> None:
        """All trials ended, and latencies are measured now."""

    def finished(self, folder: Path, results: dict[str, Any]) -> None:
        """Everything is written."""
