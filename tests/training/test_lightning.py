"""Attend in a training of Lightning: attached before the optimizer and the checkpoint, gates logged, adapter saved."""

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.loggers import CSVLogger, Logger, MLFlowLogger, TensorBoardLogger
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, TensorDataset

import foveate
from foveate.bind.torch.parts import Gate
from foveate.errors import DataError, UsageError
from foveate.lightning import Attend
from foveate.surgery.torch.child import attached
from surgery import hosts
from training.toy import equal, state_of

pytestmark = pytest.mark.filterwarnings("ignore:The number of training batches", "ignore:Found .* in eval mode")

SITES = ["layer1.0.bn2", "layer1.1.bn2", "layer2.0.bn2", "layer2.1.bn2"]
SMALL: dict[str, Any] = {"example": hosts.SHAPE, "reduction": 2}


class Net(LightningModule):
    """A user's module: a network as a child, and a `forward`."""

    def __init__(self, seed: int = 0, fails: bool = False):
        super().__init__()
        torch.manual_seed(seed)
        self.model = hosts.ResNet()
        self.fails, self.hooks = fails, list[int]()

    def forward(self, x: Tensor) -> Tensor:
        return self.model(x)

    def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
        self.hooks.append(hooks_of(self))
        if self.fails:
            raise ArithmeticError("in the first step")
        return cross_entropy(self(batch[0]), batch[1])

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), lr=0.02, momentum=0.9)


def hooks_of(model: nn.Module) -> int:
    """Return the number of hooks that record gates."""
    return sum(len(module._forward_hooks) for module in model.modules() if isinstance(module, Gate))


def batches() -> DataLoader[Any]:
    draw = torch.Generator().manual_seed(0)
    images, labels = torch.randn(12, 3, 16, 16, generator=draw), torch.randint(0, 5, (12,), generator=draw)
    return DataLoader(TensorDataset(images, labels), batch_size=4)


def trainer(attend: Attend, epochs: int = 1, logger: Logger | bool = False) -> Trainer:
    return Trainer(
        max_epochs=epochs,
        accelerator="cpu",
        callbacks=[attend],
        logger=logger,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )


def test_a_resumed_run_is_the_uninterrupted_one(tmp_path: Path) -> None:
    whole = Net()
    trainer(Attend("cbam", **SMALL), epochs=2).fit(whole, batches())
    half = Net()
    first = trainer(Attend("cbam", **SMALL))
    first.fit(half, batches())
    first.save_checkpoint(tmp_path / "half.ckpt")
    resumed = Net(seed=1)
    trainer(Attend("cbam", **SMALL), epochs=2).fit(resumed, batches(), ckpt_path=tmp_path / "half.ckpt")
    assert equal(state_of(resumed), state_of(whole))
    assert not equal(state_of(resumed), state_of(half))
    assert [name.removeprefix("model.") for name in attached(resumed)] == SITES


def test_a_second_fit_attaches_nothing_more() -> None:
    net, attend = Net(), Attend("cbam", host="model", **SMALL)
    for _ in range(2):
        trainer(attend).fit(net, batches())
    assert list(attached(net.model)) == SITES
    assert attend.attending.plan is not None


def test_the_adapter_fits_the_network_alone(tmp_path: Path) -> None:
    net = Net()
    untrained = [parameter.clone() for parameter in net.model.parameters()]
    with pytest.warns(foveate.errors.HostMovedWarning, match="save host_state_dict"):
        trainer(Attend("cbam", host="model", adapter=tmp_path / "new" / "cbam.safetensors", **SMALL)).fit(
            net, batches()
        )
    bare = hosts.ResNet()
    bare.load_state_dict(foveate.host_state_dict(net.model))
    foveate.load_adapter(bare, tmp_path / "new" / "cbam.safetensors", example=hosts.SHAPE)
    assert torch.equal(hosts.run(bare.eval(), hosts.image()), hosts.run(net.model.eval(), hosts.image()))
    assert not torch.equal(untrained[0], next(net.model.parameters()))
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["cbam.safetensors"]


def test_a_frozen_host_restored_from_a_checkpoint_has_not_moved(tmp_path: Path) -> None:
    class Frozen(Net):
        def __init__(self, seed: int = 0):
            super().__init__(seed)
            self.model.requires_grad_(False).eval()

    first = trainer(Attend("cbam", host="model", **SMALL))
    first.fit(Frozen(), batches())
    first.save_checkpoint(tmp_path / "half.ckpt")
    attend = Attend("cbam", host="model", adapter=tmp_path / "cbam.safetensors", **SMALL)
    trainer(attend, epochs=2).fit(Frozen(seed=1), batches(), ckpt_path=tmp_path / "half.ckpt")  # no HostMovedWarning
    assert (tmp_path / "cbam.safetensors").is_file()


