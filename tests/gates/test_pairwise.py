"""Attention between positions is recorded as how much each position is read."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import foveate
from foveate.bind.torch.ops import OPS, TorchOps
from foveate.facts import facts
from foveate.gates.layers import Layer, layers
from foveate.gates.maps import FoundGates
from foveate.mechanisms import names
from foveate.parts import Gate, flat
from subjects import Subject

MECHANISMS = {
    "non_local": {"pool": "input"},
    "criss_cross": {"recurrence": 2},
    "danet": {},
    "cross": {"dim": 4},
    "double": {"c_m": 3, "c_n": 5},
    "global_context": {"reduction": 2},
    "polarized": {},
    "non_local, dot": {"similarity": "dot", "pool": "none"},
    "cot": {"kernel_size": 5},
    "cot, grouped": {"grouped": True},
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

    def attend_linear(self, queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        self._keep(lambda ones: OPS.attend_linear(queries, keys, ones), keys)
        return super().attend_linear(queries, keys, values)

    def local_conv(self, x: Tensor, weights: Tensor, kernel: int) -> Tensor:
        groups = weights.shape[1] // kernel**2
        self._keep(lambda ones: OPS.local_conv(ones.repeat(1, groups, 1, 1), weights, kernel).mean(1, True), weights)
        return super().local_conv(x, weights, kernel)

    def _keep(self, attend, keys: Tensor) -> None:
        ones = torch.ones_like(keys[:, :1], requires_grad=True)
        mixed = attend(ones)
        (read,) = torch.autograd.grad(mixed.sum(), ones)
        self.found.append(read * keys[0, 0].numel() / mixed[0, 0].numel())


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("name", MECHANISMS)
def test_the_recorded_shares_are_those_that_mixed_the_values(name: str, size: tuple[int, ...]) -> None:
    module = foveate.attention(name.partition(",")[0], 16 if "cot" in name else 8, **MECHANISMS[name])
    for parameter in module.parameters():
        nn.init.normal_(parameter, std=0.5)
    x, reads = torch.randn(size[0], module.channels, *size[2:]), Reads()
    module.eval().vocabulary = reads, reads
    expected = module(x)
    del module.vocabulary
    with torch.inference_mode(), foveate.record(module) as maps:
        found = module(x)
    assert torch.equal(found, expected)
    pairs = [recorded for recorded in maps.gates if recorded.kind == "pairwise"]
    assert len(pairs) == len(reads.found) == (2 if name == "criss_cross" else 1)
    for recorded, read in zip(pairs, reads.found, strict=True):
        read = read.unflatten(0, (size[0], -1)).mean(1)  # of groups
        torch.testing.assert_close(recorded.gate, read, atol=1e-4, rtol=1e-4)
        if "dot" not in name and "cot" not in name:
            torch.testing.assert_close(recorded.gate.mean((2, 3)), torch.ones(size[0], 1), atol=1e-5, rtol=0)
    assert maps[""].map() is not None
    assert "vocabulary" not in vars(module)


@pytest.mark.parametrize(("name", "options"), [("danet", {"pairs": "channels"}), ("scsa", {"heads": 4, "window": 2})])
def test_attention_between_channels_is_how_much_each_is_read(name: str, options: Any) -> None:
    module, x, reads = foveate.attention(name, 16, **options).eval(), torch.randn(2, 16, 5, 4), []

    class Spy(TorchOps):
        def attend_channels(self, queries: Tensor, keys: Tensor, values: Tensor, scale: float) -> Tensor:
            shares = torch.einsum("nchw,ndhw->ncd", queries, scale * keys).softmax(2)
            reads.append(shares.mean(1) * shares.shape[2])
            return super().attend_channels(queries, keys, values, scale)

    module.vocabulary = Spy(), Spy()
    module(x)
    del module.vocabulary
    with foveate.record(module) as maps, torch.no_grad():
        module(x)
    found = maps[""].channel_pairs
    assert found is not None
    torch.testing.assert_close(found[:, :, 0, 0], reads[0].detach().reshape(2, 16), atol=1e-5, rtol=1e-5)
    assert not torch.allclose(found, torch.ones_like(found), atol=0.01)
    assert next(gate.size for gate in maps.gates if gate.kind == "channel_pairs") == (5, 4)


# What is recorded besides the gates: attention between positions (pairwise) and between channels.
PAIRED = {
    "cot": "pairwise",
    "cot-kernel_size=5": "pairwise",
    "cot-grouped=True": "pairwise",
    "criss_cross": "pairwise",
    "criss_cross-recurrence=2": "pairwise pairwise",
    "criss_cross-reduction=0.5": "pairwise",
    "cross": "pairwise",
    "cross-dim=4": "pairwise",
    "cross-dim=4-scale=False": "pairwise",
    "cross-dim=3-activation=relu-scale=False": "pairwise",
    "danet": "pairwise",
    "danet-reduction=2": "pairwise",
    "danet-pairs=channels": "channel_pairs",
    "double": "pairwise",
    "double-c_m=6-c_n=3": "pairwise",
    "double-residual=True": "pairwise",
    "double-c_m=16-reconstruct=False": "pairwise",
    "double-c_m=5-reconstruct=False": "pairwise",
    "global_context": "pairwise",
    "global_context-fusion=mul-reduction=4": "pairwise",
    "non_local": "pairwise",
    "non_local-reduction=4-pool=keys-scale=none-norm=False": "pairwise",
    "non_local-similarity=dot-pool=none": "pairwise",
    "non_local-scale=channels": "pairwise",
    "polarized": "pairwise",
    "polarized-order=parallel": "pairwise",
    "scsa": "channel_pairs",
    "scsa-heads=4-window=2-pool=max-bias=True-kernel_sizes=[1, 3, 5, 7]": "channel_pairs",
    "scsa-heads=8-pool=global": "channel_pairs",
    "scsa-heads=2-window=3-gate=softmax": "channel_pairs",
}
UNSEEN = {
    "global_context-pool=avg": "it adds one vector to every position",
    "strip_pooling-pools=[3, 2]": "with pools it adds to the features, and weighs nothing",
    "strip_pooling-pools=[20, 12]": "with pools it adds to the features, and weighs nothing",
}
SUBJECTS = [Subject(name, options) for name in names() for options in ({}, *facts(name).get("try", ()))]
SUBJECTS.append(Subject("global_context", {"pool": "avg"}))


@pytest.mark.parametrize("subject", SUBJECTS, ids=str)
def test_every_mechanism_shows_what_it_attends_to(subject: Subject) -> None:
    """Each gate that it has, and the attention of `PAIRED`; for one that has neither, the reason."""
    module = subject.module().eval()
    inputs = [one.float() for one in subject.inputs(2, 8, 8)]
    with torch.no_grad(), foveate.record(module) as maps:
        module(*inputs)
    gates = [part.kind for part in flat(subject.made.parts(subject.channels)).values() if isinstance(part, Gate)]
    expected = [*gates, *PAIRED.get(str(subject), "").split()]
    assert sorted(gate.kind for gate in maps.gates) == sorted(expected)
    assert subject.made.no_record == UNSEEN.get(str(subject), "")
    assert bool(expected) != bool(subject.made.no_record)
    count = len(inputs[0])
    found = FoundGates(np.zeros((count, 8, 8, 3), np.uint8), {}, None, None, count)
    for recorded in maps.gates:
        found.add(recorded)
    (layer,) = layers(found.arrays()) or [Layer("")]
    shown = [gate.kind.split(" ")[0] for gate in (*layer.heads, *layer.channels)]
    assert {*expected} <= {*shown}
    assert len(layer.channels) == sum(kind.startswith("channel") for kind in expected)  # of each branch


def test_recordings_of_pairs_nest() -> None:
    module, x = foveate.attention("danet", 8), torch.randn(1, 8, 4, 4)
    with foveate.record(module) as outer:
        with foveate.record(module) as inner:
            module(x)
        module(x)
    assert (len(outer.gates), len(inner.gates)) == (2, 1)
    assert "vocabulary" not in vars(module)
