"""Kernels under compilers, exporters and transforms: in the graph and fused as intended, or not used."""

import copy
import shutil
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch._dynamo.backends.debugging import aot_eager
from torch.utils.flop_counter import FlopCounterMode

import foveate
from foveate import kernels
from foveate.bind.torch.attention import Attention
from foveate.cost import measure
from foveate.errors import UsageError
from foveate.kernels.signatures import ChannelSpatial
from kernels.cases import Subject, draw, recorded, watched

pytestmark = pytest.mark.usefixtures("built")

SHAPES = [(6, 24, 6, 5), (7, 24, 8, 9), (8, 24, 7, 7)]
CHANNEL_GATES = [Subject("se"), Subject("ese"), Subject("gct"), Subject("srm"), Subject("eca"), Subject("channel")]
SPATIAL = [
    Subject("spatial"),
    Subject("scse"),
    Subject("cbam"),
    Subject("cbam", {"order": "parallel"}),
    Subject("coordinate"),
]
COMPOSED = [Subject("cbam", {"order": "spatial-channel"}), Subject("residual_cbam")]


class Graphs:
    """A compiler that runs graphs eagerly and remembers our operations, a list for each graph."""

    def __init__(self) -> None:
        self.seen: list[list[str]] = []
        torch.compiler.reset()

    def __call__(self, graph: torch.fx.GraphModule, inputs: Any) -> Any:
        targets = [node.target for node in graph.graph.nodes if node.op == "call_function"]
        self.seen.append(
            [op._opname for op in targets if isinstance(op, torch._ops.OpOverload) and op.namespace == "foveate"]
        )
        return aot_eager(graph, inputs)


def compiled(module: nn.Module) -> tuple[nn.Module, Graphs]:
    graphs = Graphs()
    return torch.compile(module, backend=graphs, fullgraph=True), graphs  # pyright: ignore[reportReturnType]


def gradients(module: nn.Module, x: Tensor) -> dict[str, Tensor]:
    module.zero_grad()
    x = x.clone().requires_grad_()
    module(x).square().sum().backward()
    found = {
        "x": x.grad,
        **{name.removeprefix("_orig_mod."): parameter.grad for name, parameter in module.named_parameters()},
    }
    return {name: value.clone() for name, value in found.items() if value is not None}


@pytest.mark.parametrize("subject", [*CHANNEL_GATES, *SPATIAL, *COMPOSED], ids=str)
@pytest.mark.parametrize("training", [pytest.param(False, marks=pytest.mark.slow), True], ids=["eval", "train"])
def test_a_compiled_step_is_the_eager_one(subject: Subject, training: bool) -> None:
    module = subject.module(24, start="identity").train(training)
    twin, (quick, graphs) = copy.deepcopy(module), compiled(module)
    for shape in SHAPES:
        want, got = gradients(twin, draw(*shape)), gradients(quick, draw(*shape))
        assert got.keys() == want.keys()
        for name, value in want.items():
            allowed = 5e-6 * float(value.abs().max())  # a gradient that nearly cancels has the error of its summands
            torch.testing.assert_close(
                got[name], value, rtol=2e-4, atol=allowed, msg=lambda text, name=name: f"{name}: {text}"
            )
    for name, buffer in twin.named_buffers():
        torch.testing.assert_close(module.get_buffer(name), buffer)
    assert len(graphs.seen) <= 2, "the second has dynamic shapes"


