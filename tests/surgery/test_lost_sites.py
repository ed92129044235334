"""A model names the sites that lost their attention, keeps its frozen norms, and its compiled code follows."""

import copy
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import foveate
from foveate.errors import HostMovedWarning, UsageError
from foveate.surgery.torch import attachment
from last_layers import wake
from surgery import hosts


def normed(model: Any) -> None:
    """Batch norms replaced for small batches."""
    for block in model.layer2:
        block.bn2 = nn.GroupNorm(4, 16)


def folded(model: Any) -> None:
    """What fuse(), mmcv's fuse_conv_bn and exporters do."""
    for block in model.layer2:
        block.conv2 = nn.utils.fusion.fuse_conv_bn_eval(block.conv2, block.bn2)
        block.bn2 = nn.Identity()


def cut(model: Any) -> None:
    model.layer2 = nn.Conv2d(8, 16, 1)


LOSSES = [(normed, "is a GroupNorm without it"), (folded, "is a Identity without it"), (cut, "is gone")]
ACTS: list[Callable[[Any], Any]] = [
    lambda model: model(hosts.image()),
    lambda model: foveate.save_adapter(model, "never-written"),
    lambda model: foveate.record(model).__enter__(),
    foveate.freeze_host,
    foveate.attention_parameters,
    foveate.host_state_dict,
    lambda model: foveate.bake(model, example=hosts.SHAPE),
    lambda model: nn.Sequential(model)(hosts.image()),
    lambda model: copy.deepcopy(model)(hosts.image()),
    lambda model: pickle.loads(pickle.dumps(model))(hosts.image()),
]


@pytest.mark.parametrize("act", ACTS)
@pytest.mark.parametrize(("lose", "now"), LOSSES)
@pytest.mark.reliability(31)
def test_what_is_missing_is_named(lose: Callable[[Any], None], now: str, act: Callable[[Any], Any]) -> None:
    model = hosts.attached()
    lose(model)
    with pytest.raises(UsageError) as caught:
        act(model)
    assert "attention at 4 sites" in caught.value.expected
    assert f"attention at 2 sites: 'layer2.0.bn2' {now}, 'layer2.1.bn2' {now}" in caught.value.received
    assert not Path("never-written").exists()


def test_a_module_that_took_over_the_child_without_the_hook_is_named() -> None:
    model = nn.SyncBatchNorm.convert_sync_batchnorm(hosts.attached()).eval()
    with pytest.raises(UsageError, match="is a SyncBatchNorm without it"):
        model(hosts.image())


def test_what_was_cut_off_on_purpose_is_forgotten_by_detach() -> None:
    model = hosts.attached()
    cut(model)
    with pytest.raises(UsageError, match=r"Received 'layer3\.\*'"):
        foveate.detach(model, "layer3.*")
    foveate.detach(model, "layer2.*")
    assert len(list(foveate.attention_parameters(model))) > 0
    model(hosts.image())
    foveate.detach(model)
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


def test_detach_takes_off_some_sites_or_those_of_a_part() -> None:
    model: Any = hosts.attached()
    foveate.detach(model, ["layer1.0.bn2"])
    with foveate.record(model) as maps:
        model(hosts.image())
    assert list(maps) == ["layer1.1.bn2", "layer2.0.bn2", "layer2.1.bn2"]
    foveate.detach(model.layer2)
    with foveate.record(model) as maps:
        model(hosts.image())
    assert list(maps) == ["layer1.1.bn2"]


def test_wrappers_that_came_since_are_looked_through() -> None:
    model: Any = hosts.attached()
    model.layer1[0] = torch.compile(model.layer1[0], backend="eager")
    model.layer2[0].bn2 = nn.Sequential(model.layer2[0].bn2)
    hosts.run(model, hosts.image())
    assert len(list(foveate.attention_parameters(model))) > 0


def test_attaching_twice_and_to_a_part() -> None:
    model: Any = hosts.attached()
    foveate.attach(model.stem, "se", "1", example=(1, 3, 8, 8), reduction=2)
    foveate.attach(model, "eca", "layer1.0.bn1", example=hosts.SHAPE)
    model.stem[1], model.layer1[0].bn1 = nn.Identity(), nn.Identity()
    with pytest.raises(UsageError, match=r"at 5 sites[\s\S]*'layer1\.0\.bn1' is a Identity"):
        model(hosts.image())
    foveate.detach(model, "layer1.0.bn1")
    with pytest.raises(UsageError, match=r"at 1 site,[\s\S]*at 0 sites: '1' is a Identity"):
        model(hosts.image())
    with pytest.raises(UsageError, match=r"'stem\.1' is a Identity"):
        foveate.attention_parameters(model)


