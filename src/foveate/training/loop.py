"""Train a model with Lightning, for any task."""

import contextlib
import copy
import io
import logging
import math
import signal
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from foveate import files
from foveate.errors import DataError, UsageError
from foveate.models.torchvision_guard import ensure_torchvision
from foveate.torch_utils.modes import Freezable
from foveate.torch_utils.names import is_attention
from foveate.training import peers
from foveate.training.batch_size import check_batch_size
from foveate.training.batches import Loader, Samples, share, training_loader
from foveate.training.device import pick_device
from foveate.training.fit_options import Diverged, EpochRow, FitOptions, best_row
from foveate.training.sync_batch_norm import synchronised
from foveate.training.tasks import Task, task
from foveate.training.weights_ema import ema_of

ensure_torchvision()
from lightning.pytorch import Callback, LightningModule, Trainer  # noqa: E402 - the guard comes first
from lightning.pytorch.plugins import TorchCheckpointIO  # noqa: E402
from lightning.pytorch.strategies import DDPStrategy  # noqa: E402
from torch.nn.utils import get_total_norm  # noqa: E402

_WARM_UP = 0.25  # share of all steps
_CHATTER = (
    r"The '(train|val)_dataloader' does not have many workers",
    r"`isinstance\(treespec, LeafSpec\)` is deprecated",
    r"The number of training batches",
    r".* does not have a deterministic implementation",
    r"GPU available but not used",  # the user chose the CPU
    r"Found \d+ module\(s\) in eval mode",  # the norms of a frozen host
    r"Grad strides do not match bucket view strides",  # how fast DDP is
)


