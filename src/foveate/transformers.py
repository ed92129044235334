"""Attention in a training with Hugging Face's Trainer: `callbacks=[foveate.transformers.Attend("cbam")]`."""

import os
from typing import Any

from foveate.errors import UsageError, imported
from foveate.models.torchvision_guard import ensure_torchvision
from foveate.training.attending import Attending

__all__ = ["Attend"]

ensure_torchvision()


class Attend(imported("transformers").TrainerCallback):
    """Attach attention before a training, log its gates, and save its adapter.

    It attaches when the Trainer is made, so pass it to the Trainer: `callbacks=[Attend(...)]`. The Trainer makes its
    optimizer and reads a checkpoint later, so a run that is resumed with the same callback finds the attention in the
    model.

    Args:
        mechanism: as in `foveate.attach`; None if the model has its attention already.
        where: as in `foveate.attach`.
        host: the name of the network in the model, such as "resnet"; by default the model itself. An adapter fits the
            network of that name.
        log_gates: whether to add the gates of the first step of each epoch to the next logs: for each gate the mean,
            the deviation, and how much it differs between images. They reach `log_history`, and each reporter that
            stands after this callback, as in `callbacks=[Attend(...), TensorBoardCallback()]` with
            `report_to="none"`.
        adapter: the file to save the adapter to at the end of `train`.
        arguments: the other arguments of `foveate.attach`, such as `example={"pixel_values": images}`, `start` and
            options of the mechanism.

    Raises:
        UsageError: when the Trainer is made, as `foveate.attach`, and where there is no module `host`.
        DataError: when the Trainer is made, where the adapter cannot be written.
    """

    def __init__(
        self,
        mechanism: Any = None,
        where: Any = None,
        *,
        host: str = "",
        log_gates: bool = False,
        adapter: str | os.PathLike[str] | None = None,
        **arguments: Any,
    ):
        self.attending = Attending(mechanism, where, host, log_gates, adapter, arguments)
        self._begun = self._due = False
        self._figures: dict[str, float] = {}

    def on_init_end(self, args: Any, state: Any, control: Any, model: Any = None, **others: Any) -> None:
        """Attach."""
        self.attending.begin(model)
        self._begun = True

    def on_train_begin(self, args: Any, state: Any, control: Any, model: Any = None, **others: Any) -> None:
        """Take the host as the checkpoint left it. Raises UsageError if the callback came too late."""
        if not self._begun:
            raise UsageError(
                expected="Attend among the callbacks that the Trainer is made with",
                received="Attend added later, when it could miss the optimizer or a checkpoint",
                do="write Trainer(..., callbacks=[Attend(...)])",
            )
        self.attending.restored(model)

    def on_epoch_begin(self, args: Any, state: Any, control: Any, **others: Any) -> None:
        """Record the first step of the epoch."""
        self._due = True

    def on_step_begin(self, args: Any, state: Any, control: Any, model: Any = None, **others: Any) -> None:
        """Record the first step of the epoch."""
        if self._due:
            self.attending.watch(model)
        self._due = False

    def on_substep_end(self, args: Any, state: Any, control: Any, **others: Any) -> None:
        """Keep what was recorded, of the first of the batches whose gradients are added up."""
        self._figures |= self.attending.seen()

    def on_step_end(self, args: Any, state: Any, control: Any, **others: Any) -> None:
        """Keep what was recorded."""
        self._figures |= self.attending.seen()

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **others: Any) -> None:
        """Add the figures of the gates to the logs."""
        logs.update(self._figures)
        state.log_history[-1].update(self._figures)
        self._figures = {}

    def on_train_end(self, args: Any, state: Any, control: Any, model: Any = None, **others: Any) -> None:
        """Save the adapter, in one process of several."""
        self.attending.seen()
        if state.is_world_process_zero:
            self.attending.save(model)
