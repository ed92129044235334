"""Run a module with the Triton kernels in the place of those on the CPU."""

from collections.abc import Callable
from typing import Any, TypeVar

from foveate import kernels
from foveate.kernels.gpu import cuda_forms
from kernels.cases import SUBJECTS, replaced

T = TypeVar("T")

ENDS = {"full": "", "inplace": "_", "gates": "_gates", "backward": "_backward"}
REFUSED = ("gct", "srm", "simam")
ON_A_GPU = [
    subject
    for subject in SUBJECTS
    if subject.mechanism not in REFUSED and (subject.mechanism != "scse" or subject.options.get("mode") == "channel")
]


def by_triton(call: Callable[[], T]) -> T:
    """Return the result of the call with Triton kernels, and check that one ran."""
    seen: list[str] = []

    def other(name: str, _: Any) -> Any:
        operation, form = name.split()

        def run(*args: Any) -> Any:
            seen.append(name)
            return cuda_forms.FORMS[operation + ENDS[form]](*args)

        return run

    with kernels.using("cpu"), replaced(other):
        result = call()
    assert seen, "no kernel ran"
    return result
