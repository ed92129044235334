"""The tests that every mechanism must pass: `class TestContract(Contract)` runs them over the catalogue."""

import copy
import io
import pickle
import shutil
from typing import Any
from unittest import mock

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.export import Dim, export
from torch.utils.flop_counter import FlopCounterMode

import foveate
from foveate.bind.torch.attention import Attention
from foveate.bind.torch.ops import TorchOps
from foveate.bind.torch.parts import Gate, Replace
from foveate.cost import measure
from foveate.errors import UsageError
from foveate.oracle import evaluate
from last_layers import last_layers, wake
from subjects import Subject
from tolerance import TOLERANCE, allowance, distance, error, with_roundings

GRADCHECK_SIZES = [(2, 3, 5), (1, 4, 3), (3, 1, 6)]  # batch, height, width
SIZES = [(1, 1, 1), (1, 1, 6), (2, 6, 1), (1, 63, 60), (3, 5, 9)]
START = ("paper", "identity")
INFINITE = float("inf")
FREE_SIZES = torch.__version__ >= "2.10"  # before, torch.export guards sizes that several mechanisms divide
BOUNDS = {"sigmoid": (0, 1), "hard_sigmoid": (0, 1), "tanh": (-1, 1), "linear": (-INFINITE, INFINITE)}


def shaken(module: Attention) -> Attention:
    """Return the module with random values also in the layers that the identity start sets to 0."""
    wake(module)
    return module


def loss(module: Attention, inputs: list[Tensor]) -> Tensor:
    """Return a sum with a different weight for every entry of the output, so that no gradient cancels by symmetry."""
    y = module(*inputs)
    return (y * torch.linspace(-1, 2, y.numel()).view(y.shape).to(y)).square().sum()


def check_gradients(subject: Subject, size: tuple[int, int, int], training: bool, *, fast_mode: bool) -> None:
    """Compare the gradients of inputs and weights with finite differences."""
    module = subject.module(start="identity" if training else "paper", dtype=torch.float64).train(training)
    shaken(module)
    inputs = [x.requires_grad_() for x in subject.inputs(*size, dtype=torch.float64)]
    parameters = dict(module.named_parameters())

    def call(*values: Tensor) -> Tensor:
        state = dict(zip(parameters, values[len(inputs) :], strict=True)) | {
            name: b.clone() for name, b in module.named_buffers()
        }
        return torch.func.functional_call(module, state, values[: len(inputs)])

    fast_mode = fast_mode or inputs[0].numel() > 1000  # of the larger maps that some mechanisms need
    # finite differences do not know that no gradient flows through `F.weight`; the golden data does
    with mock.patch.object(TorchOps, "weight", lambda self, norm: norm.weight[None, :, None, None]):
        assert torch.autograd.gradcheck(call, (*inputs, *parameters.values()), fast_mode=fast_mode)


def check_rounding(subject: Subject, inputs: list[Tensor], y: Tensor, dtype: torch.dtype, training: bool) -> None:
    """Compare an output with that in float64: within the dtype's tolerance, or the roundings that the maths magnifies.

    Only CoT needs the latter, in half precision: in training it divides pooled vectors by the differences of 2 samples.
    """
    module, wide = subject.module(dtype=torch.float64).train(training), [x.double() for x in inputs]
    want = module(*wide)
    if not distance(y, want) < TOLERANCE[dtype]:
        assert error(want, y) < allowance(want, with_roundings(lambda: module(*wide), dtype))


def gates(module: Attention) -> list[Gate]:
    return [child for child in module.modules() if isinstance(child, Gate)]


def check_finite_gradients(module: Attention, inputs: list[Tensor]) -> None:
    assert all(x.grad is not None and x.grad.isfinite().all() for x in (*inputs, *module.parameters()))


def multiplies(module: Attention, inputs: list[Tensor]) -> bool:
    """Return whether the mechanism only scales its input, and so leaves a map of zeros as it is."""
    adds = bool(module.mechanism.no_identity) or any(isinstance(child, Replace) for child in module.modules())
    return bool(gates(module)) and not adds and not module(*map(torch.zeros_like, inputs)).any()


