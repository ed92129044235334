"""The share of a training's time that it waited for images, and the options that would make it less."""

import logging
from collections.abc import Mapping, Sequence
from typing import Any

from foveate.data import AnyData
from foveate.experiment.environment import cores
from foveate.experiment.options import Resolved

logger = logging.getLogger("foveate")

_NOTED = 0.1  # the share above which it is said
_SHORT = 10.0  # seconds; of a shorter training nothing is said
_MOST_WORKERS = 4  # that are advised


def waited(rows: Sequence[Mapping[str, Any]]) -> float:
    """Return the mean share over epochs, weighted by their time; 0 without any."""
    total = sum(row["seconds"] for row in rows)
    return sum(row["seconds"] * row.get("waiting", 0.0) for row in rows) / total if total else 0.0


def say_waiting(rows: Sequence[Mapping[str, Any]], options: Resolved, data: AnyData) -> None:
    """Log the share if it is more than a tenth of a training that is not short, and what may help."""
    if (share := waited(rows)) > _NOTED and sum(row["seconds"] for row in rows) >= _SHORT:
        helps = " and ".join(_helps(options, data)) or "more cores, or a smaller --imgsz"
        logger.info("Training waited for images in %.0f %% of its time; what may help: %s", 100 * share, helps)


def _helps(options: Resolved, data: AnyData) -> list[str]:
    found = []
    if options.workers == 0 and cores() > 1:
        found.append(f"--workers {min(_MOST_WORKERS, cores())}, which makes batches while the network computes")
    if data.copies is not None:
        if options.cache == "none":
            found.append("--cache ram, which keeps decoded images")
        elif data.copies.store is not None and not data.copies.store.whole:
            found.append("a larger --cache-size, as the cache has no room for all images")
    return found
