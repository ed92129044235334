"""A site's next call takes the prepared operation, and the long way after each change that could matter."""

import copy
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.utils.flop_counter import FlopCounterMode

import foveate
from foveate import kernels
from foveate.bind.torch.attention import Attention
from foveate.kernels import ops
from foveate.kernels.finish import Activation
from foveate.kernels.prepared import PreparedOperation
from foveate.surgery.torch.inference import Finished
from foveate.torch_utils.names import CHILD
from kernels.cases import DEFAULTS, draw, watched
from kernels.test_inplace import Functions, Operations
from kernels.test_layer_reading import CHANGES, NAMES, module

pytestmark = pytest.mark.usefixtures("built")

CHANNELS = 24


class Site(nn.Module):
    """A norm with attention on its output."""

    def __init__(self, mechanism: str = "se"):
        super().__init__()
        self.holder = nn.BatchNorm2d(CHANNELS)
        foveate.attach(self, mechanism, ["holder"], example=(1, CHANNELS, 6, 5), start="paper")
        exchange(self, module(mechanism))
        self.eval().requires_grad_(False)

    def forward(self, x: Tensor) -> Tensor:
        return self.holder(x)


class Block(nn.Module):
    """A baked block: SiLU, attention, the addition of a shortcut, ReLU."""

    def __init__(self, mechanism: str = "se"):
        super().__init__()
        self.holder = Finished(module(mechanism), Activation("relu"), Activation("silu"))
        self.eval().requires_grad_(False)

    def forward(self, x: Tensor) -> Tensor:
        return self.holder(x.clone(), x / 2)


def attention_of(model: nn.Module) -> Attention:
    return model.get_submodule("holder")._modules[CHILD]  # pyright: ignore[reportReturnType]


def exchange(model: nn.Module, given: Attention) -> None:
    given.inplace = True
    model.get_submodule("holder")._modules[CHILD] = given


TOLERANCE: dict[torch.dtype, Any] = {torch.float32: {}, torch.bfloat16: {"rtol": 0.02, "atol": 0.02}}
HOSTS = pytest.mark.parametrize("host", [Site, Block])


def example() -> Tensor:
    return draw(2, CHANNELS, 6, 5)


def ready(model: nn.Module, x: Tensor | None = None) -> nn.Module:
    """Return the model after three calls, the third of which was prepared."""
    x = example() if x is None else x
    with torch.no_grad():
        model(x)
        model(x)
        assert ran(model, x) == "prepared"
    return model


def ran(model: nn.Module, x: Tensor) -> str:
    """Run the model; return "prepared", the name of the operation of the long way, or "" for plain operations."""
    with watched() as seen:
        model(x)
    assert len(seen) < 2
    return seen[0].split()[0] if seen else ""


