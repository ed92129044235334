"""Save and load weights of a model in a local file, without running code from the file."""

import copy
import hashlib
import json
import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from foveate import files
from foveate.bind.published import published_weights
from foveate.bind.states import is_bound
from foveate.errors import DataError, UsageError, shortened
from foveate.models.classifier_heads import heads_of
from foveate.models.file_layouts import FileLayout, exact_layout, recognise
from foveate.models.first_convolution import fit_channels
from foveate.normalisation import Normalisation, normalisation_of, set_normalisation
from foveate.surgery.core.adapter_file import described
from foveate.surgery.torch.child import attached
from foveate.torch_utils.names import CHILD, is_attention, site_of

SUFFIXES = (".safetensors", ".pt", ".pth", ".th", ".ckpt", ".bin")
_WRAPPERS = (
    "state_dict",
    "model_state_dict",
    "model",
)  # keys under which training scripts save the weights beside other things
_PREFIXES = ("module.", "_orig_mod.", "model.")  # added by DataParallel, torch.compile and Lightning

logger = logging.getLogger("foveate")


def save_weights(model: nn.Module, path: str | os.PathLike[str]) -> str:
    """Write all weights of a model atomically, tied ones separately; return the sha256 of the file.

    The metadata of the file describe the attention of the model and `model.normalisation`.
    """
    from safetensors.torch import save

    carried = normalisation_of(model)
    metadata = {"sites": _sites(model)} | ({"normalisation": carried.to_dict()} if carried else {})
    content = save(
        {name: value.detach().cpu().contiguous().clone() for name, value in model.state_dict().items()},
        {"foveate": json.dumps(metadata)},
    )
    files.write_bytes(Path(path), content)
    return hashlib.sha256(content).hexdigest()


def load_weights(model: nn.Module, path: str | os.PathLike[str], classes: int) -> tuple[str, ...]:
    """Load a checkpoint into a newly built model, except heads that were trained for other classes; return those heads.

    If the layers in the file have other names, they are renamed if the layout is known (`layouts/*.toml`). The file's
    normalisation becomes `model.normalisation`.

    Raises:
        UsageError: the file is missing, of another kind, or its names, shapes or attention are not those of the model;
            the model then stays unchanged.
        DataError: the file is damaged, or is a pickle of something other than tensors (which is refused, not run).
    """
    path = Path(path)
    own, stated = copy.deepcopy(model.state_dict()), stated_normalisation(path)
    weights, layout = _renamed(path, without_prefix(read_weights(path), set(own)), model)
    do = f"these are weights for --model {layout.model}" if layout else "check the model's name and options"
    _check_attention(path, model, weights)
    _fit_first(path, weights, own)
    heads = heads_of(model, classes)
    reshaped = [name for name, value in weights.items() if name in own and own[name].shape != value.shape]
    fresh = {
        name for name in reshaped if name.rpartition(".")[0] in heads and own[name].shape[1:] == weights[name].shape[1:]
    }
    wrong = [
        f"{name} is {tuple(weights[name].shape)}, here {tuple(own[name].shape)}"
        for name in reshaped
        if name not in fresh
    ]
    if wrong:
        raise _mismatch(path, "shapes that differ", wrong, do)
    if fresh:
        logger.warning(
            "%s was trained for other classes: everything but %s was loaded", path, " and ".join(map(repr, heads))
        )
    result = model.load_state_dict({name: value for name, value in weights.items() if name not in fresh}, strict=False)
    missing = [name for name in result.missing_keys if name not in fresh]
    if layout and not layout.whole:
        missing = _only_backbone(path, layout, missing)
    for what, names in (("missing", missing), ("unexpected", result.unexpected_keys)):
        if names:
            model.load_state_dict(own)
            raise _mismatch(path, what, names, do)
    if stated is not None:
        set_normalisation(model, stated)
    return tuple(head for head in heads if any(name.rpartition(".")[0] == head for name in fresh))


def stated_normalisation(path: Path) -> Normalisation | None:
    """Return the normalisation in the metadata of a file of weights, or of its published layout, else None.

    Raises as `read_weights` does.
    """
    layout = exact_layout(without_prefix(read_weights(path), set()))
    recorded = _metadata(path).get("normalisation")
    return Normalisation.from_dict(recorded, path) if recorded is not None else layout and layout.normalisation