class Definition:
    """Outputs and gradients in float64, which no kernel takes."""

    @pytest.mark.parametrize("training", [False, True], ids=["eval", "train"])
    @pytest.mark.parametrize("size", GRADCHECK_SIZES, ids=str)
    def test_gradients(self, subject: Subject, size: tuple[int, int, int], training: bool) -> None:
        """Random projections of the Jacobian."""
        check_gradients(subject, size, training, fast_mode=True)

    @pytest.mark.parametrize("training", [False, True], ids=["eval", "train"])
    @pytest.mark.parametrize("start", START)
    def test_torch_and_the_oracle_agree(self, subject: Subject, start: Any, training: bool) -> None:
        module = shaken(subject.module(start=start, dtype=torch.float64)).train(training)
        weights = {name: value.numpy().copy() for name, value in module.state_dict().items()}
        inputs = subject.inputs(3, 5, 9, dtype=torch.float64)
        want, after = evaluate(module.mechanism, weights, *(x.numpy() for x in inputs), training=training, start=start)
        assert distance(module(*inputs), torch.from_numpy(want)) < 1e-12
        for name, value in module.state_dict().items():
            np.testing.assert_allclose(value.numpy(), after[name], rtol=1e-12, err_msg=name)

    def test_gates_lie_between_nothing_and_everything(self, subject: Subject) -> None:
        module = subject.module(dtype=torch.float64).eval()
        seen: list[Tensor] = []

        def keep(gate: Any, inputs: tuple[Tensor, Tensor], output: Tensor) -> None:
            seen.append(gate.gate(inputs[1]))

        for gate in gates(module):
            gate.register_forward_hook(keep)

        @settings(max_examples=15, deadline=None, derandomize=True)
        @given(
            n=st.integers(1, 3),
            h=st.integers(1, 9),
            w=st.integers(1, 9),
            scale=st.floats(0, 4),
            seed=st.integers(0, 99),
        )
        def holds(n: int, h: int, w: int, scale: float, seed: int) -> None:
            seen.clear()
            inputs = [x * scale for x in subject.inputs(n, h, w, dtype=torch.float64, seed=seed)]
            y = module(*inputs)
            assert y.shape == subject.shape(inputs)
            assert len(seen) == len(gates(module))
            for gate, value in zip(gates(module), seen, strict=True):
                low, high = (gate.offset + bound for bound in BOUNDS[gate.activation])
                assert (value.isfinite() & (value >= low) & (value <= high)).all()  # of large logits it is a bound
            kinds = {(gate.activation, gate.offset) for gate in gates(module)}
            if kinds == {("sigmoid", 0)} and multiplies(module, inputs):
                weighed = subject.kept(inputs)
                assert (y.abs() <= weighed.abs()).all()
                assert (y * weighed >= 0).all()

        holds()


@pytest.mark.reliability(5)
class Numbers:
    """Outputs and gradients in the dtypes that networks run in."""

    @pytest.mark.parametrize("training", [False, True], ids=["eval", "train"])
    @pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
    def test_dtypes(self, subject: Subject, dtype: torch.dtype, training: bool) -> None:
        module, inputs = subject.module(dtype=dtype).train(training), subject.inputs(dtype=dtype, learnt=True)
        y = module(*inputs)
        assert y.dtype == dtype
        check_rounding(subject, inputs, y, dtype, training)
        y.sum().backward()
        check_finite_gradients(module, inputs)

    @pytest.mark.parametrize("training", [False, True], ids=["eval", "train"])
    def test_autocast(self, subject: Subject, training: bool) -> None:
        module, inputs = subject.module().train(training), subject.inputs(learnt=True)
        with torch.autocast("cpu", torch.bfloat16):
            y = module(*inputs)
            y.sum().backward()
        check_rounding(subject, inputs, y, torch.bfloat16, training)
        check_finite_gradients(module, inputs)

    @pytest.mark.parametrize("size", SIZES, ids=str)
    def test_any_height_and_width(self, subject: Subject, size: tuple[int, int, int]) -> None:
        inputs = subject.inputs(*size)
        y = subject.module().eval()(*inputs)
        assert y.shape == subject.shape(inputs)
        assert y.isfinite().all()

    @pytest.mark.parametrize("size", [*SIZES[1:], (2, 1, 1)], ids=str)
    def test_any_height_and_width_in_training(self, subject: Subject, size: tuple[int, int, int]) -> None:
        module, inputs = subject.module().train(), subject.inputs(*size, learnt=True)
        y = module(*inputs)
        y.sum().backward()
        assert y.isfinite().all()
        check_finite_gradients(module, inputs)

    @pytest.mark.parametrize("value", [0.0, 3.0])
    def test_channels_without_variation_have_gradients(self, subject: Subject, value: float) -> None:
        module, inputs = subject.module().train(), subject.inputs(learnt=True)
        with torch.no_grad():
            for x in inputs:
                x.fill_(value)
        y = module(*inputs)
        y.sum().backward()
        assert y.isfinite().all()
        check_finite_gradients(module, inputs)

    def test_samples_do_not_mix(self, subject: Subject) -> None:
        module, inputs = subject.module().eval(), subject.inputs(4, 5, 3)
        alone = torch.cat([module(*(x[i : i + 1] for x in inputs)) for i in range(4)])
        assert distance(module(*inputs), alone) < 1e-5

    def test_nan_stays_nan(self, subject: Subject) -> None:
        inputs = subject.inputs(2, 4, 5)
        x = subject.kept(inputs)
        x[0, 3, 1, 2] = float("nan")
        y = subject.module().eval()(*inputs)
        assert (y[0, 3, 1, 2] if y.shape == x.shape else y[0]).isnan().any()
        assert y[1].isfinite().all()


