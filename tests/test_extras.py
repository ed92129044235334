"""If an optional package is not installed, every call gives the pip install line."""

import importlib.metadata
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from foveate import errors
from foveate.errors import EXTRAS, MissingExtra, UsageError, extra_of, imported, naming_extras

WITHOUT = """
import sys
from importlib.machinery import PathFinder
find = PathFinder.find_spec
PathFinder.find_spec = lambda name, *rest: None if name.partition(".")[0] in {hidden} else find(name, *rest)
{code}
"""


def without(hidden: str, code: str, folder: Path) -> subprocess.CompletedProcess[str]:
    program = WITHOUT.format(hidden=hidden.split(), code=code)
    return subprocess.run([sys.executable, "-c", program], cwd=folder, capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    ("hidden", "code", "package", "extra"),
    [
        ("torch", "import foveate; foveate.attach", "torch", "torch"),
        ("torch", "from foveate import record", "torch", "torch"),
        ("torch", "from foveate.torch import CBAM", "torch", "torch"),
        ("torch", "from foveate.models import build", "torch", "torch"),
        ("torch", "from foveate.surgery import plan", "torch", "torch"),
        ("torch", "from foveate.studies import run_study", "torch", "torch"),
        ("keras", "import foveate.keras", "keras", "keras"),
        ("timm", "from foveate.models import build; build('timm/resnet18', 2)", "timm", "study"),
    ],
)
@pytest.mark.reliability(28)
def test_python_names_the_extra(hidden: str, code: str, package: str, extra: str, tmp_path: Path) -> None:
    caught = f"try:\n    {code}\nexcept ImportError as error:\n    sys.exit(f'{{type(error).__name__}}\\n{{error}}')"
    done = without(hidden, caught, tmp_path)
    message = f"MissingExtra\nExpected the package {package!r}\nReceived an environment without it\n"
    assert done.stderr == f'{message}Do: pip install "foveate[{extra}]"\n'


@pytest.mark.parametrize(
    ("hidden", "verb", "package", "extra"),
    [
        *(
            ("torch", verb, "torch", "study")
            for verb in ("plan resnet8", "train", "val --run x", "predict . --run x", "study")
        ),
        pytest.param("timm", "plan timm/resnet18", "timm", "study", marks=pytest.mark.slow),
        ("sklearn", "train", "scikit-learn", "study"),
    ],
)
@pytest.mark.reliability(28)
def test_the_command_line_names_the_extra(hidden: str, verb: str, package: str, extra: str, tmp_path: Path) -> None:
    done = without(hidden, f"from foveate.cli import main\nmain({verb.split()})", tmp_path)
    message = (
        f"Error: expected the package {package!r}; received an environment without it\n"
        f'Fix:   pip install "foveate[{extra}]"\n'
    )
    assert (done.returncode, done.stdout, done.stderr[-len(message) :]) == (2, "", message)
    assert not (tmp_path / "runs").exists()


@pytest.mark.reliability(28)
def test_doctor_and_list_need_none_of_them(tmp_path: Path) -> None:
    hidden = " ".join(module for modules in EXTRAS.values() for module in modules)
    for verb in ("doctor", "list"):
        done = without(hidden, f"from foveate.cli import main\nmain(['{verb}'])", tmp_path)
        assert (done.returncode, done.stderr) == (0, "")


def test_other_missing_modules_raise_their_own_error() -> None:
    with pytest.raises(ModuleNotFoundError, match="nothing_of_this_name"):
        imported("foveate.nothing_of_this_name")
    with pytest.raises(ValueError, match="torch"), naming_extras():
        raise ValueError("torch")
    assert extra_of(ImportError("cannot import name", name="torch")) is None
    assert extra_of(ModuleNotFoundError(name="torch.nn")) == "torch"
    assert isinstance(errors.missing_extra("av", "detect"), UsageError)
    assert issubclass(MissingExtra, ImportError)


def test_the_modules_are_those_of_the_extras_that_users_install(root: Path) -> None:
    named = tomllib.loads((root / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    installed = {
        module: {name.lower() for name in names}
        for module, names in importlib.metadata.packages_distributions().items()
    }
    installed["lightning"] = {"lightning"}  # its own distribution, or a folder in that of pytorch-lightning
    brought: set[str] = set()
    for extra, modules in EXTRAS.items():
        wanted = {re.split(r"[<>=\[]", line)[0] for line in named[extra]} - {"foveate"} - brought
        brought |= wanted
        names = {module: installed.get(module, {module.replace("_", "-")}) for module in modules}
        found = {next(iter(names[module] & {*wanted, *brought}), module) for module in modules}
        assert found == wanted, extra
