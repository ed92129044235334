"""A kernel overwrites a site's output only where no other code can hold it, and with the same results."""

import copy
import io
import pickle
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

import foveate
from foveate import kernels
from foveate.bind.torch.attention import Attention
from foveate.errors import UsageError
from foveate.surgery.torch.child import MAKERS, apply_attention
from foveate.torch_utils.names import CHILD
from kernels.cases import DEFAULTS, Layout, draw, watched

pytestmark = pytest.mark.usefixtures("built")

SHAPE = (2, 3, 12, 10)


class Host(nn.Module):
    """Two convolutions with norms; its output is that of the last site."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 16, 3)
        self.bn = nn.BatchNorm2d(16)
        self.again = nn.Conv2d(16, 16, 3, padding=1)
        self.last = nn.BatchNorm2d(16)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.again(self.bn(self.conv(x))))


def attached(
    where: Any = ("bn", "last"), host: Callable[[], nn.Module] = Host, mechanism: str = "cbam", *, inplace: bool = True
) -> nn.Module:
    torch.manual_seed(0)
    model = host()
    sites = list(where) if isinstance(where, tuple) else where
    foveate.attach(model, mechanism, sites, example=SHAPE, start="paper", inplace=inplace)
    return model.eval()


def in_place(model: nn.Module, x: Tensor) -> list[bool]:
    """Return which kernel calls overwrote their input; compare the output with a model that never overwrites.

    The third call, with what the second prepared, must do the same.
    """
    careful = copy.deepcopy(model)
    for module in careful.modules():
        if isinstance(module, Attention):
            module.inplace = False
    with torch.no_grad():
        want = careful(x)
        with watched() as seen:
            assert torch.equal(model(x), want)
        assert torch.equal(model(x), want)
        with watched() as again:
            assert torch.equal(model(x), want)
    overwritten = [name.endswith("inplace") for name in seen]
    assert [name.endswith("inplace") for name in again] == overwritten
    return overwritten


@pytest.mark.parametrize("mechanism", [subject.mechanism for subject in DEFAULTS])
@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_the_outputs_of_norms_are_overwritten(mechanism: str, mode: Callable[[], AbstractContextManager[Any]]) -> None:
    model, x = attached(mechanism=mechanism), draw(*SHAPE)
    assert in_place(model, x) == [True, True]
    with kernels.using("reference"), torch.no_grad():
        want = model(x)
    with mode():
        torch.testing.assert_close(model(x), want)
        torch.testing.assert_close(model(x), want)


def test_weights_that_learn_need_what_they_scaled() -> None:
    model, x = attached(), draw(*SHAPE)
    with watched() as seen:
        model(x).sum().backward()
    assert not [name for name in seen if name.endswith("inplace")]
    assert all(parameter.grad is not None for parameter in model.parameters())


def test_without_gradient_nothing_else_is_needed() -> None:
    model = attached().requires_grad_(False)
    with watched() as seen:
        model(draw(*SHAPE))
    assert [name.endswith("inplace") for name in seen] == [True, True]


def test_batch_statistics_are_computed_beside() -> None:
    model = attached("last").train()
    with torch.no_grad(), watched() as seen:
        model(draw(*SHAPE))
    assert seen == ["channel_spatial full"]


def test_a_flag_turns_it_off() -> None:
    assert in_place(attached(inplace=False), draw(*SHAPE)) == [False, False]
    with pytest.raises(UsageError, match="inplace as True or False"):
        foveate.attach(Host(), "se", inplace=1)  # pyright: ignore[reportArgumentType]


def test_alone_a_module_overwrites_nothing() -> None:
    module, x = foveate.attention("cbam", 16).eval(), draw(2, 16, 6, 5)
    before = x.clone()
    with torch.no_grad():
        module(x)
    assert torch.equal(x, before)


@pytest.mark.parametrize("when", ["before attach", "after attach"])
@pytest.mark.parametrize("prepend", [False, True])
def test_a_hook_keeps_what_it_saw(when: str, prepend: bool) -> None:
    held: list[Tensor] = []
    seen: list[Tensor] = []

    def keep(module: nn.Module, args: Any, output: Tensor) -> None:
        held.append(output)
        seen.append(output.clone())

    def hooked() -> nn.Module:
        host = Host()
        if when == "before attach":
            host.bn.register_forward_hook(keep)
        return host

    model = attached(host=hooked)
    if when == "after attach":
        model.get_submodule("bn").register_forward_hook(keep, prepend=prepend)
    held.clear()
    seen.clear()
    assert in_place(model, draw(*SHAPE)) == [False, True]
    assert all(map(torch.equal, held, seen))


def test_a_hook_on_every_module_keeps_what_it_saw() -> None:
    held: list[tuple[Tensor, Tensor]] = []
    handle = nn.modules.module.register_module_forward_hook(
        lambda module, args, output: held.append((output, output.clone()))
    )
    with handle, torch.no_grad():
        attached()(draw(*SHAPE))
    assert held
    assert all(torch.equal(output, copy) for output, copy in held)


def hook(held: list[Tensor]) -> Callable[..., None]:
    return lambda module, args, *output: held.extend((args[0], args[0].clone()))


@pytest.mark.parametrize("register", ["register_forward_hook", "register_forward_pre_hook"])
def test_a_hook_on_the_attention_keeps_its_input(register: str) -> None:
    model = attached("last")
    held: list[Tensor] = []
    getattr(getattr(model.get_submodule("last"), CHILD), register)(hook(held))
    assert in_place(model, draw(*SHAPE)) == [False]
    assert torch.equal(held[0], held[1])


def test_backward_hooks_on_the_attention_are_called() -> None:
    model = attached("last")
    called: list[int] = []
    getattr(model.get_submodule("last"), CHILD).register_full_backward_hook(lambda *_: called.append(1))
    model(draw(*SHAPE)).sum().backward()
    assert called == [1]


class Keeping(nn.BatchNorm2d):
    """A layer that remembers its output."""

    def forward(self, input: Tensor) -> Tensor:
        self.kept = super().forward(input)
        return self.kept


class Wrapped(nn.Module):
    """A block that returns the output of its norm, and remembers it."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(16)

    def forward(self, x: Tensor) -> Tensor:
        self.kept = self.norm(x)
        return self.kept