@HOSTS
@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
@pytest.mark.parametrize("subject", DEFAULTS, ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_the_third_call_is_prepared(host: type[Any], subject: Any, mode: Callable[[], Any], dtype: torch.dtype) -> None:
    if subject.mechanism == "residual_cbam":
        pytest.skip("its inner CBAM has the kernel")
    if subject.mechanism == "gather_excite" and dtype is torch.bfloat16:
        pytest.skip("its weight, a float32 one, is of another type than the map")
    model, x = host(subject.mechanism).to(dtype), example().to(dtype)
    with kernels.using("reference"), torch.no_grad():
        want = model(x)
    with mode():
        long = model(x)
        assert torch.equal(model(x), long)
        with watched() as seen:
            y = model(x)
            version = None if y.is_inference() else y._version
    assert seen == ["prepared inplace"]
    assert torch.equal(y, long)
    torch.testing.assert_close(y, want, **TOLERANCE[dtype])
    assert version is None or version > 0, "autograd would not notice that it was overwritten"


@HOSTS
@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
@pytest.mark.parametrize("name", NAMES)
def test_a_change_of_the_attention_is_seen(host: type[Any], name: str, change: Callable[..., Attention]) -> None:
    model, x = ready(host(name)), example()
    exchange(model, change(attention_of(model)))
    fresh = copy.deepcopy(model)
    with torch.no_grad():
        y = model(x)
        with kernels.using("reference"):
            want = fresh(x)
    torch.testing.assert_close(y, want)


@contextmanager
def global_hook() -> Iterator[None]:
    with nn.modules.module.register_module_forward_hook(lambda *_: None):
        yield


MODES: dict[str, Callable[[], AbstractContextManager[Any]]] = {
    "gradients": torch.enable_grad,
    "the reference": lambda: kernels.using("reference"),
    "required kernels": lambda: kernels.using("cpu"),
    "a hook on every module": global_hook,
    "counted operations": lambda: FlopCounterMode(display=False),
    "a mode of operations": Operations,
    "a mode of functions": Functions,
    "forward-mode differentiation": forward_ad.dual_level,
}


@HOSTS
@pytest.mark.parametrize("mode", MODES)
def test_the_long_way_decides_under(host: type[Any], mode: str) -> None:
    model, x = ready(host()), example()
    with torch.no_grad():
        want = model(x)
        with MODES[mode]():
            assert ran(model, x) != "prepared"
            torch.testing.assert_close(model(x), want)
        assert ran(model, x) == "prepared"


@HOSTS
def test_transforms_tracing_and_compilers_take_the_long_way(host: type[Any]) -> None:
    model, x = ready(host()), example()
    with torch.no_grad():
        want = model(x)
        with watched() as seen:
            mapped = torch.func.vmap(model)(x[None])[0]
            program: Any = torch.export.export(copy.deepcopy(model), (x,))
        compiled = torch.compile(model, backend="aot_eager", fullgraph=True)(x)
    assert "prepared inplace" not in seen
    for y in (mapped, program.module()(x), compiled):
        torch.testing.assert_close(y, want)


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::torch.jit.TracerWarning")
def test_a_traced_model_has_no_prepared_operation() -> None:
    model, x = ready(Site()), example()
    with torch.no_grad():
        traced: Any = torch.jit.trace(model, (x,), check_trace=False)
    assert "prepared_" not in str(traced.inlined_graph)
    torch.testing.assert_close(traced(x), model(x))


class Kept(Tensor):
    """A tensor of a user."""


CHANGED_SITES: dict[str, Callable[[Any, Any], object]] = {
    "another hook": lambda site, attention: site.register_forward_hook(lambda *_: None),
    "an own forward": lambda site, attention: setattr(site, "forward", site.forward),
    "another class": lambda site, attention: setattr(site, "__class__", type("Own", (nn.BatchNorm2d,), {})),
    "a hook on the attention": lambda site, attention: attention.register_forward_hook(lambda *_: None),
    "a hook on a layer": lambda site, attention: attention.reduce.register_forward_hook(lambda *_: None),
    "an own forward of the attention": lambda site, attention: setattr(attention, "forward", attention.forward),
    "not in place": lambda site, attention: setattr(attention, "inplace", False),
}


@pytest.mark.parametrize("change", CHANGED_SITES)
def test_a_changed_site_takes_the_long_way(change: str) -> None:
    model, x = ready(Site()), example()
    with torch.no_grad():
        want = model(x)
        CHANGED_SITES[change](model.get_submodule("holder"), attention_of(model))
        for _ in range(2):  # the first may not prepare it again
            assert ran(model, x) != "prepared"
        torch.testing.assert_close(model(x), want)


@HOSTS
def test_another_map_takes_the_long_way(host: type[Any]) -> None:
    model = ready(host())
    with torch.no_grad():
        assert ran(model, example().as_subclass(Kept)) != "prepared"
        assert ran(model.double(), example().double()) != "prepared"
        model.float()
        attention, values = attention_of(model), [draw(2, *shape) for shape in ((CHANNELS, 3, 7), (CHANNELS, 9, 2))]
        prepared = PreparedOperation(attention, CHANNELS, torch.float32)
        assert all(prepared.run(x.clone()) for x in values), "other sizes are the same operation"
        for x in (draw(2, 20, 6, 5), values[0][:, :, :0], values[0].bfloat16(), values[0][0]):
            kept = x.clone()
            assert not prepared.run(x)
            assert torch.equal(x, kept)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(ops, "run_prepared", lambda *_: pytest.fail("an error that is caught takes time"))
            assert not prepared.run(values[0].to("meta"))


def test_a_shortcut_that_is_broadcast_takes_the_long_way() -> None:
    x, model = example(), ready(Block())
    finished: Any = model.get_submodule("holder")
    with torch.no_grad():
        for shortcut in (x[:1], x[:, :, :1], x.double(), x.as_subclass(Kept)):
            given = x.clone()
            with watched() as seen:
                y = finished(given, shortcut)
            assert not [name for name in seen if name.startswith("prepared")]
            activated = torch.relu(finished._modules[CHILD](nn.functional.silu(x)) + shortcut)
            torch.testing.assert_close(y, activated, check_dtype=False)


def test_other_activations_of_a_block_are_seen() -> None:
    x, model = example(), ready(Block())
    finished: Any = model.get_submodule("holder")
    with torch.no_grad():
        for name, activation in (("activation", Activation("relu6")), ("before", Activation("leaky_relu", 0.3))):
            setattr(finished, name, activation)
            first, second = model(x), model(x)
            want = finished.activation(finished._modules[CHILD](finished.before(x)) + x / 2)
            torch.testing.assert_close(first, want)
            torch.testing.assert_close(second, want)
