"""Attention in a training with Keras: attached before `compile`; its gates are logged, its adapter is saved."""

import os
from pathlib import Path
from typing import Any

import keras

from foveate.errors import UsageError
from foveate.files import try_place
from foveate.gates.logged import logged
from foveate.gates.record_keras import record
from foveate.surgery.keras.attaching import attach, save_adapter
from foveate.surgery.keras.host import attached


class Attend(keras.callbacks.Callback):
    """Attach attention before a training with `fit`, log its gates, and save its adapter.

    Attaching makes a new model, which `fit` could not exchange. So call `model = attend.attach(model)` before
    `compile`, then `model.fit(..., callbacks=[attend])`. A run that continues does the same, and then loads its weights
    (`load_weights`, `BackupAndRestore`): the model already has the attention. A model that `keras.saving.load_model`
    read has it too, and stays as it is.

    Args:
        mechanism: as in `foveate.keras.attach`; None if the model has its attention already.
        where: as in `foveate.keras.attach`.
        log_gates: images, as the model takes them, whose gates are logged after each epoch; None for no gates. For each
            gate: the mean, the deviation, and how much it differs between images. They join the epoch's logs, so
            `history` has them, and callbacks that stand after this one.
        adapter: the file to save the adapter to at the end of `fit`. Put this callback after those that bring back the
            best weights.
        arguments: the other arguments of `foveate.keras.attach`, such as `start` and options of the mechanism.
    """

    def __init__(
        self,
        mechanism: Any = None,
        where: Any = "residual",
        *,
        log_gates: Any = None,
        adapter: str | os.PathLike[str] | None = None,
        **arguments: Any,
    ):
        super().__init__()
        self.arguments = {"mechanism": mechanism, "where": where, **arguments}
        self.log_gates = log_gates
        self.adapter = None if adapter is None else Path(adapter)

    def attach(self, model: Any) -> Any:
        """Return a new model with attention, or the model itself if it has attention already.

        Raises UsageError as `foveate.keras.attach`.
        """
        return model if attached(model) else attach(model, **self.arguments)

    def on_train_begin(self, logs: Any = None) -> None:
        """Check the model and the file. Raises UsageError and DataError."""
        if not attached(self.model):
            raise UsageError(
                expected="a model with attention",
                received="a model without",
                do="write model = attend.attach(model) before model.compile(...)",
            )
        if self.adapter is not None:
            try_place(self.adapter, lambda path: save_adapter(self.model, path))

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Add the numbers of the gates to the logs."""
        if self.log_gates is not None and logs is not None:
            model: Any = self.model
            with record(model) as maps:
                model(self.log_gates, training=False)
            for gate in maps.gates:
                logs.update(logged(gate))

    def on_train_end(self, logs: Any = None) -> None:
        """Save the adapter. Raises DataError where it cannot be written."""
        if self.adapter is not None:
            save_adapter(self.model, self.adapter)
