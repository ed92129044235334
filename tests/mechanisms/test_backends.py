"""Every backend has every operation and part, and gives the weights of a part their names and shapes."""

import inspect
import subprocess
import sys
from pathlib import Path

import pytest

from foveate import cost, oracle
from foveate.bind.torch.attention import attention
from foveate.bind.torch.ops import TorchOps
from foveate.bind.torch.parts import TorchParts
from foveate.mechanisms import names
from foveate.ops import Ops
from foveate.parts import Maker, weights
from subjects import Subject

BACKENDS = [oracle.NumpyOps, oracle.NumpyParts, cost.Meter, cost.CostParts, TorchOps, TorchParts]
RIGHT = "return p.gate(x, p.conv(x) * 2 - F.mean(x, F.hw) / 3)"
WRONG = [
    "return p.gate(x, p.conv(x) * '2')",
    "return p.gate(x, F.mean(x))",
    "return p.gate(x, F.median(x, F.hw))",
    "return F.size(x, F.h)",
]
MECHANISM = """
from foveate.ops import Array, Bound, Ops
from foveate.spec import Mechanism

class Mine(Mechanism):
    def forward(self, F: Ops[Array], p: Bound[Array], x: Array) -> Array:
        {}
"""


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_backend_lacks_nothing(backend: type) -> None:
    assert not inspect.isabstract(backend)
    for name in (Ops if issubclass(backend, Ops) else Maker).__abstractmethods__:
        without = type("Without", (backend,), {name: getattr(Ops if issubclass(backend, Ops) else Maker, name)})
        with pytest.raises(TypeError, match=name):
            without()


@pytest.mark.parametrize("name", names())
def test_torch_gives_the_weights_their_names_and_shapes(name: str) -> None:
    subject = Subject(name)
    module = attention(subject.made, 4 * subject.channels)
    state = {key: tuple(value.shape) for key, value in module.state_dict().items() if not key.endswith("_tracked")}
    assert state == weights(module.mechanism.parts(module.channels))


@pytest.mark.slow
def test_a_type_checker_reads_the_body_of_a_mechanism(tmp_path: Path) -> None:
    for number, line in enumerate([RIGHT, *WRONG]):
        (tmp_path / f"mine{number}.py").write_text(MECHANISM.format(line), encoding="utf-8")
    command = [sys.executable, "-m", "pyright", "--pythonpath", sys.executable, str(tmp_path)]
    said = subprocess.run(command, capture_output=True, text=True, check=False).stdout
    assert [f"mine{number}.py:7" in said for number in range(5)] == [False, True, True, True, True], said