class Shortcut(nn.Module):
    """A host that needs its site's input again."""

    def __init__(self, site: nn.Module) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 16, 3)
        self.site = site

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        return x + self.site(x)


@pytest.mark.parametrize(
    "make", [lambda: nn.ReLU(inplace=True), lambda: Keeping(16), Wrapped], ids=["ReLU", "Keeping", "Wrapped"]
)
def test_other_sites_may_give_what_is_not_theirs(make: Callable[[], nn.Module]) -> None:
    assert in_place(attached("site", lambda: Shortcut(make())), draw(*SHAPE)) == [False]


@pytest.mark.parametrize("kind", MAKERS)
@pytest.mark.parametrize("layout", ["nchw", "channels_last"])
@pytest.mark.parametrize("shape", [(2, 4, 6, 5), (1, 4, 1, 3)], ids=str)
@pytest.mark.parametrize("training", [False, True], ids=["eval", "train"])
def test_the_layers_named_makers_make_a_new_tensor(
    kind: type[nn.Module], layout: Layout, shape: tuple[int, ...], training: bool
) -> None:
    layer = kind(2, 4) if kind is nn.GroupNorm else kind(4, 4, 1) if "Conv" in kind.__name__ else kind(4)
    x = draw(*shape, layout=layout)
    x = x.flatten(2) if kind.__name__.endswith("1d") else x.unsqueeze(2) if kind.__name__.endswith("3d") else x
    before = x.clone()
    with torch.no_grad():
        first, second = layer.train(training)(x), layer(x)
        first.fill_(0)
    assert torch.equal(x, before)
    assert second.abs().max() > 0


@pytest.mark.parametrize("make", [nn.Identity, nn.Dropout], ids=["Identity", "Dropout"])
def test_not_even_by_hand_is_what_only_passes_through_overwritten(make: Callable[[], nn.Module]) -> None:
    model = attached("site", lambda: Shortcut(nn.BatchNorm2d(16)))
    site = make().eval()
    site.add_module(CHILD, getattr(model.get_submodule("site"), CHILD))
    site.register_forward_hook(apply_attention)
    model.add_module("site", site)
    assert in_place(model, draw(*SHAPE)) == [False]


