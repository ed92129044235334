"""The plan: its numbers add up, its table is aligned, its dictionary is valid JSON."""

import json
import warnings
from typing import Any

import pytest
import torch
from torch import nn

from foveate.bind.torch.attention import attention
from foveate.cost import measure
from foveate.errors import BatchOfOneWarning, UsageError
from foveate.mechanisms import create
from foveate.parts import Start
from foveate.surgery import attach, plan
from foveate.torch_utils.cost_counter import CostCounter
from representatives import REPRESENTATIVES
from surgery import hosts


def test_the_table() -> None:
    planned = plan(hosts.ResNet(), "se", example=hosts.SHAPE, start="paper", reduction=4)
    head, columns, rule, *rows, second_rule, totals, foot = str(planned).splitlines()
    assert head == "se at residual (start='paper', reduction=4, bias=True, norm=False)"
    assert columns.split() == ["site", "shape", "parameters", "MACs", "element-wise", "bytes", "moved"]
    assert rule == second_rule == "-" * len(rule)
    assert [row.split()[0] for row in rows] == ["layer1.0.bn2", "layer1.1.bn2", "layer2.0.bn2", "layer2.1.bn2"]
    assert len({len(row) for row in (columns, *rows, totals)}) == 1
    assert totals.startswith("4 sites")
    host = sum(parameter.numel() for parameter in hosts.ResNet().parameters())
    assert foot == f"host parameters {host:,} -> {host + 2 * 42 + 2 * 148:,} with attention (+{380 / host:.2%})"


def test_a_notebook_shows_the_table_with_names_escaped() -> None:
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 3))
    made = plan(model, "se", lambda name, module, shape: name == "1", example=(1, 3, 9, 9), reduction=4)
    page = made._repr_html_()
    assert page.count("<tr>") == 3
    assert "&lt;lambda&gt;" in page
    assert "<lambda>" not in page
    assert f"<td>{made.parameters:,}</td>" in page


def test_the_totals_are_the_sums_and_the_dictionary_is_json() -> None:
    planned = plan(hosts.ResNet(), "cbam", ["stage", "stem"], example=hosts.SHAPE, reduction=2)
    data = json.loads(json.dumps(planned.to_dict()))
    assert data == planned.to_dict()
    assert data["where"] == "stage, stem"
    for what in ("parameters", "macs", "elementwise", "bytes"):
        assert data[what] == getattr(planned, what) == sum(site[what] for site in data["sites"]) > 0
    assert data["options"]["pools"] == ["avg", "max"]
    assert data["sites"][0]["shape"] == [2, 8, 16, 16]


@pytest.mark.parametrize("start", ["paper", "identity"])
@pytest.mark.parametrize("name", REPRESENTATIVES)
@pytest.mark.filterwarnings("ignore::foveate.errors.ReductionWarning")
def test_the_cost_is_that_of_the_built_module(name: str, start: Start) -> None:
    planned = plan(hosts.ResNet(), name, "layer2.1.bn2", example=hosts.SHAPE, start=start)
    module = attention(name, 16, start=start)
    assert planned.parameters == sum(parameter.numel() for parameter in module.parameters())
    assert planned.cost == measure(module.mechanism, planned.sites[0].shape, start=start)


@pytest.mark.parametrize("name", ["se", "eca", "coordinate", "cbam", "cross"])
@pytest.mark.filterwarnings("ignore::foveate.errors.ReductionWarning")
def test_the_cost_counter_counts_the_multiply_adds_of_any_module(name: str) -> None:
    module = attention(name, 16).eval()
    with torch.no_grad(), CostCounter() as counter:
        module(torch.zeros(2, 16, 8, 8))
    found, expected = counter.cost(module), measure(module.mechanism, (2, 16, 8, 8))
    assert (found.parameters, found.macs) == (expected.parameters, expected.macs)


def test_the_cost_counter_counts_elements_and_bytes() -> None:
    module = nn.Sequential(nn.Conv2d(4, 6, 1, bias=False), nn.ReLU())
    x = torch.zeros(1, 4, 5, 5)
    with torch.no_grad(), CostCounter() as counter:
        module(x)
    cost = counter.cost(module)
    assert (cost.parameters, cost.macs, cost.elementwise, cost.bytes) == (
        24,
        600,
        150,
        4 * (100 + 24 + 150 + 150 + 150),
    )


