"""The example of plan, attach, load_adapter and bake: every form that a model can be called in, and the wrong ones."""

from collections import UserDict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import foveate
from foveate.errors import UsageError
from foveate.models import ensure_torchvision
from surgery import hosts

ensure_torchvision()
X = torch.rand(2, 3, 16, 16)
SITES = ["layer1.0.bn2", "layer1.1.bn2", "layer2.0.bn2", "layer2.1.bn2"]


class Wrapped(nn.Module):
    """A model around `net` that takes its input in its own way."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.net = hosts.ResNet()


class Named(Wrapped):
    def forward(
        self, *, pixel_values: Tensor, output_hidden: bool = False, mode: str | None = None
    ) -> dict[str, Tensor]:
        assert mode in (None, "test")
        return {"logits": self.net(pixel_values)}


class Mixed(Wrapped):
    def forward(self, x: Tensor, scale: int, mask: Tensor | None = None, *, return_loss: bool = True) -> Tensor:
        if return_loss:
            raise RuntimeError("no targets")
        y = self.net(x * scale)
        return y if mask is None else y * mask


class Listed(Wrapped):
    """As detectors do: a list of images of different sizes, and a list of targets."""

    def forward(self, images: list[Tensor], targets: list[dict[str, Tensor]] | None = None) -> Any:
        batch = images[0].new_zeros(len(images), 3, 16, 16)
        for place, image in zip(batch, images, strict=True):
            place[:, : image.shape[1], : image.shape[2]].copy_(image)
        scores = self.net(batch)
        if self.training:
            assert targets is not None
            return {"loss": sum((scores[:, t["labels"]].mean() for t in targets), torch.zeros(()))}
        return [{"scores": score} for score in scores]


class Trained(Listed):
    """A model that has no way to run in eval mode."""

    def forward(self, images: list[Tensor], targets: list[dict[str, Tensor]] | None = None) -> Any:
        if not self.training:
            raise NotImplementedError("only losses")
        return super().forward(images, targets)


@dataclass
class Batch:
    images: Tensor
    names: list[str]


class OfBatch(Wrapped):
    def forward(self, batch: Batch) -> Batch:
        return Batch(self.net(batch.images), batch.names)


IMAGES = [torch.rand(3, 16, 16), torch.rand(3, 12, 14)]
TARGETS = [{"labels": torch.tensor([1])}, {"labels": torch.tensor([0, 2])}]
FORMS: dict[str, tuple[type[Wrapped], Any]] = {
    "a dict": (Named, {"pixel_values": X}),
    "a mapping": (Named, UserDict({"pixel_values": X, "output_hidden": False, "mode": "test"})),
    "args and kwargs": (Mixed, ((X, 2), {"return_loss": False})),
    "args with None": (Mixed, ((X, 1, None), {"return_loss": False})),
    "two tensors": (Mixed, ((X, 1), {"mask": torch.ones(2, 1), "return_loss": False})),
    "a function": (Mixed, lambda model: model(X, 2, return_loss=False)),
    "a list of images": (Listed, IMAGES),
    "a list in a tuple": (Listed, (IMAGES,)),
    "images and targets": (Listed, (IMAGES, TARGETS)),
    "training mode": (Trained, (IMAGES, TARGETS)),
    "a function in training mode": (Trained, lambda model: model(IMAGES, targets=TARGETS)),
    "a function that sets the mode": (Trained, lambda model: model.train()(IMAGES, targets=TARGETS)),
    "an object": (OfBatch, Batch(X, ["a", "b"])),
    "a method": (Named, lambda model: model.net.forward(X)),
    "a function without a result": (Named, lambda model: [model(pixel_values=X), None][1]),
}


@pytest.mark.parametrize("form", FORMS)
def test_every_verb_takes_every_form(form: str, tmp_path: Path) -> None:
    kind, example = FORMS[form]
    model = kind()
    model.net.layer2.eval()
    modes = [module.training for module in model.modules()]
    before = {name: value.clone() for name, value in model.state_dict().items()}
    planned = foveate.plan(model, "cbam", example=example, reduction=2)
    assert [site.name for site in planned.sites] == [f"net.{site}" for site in SITES]
    assert planned.sites[0].shape == (2, 8, 16, 16)
    foveate.attach(model, "cbam", example=example, reduction=2, start="paper")
    other = kind()
    foveate.save_adapter(model, tmp_path / "adapter.safetensors")
    foveate.load_adapter(other, tmp_path / "adapter.safetensors", example=example)
    baked = foveate.bake(model, example=example)
    for one in (model, other):
        host = foveate.host_state_dict(one)
        assert all(torch.equal(host[name], value) for name, value in before.items())
    foveate.detach(model)
    assert [module.training for module in model.modules()] == modes
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())
    x = torch.rand(1, 3, 16, 16)
    ours, theirs = (one.eval().get_submodule("net")(x) for one in (baked, other))
    assert torch.equal(ours, theirs)


def test_plan_leaves_the_random_state_and_the_example_unchanged() -> None:
    class Overwriting(Mixed):
        def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
            return super().forward(x.mul_(0), *args, **kwargs)

    x, model, state = X.clone(), Overwriting(), torch.get_rng_state()
    foveate.plan(model, "eca", example=((x, 1), {"return_loss": False}))
    assert torch.equal(x, X)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize(
    ("example", "shape"),
    [((1, 3, 16, 16), 1), ([4, 3, 16, 16], 4), (torch.Size([2, 3, 16, 16]), 2), ((3, 16, 16), 1), (X, 2), ((X,), 2)],
    ids=["batch of 1", "list", "torch.Size", "without a batch", "tensor", "tuple"],
)
def test_shapes_and_tensors(example: Any, shape: int) -> None:
    assert foveate.plan(hosts.ResNet(), "eca", example=example).sites[0].shape[0] == shape


WRONG: dict[str, tuple[type[nn.Module], Any, str]] = {
    "no tensor": (Named, {"pixel_values": (1, 3, 16, 16)}, r"(?s)holds no tensor.*torch.rand\(shape\)"),
    "shapes": (Mixed, ((1, 3, 16, 16), (1, 3, 16, 16)), r"(?s)holds no tensor.*torch.rand\(shape\)"),
    "text": (Named, "1,3,16,16", "example as a tensor, a shape, a tuple of arguments, a dict of keyword arguments"),
    "a number": (Named, 224, "Received 224, which holds no tensor"),
    "an empty axis": (Named, (1, 0, 16, 16), "which holds no tensor"),
    "a model": (Named, nn.ReLU(), "which holds no tensor"),
    "a class": (Named, Tensor, "which holds no tensor"),
    "another name": (Named, {"image": X}, r"(?s)unexpected keyword argument 'image'.*the names that forward has"),
    "a list of arguments": (Mixed, [X, 2], r"(?s)TypeError.*a list is one argument"),
    "too many": (Named, (X, X), r"(?s)TypeError.*a tuple holds its arguments"),
    "another shape": (hosts.ResNet, (1, 5, 16, 16), r"(?s)to have 3 channels, but got 5.*that the model accepts"),
    "both modes": (Trained, (IMAGES,), "NotImplementedError: only losses; and in training mode AssertionError"),
    "a function of another model": (
        Named,
        lambda model: None,
        r"(?s)no module of that model ran.*lambda model: model\(x",
    ),
    "a function that fails": (Mixed, lambda model: model(X, 2), "RuntimeError: no targets"),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_a_wrong_example_is_refused_in_words_and_changes_nothing(wrong: str) -> None:
    kind, example, words = WRONG[wrong]
    model = kind()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(UsageError, match=words):
        foveate.attach(model, "eca", example=example)
    assert all(torch.equal(model.state_dict()[name], value) for name, value in before.items())
    assert all(module.training for module in model.modules())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


def test_bake_refuses_a_function_that_runs_the_attached_model_itself() -> None:
    model = Named()
    foveate.attach(model, "eca", example={"pixel_values": X})
    fixed: Callable[[Any], Any] = lambda _: model(pixel_values=X)  # noqa: E731
    with pytest.raises(UsageError, match="use the function's argument"):
        foveate.bake(model, example=fixed)


def test_a_detector_of_torchvision(monkeypatch: pytest.MonkeyPatch) -> None:
    from torchvision.models.detection import ssdlite320_mobilenet_v3_large
    from torchvision.ops import boxes

    monkeypatch.setattr(boxes, "batched_nms", lambda boxes, scores, labels, threshold: scores.argsort(descending=True))

    model = ssdlite320_mobilenet_v3_large(weights=None, weights_backbone=None, num_classes=3)
    images = [torch.rand(3, 64, 80), torch.rand(3, 96, 64)]
    targets = [{"boxes": torch.tensor([[4.0, 4.0, 40.0, 40.0]]), "labels": torch.tensor([1])}] * 2
    plans = [
        foveate.plan(model, "eca", example=example)
        for example in (images, lambda model: model.train()(images, targets))
    ]
    assert len({tuple(site.name for site in planned.sites) for planned in plans}) == 1
    assert plans[0].sites[0].shape[0] == 2
    assert all(site.name.startswith("backbone.") for site in plans[0].sites)