def has_attention(path: Path) -> bool:
    """Return whether a file of weights includes attention; raises as `load_weights` does."""
    weights = without_prefix(read_weights(path), set())
    layout = exact_layout(weights)
    return bool(layout.blocks(weights) if layout else _attention(weights))


def read_weights(path: Path) -> dict[str, Tensor]:
    """Read a flat dictionary of tensors, also from inside the usual wrappers; raises as `load_weights` does."""
    if path.suffix not in SUFFIXES or not path.is_file():
        received = str(path) if path.is_file() else f"{path}, which is not a file"
        kinds = ", ".join(SUFFIXES)
        do = "download it first, or convert it; the model efficientnet-lite0 comes with its own weights"
        raise UsageError(expected=f"a local file of weights ({kinds})", received=received, do=do)
    content = _read(path)
    while isinstance(content, Mapping) and (
        wrapper := next((key for key in _WRAPPERS if isinstance(content.get(key), Mapping)), None)
    ):
        content = content[wrapper]
    if (
        not isinstance(content, Mapping)
        or not content
        or not all(isinstance(value, Tensor) for value in content.values())
    ):
        raise DataError(
            expected="a dictionary of tensors, at the top level or under 'state_dict' or 'model'",
            received=f"{path} with {_describe(content)}",
            do="save the weights with torch.save(model.state_dict(), path) or as safetensors",
        )
    return {str(name): value for name, value in content.items()}


def _read(path: Path) -> Any:
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            return load_file(path)
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged file raises almost any exception
        raise DataError(
            expected="a file of tensors that can be read without running code from it",
            received=f"{path}: {type(error).__name__}: {str(error).splitlines()[0] if str(error) else 'no message'}",
            do="get the file again, or if you trust it, convert it to safetensors",
        ) from error


def without_prefix(weights: dict[str, Tensor], own: set[str]) -> dict[str, Tensor]:
    """Return weights without the prefixes that DataParallel, torch.compile and Lightning add to all names."""
    for prefix in _PREFIXES * 2:  # twice, as prefixes may be nested in either order
        if all(name.startswith(prefix) for name in weights) and not any(name.startswith(prefix) for name in own):
            weights = {name.removeprefix(prefix): value for name, value in weights.items()}
    return weights


def _renamed(path: Path, weights: dict[str, Tensor], model: nn.Module) -> tuple[dict[str, Tensor], FileLayout | None]:
    """Give weights of a known layout the model's names; also return the layout."""
    layout = None if model.state_dict().keys() & weights.keys() else recognise(path, weights)
    if layout is None:
        return weights, None
    logger.info(
        "%s: %d tensors, named as in %s (%s), renamed for %s",
        path,
        len(weights),
        layout.name,
        layout.source,
        layout.model,
    )
    blocks = layout.blocks(weights)
    found: dict[str, Tensor] = {}
    for site, names in blocks.items():
        values = _published(path, layout, model, site, {name: weights.pop(name) for name in names})
        found |= {f"{site}.{CHILD}.{name}": value for name, value in values.items()}
    return {layout.ours(name): value for name, value in weights.items()} | found, layout


def _published(
    path: Path, layout: FileLayout, model: nn.Module, site: str, block: dict[str, Tensor]
) -> dict[str, Tensor]:
    """Return the weights of a block of attention under the names of the model's."""
    here = attached(model).get(site)
    try:
        if here is not None:
            return {
                name: torch.from_numpy(np.array(v)) for name, v in published_weights(here.attention, block)[0].items()
            }
        received = f"a model without attention at {site}"
    except UsageError as error:
        received = f"another attention at {site}: it expects {error.expected}"
    raise UsageError(
        expected=f"the attention of the weights in {path}",
        received=received,
        do=f'build it as YOLOv4Tiny(classes, {layout.options(block)}, start="paper")',
    )


def _fit_first(path: Path, weights: dict[str, Tensor], own: Mapping[str, Tensor]) -> None:
    """Fit the first convolution of the weights to the channels of the model's images, if one of the two has one."""
    name = next((name for name, value in own.items() if value.ndim == 4), None)
    if name is None or name not in weights or weights[name].ndim != 4:
        return
    given, wanted = weights[name].shape[1], own[name].shape[1]
    if given != wanted and 1 in (given, wanted) and weights[name][:, 0].shape == own[name][:, 0].shape:
        weights[name] = fit_channels(weights[name], wanted, path)
        logger.warning("%s has a first convolution for %d channels, which was fitted to %d", path, given, wanted)


