"""The layers import only downwards, heavy packages load only where they are used, and files stay small."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

SOURCE = Path(__file__).resolve().parent.parent / "src" / "foveate"
LAYERS = [
    {
        "errors",
        "checks",
        "files",
        "storage",
        "plain_yaml",
        "user_code",
        "new_process",
        "text_files",
        "site_names",
        "pages",
    },
    {"spec", "parts", "ops", "normalisation"},
    {"oracle", "cost", "speed", "mechanisms", "facts"},
    {"kernels"},
    {"torch_utils"},
    {"bind", "torch"},
    {"surgery"},
    {"detection"},
    {"models", "data"},
    {"gates"},
    {"keras"},
    {"training"},
    {"lightning", "transformers"},
    {"experiment"},
    {"exporting"},
    {"studies"},
    {"hub"},
    {"report"},
    {"verbs"},
    {"cli"},
    {"__main__"},
]
RANK = {name: rank for rank, layer in enumerate(LAYERS) for name in layer}
MECHANISMS_MAY_IMPORT = {"errors", "checks", "user_code", "spec", "parts", "ops", "mechanisms"}
HEAVY = ("torch", "keras", "numpy")
LONGEST = 400


def layer_of(path: Path) -> str:
    """Return the layer of a source file: its first folder or its own name."""
    return path.relative_to(SOURCE).parts[0].removesuffix(".py")


def imported_layers(tree: ast.AST, package: tuple[str, ...]) -> Iterator[str]:
    """Yield the foveate layers that a module imports anywhere; its relative imports start from `package`."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else ()
            origin = ".".join([*base, *([node.module] if node.module else [])])
            names = [f"{origin}.{alias.name}" for alias in node.names]
        else:
            continue
        for name in names:
            match name.split("."):
                case ["foveate", layer, *_] if layer in RANK:
                    yield layer


def wrong_imports(text: str, path: Path) -> list[str]:
    """Return the imports of a file at this path that are against the order of the layers."""
    layer = layer_of(path)
    package = ("foveate", *path.relative_to(SOURCE).parts[:-1])
    if layer == "mechanisms":
        return [
            f"mechanisms -> {other}"
            for other in imported_layers(ast.parse(text), package)
            if other not in MECHANISMS_MAY_IMPORT
        ]
    return [f"{layer} -> {other}" for other in imported_layers(ast.parse(text), package) if RANK[other] > RANK[layer]]


def python_files() -> list[Path]:
    return sorted(path for path in SOURCE.rglob("*.py") if path.name != "__init__.py" or path.parent != SOURCE)


@pytest.mark.parametrize("path", python_files(), ids=lambda path: str(path.relative_to(SOURCE)))
def test_imports_go_downwards(path: Path) -> None:
    assert layer_of(path) in RANK, "a new layer needs its place in the order: LAYERS above"
    assert wrong_imports(path.read_text(encoding="utf-8"), path) == []


@pytest.mark.parametrize(
    ("where", "text"),
    [
        ("spec.py", "from foveate.surgery import attach"),
        ("spec.py", "def f():\n    import foveate.report.page"),
        ("surgery/core/plans.py", "from ...studies import run"),
        ("surgery/core/plans.py", "from foveate import cli"),
        ("mechanisms/se.py", "from foveate.oracle import evaluate"),
        ("gates/pointing_game.py", "from foveate.studies.study_folder import Record"),
    ],
)
def test_an_upward_import_is_found(where: str, text: str) -> None:
    assert wrong_imports(text, SOURCE / where)


@pytest.mark.parametrize(
    ("where", "text"),
    [
        ("surgery/core/plans.py", "from ...bind.torch import Gate\nimport torch\nfrom foveate.cost import measure"),
        ("studies/run.py", "from foveate.studies.study_folder import Record\nfrom . import arms"),
    ],
)
def test_a_downward_import_is_not(where: str, text: str) -> None:
    assert wrong_imports(text, SOURCE / where) == []


def imported_files(text: str, path: Path, source: Path) -> set[Path]:
    """Return the files of the package that a file imports anywhere, without the `__init__` of the package."""
    package = ("foveate", *path.relative_to(source).parts[:-1])
    names: set[str] = set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else ()
            origin = ".".join([*base, *([node.module] if node.module else [])])
            names |= {name if file_of(name := f"{origin}.{alias.name}", source) else origin for alias in node.names}
    return {file for name in names if (file := file_of(name, source)) is not None} - {path, source / "__init__.py"}


