import dataclasses
import logging
import pickle
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from foveate.data.epochs import views
from foveate.errors import DataError, UsageError
from foveate.training import Diverged, EpochRow, FitOptions, best_row, evaluate, fit, pick_device, task
from foveate.training.weights_ema import ema_of
from training.toy import QUICK, equal, state_of, toy_data, toy_model


def trained(options: FitOptions, data: Any = None, model: nn.Module | None = None) -> tuple[list[EpochRow], nn.Module]:
    model = model or toy_model()
    return fit(model, data or toy_data(), options), model


def numbers(rows: list[EpochRow]) -> list[tuple[float, ...]]:
    return [(row.epoch, row.train_loss, row.val_loss, row.val_score) for row in rows]


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_it_learns(optimizer: Any) -> None:
    rows, model = trained(dataclasses.replace(QUICK, epochs=5, optimizer=optimizer))
    assert [row.epoch for row in rows] == [1, 2, 3, 4, 5]
    assert rows[-1].train_loss < rows[0].train_loss
    assert all(0 < row.waiting < 1 for row in rows)
    assert evaluate(model, toy_data().test)["score"] > 0.9
    assert not model.training


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.reliability(20)
def test_the_same_seed_gives_the_same_bits(threads: int) -> None:
    options = dataclasses.replace(QUICK, threads=threads, epochs=1)
    (first, one), (second, two) = trained(options), trained(options)
    assert numbers(first) == numbers(second)
    assert equal(state_of(one), state_of(two))


def test_another_seed_gives_other_batches() -> None:
    assert numbers(trained(QUICK)[0]) != numbers(trained(dataclasses.replace(QUICK, seed=2))[0])


@pytest.mark.parametrize("workers", [2, 4])
@pytest.mark.reliability(20)
def test_workers_change_nothing(workers: int) -> None:
    (plain, one), (helped, two) = trained(QUICK), trained(dataclasses.replace(QUICK, workers=workers))
    assert numbers(plain) == numbers(helped)
    assert equal(state_of(one), state_of(two))


def test_earlier_random_numbers_do_not_matter_and_no_global_state_changes() -> None:
    levels = logging.getLogger("lightning.pytorch").level
    first, _ = trained(QUICK)
    model = toy_model()
    torch.rand(7)
    state = torch.get_rng_state()
    torch.set_num_threads(2)
    second = fit(model, toy_data(), dataclasses.replace(QUICK, threads=1))
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    assert numbers(first) == numbers(second)
    assert torch.equal(torch.get_rng_state(), state)
    assert threads == 2
    assert logging.getLogger("lightning.pytorch").level == levels


def test_it_is_silent(capfd: pytest.CaptureFixture[str]) -> None:
    trained(QUICK)
    assert capfd.readouterr() == ("", "")


def test_the_best_epoch_stays() -> None:
    seen: list[dict[str, torch.Tensor]] = []
    model = toy_model()
    rows = fit(
        model, toy_data(), dataclasses.replace(QUICK, epochs=4, lr=0.3), lambda row: seen.append(state_of(model))
    )
    best = best_row(rows)
    assert equal(state_of(model), seen[best.epoch - 1])
    assert evaluate(model, toy_data().val)["score"] == max(row.val_score for row in rows)


def test_ties_go_to_the_lower_loss_then_to_the_earlier_epoch() -> None:
    rows = [
        EpochRow(1, 0, 0.5, 0.9, 0),
        EpochRow(2, 0, 0.4, 0.9, 0),
        EpochRow(3, 0, 0.4, 0.9, 0),
        EpochRow(4, 0, 0.1, 0.8, 0),
    ]
    assert best_row(rows).epoch == 2


def test_patience_stops_and_callbacks_get_every_epoch() -> None:
    heard: list[int] = []
    rows = fit(
        toy_model(), toy_data(), dataclasses.replace(QUICK, epochs=30, patience=2), lambda row: heard.append(row.epoch)
    )
    assert heard == [row.epoch for row in rows]
    first_best = max(rows, key=lambda row: row.val_score).epoch
    assert len(rows) == first_best + 2 < 30


def test_a_class_is_scored_by_its_recall() -> None:
    assert task("classify").class_scores({"confusion": [[3, 1, 0], [0, 0, 0], [1, 1, 2]]}) == [0.75, None, 0.5]


def test_evaluate_counts_every_image_and_keeps_the_mode() -> None:
    model, data = toy_model().train(), toy_data(val=37)
    measured = evaluate(model, data.val, batch=8)
    logits = model.eval()(data.val.tensors[0])
    assert measured["count"] == 37
    assert measured["correct"] == int((logits.argmax(1) == data.val.tensors[1]).sum())
    assert measured["score"] == measured["correct"] / 37
    pairs = list(zip(data.val.tensors[1].tolist(), logits.argmax(1).tolist(), strict=True))
    classes = range(logits.shape[1])
    assert measured["confusion"] == [[pairs.count((true, found)) for found in classes] for true in classes]
    assert measured["loss"] == pytest.approx(nn.functional.cross_entropy(logits, data.val.tensors[1]).item(), abs=1e-6)
    norm, *_ = (layer for layer in model.train().modules() if isinstance(layer, nn.BatchNorm2d))
    norm.eval()
    evaluate(model, data.val)
    assert [module for module in model.modules() if not module.training] == [norm]


