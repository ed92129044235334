"""Which classes Grad-CAM explains, and what an explanation says of models without it; for torch and Keras."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from foveate.errors import UsageError, nearest
from foveate.gates.explanation import Explanation, check_shown


def cam_classes(asked: bool | Sequence[str] | None, classes: Sequence[str]) -> bool | dict[str, int] | None:
    """Return the numbers of the classes that Grad-CAM is to explain; a class without a name has its number as text."""
    if asked is None or isinstance(asked, bool):
        return asked
    known = {str(name): number for number, name in enumerate(classes)}
    for name in asked:
        if name not in known and (classes or not str(name).isdecimal()):
            do = nearest(name, known) if known else "pass the numbers of classes, such as '0', or classes="
            raise UsageError(expected="the name of a class for Grad-CAM", received=repr(name), do=do)
    return {name: known[name] if name in known else int(name) for name in asked}


def checked(explanation: Explanation, cam: Any, asked: Any) -> Explanation:
    """Return it, with a note on models that have no Grad-CAM though `cam` wants it.

    Raises UsageError if it shows nothing, and for such models if the user asked for Grad-CAM.
    """
    check_shown(explanation.arms, explanation.notes)
    without = ", ".join(label for label, maps in explanation.arms.items() if "cam_layer" not in maps)
    if not cam or not without:
        return explanation
    if asked:
        raise UsageError(
            expected="a classifier, whose output is (N, classes), or a detector of Foveate, for Grad-CAM",
            received=f"{without}, which returns something else",
            do="leave grad_cam (--grad-cam) out: the attention of any model is shown",
        )
    note = f"Grad-CAM is left out for {without}, which returns neither classes nor boxes."
    return replace(explanation, notes=[*explanation.notes, note])