@pytest.mark.parametrize(
    ("subjects", "learning", "inference"),
    [
        (CHANNEL_GATES, [], []),
        (SPATIAL[:4], ["channel_spatial"], ["channel_spatial_gates"]),
        (SPATIAL[4:], ["coordinate"], ["coordinate_gates"]),
        (COMPOSED, ["channel_spatial"], ["channel_spatial_gates"]),
    ],
    ids=["channel gates", "channel_spatial", "coordinate", "composed"],
)
def test_the_scaling_is_left_to_the_compiler(
    subjects: list[Subject], learning: list[str], inference: list[str]
) -> None:
    for subject in subjects:
        module, x = subject.module(24).eval(), draw(2, 24, 6, 5)
        quick, graphs = compiled(module)
        want = quick(x)
        with torch.no_grad():
            torch.testing.assert_close(quick(x), want)
        with torch.inference_mode():
            torch.testing.assert_close(quick(x), want)
        assert graphs.seen == [learning, inference, inference]


def test_a_kernel_that_is_asked_for_is_in_the_graph() -> None:
    quick, graphs = compiled(Subject("se").module(24))
    with kernels.using("cpu"), torch.no_grad():
        quick(draw(2, 24, 6, 5))
    assert graphs.seen == [["channel_spatial_gates"]]


