"""Fold attention whose gates are constant over images into the layers before it."""

import copy
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from foveate.errors import UsageError, counted
from foveate.exporting.subject import Subject, Thresholds, TorchReference
from foveate.exporting.verify import TOLERANCE, agreements, compare
from foveate.surgery import detach
from foveate.surgery.torch.child import AttachedAttention, attached
from foveate.surgery.torch.replaced import Replaced

CONSTANT = 1e-5  # of the greatest magnitude of a map: by so much may attention differ from a constant factor
BATCH = 16
# layers that make each channel of their output with weights of its own, which come first in their tensors
LAYERS = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.GroupNorm)


@dataclass(frozen=True)
class Folding:
    """A model without the attention that was constant: the `sites` that lost it, and why the others `kept` theirs."""

    model: nn.Module
    sites: tuple[str, ...]
    kept: Mapping[str, str]
    parameters: int

    def to_dict(self) -> dict[str, Any]:
        """Return what the record keeps."""
        return {"sites": [*self.sites], "kept": {**self.kept}, "parameters": self.parameters}


def fold(model: nn.Module, images: Tensor) -> Folding:
    """Return a copy of an attached model in which attention that is constant over the images became part of its site.

    Attention is constant where it multiplies each channel by one number, the same for all positions of all images
    (N, C, H, W). The weights of its site, a convolution or a norm, are multiplied by these numbers; attention that
    multiplies by 1 goes away anywhere. Raises UsageError without attached attention.
    """
    model = copy.deepcopy(model)
    sites = attached(model)
    if not sites:
        raise UsageError(expected="a model with attention attached", received="one without", do="leave fold out")
    run = TorchReference(model)
    factors = _factors(sites, lambda: _run(run, images))
    before, folded, kept = sum(p.numel() for p in model.parameters()), list[str](), dict[str, str]()
    for name, held in sites.items():
        factor = factors[name]
        if isinstance(factor, str):
            kept[name] = factor
        elif why := _why_not(model, held, factor):
            kept[name] = why
        else:
            _scale(held.module, factor)
            folded.append(name)
    if folded:
        detach(model, folded)
    return Folding(model, tuple(folded), kept, before - sum(p.numel() for p in model.parameters()))


def check_fold(keras: bool, subject: Subject, images: Tensor | None) -> Tensor:
    """Return the images to fold by. Raises UsageError without them, and for models that cannot be folded."""
    if keras or images is None or len(subject.inputs) != 1:
        raise UsageError(
            expected="a PyTorch model of one input to fold, and images to see which attention is constant",
            received="a Keras model" if keras else "no images" if images is None else "several inputs",
            do="leave fold out" if keras or images is not None else "pass images=, prepared as for the model",
        )
    return images


def changed(subject: Subject, folded: Subject, images: Tensor, limits: Thresholds) -> dict[str, Any]:
    """Return what folding changed on images: the greatest difference, and the share of equal classes or boxes."""
    reference = folded.reference
    run = lambda inputs: [output.numpy() for output in reference(*map(torch.from_numpy, inputs))]  # noqa: E731
    checks = [compare("images", subject, run, (part,), limits, TOLERANCE) for part in images.split(BATCH)]
    (same, count), difference = agreements(checks), max(check.difference for check in checks)
    return {"images": len(images), "difference": difference, "agreement": same / count if count else None}


def sentence(record: Mapping[str, Any]) -> str:
    """Return what folding did, in one sentence."""
    done = record["folded"]
    total = len(done["sites"]) + len(done["kept"])
    text = f"Attention folded at {len(done['sites'])} of {counted(total, 'site')}"
    if not done["sites"]:
        return (
            f"{text}: nowhere is it constant over the {counted(done['images'], 'image')}, or it has no layer to go to"
        )
    text += f", {done['parameters']:,} parameters fewer; this changes outputs by {done['difference']:.1e}"
    return text if done["agreement"] is None else f"{text}, and {done['agreement']:.1%} of results are the same"