@pytest.mark.reliability(6)
class IdentityStart:
    """The output equals the input at first, and the mechanism learns from there."""

    @pytest.mark.parametrize("training", [False, True], ids=["eval", "train"])
    @pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
    def test_the_output_is_the_input(self, subject: Subject, dtype: torch.dtype, training: bool) -> None:
        inputs = subject.inputs(dtype=dtype)
        assert torch.equal(subject.module(start="identity", dtype=dtype).train(training)(*inputs), subject.kept(inputs))

    def test_the_first_step_leaves_the_identity_and_the_second_reaches_every_weight(self, subject: Subject) -> None:
        module, inputs = subject.module(start="identity").train(), subject.inputs()
        optimizer = torch.optim.SGD(module.parameters(), 1e-3)
        loss(module, inputs).backward()
        last = [p for layer in last_layers(module) for p in layer.parameters()]
        assert last
        assert all(p.grad is not None and p.grad.count_nonzero() == p.numel() for p in last)
        optimizer.step()
        assert not torch.equal(module(*inputs), subject.kept(inputs))
        optimizer.zero_grad()
        loss(module, inputs).backward()
        assert all(p.grad is not None and p.grad.isfinite().all() for p in module.parameters())
        unreached = [name for name, p in module.named_parameters() if p.grad is not None and not p.grad.any()]
        # a bias of all keys changes no softmax over them, and its gradient is 0 but for roundings
        assert [name for name in unreached if name not in ("key.bias", "keys.bias")] == []

    def test_the_start_adds_no_parameter(self, subject: Subject) -> None:
        paper, identity = (
            {name: p.shape for name, p in subject.module(start=start).named_parameters()} for start in START
        )
        assert identity == paper


@pytest.mark.reliability(5)
class Tools:
    """What users do with a module besides calling it."""

    @pytest.mark.parametrize("training", [False, True], ids=["eval", "train"])
    def test_channels_last(self, subject: Subject, training: bool) -> None:
        plain, last = (subject.module().train(training) for _ in range(2))
        inputs = subject.inputs()
        y = last.to(memory_format=torch.channels_last)(*(x.to(memory_format=torch.channels_last) for x in inputs))  # type: ignore[call-overload]
        assert y.is_contiguous(memory_format=torch.channels_last)
        assert distance(y, plain(*inputs)) < 1e-5

    @pytest.mark.parametrize(
        "copied", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))], ids=["deepcopy", "pickle"]
    )
    def test_copies(self, subject: Subject, copied: Any) -> None:
        module, inputs = shaken(subject.module(start="identity")).eval(), subject.inputs()
        twin = copied(module)
        assert type(twin) is type(module)
        assert (twin.mechanism, twin.channels, twin.start) == (module.mechanism, module.channels, module.start)
        assert torch.equal(twin(*inputs), module(*inputs))
        assert not {p.data_ptr() for p in twin.parameters()} & {p.data_ptr() for p in module.parameters()}

    def test_state_dict_round_trip(self, subject: Subject) -> None:
        module, inputs = shaken(subject.module(start="identity")).eval(), subject.inputs()
        buffer = io.BytesIO()
        torch.save(module.state_dict(), buffer)
        buffer.seek(0)
        other = foveate.attention(module.mechanism, module.channels, start="identity").eval()
        assert other.load_state_dict(torch.load(buffer, weights_only=True), strict=True)
        assert torch.equal(other(*inputs), module(*inputs))

    def test_no_hook_and_no_state_is_left_by_a_call(self, subject: Subject) -> None:
        module, inputs = subject.module().eval(), subject.inputs()
        before = {name: value.clone() for name, value in module.state_dict().items()}
        first, second = module(*inputs), module(*inputs)
        assert torch.equal(first, second)
        assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())

    def test_a_wrong_input_is_refused(self, subject: Subject) -> None:
        module, (x, *context) = subject.module(), subject.inputs()
        said = rf"(?s)Expected a feature map \(N, {subject.channels}, H, W\).*Received .*Do: "
        for wrong in (x[0], x[:, 1:, None], x[:, 1:], torch.cat([x, x[:, :1]], 1)):
            with pytest.raises(UsageError, match=said):
                module(wrong, *context)


