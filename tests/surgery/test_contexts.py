"""Attention to the map of another site: the right way round, in every tool, and without keeping a map."""

import copy
import gc
import pickle
import weakref
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import foveate
from foveate.errors import UsageError
from last_layers import wake
from surgery import hosts


class Stream(nn.Module):
    def __init__(self, channels: int):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.BatchNorm2d(8), nn.ReLU(inplace=True))
        self.layer = nn.Sequential(nn.Conv2d(8, channels, 3, 2, 1), nn.ReLU(inplace=True))

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(self.stem(x))


class Fuse(nn.Module):
    def forward(self, rgb: Tensor, *, thermal: Tensor) -> Tensor:
        return rgb.mean((2, 3)) + thermal.mean((2, 3)).mean(1, keepdim=True)


class Net(nn.Module):
    """Two encoders of other widths, as for RGB and thermal images; the thermal one runs first."""

    def __init__(self):
        super().__init__()
        self.thermal, self.rgb, self.fuse = Stream(12), Stream(16), Fuse()

    def forward(self, image: Tensor, thermal: Tensor, fail: bool = False) -> Tensor:
        thermal = self.thermal(thermal)
        if fail:
            raise RuntimeError("in between")
        return self.fuse(self.rgb(image), thermal=thermal)


EXAMPLE = (torch.rand(2, 3, 16, 16), torch.rand(2, 3, 24, 24))
IMAGES = tuple(torch.rand(2, 3, 16 + 8 * n, 16 + 8 * n, generator=torch.Generator().manual_seed(n)) for n in (0, 1))


def run(model: Any) -> Tensor:
    with torch.no_grad():
        return model(*IMAGES)


def pair(where: Any = "rgb.layer", context: Any = "thermal.layer", **options: Any) -> tuple[Any, Any, Any]:
    plain = hosts.settle(Net())
    model = copy.deepcopy(plain)
    planned = foveate.attach(model, "cross", where, context=context, example=EXAMPLE, **options)
    assert torch.equal(run(model), run(plain)), "the identity start changes the output"
    wake(model)
    assert not torch.equal(run(model), run(plain))
    return plain, model, planned


def test_the_site_asks_and_the_context_answers() -> None:
    plain, model, planned = pair()
    (site,) = planned.sites
    assert (site.name, site.context, site.shape) == ("rgb.layer.1", "thermal.layer.1", (2, 16, 4, 4))
    assert "rgb.layer.1 <- thermal.layer.1" in str(planned)
    attention = model.rgb.layer[1].foveate_attention
    assert (attention.channels, attention.query.in_channels, attention.key.in_channels) == (12, 16, 12)
    with torch.no_grad():
        thermal, rgb = plain.thermal(IMAGES[1]), plain.rgb(IMAGES[0])
        q, k, v = (part.flatten(2) for part in (attention.query(rgb), attention.key(thermal), attention.value(thermal)))
        weights = torch.softmax(q.transpose(1, 2) @ k / q.shape[1] ** 0.5, -1)
        wanted = plain.fuse(rgb + (v @ weights.transpose(1, 2)).unflatten(2, (4, 4)), thermal=thermal)
        assert (run(model) - wanted).abs().max() < 1e-6
    assert site.cost.parameters == sum(weight.numel() for weight in attention.parameters())
    assert site.cost.macs > 2 * 16 * 36 * (16 + 12), "the pairs of positions of both maps"


def test_the_map_is_the_one_that_the_context_returned() -> None:
    """An activation in place follows the context's norm."""
    plain, model, _ = pair("rgb.layer.0", "thermal.stem.1")
    seen: list[Tensor] = []
    model.rgb.layer[0].foveate_attention.register_forward_pre_hook(lambda _, maps: seen.append(maps[0].clone()))
    run(model)
    with torch.no_grad():
        assert torch.equal(seen[0], plain.thermal.stem[:2](IMAGES[1]))
    assert seen[0].min() < 0