class Learner(LightningModule):
    """A model with the training step of its task and a one-cycle schedule."""

    def __init__(
        self,
        model: nn.Module,
        options: FitOptions,
        steps: int,
        name: str = "classify",
        backbone: Freezable | None = None,
    ):
        super().__init__()
        self.model, self.options, self.steps = model, options, steps
        self.task: Task = task(name)
        self.ema = ema_of(model, options.ema)
        self.backbone = backbone

    @property
    def measured(self) -> nn.Module:
        """Return the model that is validated and kept: the EMA of the weights, if there is one."""
        return self.ema.module if self.ema is not None else self.model

    def training_step(self, batch: Any, index: int) -> Tensor:
        """Return the loss of a batch. Raises Diverged if it is not finite."""
        loss = self.task.loss(self.model, batch, self.options)
        self._require_finite("loss", peers.mean(loss.detach()), index)  # so that all processes stop at the same step
        return loss

    def on_train_epoch_start(self) -> None:
        """Freeze the backbone and the statistics of its norms, or unfreeze them."""
        if self.backbone is not None:
            self.backbone.set_frozen(self.current_epoch < self.options.freeze_epochs)

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        """Raise Diverged if a gradient is not finite."""
        gradients = [p.grad for p in self.model.parameters() if p.grad is not None]
        self._require_finite("gradient", get_total_norm(gradients), self._step)

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        """Remember the step for the checks inside it."""
        self._step = batch_idx

    def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Raise Diverged if a weight is not finite; update the EMA of the weights."""
        self._require_finite("weight", get_total_norm([p.detach() for p in self.model.parameters()]), batch_idx)
        if self.ema is not None:
            self.ema.update_parameters(self.model)

    def configure_optimizers(self) -> Any:
        """Return the optimizer and its schedule.

        Attention has its own learning rate; biases, norms and scalars have no weight decay.
        """
        options, chosen = self.options, dict[tuple[float, float], list[nn.Parameter]]()
        for name, parameter in self.model.named_parameters():
            if parameter.requires_grad:
                rate = options.attention_lr if options.attention_lr and is_attention(name) else options.lr
                chosen.setdefault((rate, options.weight_decay if parameter.ndim > 1 else 0.0), []).append(parameter)
        groups = [
            {"params": parameters, "lr": rate, "weight_decay": decay} for (rate, decay), parameters in chosen.items()
        ]
        if options.optimizer == "sgd":
            optimizer: torch.optim.Optimizer = torch.optim.SGD(groups, momentum=0.9, nesterov=True)
        else:
            optimizer = torch.optim.AdamW(groups)
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, self._share_of_rate)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def _share_of_rate(self, step: int) -> float:
        """Return the share of the highest rate: a linear rise, then a cosine fall that does not reach 0."""
        part = (step + 1) / (self.steps + 1)
        return part / _WARM_UP if part < _WARM_UP else (1 + math.cos(math.pi * (part - _WARM_UP) / (1 - _WARM_UP))) / 2

    def _require_finite(self, what: str, value: Tensor, step: int) -> None:
        if not torch.isfinite(value):
            raise Diverged(what, self.current_epoch + 1, step + 1)


def fit(
    model: nn.Module,
    data: Any,
    options: FitOptions,
    on_epoch: Callable[[EpochRow], None] | None = None,
    *,
    name: str = "classify",
    checkpoint: Path | None = None,
    keep: Callable[[nn.Module], object] | None = None,
) -> list[EpochRow]:
    """Train on `data.train`, and leave the model in the state of the epoch with the best score on `data.val`.

    The model is then in eval mode. Only parameters that require gradients learn, and norms in eval mode keep their
    statistics. Torch's random state and number of threads are restored afterwards. After each epoch, `keep` is called
    with the measured model (the EMA of the weights, if there is one) to save it. Then a checkpoint, which is all that a
    continuation needs, is written to `checkpoint`. If that file exists at the start, the run continues from it, and
    calls `on_epoch` first for the epochs that were already done.

    Raises:
        Diverged: a loss, gradient or weight became NaN or infinite.
        UsageError: no training images, no trainable parameter, or too few values for a batch norm.
        DataError: a checkpoint that is damaged, or of another model.
    """
    if not len(data.train):
        raise UsageError(expected="training images", received="none", do="check the train split of the data")
    learnable = [p for p in model.parameters() if p.requires_grad]
    if not learnable:
        raise UsageError(
            expected="at least one trainable parameter",
            received="a model whose parameters are all frozen",
            do="attach attention, or set requires_grad of some parameters",
        )
    check_batch_size(model, data.train, options, name)
    device = pick_device(options.device)
    with _settings(options, device):
        what, kept = task(name), share(len(data.train), options.fraction)
        begin = partial(what.begin_epoch, data.train, options=options)
        collate, part = what.collate_for(model, options), peers.position()
        loader = training_loader(data.train, kept, options.batch, options.seed, options.workers, collate, begin, part)
        if part[0]:  # only rank 0 writes
            on_epoch = keep = None
        model.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
        backbone = what.backbone(model, len(data.classes)) if options.freeze_epochs else None
        learner = Learner(model, options, options.epochs * len(loader), name, backbone)
        watch = _EachEpoch(data.val, learner, loader, on_epoch, checkpoint, keep)
        trainer = Trainer(
            max_epochs=options.epochs,
            accelerator=device,
            deterministic=None if device == "cpu" else "warn",
            devices=options.devices,
            num_nodes=options.nodes,
            # a frozen backbone, or a layer that a model does not use, has no gradient to wait for
            strategy=DDPStrategy(find_unused_parameters=True) if options.strategy else "auto",
            use_distributed_sampler=False,
            precision="bf16-mixed" if options.amp else "32-true",
            callbacks=[watch],
            plugins=[_WholeFiles()],
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            benchmark=False,
        )
        norms = synchronised(model) if options.sync_batch_norm else contextlib.nullcontext()
        try:
            with norms:
                _run(trainer, learner, loader, checkpoint)
        finally:
            model.to("cpu")
            if backbone is not None:
                backbone.set_frozen(False)  # a run may end while it is frozen
    watch.restore_best(model)
    return watch.rows


def _run(trainer: Trainer, learner: Learner, loader: Any, checkpoint: Path | None) -> None:
    begun = checkpoint if peers.from_first(checkpoint is not None and checkpoint.is_file()) else None
    before = copy.deepcopy(learner.model.state_dict()) if begun else {}
    try:
        trainer.fit(learner, loader, ckpt_path=begun, weights_only=True)
    except SystemExit as stop:  # Lightning turns Ctrl-C into an exit, but the caller has more to save
        if isinstance(stop.__context__, KeyboardInterrupt):
            raise stop.__context__ from None
        if stop.code:
            raise
        raise KeyboardInterrupt from None  # Lightning's answer to SIGTERM, which would look like a success
    except (Diverged, KeyboardInterrupt):
        raise
    except Exception as error:
        if begun is None or trainer.global_step > 0:
            raise
        learner.model.load_state_dict(before)
        raise DataError(
            expected=f"a checkpoint of the same model and options in {begun}",
            received=f"{type(error).__name__}: {' '.join(str(error).split())[:200]}",
            do="remove the file to start again",
        ) from error


class _EachEpoch(Callback):
    """The end of each epoch: validation, its row, the best weights so far, patience, checkpoint, the next epoch."""

    def __init__(
        self,
        val: Samples,
        learner: Learner,
        loader: Loader,
        on_epoch: Callable[[EpochRow], None] | None,
        checkpoint: Path | None,
        keep: Callable[[nn.Module], object] | None,
    ):
        self.val, self.learner, self.loader = val, learner, loader
        self.batches: Any = loader.batch_sampler
        self.on_epoch, self.checkpoint, self.keep = on_epoch, checkpoint, keep
        self.options = learner.options
        self.rows: list[EpochRow] = []
        self.best: dict[str, Tensor] | None = None
        self._losses: list[Tensor] = []
        self._began = 0.0
        self._random: dict[str, Tensor] = {}
        self._at_sigterm = signal.getsignal(signal.SIGTERM)

    def state_dict(self) -> dict[str, Any]:
        """Return what a continuation needs, as plain values and tensors."""
        return {
            "rows": [asdict(row) for row in self.rows],
            "best": self.best,
            "random": _random_state(self.learner.device),
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore what `state_dict` returned, and call `on_epoch` for the epochs in it."""
        self.rows, self.best, self._random = (
            [EpochRow(**row) for row in state_dict["rows"]],
            state_dict["best"],
            state_dict["random"],
        )
        self.batches.set_epoch(len(self.rows))
        for row in self.rows:
            if self.on_epoch:
                self.on_epoch(row)

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Stop at once if the run had already ended for lack of patience."""
        if self._out_of_patience():
            trainer.should_stop = True

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Restore the random state, so that dropout continues as in an uninterrupted run, and the answer to SIGTERM.

        Lightning's own answer exchanges values with the other processes, whatever these are doing.
        """
        if callable(self._at_sigterm) and threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, self._at_sigterm)
        if self._random:
            _set_random_state(self._random, pl_module.device)

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._losses, self._began = [], time.perf_counter()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self._losses.append(outputs["loss"].detach())

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        epoch, model, waiting = trainer.current_epoch + 1, self.learner.measured, self.loader.share_waited()
        peers.copy_buffers(model)
        measured = self.learner.task.evaluate(model, self.val, self.options.batch, self.options.workers)
        measured = peers.from_first(measured)  # processors of another make could decide otherwise
        if not math.isfinite(measured["loss"]):
            raise Diverged("validation loss", epoch, len(self._losses))
        train_loss = peers.mean(torch.stack(self._losses).mean()).item()
        seconds = time.perf_counter() - self._began
        self.rows.append(EpochRow(epoch, train_loss, measured["loss"], measured["score"], seconds, waiting))
        self.batches.set_epoch(epoch)
        if best_row(self.rows).epoch == epoch:
            self.best = {key: value.detach().to("cpu", copy=True) for key, value in model.state_dict().items()}
        if self._out_of_patience():
            trainer.should_stop = True
        if self.keep:
            self.keep(model)
        if self.checkpoint is not None:
            trainer.save_checkpoint(self.checkpoint)
        if self.on_epoch:
            self.on_epoch(self.rows[-1])

    def _out_of_patience(self) -> bool:
        if self.options.patience is None or not self.rows:
            return False
        first_best = max(self.rows, key=lambda row: row.val_score).epoch
        return self.rows[-1].epoch - first_best >= self.options.patience

    def restore_best(self, model: nn.Module) -> None:
        if self.best:
            model.load_state_dict(self.best)
        model.eval()


