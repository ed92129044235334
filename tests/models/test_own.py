"""A user's own network: the file and function of a name, the arguments, and the result that is required."""

import importlib
import sys
from functools import partial, reduce
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from foveate.errors import UsageError
from foveate.models import build
from foveate.user_code import code_digest, is_own, located, name_of, short_name

NET = """
import torch
from torch import nn
import parts

def make(classes, channels=3):
    return nn.Sequential(parts.conv(channels), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, classes)).eval()

class Zoo:
    @staticmethod
    def small(classes, **rest):
        model = make(classes, rest["channels"])
        model.seen = dict(rest, classes=classes)
        return model

class Net(nn.Module):
    def __init__(self, *, classes, imgsz):
        super().__init__()
        self.side, self.out = imgsz, nn.Linear(3 * imgsz * imgsz, classes)
    def forward(self, x):
        return self.out(x.flatten(1))

def drawn(classes): return nn.Sequential(nn.Flatten(), nn.LazyLinear(classes))
def num(num_classes): return make(num_classes)
def more(classes, depth): return make(classes)
def nothing(classes): pass
def fails(classes): raise ValueError("no such depth")
def many(classes): return make(classes + 1)
def pair(classes):
    class Pair(nn.Module):
        def forward(self, x): return x, x
    return Pair()
def only_grey(classes): return make(classes, 1)
def needs(classes, imgsz): return Net(classes=classes, imgsz=imgsz)
def ends(classes): raise SystemExit(3)
from torch import relu as compiled
number = 3
"""


