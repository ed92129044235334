"""The Triton kernels without a GPU: what they take, that they compile, and their numbers by Triton's interpreter."""

import importlib.util
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode

import foveate
from foveate import kernels
from foveate.bind.torch.attention import Attention
from foveate.kernels import chosen, dispatch, table
from foveate.kernels.dispatch import KernelError
from kernels.cases import OPERATIONS, Layout, Subject, draw, step

pytestmark = pytest.mark.usefixtures("built")

HERE = Path(__file__).resolve().parent
WITH_TRITON = pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="Triton is not installed")
TYPES = {torch.float32: "*fp32", torch.bfloat16: "*bf16", torch.float16: "*fp16"}


@WITH_TRITON
@pytest.mark.parametrize(
    "where", [["interpreted/test_triton_numbers.py"], pytest.param(["interpreted", "-m", ""], marks=pytest.mark.slow)]
)
def test_the_numbers_by_the_interpreter(where: list[str]) -> None:
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-n",
        "0",
        "-p",
        "no:cacheprovider",
        f"{HERE}/{where[0]}",
        *where[1:],
    ]
    environment = {**os.environ, "TRITON_INTERPRET": "1"}
    done = subprocess.run(command, env=environment, cwd=HERE.parents[1], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    assert " passed" in done.stdout


def compiled(kernel: Any, args: tuple[Any, ...], constants: dict[str, Any]) -> Any:
    """Compile a kernel for an H100 as Triton would for these arguments: 1 and None are constants."""
    from triton import compile as compile_  # pyright: ignore[reportMissingImports]
    from triton.backends.compiler import GPUTarget  # pyright: ignore[reportMissingImports]
    from triton.compiler import ASTSource  # pyright: ignore[reportMissingImports]

    types, known, aligned = {}, dict(constants), {}
    for place, (name, value) in enumerate(zip(kernel.arg_names, args, strict=False)):
        if value is None or (type(value) is int and value == 1):
            known[name] = value
        types[name] = TYPES[value.dtype] if isinstance(value, torch.Tensor) else "fp32"
        if type(value) is int:
            types[name] = "i32"
        if isinstance(value, torch.Tensor) or (type(value) is int and value % 16 == 0):
            aligned[(place,)] = [["tt.divisibility", 16]]
    types.update(dict.fromkeys(known, "constexpr"))
    ordered = {name: types[name] for name in kernel.arg_names}
    return compile_(ASTSource(kernel, ordered, known, aligned), target=GPUTarget("cuda", 90, 32))


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> dict[str, list[str]]:
    """Compile kernels instead of running them; return the PTX of each, by name."""
    from foveate.kernels.gpu import launches

    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    found: dict[str, list[str]] = {}

    def compile_only(kernel: Any, grid: tuple[int, ...], args: tuple[Any, ...], constants: dict[str, Any]) -> None:
        assert all(type(size) is int and size > 0 for size in grid)
        found.setdefault(kernel.__name__, []).append(compiled(kernel, args, constants).asm["ptx"])

    monkeypatch.setattr(launches, "run_kernel", compile_only)
    return found


def compile_step(subject: Subject, shape: tuple[int, ...], dtype: torch.dtype, layout: Layout) -> None:
    from kernels.interpreted.by_triton import by_triton

    x = draw(*shape, dtype=dtype, layout=layout)
    by_triton(lambda: step(subject.module(shape[1], dtype=dtype).eval(), x, x))


PASSES = {"pool", "product_sums", "look", "position_sums", "sums_through_maps", "scale_map", "spread_map"}


@WITH_TRITON
@pytest.mark.parametrize(
    ("shape", "layout", "wide", "lines"),
    [
        ((2, 64, 56, 56), "nchw", "v4", "v4"),
        ((2, 64, 14, 14), "nchw", "v2", "b32"),  # 14 and 196 are multiples of 2 and 4 alone
        pytest.param((2, 64, 56, 56), "channels_last", "v4", "v4", marks=pytest.mark.slow),
        pytest.param((2, 64, 7, 7), "channels_last", "v4", "v4", marks=pytest.mark.slow),
    ],
)
def test_kernels_compile_and_read_several_values_at_once(
    shape: tuple[int, ...], layout: Layout, wide: str, lines: str, made: dict[str, list[str]]
) -> None:
    for name in ("cbam", "channel", "coordinate"):
        compile_step(Subject(name), shape, torch.bfloat16, layout)
    assert len(made) == 16

    def reads(width: str) -> set[str]:
        return {name for name, codes in made.items() if all(f"ld.global.{width}" in code for code in codes)}

    assert reads(wide) >= PASSES
    assert reads(lines) >= {"line_means", "line_sums", "scale_lines"}


@WITH_TRITON
@pytest.mark.slow
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize(
    ("shape", "layout"),
    [
        ((1, 1, 1, 1), "nchw"),
        ((2, 24, 7, 7), "nchw"),
        ((2, 256, 56, 56), "channels_last"),
        ((1, 512, 40, 300), "channels_last"),
    ],
    ids=str,
)
def test_every_kernel_compiles(
    shape: tuple[int, ...], layout: Layout, dtype: torch.dtype, made: dict[str, list[str]]
) -> None:
    from kernels.interpreted.by_triton import ON_A_GPU

    for subject in ON_A_GPU:
        if subject.mechanism != "residual_cbam":
            compile_step(subject, shape, dtype, layout)
    assert len(made) == 17


@pytest.fixture
def cuda_maps(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Make tensors on a GPU that have no values, which are enough to ask for the reasons."""
    monkeypatch.setattr(dispatch, "TENSORS", (FakeTensor,))
    monkeypatch.setattr(table, "_ARGUMENTS", {FakeTensor, *table._ARGUMENTS})
    with FakeTensorMode(allow_non_fake_inputs=True):
        yield


def on_a_gpu(name: str) -> Attention:
    module = foveate.attention(name, 64)
    for layer in module.modules():
        for group in (layer._parameters, layer._buffers):
            for key, value in group.items():
                group[key] = value if value is None else torch.empty(value.shape, device="cuda")  # pyright: ignore[reportArgumentType]
    return module


@WITH_TRITON
@pytest.mark.usefixtures("cuda_maps")
@pytest.mark.parametrize(
    ("subject", "reason"),
    [
        (Subject("se"), None),
        (Subject("cbam"), None),
        (Subject("coordinate"), None),
        (Subject("gather_excite"), None),
        (Subject("gct"), "no kernel for a GPU pools by norms or deviations"),
        (Subject("srm"), "no kernel for a GPU pools by norms or deviations"),
        (Subject("simam"), "no kernel for a GPU pools by norms or deviations"),
        (Subject("scse"), "no kernel for a GPU takes the greater of two results"),
    ],
    ids=str,
)
def test_what_runs_on_a_gpu(subject: Subject, reason: str | None) -> None:
    module = on_a_gpu(subject.mechanism)
    x = torch.empty(2, 64, 7, 5, device="cuda", dtype=torch.float32)
    assert kernels.why_not(module, x) == dispatch.ON_GPU_ASKED
    with kernels.using("triton"):
        assert kernels.why_not(module, x) == reason
    with kernels.using("cpu"):
        assert kernels.why_not(module, x) == "an input on cuda:0, strided"


@pytest.mark.usefixtures("cuda_maps")
def test_reasons_for_maps_on_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    from foveate.kernels.gpu import support

    monkeypatch.setattr(support, "unavailable", None)
    monkeypatch.setattr(chosen, "choice", "triton")
    module = on_a_gpu("coordinate")
    maps = {
        "an input of float64": torch.empty(1, 64, 4, 4, device="cuda", dtype=torch.float64),
        "rows of more than 4096 values on a GPU": torch.empty(1, 64, 1, 4097, device="cuda"),
        "a sample of more than 2^31 values": torch.empty(1, 64, 2**13, 2**12, device="cuda"),
        "weights that are not bfloat16, as the input is": torch.empty(1, 64, 4, 4, device="cuda", dtype=torch.bfloat16),
    }
    assert [kernels.why_not(module, x) for x in maps.values()] == list(maps)
    with monkeypatch.context() as patch:
        patch.setattr(torch, "is_autocast_enabled", lambda kind: kind == "cuda")
        assert kernels.why_not(module, maps["weights that are not bfloat16, as the input is"]) is None
    left = on_a_gpu("coordinate")
    left.get_submodule("row")._parameters["bias"] = torch.nn.Parameter(torch.empty(64))
    reason = "weights that are not floats on cuda:0, as the input is"
    assert kernels.why_not(left, torch.empty(1, 64, 4, 4, device="cuda")) == reason
    monkeypatch.setattr(support, "unavailable", "Triton is not installed")
    assert kernels.why_not(module, torch.empty(1, 64, 4, 4, device="cuda")) == "Triton is not installed"


@WITH_TRITON
def test_the_forms_are_registered_for_gpus() -> None:
    from foveate.kernels.gpu import cuda_forms, support

    assert support.unavailable is None
    has = torch._C._dispatch_has_kernel_for_dispatch_key
    assert [name for name in cuda_forms.FORMS if not has(f"foveate::{name}", "CUDA")] == []
    forms = [form for operation in OPERATIONS for form in operation.schemas]
    assert sorted(cuda_forms.FORMS) == sorted([*forms, "finish_"])


def test_without_triton_there_is_a_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    from foveate.kernels.gpu import support

    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert support._load() == "Triton is not installed"
    monkeypatch.setattr(torch.version, "hip", "6.4")
    assert support._load() == "an AMD GPU, on which the Triton kernels were never tried"


def test_an_old_gpu_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    from foveate.kernels.gpu import support

    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object())
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda index: [(9, 0), (7, 5)][index])
    assert support._load() == "a GPU of compute capability 7.5, where the Triton kernels need 8.0"


def test_maps_on_the_cpu_import_none_of_it() -> None:
    code = (
        "import sys, torch, foveate; m = foveate.attention('cbam', 64); m(torch.ones(2, 64, 3, 3)); "
        "print([name for name in sys.modules if name.startswith('foveate.kernels.gpu')])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_map_on_the_cpu_has_no_triton_kernel() -> None:
    module, x = Subject("se").module(24).eval(), draw(1, 24, 3, 3)
    with kernels.using("triton"):
        assert kernels.why_not(module, x) == "an input on the CPU, where FOVEATE_KERNELS=triton runs no kernel"
        with pytest.raises(KernelError, match="as FOVEATE_KERNELS=triton requires"):
            module(x)
