"""Numbers under torch.compile and autocast, compared with those of the plain operations."""

import copy
import shutil
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from foveate import kernels
from kernels.cases import DEFAULTS, SUBJECTS, Numbers, Subject, by_kernel, by_reference, draw, step
from tolerance import allowance, error, with_roundings

pytestmark = pytest.mark.usefixtures("built")

SUBJECT = pytest.mark.parametrize("subject", DEFAULTS, ids=str)
MODES = pytest.mark.parametrize("training", [False, True], ids=["eval", "train"])


def compiled(module: nn.Module, backend: Any = "aot_eager", **options: Any) -> Any:
    torch.compiler.reset()
    return torch.compile(module, fullgraph=True, backend=backend, **options)


def close(want: dict[str, Tensor], got: dict[str, Tensor]) -> None:
    assert want.keys() == got.keys()
    for name, value in want.items():
        torch.testing.assert_close(
            got[name], value, rtol=1e-4, atol=1e-4, msg=lambda said, name=name: f"{name}: {said}"
        )


def compiled_step(module: Any, x: Tensor, dy: Tensor, **options: Any) -> dict[str, Tensor]:
    """Return the same as `step`, for the compiled module."""
    module, x = copy.deepcopy(module), x.clone().requires_grad_()
    y = compiled(module, **options)(x)
    y.backward(dy)
    gradients = {f"gradient of {name}": p.grad for name, p in module.named_parameters()}
    return {"y": y.detach(), "gradient of x": x.grad, **gradients, **dict(module.named_buffers())}  # pyright: ignore[reportReturnType]


@MODES
@SUBJECT
def test_a_compiled_step(subject: Subject, training: bool) -> None:
    module, x, dy = subject.module(24, start="identity").train(training), draw(8, 24, 9, 5), draw(8, 24, 9, 5, seed=1)
    want = by_reference(lambda: step(module, x, dy))
    with kernels.using("cpu"):
        close(want, compiled_step(module, x, dy))


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch's inductor needs a C++ compiler (g++)")
@pytest.mark.filterwarnings(
    "ignore:`torch.jit.script_method` is deprecated:DeprecationWarning"
)  # from an import of inductor
@MODES
@SUBJECT
def test_a_compiled_step_with_inductor(subject: Subject, training: bool) -> None:
    module, x, dy = (
        subject.module(24).train(training),
        draw(8, 24, 9, 5, layout="channels_last"),
        draw(8, 24, 9, 5, seed=1),
    )
    want = by_reference(lambda: step(module, x, dy))
    with kernels.using("cpu"):
        close(want, compiled_step(module, x, dy, backend="inductor"))
        with torch.no_grad():
            y = compiled(copy.deepcopy(module).eval(), backend="inductor")(x)
        close({"y": module.eval()(x).detach()}, {"y": y})


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("subject", SUBJECTS, ids=str)
def test_autocast(subject: Subject, dtype: torch.dtype) -> None:
    if (subject.mechanism, dtype) == ("gct", torch.bfloat16):
        pytest.skip("autocast leaves factors in float32, so no kernel runs")
    module, x, dy = subject.module(24), draw(3, 24, 9, 5, dtype=dtype), draw(3, 24, 9, 5, dtype=dtype, seed=1)
    double = copy.deepcopy(module).double()

    def in_float64() -> Numbers:
        return by_reference(lambda: step(double, x.double(), dy.double()))

    exact, rounded = in_float64(), with_roundings(in_float64, torch.bfloat16)
    with torch.autocast("cpu", torch.bfloat16):
        dtype = by_reference(lambda: copy.deepcopy(module)(x)).dtype
        want, got = (run(lambda: step(module, x, dy.to(dtype))) for run in (by_reference, by_kernel))
    assert {name: value.dtype for name, value in got.items()} == {name: value.dtype for name, value in want.items()}
    for name, value in exact.items():
        assert error(value, got[name]) <= allowance(value, [numbers[name] for numbers in rounded]), name
