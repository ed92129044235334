"""Which form of the kernels runs here, which faster one does not and why, and what it would bring."""

import os
from typing import Any, NamedTuple

from foveate.kernels import chosen, dispatch, ops

WIDER = {  # from an instruction set to the next wider one, with what its processors have
    "baseline": ("avx2", ("avx2", "fma3", "bmi2")),
    "avx2": ("avx512", ("avx512_f", "avx512_bw", "avx512_vl", "avx512_dq")),
    "avx512": ("avx512_bf16", ("avx512_bf16",)),
}
NARROWEST = {"x86_64": "baseline", "aarch64": "neon"}

BRINGS = {  # "any" is measured in benchmarks/results, the others in docs/design/kernels.md
    "any": "In a training step, torch's own operations take 2 to 6 times as long.",
    "avx2": "avx2 computes with 8 numbers at once, not 4.",
    "avx512": "avx512 computes with 16 numbers, not 8: half the time for bfloat16, up to a third less for float32.",
    "avx512_bf16": "avx512_bf16 takes 5 to 17 % less time for bfloat16, and gives the same numbers.",
}
RUN = (None, "cpu")  # the choices under which kernels run


class Missing(NamedTuple):
    """A form that would be faster, the reason why it does not run, and what it would bring."""

    form: str
    why: str
    brings: str


def running() -> str | None:
    """Return the instruction set whose kernels run, such as "avx2", or None where torch's operations run."""
    return None if chosen.choice not in RUN or ops.load() else ops.instruction_set()


def missing(gpu: bool) -> list[Missing]:
    """Return the faster forms that do not run on this processor, and where there is a `gpu`, on that."""
    widest, beyond = _sets()
    found, now = [], running()
    if now is None:
        why = ops.load() or "" if chosen.choice in RUN else f"FOVEATE_KERNELS={chosen.choice}"
        brings = "Maps on the CPU are refused." if chosen.choice == "triton" else BRINGS["any"]
        found.append(Missing(widest or "kernels", why, brings))
    elif widest is not None and (steps := _between(now, widest)):
        wish = os.environ.get("FOVEATE_CPU_ISA")
        why = f"FOVEATE_CPU_ISA={wish} chose {now}" if wish else "they were compiled without it: compile them again"
        found.append(Missing(widest, why, " ".join(BRINGS[step] for step in steps)))
    if beyond is not None:
        found.append(Missing(beyond, "this processor does not have it", BRINGS[beyond]))
    if gpu and (why := _why_not_on_a_gpu()):
        found.append(Missing("gpu", why, "They were never timed on one."))
    return found


def _why_not_on_a_gpu() -> str | None:
    if chosen.choice != "triton":
        return dispatch.ON_GPU_ASKED if chosen.choice is None else f"FOVEATE_KERNELS={chosen.choice}"
    if absent := ops.load():
        return absent
    from foveate.kernels.gpu import support  # it imports Triton

    return support.unavailable


def _sets() -> tuple[str | None, str | None]:
    """Return the widest instruction set of this processor, and the next one; None where torch does not say."""
    has = _capabilities()
    widest = NARROWEST.get(has.get("architecture", ""))
    while widest in WIDER:
        wider, needed = WIDER[widest]
        if not all(has.get(name) for name in needed):
            return widest, wider
        widest = wider
    return widest, None


def _between(narrow: str, wide: str) -> list[str]:
    """Return the sets wider than `narrow`, up to `wide`."""
    steps = []
    while narrow != wide and narrow in WIDER:
        narrow = WIDER[narrow][0]
        steps.append(narrow)
    return steps


def _capabilities() -> dict[str, Any]:
    import torch

    return dict(getattr(torch.cpu, "get_capabilities", dict)())  # a newer torch has it