@pytest.mark.parametrize("where", ["residual", "stage"])
def test_a_transformer_is_told_that_presets_are_for_convolutional_networks(where: str) -> None:
    model = nn.Sequential(
        nn.Conv2d(3, 8, 8, 8),
        nn.Flatten(2),
        *(nn.TransformerEncoderLayer(64, 1, 8, batch_first=True) for _ in range(2)),
    )
    with pytest.raises(UsageError, match=f"a convolutional network, which where='{where}' is made for"):
        plan(model, "se", where, example=(1, 3, 64, 64))
    with pytest.raises(UsageError, match="in a convolutional network"):
        plan(model, "se", "3", example=(1, 3, 64, 64))


def test_a_convolution_and_a_classifier_are_no_transformer() -> None:
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 8), nn.Linear(8, 2))
    with pytest.raises(UsageError, match="a model with a residual addition"):
        plan(model, "se", example=(1, 3, 8, 8))


def test_a_keras_model_is_sent_to_the_other_attach() -> None:
    kind = type(
        "Functional", (nn.Module,), {"__module__": "keras.src.models.functional"}
    )  # on Keras's torch backend it is a torch module too
    with pytest.raises(UsageError, match=r"a Functional of Keras\nDo: use foveate.keras.attach"):
        plan(kind(), "se")
    with pytest.raises(UsageError, match="a str"):
        plan("resnet18", "se")  # type: ignore[arg-type]


class Point(nn.Module):
    """A network that ends in a map of one position."""

    def __init__(self, inputs: int = 3) -> None:
        super().__init__()
        self.first, self.last = nn.Conv2d(inputs, 4, 3, padding=1), nn.Conv2d(4, 4, 8)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.last(self.first(x))


def squeezed(channels: int) -> nn.Module:
    return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.BatchNorm2d(channels), nn.Upsample(size=(8, 8)))


@pytest.mark.parametrize(
    ("mechanism", "options", "sites"),
    [
        ("spatial", {}, ["last"]),
        ("cbam", {"reduction": 2}, ["last"]),
        ("cbam", {"reduction": 2, "norm": False}, []),
        ("se", {"reduction": 2}, []),
        ("coordinate", {}, []),
    ],
    ids=str,
)
def test_a_norm_that_a_batch_of_one_breaks_is_told_and_is_so(mechanism: str, options: Any, sites: list[str]) -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        planned = plan(Point(), mechanism, nn.Conv2d, example=(2, 3, 8, 8), **options)
    assert [site.name for site in planned.sites if site.needs_batch] == sites
    assert [warning.category for warning in caught] == [BatchOfOneWarning] * bool(sites)
    assert all(warning.filename == __file__ for warning in caught)
    assert ("note: at 'last' (1 x 1) a batch norm" in str(planned)) == bool(sites)
    net = Point().train()
    assert attach(net, mechanism, nn.Conv2d, example=(1, 3, 8, 8), **options).note == planned.note
    net(torch.rand(2, 3, 8, 8))
    if sites:
        with pytest.raises(ValueError, match="Expected more than 1 value per channel"):
            net(torch.rand(1, 3, 8, 8))
    else:
        net(torch.rand(1, 3, 8, 8))


def test_a_factory_with_a_norm_of_pooled_maps_is_told() -> None:
    with pytest.warns(BatchOfOneWarning, match=r"at 'first' \(8 x 8\) a batch norm"):
        plan(Point(), squeezed, "first", example=(1, 3, 8, 8))


def test_a_plan_of_attention_between_all_positions_needs_no_memory_for_them() -> None:
    # a matrix of all pairs would have 640**4 values, 671 GB
    planned = plan(hosts.ResNet(), "cross", "layer1.0.bn2", example=(1, 3, 640, 640))
    assert planned.cost == measure(create("cross"), (1, 8, 640, 640), start="identity")
