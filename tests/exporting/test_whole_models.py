"""RELIABILITY row 8: whole models with attention as files compute the same on 200 photographs.

`test_export.py` has its small form: one model on 200 images.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

import foveate
from foveate.exporting.exported import Exported
from foveate.exporting.formats import named
from foveate.models import ResNetFPN4, build
from foveate.models.detectors import COCO, build_detector
from foveate.normalisation import IMAGENET
from last_layers import wake
from surgery.hosts import settle
from surgery.segmentation_hosts import UNet
from trained.networks import NETWORKS

PICTURES, BATCH, TOLERANCE = 200, 50, 1e-4
CIFAR = "data/resnet20_cifar10/resnet20-12fca82f.th"

pytestmark = pytest.mark.filterwarnings("ignore::foveate.errors.ReductionWarning")


def trained_resnet20(shared: Path) -> nn.Module:
    return build("resnet20", 10, weights=shared / CIFAR)


class Faces(nn.Module):
    """A published network that takes blue, green and red from 0 to 255."""

    def __init__(self, model: nn.Module):
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        mean, deviation = (x.new_tensor(part)[:, None, None] for part in (IMAGENET.mean, IMAGENET.deviation))
        return self.model(255 * (x * deviation + mean).flip(1))


@dataclass(frozen=True)
class Whole:
    """A model and what is attached to it; `side` of the pictures in pixels.

    `trained` builds models with published weights from the data folder. Others have random weights. `dynamic`
    leaves batch, height and width open: torch.export then takes minutes for large models.
    """

    build: Callable[[], nn.Module] | None = None
    mechanism: str | None = None
    where: Any = "residual"
    side: int = 64
    trained: Callable[[Path], nn.Module] | None = None
    dynamic: bool = False
    options: dict[str, Any] = field(default_factory=dict)

    def made(self, shared: Path, images: Tensor) -> nn.Module:
        """Return the model with its attention, in eval mode, and the norms of a random one fitted to images."""
        torch.manual_seed(0)
        model = self.trained(shared).eval() if self.trained else settle(self.build()) if self.build else nn.Identity()
        if self.mechanism is not None:
            foveate.attach(model, self.mechanism, self.where, example=(1, 3, self.side, self.side), **self.options)
            wake(model)
        return model if self.trained else with_statistics(model, images)


def by_name(name: str) -> Callable[[], nn.Module]:
    return lambda: build(name, 1000)


def published(name: str) -> Callable[[Path], nn.Module]:
    return lambda shared: NETWORKS[name].loaded(shared, torch.float32)


def smp_unet() -> nn.Module:
    return pytest.importorskip("segmentation_models_pytorch").Unet("resnet18", encoder_weights=None, classes=5)


CLASSIFIERS = {
    "resnet20, trained": Whole(None, "coordinate", side=32, trained=trained_resnet20, dynamic=True),
    "efficientnet-lite0, trained": Whole(None, "cbam", side=96, trained=lambda _: build("efficientnet-lite0", 1000)),
    "minifasnet_v1se, trained": Whole(side=80, trained=lambda at: Faces(published("minifasnet_v1se")(at))),
    "timm/resnet18": Whole(by_name("timm/resnet18"), "se", dynamic=True),
    "timm/resnet50": Whole(by_name("timm/resnet50"), "cbam", "stage"),
    "timm/mobilenetv3_small_100": Whole(
        by_name("timm/mobilenetv3_small_100"), "eca", None, options={"replace": "SqueezeExcite"}
    ),
    "timm/regnety_002": Whole(by_name("timm/regnety_002"), "simam", options={"start": "paper"}),
    "timm/convnext_atto": Whole(by_name("timm/convnext_atto"), "global_context"),
    "timm/ghostnet_100": Whole(by_name("timm/ghostnet_100"), "scse"),
    "timm/skresnet18": Whole(by_name("timm/skresnet18"), "triplet"),
    "torchvision/mobilenet_v2": Whole(by_name("torchvision/mobilenet_v2"), "coordinate"),
    "torchvision/densenet121": Whole(by_name("torchvision/densenet121"), "gct", "stage"),
    "torchvision/shufflenet_v2_x0_5": Whole(by_name("torchvision/shufflenet_v2_x0_5"), "ela", "stage"),
}
MAPS = {
    "twinlitenet, trained": Whole(trained=published("twinlitenet")),
    "smfanet_x2, trained": Whole(side=32, trained=published("smfanet_x2")),
    "U-Net": Whole(UNet, "se", "skip", dynamic=True),
    "segmentation_models_pytorch Unet": Whole(smp_unet, "scse", "skip"),
    "ResNetFPN4": Whole(lambda: ResNetFPN4(16, channels=3)),
}
DETECTOR = Whole(lambda: build_detector("yolov4-tiny", 3, COCO), "cbam", "sites.*", side=96)
ON_OPENVINO = ("resnet20, trained", "timm/mobilenetv3_small_100", "torchvision/shufflenet_v2_x0_5", "U-Net")


@pytest.fixture(scope="session")
def photographs(shared: Path) -> list[Image.Image]:
    """Return TrashNet's test pictures, so many of each class as give 200."""
    folder = shared / "data" / "trashnet6" / "test"
    if not folder.is_dir():
        pytest.skip(f"needs the pictures in {folder}, which are not on this machine")
    paths = sorted(folder.glob("*/*.jpg"))
    return [Image.open(paths[k]) for k in np.linspace(0, len(paths) - 1, PICTURES).astype(int)]