class BadGradient(torch.autograd.Function):
    """The identity with a gradient of NaN."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
        return x.clone()

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> torch.Tensor:
        return grads[0] * float("nan")


class GradientTurnsBad(nn.Module):
    """A model whose gradient is NaN after a number of forward passes."""

    def __init__(self, good: int):
        super().__init__()
        self.left = good

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.left -= 1
        return BadGradient.apply(x) if self.left < 0 else x  # type: ignore[return-value]


@pytest.mark.reliability(19)
def test_a_bad_image_is_noticed_at_its_step() -> None:
    data = toy_data(train=32)
    data.train.tensors[0][3, 0, 0, 0] = float("nan")
    with pytest.raises(Diverged) as caught:
        trained(QUICK, data)
    assert (caught.value.what, caught.value.epoch) == ("loss", 1)
    assert caught.value.step in (1, 2)


@pytest.mark.reliability(19)
def test_a_bad_gradient_is_noticed_at_its_step() -> None:
    with pytest.raises(Diverged) as caught:
        trained(QUICK, model=toy_model(last=GradientTurnsBad(good=3)))
    assert (caught.value.what, caught.value.epoch, caught.value.step) == ("gradient", 1, 4)


@pytest.mark.reliability(19)
def test_a_weight_that_overflows_is_noticed_at_its_step() -> None:
    with pytest.raises(Diverged) as caught:
        trained(dataclasses.replace(QUICK, lr=1e38, optimizer="sgd"))
    assert caught.value.epoch == 1
    assert caught.value.step <= 2


@pytest.mark.reliability(19)
def test_a_diverged_run_is_never_best_and_the_error_travels() -> None:
    seen: list[EpochRow] = []
    data = toy_data()
    data.val.tensors[0][0] = float("inf")
    with pytest.raises(Diverged, match="validation loss") as caught:
        fit(toy_model(), data, QUICK, seen.append)
    assert seen == []
    again = pickle.loads(pickle.dumps(caught.value))
    assert str(again) == str(caught.value)
    assert (again.epoch, again.exit_code) == (1, 4)


@pytest.mark.parametrize(
    "wrong",
    [
        *({"epochs": 0}, {"batch": 0}, {"lr": 0.0}, {"lr": float("nan")}, {"lr": float("inf")}, {"weight_decay": -1.0}),
        *(
            {"smoothing": 1.0},
            {"patience": 0},
            {"fraction": 0.0},
            {"fraction": 1.1},
            {"workers": -1},
            {"threads": 0},
            {"optimizer": "sdg"},
        ),
        *({"seed": -1}, {"seed": 2**63}),
    ],
    ids=str,
)
def test_wrong_options_are_refused_by_name(wrong: dict[str, Any]) -> None:
    name = next(iter(wrong))
    with pytest.raises(UsageError, match=f"Expected (a |an )?{name}"):
        FitOptions(**wrong)


def test_no_images_or_no_trainable_parameters_are_refused() -> None:
    with pytest.raises(UsageError, match="training images"):
        fit(toy_model(), toy_data(train=0), QUICK)
    with pytest.raises(UsageError, match="at least one trainable parameter"):
        fit(toy_model().requires_grad_(False), toy_data(), QUICK)


def test_a_device_that_is_not_there_is_refused() -> None:
    assert pick_device("cpu") == "cpu"
    with pytest.raises(UsageError, match="a device of this machine: cpu"):
        fit(toy_model(), toy_data(), dataclasses.replace(QUICK, device="gpx"))


@pytest.mark.parametrize(
    ("stopped", "changed"),
    [
        *((1, {}), (3, {}), (1, {"ema": 0.9}), (3, {"ema": 0.9, "optimizer": "sgd"}), (2, {"amp": True})),
        *((1, {"epochs": 30, "patience": 2}), (None, {"epochs": 30, "patience": 2})),  # None: in the last epoch
    ],
    ids=str,
)
def test_an_interrupted_run_continues_to_the_same_end(
    tmp_path: Path, stopped: int | None, changed: dict[str, Any]
) -> None:
    options = dataclasses.replace(QUICK, **{"epochs": 4, **changed})

    def model(seed: int = 0) -> nn.Module:
        return toy_model(seed, last=nn.Dropout())  # it uses torch's random numbers

    whole, one = trained(options, model=model())

    def stop(row: EpochRow) -> None:
        if row.epoch == (stopped or len(whole)):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fit(model(), toy_data(), options, stop, checkpoint=tmp_path / "last.ckpt")
    two, heard = model(seed=5), []
    torch.rand(7)
    rows = fit(two, toy_data(), options, lambda row: heard.append(row.epoch), checkpoint=tmp_path / "last.ckpt")
    assert heard == [row.epoch for row in whole]
    assert numbers(rows) == numbers(whole)
    assert equal(state_of(two), state_of(one))
    assert fit(two, toy_data(), options, checkpoint=tmp_path / "last.ckpt") == rows
    assert (len(rows) < options.epochs) is ("patience" in changed)


class Watched:
    """Images that record the epochs that are set, and the order of the indices that are read."""

    def __init__(self, pictures: Any):
        self.pictures = pictures
        self.epochs: list[int] = []
        self.asked: list[list[int]] = []

    def __len__(self) -> int:
        return len(self.pictures)

    def __getitem__(self, index: int) -> Any:
        if self.asked:  # a worker records in its own process
            self.asked[-1].append(index)
        return self.pictures[index]

    def set_epoch(self, epoch: int) -> None:
        self.epochs.append(epoch)
        self.asked.append([])


@pytest.mark.parametrize("workers", [0, 2])
def test_every_epoch_has_an_order_and_views_of_its_own(workers: int, tmp_path: Path) -> None:
    options = dataclasses.replace(QUICK, epochs=4, workers=workers)
    expected = [views(options.seed, epoch) for epoch in range(4)]
    assert len(set(expected)) == 4
    whole, first, rest = (Watched(toy_data().train) for _ in range(3))

    def data(train: Watched) -> Any:
        return SimpleNamespace(train=train, val=toy_data().val)

    def stop(row: EpochRow) -> None:
        if row.epoch == 2:
            raise KeyboardInterrupt

    fit(toy_model(), data(whole), options)
    with pytest.raises(KeyboardInterrupt):
        fit(toy_model(), data(first), options, stop, checkpoint=tmp_path / "last.ckpt")
    fit(toy_model(), data(rest), options, checkpoint=tmp_path / "last.ckpt")
    assert whole.epochs == expected
    assert (first.epochs, rest.epochs) == (expected[:2], expected[2:])
    if not workers:  # else they are read in other processes
        assert len({tuple(epoch) for epoch in whole.asked}) == 4
        assert [sorted(epoch) for epoch in whole.asked] == [sorted(whole.asked[0])] * 4
        assert first.asked + rest.asked == whole.asked


@pytest.mark.parametrize("content", [b"", b"no checkpoint", None], ids=["empty", "text", "another model's"])
def test_a_checkpoint_that_does_not_fit_is_refused(tmp_path: Path, content: bytes | None) -> None:
    path, model = tmp_path / "last.ckpt", toy_model()
    if content is None:
        fit(toy_model(last=nn.Linear(2, 2)), toy_data(), QUICK, checkpoint=path)
    else:
        path.write_bytes(content)
    with pytest.raises(DataError, match=r"a checkpoint of the same model and options in .*last\.ckpt"):
        fit(model, toy_data(), QUICK, checkpoint=path)
    assert equal(state_of(model), state_of(toy_model()))


@pytest.mark.reliability(17)
def test_a_checkpoint_that_cannot_be_written_leaves_the_one_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, before = tmp_path / "last.ckpt", list[bytes]()

    def full(descriptor: int) -> None:
        raise OSError("No space left on device")

    def after_the_first(row: EpochRow) -> None:
        before.append(path.read_bytes())
        monkeypatch.setattr("os.fsync", full)

    with pytest.raises(OSError, match="No space left"):
        fit(toy_model(), toy_data(), QUICK, after_the_first, checkpoint=path)
    assert [path.read_bytes()] == before
    assert list(tmp_path.iterdir()) == [path]


def test_the_ema_follows_the_weights_and_is_kept() -> None:
    model = nn.Linear(1, 1)
    ema, expected = ema_of(model, 0.3), 0.0
    assert ema is not None
    for n, value in enumerate((1.0, 5.0, 3.0, 8.0, 0.0)):
        nn.init.constant_(model.weight, value)
        ema.update_parameters(model)
        decay = min(0.3, (1 + n) / (10 + n)) if n else 0.0  # the first weights are copied
        expected = decay * expected + (1 - decay) * value
    assert model.weight.item() == 0.0
    assert state_of(ema)["module.weight"].item() == pytest.approx(expected, abs=1e-6)
    assert ema_of(model, 0.0) is None

    plain, kept = (trained(dataclasses.replace(QUICK, epochs=1, ema=ema))[1] for ema in (0.0, 0.9))
    assert not equal(state_of(plain), state_of(kept))


@pytest.mark.parametrize("ema", [0.0, 0.9])
def test_the_measured_model_is_kept(ema: float) -> None:
    scores: list[float] = []
    rows = fit(
        toy_model(),
        toy_data(),
        dataclasses.replace(QUICK, epochs=3, lr=0.3, ema=ema),
        keep=lambda measured: scores.append(evaluate(measured, toy_data().val)["loss"]),
    )
    assert scores == pytest.approx([row.val_loss for row in rows], abs=1e-6)
