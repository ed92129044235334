"""Foveate's own kernels: whether they may run, by FOVEATE_KERNELS or `using`. Importing this needs no torch."""

from typing import Any

from foveate.kernels import chosen
from foveate.kernels.chosen import using as using


def unavailable() -> str | None:
    """Return why this installation has no kernels to run, None where it has."""
    from foveate.kernels import ops

    return ops.unavailable if chosen.choice == "off" else ops.load()


def description() -> str:
    """Return what runs, for a record: the instruction set, such as "avx2"; else the choice, or why there are no kernels."""
    from foveate.kernels import ops

    return (
        f"FOVEATE_KERNELS={chosen.choice}"
        if chosen.choice in ("off", "reference")
        else ops.load() or ops.instruction_set()
    )


def why_not(module: Any, x: Any) -> str | None:
    """Return why a bound mechanism would run as plain operations on feature maps x, None where a kernel runs."""
    of_layer = getattr(module, "why_no_kernel", None)  # a Keras layer's own, which knows its data format
    if of_layer is not None:
        return of_layer(x)
    from foveate.kernels import dispatch

    return dispatch.why_not(module.mechanism, module, x)