@pytest.mark.reliability(5)
class Graphs:
    """The module compiled and exported."""

    @pytest.mark.parametrize("start", [pytest.param("paper", marks=pytest.mark.slow), "identity"])
    def test_compile(self, subject: Subject, start: Any) -> None:
        self.compiled_agrees(subject, start, "aot_eager")

    @pytest.mark.slow
    @pytest.mark.skipif(shutil.which("g++") is None, reason="torch's inductor needs a C++ compiler (g++)")
    @pytest.mark.filterwarnings(
        "ignore:`torch.jit.script_method` is deprecated:DeprecationWarning"
    )  # inductor's own import
    def test_compile_with_inductor(self, subject: Subject) -> None:
        self.compiled_agrees(subject, "paper", "inductor")

    def compiled_agrees(self, subject: Subject, start: Any, backend: str) -> None:
        torch.compiler.reset()
        plain, copied = (shaken(subject.module(start=start)).train() for _ in range(2))
        compiled = torch.compile(copied, fullgraph=True, backend=backend)
        inputs = subject.inputs(8, learnt=True)  # behind a batch norm of two samples, float32 loses four digits
        want = plain(*inputs)
        got = compiled(*inputs)
        assert distance(got, want) < 1e-5
        upstream = torch.linspace(-1, 2, want.numel()).view(want.shape)  # behind a batch norm a sum has no gradient
        for y in (want, got):
            y.backward(upstream)
        scale = max([1.0, *(float(p.grad.abs().max()) for p in plain.parameters() if p.grad is not None)])
        for ours, theirs in zip(copied.parameters(), plain.parameters(), strict=True):
            assert ours.grad is not None
            assert theirs.grad is not None
            torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-4, atol=2e-5 * scale)

    def test_export(self, subject: Subject) -> None:
        module, more = subject.module().eval(), subject.smallest_open - subject.smallest
        inputs = subject.inputs(2, 6 + more, 7 + more)
        sides = {axis: Dim(name, min=subject.smallest_open) for axis, name in ((2, "h"), (3, "w"))}
        shapes = ({0: Dim("n"), **sides}, {0: Dim("n")})[: len(inputs)]
        for dynamic, others in [
            (None, [inputs]),
            (shapes, [subject.inputs(n, h + more, w + more) for n, h, w in [(3, 5, 9), (1, 13, 4)]]),
        ][: 2 if FREE_SIZES else 1]:
            program = export(module, tuple(inputs), dynamic_shapes=dynamic)
            assert not [node for node in program.graph.nodes if "adaptive" in str(node.target)]
            for other in others:
                assert distance(program.module()(*other), module(*other)) < 1e-6


class Costs:
    """The computed cost is the cost of the module."""

    @pytest.mark.parametrize("start", START)
    @pytest.mark.reliability(4)
    def test_parameters(self, subject: Subject, start: Any) -> None:
        module, inputs = subject.module(start=start), subject.inputs()
        cost = measure(module.mechanism, *(x.shape for x in inputs), start=start)
        assert cost.parameters == sum(p.numel() for p in module.parameters())

    @pytest.mark.parametrize("size", [(1, 3, 5), (2, 6, 7)], ids=str)
    @pytest.mark.reliability(4)
    def test_multiply_adds(self, subject: Subject, size: tuple[int, int, int]) -> None:
        module, inputs = subject.module().eval(), subject.inputs(*size)
        with FlopCounterMode(display=False) as counter:
            module(*inputs)
        assert measure(module.mechanism, *(x.shape for x in inputs)).macs == counter.get_total_flops() / 2


class Jacobian:
    """Each derivative by itself: random projections of the Jacobian may hide a small one."""

    @pytest.mark.parametrize(
        ("size", "training"),
        [
            pytest.param(size, training, marks=() if training and size == GRADCHECK_SIZES[0] else pytest.mark.slow)
            for size in GRADCHECK_SIZES
            for training in (False, True)
        ],
        ids=str,
    )
    @pytest.mark.reliability(1)
    def test_every_entry(self, subject: Subject, size: tuple[int, int, int], training: bool) -> None:
        check_gradients(subject, size, training, fast_mode=False)


class Contract(Definition, Jacobian, Numbers, IdentityStart, Tools, Graphs, Costs):
    """All tests of the contract."""