def prepared(photographs: list[Image.Image], side: int) -> Tensor:
    """Return the pictures (N, 3, side, side), normalised as for ImageNet."""
    pixels = np.stack([np.asarray(one.convert("RGB").resize((side, side))) for one in photographs])
    scaled = (pixels.astype(np.float32) / 255 - IMAGENET.mean) / IMAGENET.deviation
    return torch.from_numpy(scaled.astype(np.float32)).permute(0, 3, 1, 2).contiguous()


def exported(
    model: nn.Module, images: Tensor, folder: Path, format: str = "onnx", dynamic: bool = False, **options: Any
) -> Exported:
    """Export a model, check the numbers of row 8 on the images, and return the file."""
    example, options = (1 if dynamic else BATCH, *images.shape[1:]), {"dynamic": dynamic, **options}
    done = foveate.export(model, folder / f"model{named(format).SUFFIX}", example, images=images, **options)
    checks = done.record["checks"]
    assert sum(one["shapes"][0][0] for one in checks if one["what"] == "images") == PICTURES
    assert max(one["difference"] for one in checks) <= TOLERANCE
    return done


@torch.no_grad()
def with_statistics(model: nn.Module, images: Tensor) -> nn.Module:
    """Give the norms the statistics of images and the logits the mean 0: as trained, the network is well conditioned.

    Else a deep random network sees one class in all pictures, and rounding errors grow to the size of its outputs.
    """
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    for norm in norms:
        norm.momentum = 1.0
        norm.train()
    model(images[:BATCH])
    model.eval()
    last = [module for module in model.modules() if isinstance(module, nn.Linear)]
    if last:
        last[-1].bias -= model(images[:BATCH]).mean(0)
    return model


@torch.no_grad()
def with_wide_scores(model: Any, images: Tensor) -> nn.Module:
    """Scale the heads of a random detector so that scores lie between 0 and 1 and some boxes are found."""
    for head, output in zip((model.coarse_head, model.fine_head), model(images[:BATCH]), strict=True):
        head.bias.zero_()
        head.weight *= 4 / output.std()
    return model


def check_classes(model: nn.Module, images: Tensor, done: Exported) -> None:
    """Check that each picture has the same most likely class in the file as in the model."""
    with torch.no_grad():
        wanted = model(images).argmax(1).numpy()
    run = done.open()
    found = [run([part.numpy()])[0].argmax(1) for part in images.split(BATCH)]
    assert int((np.concatenate(found) == wanted).sum()) == PICTURES


def test_there_are_enough() -> None:
    assert len(CLASSIFIERS) >= 12
    assert {*ON_OPENVINO} <= {*CLASSIFIERS, *MAPS}


@pytest.mark.slow
@pytest.mark.parametrize("name", CLASSIFIERS)
@pytest.mark.reliability(8)
def test_a_classifier(name: str, shared: Path, photographs: list[Image.Image], tmp_path: Path) -> None:
    whole = CLASSIFIERS[name]
    images = prepared(photographs, whole.side)
    model = whole.made(shared, images)
    check_classes(model, images, exported(model, images, tmp_path, dynamic=whole.dynamic))


@pytest.mark.slow
@pytest.mark.parametrize("name", MAPS)
@pytest.mark.reliability(8)
def test_a_model_that_returns_maps(name: str, shared: Path, photographs: list[Image.Image], tmp_path: Path) -> None:
    whole = MAPS[name]
    images = prepared(photographs, whole.side)
    exported(whole.made(shared, images), images, tmp_path, dynamic=whole.dynamic)


@pytest.mark.slow
@pytest.mark.parametrize("boxes", ["outputs", "nms"])
@pytest.mark.reliability(8)
def test_a_detector(boxes: str, shared: Path, photographs: list[Image.Image], tmp_path: Path) -> None:
    images = prepared(photographs, DETECTOR.side)
    model = with_wide_scores(DETECTOR.made(shared, images), images)
    done = exported(model, images, tmp_path, boxes=boxes, conf=0.3, max_det=20)
    counts = [(one["agreement"], one["count"]) for one in done.record["checks"] if one["what"] == "images"]
    assert {agreement for agreement, _ in counts} == {1.0}
    assert sum(count for _, count in counts) > PICTURES


@pytest.mark.slow
@pytest.mark.parametrize("name", ON_OPENVINO)
@pytest.mark.reliability(8)
def test_on_openvino(name: str, shared: Path, photographs: list[Image.Image], tmp_path: Path) -> None:
    whole = {**CLASSIFIERS, **MAPS}[name]
    images = prepared(photographs, whole.side)
    model = whole.made(shared, images)
    done = exported(model, images, tmp_path, "openvino")
    if name in CLASSIFIERS:
        check_classes(model, images, done)