def _factors(sites: Mapping[str, AttachedAttention], run: Callable[[], None]) -> dict[str, Tensor | str]:
    """Return by which numbers (C,) attention multiplies the channels of each site; or why it is no constant."""
    products, squares = dict[str, Tensor](), dict[str, Tensor]()
    strange = {name: "its map changes its shape, or it has a context" for name, held in sites.items() if held.link}

    def add(name: str, x: Tensor, y: Tensor) -> None:
        if x.shape != y.shape:
            strange[name] = "its map changes its shape, or it has a context"
            return
        axes = [axis for axis in range(x.dim()) if axis != 1]
        x, y = x.double(), y.double()
        products[name] = products.get(name, 0) + (x * y).sum(axes)
        squares[name] = squares.get(name, 0) + (x * x).sum(axes)

    _watch(sites, add, run)
    factors = {name: torch.where(squares[name] > 0, products[name] / squares[name], 1.0) for name in products}
    farthest, greatest = dict.fromkeys(factors, 0.0), dict.fromkeys(factors, 0.0)

    def differ(name: str, x: Tensor, y: Tensor) -> None:
        if name in factors and name not in strange:
            far = y - x * factors[name].to(x.dtype).reshape(-1, *[1] * (x.dim() - 2))
            farthest[name] = max(farthest[name], float(far.abs().max()))
            greatest[name] = max(greatest[name], float(x.abs().max()))

    _watch(sites, differ, run)
    found: dict[str, Tensor | str] = {}
    for name in sites:
        if name in strange or name not in factors:
            found[name] = strange.get(name, "it did not run")
        elif farthest[name] <= CONSTANT * greatest[name]:
            found[name] = factors[name]
        else:
            found[name] = f"it is not constant: {farthest[name] / greatest[name]:.1e} of the greatest value of its map"
    return found


def _watch(
    sites: Mapping[str, AttachedAttention], see: Callable[[str, Tensor, Tensor], None], run: Callable[[], None]
) -> None:
    """Run a model, and show the input and the output of the attention of each site."""

    def hook(name: str) -> Any:
        return lambda _, inputs, output: see(name, inputs[0], output)

    handles = [held.attention.register_forward_hook(hook(name)) for name, held in sites.items() if held.link is None]
    try:
        run()
    finally:
        for handle in handles:
            handle.remove()


def _run(reference: TorchReference, images: Tensor) -> None:
    for part in images.split(BATCH):
        reference(part)


def _why_not(model: nn.Module, held: AttachedAttention, factor: Tensor) -> str | None:
    """Return why a factor cannot become part of the site; None if it can."""
    site = held.module
    if isinstance(site, Replaced):
        return "it stands in the place of another module"
    if bool(((factor - 1).abs() <= CONSTANT).all()):
        return None
    tensors = _weights(site)
    if held.argument or type(site) not in LAYERS or "weight" not in tensors:
        return f"it is constant, but follows no convolution or norm, only a {type(site).__name__}"
    others = _ids(parameter for module in model.modules() if module is not site for parameter in _own(module))
    if _ids(tensors.values()) & others or len(site._forward_hooks) > 1:
        return "it is constant, but the weights of its site are used elsewhere, or its site has another hook"
    return None


def _scale(site: nn.Module, factor: Tensor) -> None:
    if bool(((factor - 1).abs() <= CONSTANT).all()):
        return
    with torch.no_grad():
        for tensor in _weights(site).values():
            tensor.mul_(factor.to(tensor.dtype).reshape(-1, *[1] * (tensor.dim() - 1)))


def _weights(site: nn.Module) -> dict[str, nn.Parameter]:
    found = {name: site._parameters.get(name) for name in ("weight", "bias")}
    return {name: parameter for name, parameter in found.items() if parameter is not None}


def _own(module: nn.Module) -> Iterable[nn.Parameter]:
    return (parameter for parameter in module._parameters.values() if parameter is not None)


def _ids(parameters: Iterable[nn.Parameter]) -> set[int]:
    return {id(parameter) for parameter in parameters}
