"""The rules for targets keep the outputs, and the lint names what a target lacks."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import foveate
from foveate.errors import UsageError
from foveate.exporting.program import trace
from foveate.exporting.subject import subject_of
from foveate.exporting.targets import MAXIMUM, MEAN, OF_FORMATS, PRODUCT, TARGETS, Rule, apply, lacking, operator_list

GONE = {MAXIMUM: "aten.amax.default", MEAN: "aten.mean.dim", PRODUCT: None}


class Reductions(nn.Module):
    """Reductions over every set of positions, and products with a gate on either side."""

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        gate = x.mean((2, 3), keepdim=True).sigmoid()
        maxima = (x.amax((2, 3), keepdim=True), x.amax(2, keepdim=True), x.amax((-1,), keepdim=True), x.amax((2, 3)))
        means = (x.mean((2, 3)), x.mean((3,), keepdim=True), x.mean((-2, -1)))
        return *maxima, x.amax(3), *means, x * gate, gate * x, gate * gate, x * x


@pytest.mark.parametrize("rule", GONE, ids=lambda rule: rule.name)
def test_a_rule_keeps_the_outputs(rule: Rule) -> None:
    x = torch.randn(2, 4, 5, 7, generator=torch.Generator().manual_seed(0))
    subject = subject_of(Reductions(), x)
    program = trace(subject, dynamic=False)
    assert apply(rule, program) == {MAXIMUM: 5, MEAN: 4, PRODUCT: 2}[rule]
    for found, wanted in zip(program.module()(x), subject.reference(x), strict=True):
        torch.testing.assert_close(found, wanted, rtol=0, atol=0 if rule is not MEAN else 1e-6)
    left = {str(node.target) for node in program.graph.nodes}
    assert GONE[rule] not in left
    assert apply(rule, program) == 0


def test_reductions_over_channels_and_open_sizes_stay() -> None:
    class Channels(nn.Module):
        def forward(self, x: Tensor) -> tuple[Tensor, ...]:
            return x.amax(1, keepdim=True), x.mean((1, 2), keepdim=True)

    x = torch.randn(2, 4, 5, 7)
    fixed, free = (
        trace(subject_of(one, x), dynamic=is_open) for one, is_open in ((Channels(), False), (Reductions(), True))
    )
    assert [apply(rule, program) for program in (fixed, free) for rule in GONE] == [0] * 6


def test_every_rule_has_a_source_and_belongs_to_files_of_fixed_sizes() -> None:
    of_targets = {rule for target in TARGETS.values() for rule in target.rules}
    assert of_targets | {rule for rules in OF_FORMATS.values() for rule in rules} == GONE.keys()
    assert all(rule.source.startswith("https://") for rule in GONE)
    assert all(target.fixed for target in TARGETS.values() if target.rules)


@pytest.mark.parametrize(
    ("target", "operators", "lacks"),
    [
        ("rk3588", ["Conv", "ReduceMax", "NonMaxSuppression", "TopK"], ["NonMaxSuppression", "TopK"]),
        ("tensorrt", ["Conv", "Mod", "NonZero", "NonMaxSuppression"], ["Mod", "NonZero"]),
        ("openvino", ["Convolution", "NonMaxSuppression", "Range"], ["NonMaxSuppression", "Range"]),
        (
            "coreml",
            ["aten.conv2d.default", "aten.__and__.Tensor", "aten.mean.dim", "aten.addcmul.default", "getitem"],
            ["aten.addcmul.default"],
        ),
        ("onnxruntime", ["Mod"], None),
    ],
)
def test_the_lint_names_what_a_target_lacks(target: str, operators: list[str], lacks: list[str] | None) -> None:
    assert lacking(target, operators) == lacks


def test_the_lists_say_where_they_are_from() -> None:
    for name in {target.list for target in TARGETS.values() if target.list}:
        listed = operator_list(name)
        assert listed.keys() - {"has", "lacks"} == {"version", "source"}
        assert ("has" in listed) != ("lacks" in listed)


@pytest.mark.parametrize(("target", "told"), [("rk3566", "rk3588"), ("coreml", "torch")])
def test_a_target_that_does_not_fit_is_refused(target: str, told: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=told):
        foveate.export(nn.Conv2d(3, 4, 1), tmp_path / "a.onnx", (1, 3, 6, 8), target=target)


def test_a_file_for_rk3588_has_no_maximum_that_would_run_on_its_cpu(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Conv2d(3, 16, 3), foveate.attention("cbam", 16, start="paper"))
    done = foveate.export(model, tmp_path / "a.onnx", (1, 3, 12, 10), target="rk3588")
    record: dict[str, Any] = dict(done.record)
    assert record["operators"]["MaxPool"] == 1
    assert record["operators"]["ReduceMax"] == 1  # that of the spatial half, over channels
    assert not record["dynamic"]
    assert record["lacks"] == []
    assert done.lines()[2:] == [
        "Rule 'maximum by pooling' applied 1 time",
        "Not run on rk3588: its compiler is not at hand. The outputs were compared on onnx",
        "RKNN-Toolkit2 2.1.0 has all its operators",
    ]


class Rare(nn.Module):
    """Operators that targets are documented to lack: a range of an open side, and `addcmul`; and one in place."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.addcmul(x, x, torch.arange(x.shape[3]).to(x.dtype)).mul_(x.mean((2, 3), keepdim=True))


@pytest.mark.parametrize(
    ("target", "file", "lacks", "told"),
    [
        ("openvino", "a.xml", ["Range"], "OpenVINO 2023.3 on a GPU is documented to lack Range"),
        ("coreml", "a.pt2", ["aten.addcmul.default"], "coremltools 9.0 is not documented to have aten.addcmul.default"),
    ],
)
def test_an_export_names_what_its_target_lacks(
    target: str, file: str, lacks: list[str], told: str, tmp_path: Path
) -> None:
    done = foveate.export(Rare(), tmp_path / file, (1, 3, 12, 10), target=target)
    assert done.record["lacks"] == lacks
    assert done.lines()[-1] == told


def test_a_file_for_coreml_has_the_graph_that_coremltools_reads(tmp_path: Path) -> None:
    done = foveate.export(Rare(), tmp_path / "a.pt2", (1, 3, 12, 10), target="coreml")
    assert torch.export.load(done.path).dialect == "ATEN"
    assert not any("_." in name for name in done.record["operators"])  # none in place
    assert [rule["count"] for rule in done.record["rules"]] == [1]