CASES: list[tuple[Any, Any]] = [
    ("rgb.layer", "thermal.layer"),
    (["rgb.stem.1", "rgb.layer.0"], "thermal.stem"),
    (["rgb.stem.1", "rgb.layer.0"], ["thermal.stem.1", "thermal.layer.0"]),
    ("fuse:rgb", "fuse:thermal"),
    (["fuse:rgb", "fuse:thermal"], ["fuse:thermal", "fuse:rgb"]),
    ("fuse:thermal", "rgb.layer:input"),
    ("rgb.layer.0:input", "thermal.layer.0:input"),
]
TOOLS: list[Callable[[Any], Any]] = [
    copy.deepcopy,
    lambda model: pickle.loads(pickle.dumps(model)),
    lambda model: foveate.bake(model, example=EXAMPLE),
    lambda model: copy.deepcopy(foveate.bake(model, example=EXAMPLE)),
    lambda model: torch.fx.symbolic_trace(foveate.bake(model, example=EXAMPLE), concrete_args={"fail": False}),
]
SLOWER: list[Callable[[Any], Any]] = [
    lambda model: torch.compile(model, backend="eager", fullgraph=True),
    lambda model: torch.export.export(model, IMAGES).module(),
    lambda model: torch.compile(foveate.bake(model, example=EXAMPLE), backend="eager", fullgraph=True),
]


@pytest.mark.parametrize(("where", "context"), CASES)
def test_every_tool_keeps_it(where: Any, context: Any, tmp_path: Path) -> None:
    plain, model, planned = pair(where, context)
    wanted = run(model)
    for number, tool in enumerate(TOOLS + (SLOWER if (where, context) == CASES[0] else [])):
        assert (run(tool(model)) - wanted).abs().max() < 1e-6, number
    other = hosts.settle(Net())
    foveate.attach(other, "cross", where, context=context, example=EXAMPLE)
    other.load_state_dict(foveate.attached_state_dict(foveate.bake(model, example=EXAMPLE)), strict=True)
    assert torch.equal(run(other), wanted)
    foveate.save_adapter(model, tmp_path / "adapter")
    again = foveate.load_adapter(plain, tmp_path / "adapter", example=EXAMPLE)
    assert [(site.name, site.context) for site in again.sites] == [(site.name, site.context) for site in planned.sites]
    assert torch.equal(run(plain), wanted)


def test_an_adapter_refuses_hosts_without_its_context(tmp_path: Path) -> None:
    _, model, _ = pair()
    foveate.save_adapter(model, tmp_path / "adapter")
    foveate.detach(model)
    with pytest.raises(UsageError, match=r"the contexts 'thermal\.layer\.1'"):
        foveate.load_adapter(hosts.ResNet(), tmp_path / "adapter", example=hosts.SHAPE)
    swapped = hosts.settle(Net())
    swapped.thermal, swapped.rgb = Stream(12), Stream(12)
    with pytest.raises(UsageError, match=r"context_channels=12, the channels of 'rgb\.layer\.1'"):
        foveate.load_adapter(swapped, tmp_path / "adapter", example=EXAMPLE)


def maps_of(model: nn.Module) -> list[Any]:
    return [link.maps for link in vars(model).get("foveate_links", [])]


def test_no_map_is_kept_after_a_forward_also_one_that_fails() -> None:
    _, model, _ = pair()
    made: list[Any] = []
    model.rgb.layer[1].foveate_attention.register_forward_pre_hook(lambda _, maps: made.append(weakref.ref(maps[0])))
    run(model)
    assert maps_of(model) == [{}]
    with pytest.raises(RuntimeError, match="in between"):
        model(*IMAGES, fail=True)
    assert maps_of(model) == [{}]
    model.thermal(IMAGES[1])
    assert maps_of(model) == [{}], "a part that runs alone leaves nothing"
    gc.collect()
    assert [reference() for reference in made] == [None]


def test_a_site_that_runs_without_its_context_says_so() -> None:
    _, model, _ = pair()
    run(model)
    with pytest.raises(UsageError, match=r"runs 'thermal\.layer\.1', the context, before 'rgb\.layer\.1'"):
        model.rgb(IMAGES[0])


