"""Show the progress of training on stderr: bars on a terminal, elsewhere one plain line for each epoch."""

from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from rich.progress import BarColumn, MofNCompleteColumn, TaskID, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bars
from rich.table import Column

from foveate.cli import console
from foveate.errors import counted
from foveate.studies.outline import Outline
from foveate.studies.run import Progress

_BAR = 12  # characters


class Display(Progress, AbstractContextManager["Display"]):
    """Keeps the outline, and prints it unless it is the whole result; a context manager, as bars must be removed."""

    plan: Outline | None = None

    def __init__(self, dry_run: bool = False):
        self.dry_run = dry_run

    def __exit__(self, *_: object) -> None:
        return None

    def outlined(self, plan: Outline) -> None:
        """Show what will be done and how long it takes."""
        self.plan = plan
        if not self.dry_run:
            console.note(str(plan))


class Lines(Display):
    """Prints one line for each epoch."""

    trials = ended = 0

    def started(self, folder: Path, trials: int, finished: int) -> None:
        """Print where the records are, so that the user can follow them from the start."""
        self.trials, self.ended = trials, finished
        already = f" ({finished} of {counted(trials, 'trial')} are already finished)" if finished else ""
        console.note(f"Records: {folder.resolve()}{already}")
        if trials > finished:
            console.note(_waiting_for(trials))

    def epoch_done(self, slug: str, seed: int, row: dict[str, Any], epochs: int) -> None:
        """Print the figures of the epoch."""
        console.note(
            f"[{self.ended}/{self.trials} done] {slug} seed {seed}: epoch {row['epoch']}/{epochs}, "
            f"{_figures(row)}, {row['seconds']:.1f} s"
        )

    def trial_done(self, slug: str, seed: int, status: str, trial: dict[str, Any]) -> None:
        """Count the trial, and print the error of one that failed."""
        self.ended += 1
        if status != "done":
            console.note(f"[{self.ended}/{self.trials} done] {slug} seed {seed} {status}: {trial['error']}")

    def measuring(self) -> None:
        """Print that latencies are measured."""
        console.note("Measuring latencies, all arms in interleaved rounds")


class Live(Display):
    """Shows a bar for the whole study and one for each running trial, with the time left."""

    def __init__(self, dry_run: bool = False):
        super().__init__(dry_run)
        columns = (
            TextColumn(
                "{task.description}", markup=False, table_column=Column(ratio=1, no_wrap=True, overflow="ellipsis")
            ),
            BarColumn(_BAR),
            MofNCompleteColumn(),
            TimeRemainingColumn(compact=True),
            TextColumn("{task.fields[figures]}", markup=False, style="dim"),
        )
        self.bars = Bars(*columns, console=console.stderr(), transient=True, speed_estimate_period=3600)
        self.whole: TaskID | None = None
        self.waiting: TaskID | None = None
        self.running: dict[tuple[str, int], TaskID] = {}
        self.epochs = 1

    def __exit__(self, *_: object) -> None:
        self.bars.stop()

    def outlined(self, plan: Outline) -> None:
        """Keep the number of epochs too."""
        super().outlined(plan)
        self.epochs = plan.options.epochs or 1

    def started(self, folder: Path, trials: int, finished: int) -> None:
        """Show the bar of the whole study."""
        console.note(f"Records: {folder.resolve()}", "dim")
        self.bars.start()
        if trials > 1:
            self.whole = self.bars.add_task(
                "all trials, in epochs", total=(trials - finished) * self.epochs, figures=""
            )
        if trials > finished:
            self.waiting = self.bars.add_task(_waiting_for(trials), total=None, figures="")

    def trial_started(self, slug: str, seed: int) -> None:
        """Show the trial's bar."""
        if self.waiting is not None:
            self.bars.remove_task(self.waiting)
            self.waiting = None
        self.running[slug, seed] = self.bars.add_task(f"{slug} seed {seed}", total=self.epochs, figures="")

    def epoch_done(self, slug: str, seed: int, row: dict[str, Any], epochs: int) -> None:
        """Advance both bars."""
        if (slug, seed) not in self.running:
            self.trial_started(slug, seed)
        self.bars.update(self.running[slug, seed], completed=row["epoch"], total=epochs, figures=_figures(row))
        if self.whole is not None:
            self.bars.advance(self.whole)

    def trial_done(self, slug: str, seed: int, status: str, trial: dict[str, Any]) -> None:
        """Remove the trial's bar and print a line."""
        bar = self.running.pop((slug, seed), None)
        if bar is not None:
            self.bars.remove_task(bar)
        if self.whole is not None:
            self.bars.advance(self.whole, self.epochs - len(trial["history"]))  # epochs that were left out at the end
        if status == "done":
            self.bars.console.print(
                f"{slug} seed {seed}: test {100 * trial['test_score']:.2f} %", style="dim", markup=False
            )
        else:
            self.bars.console.print(f"{slug} seed {seed} {status}: {trial['error']}", style="yellow", markup=False)

    def measuring(self) -> None:
        """Replace all bars with one that says that latencies are measured."""
        for bar in self.bars.task_ids:
            self.bars.remove_task(bar)
        self.bars.add_task("measuring latencies", total=None, figures="all arms in interleaved rounds")


def show_progress(dry_run: bool = False) -> Display:
    """Return bars if stderr is an interactive terminal, else lines."""
    return Live(dry_run) if console.stderr().is_interactive else Lines(dry_run)


def _waiting_for(trials: int) -> str:
    """Return what to show before the first epoch ends: only a study starts worker processes."""
    return "starting workers" if trials > 1 else "training the first epoch"


def _figures(row: dict[str, Any]) -> str:
    return f"loss {row['train_loss']:.3f}, val {100 * row['val_score']:.1f} %"