def _only_backbone(path: Path, layout: FileLayout, missing: list[str]) -> list[str]:
    """Say which layers a file of a backbone does not have; return the missing weights that it should have."""
    layers = dict.fromkeys(name.rpartition(".")[0] for name in missing if not is_attention(name))
    logger.warning("%s has only %s: new are %s", path, layout.name, ", ".join(layers))
    return []


def _mismatch(path: Path, what: str, names: list[str], do: str) -> UsageError:
    return UsageError(expected="weights of this model", received=f"{path} with {what}: {shortened(names)}", do=do)


def _check_attention(path: Path, model: nn.Module, weights: Mapping[str, Tensor]) -> None:
    """Refuse a file whose attention differs from the model's: at other sites, of another kind, or absent in one."""
    here, there = _attention(model.state_dict()), _attention(weights)
    sites, recorded = _sites(model), _metadata(path).get("sites")
    if here == there and recorded in (None, sites):
        if there and recorded is None:
            logger.warning("%s does not say what its attention is: only names and shapes were compared", path)
        return
    if recorded and [site["name"] for site in recorded] == [site["name"] for site in sites]:
        theirs, ours = next((one, other) for one, other in zip(recorded, sites, strict=True) if one != other)
        differing = [f"{key} {theirs.get(key)!r}, here {ours[key]!r}" for key in ours if theirs.get(key) != ours[key]]
        received = f"{path}, whose attention at {ours['name']} has {'; '.join(differing)}"
    elif here.keys() == there.keys():
        site = next(site for site in here if here[site] != there[site])
        odd = [part for part in {**there[site], **here[site]} if there[site].get(part) != here[site].get(part)]
        parts = shortened(
            [f"{part} is {there[site].get(part, 'absent')}, here {here[site].get(part, 'absent')}" for part in odd]
        )
        received = f"{path}, whose attention at {site} is of another kind or has other options: {parts}"
    else:
        received = f"a model {_with(here)}, and {path} {_with(there)}"
    do = "use the attention that the weights have, or weights of a run with --attention none"
    raise UsageError(
        expected="the same attention in the model and in the file of its weights",
        received=received,
        do=do if there else "load the weights first, attach afterwards",
    )


def _attention(state: Mapping[str, Tensor]) -> dict[str, dict[str, tuple[int, ...]]]:
    """Return the shapes of attached attention by site."""
    sites: dict[str, dict[str, tuple[int, ...]]] = {}
    for name, value in state.items():
        if (found := site_of(name)) is not None:
            site, part = found
            sites.setdefault(site, {})[part] = tuple(value.shape)
    return sites


def _sites(model: nn.Module) -> list[dict[str, Any]]:
    """Return what the metadata of a file say about a model's attached attention of the catalogue, as read from JSON."""
    bound = {name: held.attention for name, held in attached(model).items()}
    return json.loads(
        json.dumps([described(name, module) for name, module in sorted(bound.items()) if is_bound(module)])
    )


def _metadata(path: Path) -> dict[str, Any]:
    """Return the metadata that `save_weights` wrote; {} for files from other programs."""
    from safetensors import safe_open

    if path.suffix != ".safetensors":
        return {}
    with safe_open(path, "pt") as file:
        text = (file.metadata() or {}).get("foveate")
    if text is None:
        return {}
    try:
        metadata = json.loads(text)
        return {**metadata, "sites": [dict(site) for site in metadata["sites"]]}
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise DataError(
            expected=f"the metadata of the run that wrote {path}",
            received=f"{type(error).__name__}: {str(error)[:200]}",
            do="get the file again",
        ) from None


def _with(sites: Mapping[str, Any]) -> str:
    return f"with attention at {shortened(list(sites))}" if sites else "without"


def _describe(content: Any) -> str:
    if not isinstance(content, Mapping):
        return f"a {type(content).__name__}"
    return f"the keys {shortened([*map(str, content)]) or '(none)'}"