def test_the_last_layer_of_a_sequence_is_overwritten_as_a_site_of_its_own() -> None:
    model = attached("site.1", lambda: Shortcut(nn.Sequential(nn.Conv2d(16, 16, 1), nn.BatchNorm2d(16))))
    assert in_place(model, draw(*SHAPE)) == [True]


def test_an_own_forward_may_keep_what_it_gives() -> None:
    model = attached("last")
    last, kept = model.get_submodule("last"), []
    forward = last.forward
    last.forward = lambda x: kept.append(forward(x)) or kept[-1]  # type: ignore[method-assign]
    assert in_place(model, draw(*SHAPE)) == [False]


class Functions(TorchFunctionMode):
    """Keeps the results of functions."""

    def __init__(self) -> None:
        super().__init__()
        self.held: list[tuple[Tensor, Tensor]] = []

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if func is nn.functional.batch_norm:
            self.held.append((result, result.clone()))
        return result


class Operations(TorchDispatchMode):
    """Keeps the results of operations."""

    def __init__(self) -> None:
        super().__init__()
        self.held: list[tuple[Tensor, Tensor]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if "batch_norm" in str(func):
            self.held.append((result[0], result[0].clone()))
        return result


@pytest.mark.parametrize("mode", [Functions, Operations])
def test_a_mode_keeps_what_it_saw(mode: type[Functions | Operations]) -> None:
    model = attached()
    with torch.no_grad(), mode() as watching:
        model(draw(*SHAPE))
    assert len(watching.held) == 2
    assert all(torch.equal(result, copy) for result, copy in watching.held)


class Twice(nn.Module):
    """A host that calls one site twice and adds both results."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 16, 3)
        self.site = nn.BatchNorm2d(16)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        first = self.site(x)
        return first + self.site(x) * x


def test_a_site_that_runs_twice_gives_two_tensors() -> None:
    assert in_place(attached("site", Twice), draw(*SHAPE)) == [True, True]


def test_what_a_host_collects_is_what_it_is_given() -> None:
    model = attached()
    features: list[Tensor] = []
    model.get_submodule("again").register_forward_pre_hook(lambda module, args: features.append(args[0]))
    with torch.no_grad():
        model(draw(*SHAPE))
        with kernels.using("reference"):
            model(draw(*SHAPE))
    torch.testing.assert_close(features[0], features[1])


@pytest.mark.parametrize(
    "copied", [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))], ids=["deepcopy", "pickle"]
)
def test_copies_overwrite_as_the_original_does(copied: Callable[[nn.Module], nn.Module]) -> None:
    assert in_place(copied(attached()), draw(*SHAPE)) == [True, True]
    assert in_place(copied(attached(inplace=False)), draw(*SHAPE)) == [False, False]


def test_it_is_no_part_of_the_state(tmp_path: Any) -> None:
    model = attached(inplace=False)
    buffer = io.BytesIO()
    torch.save(model.state_dict(), buffer)
    assert attached().state_dict().keys() == model.state_dict().keys()
    foveate.save_adapter(model, tmp_path / "a.safetensors")
    torch.manual_seed(0)
    other = Host().eval()
    foveate.load_adapter(other, tmp_path / "a.safetensors", example=SHAPE)
    assert in_place(other, draw(*SHAPE)) == [True, True]


def test_recorded_gates_are_of_the_features_as_they_came() -> None:
    model, x = attached("last"), draw(*SHAPE)
    with torch.no_grad():
        y = model(x)
        with foveate.record(model) as maps:
            torch.testing.assert_close(model(x), y)
    assert {recorded.kind for recorded in maps.gates} == {"channel", "spatial"}


def test_autograd_notices_what_was_overwritten() -> None:
    module, x, weight = foveate.attention("se", 16).eval(), draw(2, 16, 4, 4), draw(2, 16, 4, 4).requires_grad_()
    total = (weight * x).sum()
    with torch.no_grad(), watched() as seen:
        module.overwrite(x)
    assert seen == ["channel_spatial inplace"]
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        total.backward()
