"""`foveate bench FILE_OR_MODEL...`: latency and memory of models and exported files, side by side."""

import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from foveate.cli import console, flags
from foveate.cli.plan import Channels, Classes
from foveate.cli.run_or_model import Opened, open_run_or_model, refuse_options
from foveate.errors import FoveateError, MissingExtra, UsageError, counted
from foveate.new_process import python_command

if TYPE_CHECKING:
    from foveate.exporting.forms import Call

SECONDS = 20.0
EAGER, COMPILED = "PyTorch", "PyTorch, compiled"
_MEMORY = "from foveate.cli.bench import say_memory; say_memory(sys.argv[1])"


@dataclass(frozen=True)
class Form:
    """A form of a model, which any process can open: `how` is PyTorch, compiled, or the format of the file `source`.

    `added` are the forms that `--compare` adds; one of them may fail.
    """

    name: str
    source: str
    how: str
    given: Mapping[str, Any]
    channels: int
    batch: int
    threads: int
    added: bool = False

    def open(self) -> "Call":
        """Return a call of the form. Raises UsageError, DataError."""
        from foveate.exporting.forms import file_call, model_call

        if self.how not in (EAGER, COMPILED):
            return file_call(Path(self.source), self.batch, self.given["imgsz"], self.threads)
        opened = open_run_or_model(self.source, self.given, self.channels)
        return model_call(opened.model, opened.example, self.batch, compiled=self.how == COMPILED)


def bench(
    models: Annotated[
        list[str],
        typer.Argument(
            metavar="FILE_OR_MODEL...",
            help=f"Files of foveate export, folders of trained models, or {flags.MODELS} The first is what the others "
            "are compared with.",
            show_default=False,
        ),
    ],
    compare: Annotated[
        bool, typer.Option("--compare", help="Also measure each model compiled, and exported to each format.")
    ] = False,
    attention: flags.Attention = None,
    where: flags.Where = None,
    weights: flags.Weights = None,
    imgsz: flags.Imgsz = None,
    channels: Channels = 3,
    classes: Classes = None,
    batch: Annotated[int, typer.Option("--batch", help="Images in a call.", min=1)] = 1,
    threads: Annotated[
        int | None,
        typer.Option("--threads", help="Threads of each runtime (all cores).", min=1, show_default=False),
    ] = None,
    seconds: Annotated[
        float, typer.Option("--seconds", help="Time for the rounds, all forms together.", min=0)
    ] = SECONDS,
    json: flags.Json = False,
    config: flags.Config = None,
    debug: flags.Debug = False,
) -> None:
    """Measure models and exported files side by side: milliseconds, the ratio to the first, and memory."""
    import torch

    from foveate.experiment.environment import cores, describe_environment, load_average
    from foveate.experiment.latency import LEVEL
    from foveate.exporting.forms import measure

    threads = threads or cores()
    before = load_average()
    torch.set_num_threads(threads)
    given = {"attention": attention, "where": where, "weights": weights, "imgsz": imgsz, "classes": classes}
    given["weights"] = None if weights is None else str(weights.resolve())
    shared = {"channels": channels, "batch": batch, "threads": threads}
    with tempfile.TemporaryDirectory() as folder:
        calls, memory, failed = {}, {}, {}
        forms = list(_forms(models, compare, given, shared, Path(folder), failed))
        for form in forms:
            try:
                call, rise = _warm(form), _memory_of(form)
            except Exception as error:
                if not form.added or not (form.how == COMPILED or isinstance(error, FoveateError)):
                    raise  # else a compiler, which fails in any way
                failed[form.name] = _reason(error)
                continue
            calls[form.name], memory[form.name] = call, rise
        timings = measure(calls, seconds)
        results = [
            {"name": form.name, "form": form.how, **timings[form.name], "memory": memory[form.name]}
            for form in forms
            if form.name in timings
        ]
    for name, why in failed.items():
        console.note(f"{name} is left out: {why}", "yellow")
    if json:
        record = {"schema": 1, "interval": LEVEL, "batch": batch, "threads": threads, "results": results}
        record |= {"failed": failed, "load_average": {"before": before, "after": load_average()}}
        console.say_json({**record, "environment": describe_environment()})
        return
    console.say_table(("Form", "ms", "Quartiles", "Ratio", "Memory"), map(_row, results))
    rounds = results[0]["rounds"]
    console.say_prose(
        f"Medians of {counted(int(rounds), 'round')} with {LEVEL:.0%} intervals, batch {batch}, "
        f"{counted(threads, 'thread')}. Memory is what opening and running adds to a new process."
    )


