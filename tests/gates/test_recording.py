import copy
import gc
import weakref
from typing import Any

import pytest
import torch
from torch import nn

import foveate
from foveate import parts
from foveate.bind.torch.attention import Attention
from foveate.bind.torch.parts import Gate
from foveate.errors import UsageError
from foveate.facts import facts
from foveate.gates.kinds import KINDS, PAIRS
from foveate.mechanisms import names
from foveate.parts import flat
from subjects import Subject

GATED = [name for name in names() if facts(name).get("gates")]
ACTIVATIONS = {
    "sigmoid": torch.sigmoid,
    "tanh": torch.tanh,
    "hard_sigmoid": lambda z: (z + 3).clamp(0, 6) / 6,
    "linear": lambda z: z,
}
SIZES = [(1, 1, 1, 1), (2, 1, 5, 7), (3, 2, 8, 8), (1, 4, 3, 11)]  # batch, times the channels, height, width
SIDES = {"channel": (1, 1), "spatial": (-1, -1), "row": (-1, 1), "column": (1, -1), "full": (-1, -1)}


def hooks(model: nn.Module) -> int:
    return sum(len(module._forward_hooks) + len(module._forward_pre_hooks) for module in model.modules())


def make(name: str, start: str, times: int = 1) -> Attention:
    """Return the module with random weights for `times` the channels of its tests."""
    subject = Subject(name)
    if start == "identity":
        subject.module(start=start)  # skips a mechanism that has none
    module = foveate.attention(subject.made, times * subject.channels, start=start)  # pyright: ignore[reportArgumentType, reportCallIssue]
    for parameter in module.parameters():
        nn.init.normal_(parameter, std=0.5)
    return module.eval()


def drawn(name: str, n: int, times: int, h: int, w: int) -> list[torch.Tensor]:
    """Return random inputs of the module."""
    x, *context = Subject(name).inputs(n, h, w)
    return [torch.cat([x] * times, 1), *context]


class Host(nn.Module):
    def __init__(self, name: str):
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.attention = foveate.attention(Subject(name).made, 8)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.attention(self.stem(x))


@pytest.mark.parametrize("start", ["paper", "identity"])
@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("name", GATED)
@pytest.mark.reliability(25)
def test_captured_gates_are_the_recomputed_ones(name: str, size: tuple[int, int, int, int], start: str):
    module, inputs = make(name, start, size[1]), drawn(name, *size)
    features: dict[str, list[torch.Tensor]] = {}
    spies = [
        gate.register_forward_hook(lambda _, inputs, output, key=key: features.update({key: [*inputs, output]}))
        for key, gate in module.named_modules()
        if isinstance(gate, Gate)
    ]
    with foveate.record(module) as maps:
        module(*inputs)
    for spy in spies:
        spy.remove()
    gates = [recorded for recorded in maps.gates if recorded.kind not in PAIRS]
    assert sorted(recorded.kind for recorded in gates) == sorted(facts(name)["gates"])
    shape = Subject(name).kept(inputs).shape
    for recorded in gates:
        into, logits, out = features[recorded.name]
        gate = module.get_submodule(recorded.name)
        assert isinstance(gate, Gate)
        part = flat(module.mechanism.parts(module.channels))[recorded.name]
        assert isinstance(part, parts.Gate)
        one = gate.offset + ACTIVATIONS[gate.activation](torch.tensor(part.first))
        assert gate.scale == (1 / one if start == "identity" and one and not part.published else 1)
        expected = gate.scale * (gate.offset + ACTIVATIONS[gate.activation](logits))
        assert len(recorded.gate) == shape[0]
        found = recorded.gate.reshape(expected.shape)
        assert torch.allclose(found, expected.detach(), atol=1e-6)
        assert torch.allclose(into * found, out, atol=1e-6)
        assert recorded.size == shape[2:]
        wanted = [side if side > 0 else shape[2 + k] for k, side in enumerate(SIDES[recorded.kind])]
        assert list(recorded.gate.shape[2:]) == wanted
        assert not recorded.gate.requires_grad
    assert hooks(module) == 0


@pytest.mark.parametrize("name", GATED)
@pytest.mark.reliability(25)
def test_recording_changes_nothing_and_removes_its_hooks(name: str):
    module, inputs = make(name, "paper"), drawn(name, 2, 1, 5, 7)
    before = module(*inputs)
    with foveate.record(module):
        during = module(*inputs)
    torch.testing.assert_close(during, before)  # not equal: recorded gates run as plain operations, others by kernels
    assert torch.equal(before, module(*inputs))
    assert hooks(module) == 0


@pytest.mark.reliability(25)
def test_hooks_are_gone_after_an_exception():
    module = make("cbam", "paper")
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
    module = make("spatial", "paper")
    with (
        pytest.raises(UsageError, match="Expected each of kinds as one of 'channel', 'spatial'"),
        foveate.record(module, kinds),
    ):
        pass
    assert hooks(module) == 0


def test_a_site_that_runs_twice_is_recorded_twice():
    module = make("spatial", "paper")
    with foveate.record(module) as maps:
        module(torch.zeros(1, 8, 4, 4))
        module(torch.ones(1, 8, 4, 4))
    assert len(maps.gates) == 2
    last = maps[""].spatial
    assert last is not None
    assert torch.equal(last, maps.gates[1].gate)


