"""The public names: new names may be added here, but a name must be deprecated before it is removed."""

import ast
import importlib
import inspect
import subprocess
import sys
from pathlib import Path

import pytest

import foveate
import foveate.torch
from foveate.errors import deprecate
from foveate.mechanisms import built_in

CLASSES = [kind.__name__ for kind in built_in().values()]
PUBLIC = {
    "foveate": [
        "attach",
        "attached_state_dict",
        "attention",
        "attention_parameters",
        "bake",
        "compare",
        "detach",
        "explain",
        "export",
        "freeze_host",
        "host_state_dict",
        "load_adapter",
        "load_host_state_dict",
        "load_published",
        "load_run",
        "plan",
        "record",
        "register",
        "save_adapter",
        "study",
        "train",
        "transfer_weights",
    ],
    "foveate.hub": ["from_pretrained", "push_to_hub", "save_pretrained"],
    "foveate.lightning": ["Attend"],
    "foveate.models": [
        "BUILT_IN",
        "CifarResNet",
        "ResNetFPN4",
        "YOLOv4Tiny",
        "build",
        "darknet_arrays",
        "detect",
        "ensure_torchvision",
        "load_darknet",
        "load_weights",
        "save_darknet",
        "save_weights",
        "set_darknet_arrays",
    ],
    "foveate.torch": sorted(["Attention", "Gate", "attention", *CLASSES]),
}
# Keras needs its own process: here its stub is read; the module itself is tested in tests/on_keras.
PUBLIC_KERAS = [
    *CLASSES,
    "Attend",
    "Attention",
    "BoxBatches",
    "Detector",
    "Gate",
    "attach",
    "attention",
    "detach",
    "load_adapter",
    "plan",
    "record",
    "save_adapter",
    "yolov4_tiny",
]


@pytest.mark.parametrize("module", PUBLIC)
def test_the_public_names_are_these(module: str) -> None:
    assert sorted(importlib.import_module(module).__all__) == PUBLIC[module]


def test_the_public_names_of_keras_are_these() -> None:
    stub = ast.parse((Path(foveate.__file__).parent / "keras" / "__init__.pyi").read_text("utf-8"))
    (listed,) = (
        ast.literal_eval(line.value)
        for line in stub.body
        if isinstance(line, ast.Assign) and ast.unparse(line.targets[0]) == "__all__"
    )
    assert sorted(listed) == sorted(PUBLIC_KERAS)


@pytest.mark.parametrize(
    ("module", "name"), [(module, name) for module, names in PUBLIC.items() for name in names if not name.isupper()]
)
def test_every_public_name_is_there_and_documented(module: str, name: str) -> None:
    value = getattr(importlib.import_module(module), name)
    assert callable(value)
    assert inspect.getdoc(value)


def test_dir_lists_the_names_before_they_are_loaded() -> None:
    assert set(PUBLIC["foveate"]) <= set(dir(foveate))


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'attend'"):
        foveate.attend  # type: ignore[attr-defined]  # noqa: B018


@pytest.mark.parametrize("name", ["Attention", "CBAM"])
def test_the_classes_show_their_options(name: str) -> None:
    parameters = inspect.signature(getattr(foveate.torch, name)).parameters
    assert {"channels", "start", "device", "dtype"} <= set(parameters)
    assert name == "Attention" or parameters["reduction"].default == 16


def test_the_shared_arguments_of_attach_and_plan() -> None:
    for name in ("plan", "attach"):
        assert list(inspect.signature(getattr(foveate, name)).parameters)[:5] == [
            "model",
            "mechanism",
            "where",
            "example",
            "start",
        ]


VERBS = ("attach", "bake", "explain", "export", "load_run", "plan", "record", "study", "train")
ROOMS = (
    "foveate.studies.run",
    "foveate.training.loop",
    "foveate.gates.recording",
    "foveate.surgery.core.plans",
    "foveate.experiment.arms",
)


@pytest.mark.parametrize("first", [0, *(pytest.param(k, marks=pytest.mark.slow) for k in range(1, len(ROOMS)))])
def test_no_import_hides_a_verb(first: int) -> None:
    """Importing a submodule sets the attribute of its package, so no package may have the name of a public function."""
    order = [*ROOMS[first:], *ROOMS[:first]]
    code = f"import importlib, foveate\nfor name in {order}: importlib.import_module(name)\n"
    code += f"wrong = [verb for verb in {VERBS} if not callable(getattr(foveate, verb))]\nassert not wrong, wrong"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_no_folder_has_the_name_of_a_function() -> None:
    names = {path.stem for path in Path(foveate.__file__).parent.iterdir()}
    assert names & set(PUBLIC["foveate"]) == set()


def test_a_deprecated_name_warns_at_the_line_that_uses_it() -> None:
    def attach(site: str) -> str:
        deprecate("attach(site=)", "attach(where=)", removed_in="1.3")
        return site

    with pytest.warns(DeprecationWarning, match=r"removed in Foveate 1\.3: use attach\(where=\)") as seen:
        attach("stage")
    assert [(one.filename, one.lineno) for one in seen] == [(__file__, sys._getframe().f_lineno - 1)]
