"""Numbers as text: the report and the command line use these functions, so that both write a number in the same way.

Every function takes what the record holds (a number, or `None` or NaN if there is none) and returns plain text.
"""

import math
from collections.abc import Mapping
from typing import Any, TypeGuard

MISSING = "–"
MINUS = "−"


def score(mean: float | None, sd: float | None = None, *, unit: bool = False) -> str:
    """A score in 0..1 as percent, with its standard deviation over seeds if there is one.

    >>> score(0.9041, 0.0032), score(0.9, unit=True), score(None)
    ('90.41 ± 0.32', '90.00 %', '–')
    """
    if not known(mean):
        return MISSING
    text = f"{100 * mean:.2f}" + (f" ± {100 * sd:.2f}" if known(sd) else "")
    return f"{text} %" if unit else text


def points(value: float | None, digits: int = 2) -> str:
    """A difference in points, always with its sign.

    >>> points(1.234), points(-0.5), points(-0.0001), points(None)
    ('+1.23', '−0.50', '0.00', '–')
    """
    if not known(value):
        return MISSING
    text = f"{abs(value):.{digits}f}"
    if not float(text):
        return text
    return ("+" if value > 0 else MINUS) + text


def difference(record: Mapping[str, Any] | None) -> str:
    """A difference with its simultaneous interval.

    >>> difference({"estimate": 0.8, "low": 0.1, "high": 1.5})
    '+0.80 [+0.10, +1.50]'
    """
    if not record or not known(record.get("estimate")):
        return MISSING
    estimate, low, high = points(record["estimate"]), record.get("low"), record.get("high")
    return f"{estimate} [{points(low)}, {points(high)}]" if known(low) and known(high) else estimate


def plus_minus(value: float | None) -> str:
    """A half width in points.

    >>> plus_minus(0.85)
    '±0.85'
    """
    return f"±{value:.2f}" if known(value) else MISSING


def latency_ratio(record: Mapping[str, Any] | None) -> str:
    """The measured latency ratio with its interval, or the statement that it cannot be distinguished from 1.

    >>> latency_ratio({"ratio": 1.052, "low": 1.031, "high": 1.084, "distinguishable": True})
    '1.05× [1.03, 1.08]'
    >>> latency_ratio({"ratio": 1.002, "low": 0.99, "high": 1.01, "distinguishable": False})
    'not distinguishable'
    """
    if not record or not known(record.get("ratio")):
        return MISSING
    if record.get("distinguishable") is False:
        return "not distinguishable"
    low, high = record.get("low"), record.get("high")
    text = f"{record['ratio']:.2f}×"
    return f"{text} [{low:.2f}, {high:.2f}]" if known(low) and known(high) else text


def milliseconds(value: float | None) -> str:
    """A duration in milliseconds to three significant digits.

    >>> milliseconds(12.345), milliseconds(0.01234), milliseconds(1234.5)
    ('12.3 ms', '0.0123 ms', '1,234 ms')
    """
    if not known(value):
        return MISSING
    return f"{value:,.0f} ms" if abs(value) >= 100 else f"{value:.3g} ms"


def count(value: float | None) -> str:
    """A count in engineering units, exact below ten thousand.

    >>> count(11_778_592), count(9_999), count(165_432_100), count(4.1e9), count(0)
    ('11.78 M', '9,999', '165.4 M', '4.100 G', '0')
    """
    if not known(value):
        return MISSING
    if abs(value) < 10_000:
        return _minus(f"{value:,.0f}")
    return _scaled(value, ("k", "M", "G", "T", "P"), digits=4)


def added(value: float | None) -> str:
    """A count that was added to the host.

    >>> added(88_960), added(0), added(None)
    ('+88.96 k', '0', '–')
    """
    return f"+{count(value)}" if known(value) and value > 0 else count(value)


def size(value: float | None) -> str:
    """Bytes in decimal units.

    >>> size(1_250_000), size(999_999), size(512)
    ('1.25 MB', '1.00 MB', '512 B')
    """
    if not known(value):
        return MISSING
    return _minus(f"{value:,.0f} B") if abs(value) < 1000 else _scaled(value, ("kB", "MB", "GB", "TB"), digits=3)


def share(value: float | None) -> str:
    """A share in 0..1 as percent.

    >>> share(0.1914), share(None)
    ('19.1 %', '–')
    """
    return f"{100 * value:.1f} %" if known(value) else MISSING


def times(value: float | None) -> str:
    """A plain ratio.

    >>> times(1.5)
    '1.50×'
    """
    return f"{value:.2f}×" if known(value) else MISSING


def p_value(value: float | None) -> str:
    """A p-value without false precision.

    >>> p_value(0.0342), p_value(0.00001)
    ('0.034', '< 0.001')
    """
    if not known(value):
        return MISSING
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


def known(value: Any) -> TypeGuard[float]:
    """Whether this value of the record is a finite number."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _scaled(value: float, units: tuple[str, ...], digits: int) -> str:
    """Write value / 1000**n with the given significant digits; larger values keep the last unit."""
    for power, unit in enumerate(units, 1):
        scaled = float(f"{value / 1000**power:.{digits - 1}e}")
        if abs(scaled) < 1000 or unit == units[-1]:
            whole = len(f"{abs(scaled):.0f}") if abs(scaled) >= 1 else 1
            return _minus(f"{scaled:,.{max(digits - whole, 0)}f} {unit}")
    raise ValueError("no units")


def _minus(text: str) -> str:
    return text.replace("-", MINUS)
