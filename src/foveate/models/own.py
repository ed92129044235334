"""A user's own network as a host: `path/to/file.py:function` names a function that returns the network."""

import inspect
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from foveate.errors import UsageError
from foveate.torch_utils.modes import in_eval
from foveate.user_code import code_file, failed, find, folder_first, short_name

_SIDE = 224  # pixels of the images that a network is tested on if imgsz is not given
_EXAMPLE = "write for example def make(classes, channels=3): ..."


def build_own(name: str, classes: int, channels: int, imgsz: int | None) -> nn.Module:
    """Run the function's file, call the function and return its network, in training mode.

    The network maps images (N, channels, imgsz, imgsz) to logits (N, classes). The function is called with `classes`,
    and with `channels` and `imgsz` (pixels) if it has parameters of these names.

    Raises:
        UsageError: there is no such file or function, it fails, or it does not return such a network.
    """
    function, short = find(name), short_name(name)
    known = {"classes": classes, "channels": channels, **({"imgsz": imgsz} if imgsz else {})}
    arguments = _arguments(function, short, known)
    try:
        with folder_first(code_file(name).parent):
            model = function(**arguments)
    except (Exception, SystemExit) as error:
        raise failed(f"a network from {short}", error) from error
    if not isinstance(model, nn.Module):
        raise UsageError(
            expected=f"a torch.nn.Module from {short}",
            received=f"a {type(model).__name__}",
            do="return the network itself",
        )
    model = model.to("cpu")
    _check_output(model, short, classes, channels, imgsz or _SIDE)
    return model.train()


def _arguments(function: Callable[..., Any], short: str, known: dict[str, int]) -> dict[str, int]:
    try:
        parameters = inspect.signature(function).parameters.values()
    except (ValueError, TypeError):  # the function is in C
        raise _unfit(f"{short}, whose parameters cannot be read", _EXAMPLE) from None
    by_name = {p.name for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)}
    all_taken = any(p.kind is p.VAR_KEYWORD for p in parameters)
    given = {key: value for key, value in known.items() if all_taken or key in by_name}
    needed = [p.name for p in parameters if p.default is p.empty and p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
    missing = [name for name in needed if name not in given]
    if missing or "classes" not in given:
        raise _unfit(
            f"{short}({', '.join(map(str, parameters))})", "give --imgsz" if missing == ["imgsz"] else _EXAMPLE
        )
    return given


def _unfit(received: str, do: str) -> UsageError:
    expected = (
        "a function with a parameter classes; it may have channels and imgsz as well, and others that have defaults"
    )
    return UsageError(expected=expected, received=received, do=do)


def _check_output(model: nn.Module, short: str, classes: int, channels: int, side: int) -> None:
    """Run the network on two images. Raises UsageError if it fails or gives other shapes."""
    shown = f"2 images of {channels} x {side} x {side}"
    try:
        with in_eval(model), torch.no_grad():
            output = model(torch.zeros(2, channels, side, side))
    except Exception as error:
        raise failed(f"a network from {short} that runs on {shown}", error) from error
    received = str(tuple(output.shape)) if isinstance(output, Tensor) else f"a {type(output).__name__}"
    if received != str((2, classes)):
        raise UsageError(
            expected=f"logits of shape (2, {classes}) from the network of {short}, for {shown} and {classes} classes",
            received=received,
            do="return one output for each class; the parameter classes is their number",
        )
