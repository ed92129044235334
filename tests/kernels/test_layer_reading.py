"""What was read from a module's layers is used again, and read anew after each change of the layers."""

import copy
import gc
import io
import pickle
import weakref
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from foveate import kernels
from foveate.bind.torch.attention import Attention
from foveate.kernels import layer_reading, table
from foveate.kernels.dispatch import TORCH
from kernels.cases import Subject, draw, watched

pytestmark = pytest.mark.usefixtures("built")

NAMES = ("se", "eca", "cbam", "coordinate", "srm", "gct", "scse")


def module(name: str, seed: int = 7) -> Attention:
    options = {"reduction": 2} if name in ("se", "cbam") else {}  # 12 hidden units
    return Subject(name, options).module(24, seed=seed).eval().requires_grad_(False)


def layers(module: nn.Module, kind: type[nn.Module]) -> list[Any]:
    return [layer for layer in module.modules() if isinstance(layer, kind)]


def new_parameters(given: Attention) -> Attention:
    for layer in given.modules():
        for name, value in layer.named_parameters(recurse=False):
            setattr(layer, name, nn.Parameter(value * 1.5, requires_grad=False))
    return given


def new_data(given: Attention) -> Attention:
    for value in given.parameters():
        value.data = value.data * 1.5
    return given


def in_place(given: Attention) -> Attention:
    for value in given.parameters():
        value.mul_(1.5)
    return given


def assigned(given: Attention) -> Attention:
    other = {name: value * 1.5 if value.is_floating_point() else value for name, value in given.state_dict().items()}
    given.load_state_dict(other, assign=True)
    return given


def there_and_back(given: Attention) -> Attention:
    return in_place(given.double()).float()


def new_children(given: Attention) -> Attention:
    other = module(given.mechanism.name, seed=8)
    for name, child in other.named_children():
        setattr(given, name, child)
    return given


def new_layers(given: Attention) -> Attention:
    other = dict(module(given.mechanism.name, seed=8).named_modules())
    for parent in list(given.modules()):
        for name, child in list(parent.named_children()):
            if not any(child.children()):
                path = next(path for path, found in given.named_modules() if found is child)
                setattr(parent, name, other[path])
    return given


def fewer_hidden(given: Attention) -> Attention:
    """Remove hidden units as tools for pruning do, which leave the same parameters with a part of their memory."""
    for first, second in (("reduce", "expand"), ("channel.reduce", "channel.expand")):
        try:
            reduce, expand = given.get_submodule(first), given.get_submodule(second)
        except AttributeError:
            continue
        half = reduce.weight.shape[0] // 2 or 1  # pyright: ignore[reportIndexIssue, reportAttributeAccessIssue]
        for value in reduce.parameters():
            value.data = value.data[:half]
        expand.weight.data = expand.weight.data[:, :half]  # pyright: ignore[reportIndexIssue, reportAttributeAccessIssue, reportCallIssue, reportArgumentType]
    return given


def other_scale(given: Attention) -> Attention:
    for gate in [layer for layer in given.modules() if type(layer).__name__ == "Gate"]:
        gate.scale = 0.5  # pyright: ignore[reportArgumentType]
    return given


def other_eps(given: Attention) -> Attention:
    for norm in layers(given, nn.BatchNorm2d):
        norm.eps = 0.7
    return given


def new_statistics(given: Attention) -> Attention:
    for norm in layers(given, nn.BatchNorm2d):
        norm.running_mean, norm.running_var = norm.running_mean + 0.5, norm.running_var * 2
    return given


def training(given: Attention) -> Attention:
    return given.train()


def deep_copy(given: Attention) -> Attention:
    return in_place(copy.deepcopy(given))


def shallow_copy(given: Attention) -> Attention:
    return new_parameters(copy.copy(given))


def replica(given: Attention) -> Attention:
    """Copy as data parallelism does: other children under the same attributes."""
    other = copy.copy(given)
    other.__dict__["_modules"] = dict(module(given.mechanism.name, seed=8)._modules)
    return other


