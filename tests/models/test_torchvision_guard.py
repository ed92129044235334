"""The guard of torchvision; each case runs in a new process, as it acts only at the first import."""

import subprocess
import sys
from pathlib import Path

import pytest

from foveate.models.torchvision_guard import SCHEMAS

HIDE = """
from importlib.machinery import PathFinder
find = PathFinder.find_spec
PathFinder.find_spec = lambda name, *rest: None if name.split(".")[0] in {hidden} else find(name, *rest)
"""
NO_OPERATORS = """
import torch
def fail(path):
    raise OSError("undefined symbol")
torch.ops.load_library = fail
"""
GUARD = "from foveate.models.torchvision_guard import ensure_torchvision\nensure_torchvision()\n"
REPORT = """
from foveate.errors import UsageError
from foveate.models.torchvision_guard import ensure_torchvision
try:
    ensure_torchvision()
except UsageError as error:
    print(error)
"""
USE = """
import torch, torchvision, timm, lightning, torchmetrics
from torchvision.transforms import v2
from torchvision.datasets import ImageFolder
x = torch.randn(1, 3, 64, 64)
print(tuple(torchvision.models.mobilenet_v3_small(num_classes=3).eval()(x).shape), tuple(v2.Resize(8)(x).shape))
"""


def python(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)


@pytest.mark.reliability(28)
def test_without_its_operators_torchvision_still_works() -> None:
    suppression = "from foveate.models.torchvision_nms import runs_on\nprint(runs_on('cpu'), runs_on('cuda'))\n"
    result = python(NO_OPERATORS + GUARD + GUARD + USE + suppression)
    assert result.stdout == "(1, 3) (1, 3, 8, 8)\nFalse False\n", result.stderr


def test_the_fault_is_real_without_the_guard() -> None:
    result = python(NO_OPERATORS + "import torchvision")
    assert "operator torchvision::nms does not exist" in result.stderr


def test_real_operators_are_not_declared_again() -> None:
    """Operators that load (here declared instead of load_library) must not be declared again, as torch refuses that."""
    code = f"""
import torch
library = torch.library.Library("torchvision", "DEF")
def load(path):
    for schema in {SCHEMAS!r}:
        library.define(schema)
    library.define("_cuda_version() -> int")
    library.impl("_cuda_version", lambda: -1, "CompositeExplicitAutograd")
    torch.ops.load_library = lambda path: None
torch.ops.load_library = load
"""
    result = python(code + GUARD + "import torchvision; print(torchvision.extension._has_ops())")
    assert result.stdout == "True\n", result.stderr


@pytest.mark.reliability(28)
def test_a_missing_torchvision_is_named_with_its_fix() -> None:
    result = python(HIDE.format(hidden={"torchvision"}) + REPORT)
    assert "Received an environment without it" in result.stdout, result.stderr
    assert "pip install torch torchvision" in result.stdout


@pytest.mark.reliability(28)
def test_a_broken_torchvision_is_named_with_its_fix(tmp_path: Path) -> None:
    code = f"""
import sys, pathlib
folder = pathlib.Path({str(tmp_path)!r})
(folder / "torchvision").mkdir()
(folder / "torchvision/__init__.py").write_text("raise AttributeError('half an installation')")
sys.path.insert(0, str(folder))
"""
    result = python(code + REPORT)
    assert "half an installation" in result.stdout, result.stderr
    assert "--force-reinstall" in result.stdout


@pytest.mark.parametrize(
    "hidden", [{"torchvision", "timm", "lightning", "torchmetrics", "scipy", "sklearn", "matplotlib", "jinja2", "PIL"}]
)
@pytest.mark.reliability(28)
def test_the_core_needs_only_torch(hidden: set[str]) -> None:
    code = """
import torch, foveate
from foveate.models.cifar_resnet import CifarResNet
x = torch.randn(2, 3, 32, 32)
model = CifarResNet(8).eval()
before = model(x)
foveate.attach(model, "cbam")
print(torch.equal(before, model(x)), tuple(foveate.attention("se", 32)(torch.randn(1, 32, 4, 4)).shape))
"""
    result = python(HIDE.format(hidden=hidden) + code)
    assert result.stdout == "True (1, 32, 4, 4)\n", result.stderr