@pytest.fixture
def net(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file with functions, and a neighbouring file that it imports."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(sys.modules, "parts", raising=False)
    (tmp_path / "nets").mkdir()
    (tmp_path / "nets" / "mine.py").write_text(NET)
    (tmp_path / "nets" / "parts.py").write_text(
        "from torch import nn\ndef conv(channels): return nn.Conv2d(channels, 4, 3)\n"
    )
    return Path("nets/mine.py")


@pytest.mark.parametrize("function", ["make", "Zoo.small", "Net", "drawn"])
def test_it_is_built_by_its_function_and_ready_to_learn(net: Path, function: str) -> None:
    path = list(sys.path)
    model = build(f"{net}:{function}", 7, channels=3, imgsz=32)
    assert model(torch.rand(2, 3, 32, 32)).shape == (2, 7)
    assert all(module.training for module in model.modules())
    assert sys.path == path
    assert not list(net.parent.glob("__pycache__/mine*")), "nothing is written beside it"


def test_it_is_called_with_what_its_signature_has(net: Path) -> None:
    model = build(f"{net}:Zoo.small", 5, channels=2, imgsz=40)
    assert model.seen == {"classes": 5, "channels": 2, "imgsz": 40}


@pytest.mark.parametrize("function", ["make", "drawn"])
def test_its_weights_follow_from_torchs_seed(net: Path, function: str) -> None:
    def weights(seed: int) -> dict[str, Any]:
        torch.manual_seed(seed)
        return build(f"{net}:{function}", 3, imgsz=32).state_dict()

    first, again, other = weights(1), weights(1), weights(2)
    assert all(torch.equal(first[key], again[key]) for key in first)
    assert not all(torch.equal(first[key], other[key]) for key in first)


@pytest.mark.parametrize(
    ("name", "received", "do"),
    [
        ("nets/absent.py:make", "no such file", "check the path"),
        ("nets/mine.py:maek", "'maek', which the file does not define", "did you mean 'make'"),
        ("nets/mine.py:", "''", "choose one of"),
        ("nets/mine.py:number", "'number', a int", "name a function"),
        ("nets/mine:make", "neither a .py file nor an installed module", "nets/mine.py:make"),
        ("absent.module:make", "neither a .py file nor an installed module", "--model"),
        ("nets/mine.py:num", "mine.py:num(num_classes)", "def make(classes"),
        ("nets/mine.py:more", "mine.py:more(classes, depth)", "def make(classes"),
        ("nets/mine.py:needs", "mine.py:needs(classes, imgsz)", "give --imgsz"),
        ("nets/mine.py:nothing", "a NoneType", "return the network"),
        ("nets/mine.py:fails", "ValueError: no such depth", "--debug"),
        ("nets/mine.py:ends", "SystemExit: 3", "--debug"),
        ("nets/mine.py:compiled", "mine.py:compiled, whose parameters cannot be read", "def make(classes"),
        ("nets/mine.py:many", "(2, 6)", "one output for each class"),
        ("nets/mine.py:pair", "a tuple", "one output for each class"),
        ("nets/mine.py:only_grey", "RuntimeError: Given groups=1", "--debug"),
    ],
)
def test_a_wrong_model_is_refused_with_its_cause(net: Path, name: str, received: str, do: str) -> None:
    with pytest.raises(UsageError) as caught:
        build(name, 5)
    assert received in caught.value.received
    assert do in caught.value.do


@pytest.mark.parametrize(
    ("content", "received"),
    [
        ("def make(classes):\n  return (", "SyntaxError: '(' was never closed"),
        ("import nowhere_at_all", "ModuleNotFoundError: No module named 'nowhere_at_all'"),
        ("raise SystemExit(3)", "SystemExit: 3"),
        ("\0", "SyntaxError"),
    ],
)
def test_a_file_that_cannot_be_imported_is_refused(net: Path, content: str, received: str) -> None:
    net.write_text(content)
    with pytest.raises(UsageError, match="a file that can be imported") as caught:
        build(f"{net}:make", 5)
    assert received in caught.value.received
    net.write_text(NET)
    assert build(f"{net}:make", 5)(torch.rand(1, 3, 32, 32)).shape == (1, 5), "mended, it is read anew"


def test_the_digest_is_of_the_file_and_of_nothing_else(net: Path) -> None:
    before = code_digest(f"{net}:make")
    assert before == code_digest(f"{net.resolve()}:many")
    net.with_name("parts.py").write_text("")
    assert code_digest(f"{net}:make") == before
    net.write_text(NET + "\n")
    assert code_digest(f"{net}:make") != before
    assert code_digest("resnet8") is code_digest(None) is None


def test_names(net: Path) -> None:
    name = f"{net}:make"
    assert [is_own(one) for one in (name, "resnet8", "timm/resnet18.a1_in1k", None)] == [True, False, False, False]
    assert (short_name(name), short_name("timm/resnet18")) == ("mine.py:make", "timm/resnet18")
    assert located(name) == f"{net.resolve()}:make"


@pytest.mark.parametrize("qualified", ["make", "Zoo.small", "Net"])
def test_a_callable_of_a_file_has_a_name_by_which_it_is_found(
    net: Path, qualified: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(net.parent)
    monkeypatch.delitem(sys.modules, "mine", raising=False)
    function: Any = reduce(getattr, qualified.split("."), importlib.import_module("mine"))
    name = name_of(function)
    assert name == f"{net.resolve()}:{qualified}"
    assert build(name, 4, imgsz=16)(torch.rand(2, 3, 16, 16)).shape == (2, 4)


def plain(classes: int) -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.LazyLinear(classes))


@pytest.mark.parametrize("how", ["lambda", "inner", "partial", "built-in", "notebook"])
def test_a_callable_that_other_processes_cannot_import_is_refused(how: str) -> None:
    def inner(classes: int) -> nn.Module:
        return plain(classes)

    typed: dict[str, Any] = {"__name__": "<stdin>"}
    exec("def make(classes): return None", typed)
    chosen: dict[str, Any] = {
        "lambda": lambda classes: plain(classes),
        "inner": inner,
        "partial": partial(plain, classes=3),
        "built-in": len,
        "notebook": typed["make"],
    }
    with pytest.raises(UsageError, match=r"a function at the top level of a \.py file") as caught:
        name_of(chosen[how])
    assert "def make(classes)" in caught.value.do


def test_a_module_of_a_package_is_named_by_the_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It can import its neighbours by relative names."""
    home = tmp_path / "fov_pack"
    home.mkdir()
    (home / "__init__.py").write_text("")
    (home / "base.py").write_text("from torch import nn\ndef flat(): return nn.Flatten()\n")
    (home / "net.py").write_text(
        "from torch import nn\nfrom .base import flat\n"
        "def make(classes): return nn.Sequential(flat(), nn.LazyLinear(classes))\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    import fov_pack.net  # pyright: ignore[reportMissingImports]

    name = name_of(fov_pack.net.make)
    assert name == "fov_pack.net:make"
    assert build(name, 4, imgsz=16)(torch.rand(2, 3, 16, 16)).shape == (2, 4)
    assert code_digest(name) is not None
