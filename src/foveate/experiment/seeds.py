"""How many seeds an option such as 5 or "3..20" asks for."""

import re

from foveate.errors import UsageError

_MOST_FIXED, _MOST_SEQUENTIAL = 1000, 50


def seed_range(seeds: int | str) -> tuple[int, int]:
    """Return the minimum and maximum number of seeds of an option such as 5 or "3..20".

    Raises UsageError.

    >>> seed_range(5), seed_range("3..20")
    ((5, 5), (3, 20))
    """
    match = re.fullmatch(r"([0-9]{1,4})(?:\.\.([0-9]{1,4}))?", str(seeds).replace(" ", ""))
    least, most = (int(match[1]), int(match[2] or match[1])) if match else (0, 0)
    if not (1 <= least == most <= _MOST_FIXED or 2 <= least < most <= _MOST_SEQUENTIAL):
        raise UsageError(
            expected=f"seeds: from 1 to {_MOST_FIXED}, or a range such as 3..20 within 2..{_MOST_SEQUENTIAL}",
            received=f"{seeds}",
            do="change --seeds",
        )
    return least, most