def test_threads_do_not_see_each_others_maps() -> None:
    _, model, _ = pair()
    batches = [tuple(image + 0.1 * n for image in IMAGES) for n in range(8)]
    with torch.no_grad(), ThreadPoolExecutor(4) as pool:
        wanted = [model(*batch) for batch in batches]
        found = list(pool.map(lambda batch: model(*batch), batches * 4))
    assert all(torch.equal(one, other) for one, other in zip(found, wanted * 4, strict=True))


def test_both_streams_and_the_attention_learn() -> None:
    _, model, _ = pair()
    model(*IMAGES).square().sum().backward()
    foveate.freeze_host(model)
    assert all(weight.grad is not None and weight.grad.any() for weight in foveate.attention_parameters(model))
    assert model.thermal.stem[0].weight.grad.any()


@pytest.mark.parametrize(("where", "context"), CASES)
def test_detach_leaves_the_host_as_it_was(where: Any, context: Any) -> None:
    plain, model, planned = pair(where, context)
    if len(planned.sites) > 1:
        foveate.detach(model, planned.sites[0].name)
        assert not torch.equal(run(model), run(plain))
    foveate.detach(model)
    assert torch.equal(run(model), run(plain))
    for module, before in zip(model.modules(), plain.modules(), strict=True):
        assert vars(module).keys() == vars(before).keys()
        for hooks in ("_forward_hooks", "_forward_pre_hooks", "_forward_hooks_always_called"):
            assert not vars(module)[hooks], hooks


def test_attention_at_the_context_comes_first_whatever_the_order() -> None:
    results, plain = [], hosts.settle(Net())
    for first in (True, False):
        model = copy.deepcopy(plain)
        for is_context in (first, not first):
            torch.manual_seed(1)
            if is_context:
                foveate.attach(model, "eca", "thermal.layer.1", example=EXAMPLE)
            else:
                foveate.attach(model, "cross", "rgb.layer.1", context="thermal.layer.1", example=EXAMPLE)
        for name in ("thermal", "rgb"):
            torch.manual_seed(1)
            wake(model.get_submodule(name))
        results.append(run(model))
    assert torch.equal(*results)


REFUSED = [
    ("cross", "thermal.layer", "rgb.layer", {}, r"runs before 'thermal\.layer\.1'[\s\S]*exchange the two"),
    ("cross", "rgb.layer", "rgb.layer", {}, r"the site itself[\s\S]*leave context out"),
    ("cross", ["rgb.stem", "rgb.layer", "fuse:rgb"], ["thermal.stem", "thermal.layer"], {}, "one context for all"),
    ("cross", "rgb.layer", "heat.layer", {}, "'heat.layer', which matches no module"),
    ("cross", "rgb.layer", "fuse", {}, r"the output of 'fuse' as one tensor \(N, C, H, W\)"),
    ("cross", "rgb.layer", "thermal.layer", {"context_channels": 12}, "context_channels=16, the channels of"),
    ("se", "rgb.layer", "thermal.layer", {}, "a mechanism that takes a second map"),
    (lambda channels: nn.Identity(), "rgb.layer", "thermal.layer", {}, "Received a factory"),
]


@pytest.mark.parametrize(("mechanism", "where", "context", "options", "says"), REFUSED)
def test_a_context_that_does_not_fit_is_refused_when_planned(
    mechanism: Any, where: Any, context: Any, options: Any, says: str
) -> None:
    model = hosts.settle(Net())
    for act in (foveate.plan, foveate.attach):
        with pytest.raises(UsageError, match=says):
            act(model, mechanism, where, context=context, example=EXAMPLE, **options)
    assert not any(module._forward_hooks for module in model.modules())


def test_a_context_of_another_batch_is_refused() -> None:
    example = (torch.rand(2, 3, 16, 16), torch.rand(1, 3, 16, 16))
    with pytest.raises(UsageError, match="as many samples"):
        foveate.plan(hosts.settle(Net()), "cross", "rgb.layer", context="thermal.layer", example=example)


def test_without_a_context_a_map_attends_to_itself() -> None:
    model = hosts.settle(Net())
    planned = foveate.attach(model, "cross", "rgb.layer", example=EXAMPLE)
    assert planned.sites[0].context is None
    assert model.get_submodule("rgb.layer.1.foveate_attention.key").in_channels == 16  # pyright: ignore
