"""Each clause of the contract must be able to fail: for each planted fault, the clause against it must fail."""

from collections.abc import Callable
from operator import methodcaller
from typing import Any

import pytest
import torch
from torch import Tensor

from contract import Contract
from foveate.bind.torch import ops
from foveate.bind.torch.ops import TorchOps
from foveate.bind.torch.parts import Gate
from foveate.cost import CostParts, Meter
from foveate.oracle import NumpyOps
from subjects import Subject

SE, SPATIAL = Subject("se"), Subject("spatial")


def in_float32(self: TorchOps, x: Tensor, axes: Any) -> Tensor:
    return x.float().mean(axes, keepdim=True)


def over_the_batch(self: TorchOps, x: Tensor, axes: Any) -> Tensor:
    return x.mean((0, *axes), keepdim=True).expand(len(x), -1, -1, -1)


def pooled(self: TorchOps, x: Tensor, axes: Any) -> Tensor:
    return torch.nn.functional.adaptive_avg_pool2d(x, 1)


def contiguous(x: Tensor, y: Tensor) -> Tensor:
    return y.contiguous()


def without_nan(self: Gate, x: Tensor, logits: Tensor) -> Tensor:
    return (x * self.gate(logits)).nan_to_num()


def half_wrong_gradient(self: TorchOps, x: Tensor, axes: Any) -> Tensor:
    return (x / 2 + x.detach() / 2).mean(axes, keepdim=True)


FIRST_STEP = methodcaller("test_the_first_step_leaves_the_identity_and_the_second_reaches_every_weight", SE)
FAULTS: list[tuple[Any, str, Callable[..., Any], Callable[[Contract], Any]]] = [
    (TorchOps, "mean", half_wrong_gradient, lambda c: c.test_gradients(SE, (2, 3, 5), False)),
    (TorchOps, "mean", half_wrong_gradient, lambda c: c.test_every_entry(SE, (1, 4, 3), True)),
    (TorchOps, "mean", in_float32, lambda c: c.test_dtypes(SE, torch.bfloat16, False)),
    (TorchOps, "mean", over_the_batch, lambda c: c.test_samples_do_not_mix(SE)),
    (TorchOps, "mean", pooled, lambda c: c.test_export(SE)),
    (
        TorchOps,
        "max",
        lambda self, x, axes: x.mean(axes, True),
        lambda c: c.test_torch_and_the_oracle_agree(SPATIAL, "paper", False),
    ),
    (NumpyOps, "max", NumpyOps.mean, lambda c: c.test_torch_and_the_oracle_agree(SPATIAL, "identity", True)),
    (Gate, "gate", lambda self, logits: logits.tanh(), lambda c: c.test_gates_lie_between_nothing_and_everything(SE)),
    (
        Gate,
        "gate",
        lambda self, logits: logits.sigmoid(),
        lambda c: c.test_the_output_is_the_input(SE, torch.float32, False),
    ),
    (ops, "_as_laid_out", contiguous, lambda c: c.test_channels_last(SE, False)),
    (Gate, "forward", without_nan, lambda c: c.test_nan_stays_nan(SE)),
    (Gate, "forward", lambda self, x, logits: x, FIRST_STEP),
    (CostParts, "_own", lambda self, part: 0, lambda c: c.test_parameters(SE, "paper")),
    (
        Meter,
        "work",
        lambda self, shape, *inputs, **work: inputs[0],
        lambda c: c.test_multiply_adds(SPATIAL, (2, 6, 7)),
    ),
]


@pytest.mark.parametrize(
    ("owner", "name", "fault", "clause"), FAULTS, ids=[f"{f[1]}-{i}" for i, f in enumerate(FAULTS)]
)
def test_a_fault_is_found(owner: Any, name: str, fault: Any, clause: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    contract = Contract()
    clause(contract)
    monkeypatch.setattr(owner, name, fault)
    with pytest.raises((AssertionError, RuntimeError)):
        clause(contract)
