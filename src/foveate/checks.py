"""Check single options: a whole number, a finite number, a flag, a choice."""

import math
from collections.abc import Iterable

from foveate.errors import UsageError


def check_channels(channels: int) -> None:
    """Refuse a channel count that is not a positive whole number. Raises UsageError."""
    check_least("channels", channels, 1, "pass the C of the feature map (N, C, H, W)")


def check_least(option: str, value: int, least: int, do: str = "") -> None:
    """Refuse a value that is not a whole number of at least `least`. Raises UsageError."""
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        expected = f"{option} as a whole number >= {least}"
        raise UsageError(
            expected=expected, received=repr(value), do=do or f"leave {option} out, or pass {least} or more"
        )


def check_groups(option: str, groups: int, channels: int) -> None:
    """Refuse a number of groups that does not divide the channels. Raises UsageError."""
    if channels % groups:
        divisors = [count for count in range(1, channels + 1) if channels % count == 0]
        raise UsageError(
            expected=f"{option} that divides the {channels} channels",
            received=f"{option}={groups}",
            do=f"pass {option}={max((count for count in divisors if count < groups), default=1)}, or another divisor",
        )


def check_multiple(channels: int, of: int) -> None:
    """Refuse channels that a fixed number does not divide. Raises UsageError."""
    if channels % of:
        raise UsageError(
            expected=f"channels that {of} divides",
            received=f"{channels} channels",
            do=f"use it on {-(-channels // of) * of} channels, or another mechanism",
        )


def check_reduction(reduction: float) -> None:
    """Refuse a reduction that is not above 0 (a count such as 16, or a ratio such as 0.5). Raises UsageError."""
    if isinstance(reduction, bool) or not isinstance(reduction, (int, float)) or not 0 < reduction < float("inf"):
        raise UsageError(
            expected="reduction > 0, a count (16) or a ratio (0.5)",
            received=repr(reduction),
            do="use the paper's 16, or any positive number",
        )


def check_number(option: str, value: float, above: float = -math.inf) -> None:
    """Refuse a value that is not a finite number above the bound. Raises UsageError."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not above < value < math.inf:
        bound = "" if above == -math.inf else f" > {above:g}"
        raise UsageError(
            expected=f"{option} as a finite number{bound}",
            received=repr(value),
            do=f"leave {option} out to use the paper's value",
        )


def check_kernel(kernel: int) -> None:
    """Refuse a kernel size that is not odd and positive. Raises UsageError."""
    if isinstance(kernel, bool) or not isinstance(kernel, int) or kernel < 1 or kernel % 2 == 0:
        raise UsageError(
            expected="an odd kernel size >= 1",
            received=repr(kernel),
            do="use 3, 5 or 7: an even kernel has no centre, so the map would shift",
        )


def check_names(names: Iterable[str], holder: object) -> None:
    """Refuse names of parts that the object which is to hold them has already. Raises UsageError."""
    for name in names:
        if hasattr(type(holder), name) or name in vars(holder):
            raise UsageError(
                expected=f"names of parts that {_framework(holder)} does not use itself",
                received=repr(name),
                do=f"rename the part, for example to {name}_layer",
            )


def _framework(holder: object) -> str:
    layer = next(kind for kind in type(holder).__mro__ if not kind.__module__.startswith("foveate."))
    return f"{layer.__module__.partition('.')[0]}'s {layer.__name__}"


def check_flag(option: str, value: bool) -> None:
    """Refuse a value that is neither True nor False. Raises UsageError."""
    if not isinstance(value, bool):
        raise UsageError(
            expected=f"{option} as True or False",
            received=repr(value),
            do=f"leave {option} out, or pass one of the two",
        )


def check_choice(option: str, value: object, choices: tuple[object, ...]) -> None:
    """Refuse a value that is not one of the choices. Raises UsageError."""
    if value not in choices:
        raise UsageError(
            expected=f"{option} as one of {', '.join(map(repr, choices))}",
            received=repr(value),
            do=f"pass one of them as {option}=",
        )


def check_context(channels: int, wanted: int) -> None:
    """Refuse a second map of other channels than the weights take. Raises UsageError."""
    if channels != wanted:
        raise UsageError(
            expected=f"a context (N, {wanted}, H, W) as the second input",
            received=f"one of {channels} channels",
            do=f"build the module with context_channels={channels}, or pass a context that fits it",
        )


def check_smallest(mechanism: str, height: object, width: object, smallest: int, do: str) -> None:
    """Refuse a map whose height or width is known and less than a mechanism can take. Raises UsageError."""
    if any(isinstance(size, int) and size < smallest for size in (height, width)):
        raise UsageError(
            expected=f"a map of at least {smallest} x {smallest} positions for {mechanism}",
            received=f"one of {height} x {width}",
            do=do,
        )
