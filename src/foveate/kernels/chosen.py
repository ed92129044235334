"""The choice whether kernels may run, made by FOVEATE_KERNELS or `using`."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

from foveate.checks import check_choice

# `off` does not even load the library; `reference` loads it and runs the plain operations; `cpu` raises where no kernel
# on the CPU can run, `triton` where no kernel on a GPU can. Kernels on a GPU run with `triton` alone.
CHOICES = ("off", "reference", "cpu", "triton")

choice: str | None = os.environ.get("FOVEATE_KERNELS") or None
"""The current choice; None runs a kernel on the CPU where one fits. `using` changes it."""

_blocks: list[list[str | None]] = []  # the choices of the `using` blocks that are open
_outside: str | None = choice


@contextmanager
def using(wanted: str | None) -> Iterator[None]:
    """Set the choice of kernels inside the block, in all threads, as FOVEATE_KERNELS=wanted would.

    Raises UsageError for an unknown choice.
    """
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
