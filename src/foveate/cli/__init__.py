"""The command line: one small file for each command, which imports what it needs when it runs."""

import os
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Annotated, Any, NoReturn

import typer
from typer.main import get_command

from foveate import __version__
from foveate.cli import (
    bench,
    console,
    doctor,
    explain,
    export,
    flags,
    launch,
    list,
    plan,
    predict,
    sample_data,
    study,
    train,
    val,
)
from foveate.cli.failures import Terminated, describe

_HELP = {"help_option_names": ["-h", "--help"]}

app = typer.Typer(
    name="foveate",
    context_settings=_HELP,
    help="Visual attention for convolutional networks, and the experiment that shows whether it helped.",
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
)
for _verb in (
    study.study,
    train.train,
    launch.launch,
    val.val,
    predict.predict,
    explain.explain,
    export.export,
    bench.bench,
    list.list_mechanisms,
    plan.plan,
    doctor.doctor,
    sample_data.sample_data,
):
    app.command(name=_verb.__name__.removesuffix("_mechanisms").replace("_", "-"))(_verb)


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run the command line and exit with its exit code."""
    code = run(sys.argv[1:] if arguments is None else arguments)
    if code and "TORCHELASTIC_RUN_ID" in os.environ:  # at exit, torch waits for exchanges with processes that ended
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    sys.exit(code)


def run(arguments: Sequence[str]) -> int:
    """Run one command and return its exit code; an error is printed on stderr in two lines."""
    console.print_in_any_encoding()
    console.send_logs_to_stderr()
    try:
        with _sigterm_interrupts():
            command = get_command(app)
            flags.check_weights_file(arguments)
            if "_FOVEATE_COMPLETE" in os.environ:  # a shell asks for completions
                return command.main([*arguments], "foveate")
            with command.make_context("foveate", [*arguments]) as context:
                return command.invoke(context) or 0
    except typer.Exit as stop:
        return stop.exit_code
    except BaseException as error:
        failure = describe(error, option_names())
        console.fail(failure.what, failure.fix, error if "--debug" in arguments else None)
        return failure.exit_code


def option_names() -> set[str]:
    """Return the options of all commands by their names in Python: "attention_lr" for --attention-lr."""
    commands: Any = get_command(app)
    options = (option for verb in commands.commands.values() for one in verb.params for option in one.opts)
    return {option.removeprefix("--").replace("-", "_") for option in options if option.startswith("--")}


def _say_version(asked: bool) -> None:
    if asked:
        console.say(__version__)
        raise typer.Exit


@app.callback()
def _foveate(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version and stop.", is_eager=True, callback=_say_version)
    ] = False,
) -> None: ...


@contextmanager
def _sigterm_interrupts() -> Iterator[None]:
    """Raise `Terminated` on SIGTERM: it is a KeyboardInterrupt, so both are cleaned up in the same way."""

    def interrupt(*_: Any) -> NoReturn:
        raise Terminated

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
