"""The options of a benchmark run: everything by default, or parts chosen on the command line."""

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

SHAPES = (
    (8, 256, 56, 56),
    (16, 512, 28, 28),
    (16, 1024, 14, 14),
    (16, 2048, 7, 7),
    (1, 256, 56, 56),
    (1, 1024, 14, 14),
)
LAYOUTS = ("NCHW", "channels_last")
DTYPES = ("float32", "bfloat16")
MECHANISMS = ("se", "eca", "channel", "spatial", "cbam", "coordinate")
MEASURES = ("forward", "training")
ON_CPU_CLOCK = frozenset({"detection", "every_mechanism", "keras_layers"})

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Options:
    """The part of each benchmark that runs, and how it is timed. `rounds` is how often each call is timed."""

    rounds: int = 15
    threads: int | None = None
    device: str = "cpu"
    clock: str = "wall"
    compile: bool = True
    shapes: tuple[Shape, ...] = SHAPES
    layouts: tuple[str, ...] = LAYOUTS
    dtypes: tuple[str, ...] = DTYPES
    mechanisms: tuple[str, ...] = MECHANISMS
    measures: tuple[str, ...] = MEASURES


@dataclass(frozen=True)
class Command:
    """The parsed command line: names of benchmarks, their options, and the folder for their records."""

    names: tuple[str, ...]
    options: Options
    results: Path


def parse(known: tuple[str, ...], results: Path, arguments: Sequence[str] | None = None) -> Command:
    """Read the command line.

    Exits with a message for unknown names, and for a partial run that would overwrite the full records in `results`.
    """
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description="Measure this machine and write the records."
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"any of {', '.join(known)} (default: all)")
    parser.add_argument("--rounds", type=int, default=15, help="how often each call is timed (default: %(default)s)")
    parser.add_argument("--threads", type=int, help="torch's threads (default: torch's own choice)")
    parser.add_argument(
        "--device", default="cpu", choices=("cpu", "cuda"), help="cuda times with the GPU's events (default: cpu)"
    )
    parser.add_argument(
        "--clock",
        default="wall",
        choices=("wall", "cpu"),
        help=f"cpu on one busy core, for {', '.join(sorted(ON_CPU_CLOCK))}",
    )
    parser.add_argument("--results", type=Path, help="the folder for the records (default: benchmarks/results)")
    parser.add_argument("--no-compile", dest="compile", action="store_false", help="leave torch.compile out")
    parser.add_argument("--shapes", type=_several(_shape), default=SHAPES, help="for example 8x256x56x56,1x1024x14x14")
    for name, choices in {"layouts": LAYOUTS, "dtypes": DTYPES, "mechanisms": MECHANISMS, "measures": MEASURES}.items():
        parser.add_argument(
            f"--{name}", type=_several(_one_of(choices)), default=choices, help=f"some of {','.join(choices)}"
        )
    given = vars(parser.parse_args(arguments))
    names, folder = tuple(given.pop("names")) or known, given.pop("results")
    options = Options(**given)
    if unknown := set(names) - set(known):
        parser.error(f"no benchmark {', '.join(sorted(unknown))}; there are: {', '.join(known)}")
    if options.rounds < 1:
        parser.error("--rounds must be at least 1")
    if options.device == "cuda" and names != ("kernels",):
        parser.error("only the kernels benchmark runs on a GPU: kernels --device cuda")
    if options.clock == "cpu" and not ON_CPU_CLOCK.issuperset(names):
        parser.error(f"only {', '.join(sorted(ON_CPU_CLOCK))} can use the CPU clock")
    if folder is None and options != Options(options.rounds, options.threads, options.device, options.clock):
        parser.error("a partial run would overwrite the full records: choose another folder with --results")
    return Command(names, options, folder or results)


def _several(one: Callable[[str], Any]) -> Callable[[str], tuple[Any, ...]]:
    def several(text: str) -> tuple[Any, ...]:
        return tuple(one(item) for item in text.split(","))

    return several


def _one_of(choices: tuple[str, ...]) -> Callable[[str], str]:
    def one(text: str) -> str:
        if text not in choices:
            raise argparse.ArgumentTypeError(f"{text!r} is not one of {', '.join(choices)}")
        return text

    return one


def _shape(text: str) -> Shape:
    try:
        n, c, h, w = map(int, text.split("x"))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a shape such as 8x256x56x56") from None
    return n, c, h, w
