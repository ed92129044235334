"""When an operation is prepared, and when it ends."""

import copy
import gc
import pickle
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

import foveate
from foveate.bind.torch.attention import Attention
from foveate.errors import UsageError
from foveate.kernels import ops
from foveate.kernels.prepared import PREPARED, PreparedOperation
from foveate.kernels.table import Unfit
from foveate.surgery.torch import child
from kernels.test_layer_reading import module
from kernels.test_prepared import CHANNELS, HOSTS, Site, attention_of, example, exchange, ran, ready

pytestmark = pytest.mark.usefixtures("built")


@HOSTS
def test_under_autocast_it_is_asked_once(host: type[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    model, x = ready(host()), example().bfloat16()
    with torch.no_grad(), torch.autocast("cpu"):
        for _ in range(3):
            assert ran(model, x) != "prepared"
        monkeypatch.setattr(PreparedOperation, "__init__", lambda *_: pytest.fail("prepared again"))
        monkeypatch.setattr(ops, "run_prepared", lambda *_: pytest.fail("asked again"))
        model(x)


@HOSTS
def test_parameters_that_change_at_each_call_are_not_prepared(host: type[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    model, x = host(), example()
    monkeypatch.setattr(PreparedOperation, "__init__", lambda *_: pytest.fail("prepared"))
    with torch.no_grad():
        for _ in range(4):
            torch.func.functional_call(model, {name: value + 0 for name, value in model.named_parameters()}, (x,))


@HOSTS
def test_what_training_leaves_as_it_was_stays_prepared(host: type[Any]) -> None:
    model, x = ready(host()), example()
    model.train()(x).sum()
    with torch.no_grad():
        assert ran(model.eval(), x) == "prepared"


class Doubling(TorchDispatchMode):
    """Doubles the weights of attention, and keeps the names of operations."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.seen.append(str(func))
        if "foveate" in str(func):
            args = (args[0], *(2 * one if isinstance(one, Tensor) else one for one in args[1:]))
        return func(*args, **(kwargs or {}))


@HOSTS
def test_what_a_mode_changes_is_not_prepared(host: type[Any]) -> None:
    model, x = host(), example()
    with torch.no_grad():
        want = model(x)
        with Doubling() as mode:
            for _ in range(3):
                model(x)
        assert not [name for name in mode.seen if "prepare" in name]
        for _ in range(3):
            torch.testing.assert_close(model(x), want)


@HOSTS
def test_weights_can_be_swapped_where_torch_swaps_them(host: type[Any]) -> None:
    model, x = host(), example()
    torch.__future__.set_swap_module_params_on_conversion(True)
    try:
        with torch.no_grad():
            for _ in range(4):
                model(x)
        model.load_state_dict({name: value + 1 for name, value in model.state_dict().items()})
        model.to(torch.bfloat16)
    finally:
        torch.__future__.set_swap_module_params_on_conversion(False)


@HOSTS
def test_a_prepared_model_compiles_once(host: type[Any]) -> None:
    model, x = host(), example()
    graphs: list[Any] = []

    def backend(graph: Any, inputs: Any) -> Any:
        graphs.append(graph)
        return graph.forward

    torch.compiler.reset()
    compiled: Any = torch.compile(model, backend=backend, fullgraph=True)
    with torch.no_grad():
        want = compiled(x)
        ready(model)
        torch.testing.assert_close(compiled(x), want)
    assert len(graphs) == 1


def test_channels_that_were_pruned_from_the_attention_alone_are_an_error_that_names_them() -> None:
    model, x = ready(Site()), example()
    attention: Any = attention_of(model)
    attention.reduce.weight.data = attention.reduce.weight.data[:, : CHANNELS // 2]
    attention.expand.weight.data = attention.expand.weight.data[: CHANNELS // 2]
    with torch.no_grad(), pytest.raises(UsageError, match="Received a tensor of shape"):
        model(x)


@HOSTS
def test_a_prepared_operation_ends_with_its_module(host: type[Any]) -> None:
    model, x = ready(host()), example()
    holder = model.get_submodule("holder")
    number = vars(holder)[PREPARED].number
    assert torch.ops.foveate.prepared_(x, number)
    for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert [vars(one).get(PREPARED) for one in other.modules()] == [None] * len(list(other.modules()))
    del model, holder
    gc.collect()
    with pytest.raises(RuntimeError, match=f"a prepared operation. Received: {number}"):
        torch.ops.foveate.prepared_(x, number)
    torch.ops.foveate.release(number)


def test_a_mode_does_not_see_that_a_prepared_operation_ends() -> None:
    model, x = ready(Site()), example()
    number = vars(model.get_submodule("holder"))[PREPARED].number
    with Doubling() as mode:
        del model
        gc.collect()
    assert mode.seen == []
    assert torch.ops.foveate.prepared_(x, number), "it is released when the next one is prepared"
    ready(Site())
    with pytest.raises(RuntimeError, match="a prepared operation"):
        torch.ops.foveate.prepared_(x, number)


def test_what_a_site_lost_is_not_kept() -> None:
    removed, exchanged = ready(Site()), ready(Site())
    child.remove(removed)
    child.exchange_attention(exchanged, {"holder": module("eca")})
    for model in (removed, exchanged):
        assert PREPARED not in vars(model.get_submodule("holder"))


def computed() -> Attention:
    attention = module("se")
    for layer in (attention.get_submodule(name) for name in ("reduce", "expand")):
        weight = layer._parameters["weight"]
        assert weight is not None
        layer._parameters["weight"] = weight.detach().requires_grad_() * 2  # pyright: ignore[reportArgumentType]
    return attention


UNFIT = {
    "batch statistics": lambda: module("srm").train(),
    "several operations": lambda: foveate.attention("cbam", CHANNELS, order="spatial-channel"),
    "there is no kernel for it": lambda: foveate.attention("cross", CHANNELS),
    "computed weights|not plain tensors": computed,
}


@pytest.mark.parametrize("reason", UNFIT)
def test_what_has_no_operation_in_place_is_not_prepared(reason: str) -> None:
    with pytest.raises(Unfit, match=reason):
        PreparedOperation(UNFIT[reason](), CHANNELS, torch.float32)


def test_threads_share_a_site_whose_attention_is_exchanged() -> None:
    model, x = ready(Site()), example()
    given = [attention_of(model), module("se", seed=8)]
    with torch.no_grad():
        wants = []
        for attention in given:
            exchange(model, attention)
            wants.append(model(x).clone())

    def run() -> bool:
        with torch.no_grad():
            return all(any(torch.equal(y, want) for want in wants) for y in (model(x) for _ in range(200)))

    with ThreadPoolExecutor(4) as pool:
        found = [pool.submit(run) for _ in range(3)]
        for number in range(200):
            exchange(model, given[number % 2])
        assert all(one.result() for one in found)
