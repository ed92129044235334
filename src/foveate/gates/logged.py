"""The numbers of a gate for the log of a training."""

from typing import Any

import numpy as np

from foveate.gates.recording import RecordedGate


def logged(gate: RecordedGate[Any]) -> dict[str, float]:
    """Return the mean of a gate, its deviation, and how much it differs between the images of the batch (0: dead)."""
    values = np.asarray(gate.gate.double() if hasattr(gate.gate, "double") else gate.gate, np.float64)
    name = f"gates/{gate.site.replace(':', '-')}/{gate.kind}"  # trackers refuse colons
    return {
        f"{name}/mean": float(values.mean()),
        f"{name}/deviation": float(values.std()),
        f"{name}/between_images": float(values.std(0).mean()),
    }
