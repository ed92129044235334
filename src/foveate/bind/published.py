"""Load weights that others saved: find their layout by its names and shapes, then rename, reshape and flip them into ours."""

import itertools
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.resources import files
from typing import Any

import torch
from torch import Tensor

from foveate.bind.torch import Attention
from foveate.errors import UsageError, nearest

OPTIONAL = (".blend", ".num_batches_tracked")


@dataclass(frozen=True)
class Layout:
    """How one published implementation names its weights.

    `names` maps our parts to theirs; `flip` lists our convolutions whose two input maps they save as [mean, max];
    `options` are the ones their code fixes and their names do not show.
    """

    name: str
    source: str
    names: Mapping[str, str]
    flip: Sequence[str] = ()
    options: Mapping[str, Any] = field(default_factory=dict)

    def theirs(self, key: str) -> str | None:
        """Return their name of our weight `key`, or None where they have none."""
        part, _, leaf = key.rpartition(".")
        return f"{self.names[part]}.{leaf}" if part in self.names else None

    def ours(self, key: str, value: Tensor) -> Tensor:
        """Return their value of our weight `key` in our order."""
        part, _, leaf = key.rpartition(".")
        return value.flip(1) if part in self.flip and leaf == "weight" else value


def layouts(mechanism: str) -> list[Layout]:
    """Return the layouts known for a mechanism: those of `layouts/<mechanism>.toml`."""
    table = files("foveate.bind") / "layouts" / f"{mechanism}.toml"
    return [Layout(**entry) for entry in tomllib.loads(table.read_text(encoding="utf-8"))["layouts"]] if table.is_file() else []


def load_published(module: Attention, state_dict: Mapping[str, Any], *, layout: str | None = None) -> str:
    """Load published weights into a bound mechanism and return the name of their layout.

    Knows the authors' code, timm, torchvision, the listings and Foveate's own names; a prefix common to all keys is ignored, and so
    are missing batch counts. Linear weights fit 1x1 convolutions. Published weights mean the published behaviour: an identity start is
    moved to the paper's gate (`blend` becomes 1), unless the weights bring a `blend` of their own.

    Raises:
        UsageError: the layout is not known, or a name, a shape or an option does not fit; the module is then unchanged.
    """
    if not isinstance(module, Attention):
        raise UsageError(
            expected="a module made by foveate.attention", received=type(module).__name__, do='foveate.attention("cbam", channels)'
        )
    saved = _tensors(state_dict)
    known = _choose(module, layout)
    weights, name = _recognise(module, known, saved)
    module.load_state_dict(weights)
    return name


def _tensors(state_dict: Mapping[str, Any]) -> dict[str, Tensor]:
    received = None if isinstance(state_dict, Mapping) else type(state_dict).__name__
    if received is None:
        received = next((f"{key!r}: {type(value).__name__}" for key, value in state_dict.items() if not _is_array(value)), None)
    if received is not None:
        do = "pass module.state_dict(), or what safetensors or torch.load(weights_only=True) returns"
        raise UsageError(expected="a state dict of names and tensors", received=received, do=do)
    return {str(key): torch.as_tensor(value) for key, value in state_dict.items()}


def _is_array(value: Any) -> bool:
    return isinstance(value, Tensor) or hasattr(value, "__array_interface__")


def _choose(module: Attention, layout: str | None) -> list[Layout]:
    known = _known(module)
    if layout is not None and layout not in [entry.name for entry in known]:
        do = nearest(str(layout), [entry.name for entry in known])
        raise UsageError(expected=f"a layout of {module.mechanism.name}", received=repr(layout), do=do)
    return [entry for entry in known if layout in (None, entry.name)]


def _known(module: Attention) -> list[Layout]:
    own = {key.rpartition(".")[0] for key in module.state_dict()}
    return [*layouts(module.mechanism.name), Layout("foveate", "Foveate's own names", {part: part for part in own})]


def _recognise(module: Attention, known: list[Layout], saved: dict[str, Tensor]) -> tuple[dict[str, Tensor], str]:
    target = module.state_dict()
    for stripped in _without_prefixes(saved):
        named = [layout for layout in known if _fits(layout, target, stripped)]
        if named:
            return _agree([(*_convert(module, layout, target, stripped), layout.name) for layout in named])
    raise _unfit(module, known, saved) or _unknown(module, known, saved)


def _without_prefixes(saved: dict[str, Tensor]) -> Iterator[dict[str, Tensor]]:
    """Yield the weights as they are, then without each leading name that all keys share."""
    yield saved
    while len({key.partition(".")[0] for key in saved}) == 1 and all("." in key for key in saved):
        saved = {key.partition(".")[2]: value for key, value in saved.items()}
        yield saved


