"""The data of a study or a training: opened once for each process, and described for data.json."""

import hashlib
import logging
from collections.abc import Iterator
from functools import lru_cache
from typing import Any

from foveate.data import SPLITS, AnyData, Split
from foveate.data.images.decode import Greys, shown
from foveate.data.images.working_copies import CacheOptions
from foveate.errors import counted, shortened
from foveate.experiment.first_weights import digests, first_normalisation
from foveate.experiment.options import Resolved
from foveate.normalisation import Normalisation
from foveate.training.tasks import task

logger = logging.getLogger("foveate")


def open_study_data(
    options: Resolved,
    split: Split | None = None,
    measured: str | None = None,
    normalisation: Normalisation | None = None,
    greys: Greys | None = None,
) -> AnyData:
    """Open the data that the options name; in each process the same data are opened once.

    `split`, `measured` and `greys` are those of `open_data`. Images are normalised by `normalisation`, or else
    as the first weights need it.
    """
    generated = tuple(sorted(options.generated.items())) if options.data is None or options.planted else ()
    common = {
        "imgsz": options.imgsz,
        "seed": options.data_seed,
        "augment": options.augment,
        "on_defect": options.on_defect,
        "greys": greys,
        "cache": CacheOptions(options.cache, options.cache_size),
    }
    seen = normalisation or first_normalisation(options)
    return _open(options.task, options.data, generated, **common, split=split, measured=measured, normalisation=seen)


@lru_cache(maxsize=1)
def _open(name: str, path: Any, generated: tuple[tuple[str, Any], ...], **options: Any) -> AnyData:
    data = task(name).open(path, generated=dict(generated), **options)
    for note in (*_overview(data), *data.details["notes"], f"images are normalised by {data.normalisation}"):
        logger.info("%s: %s", data.name, note)
    return data


def _overview(data: AnyData) -> Iterator[str]:
    """Yield the layout, and for each split where its images come from, and how many of each class there are."""
    yield data.details["layout"]
    sources, counts = data.details.get("sources", {}), data.counts
    for split in SPLITS:
        if count := len(getattr(data, split)):
            source = f" from {sources[split]}" if split in sources else ""
            classes = [f"{shown(name)} {number}" for name, number in counts[split].items()]
            kinds = f"{len(classes)} class{'es' * (len(classes) != 1)}"
            yield f"{split}: {counted(count, 'image')}{source}; {kinds}: {shortened(classes)}"


def describe(options: Resolved, data: AnyData) -> dict[str, Any]:
    """Return the description of the data, with the facts about the weights that building a model needs."""
    return options.what.describe(data, options.weights)


def data_record(options: Resolved, data: AnyData) -> dict[str, Any]:
    """Return what data.json holds: the description, the split, and the digests of the files of weights and model."""
    return {**describe(options, data), "split": data.split and data.split.to_dict(), **digests(options)}


def content_digest(data: AnyData, options: Resolved) -> str:
    """Return the digest of all that is read: the data, the first weights with their anchors, and the model's file."""
    read = [digest for digest in digests(options).values() if digest]
    if not read:
        return data.fingerprint
    anchors = [described["anchors"]] if "anchors" in (described := describe(options, data)) else []
    return hashlib.sha256(" ".join(map(str, (data.fingerprint, *read, *anchors))).encode()).hexdigest()
