"""Where kernels run, where they do not, and the reasons that are given."""

import copy
import logging
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.nn.utils import parametrize, prune

from foveate import kernels
from foveate.bind.torch.attention import Attention
from foveate.bind.torch.parts import Gate
from foveate.experiment.environment import describe_environment
from foveate.kernels import dispatch, ops
from foveate.kernels.dispatch import KernelError
from foveate.mechanisms.se import SE
from kernels.cases import SUBJECTS, Subject, draw, step, watched

pytestmark = pytest.mark.usefixtures("built")


class Picture(Tensor):
    """A subclass of Tensor."""


class OtherConv(nn.Conv2d):
    """A subclass of a layer."""


class OtherSE(SE):
    """A user's mechanism with a name that has a kernel."""

    def forward(self, F: Any, p: Any, x: Any) -> Any:
        return 2 * super().forward(F, p, x)


def module(name: str = "cbam", **options: Any) -> Attention:
    return Subject(name, options).module(24).eval()


def with_layer(path: str, change: Callable[[Any], Any], name: str = "cbam") -> Attention:
    """Return the module with one of its layers replaced by the result of `change`, after a call."""
    changed = module(name)
    changed(draw(2, 24, 6, 5))  # what was read for it must not be used again
    parent, _, child = path.rpartition(".")
    new = change(changed.get_submodule(path))
    if isinstance(new, nn.Module):
        changed.get_submodule(parent)._modules[child] = new
    return changed


def hook(*_: Any) -> None:
    return None


def other_conv(layer: nn.Conv2d) -> nn.Module:
    new = OtherConv(layer.in_channels, layer.out_channels, 1)
    new.load_state_dict(layer.state_dict())
    return new


def without_weights(layer: nn.BatchNorm2d) -> nn.Module:
    return nn.BatchNorm2d(1, affine=False).eval()


def padded_otherwise(layer: nn.Conv2d) -> None:
    layer.padding_mode = "reflect"


def strided(layer: nn.Conv2d) -> None:
    layer.stride = (2, 1)


def own_forward(layer: Any) -> None:
    layer.forward = lambda *args: type(layer).forward(layer, *args)


def other_se() -> Attention:
    other = module("se")
    other(draw(2, 24, 6, 5))
    other.mechanism = OtherSE()
    return other


MODULES: dict[str, tuple[Callable[[], Attention], str]] = {
    "no kernel is written": (lambda: module("cross"), "there is no kernel for it"),
    "pools": (lambda: module(pools=("avg", "lse")), "no kernel pools by avg and lse"),
    "a pool twice": (lambda: module("channel", pools=("avg", "avg")), "no kernel pools by avg and avg"),
    "norms in a channel gate": (lambda: module("se", norm=True), "no kernel has norms inside the channel gate"),
    "a gate of another scale": (
        lambda: with_layer("gate", lambda gate: setattr(gate, "scale", 2.0), "simam"),
        "a gate of another scale",
    ),
    "two results that are added": (lambda: module("scse", mode="add"), "no kernel has the mode add"),
    "absolute values": (lambda: module("gct", mode="l1"), "no kernel adds absolute values"),
    "a changed convolution of two rows": (lambda: with_layer("fc", strided, "srm"), "a convolution was changed"),
    "a mechanism of the user's own": (other_se, "there is no kernel for it"),
    "forward hook": (
        lambda: with_layer("channel.gate", lambda gate: gate.register_forward_hook(hook)),
        "hooks on a Gate",
    ),
    "pre-hook": (
        lambda: with_layer("spatial.conv", lambda conv: conv.register_forward_pre_hook(hook)),
        "hooks on a Conv2d",
    ),
    "backward hook": (
        lambda: with_layer("spatial.norm", lambda norm: norm.register_full_backward_hook(hook)),
        "hooks on a BatchNorm2d",
    ),
    "backward pre-hook": (
        lambda: with_layer("conv", lambda conv: conv.register_full_backward_pre_hook(hook), "eca"),
        "hooks on a Conv1d",
    ),
    "own forward": (lambda: with_layer("channel.reduce", own_forward), "hooks on a Conv2d"),
    "subclass": (lambda: with_layer("channel.expand", other_conv), "a OtherConv instead of a Conv2d"),
    "another gate": (
        lambda: with_layer("channel.gate", lambda gate: type("OtherGate", (Gate,), {})("channel")),
        "instead of a Gate",
    ),
    "parametrised": (
        lambda: with_layer(
            "squeeze", lambda conv: parametrize.register_parametrization(conv, "weight", nn.Identity()), "coordinate"
        ),
        "a ParametrizedConv2d instead of a Conv2d",
    ),
    "pruned": (
        lambda: with_layer("reduce", lambda conv: prune.l1_unstructured(conv, "weight", 0.5), "se"),
        "hooks on a Conv2d",
    ),
    "another padding": (lambda: with_layer("conv", padded_otherwise, "spatial"), "a convolution was changed"),
    "no weights": (lambda: with_layer("norm", without_weights, "spatial"), "a batch norm without weights"),
    "a bias along the channels": (
        lambda: with_layer("conv", lambda conv: nn.Conv1d(1, 1, 3, padding=1), "eca"),
        "no kernel adds a bias along the channels",
    ),
}
INPUTS: dict[str, tuple[Callable[[], Tensor], torch.dtype, str]] = {
    "float64": (lambda: draw(2, 24, 6, 5, dtype=torch.float64), torch.float64, "an input of float64"),
    "float16": (lambda: draw(2, 24, 6, 5, dtype=torch.float16), torch.float16, "an input of float16"),
    "empty": (lambda: draw(0, 24, 6, 5), torch.float32, "an empty input"),
    "subclass": (lambda: draw(2, 24, 6, 5).as_subclass(Picture), torch.float32, "a Picture as the input"),
}