def test_recordings_nest_and_kinds_choose():
    module = make("cbam", "paper")
    with foveate.record(module) as outer:
        with foveate.record(module, ["spatial"]) as inner:
            module(torch.randn(1, 8, 4, 4))
        module(torch.randn(1, 8, 4, 4))
    assert [gate.kind for gate in inner.gates] == ["spatial"]
    assert [gate.kind for gate in outer.gates] == ["channel", "spatial"] * 2
    assert hooks(module) == 0


def test_training_mode_and_gradients_do_not_change():
    module = make("cbam", "paper").train()
    x = torch.randn(4, 8, 4, 4, requires_grad=True)
    with foveate.record(module) as maps:
        module(x).sum().backward()
    assert module.training
    assert x.grad is not None
    assert all(gate.gate.grad_fn is None for gate in maps.gates)


def test_a_recording_keeps_no_model_alive():
    module = make("se", "paper")
    with foveate.record(module) as maps:
        module(torch.randn(1, 8, 4, 4))
    gone = weakref.ref(module)
    del module
    gc.collect()
    assert gone() is None
    assert len(maps.gates) == 1


def test_a_compiled_model_is_recorded_too():
    module, x = make("cbam", "paper"), torch.randn(1, 8, 4, 4)
    compiled = torch.compile(module, backend="eager")
    expected = compiled(x)
    gates: Any = ("channel", "spatial")
    with foveate.record(compiled, gates) as maps:  # pyright: ignore[reportArgumentType]
        found = compiled(x)
    assert torch.allclose(expected, found, atol=1e-6)
    with foveate.record(module) as plain:
        module(x)
    assert [gate.name for gate in maps.gates] == [gate.name for gate in plain.gates]
    assert all(torch.equal(one.gate, other.gate) for one, other in zip(maps.gates, plain.gates, strict=True))
    assert hooks(module) == 0


def test_a_function_compiled_around_the_model_is_recorded_too():
    module, x = make("cbam", "paper"), torch.randn(1, 8, 4, 4)
    compiled = torch.compile(lambda x: module(x) + 1, backend="eager")
    compiled(x)
    every: Any = (["channel", "spatial"], KINDS)
    for kinds in every:
        with foveate.record(module, kinds) as maps:
            compiled(x)
        assert [gate.kind for gate in maps.gates] == ["channel", "spatial"]


def test_data_parallel_models_run_undivided_and_keep_the_names_of_their_sites():
    module = make("cbam", "paper")
    parallel = nn.DataParallel(nn.Sequential(module))
    parallel.device_ids = [0, 1]  # no device is asked, as the batch is not divided
    with foveate.record(parallel) as maps:
        assert parallel.device_ids == [0]
        parallel.module(torch.randn(4, 8, 4, 4))
    assert parallel.device_ids == [0, 1]
    assert list(maps) == ["0"]
    assert hooks(parallel) == 0


def test_each_process_of_a_distributed_model_records_its_part():
    module = make("cbam", "paper")
    store = torch.distributed.HashStore()  # pyright: ignore[reportPrivateImportUsage]
    torch.distributed.init_process_group("gloo", store=store, rank=0, world_size=1)
    try:
        distributed = nn.parallel.DistributedDataParallel(nn.Sequential(module))
        with foveate.record(distributed) as maps:
            distributed(torch.randn(4, 8, 4, 4)).sum().backward()
    finally:
        torch.distributed.destroy_process_group()
    assert [(gate.site, gate.kind) for gate in maps.gates] == [("0", "channel"), ("0", "spatial")]
    assert hooks(distributed) == 0


def test_gates_beyond_the_limit_are_refused_before_they_are_kept():
    module, x = make("spatial", "paper"), torch.randn(1, 8, 16, 16)
    with foveate.record(module, max_bytes=2500) as maps:
        module(x)
        module(x)
        with pytest.raises(UsageError, match="at most 0 MiB"):
            module(x)
    assert len(maps.gates) == 2
    assert maps.held == 2 * 16 * 16 * 4
    assert hooks(module) == 0
    with foveate.record(module, max_bytes=None) as maps:
        module(x)
    assert len(maps.gates) == 1


def test_the_calls_of_a_model_are_told_apart():
    host = Host("cbam")
    with foveate.record(host) as maps:
        for size in (4, 6):
            host(torch.randn(2, 3, size, size))
    assert [len(one.gates) for one in maps.calls()] == [2, 2]
    assert [one.gates[1].size for one in maps.calls()] == [(4, 4), (6, 6)]


def test_a_copy_made_inside_the_block_records_nothing_afterwards():
    module, x = make("cbam", "paper"), torch.randn(1, 8, 4, 4)
    with foveate.record(module) as maps:
        twin = copy.deepcopy(module)
    twin(x)
    assert maps.gates == []


@pytest.mark.parametrize(
    ("activation", "scale", "offset", "limits"),
    [("sigmoid", 2, 0, (0, 2)), ("hard_sigmoid", 1, 0.5, (0.5, 1.5)), ("tanh", -1, 1, (-2, 0)), ("linear", 1, 0, None)],
)
def test_the_limits_of_a_gate_are_those_of_its_activation(activation: Any, scale: float, offset: float, limits: Any):
    gate = Gate("spatial", scale, activation, offset)
    with foveate.record(gate) as maps:
        gate(torch.ones(1, 2, 3, 3), torch.zeros(1, 1, 3, 3))
    assert maps.gates[0].limits == limits
