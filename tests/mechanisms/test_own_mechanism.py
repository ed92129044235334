"""A mechanism of the user's own works everywhere that a built-in one does."""

import copy
import os
import pickle
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from torch import nn

import foveate
from foveate import mechanisms
from foveate.cost import measure
from foveate.errors import UsageError
from foveate.oracle import evaluate
from foveate.parts import Parts
from foveate.spec import Mechanism
from mechanisms.own import Named, Pixel

OWN = Path(__file__).with_name("own.py")
EXAMPLE = (1, 3, 9, 9)


@pytest.fixture
def registry() -> Iterator[dict[str, type[Mechanism]]]:
    """The registered mechanisms, as they were before at the end."""
    before = dict(mechanisms._registered)
    yield mechanisms._registered
    mechanisms._registered.clear()
    mechanisms._registered.update(before)


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 4, 3)).eval()


def attached() -> nn.Module:
    model = network()
    foveate.attach(model, Pixel(bias=False), where="1", example=EXAMPLE)
    nn.init.normal_(model.get_parameter("1.foveate_attention.conv.weight"))
    return model


@pytest.mark.parametrize("given", [Pixel, Pixel(), f"{OWN}:Pixel", f"{__package__}.own:Pixel"], ids=str)
def test_a_module_of_it_computes_what_the_oracle_computes(given: Any) -> None:
    module = foveate.attention(given, 6, bias=False).double()
    x = torch.rand(2, 6, 5, 4, dtype=torch.float64)
    weights = {name: value.numpy() for name, value in module.state_dict().items()}
    assert torch.allclose(module(x), torch.from_numpy(evaluate(module.mechanism, weights, x.numpy())[0]))
    assert torch.allclose(module(x), x * torch.sigmoid(nn.functional.conv2d(x, module.state_dict()["conv.weight"])))
    assert measure(module.mechanism, (2, 6, 5, 4)).parameters == 6 == sum(p.numel() for p in module.parameters())
    assert repr(module).startswith("Pixel(\n  6, bias=False, start='paper'")


def test_its_modules_are_copied_and_pickled() -> None:
    module = foveate.attention(Pixel, 4)
    for twin in (copy.deepcopy(module), pickle.loads(pickle.dumps(module))):
        assert twin.mechanism == Pixel()
        assert torch.equal(twin.state_dict()["conv.weight"], module.state_dict()["conv.weight"])


def test_it_is_attached_recorded_baked_and_transferred() -> None:
    plan = foveate.plan(network(), Pixel, where="1", example=EXAMPLE, bias=False)
    assert (plan.mechanism, plan.options, plan.parameters) == ("pixel", {"bias": False}, 8)
    model, x = attached(), torch.rand(1, 3, 9, 9)
    with foveate.record(model) as recording:
        y = model(x)
    assert not torch.equal(y, network()(x))
    assert [gate.kind for gate in recording.gates] == ["spatial"]
    assert torch.equal(foveate.bake(model)(x), y)
    other = network()
    foveate.attach(other, Pixel(bias=False), where="1", example=EXAMPLE)
    foveate.transfer_weights(model, other)
    assert torch.equal(other(x), y)


def test_an_adapter_carries_it(tmp_path: Path) -> None:
    foveate.save_adapter(attached(), tmp_path / "a.safetensors")
    model, x = network(), torch.rand(1, 3, 9, 9)
    foveate.load_adapter(model, tmp_path / "a.safetensors")
    assert torch.equal(model(x), attached()(x))


LOAD = """
import sys, foveate
from torch import nn
model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 4, 3)).eval()
try:
    foveate.load_adapter(model, sys.argv[1])
except foveate.errors.UsageError as error:
    print(error, "mechanisms.own" in sys.modules, len(list(model.modules())))
"""


def test_an_adapter_names_the_class_that_it_needs_and_imports_nothing(tmp_path: Path) -> None:
    foveate.save_adapter(attached(), tmp_path / "a.safetensors")
    command = [sys.executable, "-c", LOAD, str(tmp_path / "a.safetensors")]
    environment = {**os.environ, "PYTHONPATH": f"{OWN.parents[1]}:{os.environ.get('PYTHONPATH', '')}"}
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    assert "Expected the mechanism 'pixel' as the class mechanisms.own:Pixel, which is not built in" in done.stdout
    assert "Do: import mechanisms.own first" in done.stdout
    assert done.stdout.endswith("False 5\n")


