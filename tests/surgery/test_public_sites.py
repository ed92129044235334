"""The presets find the sites that docs/how-to/sites.md lists for the networks of public libraries."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import adaptive_avg_pool2d

import foveate
from foveate.errors import UsageError
from foveate.models import ensure_torchvision
from foveate.surgery.torch.host import TorchHost
from foveate.torch_utils.tensors import tensors
from last_layers import wake
from surgery import hosts
from surgery.site_tables import TABLES, table, tables

ensure_torchvision()
pytestmark = pytest.mark.filterwarnings("ignore::foveate.errors.ReductionWarning")
NO_WEIGHTS = {"weights": None, "weights_backbone": None}
SLOW = {"keypointrcnn_resnet50_fpn", "maskrcnn_resnet50_fpn", "retinanet_resnet50_fpn_v2", "ssd300_vgg16"}
SLOW |= {"fasterrcnn_resnet50_fpn_v2", "LibreYOLO9Model c", "LibreRTMDetModel t, enable_mask_head=True"}


@pytest.fixture(autouse=True)
def _stand_ins_for_compiled_operators() -> Iterator[None]:
    """Choose the ten best boxes and average whole maps where torchvision's own operators do not load."""
    from torchvision import extension
    from torchvision.ops import boxes, poolers

    def pooled(maps: Tensor, rois: Tensor, output_size: tuple[int, int], **options: Any) -> Tensor:
        return adaptive_avg_pool2d(maps[rois[:, 0].long()], output_size)

    with pytest.MonkeyPatch.context() as patch:
        if not extension._has_ops():
            patch.setattr(boxes, "nms", lambda _, scores, threshold: scores.argsort(descending=True)[:10])
            patch.setattr(poolers, "roi_align", pooled)
        yield


def smp(name: str) -> tuple[nn.Module, Any]:
    package = pytest.importorskip("segmentation_models_pytorch")
    return getattr(package, name)("resnet18", encoder_weights=None, classes=3), (1, 3, 128, 128)


def segmentation(name: str) -> tuple[nn.Module, Any]:
    from torchvision.models import segmentation

    name, auxiliary = name.removesuffix(", aux_loss=True"), name.endswith(", aux_loss=True")
    return getattr(segmentation, name)(**NO_WEIGHTS, **({"aux_loss": True} if auxiliary else {})), (1, 3, 128, 128)


def detection(name: str) -> tuple[nn.Module, Any]:
    from torchvision.models import detection

    sizes = {} if "ssd" in name else {"min_size": 128, "max_size": 128}
    few = {"rpn_post_nms_top_n_test": 8, "box_score_thresh": 0.0} if "rcnn" in name else {}
    return getattr(detection, name)(**NO_WEIGHTS, **sizes, **few), [torch.rand(3, 128, 128)]


def libreyolo(name: str) -> tuple[nn.Module, Any]:
    kind, size, *mask = name.replace(",", "").split()
    family = {"LibreYOLO9Model": "yolo9", "LibreYOLOXModel": "yolox", "LibreRTMDetModel": "rtmdet"}[kind]
    pytest.importorskip("cv2", exc_type=ImportError)
    module = pytest.importorskip(f"libreyolo.models.{family}.nn", exc_type=ImportError)
    return getattr(module, kind)(size, **({"enable_mask_head": True} if mask else {})), (1, 3, 64, 64)


def transformers(name: str) -> tuple[nn.Module, Any]:
    package = pytest.importorskip("transformers")
    small = {"hidden_sizes": [16, 32, 48, 64], "depths": [2, 2, 2, 2]}
    family = name.removesuffix("ForImageClassification").removesuffix("Backbone")
    settings: dict[str, Any] = {
        "ResNet": {**small, "embedding_size": 8},
        "RegNet": {**small, "embedding_size": 8, "groups_width": 8},
        "MobileNetV2": {"depth_multiplier": 0.35},
    }
    if name == "UperNetForSemanticSegmentation":
        stages = [f"stage{n}" for n in range(1, 5)]
        sizes = {"hidden_size": 16, "auxiliary_in_channels": 48, "pool_scales": [1, 2]}
        config = package.UperNetConfig(backbone_config=package.ConvNextConfig(**small, out_features=stages), **sizes)
    else:
        config = getattr(package, f"{family}Config")(**settings.get(family, small))
    return getattr(package, name)(config), {"pixel_values": torch.rand(1, 3, 64, 64)}


LIBRARIES: dict[str, Callable[[str], tuple[nn.Module, Any]]] = {
    "segmentation_models_pytorch": smp,
    "torchvision: segmentation": segmentation,
    "torchvision: detection": detection,
    "libreyolo": libreyolo,
    "Hugging Face transformers": transformers,
}
NETWORKS = [
    pytest.param(section, name, marks=pytest.mark.slow if name in SLOW else ())
    for section in LIBRARIES
    for name in table(section)
]


@pytest.mark.parametrize(("section", "name"), NETWORKS)
def test_the_presets_find_what_the_page_lists(section: str, name: str) -> None:
    model, example = LIBRARIES[section](name)
    selector = TorchHost(model.eval()).read(example)
    for preset, patterns in table(section)[name].items():
        if patterns:
            found, by_hand = ([call.name for call in selector.choose(where)] for where in (preset, patterns))
            assert found == by_hand, preset
        else:
            with pytest.raises(UsageError, match="where='stage'"):
                selector.choose(preset)


EQUAL = {
    "segmentation_models_pytorch": "FPN",
    "torchvision: segmentation": "lraspp_mobilenet_v3_large",
    "torchvision: detection": "fasterrcnn_mobilenet_v3_large_fpn",
    "libreyolo": "LibreYOLOXModel n",
    "Hugging Face transformers": "RegNetForImageClassification",
}


@pytest.mark.parametrize("section", LIBRARIES)
def test_attached_and_baked_networks_compute_what_they_should(section: str) -> None:
    model, example = LIBRARIES[section](EQUAL[section])
    hosts.settle(model)

    def outputs(network: nn.Module) -> list[Tensor]:
        with torch.no_grad():
            if isinstance(example, dict):
                return tensors(network(**example))
            return tensors(network(torch.rand(example, generator=seed()) if isinstance(example, tuple) else example))

    before = outputs(model)
    planned = foveate.attach(model, "se", "stage", example=example)
    assert before
    assert all(map(torch.equal, before, outputs(model)))
    wake(model)
    with foveate.record(model) as recording:
        awake = outputs(model)
    assert set(recording) == {site.name for site in planned.sites}
    assert not all(a.shape == b.shape and torch.equal(a, b) for a, b in zip(before, awake, strict=True))
    baked = foveate.bake(model, example=example)
    assert all(map(torch.equal, awake, outputs(baked)))


def seed() -> torch.Generator:
    return torch.Generator().manual_seed(3)


def test_every_library_has_a_table() -> None:
    assert len(TABLES) == len(LIBRARIES) + 2, "kyolo and Keras applications are in tests/on_keras/test_public_sites.py"
    assert sum(map(len, TABLES.values())) >= 40


def test_a_page_is_read_by_sections_rows_and_cells() -> None:
    page = "# T\n\n## A 1\n\n| network | x | y |\n| --- | --- | --- |\n| `n, k=1` | `a.*` `b[12]` | - |\n"
    page += "\n## B\n| `m` | `c` | `d` |\n"
    assert tables(page) == {
        "A 1": {"n, k=1": {"stage": ["a.*", "b[12]"], "residual": []}},
        "B": {"m": {"stage": ["c"], "residual": ["d"]}},
    }
