"""Events of a study or a training while it runs."""

from pathlib import Path
from typing import Any


class Progress:
    """Receives the events; override what is to be shown. A training is a study of one trial."""

    def outlined(self, plan: Any) -> None:
        """The study is worked out, nothing is written yet; `str(plan)` is for people."""

    def started(self, folder: Path, trials: int, finished: int) -> None:
        """Trials begin; `finished` of them are done already."""

    def trial_started(self, slug: str, seed: int) -> None:
        """A trial begins."""

    def epoch_done(self, slug: str, seed: int, row: dict[str, Any], epochs: int) -> None:
        """An epoch of a trial is over; `row` is as in trial.json."""

    def trial_done(self, slug: str, seed: int, status: str, trial: dict[str, Any]) -> None:
        """A trial is over, as in trial.json."""

    def measuring(self) -> None:
        """The trials are over, latencies are measured."""

    def finished(self, folder: Path, results: dict[str, Any]) -> None:
        """Everything is written."""