class _WholeFiles(TorchCheckpointIO):
    """A writer that writes a checkpoint as a whole file or not at all, which Lightning's own writer cannot promise."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        """Write the checkpoint in torch's format."""
        content = io.BytesIO()
        torch.save(checkpoint, content)
        files.write_bytes(Path(path), content.getvalue())

    def load_checkpoint(self, path: Any, *args: Any, **options: Any) -> dict[str, Any]:
        """Read the checkpoint on rank 0, the only one that surely has the file, and give it to the others."""
        first = peers.position()[0] == 0
        return peers.from_first(super().load_checkpoint(path, *args, **options) if first else None)


def _random_state(device: torch.device) -> dict[str, Tensor]:
    """Return torch's random state, and the GPU's if the run is on a GPU."""
    return {"cpu": torch.get_rng_state()} | (
        {"cuda": torch.cuda.get_rng_state(device)} if device.type == "cuda" else {}
    )


def _set_random_state(state: dict[str, Tensor], device: torch.device) -> None:
    torch.set_rng_state(state["cpu"])
    if device.type == "cuda" and "cuda" in state:  # a run may continue on another device
        torch.cuda.set_rng_state(state["cuda"], device)


@contextlib.contextmanager
def _settings(options: FitOptions, device: str) -> Iterator[None]:
    """Set seed, threads and quiet logs for one run, then restore all; a run on the CPU does not touch GPUs."""
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