def _fits(layout: Layout, target: Mapping[str, Tensor], saved: Mapping[str, Tensor]) -> bool:
    """Whether the names are exactly the layout's, optional ones aside."""
    needed = {layout.theirs(key) for key in target if not key.endswith(OPTIONAL)}
    return needed <= saved.keys() <= {layout.theirs(key) for key in target}


def _convert(
    module: Attention, layout: Layout, target: Mapping[str, Tensor], saved: Mapping[str, Tensor]
) -> tuple[dict[str, Tensor], UsageError | None]:
    """Return the weights under our names, and what stands in the way of using them."""
    options = module.mechanism.options()
    for option, value in layout.options.items():
        if options[option] != value:
            return {}, UsageError(
                expected=f"{option}={value!r}, as the layout {layout.name!r} ({layout.source}) computes",
                received=f"a module with {option}={options[option]!r}",
                do=f"build it with {option}={value!r}",
            )
    weights = {}
    for key, ours in target.items():
        theirs = layout.theirs(key)
        if theirs is None or theirs not in saved:
            weights[key] = torch.ones_like(ours) if key.endswith(".blend") else ours
            continue
        value = saved[theirs]
        if _square(value.shape, ours.ndim) != tuple(ours.shape):
            return {}, UsageError(
                expected=f"{theirs!r} of shape {tuple(ours.shape)}",
                received=f"shape {tuple(value.shape)}",
                do=f"build the module with the options the weights were made with ({', '.join(options)}) and their channels",
            )
        weights[key] = layout.ours(key, value.reshape(ours.shape))
    return weights, None


def _square(shape: Sequence[int], rank: int) -> tuple[int, ...]:
    """Give a Linear weight (out, in) the rank of a 1x1 convolution's (out, in, 1, 1), or the other way."""
    padded = (*shape, *[1] * (rank - len(shape)))
    return padded[:rank] if set(padded[rank:]) <= {1} else padded


def _agree(candidates: list[tuple[dict[str, Tensor], UsageError | None, str]]) -> tuple[dict[str, Tensor], str]:
    usable = [(weights, name) for weights, error, name in candidates if error is None]
    if not usable:
        raise next(error for _, error, _ in candidates if error is not None)
    first, name = usable[0]
    rivals = [other for weights, other in usable if any(not torch.equal(weights[key], first[key]) for key in first)]
    if rivals:
        names = ", ".join(repr(other) for other in [name, *rivals])
        raise UsageError(
            expected="weights of one layout",
            received=f"names that several have: {names}",
            do=f"say whose they are: load_published(module, state_dict, layout={name!r})",
        )
    return first, name


def _unfit(module: Attention, known: list[Layout], saved: dict[str, Tensor]) -> UsageError | None:
    """Return the error that names the switches (biases, norms, start) under which the weights would fit, if there are any."""
    now = {"start": module.start, **module.mechanism.options()}
    choices = {
        name: ("paper", "identity") if name == "start" else (True, False) for name in now if name == "start" or isinstance(now[name], bool)
    }
    settings = [dict(zip(choices, values, strict=True)) for values in itertools.product(*choices.values())]
    changes = [{name: value for name, value in setting.items() if now[name] != value} for setting in settings]
    for change in sorted(changes, key=len):
        try:
            other = type(module)(module.channels, device="meta", **{**now, **change})
        except UsageError:
            continue
        names = [layout.name for layout in known]
        for layout, stripped in itertools.product(_known(other), _without_prefixes(saved)):
            if layout.name in names and _fits(layout, other.state_dict(), stripped):
                return UsageError(
                    expected=f"weights of a module with {_listed({name: now[name] for name in change})}",
                    received=f"those of one with {_listed(change)}, in the layout {layout.name!r}: {_shown(stripped)}",
                    do=f"build the module with {_listed(change)}",
                )
    return None


def _listed(options: Mapping[str, Any]) -> str:
    return ", ".join(f"{name}={value!r}" for name, value in options.items())


def _unknown(module: Attention, known: list[Layout], saved: dict[str, Tensor]) -> UsageError:
    needed = [key for key in module.state_dict() if not key.endswith(OPTIONAL)]
    lines = [f"  {layout.name} ({layout.source}): {', '.join(filter(None, map(layout.theirs, needed)))}" for layout in known]
    return UsageError(
        expected="\n".join([f"one of the layouts known for {module.mechanism.name}:", *lines]),
        received=f"the keys {_shown(saved)}" if saved else "an empty state dict",
        do="rename the keys to one of these layouts, or check that the weights are of this mechanism",
    )


def _shown(saved: Mapping[str, Tensor], count: int = 12) -> str:
    shown = ", ".join(f"{key} {tuple(value.shape)}" for key, value in list(saved.items())[:count])
    return shown + (f" and {len(saved) - count} more" if len(saved) > count else "")
