"""Every operation and part computes what plain torch computes: values and gradients in torch, values in NumPy."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pytest
import torch
from torch.export import Dim, export

import foveate
from foveate.bind.torch.attention import Attention
from foveate.bind.torch.parts import TorchParts
from foveate.cost import measure
from foveate.ops import Array, Bound, Ops
from foveate.oracle import evaluate
from foveate.parts import Conv, Gate, Maker, Norm, Parts, Scale, Start
from foveate.spec import Mechanism
from vocabulary import CHANNELS, SHAPE, WORDS, Word, upstream, wanted

PAGE = Path(__file__).resolve().parents[2] / "docs" / "design" / "vocabulary.md"


def module_of(word: Word) -> Attention:
    """Return the module with random weights."""
    module = foveate.attention(word, CHANNELS, dtype=torch.float64)
    generator = torch.Generator().manual_seed(1)
    for parameter in module.parameters():
        parameter.data.normal_(0.5, 1, generator=generator)
    return module


@pytest.mark.parametrize("word", WORDS, ids=str)
def test_torch_and_numpy(word: Word) -> None:
    module = module_of(word)
    weights = {name: value.detach() for name, value in module.state_dict().items()}
    x, y, gx, gw = wanted(word, weights)
    x = x.requires_grad_()
    got = module(x)
    (got * upstream(got)).sum().backward()
    torch.testing.assert_close(got, y, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(x.grad, gx, rtol=1e-12, atol=1e-12)
    for name, parameter in module.named_parameters():
        torch.testing.assert_close(parameter.grad, gw[name], rtol=1e-12, atol=1e-12)
    of_numpy, _ = evaluate(word, {name: value.numpy() for name, value in weights.items()}, x.detach().numpy())
    torch.testing.assert_close(torch.from_numpy(of_numpy), y, rtol=1e-12, atol=1e-12)
    cost = measure(word, SHAPE)
    assert cost.parameters == sum(parameter.numel() for parameter in module.parameters())


@pytest.mark.parametrize("word", WORDS, ids=str)
def test_the_cost_knows_the_shape_of_the_output(word: Word, monkeypatch: pytest.MonkeyPatch) -> None:
    shapes: list[tuple[int, ...]] = []
    forward = Word.forward

    def watched(self: Word, F: Ops, p: object, x: object) -> object:
        y = forward(self, F, p, x)  # pyright: ignore[reportArgumentType]
        shapes.append(tuple(y.shape))  # pyright: ignore[reportAttributeAccessIssue]
        return y

    monkeypatch.setattr(Word, "forward", watched)
    measure(word, SHAPE)
    module_of(word)(torch.ones(SHAPE, dtype=torch.float64))
    assert shapes[0] == shapes[1]


def test_the_page_lists_every_operation_and_part() -> None:
    listed = re.findall(r"^\| `(?:F|p)\.(\w+)", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    operations = {name for name, one in vars(Ops).items() if callable(one) and not name.startswith("_")}
    parts = Maker.__abstractmethods__ - {"group"}
    assert sorted(listed) == sorted([*operations, *parts])


def test_a_wrong_operation_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    from foveate.bind.torch.ops import TorchOps

    monkeypatch.setattr(TorchOps, "gelu", lambda self, x: torch.nn.functional.gelu(x, approximate="tanh"))
    with pytest.raises(AssertionError):
        test_torch_and_numpy(next(word for word in WORDS if word.word == "gelu"))


def test_a_group_of_one_value_in_a_batch_of_one_becomes_the_bias() -> None:
    word = next(word for word in WORDS if word.word == "group norm of one value")
    module, x = module_of(word), torch.ones(1, CHANNELS, 1, 1, dtype=torch.float64)
    torch.testing.assert_close(module(x), x + module.get_parameter("part.bias")[:, None, None])


def test_a_gate_that_is_0_has_no_identity_start() -> None:
    word: Mechanism = next(word for word in WORDS if word.word == "linear")
    with pytest.raises(foveate.errors.UsageError, match="whose full gate is 0 there"):
        foveate.attention(word, CHANNELS, start="identity")


@pytest.mark.parametrize("start", ["paper", "identity"])
def test_weights_begin_as_the_part_says(start: Start) -> None:
    tested = {"conv": Conv(2, 2, zero=True), "norm": Norm(2, zero=True), "scale": Scale(2, True, True, 3.0, 0.5)}
    layers = TorchParts(start).make(tested)
    first = {name: [set(p.flatten().tolist()) for p in layer.parameters()] for name, layer in layers.items()}
    scale = [{3.0}, {0.5}] if start == "paper" else [{0.0}, {0.0}]
    assert first == {"conv": [{0.0}, {0.0}], "norm": [{0.0}, {0.0}], "scale": scale}


@dataclass(frozen=True)
class Depthwise(Mechanism):
    def parts(self, channels: int) -> Parts:
        return {"conv": Conv(channels, channels, (1, 3), groups=channels, last=True), "gate": Gate("full")}

    def forward(self, F: Ops[Array], p: Bound[Array], x: Array) -> Array:
        return p.gate(x, p.conv(x))


def test_a_mechanism_that_begins_with_groups_takes_the_channels_it_was_built_for() -> None:
    module, x = foveate.attention(Depthwise, 6, start="identity"), torch.rand(2, 6, 5, 4)
    assert module.channels == 6
    assert torch.equal(module(x), x)
    with pytest.raises(foveate.errors.UsageError, match=r"Expected a feature map \(N, 6, H, W\)"):
        module(x[:, :1])


def test_a_full_gate_is_recorded() -> None:
    module, x = foveate.attention(Depthwise, 6), torch.rand(2, 6, 5, 4)
    with foveate.record(module) as recording:
        y = module(x)
    gates = recording[""]
    assert gates.full is not None
    assert torch.equal(x * gates.full, y)
    assert torch.equal(recording.spatial()[""], gates.full.mean(1))


@dataclass(frozen=True)
class Coarse(Mechanism):
    kind: Literal["mean", "max"]

    def parts(self, channels: int) -> Parts:
        return {}

    def forward(self, F: Ops[Array], p: Bound[Array], x: Array) -> Array:
        height, width = F.size(x, F.h), F.size(x, F.w)
        return F.adaptive_pool(F.adaptive_pool(x, self.kind, (height // 2, 4)), self.kind, (height, width))


@pytest.mark.parametrize("kind", ["mean", "max"])
def test_adaptive_pooling_is_exported_for_every_size(kind: Literal["mean", "max"]) -> None:
    module = foveate.attention(Coarse(kind), 3).eval()
    shapes = ({0: Dim("n"), 2: Dim("h", min=4), 3: Dim("w")},)
    program = export(module, (torch.rand(2, 3, 8, 9),), dynamic_shapes=shapes).module()
    for size in ((8, 9), (5, 3), (13, 21)):
        x = torch.rand(1, 3, *size)
        torch.testing.assert_close(program(x), module(x))