@contextmanager
def global_hook() -> Iterator[None]:
    handle = nn.modules.module.register_module_forward_hook(hook)
    try:
        yield
    finally:
        handle.remove()


@contextmanager
def plain(reason: str) -> Iterator[None]:
    """Check that no kernel runs inside, and that the reason is given."""
    dispatch._logged.clear()
    with watched() as seen, listening() as logged:
        yield
    assert not seen
    assert any(reason in line for line in logged), logged


@contextmanager
def listening() -> Iterator[list[str]]:
    """Return the lines of the debug log."""
    lines: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: lines.append(record.getMessage())
    log = logging.getLogger("foveate.kernels")
    level = log.level
    log.addHandler(handler)
    log.setLevel(logging.DEBUG)
    try:
        yield lines
    finally:
        log.removeHandler(handler)
        log.setLevel(level)


@pytest.mark.parametrize("subject", SUBJECTS, ids=str)
def test_a_kernel_runs(subject: Subject) -> None:
    built = subject.module(24)
    assert kernels.why_not(built, draw(2, 24, 6, 5)) is None
    with watched() as seen:
        built(draw(2, 24, 6, 5))
    assert len(seen) == 1 + (subject.options.get("order") == "spatial-channel")


@pytest.mark.parametrize(("make", "reason"), MODULES.values(), ids=MODULES)
def test_a_module_that_no_kernel_fits_runs_as_before(make: Callable[[], Attention], reason: str) -> None:
    changed, x = make(), draw(2, 24, 6, 5)
    assert reason in str(kernels.why_not(changed, x))
    with kernels.using("reference"):
        want = changed(x)
    if changed.mechanism.name == "cbam":  # whose spatial half may still have a kernel
        torch.testing.assert_close(changed(x), want)
    else:
        with plain(reason):
            assert torch.equal(changed(x), want)
    with (
        kernels.using("cpu"),
        pytest.raises(KernelError, match=r"(?s)Expected a kernel for \w+, as FOVEATE_KERNELS=cpu requires.*Do: "),
    ):
        changed(x)


@pytest.mark.parametrize(("make", "dtype", "reason"), INPUTS.values(), ids=INPUTS)
def test_an_input_that_no_kernel_takes_runs_as_before(
    make: Callable[[], Tensor], dtype: torch.dtype, reason: str
) -> None:
    given, x = module("channel", pools=("avg",)).to(dtype), make()
    assert kernels.why_not(given, x) == reason
    with kernels.using("reference"):
        want = given(x)
    with plain(reason):
        assert torch.equal(given(x), want)
    with kernels.using("cpu"), pytest.raises(KernelError, match=reason):
        given(x)


@pytest.mark.parametrize(
    ("surroundings", "reason"),
    [(global_hook, "hooks on every module"), (forward_ad.dual_level, "forward-mode differentiation")],
    ids=["global hook", "forward mode"],
)
def test_surroundings_that_ask_for_plain_operations(
    surroundings: Callable[[], AbstractContextManager[Any]], reason: str
) -> None:
    with surroundings(), plain(reason):
        module("se")(draw(2, 24, 6, 5))


def test_hooks_hear_what_they_hear_without_kernels() -> None:
    heard: list[Any] = []
    given = module()
    given.get_submodule("spatial.conv").register_forward_hook(lambda layer, args, output: heard.append(output.shape))
    given(draw(2, 24, 6, 5))
    assert heard == [(2, 1, 6, 5)]


def test_a_hook_on_the_whole_module_is_no_obstacle() -> None:
    given = module()
    given.register_forward_hook(hook)
    with watched() as seen:
        given(draw(2, 24, 6, 5))
    assert seen


def test_weights_of_another_type_are_refused_by_torch_as_ever() -> None:
    given = module("se")
    assert "not bfloat16 on the CPU" in str(kernels.why_not(given, draw(2, 24, 6, 5, dtype=torch.bfloat16)))
    with pytest.raises(RuntimeError, match="should be the same"):
        given(draw(2, 24, 6, 5, dtype=torch.bfloat16))


