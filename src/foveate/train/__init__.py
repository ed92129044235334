"""Training one model: the same batches for the same seed, and a run that diverged is said to have diverged."""

from foveate.train.classify import Classifier, evaluate, fit
from foveate.train.options import Diverged, EpochRow, FitOptions

__all__ = ["Classifier", "Diverged", "EpochRow", "FitOptions", "evaluate", "fit"]