def say_memory(text: str) -> None:
    """Print by how many bytes a form, given as JSON, raises the peak memory of this process."""
    import torch

    from foveate.exporting.formats import FORMATS, import_packages
    from foveate.exporting.forms import memory_rise
    from foveate.models import ensure_torchvision

    form = Form(**json.loads(text))
    torch.set_num_threads(form.threads)
    if form.how in FORMATS:
        import_packages(form.how)
    else:
        ensure_torchvision()
        import timm  # noqa: F401
    sys.stdout.write(json.dumps(memory_rise(form.open)) + "\n")


def _forms(
    sources: list[str],
    compare: bool,
    given: dict[str, Any],
    shared: dict[str, Any],
    folder: Path,
    failed: dict[str, str],
) -> Iterator[Form]:
    """Yield the forms to measure: each source, and with `compare` the other forms of each model.

    Adds those that cannot be exported to `failed`. Raises UsageError for an option that does not fit a source.
    """
    from foveate.experiment.run_folder import read_run
    from foveate.exporting.formats import FORMATS, format_of

    none: dict[str, Any] = dict.fromkeys(given)
    for number, source in enumerate(sources):
        name = source + (f" ({number + 1})" if source in sources[:number] else "")
        if Path(source).is_file():
            refuse_options(source, {**given, "imgsz": None}, "a file as it was exported")
            yield Form(name, source, format_of(Path(source))[0], {**none, "imgsz": given["imgsz"]}, **shared)
            continue
        options = given
        if Path(source).is_dir():
            same = given["imgsz"] == read_run(Path(source)).data["size"]
            refuse_options(source, {**given, "imgsz": None} if same else given, "a run as it was trained")
            options = none
        if not compare:
            yield Form(name, source, EAGER, options, **shared)
            continue
        opened = open_run_or_model(source, options, shared["channels"])
        yield Form(f"{name}, {EAGER}", source, EAGER, options, **shared)
        yield Form(f"{name}, {COMPILED}", source, COMPILED, options, **shared, added=True)
        for format in FORMATS:
            try:
                path = _exported(opened, format, folder / str(number))
            except MissingExtra as error:
                console.note(f"{format} is left out: {error.do}", "yellow")
                continue
            except FoveateError as error:
                failed[f"{name}, {format}"] = _reason(error)
                continue
            yield Form(f"{name}, {format}", str(path), format, none, **shared, added=True)


def _exported(opened: Opened, format: str, folder: Path) -> Path:
    """Export a model for the measurement, and return the file."""
    from foveate.exporting.exported import export
    from foveate.exporting.formats import named

    return export(opened.model, folder / f"model{named(format).SUFFIX}", opened.example).path


def _reason(error: Exception) -> str:
    """Return the kind of an error and what was wrong, in a line."""
    text = f"expected {error.expected}; received {error.received}" if isinstance(error, FoveateError) else str(error)
    return f"{type(error).__name__}: {(text.splitlines() or [''])[0][:200]}"


def _warm(form: Form) -> "Call":
    """Return a call of a form that has run once."""
    call = form.open()
    call()
    return call


def _memory_of(form: Form) -> int | None:
    """Return what a form adds to the memory of a new process, in bytes; None where the system does not say."""
    command = python_command(_MEMORY, json.dumps(asdict(form)))
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise UsageError(
            expected=f"{form.name} to run in a process of its own",
            received=(done.stderr.strip().splitlines() or ["nothing"])[-1][:300],
            do="run it again with --debug and report it",
        )
    return json.loads(done.stdout.splitlines()[-1])


def _row(result: Mapping[str, Any]) -> list[str]:
    from foveate.report import format as fmt

    ratio = {**result, "distinguishable": not result["low"] <= 1 <= result["high"]}
    return [
        result["name"],
        f"{result['ms']:.3g}",
        f"{result['q1']:.3g} to {result['q3']:.3g}",
        fmt.latency_ratio(ratio),
        fmt.size(result["memory"]),
    ]