def test_autocast_mixes_types() -> None:
    given, x = module(), draw(2, 24, 6, 5, dtype=torch.bfloat16)
    with torch.autocast("cpu", torch.bfloat16):
        assert kernels.why_not(given, x) is None
        y = given(x)
        assert "neither float32 nor bfloat16" in str(kernels.why_not(given.half(), x))
    assert y.dtype == torch.bfloat16


def test_autocast_leaves_factors_and_the_output_in_float32() -> None:
    given, x = module("gct"), draw(2, 24, 6, 5, dtype=torch.bfloat16)
    with torch.autocast("cpu", torch.bfloat16), plain("weights that are not bfloat16"):
        assert given(x).dtype == torch.float32


def test_a_single_value_has_no_batch_statistics_and_torch_says_so() -> None:
    given = module("spatial").train()
    with pytest.raises(ValueError, match="Expected more than 1 value"):
        given(draw(1, 24, 1, 1))


def test_weights_swapped_in_for_a_call_are_used() -> None:
    given, x = module("se"), draw(2, 24, 6, 5)
    other = {name: value.detach() * 2 for name, value in given.named_parameters()}
    twin = copy.deepcopy(given)
    twin.load_state_dict(other)
    with watched() as seen:
        assert torch.equal(torch.func.functional_call(given, other, (x,)), twin(x))
    assert len(seen) == 2


def test_weights_that_a_wrapper_moved_are_left_to_it() -> None:
    given = module("se")
    layer = given.get_submodule("reduce")
    object.__setattr__(
        layer, "weight", layer._parameters.pop("weight")
    )  # as wrappers that split models among devices do
    with plain("weights that are not parameters"):
        given(draw(2, 24, 6, 5))


@pytest.mark.parametrize(
    "change",
    [
        lambda norm: setattr(norm, "momentum", None),
        lambda norm: setattr(norm, "track_running_stats", False),
        lambda norm: norm.eval(),
        lambda norm: [setattr(norm, name, None) for name in ("running_mean", "running_var", "num_batches_tracked")],
        lambda norm: setattr(norm, "num_batches_tracked", None),
    ],
    ids=["cumulative", "not tracking", "frozen", "no statistics", "no count"],
)
@pytest.mark.parametrize("name", ["spatial", "coordinate", "srm"])
def test_statistics_are_followed_as_torch_follows_them(name: str, change: Callable[[Any], Any]) -> None:
    given = module(name).train()
    change(given.get_submodule("norm"))
    x, dy = draw(3, 24, 6, 5), draw(3, 24, 6, 5, seed=1)
    numbers = []
    for choice in ("cpu", "reference"):
        twin = copy.deepcopy(given)
        with kernels.using(choice):
            step(twin, x, dy)
            twin(x)
            twin(2 * x)
        numbers.append(dict(twin.named_buffers()))
    ours, theirs = numbers
    assert ours.keys() == theirs.keys()
    for buffer, value in theirs.items():
        torch.testing.assert_close(ours[buffer], value)


def test_a_reason_is_logged_once() -> None:
    dispatch._logged.clear()
    given, x = module("se").double(), draw(1, 24, 3, 3, dtype=torch.float64)
    with listening() as lines:
        given(x)
        given(x)
    assert lines == ["se runs as plain operations: an input of float64"]


def test_a_record_says_what_ran(monkeypatch: pytest.MonkeyPatch) -> None:
    assert kernels.description() == describe_environment()["kernels"] == torch.ops.foveate.info()
    with kernels.using("reference"):
        assert kernels.description() == "FOVEATE_KERNELS=reference"
    monkeypatch.setattr(ops, "unavailable", "no library here")
    assert kernels.description() == "no library here"


def test_a_layer_without_units_is_an_error_and_no_crash() -> None:
    with kernels.using("cpu"), pytest.raises(RuntimeError, match="Expected: hidden units"):
        ops.channel_spatial(
            draw(2, 8, 4, 4), torch.empty(0, 8, 1, 1), None, torch.empty(8, 0, 1, 1), None, True, False, 1.0
        )


def test_without_a_library_the_plain_operations_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ops, "unavailable", "they are not compiled")
    with plain("they are not compiled"):
        module()(draw(1, 24, 3, 3))
    with kernels.using("cpu"), pytest.raises(KernelError, match="Received they are not compiled"):
        module()(draw(1, 24, 3, 3))


def test_why_a_library_does_not_load(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    library = tmp_path / "_cpu.so"
    monkeypatch.setattr(ops, "LIBRARY", library)
    assert "they are not compiled: run python -m foveate.kernels.build" in str(ops._load())
    library.write_bytes(b"no library")
    assert "_cpu.so does not load" in str(ops._load())
    monkeypatch.setattr(torch, "__version__", type(torch.__version__)("2.9.1"))
    assert ops._load() == "torch 2.9.1 is older than 2.10, which the kernels need"