def written_by_csv(folder: Path) -> tuple[Logger, Any]:
    logger = CSVLogger(folder)
    return logger, lambda: Path(logger.log_dir, "metrics.csv").read_text()


def written_by_tensorboard(folder: Path) -> tuple[Logger, Any]:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    def tags() -> list[str]:
        events = EventAccumulator(logger.log_dir).Reload()
        assert len(events.Scalars("gates/layer1.0.bn2/spatial/mean")) == 2
        return events.Tags()["scalars"]

    logger = TensorBoardLogger(folder)
    return logger, tags


def written_by_mlflow(folder: Path) -> tuple[Logger, Any]:
    pytest.importorskip("mlflow", reason="MLflow has an environment of its own: pip install mlflow-skinny")

    def names() -> list[str]:
        assert logger.run_id is not None
        assert len(logger.experiment.get_metric_history(logger.run_id, "gates/layer1.0.bn2/spatial/mean")) == 2
        return list(logger.experiment.get_run(logger.run_id).data.metrics)

    logger = MLFlowLogger(tracking_uri=f"file:{folder}")
    return logger, names


@pytest.mark.parametrize(
    "written_by",
    [
        written_by_csv,
        pytest.param(written_by_tensorboard, marks=pytest.mark.slow),  # it imports TensorFlow
        pytest.param(written_by_mlflow, marks=pytest.mark.slow),
    ],
)
def test_gates_reach_the_loggers_of_the_trainer(
    written_by: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
    logger, written = written_by(tmp_path)
    net = Net()
    trainer(Attend("cbam", host="model", log_gates=True, **SMALL), epochs=2, logger=logger).fit(net, batches())
    found = written()
    names = [
        f"gates/{site}/{kind}/{figure}"
        for site in SITES
        for kind in ("channel", "spatial")
        for figure in ("mean", "deviation", "between_images")
    ]
    assert [name for name in names if name not in found] == []
    assert net.hooks == [8, 0, 0] * 2


def test_gates_are_not_recorded_by_default(tmp_path: Path) -> None:
    logger = CSVLogger(tmp_path)
    net = Net()
    trainer(Attend("cbam", **SMALL), logger=logger).fit(net, batches())
    assert net.hooks == [0, 0, 0]
    assert not any("gates" in name for name in logger.experiment.metrics_keys)


def test_the_logged_numbers_are_those_of_the_first_batch() -> None:
    net = Net()
    foveate.attach(net.model, "cbam", start="paper", **SMALL)
    with foveate.record(same := copy.deepcopy(net.model).train()) as maps:
        same(next(iter(batches()))[0])
    spatial = maps["layer1.0.bn2"].spatial
    assert spatial is not None
    fitted = trainer(Attend(host="model", log_gates=True))
    fitted.fit(net, batches())
    figures = {
        "mean": spatial.mean(),
        "deviation": ((spatial - spatial.mean()) ** 2).mean().sqrt(),
        "between_images": ((spatial - spatial.mean(0)) ** 2).mean(0).sqrt().mean(),
    }
    for name, value in figures.items():
        torch.testing.assert_close(fitted.callback_metrics[f"gates/layer1.0.bn2/spatial/{name}"], value)
        assert value > 0.001


def test_an_error_leaves_no_hooks() -> None:
    net = Net(fails=True)
    with pytest.raises(ArithmeticError):
        trainer(Attend("cbam", host="model", log_gates=True, **SMALL)).fit(net, batches())
    assert net.hooks == [8]
    assert hooks_of(net) == 0


@pytest.mark.parametrize(
    ("attend", "kind", "message"),
    [
        (lambda folder: Attend("cbam", host="modle", **SMALL), UsageError, "did you mean 'model'"),
        (lambda folder: Attend(), UsageError, "pass a mechanism"),
        (lambda folder: Attend("cbma", **SMALL), UsageError, "cbam"),
        (
            lambda folder: Attend(lambda channels: nn.Conv2d(channels, channels, 1), adapter=folder / "a.safetensors"),
            UsageError,
            "which an adapter can name",
        ),
        (lambda folder: Attend("cbam", adapter=folder / "taken", **SMALL), DataError, "it is a folder"),
        (
            lambda folder: Attend("cbam", adapter=folder / "file" / "a.st", **SMALL),
            DataError,
            "a path that can be written",
        ),
    ],
)
def test_what_cannot_work_is_refused_before_training(attend: Any, kind: Any, message: str, tmp_path: Path) -> None:
    (tmp_path / "taken").mkdir()
    (tmp_path / "file").touch()
    net = Net()
    with pytest.raises(kind, match=message):
        trainer(attend(tmp_path)).fit(net, batches())
    assert net.hooks == []
    assert not attached(net)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "taken"]
