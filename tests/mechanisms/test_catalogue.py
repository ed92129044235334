"""A file in the folder registers its mechanism."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from torch import nn

import foveate.torch
from foveate.bind.torch.parts import Scale
from foveate.mechanisms import catalogue, get, names
from foveate.spec import Mechanism
from subjects import Subject

LAYERS = (nn.Conv2d, nn.Conv1d, nn.BatchNorm2d, nn.GroupNorm, nn.LayerNorm, Scale)
SOURCE = Path(foveate.__file__).parent
HALF = '''
from dataclasses import dataclass
from typing import ClassVar

from foveate.ops import Array, Bound, Ops
from foveate.parts import Conv, Gate, Parts
from foveate.spec import Mechanism


@dataclass(frozen=True)
class PixelGate(Mechanism):
    """y = x * sigmoid(conv1x1(x))."""

    bias: bool = True
    name: ClassVar[str] = "pixel"
    paper: ClassVar[str] = "none"

    def parts(self, channels: int) -> Parts:
        return {"conv": Conv(channels, 1, bias=self.bias), "gate": Gate("spatial")}

    def forward(self, F: Ops[Array], p: Bound[Array], x: Array) -> Array:
        return p.gate(x, p.conv(x))
'''
USE = """
import torch, foveate, foveate.mechanisms
from foveate.surgery.core.published import load_published
from foveate.cost import measure
from foveate.oracle import evaluate
from foveate.torch import PixelGate

assert "pixel" in foveate.mechanisms.names()
module = foveate.attention("pixel", 4, bias=False)
assert type(module) is PixelGate
load_published(module, {"conv.weight": torch.ones(1, 4)})
x = torch.ones(1, 4, 2, 3)
y, _ = evaluate(module.mechanism, {"conv.weight": module.conv.weight.detach()}, x)
assert torch.allclose(module(x).double(), torch.from_numpy(y))
assert measure(module.mechanism, (1, 4, 2, 3)).macs == 24
print(foveate.__file__)
"""


def test_a_new_file_is_a_new_mechanism(tmp_path: Path) -> None:
    package = shutil.copytree(SOURCE, tmp_path / "foveate", ignore=shutil.ignore_patterns("__pycache__"))
    (package / "mechanisms" / "pixel.py").write_text(HALF, encoding="utf-8")
    environment = {**os.environ, "PYTHONPATH": str(tmp_path), "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(
        [sys.executable, "-c", USE], capture_output=True, text=True, check=False, env=environment, cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    assert Path(done.stdout.strip()) == package / "__init__.py"


def test_every_file_is_in_the_catalogue_and_in_foveate_torch() -> None:
    assert names() == sorted(path.stem for path in (SOURCE / "mechanisms").glob("*.py") if path.stem != "__init__")
    for name, kind in catalogue().items():
        assert getattr(foveate.torch, kind.__name__).kind is get(name)


@pytest.mark.parametrize("name", names())
def test_a_mechanism_names_its_paper_its_shapes_and_plain_options(name: str) -> None:
    kind: type[Mechanism] = get(name)
    assert re.search(r"arXiv:\d{4}\.\d{5}|doi:10\.\d{4}|https://\S+\.pdf", kind.paper)
    assert "(N, C, H, W)" in (kind.__doc__ or "")
    options = kind().options()
    assert all(isinstance(value, int | float | str | tuple | None) for value in options.values())
    assert kind(**options) == kind()


@pytest.mark.parametrize("name", names())
def test_a_mechanism_is_native_layers(name: str) -> None:
    module = foveate.attention(Subject(name).made, 4 * Subject(name).channels)
    holders = [child for child in module.modules() if list(child.parameters(recurse=False))]
    assert [child for child in holders if not isinstance(child, LAYERS)] == []
    assert repr(module).startswith(get(name).__name__)
