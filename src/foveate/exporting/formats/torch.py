"""A program of `torch.export`, which torch itself loads and runs without the model's code."""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch.export import ExportedProgram

from foveate.exporting.formats import Array, Runner
from foveate.exporting.subject import Subject

SUFFIX, COMPANIONS = ".pt2", ()
DYNAMIC, NMS = True, False
PACKAGES = ()
QUANTISER = quantise = write_keras = None


def write(program: ExportedProgram, subject: Subject, path: Path, notes: Mapping[str, str]) -> None:
    """Write the program with its weights."""
    torch.export.save(program, path, extra_files=dict(notes))


def open(path: Path, threads: int | None = None) -> Runner:
    """Return a function that runs the program; the number of threads is torch's own."""
    module = torch.export.load(path).module()

    @torch.no_grad()
    def run(inputs: Sequence[Array]) -> list[Array]:
        return [output.numpy() for output in module(*map(torch.from_numpy, inputs))]

    return run


def operators(path: Path) -> dict[str, int]:
    """Return how often each operator occurs."""
    called = (node.target for node in torch.export.load(path).graph.nodes if node.op == "call_function")
    return dict(Counter(str(one) if isinstance(one, torch._ops.OpOverload) else one.__name__ for one in called))
