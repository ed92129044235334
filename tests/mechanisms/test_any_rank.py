"""Mechanisms on maps of 1-D and 3-D networks: direct formulas, the oracle, kernels, costs, and words where none fit."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor, nn
from torch.export import Dim, export
from torch.utils.flop_counter import FlopCounterMode

import foveate
from contract import shaken
from foveate import kernels
from foveate.cost import measure
from foveate.errors import UsageError
from foveate.mechanisms import of_any_rank
from foveate.ops import Ops
from foveate.oracle import evaluate
from foveate.parts import Conv, Gate, Parts
from foveate.spec import Mechanism
from subjects import Subject
from tolerance import distance

SHAPES = [(2, 8, 13), (3, 8, 2, 5, 3)]
ANY = [Subject(name) for name in ("channel", "cross", "eca", "se")]
ANY += [Subject("channel", {"pools": ("lp", "lse")}), Subject("cross", {"context_channels": 6, "dim": 4})]
ANY += [Subject("spatial", {"kernel_size": 1}), Subject("cbam", {"kernel_size": 1, "order": "parallel"})]


def drawn(subject: Subject, shape: tuple[int, ...], dtype: torch.dtype = torch.float32) -> list[Tensor]:
    """Return a random map of this shape, and the subject's context where it takes one."""
    x = torch.randn(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return [x.to(dtype), *subject.inputs(shape[0], dtype=dtype)[1:]]


def weigh(x: Tensor, logits: Tensor) -> Tensor:
    return x * torch.sigmoid(logits).reshape(*logits.shape, *[1] * (x.dim() - 2))


def linear(layer: Any, v: Tensor) -> Tensor:
    return v @ layer.weight.flatten(1).T + layer.bias


def perceptron(module: Any, v: Tensor) -> Tensor:
    return linear(module.expand, linear(module.reduce, v).relu())


def se(module: Any, x: Tensor) -> Tensor:
    return weigh(x, perceptron(module, x.flatten(2).mean(2)))


def channel(module: Any, x: Tensor) -> Tensor:
    positions = x.flatten(2)
    return weigh(x, perceptron(module, positions.mean(2)) + perceptron(module, positions.amax(2)))


def eca(module: Any, x: Tensor) -> Tensor:
    weight = module.conv.weight[0, 0]
    padded = nn.functional.pad(x.flatten(2).mean(2), (len(weight) // 2,) * 2)
    return weigh(x, (padded.unfold(1, len(weight), 1) * weight).sum(2))


def cross(module: Any, x: Tensor) -> Tensor:
    rows = x.flatten(2).transpose(1, 2)
    queries, keys, values = (linear(layer, rows) for layer in (module.query, module.key, module.value))
    mixed = (queries @ keys.transpose(1, 2) / keys.shape[2] ** 0.5).softmax(2) @ values
    return x + mixed.transpose(1, 2).reshape(x.shape)


FORMULAS: dict[str, Callable[[Any, Tensor], Tensor]] = {"se": se, "channel": channel, "eca": eca, "cross": cross}


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("name", FORMULAS)
def test_outputs_and_gradients_are_those_of_the_formula(name: str, shape: tuple[int, ...]) -> None:
    module = Subject(name).module(dtype=torch.float64)
    x, again = (torch.randn(shape, generator=torch.Generator().manual_seed(1)).double() for _ in range(2))
    found, wanted = module(x.requires_grad_()), FORMULAS[name](module, again.requires_grad_())
    assert found.shape == x.shape
    assert distance(found, wanted) < 1e-12
    weights = torch.linspace(-1, 2, x.numel(), dtype=torch.float64).view(shape)
    variables = list(module.parameters())
    for ours, theirs in zip(
        torch.autograd.grad((found * weights).sum(), [x, *variables]),
        torch.autograd.grad((wanted * weights).sum(), [again, *variables]),
        strict=True,
    ):
        torch.testing.assert_close(ours, theirs, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("training", [False, True], ids=["eval", "train"])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("subject", ANY, ids=str)
def test_the_oracle_agrees(subject: Subject, shape: tuple[int, ...], training: bool) -> None:
    module = shaken(subject.module(start="identity", dtype=torch.float64)).train(training)
    weights = {name: value.numpy().copy() for name, value in module.state_dict().items()}
    inputs = drawn(subject, shape, torch.float64)
    want, _ = evaluate(module.mechanism, weights, *(x.numpy() for x in inputs), training=training, start="identity")
    assert want.shape == inputs[-1].shape
    assert distance(module(*inputs), torch.from_numpy(want)) < 1e-12


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("name", ["se", "eca", "channel"])
def test_the_kernels_agree(name: str, shape: tuple[int, ...]) -> None:
    if reason := kernels.unavailable():
        pytest.skip(f"no kernels: {reason}")
    module, x = shaken(Subject(name).module(start="identity")), torch.randn(shape)
    x = x.contiguous(memory_format=torch.channels_last_3d) if x.dim() == 5 else x
    gradients = []
    for choice in ("cpu", "reference"):
        with kernels.using(choice):
            assert (kernels.why_not(module, x) is None) == (choice == "cpu")
            y = module(x.requires_grad_())
        y.square().sum().backward()
        gradients.append([y, *(p.grad.clone() for p in module.parameters() if p.grad is not None), x.grad])
        module.zero_grad()
        x = x.detach()
    assert len(gradients[0]) == len(gradients[1]) == 2 + len(list(module.parameters()))
    for ours, theirs in zip(*gradients, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)


def test_a_map_of_another_layout_is_the_2_d_map_of_its_positions() -> None:
    module, x = Subject("se").module(), torch.randn(2, 8, 3, 4, 5)
    torch.testing.assert_close(module(x), module(x.flatten(3)).view(x.shape))
    torch.testing.assert_close(module(x.flatten(2)), module(x.flatten(3)).flatten(2))


def test_a_context_may_have_other_axes_than_the_map() -> None:
    module = Subject("cross", {"context_channels": 6, "dim": 4}).module()
    assert module(torch.randn(2, 8, 7), torch.randn(2, 6, 2, 3, 4)).shape == (2, 6, 2, 3, 4)
    with pytest.raises(UsageError, match="a context"):
        module(torch.randn(2, 8, 7), torch.randn(2, 6))


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("subject", ANY, ids=str)
def test_the_cost_is_that_of_the_run(subject: Subject, shape: tuple[int, ...]) -> None:
    module, inputs = subject.module().eval(), drawn(subject, shape)
    with FlopCounterMode(display=False) as counter, kernels.using("reference"):
        module(*inputs)
    assert measure(module.mechanism, *(x.shape for x in inputs)).macs == counter.get_total_flops() / 2


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_export_with_open_sizes(shape: tuple[int, ...]) -> None:
    module, x = Subject("se").module().eval(), torch.randn(shape)
    program = export(module, (x,), dynamic_shapes=(dict.fromkeys((0, *range(2, x.dim())), Dim.AUTO),))
    other = torch.randn(4, 8, *(size + 2 for size in shape[2:]))
    assert distance(program.module()(other), module(other)) < 1e-6


@pytest.mark.parametrize("name", ["cbam", "coordinate", "residual_cbam", "spatial"])
@pytest.mark.parametrize("shape", [(2, 16, 9), (2, 16, 3, 4, 5)], ids=str)
def test_a_mechanism_of_rows_and_columns_says_which_others_work(name: str, shape: tuple[int, ...]) -> None:
    module = foveate.attention(name, 16, reduction=2) if name != "spatial" else foveate.attention(name, 16)
    others = of_any_rank()
    assert name not in others
    assert {"channel", "cross", "eca", "se"} <= {*others}
    with pytest.raises(UsageError, match=rf"(?s)\(N, 16, H, W\) for {name}.*use one of {', '.join(others)}$"):
        module(torch.zeros(shape))


@pytest.mark.parametrize("shape", [(2, 8), (2, 7, 5), (2, 9, 3, 4, 5), (2, 8, 1, 1, 1, 1)], ids=str)
def test_a_map_of_other_channels_or_no_positions_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(UsageError, match=r"\(N, 8, H, W\) or \(N, 8, L\) or \(N, 8, D, H, W\)"):
        Subject("se").module()(torch.zeros(shape))


@dataclass(frozen=True)
class Strips(Mechanism):
    """A mechanism of a user's own that weighs positions by the mean of their row, in pointwise convolutions."""

    name: ClassVar[str] = "strips"

    def parts(self, channels: int) -> Parts:
        return {"conv": Conv(channels, 1, last=True), "gate": Gate("spatial")}

    def forward(self, F: Ops, p: Any, x: Any) -> Any:
        return p.gate(x, p.conv(F.mean(x, F.w)))


def test_a_mechanism_that_asks_for_rows_is_refused_when_it_runs() -> None:
    module = foveate.attention(Strips(), 8)
    assert module(torch.zeros(2, 8, 3, 4)).shape == (2, 8, 3, 4)
    for shape in SHAPES:
        with pytest.raises(UsageError, match=r"for strips, whose maths needs a height and a width"):
            module(torch.zeros(shape))
