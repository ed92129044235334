"""Every mechanism as an ONNX file computes what the module does, at the traced size and at three others."""

from pathlib import Path

import pytest
import torch

from foveate.exporting.formats import onnx
from foveate.exporting.program import trace
from foveate.exporting.subject import subject_of
from foveate.exporting.verify import verify
from foveate.mechanisms import names
from representatives import REPRESENTATIVES
from subjects import Subject

TOLERANCE = 1e-5
MATRICES = ("danet", "double", "ema", "non_local")  # which multiply matrices of positions


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if name in REPRESENTATIVES else pytest.mark.slow) for name in names()]
)
@pytest.mark.reliability(8)
def test_the_file_computes_what_the_module_does(name: str, tmp_path: Path) -> None:
    mechanism = Subject(name)
    module = mechanism.module().eval()
    side = max(mechanism.smallest_open, mechanism.smallest) + 6
    fixed = mechanism.made.options().get("size")
    inputs = mechanism.inputs(2, *(side, side + 2))
    subject = subject_of(module, tuple(inputs))
    path = tmp_path / "module.onnx"
    onnx.write(trace(subject, dynamic=fixed is None), subject, path, {})
    checks = verify(subject, onnx.open(path), dynamic=fixed is None, tolerance=TOLERANCE)
    assert [check for check in checks if not check.passes(TOLERANCE)] == []
    assert len(checks) == (4 if fixed is None else 1)
    assert all(torch.isfinite(output).all() for output in subject.reference(*subject.inputs))


@pytest.mark.parametrize("name", ["polarized", *(pytest.param(name, marks=pytest.mark.slow) for name in MATRICES)])
@pytest.mark.reliability(8)
def test_a_file_of_one_size(name: str, tmp_path: Path) -> None:
    """What has length 1 for the traced size may have another length elsewhere: a fixed size must not mix them up."""
    mechanism = Subject(name)
    subject = subject_of(mechanism.module().eval(), tuple(mechanism.inputs(3, 8, 9)))
    path = tmp_path / "module.onnx"
    onnx.write(trace(subject, dynamic=False), subject, path, {})
    (check,) = verify(subject, onnx.open(path), dynamic=False, tolerance=TOLERANCE)
    assert check.passes(TOLERANCE)
