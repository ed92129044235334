"""Attention in a training with Lightning: `Trainer(callbacks=[foveate.lightning.Attend("cbam")])`."""

import os
from typing import Any

from foveate.errors import naming_extras
from foveate.models.torchvision_guard import ensure_torchvision
from foveate.training.attending import Attending

with naming_extras():
    ensure_torchvision()
    from lightning.pytorch import Callback, LightningModule, Trainer

__all__ = ["Attend"]


class Attend(Callback):
    """Attach attention before a training, log its gates, and save its adapter.

    It attaches in `setup`, before Lightning makes the optimizer and reads a checkpoint. So a run that is resumed with
    the same callback finds the attention in the model. The network must exist by then: build it in `__init__`.

    Args:
        mechanism: as in `foveate.attach`; None if the model has its attention already.
        where: as in `foveate.attach`.
        host: the name of the network in the LightningModule, such as "model"; by default the LightningModule itself,
            with its `forward`. An adapter fits the network of that name.
        log_gates: whether to log the gates of the first training batch of each epoch, by `log_dict`, to every logger
            of the trainer. For each gate: the mean, the deviation, and how much it differs between images.
        adapter: the file to save the adapter to at the end of `fit`.
        arguments: the other arguments of `foveate.attach`, such as `example`, `start` and options of the mechanism.

    Raises:
        UsageError: in `setup`, as `foveate.attach`, and where there is no module `host`.
        DataError: in `setup`, where the adapter cannot be written.
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

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Attach, in each stage, because a checkpoint of the training may be read in each."""
        self.attending.begin(pl_module)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Take the host as the checkpoint left it."""
        self.attending.restored(pl_module)

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Record the first batch of the epoch."""
        if batch_idx == 0:
            self.attending.watch(pl_module)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Log what was recorded."""
        if figures := self.attending.seen():
            pl_module.log_dict(figures, on_step=False, on_epoch=True, batch_size=1)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Leave no hooks behind."""
        self.attending.seen()

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save the adapter, in one process of several."""
        if trainer.is_global_zero:
            self.attending.save(pl_module)
