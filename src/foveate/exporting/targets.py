"""Targets: the same maths in the operators that a target runs well, and the operators that it is documented to lack."""

import tomllib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch.export import ExportedProgram
from torch.fx import Graph, Node
from torch.fx.node import map_arg

from foveate.errors import UsageError, nearest

aten = torch.ops.aten
_PLANE = (2, 3)  # height and width of (N, C, H, W)
_OVERLOADS = ("default", "int", "tensor", "tensor_mode", "scalar", "tensor_scalar")  # that coremltools takes for one


@dataclass(frozen=True)
class Rule:
    """One operator replaced by another one of equal outputs, for a target or a format, with the source of the claim."""

    name: str
    why: str
    source: str
    rewrite: Callable[[Graph, Node], Node | None]


@dataclass(frozen=True)
class Target:
    """A runtime or a device.

    `formats` are those it reads; `runs_here` if our own verification runs the file on it. A file for it is `fixed`
    where it or its rules need known sizes. `list` names its list of operators in `operators.toml`.
    """

    formats: tuple[str, ...]
    runs_here: bool = False
    fixed: bool = False
    functional: bool = False
    rules: tuple[Rule, ...] = ()
    list: str | None = None


@dataclass(frozen=True)
class Tailored:
    """What was done for a target: how often each rule was applied, and the operators that it lacks."""

    target: str | None
    rules: tuple[tuple[Rule, int], ...]

    def to_dict(self, operators: Mapping[str, int]) -> dict[str, Any]:
        """Return what the record keeps about a target."""
        rules = [{"rule": rule.name, "count": count, "source": rule.source} for rule, count in self.rules]
        if self.target is None:
            return {"rules": rules} if rules else {}
        here = TARGETS[self.target].runs_here
        found = lacking(self.target, operators)
        return {
            "target": self.target,
            "run_on_target": here,
            "rules": rules,
            **({} if found is None else {"lacks": found}),
        }


def pooled(operation: Any, into: Any) -> Callable[[Graph, Node], Node | None]:
    """Return a rewriting of a reduction over height, width or both into a pooling of one window of that size."""

    def rewrite(graph: Graph, node: Node) -> Node | None:
        if node.target is not operation or len(node.args) < 2:
            return None
        x, axes, *keep = node.args
        shape = _shape(x)
        if len(shape) != 4 or node.kwargs or not isinstance(axes, list | tuple):
            return None
        over = {int(axis) % 4 for axis in axes}  # pyright: ignore[reportArgumentType]
        if not over or not over <= {*_PLANE} or not all(isinstance(shape[axis], int) for axis in over):
            return None
        window = [shape[axis] if axis in over else 1 for axis in _PLANE]
        new = graph.call_function(into, (x, window))
        return new if keep and keep[0] else graph.call_function(aten.squeeze.dims, (new, sorted(over)))

    return rewrite


def expanded(graph: Graph, node: Node) -> Node | None:
    """Rewrite the product of a map and a gate (N, C, 1, 1) into one of two maps of equal shapes."""
    if node.target is not aten.mul.Tensor or len(node.args) != 2:
        return None
    x, gate = node.args
    if tuple(_shape(x)[2:]) == (1, 1):
        x, gate = gate, x
    shape, small = _shape(x), _shape(gate)
    open_ = not all(isinstance(side, int) for side in shape)
    if len(shape) != 4 or len(small) != 4 or tuple(small[2:]) != (1, 1) or tuple(shape[2:]) == (1, 1) or open_:
        return None
    return graph.call_function(aten.mul.Tensor, (x, graph.call_function(aten.expand.default, (gate, list(shape)))))


MAXIMUM = Rule(
    "maximum by pooling",
    "ReduceMax runs on the CPU of an RK3588, and took 139 ms there",
    "https://github.com/rockchip-linux/rknn-toolkit2/issues/60 https://github.com/airockchip/rknn-toolkit2/issues/571",
    pooled(aten.amax.default, aten.max_pool2d.default),
)
MEAN = Rule(
    "mean by pooling",
    "TFLite's MEAN was slow, and its AVERAGE_POOL_2D fast",
    "https://github.com/tensorflow/tensorflow/issues/29443",
    pooled(aten.mean.dim, aten.avg_pool2d.default),
)
PRODUCT = Rule(
    "product of equal shapes",
    "the broadcast product after SE cost 11 ms instead of 3 on Apple's engine",
    "https://github.com/apple/coremltools/issues/657",
    expanded,
)
TARGETS = {
    "onnxruntime": Target(("onnx",), runs_here=True),
    "openvino": Target(("openvino",), runs_here=True, list="openvino"),
    "tensorrt": Target(("onnx",), list="tensorrt"),
    "coreml": Target(("torch",), fixed=True, functional=True, rules=(PRODUCT,), list="coremltools"),
    "rk3588": Target(("onnx",), fixed=True, rules=(MAXIMUM,), list="rknn"),
}
OF_FORMATS = {"litert": (MEAN,)}
"""The rules for all files of a format, which have fixed sizes."""


