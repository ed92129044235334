"""Foveate's own kernels: whether they may run, by FOVEATE_KERNELS or `using`. Importing this needs no torch."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from foveate.checks import check_choice

# `off` does not even load the library; `reference` loads it and runs the plain operations; `cpu` raises where no kernel can run.
CHOICES = ("off", "reference", "cpu")

choice: str | None = os.environ.get("FOVEATE_KERNELS") or None
"""What was chosen, None for "a kernel where one fits"; `using` changes it."""

_blocks: list[list[str | None]] = []  # the choices of the `using` blocks that are open
_outside: str | None = choice


@contextmanager
def using(wanted: str | None) -> Iterator[None]:
    """Choose the kernels inside the block, for every thread, as FOVEATE_KERNELS=wanted would. Raises UsageError for no such choice."""
    global choice, _outside
    if wanted is not None:
        check_choice("the choice of kernels", wanted, CHOICES)
    if wanted not in ("off", "reference"):
        from foveate.kernels import ops

        ops.load()
    if not _blocks:
        _outside = choice
    block = [wanted]
    _blocks.append(block)
    choice = wanted
    try:
        yield
    finally:  # blocks of several threads may end in any order
        _blocks[:] = [other for other in _blocks if other is not block]
        choice = _blocks[-1][0] if _blocks else _outside


def unavailable() -> str | None:
    """Return why this installation has no kernels to run, None where it has."""
    from foveate.kernels import ops

    return ops.unavailable if choice == "off" else ops.load()


def description() -> str:
    """Return what runs, for a record: the instruction set, such as "avx2"; else the choice, or why there are no kernels."""
    from foveate.kernels import ops

    return f"FOVEATE_KERNELS={choice}" if choice in ("off", "reference") else ops.load() or ops.instruction_set()


def why_not(module: Any, x: Any) -> str | None:
    """Return why a bound mechanism would run as plain operations on feature maps x, None where a kernel runs."""
    of_layer = getattr(module, "why_no_kernel", None)  # a Keras layer's own, which knows its data format
    if of_layer is not None:
        return of_layer(x)
    from foveate.kernels import dispatch

    return dispatch.why_not(module.mechanism, module, x)
