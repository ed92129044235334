"""The sites of "residual" and "stage" in hosts with unusual forwards."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from foveate.errors import UsageError
from foveate.surgery import attach, detach, plan
from last_layers import wake
from surgery import hosts

RESIDUAL = [
    (hosts.ResNet, ["layer1.0.bn2", "layer1.1.bn2", "layer2.0.bn2", "layer2.1.bn2"]),
    (hosts.Functional, ["bn"]),
    (hosts.Listed, ["blocks.0", "blocks.1", "blocks.2"]),
    (hosts.Twice, ["block.1"]),
    (hosts.InPlaceAfter, ["relu"]),
    (hosts.PaddedShortcut, ["bn"]),
    (hosts.LayerScale, ["drop_path"]),
    (hosts.ScaledAndSliced, ["conv2"]),
    (hosts.ThreeTerms, ["a", "b.1"]),
    (hosts.InnerSums, ["last"]),
]
NO_RESIDUAL = [hosts.Parallel, hosts.Merged, hosts.Plain]


def names(model: nn.Module, where: object) -> list[str]:
    return [site.name for site in plan(model, "eca", where, example=hosts.SHAPE).sites]  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize(("host", "sites"), RESIDUAL)
def test_residual_finds_the_end_of_each_branch(host: type[nn.Module], sites: list[str]) -> None:
    assert names(host(), "residual") == sites


@pytest.mark.parametrize("host", NO_RESIDUAL)
def test_what_is_no_residual_addition_is_refused_with_what_works(host: type[nn.Module]) -> None:
    model = host()
    with pytest.raises(UsageError, match="residual") as refused:
        attach(model, "eca", example=hosts.SHAPE)
    suggested = [name for name, _ in model.named_modules() if repr(name) in refused.value.do]
    assert suggested
    assert names(model, suggested[0])


def test_a_plain_network_is_sent_to_stage() -> None:
    with pytest.raises(UsageError, match="use where='stage'"):
        plan(hosts.Plain(), "eca", example=hosts.SHAPE)
    assert names(hosts.Plain(), "stage") == ["features.3", "features.8"]


def test_stage_is_the_last_block_of_each_resolution() -> None:
    assert names(hosts.ResNet(), "stage") == ["layer1.1", "layer2.1"]


class Answer:
    """An output object, as some libraries return, that torch cannot look into."""

    def __init__(self, logits: Tensor):
        self.logits = logits


@pytest.mark.parametrize("wrap", [Answer, lambda y: {"logits": [y]}, lambda y: (None, y)])
def test_stage_needs_no_plain_output(wrap: Any) -> None:
    model = hosts.ResNet()
    model.register_forward_hook(lambda module, args, output: wrap(output))
    assert names(model, "stage") == ["layer1.1", "layer2.1"]


@pytest.mark.parametrize("host", [host for host, _ in RESIDUAL])
def test_the_identity_start_acts_on_every_site_and_changes_nothing(host: type[nn.Module]) -> None:
    model, x = hosts.settle(host()), hosts.image()
    before = hosts.run(model, x)
    attach(model, "cbam", example=hosts.SHAPE, reduction=2)
    assert torch.equal(hosts.run(model, x), before)
    wake(model)
    assert not torch.equal(hosts.run(model, x), before)
    detach(model)
    assert torch.equal(hosts.run(model, x), before)


@pytest.mark.parametrize("host", [host for host, _ in RESIDUAL])
def test_every_new_parameter_gets_a_gradient(host: type[nn.Module]) -> None:
    model = host()
    attach(model, "cbam", example=hosts.SHAPE, reduction=2)
    wake(model)
    model.train()(hosts.image(*hosts.SHAPE)).square().sum().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


def test_maps_with_their_channels_last_are_no_sites() -> None:
    for site in ("norm", "mlp"):
        with pytest.raises(UsageError, match="last axis"):
            attach(hosts.LayerScale(), "eca", site, example=hosts.SHAPE)
    assert names(hosts.LayerScale(), ["dw", "drop_path"]) == ["dw", "drop_path"]


class WithAddend(nn.Module):
    """x plus another value; `spell` writes the addition in one of its forms."""

    def __init__(self, spell: str):
        super().__init__()
        self.spell, self.stem, self.branch = spell, hosts.conv(3, 8), hosts.conv(8, 8)
        self.functional = torch.ao.nn.quantized.FloatFunctional()

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        y = self.branch(x)
        if self.spell == "iadd":
            y += x
            return y
        spellings = {
            "add": lambda: x + y,
            "torch.add": lambda: torch.add(y, x),
            "add_": lambda: y.add_(x),
            "alpha": lambda: torch.add(x, y, alpha=0.5),
            "sum": lambda: sum([x, y]),
            "out": lambda: torch.add(x, y, out=torch.empty_like(x)),
            "FloatFunctional": lambda: self.functional.add(x, y),
            "view": lambda: x.view_as(x) + y[:],
            "buffer": lambda: x + torch.empty_like(y).copy_(y),
        }
        return spellings[self.spell]()


@pytest.mark.parametrize(
    "spell", ["iadd", "add", "torch.add", "add_", "alpha", "sum", "out", "FloatFunctional", "view", "buffer"]
)
@pytest.mark.filterwarnings("ignore:.*torch.ao.quantization is deprecated.*:DeprecationWarning")
def test_every_spelling_of_an_addition_counts(spell: str) -> None:
    assert names(WithAddend(spell), "residual") == ["branch"]