def test_a_change_of_the_choice_compiles_again() -> None:
    quick, graphs = compiled(Subject("cbam").module(24).eval())
    x = draw(2, 24, 6, 5)
    first = quick(x)
    with kernels.using("reference"):
        torch.testing.assert_close(quick(x), first)
    quick(x)
    assert graphs.seen == [["channel_spatial"], []]


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16])
def test_what_no_kernel_takes_compiles_whole(dtype: torch.dtype) -> None:
    module, x = Subject("cbam").module(24, dtype=dtype).eval(), draw(2, 24, 6, 5, dtype=dtype)
    quick, graphs = compiled(module)
    torch.testing.assert_close(quick(x), module(x))
    assert graphs.seen == [[]]


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch's inductor needs a C++ compiler (g++)")
@pytest.mark.filterwarnings(
    "ignore:`torch.jit.script_method` is deprecated:DeprecationWarning"
)  # from an import of inductor
@pytest.mark.parametrize("subject", [Subject("cbam"), Subject("coordinate")], ids=str)
def test_inductor(subject: Subject) -> None:
    torch.compiler.reset()
    module = subject.module(24)
    host = nn.Sequential(nn.Conv2d(24, 24, 3, padding=1), nn.BatchNorm2d(24), module, nn.ReLU())
    quick = torch.compile(copy.deepcopy(host), fullgraph=True)
    x = draw(2, 24, 9, 8)
    for name, want in gradients(host, x).items():
        torch.testing.assert_close(gradients(quick, x)[name], want, rtol=1e-3, atol=1e-3)  # pyright: ignore[reportArgumentType]
    host.eval()
    quick.eval()  # pyright: ignore[reportFunctionMemberAccess]
    host.load_state_dict(quick._orig_mod.state_dict())  # pyright: ignore[reportFunctionMemberAccess]
    with torch.inference_mode():
        torch.testing.assert_close(quick(x), host(x), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("strict", [False, True])
def test_what_is_exported_is_free_of_our_operations(strict: bool) -> None:
    for subject in (*CHANNEL_GATES, *SPATIAL, *COMPOSED):
        module, x = subject.module(24).eval(), draw(2, 24, 6, 5)
        program = torch.export.export(module, (x,), strict=strict)
        assert not [node for node in program.graph.nodes if "foveate." in str(node.target)]
        torch.testing.assert_close(program.module()(x), module(x))


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # tracing itself is deprecated
@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning")  # the check of the input's shape
def test_what_is_traced_is_free_of_our_operations() -> None:
    module, x = Subject("cbam").module(24).eval(), draw(2, 24, 6, 5)
    traced: Any = torch.jit.trace(module, x)
    assert "foveate::" not in str(traced.inlined_graph)
    torch.testing.assert_close(traced(x), module(x))


def run(module: Attention) -> Any:
    parameters = dict(module.named_parameters()) | dict(module.named_buffers())
    return lambda x: torch.func.functional_call(module, parameters, (x,))


@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated:DeprecationWarning")  # from torch.func.jvp
def test_transforms_run_the_plain_operations() -> None:
    module, x = Subject("cbam").module(24).eval(), draw(2, 24, 6, 5)
    call = run(module)
    with watched() as seen:
        mapped = torch.func.vmap(call)(torch.stack([x, 2 * x]))
        torch.testing.assert_close(
            torch.func.grad(lambda x: call(x).sum())(x), torch.func.vjp(call, x)[1](torch.ones_like(x))[0]
        )
        tangent = torch.func.jvp(call, (x,), (torch.ones_like(x),))[1]
    assert not seen
    torch.testing.assert_close(mapped, torch.stack([module(x), module(2 * x)]))
    assert tangent.isfinite().all()


def test_the_operations_themselves_refuse_vmap() -> None:
    x = draw(2, 24, 6, 5)
    weights = ChannelSpatial(None, None, None, None, False, False, 1.0, conv=torch.ones(1, 2, 3, 3))
    with pytest.raises(UsageError, match=r"(?s)outside torch.func.vmap.*FOVEATE_KERNELS=reference"):
        torch.func.vmap(lambda x: torch.ops.foveate.channel_spatial(x, *weights)[0])(x.unsqueeze(0))


@pytest.mark.parametrize("subject", [*CHANNEL_GATES, *SPATIAL], ids=str)
def test_multiply_adds_are_counted_as_the_plain_convolutions_are(subject: Subject) -> None:
    module, x = subject.module(24).eval(), draw(2, 24, 6, 5)
    operation, args, (y, kept, _) = recorded(module, x)
    wanted = 2 * measure(module.mechanism, x.shape).macs
    for call, times in ((lambda: operation(x, *args), 1), (lambda: operation.backward(y, kept, x, *args), 2)):
        with FlopCounterMode(display=False) as counter:
            call()
        assert counter.get_total_flops() == times * wanted
    with FlopCounterMode(display=False) as counter, watched() as seen:
        module(x)
    assert counter.get_total_flops() == wanted
    assert not seen, "a counter of the work of each layer must see the layers"


@pytest.mark.parametrize("name", ["cbam", "coordinate"])
def test_a_second_differentiation_is_refused_and_the_first_with_a_graph_is_not(name: str) -> None:
    module, x = Subject(name).module(24), draw(2, 24, 6, 5).requires_grad_()
    (plain,) = torch.autograd.grad(module(x).square().sum(), x)
    (first,) = torch.autograd.grad(module(x).square().sum(), x, create_graph=True)
    assert torch.equal(first, plain)
    with pytest.raises(UsageError, match=r"(?s)one differentiation.*FOVEATE_KERNELS=reference"):
        first.sum().backward()
    with kernels.using("reference"):
        (first,) = torch.autograd.grad(module(x).square().sum(), x, create_graph=True)
        first.sum().backward()


def test_checkpointed_activations_are_computed_again() -> None:
    module, x = Subject("cbam").module(24).eval(), draw(2, 24, 6, 5)
    want = gradients(module, x)
    checkpointed = nn.Module()
    checkpointed.add_module("inner", module)
    checkpointed.forward = lambda x: torch.utils.checkpoint.checkpoint(module, x, use_reentrant=False)  # type: ignore[method-assign]
    got = gradients(checkpointed, x)
    assert all(torch.equal(got[name if name == "x" else f"inner.{name}"], value) for name, value in want.items())


def test_attached_models_compile_whole() -> None:
    torch.manual_seed(0)
    host = nn.Sequential(nn.Conv2d(3, 16, 3), nn.BatchNorm2d(16), nn.ReLU()).eval()
    foveate.attach(host, "cbam", "1", example=(1, 3, 9, 9), start="paper")
    quick, graphs = compiled(host)
    x = draw(2, 3, 9, 9)
    with torch.inference_mode():
        torch.testing.assert_close(quick(x), host(x))
    assert graphs.seen == [["channel_spatial_gates"]]
