"""Folding: attention that is constant over images becomes a part of its site, and other attention stays."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import foveate
from foveate.errors import UsageError
from foveate.exporting.folding import fold
from foveate.models import build
from last_layers import wake

EXAMPLE = (2, 3, 24, 20)
IMAGES = torch.rand(6, 3, 24, 20, generator=torch.Generator().manual_seed(0))


def attached(mechanism: str = "se", where: Any = "residual", **options: Any) -> nn.Module:
    torch.manual_seed(0)
    model = build("resnet8", 4).eval()
    foveate.attach(model, mechanism, where, example=EXAMPLE, **options)
    wake(model)
    return model


pytestmark = pytest.mark.filterwarnings("ignore::foveate.errors.ReductionWarning")


def kill(model: nn.Module, site: str) -> None:
    """Make the hidden units of an SE dead: its gate is then that of its last bias."""
    attention: Any = model.get_submodule(site).foveate_attention
    with torch.no_grad():
        attention.reduce.bias.fill_(-1e6)
        attention.expand.bias.copy_(torch.linspace(-2, 2, attention.channels))


@torch.no_grad()
def output(model: nn.Module, images: Tensor = IMAGES) -> Tensor:
    return model(images)


def test_a_constant_gate_becomes_part_of_the_norm_before_it() -> None:
    model = attached(start="paper", reduction=2)  # of one hidden unit, the gate is often constant
    kill(model, "layer2.0.bn2")
    wanted, state = output(model), {name: value.clone() for name, value in model.state_dict().items()}
    done = fold(model, IMAGES)
    assert done.sites == ("layer2.0.bn2",)
    assert set(done.kept) == {"layer1.0.bn2", "layer3.0.bn2"}
    assert all(why.startswith("it is not constant") for why in done.kept.values())
    torch.testing.assert_close(output(done.model), wanted, rtol=1e-5, atol=1e-5)
    assert not any("layer2.0.bn2.foveate" in name for name in done.model.state_dict())
    assert done.parameters == sum(p.numel() for p in model.get_submodule("layer2.0.bn2.foveate_attention").parameters())
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())


def test_a_factor_of_one_goes_away_anywhere() -> None:
    model = attached("eca", "stage")
    for site in ("layer1", "layer2", "layer3"):
        with torch.no_grad():
            for parameter in model.get_submodule(site)[-1].foveate_attention.parameters():  # pyright: ignore
                parameter.zero_()
    wanted = output(model)
    done = fold(model, IMAGES)
    assert len(done.sites) == 3
    assert done.kept == {}
    assert torch.equal(output(done.model), wanted)


def test_what_has_no_layer_to_go_to_stays() -> None:
    model = attached("se", "layer1.0", start="paper")
    kill(model, "layer1.0")
    done = fold(model, IMAGES)
    assert done.kept == {"layer1.0": "it is constant, but follows no convolution or norm, only a BasicBlock"}
    assert torch.equal(output(done.model), output(model))


def test_weights_that_another_layer_uses_too_stay() -> None:
    model: Any = attached("se", "layer1.0.bn2", start="paper")
    kill(model, "layer1.0.bn2")
    model.layer1[0].bn1.weight = model.layer1[0].bn2.weight
    done = fold(model, IMAGES)
    assert "used elsewhere" in done.kept["layer1.0.bn2"]


@pytest.mark.parametrize("layer", [nn.Conv2d(4, 6, 3), nn.Conv2d(4, 6, 1, groups=2, bias=False), nn.GroupNorm(2, 4)])
def test_every_kind_of_layer(layer: nn.Module) -> None:
    x = torch.rand(3, 4, 8, 8)
    model = nn.Sequential(layer)
    foveate.attach(model, "se", "0", example=x, start="paper")
    kill(model, "0")
    wanted = output(model, x)
    done = fold(model.eval(), x)
    assert done.sites == ("0",)
    torch.testing.assert_close(output(done.model, x), wanted, rtol=1e-5, atol=1e-5)


def test_the_file_has_no_folded_attention_and_its_record_says_what_that_changed(tmp_path: Path) -> None:
    model = attached(start="paper")
    for site in ("layer1.0.bn2", "layer2.0.bn2", "layer3.0.bn2"):
        kill(model, site)
    options: dict[str, Any] = {"images": IMAGES, "dynamic": False}
    done = foveate.export(model, tmp_path / "a.pt2", EXAMPLE, fold=True, **options)
    folded: dict[str, Any] = done.record["folded"]
    assert len(folded["sites"]) == 3
    assert folded["difference"] < 1e-5
    assert folded["agreement"] == 1.0
    assert "aten.sigmoid.default" not in done.record["operators"]
    assert str(done).splitlines()[2].startswith("Attention folded at 3 of 3 sites, ")


def test_folding_needs_attention_and_images(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="images"):
        foveate.export(attached(), tmp_path / "a.onnx", EXAMPLE, fold=True)
    with pytest.raises(UsageError, match="attention attached"):
        foveate.export(build("resnet8", 4), tmp_path / "a.onnx", EXAMPLE, fold=True, images=IMAGES)
    assert [*tmp_path.iterdir()] == []