def check_target(target: str | None, format: str) -> None:
    """Raise UsageError for an unknown target, or one that does not read the format."""
    if target is None:
        return
    if target not in TARGETS:
        raise UsageError(expected="a target", received=repr(target), do=nearest(target, TARGETS))
    if format not in TARGETS[target].formats:
        raise UsageError(
            expected=f"a format that {target} reads: {', '.join(TARGETS[target].formats)}",
            received=format,
            do="choose that format, or leave the target out",
        )


def tailor(program: ExportedProgram, target: str | None, format: str) -> tuple[ExportedProgram, Tailored]:
    """Return a traced graph, which may change, as it is for a target and a format, and what was done."""
    if target and TARGETS[target].functional:
        program = program.run_decompositions({})
    return program, Tailored(target, tuple((rule, apply(rule, program)) for rule in rules_of(target, format)))


def rules_of(target: str | None, format: str) -> tuple[Rule, ...]:
    """Return the rules for a target and a format, in the order in which they are applied."""
    return (*OF_FORMATS.get(format, ()), *(TARGETS[target].rules if target else ()))


def apply(rule: Rule, program: ExportedProgram) -> int:
    """Apply a rule wherever it fits; return how often."""
    graph, count = program.graph_module.graph, 0
    for node in [node for node in graph.nodes if node.op == "call_function"]:
        before = {*graph.nodes}
        with graph.inserting_before(node):
            new = rule.rewrite(graph, node)
        if new is None:
            continue
        for made in [one for one in graph.nodes if one not in before]:
            made.meta = {**node.meta, "val": made.target(*map_arg(made.args, lambda one: one.meta["val"]))}
        node.replace_all_uses_with(new)
        graph.erase_node(node)
        program.graph_signature.replace_all_uses(node.name, new.name)  # it knows the outputs by name
        count += 1
    program.graph_module.recompile()
    return count


def lacking(target: str, operators: Iterable[str]) -> list[str] | None:
    """Return the operators of a file that the target's own list says it lacks or does not name; None without a list."""
    if (name := TARGETS[target].list) is None:
        return None
    listed, named = operator_list(name), {operator: _as_listed(operator) for operator in operators}
    if "lacks" in listed:
        lacks = {*listed["lacks"].split()}
        return sorted(operator for operator, name in named.items() if name in lacks)
    has = {*listed["has"].split()}
    return sorted(operator for operator, name in named.items() if name not in has)


def sentence(target: str, lacks: Sequence[str]) -> str:
    """Return what the list of a target says of the operators of a file."""
    listed = operator_list(TARGETS[target].list or "")
    version, names = listed["version"], ", ".join(lacks)
    if "lacks" in listed:
        return f"{version} is documented to lack {names or 'none of its operators'}"
    return f"{version} is not documented to have {names}" if lacks else f"{version} has all its operators"


def _as_listed(operator: str) -> str:
    """Return the name of an operator of torch as coremltools lists it; other names do not change."""
    space, *parts = operator.lower().split(".")
    if space != "aten":
        return operator
    return ".".join(parts[:-1] if parts[-1] in _OVERLOADS else parts).removeprefix("__").removesuffix("__")


@cache
def operator_list(name: str) -> dict[str, str]:
    """Return a published list of operators: what a `version` `has` or `lacks`, and the `source` of the list."""
    return tomllib.loads(Path(__file__).with_name("operators.toml").read_text(encoding="utf-8"))[name]


def _shape(value: Any) -> tuple[Any, ...]:
    """Return the shape of what a node computes; () for what is no tensor."""
    found = value.meta.get("val") if isinstance(value, Node) else None
    return tuple(found.shape) if isinstance(found, torch.Tensor) else ()