def file_of(module: str, source: Path) -> Path | None:
    """Return the file of a module of the package."""
    root, *parts = module.split(".")
    place = source.joinpath(*parts)
    files = (place.with_suffix(".py"), place / "__init__.py") if parts else (source / "__init__.py",)
    return next((file for file in files if root == "foveate" and file.is_file()), None)


def circle(imports: dict[Path, set[Path]]) -> list[Path]:
    """Return a circle of files, each of which imports the next or is imported by it; [] if there is none."""
    try:
        TopologicalSorter(imports).prepare()
    except CycleError as error:
        return error.args[1]
    return []


def test_no_files_import_each_other() -> None:
    imports = {path: imported_files(path.read_text(encoding="utf-8"), path, SOURCE) for path in python_files()}
    assert sum(map(len, imports.values())) > len(imports)
    assert circle(imports) == []


def test_a_circle_is_found(tmp_path: Path) -> None:
    texts = {
        "a.py": "def f():\n    from foveate.b.c import g",
        "b/c.py": "from foveate import d",
        "d.py": "from .a import f",
        "e.py": "",
    }
    for name, text in texts.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    imports = {tmp_path / name: imported_files(text, tmp_path / name, tmp_path) for name, text in texts.items()}
    assert {path.name for path in circle(imports)} == {"a.py", "c.py", "d.py"}
    imports[tmp_path / "d.py"].clear()
    assert circle(imports) == []


def loaded_by(statement: str, packages: tuple[str, ...]) -> str:
    code = f"{statement}\nimport sys\nprint(*(name for name in {packages} if name in sys.modules))"
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()


def test_the_probe_sees_what_is_loaded() -> None:
    assert loaded_by("import numpy", HEAVY) == "numpy"


def test_import_foveate_is_light() -> None:
    assert loaded_by("import foveate, foveate.errors, foveate.spec, foveate.mechanisms", HEAVY) == ""


def test_the_torch_classes_need_only_torch() -> None:
    assert (
        loaded_by(
            "from foveate.torch import CBAM",
            ("lightning", "pytorch_lightning", "timm", "torchvision", "keras", "scipy"),
        )
        == ""
    )


def test_weight_files_need_no_framework() -> None:
    assert loaded_by("import foveate.models\nfrom foveate.models import load_darknet", ("torch", "keras")) == ""


def test_the_maths_of_detection_needs_only_numpy() -> None:
    modules = ", ".join(f"foveate.detection.{path.stem}" for path in sorted((SOURCE / "detection").glob("[!_]*.py")))
    assert loaded_by(f"import {modules}", ("torch", "keras", "tensorflow", "pycocotools", "faster_coco_eval")) == ""


def test_files_stay_small() -> None:
    files = [*SOURCE.rglob("*.py"), *Path(__file__).parent.rglob("*.py")]
    sizes = {str(path): len(path.read_text(encoding="utf-8").splitlines()) for path in files}
    assert {name: size for name, size in sizes.items() if size > LONGEST} == {}


# Names that several files may share: a part or an operation and its binding to each framework, and the same step of
# attaching for each framework.
SHARED = {"attaching", "attention", "comparing", "example", "host", "ops", "parts", "published"}
BOUND = {"Attend", "Attention", "Constant", "Gate", "Network", "Replace", "Scale"}


def repeated(names: Iterator[tuple[str, Path]], allowed: set[str]) -> dict[str, set[str]]:
    """Return the names that more than one file has, with the files."""
    files: dict[str, set[str]] = {}
    for name, path in names:
        files.setdefault(name, set()).add(path.relative_to(SOURCE).as_posix())
    return {name: paths for name, paths in files.items() if len(paths) > 1 and name not in allowed}


def test_a_name_means_one_thing() -> None:
    paths = [path for path in python_files() if path.name != "__init__.py"]
    assert repeated(((path.stem, path) for path in paths), SHARED) == {}
    trees = [(path, ast.parse(path.read_text(encoding="utf-8"))) for path in paths]
    classes = ((node.name, path) for path, tree in trees for node in tree.body if isinstance(node, ast.ClassDef))
    assert repeated(classes, BOUND) == {}


def test_a_repeated_name_is_found() -> None:
    same = [("Layout", SOURCE / "bind" / "a.py"), ("Layout", SOURCE / "data" / "b.py"), ("Cell", SOURCE / "c.py")]
    assert repeated(iter(same), set()) == {"Layout": {"bind/a.py", "data/b.py"}}
    assert repeated(iter(same), {"Layout"}) == {}