def test_a_model_compiled_and_run_before_follows_what_is_attached_and_taken_off() -> None:
    model = hosts.settle(hosts.ResNet())
    fast, x = torch.compile(model, backend="eager"), hosts.image()
    step = torch.compile(lambda x: model(x) + 1, backend="eager")
    host = hosts.run(fast, x)
    hosts.run(step, x)
    foveate.attach(model, "se", example=hosts.SHAPE, start="paper", reduction=2)
    want = hosts.run(model, x)
    assert (want - host).abs().max() > 0.01
    torch.testing.assert_close(hosts.run(fast, x), want, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(hosts.run(step, x), want + 1, rtol=1e-5, atol=1e-6)
    foveate.detach(model)
    torch.testing.assert_close(hosts.run(fast, x), host, rtol=1e-5, atol=1e-6)
    torch.compiler.reset()


@pytest.mark.filterwarnings("error::foveate.errors.HostMovedWarning")
def test_the_norms_of_a_frozen_host_stay_still_whatever_is_called(tmp_path: Path) -> None:
    """A hand-written loop calls train() at each epoch; host and adapter must be the model afterwards."""
    host, model = hosts.trained_resnet(), hosts.trained_resnet()
    foveate.attach(model, "cbam", nn.BatchNorm2d, example=hosts.SHAPE, reduction=2)
    foveate.freeze_host(model)
    model = pickle.loads(pickle.dumps(copy.deepcopy(model)))
    optimiser = torch.optim.SGD(foveate.attention_parameters(model), lr=0.1)
    for epoch in range(2):
        model.eval()
        model.train()
        model(hosts.image() + epoch).square().sum().backward()
        optimiser.step()
    inner: Any = model.get_submodule("layer1.0.bn2.foveate_attention.spatial.norm")
    assert inner.training
    assert inner.num_batches_tracked == 2
    state = foveate.host_state_dict(model)
    assert all(torch.equal(value, state[name]) for name, value in host.state_dict().items())
    foveate.save_adapter(model.eval(), tmp_path / "a")
    foveate.load_adapter(host, tmp_path / "a", example=hosts.SHAPE)
    assert torch.equal(hosts.run(host, hosts.image()), hosts.run(model, hosts.image()))
    assert not torch.equal(hosts.run(host, hosts.image()), hosts.run(hosts.trained_resnet(), hosts.image()))


def test_the_norms_wake_with_their_weights() -> None:
    model: Any = hosts.attached()
    foveate.freeze_host(model)
    model.train()
    assert not model.layer1[0].bn1.training
    model.layer1.requires_grad_(True)
    model.train()
    assert model.layer1[0].bn1.training
    assert not model.layer2[0].bn1.training
    model.eval()
    assert not model.layer1[0].bn1.training


def learn(model: nn.Module) -> None:
    wake(model)
    model.train()(hosts.image() + 1)  # moves the statistics of the norms


def load(model: nn.Module) -> None:
    foveate.load_host_state_dict(model, hosts.trained_resnet().state_dict())


def step(model: Any) -> None:
    with torch.no_grad():
        model.head.weight.add_(1e-4)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda model: None, None),
        (wake, None),
        (load, None),
        (lambda model: model.half().double().float(), "conv"),
        (lambda model: model.bfloat16(), None),
        (learn, "stem.1.running_mean, stem.1.running_var, stem.1.num_batches_tracked"),
        (step, "head.weight. The adapter"),
        (lambda model: (step(model), foveate.freeze_host(model)), None),
    ],
)
def test_an_adapter_says_that_the_host_moved(change: Callable[[Any], Any], says: str | None, tmp_path: Path) -> None:
    model = hosts.attached()
    change(model)
    if says is None:
        foveate.save_adapter(model, tmp_path / "a")
    else:
        with pytest.warns(HostMovedWarning, match=says):
            foveate.save_adapter(copy.deepcopy(model), tmp_path / "a")
    assert (tmp_path / "a").exists()


def test_a_second_attach_does_not_take_a_moved_host_for_the_first(tmp_path: Path) -> None:
    model: Any = hosts.attached()
    step(model)
    foveate.attach(model, "eca", "layer1.0.bn1", example=hosts.SHAPE)
    with pytest.warns(HostMovedWarning, match="head.weight"):
        foveate.save_adapter(model, tmp_path / "a")


def test_a_change_of_one_position_of_all_kernels_is_seen() -> None:
    """A large tensor is sampled, with a step that has no factor in common with the size of its kernels."""
    conv = nn.Conv2d(512, 513, 3, bias=False)
    before = attachment.checksums(conv)
    for row, column in ((0, 0), (0, 1), (1, 1), (2, 2)):
        changed = copy.deepcopy(conv)
        with torch.no_grad():
            changed.weight[:, :, row, column] += 1
        assert attachment.checksums(changed) != before, (row, column)


def test_a_host_with_other_weights_than_the_saved_one_is_named(tmp_path: Path) -> None:
    """In another precision it is not compared; a warning that is an error leaves the model as it was."""
    model, other, adapter = hosts.settle(hosts.ResNet()), hosts.settle(hosts.ResNet()), tmp_path / "adapter.safetensors"
    other.load_state_dict(model.state_dict())
    foveate.attach(model, "eca", "layer1.0.bn2", example=hosts.SHAPE)
    foveate.save_adapter(model, adapter)
    with torch.no_grad():
        other.get_parameter("head.weight")[0, 0] += 1
    seen = hosts.anatomy(other)
    with pytest.raises(HostMovedWarning, match=r"adapter\.safetensors was trained in: head\.weight differ"):
        foveate.load_adapter(other, adapter, example=hosts.SHAPE)
    assert hosts.anatomy(other) == seen
    with pytest.warns(HostMovedWarning) as caught:
        foveate.load_adapter(other, adapter, example=hosts.SHAPE)
    assert len(caught) == 1
    assert caught[0].filename == __file__
    foveate.load_adapter(hosts.ResNet().double(), adapter, example=hosts.SHAPE)