def test_a_registered_mechanism_has_its_name_everywhere(registry: dict[str, type[Mechanism]]) -> None:
    assert foveate.register(Pixel) is Pixel
    assert registry == {"pixel": Pixel}
    assert mechanisms.names()[-1] == "pixel"
    assert "pixel" not in mechanisms.built_in()
    assert foveate.attention("PIXEL", 4, bias=False).mechanism == Pixel(bias=False)
    foveate.register(Pixel)
    with pytest.raises(UsageError, match="did you mean 'bias'"):
        foveate.attention("pixel", 4, bais=False)


def test_a_name_is_given_once(registry: dict[str, type[Mechanism]]) -> None:
    @dataclass(frozen=True)
    class Another(Pixel):
        name: ClassVar[str] = "pixel"

    @dataclass(frozen=True)
    class SE(Pixel):
        pass

    foveate.register(Pixel)
    for kind, taken in ((Another, "the name of mechanisms.own:Pixel"), (SE, "the name of foveate.mechanisms.se:SE")):
        with pytest.raises(UsageError, match=taken):
            foveate.register(kind)
    assert registry == {"pixel": Pixel}


def test_a_registered_mechanism_has_defaults(registry: dict[str, type[Mechanism]]) -> None:
    @dataclass(frozen=True)
    class Open(Mechanism):
        units: int

    with pytest.raises(UsageError, match="with units without one"):
        foveate.register(Open)
    assert not registry


@pytest.mark.parametrize("wrong", [Mechanism, nn.Module, "pixel", None, Pixel()], ids=str)
def test_only_mechanisms_are_registered(wrong: Any, registry: dict[str, type[Mechanism]]) -> None:
    with pytest.raises(UsageError, match=r"Expected a subclass of foveate\.spec\.Mechanism"):
        foveate.register(wrong)
    assert not registry


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("nowhere/own.py:Pixel", "the file of a mechanism at nowhere/own.py"),
        ("no.such.package:Pixel", "a mechanism as path/to/file.py:name"),
        (f"{OWN}:Pixl", "did you mean 'Pixel'"),
        (f"{OWN}:Conv", "a subclass of foveate.spec.Mechanism at own.py:Conv"),
    ],
)
def test_a_name_of_code_that_is_not_there(name: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        foveate.attention(name, 4)


def test_the_base_class_is_no_mechanism() -> None:
    with pytest.raises(UsageError, match="Received the base class Mechanism"):
        foveate.attention(Mechanism, 4)


def test_a_class_that_is_no_mechanism_says_what_is_missing() -> None:
    class Empty(Mechanism):
        def parts(self, channels: int) -> Parts:
            return {}

    assert Empty.name == "empty"
    with pytest.raises(NotImplementedError):
        foveate.attention(Empty, 4)(torch.ones(1, 4, 2, 2))


@pytest.mark.parametrize("name", ["forward", "training", "channels", "mechanism"])
def test_a_part_that_is_named_like_an_attribute_of_a_module_is_refused(name: str) -> None:
    with pytest.raises(UsageError, match=rf"torch's Module does not use(.|\n)*'{name}'\nDo: .* to {name}_layer"):
        foveate.attention(Named(name), 4)
    assert foveate.attention(Named("squeeze"), 4)(torch.ones(1, 4, 2, 2)).shape == (1, 4, 2, 2)


PACKAGE = """[foveate.mechanisms]
pixel = own_mechanisms:Pixel
"""


def test_an_installed_package_adds_its_mechanisms(tmp_path: Path) -> None:
    (tmp_path / "own_mechanisms.py").write_text(OWN.read_text(encoding="utf-8"), encoding="utf-8")
    about = tmp_path / "own_mechanisms-1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: own-mechanisms\nVersion: 1.0\n", encoding="utf-8")
    (about / "entry_points.txt").write_text(PACKAGE, encoding="utf-8")
    environment = {**os.environ, "PYTHONPATH": f"{tmp_path}:{os.environ.get('PYTHONPATH', '')}"}
    run = "import foveate; print(foveate.attention('pixel', 4), foveate.mechanisms.names()[-1])"
    done = subprocess.run([sys.executable, "-c", run], capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr
    assert "Pixel(\n  4, bias=True" in done.stdout
    assert done.stdout.endswith("pixel\n")
    (tmp_path / "own_mechanisms.py").write_text("1 / 0", encoding="utf-8")
    done = subprocess.run([sys.executable, "-c", run], capture_output=True, text=True, check=False, env=environment)
    assert "the mechanism 'pixel' of an installed package, own_mechanisms:Pixel" in done.stderr
    assert "ZeroDivisionError" in done.stderr
