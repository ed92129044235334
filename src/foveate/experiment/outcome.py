"""The outcome of a training: the best epoch on val, the score on test, and the weights on disk."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import nn

from foveate.data import AnyData
from foveate.experiment.options import Resolved
from foveate.models import save_weights
from foveate.training import EpochRow, best_row


def outcome(
    options: Resolved, model: nn.Module, data: AnyData, rows: Sequence[EpochRow], weights: Path
) -> dict[str, Any]:
    """Measure a trained model on test, save its weights, and return both as a record for JSON."""
    best, test = best_row(list(rows)), options.what.evaluate(model, data.test, options.batch, options.workers)
    return {
        "sha256": save_weights(model, weights),
        "best_epoch": best.epoch,
        "val_score": best.val_score,
        "test_score": test.pop("score"),
        "test_loss": test.pop("loss"),
        "test": test,
    }
