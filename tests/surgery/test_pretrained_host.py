"""EfficientNet-Lite0 with ImageNet weights as a host: outputs stay equal; the attention learns, exports and loads."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from foveate.bind.torch.attention import Attention
from foveate.errors import HostMovedWarning
from foveate.models import build, load_weights
from foveate.models.pretrained import weights_file
from foveate.normalisation import normalisation_of
from foveate.surgery import attach, detach, host_state_dict, load_adapter, plan, save_adapter
from last_layers import last_layers, wake
from surgery import hosts

NAME = "efficientnet-lite0"
PIXELS = 96
SITES = {  # the nine blocks with a shortcut; the last block of each resolution
    "residual": ["1.1.bn3", "2.1.bn3", "3.1.bn3", "3.2.bn3", "4.1.bn3", "4.2.bn3", "5.1.bn3", "5.2.bn3", "5.3.bn3"],
    "stage": ["0.0", "1.1", "2.1", "4.2", "6.0"],
}


@pytest.fixture
def lite0() -> nn.Module:
    return build(NAME, 1000).eval()


@pytest.fixture(scope="module")
def photos() -> Tensor:
    """Return scikit-learn's two photos, prepared for the network."""
    from sklearn.datasets import load_sample_images

    pixels = np.stack(
        [image[:: 427 // PIXELS, :: 640 // PIXELS][:PIXELS, :PIXELS] for image in load_sample_images().images]
    )
    return torch.from_numpy((pixels.astype(np.float32) - 127) / 128).permute(0, 3, 1, 2)


@pytest.mark.parametrize("where", SITES)
@pytest.mark.parametrize("name", ["se", "cbam", "eca", "coordinate"])
def test_attaching_leaves_the_answers_equal(name: str, where: Any, lite0: nn.Module, photos: Tensor) -> None:
    answers = hosts.run(lite0, photos)
    planned = attach(lite0, name, where, example=(1, 3, PIXELS, PIXELS))
    assert [site.name for site in planned.sites] == [f"blocks.{site}" for site in SITES[where]]
    assert torch.equal(hosts.run(lite0, photos), answers)
    wake(lite0)
    assert not torch.equal(hosts.run(lite0, photos), answers)
    detach(lite0)
    assert torch.equal(hosts.run(lite0, photos), answers)


def test_the_hosts_own_weights_are_the_files_with_attention_and_without(lite0: nn.Module) -> None:
    own = {name: value.clone() for name, value in lite0.state_dict().items()}
    attach(lite0, "cbam", example=(1, 3, PIXELS, PIXELS))
    assert host_state_dict(lite0).keys() == own.keys()
    plain = build("timm/tf_efficientnet_lite0", 1000)
    load_weights(plain, weights_file(NAME) or Path(), 1000)
    assert all(torch.equal(value, own[name]) for name, value in plain.state_dict().items())


def test_every_last_layer_has_a_gradient_at_the_first_step(lite0: nn.Module, photos: Tensor) -> None:
    """Check the gradient of the bias: a site of 24 channels has one hidden unit, which may be off for both photos."""
    attach(lite0, "cbam", example=(1, 3, PIXELS, PIXELS))
    nn.functional.cross_entropy(lite0(photos), torch.tensor([0, 1])).backward()
    layers = [layer for module in lite0.modules() if isinstance(module, Attention) for layer in last_layers(module)]
    assert len(layers) == 18
    gradients = [[value.grad for value in layer.parameters() if value.grad is not None] for layer in layers]
    assert all(any(gradient.abs().max() > 0 for gradient in of_layer) for of_layer in gradients)


def test_an_adapter_takes_the_normalisation_along(lite0: nn.Module, photos: Tensor, tmp_path: Path) -> None:
    attach(lite0, "eca", "stage", example=(1, 3, PIXELS, PIXELS))
    wake(lite0)
    save_adapter(lite0, tmp_path / "a.safetensors")
    other, bare = build(NAME, 1000).eval(), build("timm/tf_efficientnet_lite0", 1000)
    load_adapter(other, tmp_path / "a.safetensors", example=(1, 3, PIXELS, PIXELS))
    assert torch.equal(hosts.run(other, photos), hosts.run(lite0, photos))
    assert normalisation_of(bare) is None
    with pytest.warns(HostMovedWarning, match="conv_stem.weight"):  # it has random weights
        load_adapter(bare, tmp_path / "a.safetensors", example=(1, 3, PIXELS, PIXELS))
    assert normalisation_of(bare) == normalisation_of(lite0) is not None


@pytest.mark.parametrize("where", SITES)
def test_export(where: Any, lite0: nn.Module, photos: Tensor) -> None:
    attach(lite0, "cbam", where, example=(1, 3, PIXELS, PIXELS))
    wake(lite0)
    model, images = lite0.double(), photos.double()
    exported = torch.export.export(model, (images,)).module()
    torch.testing.assert_close(hosts.run(exported, images), hosts.run(model, images), rtol=1e-9, atol=1e-9)


def test_the_plan_counts_what_attaching_adds(lite0: nn.Module) -> None:
    before = sum(value.numel() for value in lite0.parameters())
    planned = plan(lite0, "se", example=(1, 3, PIXELS, PIXELS))
    attach(lite0, "se", example=(1, 3, PIXELS, PIXELS))
    assert sum(value.numel() for value in lite0.parameters()) == before + planned.parameters
    assert before == planned.host_parameters == 4_652_008
