"""Training a classifier with Lightning."""

import contextlib
import logging
import math
import time
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from foveate.errors import UsageError
from foveate.models.torchvision_guard import ensure_torchvision
from foveate.train.batches import Images, share, training_loader
from foveate.train.measure import evaluate, laid_out, pick_device
from foveate.train.options import Diverged, EpochRow, FitOptions

ensure_torchvision()
from lightning.pytorch import Callback, LightningModule, Trainer  # noqa: E402 - the guard comes first
from torch.nn.utils import get_total_norm  # noqa: E402

_WARM_UP = 0.25  # of all steps
_CHATTER = (
    r"The '(train|val)_dataloader' does not have many workers",
    r"`isinstance\(treespec, LeafSpec\)` is deprecated",
    r"The number of training batches",
    r".* does not have a deterministic implementation",
    r"GPU available but not used",  # the CPU was asked for
    r"This DataLoader will create",  # more workers than cores: whoever asked knows
)


class Classifier(LightningModule):
    """A classifier and how it learns: cross entropy under a one-cycle schedule. Images (N, C, H, W), labels (N,)."""

    def __init__(self, model: nn.Module, options: FitOptions, steps: int):
        super().__init__()
        self.model, self.options, self.steps = model, options, steps

    def training_step(self, batch: tuple[Tensor, Tensor], index: int) -> Tensor:
        """Return the mean loss of a batch. Raises Diverged when it is not finite."""
        images, labels = batch
        loss = F.cross_entropy(self.model(laid_out(images)), labels, label_smoothing=self.options.smoothing)
        self._require_finite("loss", loss.detach(), index)
        return loss

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        """Raise Diverged when a gradient is not finite."""
        gradients = [p.grad for p in self.model.parameters() if p.grad is not None]
        self._require_finite("gradient", get_total_norm(gradients), self._step)

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        """Remember the step for the checks inside it."""
        self._step = batch_idx

    def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Raise Diverged when a weight is not finite."""
        self._require_finite("weight", get_total_norm([p.detach() for p in self.model.parameters()]), batch_idx)

    def configure_optimizers(self) -> Any:
        """Return the optimizer and its schedule; biases, norms and the gates' scalars are not decayed."""
        options = self.options
        learnt = [p for p in self.model.parameters() if p.requires_grad]
        groups = [
            {"params": [p for p in learnt if p.ndim > 1], "weight_decay": options.weight_decay},
            {"params": [p for p in learnt if p.ndim <= 1], "weight_decay": 0.0},
        ]
        if options.optimizer == "sgd":
            optimizer: torch.optim.Optimizer = torch.optim.SGD(groups, lr=options.lr, momentum=0.9, nesterov=True)
        else:
            optimizer = torch.optim.AdamW(groups, lr=options.lr)
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, self._share_of_rate)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def _share_of_rate(self, step: int) -> float:
        """Up in a straight line, down along a cosine, never 0."""
        part = (step + 1) / (self.steps + 1)
        return part / _WARM_UP if part < _WARM_UP else (1 + math.cos(math.pi * (part - _WARM_UP) / (1 - _WARM_UP))) / 2

    def _require_finite(self, what: str, value: Tensor, step: int) -> None:
        if not torch.isfinite(value):
            raise Diverged(what, self.current_epoch + 1, step + 1)


def fit(model: nn.Module, data: Any, options: FitOptions, on_epoch: Callable[[EpochRow], None] | None = None) -> list[EpochRow]:
    """Train on `data.train`, choose the epoch by accuracy on `data.val`, and leave the model in that epoch's state, in eval mode.

    Only parameters that require gradients learn. Torch's random state and number of threads are the caller's again afterwards.

    Raises:
        Diverged: a loss, gradient or weight became NaN or infinite.
        UsageError: nothing to learn from, or nothing that may learn.
    """
    if not len(data.train):
        raise UsageError(expected="training images", received="none", do="look at the data's train split")
    if not any(p.requires_grad for p in model.parameters()):
        raise UsageError(expected="a parameter that may learn", received="a model frozen throughout", do="attach attention, or unfreeze")
    watch = _Watch(data.val, options, on_epoch)
    device = pick_device(options.device)
    with _settings(options, device):
        loader = training_loader(data.train, share(len(data.train), options.fraction), options.batch, options.seed, options.workers)
        model.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
        trainer = Trainer(
            max_epochs=options.epochs,
            accelerator=device,
            deterministic=None if device == "cpu" else "warn",
            devices=1,
            precision="bf16-mixed" if options.amp else "32-true",
            callbacks=[watch],
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            benchmark=False,
        )
        try:
            trainer.fit(Classifier(model, options, options.epochs * len(loader)), loader)
        except SystemExit as stop:  # Lightning turns Ctrl-C into an exit; whoever called has more to save
            if isinstance(stop.__context__, KeyboardInterrupt):
                raise KeyboardInterrupt from None
            raise
        finally:
            model.to("cpu")
    watch.restore_best(model)
    return watch.rows


class _Watch(Callback):
    """Closes each epoch: validation, the row, the best weights so far, patience."""

    def __init__(self, val: Images, options: FitOptions, on_epoch: Callable[[EpochRow], None] | None):
        self.val, self.options, self.on_epoch = val, options, on_epoch
        self.rows: list[EpochRow] = []
        self.best: tuple[tuple[float, float], dict[str, Tensor]] | None = None
        self._losses: list[Tensor] = []
        self._began = 0.0

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._losses, self._began = [], time.perf_counter()

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int) -> None:
        self._losses.append(outputs["loss"].detach())

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        epoch, model = trainer.current_epoch + 1, _model(pl_module)
        measured = evaluate(model, self.val, self.options.batch, self.options.workers)
        if not torch.isfinite(torch.tensor(measured["loss"])):
            raise Diverged("validation loss", epoch, len(self._losses))
        train_loss = torch.stack(self._losses).mean().item()
        row = EpochRow(epoch, train_loss, measured["loss"], measured["accuracy"], time.perf_counter() - self._began)
        self.rows.append(row)
        rank = (row.val_accuracy, -row.val_loss)
        if self.best is None or rank > self.best[0]:
            self.best = rank, {key: value.detach().to("cpu", copy=True) for key, value in model.state_dict().items()}
        first_best = max(self.rows, key=lambda row: row.val_accuracy).epoch
        if self.options.patience is not None and epoch - first_best >= self.options.patience:
            trainer.should_stop = True
        if self.on_epoch:
            self.on_epoch(row)

    def restore_best(self, model: nn.Module) -> None:
        if self.best:
            model.load_state_dict(self.best[1])
        model.eval()


def _model(module: LightningModule) -> nn.Module:
    if not isinstance(module, Classifier):
        raise TypeError(type(module))
    return module.model


@contextlib.contextmanager
def _settings(options: FitOptions, device: str) -> Iterator[None]:
    """Seeds, threads and silence for one run; all as before afterwards. A run on the CPU leaves GPUs alone."""
    threads = torch.get_num_threads()
    loggers = [logging.getLogger(name) for name in ("lightning.pytorch", "lightning.fabric")]
    levels = [logger.level for logger in loggers]
    with torch.random.fork_rng(devices=[0] if device == "cuda" else []), warnings.catch_warnings():
        for chatter in _CHATTER:
            warnings.filterwarnings("ignore", chatter)
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        torch.manual_seed(options.seed)
        if options.threads:
            torch.set_num_threads(options.threads)
        try:
            yield
        finally:
            torch.set_num_threads(threads)
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)
