"""Attention between positions is recorded as how much each position is read."""

import pytest
import torch
from torch import Tensor, nn

import foveate
from foveate.bind.torch.ops import OPS, TorchOps
from foveate.mechanisms import names
from subjects import Subject

MECHANISMS = {
    "non_local": {"pool": "input"},
    "criss_cross": {"recurrence": 2},
    "danet": {},
    "cross": {"dim": 4},
    "double": {"c_m": 3, "c_n": 5},
    "global_context": {"reduction": 2},
    "polarized": {},
}
SIZES = [(2, 8, 5, 7), (1, 8, 4, 4), (3, 8, 6, 3)]


class Reads(TorchOps):
    """What each position is read, by the gradient of the attention itself: it is linear in the values."""

    def __init__(self) -> None:
        self.found: list[Tensor] = []

    def attend(self, queries: Tensor, keys: Tensor, values: Tensor, scale: float) -> Tensor:
        self._keep(lambda ones: OPS.attend(queries, keys, ones, scale), keys)
        return super().attend(queries, keys, values, scale)

    def criss_cross(self, queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        self._keep(lambda ones: OPS.criss_cross(queries, keys, ones), keys)
        return super().criss_cross(queries, keys, values)

    def attention_pool(self, x: Tensor, scores: Tensor) -> Tensor:
        self._keep(lambda ones: OPS.attention_pool(ones, scores), scores)
        return super().attention_pool(x, scores)

    def _keep(self, attend, keys: Tensor) -> None:
        ones = torch.ones_like(keys[:, :1], requires_grad=True)
        mixed = attend(ones)
        (read,) = torch.autograd.grad(mixed.sum(), ones)
        self.found.append(read * keys[0, 0].numel() / mixed[0, 0].numel())


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("name", MECHANISMS)
def test_the_recorded_shares_are_those_that_mixed_the_values(name: str, size: tuple[int, ...]) -> None:
    module = foveate.attention(name, 8, **MECHANISMS[name])
    for parameter in module.parameters():
        nn.init.normal_(parameter, std=0.5)
    x, reads = torch.randn(size), Reads()
    module.eval().vocabulary = reads, reads
    expected = module(x)
    del module.vocabulary
    with torch.inference_mode(), foveate.record(module) as maps:
        found = module(x)
    assert torch.equal(found, expected)
    pairs = [recorded for recorded in maps.gates if recorded.kind == "pairwise"]
    assert len(pairs) == len(reads.found) == (2 if name == "criss_cross" else 1)
    for recorded, read in zip(pairs, reads.found, strict=True):
        assert torch.allclose(recorded.gate, read, atol=1e-5)
        assert torch.allclose(recorded.gate.mean((2, 3)), torch.ones(size[0], 1), atol=1e-5)
    assert maps[""].map() is not None
    assert "vocabulary" not in vars(module)


@pytest.mark.parametrize("name", names())
def test_every_mechanism_shows_what_it_attends_to(name: str) -> None:
    subject = Subject(name)
    module = subject.module().eval()
    with torch.no_grad(), foveate.record(module) as maps:
        module(*subject.inputs(1, 8, 8))
    assert maps.gates


def test_attention_between_channels_is_no_map() -> None:
    module = foveate.attention("scsa", 32)
    with foveate.record(module) as maps:
        module(torch.randn(2, 32, 8, 8))
    assert {gate.kind for gate in maps.gates} == {"row", "column", "channel"}


def test_recordings_of_pairs_nest() -> None:
    module, x = foveate.attention("danet", 8), torch.randn(1, 8, 4, 4)
    with foveate.record(module) as outer:
        with foveate.record(module) as inner:
            module(x)
        module(x)
    assert (len(outer.gates), len(inner.gates)) == (2, 1)
    assert "vocabulary" not in vars(module)
