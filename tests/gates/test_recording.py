import gc
import weakref
from typing import Any

import pytest
import torch
from torch import nn

import foveate
from foveate.bind.torch.attention import Attention
from foveate.bind.torch.parts import Gate
from foveate.errors import UsageError

GATED = {"se": 1, "channel": 1, "spatial": 1, "cbam": 2, "eca": 1, "coordinate": 2, "residual_cbam": 2}
OPTIONS: dict[str, dict[str, Any]] = {"cbam": {"reduction": 4}, "se": {"reduction": 4}, "channel": {"reduction": 4}}
SHAPES = [(1, 8, 1, 1), (2, 8, 5, 7), (3, 16, 8, 8), (1, 32, 3, 11)]
SIZES = {"channel": (1, 1), "spatial": (-1, -1), "row": (-1, 1), "column": (1, -1)}


def hooks(model: nn.Module) -> int:
    return sum(len(module._forward_hooks) + len(module._forward_pre_hooks) for module in model.modules())


def make(name: str, shape: tuple[int, ...], start: str) -> Attention:
    module = foveate.attention(name, shape[1], start=start, **OPTIONS.get(name, {}))  # pyright: ignore[reportArgumentType, reportCallIssue]
    for parameter in module.parameters():
        nn.init.normal_(parameter, std=0.5)
    return module.eval()


class Host(nn.Module):
    def __init__(self, name: str):
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.attention = foveate.attention(name, 8, **OPTIONS.get(name, {}))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.attention(self.stem(x))


@pytest.mark.parametrize("start", ["paper", "identity"])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("name", GATED)
def test_captured_gates_are_the_recomputed_ones(name: str, shape: tuple[int, ...], start: str):
    module, x = make(name, shape, start), torch.randn(shape)
    features: dict[str, list[torch.Tensor]] = {}
    spies = [
        gate.register_forward_hook(lambda _, inputs, output, key=key: features.update({key: [*inputs, output]}))
        for key, gate in module.named_modules()
        if isinstance(gate, Gate)
    ]
    with foveate.record(module) as maps:
        module(x)
    for spy in spies:
        spy.remove()
    assert len(maps.gates) == GATED[name]
    for recorded in maps.gates:
        into, logits, out = features[recorded.name]
        gate = module.get_submodule(recorded.name)
        assert isinstance(gate, Gate)
        expected = gate.scale * torch.sigmoid(logits)
        assert gate.scale == (2 if start == "identity" and name != "residual_cbam" else 1)
        assert torch.allclose(recorded.gate, expected.detach(), atol=1e-6)
        assert torch.allclose(into * recorded.gate, out, atol=1e-6)
        assert recorded.size == shape[2:]
        wanted = [side if side > 0 else shape[2 + k] for k, side in enumerate(SIZES[recorded.kind])]
        assert list(recorded.gate.shape[2:]) == wanted
        assert not recorded.gate.requires_grad
    assert hooks(module) == 0


@pytest.mark.parametrize("name", GATED)
def test_recording_changes_nothing_and_removes_its_hooks(name: str):
    module, x = make(name, (2, 8, 5, 7), "paper"), torch.randn(2, 8, 5, 7)
    before = module(x)
    with foveate.record(module):
        during = module(x)
    torch.testing.assert_close(during, before)  # not equal: recorded gates run as plain operations, others by kernels
    assert torch.equal(before, module(x))
    assert hooks(module) == 0


def test_hooks_are_gone_after_an_exception():
    module = make("cbam", (1, 8, 4, 4), "paper")
    with pytest.raises(UsageError), foveate.record(module):
        module(torch.randn(1, 9, 4, 4))
    assert hooks(module) == 0
    with pytest.raises(KeyboardInterrupt), foveate.record(module):
        raise KeyboardInterrupt
    assert hooks(module) == 0


def test_sites_of_an_attached_model_are_the_host_modules():
    model = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU())
    plan = foveate.attach(model, "cbam", where="1", example=(1, 3, 8, 8), reduction=4)
    with foveate.record(model) as maps:
        model(torch.randn(2, 3, 8, 8))
    assert list(maps) == [site.name for site in plan.sites] == ["1"]
    assert maps["1"].channel is not None
    assert maps["1"].spatial is not None
    assert torch.equal(maps["1"].spatial, torch.ones(2, 1, 8, 8))  # the identity start
    assert [gate.kind for gate in maps["1"].gates] == ["channel", "spatial"]


