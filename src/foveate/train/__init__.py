"""Training one model: the same batches for the same seed, and a run that diverged is said to have diverged."""

from typing import TYPE_CHECKING, Any

from foveate.train.measure import best_row, evaluate, pick_device
from foveate.train.options import Diverged, EpochRow, FitOptions

if TYPE_CHECKING:
    from foveate.train.classify import Classifier, fit

__all__ = ["Classifier", "Diverged", "EpochRow", "FitOptions", "best_row", "evaluate", "fit", "pick_device"]


def __getattr__(name: str) -> Any:
    """Import Lightning where something is trained (PEP 562): it takes seconds, and measuring needs none of it."""
    if name not in ("Classifier", "fit"):
        raise AttributeError(f"module 'foveate.train' has no attribute {name!r}")
    from foveate.train import classify

    return getattr(classify, name)
