"""Every mechanism of the catalogue in a network: attached, trained a step, saved, loaded, baked and detached."""

import copy
import dataclasses
from pathlib import Path

import pytest
import torch
from torch import nn

import foveate
from foveate.facts import facts
from foveate.mechanisms import names
from foveate.surgery import attention_parameters
from last_layers import wake
from subjects import Subject
from surgery import hosts

pytestmark = pytest.mark.filterwarnings("ignore::foveate.errors.ReductionWarning")


def host(name: str, channels: int) -> tuple[nn.Module, torch.Tensor]:
    """Return a residual network as wide as the mechanism needs, and an image whose last maps are large enough."""
    side = 2 * (facts(name).get("smallest", 1) + 6)
    return hosts.settle(hosts.ResNet(width=channels)), hosts.image(2, 3, side, side)


@pytest.mark.parametrize("where", ["residual", "stage"])
@pytest.mark.parametrize("name", names())
def test_a_mechanism_lives_in_a_network(name: str, where: str, tmp_path: Path) -> None:
    subject = Subject(name)
    model, x = host(name, subject.channels)
    other = copy.deepcopy(model)
    before = hosts.run(model, x)
    start = "paper" if subject.why_no_identity() else "identity"
    options = {"context_channels": None} if "context_channels" in subject.made.options() else {}  # the site's own map
    planned = foveate.attach(model, dataclasses.replace(subject.made, **options), where, example=x, start=start)
    assert len(planned.sites) == {"residual": 4, "stage": 2}[where]
    assert torch.equal(hosts.run(model, x), before) == (start == "identity")
    wake(model)
    after = hosts.run(model, x)
    assert not torch.equal(after, before)
    learning = copy.deepcopy(model).train()
    learning(x).square().mean().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in attention_parameters(learning))
    foveate.save_adapter(model, tmp_path / "a.safetensors")
    foveate.load_adapter(other, tmp_path / "a.safetensors", example=x)
    torch.testing.assert_close(hosts.run(foveate.bake(model, example=x), x), hosts.run(model, x), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(hosts.run(other, x), hosts.run(model, x), rtol=1e-6, atol=1e-6)
    foveate.detach(other)
    assert torch.equal(hosts.run(other, x), before)
