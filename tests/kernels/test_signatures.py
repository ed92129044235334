"""The compiled library and its C++ sources have the signatures that Python declares."""

import re

import pytest
import torch

from foveate.kernels import ops
from foveate.kernels.build import FOLDER
from foveate.kernels.ops import Operation
from foveate.kernels.signatures import arguments

OPERATIONS = pytest.mark.parametrize("operation", [ops.channel_spatial, ops.coordinate], ids=lambda one: one.name)
IN_C = {"Tensor": "Tensor", "Tensor?": "Maybe", "bool": "bool", "float": "double"}
PLANTED = [
    *(
        (form, declared, planted)
        for form in ops.channel_spatial.schemas
        for declared, planted in (
            ("bool average, ", ""),
            ("bool hard=False", "bool hard"),
            ("eps=0.0", "eps=1.0"),
        )
    ),
    *((form, " x, ", " z, ") for form in ops.channel_spatial.schemas if not form.endswith("_prepare")),
    ("channel_spatial", "Tensor kept, ", ""),
    ("channel_spatial_prepare", "int channels, ", ""),
    ("channel_spatial_", "(a!)", ""),
    ("channel_spatial_finish_", "Tensor? shortcut, int activation", "int activation, Tensor? shortcut"),
    ("channel_spatial_gates", "Tensor channel, Tensor spatial", "Tensor spatial, Tensor channel"),
    ("channel_spatial_backward", "Tensor d_reduce, ", ""),
]


@pytest.mark.usefixtures("built")
@OPERATIONS
def test_the_library_has_the_declared_signature_of_every_form(operation: Operation) -> None:
    assert len(operation.schemas) == 6
    ops._check_schemas(operation.schemas)


@pytest.mark.usefixtures("built")
@pytest.mark.parametrize(("form", "declared", "planted"), PLANTED)
def test_a_library_of_other_sources_is_noticed(
    monkeypatch: pytest.MonkeyPatch, form: str, declared: str, planted: str
) -> None:
    monkeypatch.setattr(torch.ops, "load_library", lambda path: None)
    monkeypatch.setitem(ops.channel_spatial.schemas, form, ops.channel_spatial.schemas[form].replace(declared, planted))
    assert f"it was compiled from other sources, where {form} has another signature;" in str(ops._load())


@pytest.mark.usefixtures("built")
def test_a_library_whose_prepared_operation_is_another_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.ops, "load_library", lambda path: None)
    monkeypatch.setattr(ops, "PREPARED_SCHEMA", ops.PREPARED_SCHEMA.replace("int activation=0, ", ""))
    assert "it was compiled from other sources, where prepared_ has another signature;" in str(ops._load())


@OPERATIONS
def test_the_functions_in_cpp_take_the_declared_arguments_in_order(operation: Operation) -> None:
    source = (FOLDER / "cpu" / f"ops_{operation.name}.cpp").read_text(encoding="utf-8").replace("\\\n", " ")
    taken, passed = (
        [" ".join(one.split()) for one in re.findall(rf"#define {name}\s(.*)", source)[0].split(",")]
        for name in ("REST", "REST_VALUES")
    )
    declared = [argument.partition("=")[0].split() for argument in arguments(operation.signature)]
    assert taken == [f"{IN_C[kind]} {name}" for kind, name in declared]
    assert passed == list(operation.signature._fields)