def pickled(given: Attention) -> Attention:
    return in_place(pickle.loads(pickle.dumps(given)))


def saved(given: Attention) -> Attention:
    file = io.BytesIO()
    torch.save(given, file)
    file.seek(0)
    return in_place(torch.load(file, weights_only=False))


class Twice(nn.Conv2d):
    """A layer of a user."""

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        return 2 * super().forward(input)


class Noted(torch.Tensor):
    """A tensor of a user."""


class Incomparable:
    """An object of a user."""

    __hash__ = object.__hash__

    def __eq__(self, other: object) -> bool:
        raise TypeError


CHANGES = [
    *(new_parameters, new_data, in_place, assigned, there_and_back, new_children, new_layers, fewer_hidden),
    *(other_scale, other_eps, new_statistics, training, deep_copy, shallow_copy, replica, pickled, saved),
]


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
@pytest.mark.parametrize("name", NAMES)
def test_a_change_is_seen_by_the_next_call(name: str, change: Callable[[Attention], Attention]) -> None:
    given, x = module(name), draw(2, 24, 6, 5)
    before = given(x)
    changed = change(given)
    fresh = copy.deepcopy(changed)
    with watched() as seen:
        y = changed(x)
    assert len(seen) == 1
    with kernels.using("reference"):
        want = fresh(x)
    torch.testing.assert_close(y, want)
    if _reaches(change, changed):  # so that the result of an old reading would be another
        assert (before - want).abs().max() > 1e-3


def _reaches(change: Callable[[Attention], Attention], given: Attention) -> bool:
    """Return whether a change reaches anything in this mechanism."""
    norms = layers(given, nn.BatchNorm2d)
    if change in (other_eps, new_statistics, training):
        return bool(norms)
    if change is fewer_hidden:
        return any(name.endswith("reduce") for name, _ in given.named_modules())
    return True


@pytest.mark.parametrize("name", NAMES)
def test_an_unchanged_module_is_read_once(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    given, x = module(name), draw(2, 24, 6, 5)
    want = given(x)
    monkeypatch.setattr(table, "work", lambda *_: pytest.fail("read again"))
    assert torch.equal(given(x), want)


def test_a_tensor_as_an_attribute_of_a_layer_is_a_change() -> None:
    given = module("se")
    layer = given.get_submodule("reduce")
    layer.note = torch.ones(3)
    first, _ = layer_reading.read(given.mechanism, given)
    assert layer_reading.read(given.mechanism, given)[0] is first
    layer.note = torch.ones(3)
    again, _ = layer_reading.read(given.mechanism, given)
    assert again is not first
    assert again.args == table.work(given.mechanism, given, TORCH).args


def test_a_new_class_of_a_layer_or_a_tensor_is_seen() -> None:
    given, x = module("se"), draw(2, 24, 6, 5)
    before = given(x)
    layer: Any = given.get_submodule("expand")
    layer.__class__ = Twice
    assert kernels.why_not(given, x) == "a Twice instead of a Conv2d"
    assert not torch.allclose(given(x), before)
    layer.__class__ = nn.Conv2d
    assert kernels.why_not(given, x) is None
    assert torch.equal(given(x), before)
    torch.utils.swap_tensors(layer.weight, nn.Parameter(layer.weight.detach().as_subclass(Noted), False))
    assert kernels.why_not(given, x) == "weights that are not plain tensors"


def test_an_attribute_that_cannot_be_compared_is_a_change() -> None:
    given, x = module("se"), draw(2, 24, 6, 5)
    layer: Any = given.get_submodule("expand")
    layer.note = Incomparable()
    before = given(x)
    layer.note = Incomparable()
    assert torch.equal(given(x), before)


def test_weights_of_a_graph_are_not_kept() -> None:
    given, x = module("se"), draw(2, 24, 6, 5)
    fast = {name: (value.detach().requires_grad_() * 2) for name, value in given.named_parameters()}
    alive = [weakref.ref(value) for value in fast.values()]
    torch.func.functional_call(given, fast, (x,))
    del fast
    gc.collect()
    assert [reference() for reference in alive] == [None] * len(alive)