def test_sites_of_a_users_module_are_the_attention_modules():
    with foveate.record(host := Host("coordinate")) as maps:
        host(torch.randn(2, 3, 6, 9))
    assert list(maps) == ["attention"]
    found = maps["attention"]
    assert found.spatial is None
    assert found.row is not None
    assert found.column is not None
    assert torch.allclose(maps.spatial()["attention"], (found.row * found.column).mean(1))
    assert maps.spatial()["attention"].shape == (2, 6, 9)


def test_channel_gates_have_no_map():
    with foveate.record(host := Host("se")) as maps:
        host(torch.randn(2, 3, 6, 9))
    assert maps.spatial() == {}
    assert len(maps) == 1


def test_an_unknown_site_names_the_nearest():
    with foveate.record(host := Host("se")) as maps:
        host(torch.randn(1, 3, 4, 4))
    with pytest.raises(UsageError, match="did you mean 'attention'"):
        maps["atention"]
    with foveate.record(nn.ReLU()) as none, pytest.raises(UsageError, match="only models with attention have gates"):
        none["attention"]
    assert "attention" in maps
    assert "atention" not in maps


@pytest.mark.parametrize("kinds", ["spatial", ["spatail"], [3]])
def test_a_kind_that_does_not_exist_is_refused(kinds: Any):
    module = make("spatial", (1, 8, 4, 4), "paper")
    with (
        pytest.raises(UsageError, match="Expected each of kinds as one of 'channel', 'spatial'"),
        foveate.record(module, kinds),
    ):
        pass
    assert hooks(module) == 0


def test_a_site_that_runs_twice_is_recorded_twice():
    module = make("spatial", (1, 8, 4, 4), "paper")
    with foveate.record(module) as maps:
        module(torch.zeros(1, 8, 4, 4))
        module(torch.ones(1, 8, 4, 4))
    assert len(maps.gates) == 2
    last = maps[""].spatial
    assert last is not None
    assert torch.equal(last, maps.gates[1].gate)


def test_recordings_nest_and_kinds_choose():
    module = make("cbam", (1, 8, 4, 4), "paper")
    with foveate.record(module) as outer:
        with foveate.record(module, ["spatial"]) as inner:
            module(torch.randn(1, 8, 4, 4))
        module(torch.randn(1, 8, 4, 4))
    assert [gate.kind for gate in inner.gates] == ["spatial"]
    assert [gate.kind for gate in outer.gates] == ["channel", "spatial"] * 2
    assert hooks(module) == 0


def test_training_mode_and_gradients_do_not_change():
    module = make("cbam", (4, 8, 4, 4), "paper").train()
    x = torch.randn(4, 8, 4, 4, requires_grad=True)
    with foveate.record(module) as maps:
        module(x).sum().backward()
    assert module.training
    assert x.grad is not None
    assert all(gate.gate.grad_fn is None for gate in maps.gates)


def test_a_recording_keeps_no_model_alive():
    module = make("se", (1, 8, 4, 4), "paper")
    with foveate.record(module) as maps:
        module(torch.randn(1, 8, 4, 4))
    gone = weakref.ref(module)
    del module
    gc.collect()
    assert gone() is None
    assert len(maps.gates) == 1


def test_a_compiled_model_is_recorded_too():
    module, x = make("cbam", (1, 8, 4, 4), "paper"), torch.randn(1, 8, 4, 4)
    compiled = torch.compile(module, backend="eager")
    expected = compiled(x)
    with foveate.record(compiled) as maps:  # pyright: ignore[reportArgumentType]
        found = compiled(x)
    assert torch.allclose(expected, found, atol=1e-6)
    with foveate.record(module) as plain:
        module(x)
    assert [gate.name for gate in maps.gates] == [gate.name for gate in plain.gates]
    assert all(torch.equal(one.gate, other.gate) for one, other in zip(maps.gates, plain.gates, strict=True))
    assert hooks(module) == 0
