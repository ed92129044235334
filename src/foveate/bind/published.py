"""Read weights that other code saved: recognise their layout by names and shapes, then convert them to ours."""

import itertools
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from foveate.bind import states
from foveate.bind.weight_layouts import NORM, TO_TORCH, Arrays
from foveate.errors import ReductionWarning, UsageError, nearest
from foveate.facts import facts
from foveate.mechanisms import make
from foveate.parts import weights
from foveate.spec import Mechanism

OPTIONAL = (".num_batches_tracked",)
KERAS_LEAVES = {"kernel": "weight", "bias": "bias", **{theirs: ours for ours, theirs in NORM.items()}}
# The names of the arrays in a Keras layer's `get_weights()`, by their ranks.
KERAS_LISTS: dict[tuple[int, ...], tuple[str, ...]] = {(): (), (1, 1, 1, 1): tuple(NORM.values())}
KERAS_LISTS |= {(rank, *more): ("kernel", "bias")[: 1 + len(more)] for rank in TO_TORCH for more in ((), (1,))}

# The ends of the names under which torch saves the length and the direction of a weight with weight norm.
WEIGHT_NORM = (
    ("weight_g", "weight_v"),
    ("parametrizations.weight.original0", "parametrizations.weight.original1"),
)


@dataclass(frozen=True)
class WeightLayout:
    """How one published implementation names its weights.

    `names` maps our parts, or single weights such as "scale.weight", to theirs; axes of one entry may differ. `flip`
    lists our convolutions whose two input maps they save as [mean, max]; `options` are options that their code fixes
    and that their names do not show.
    """

    name: str
    source: str
    names: Mapping[str, str]
    flip: Sequence[str] = ()
    options: Mapping[str, Any] = field(default_factory=dict)

    def theirs(self, key: str) -> str | None:
        """Return their name for our weight `key`, or None where they have none."""
        part, _, leaf = key.rpartition(".")
        return self.names.get(key) or (f"{self.names[part]}.{leaf}" if part in self.names else None)

    def ours(self, key: str, value: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        """Return their value for our weight `key`, with the input maps in our order."""
        part, _, leaf = key.rpartition(".")
        return np.flip(value, 1) if part in self.flip and leaf == "weight" else value


def layouts(mechanism: str | type[Mechanism]) -> list[WeightLayout]:
    """Return the layouts known for a mechanism, by name or class, from the TOML beside its source."""
    return [WeightLayout(**entry) for entry in facts(mechanism).get("layouts", ())]


def published_weights(module: Any, state_dict: Mapping[str, Any], layout: str | None = None) -> tuple[Arrays, str]:
    """Return published weights under the names and in the shapes of a bound mechanism, and their layout's name.

    Raises UsageError as `load_published`.
    """
    check_start(module)
    saved = without_weight_norm(arrays(state_dict))
    return _recognise(module, _choose(module, layout), saved)


def check_start(module: Any) -> None:
    """Raise UsageError for a module with the identity start, which published weights do not fit."""
    if module.start == "identity":
        raise UsageError(
            expected='a module with start="paper": published weights belong to the published gate',
            received='one with start="identity", whose output is not that of the published module',
            do='build or attach it with start="paper"; weights saved from such a module load with load_state_dict',
        )


def change_for(module: Any, saved: Arrays, layout: str | None = None) -> dict[str, Any] | None:
    """Return the options to change so that the weights fit in names and shapes, as few as possible; None without any.

    Tries the switches (biases, norms), and the reductions and kernel sizes that the shapes of the weights suggest.
    """
    found = _find_change(module, _choose(module, layout), without_weight_norm(saved))
    return None if found is None else found[0]


def is_of(mechanism: str | type[Mechanism], saved: Arrays) -> bool:
    """Return whether the names are those of one of the mechanism's layouts, apart from biases and norms."""
    for stripped in _without_prefixes(without_weight_norm(saved)):
        for layout in layouts(mechanism):
            theirs = set(layout.names.values())
            if {key if key in theirs else key.rpartition(".")[0] for key in stripped} == theirs:
                return True
    return False


def arrays(state_dict: Mapping[str, Any]) -> Arrays:
    """Return weights as NumPy arrays, under torch's names and in its shapes. Raises UsageError for anything else."""
    received = None if isinstance(state_dict, Mapping) else type(state_dict).__name__
    if received is None:
        state_dict = dict(_by_name(state_dict))
        received = next(
            (f"{key!r}: {type(value).__name__}" for key, value in state_dict.items() if not _is_array(value)), None
        )
    if received is not None:
        do = "pass module.state_dict(), or what safetensors or torch.load(weights_only=True) returns"
        raise UsageError(expected="a state dict of names and tensors", received=received, do=do)
    return dict(_from_keras(str(key), states.array(value)) for key, value in state_dict.items())


def without_weight_norm(saved: Arrays) -> Arrays:
    """Replace each weight that torch's weight norm saved as a length g and a direction v by g v / |v|, in float64.

    The names are "conv.weight_g" and "conv.weight_v", or those of `torch.nn.utils.parametrizations.weight_norm`.
    """
    whole = dict(saved)
    for key, length in saved.items():
        for g, v in WEIGHT_NORM:
            name = key.removesuffix(g)
            if name != key and (direction := saved.get(name + v)) is not None:
                axes = tuple(axis for axis in range(direction.ndim) if length.ndim == 0 or length.shape[axis] == 1)
                direction = direction.astype(np.float64)
                whole[f"{name}weight"] = length * direction / np.sqrt((direction**2).sum(axes, keepdims=True))
                del whole[key], whole[name + v]
    return whole


def _is_array(value: Any) -> bool:
    return hasattr(value, "__array__")


def _by_name(state_dict: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Name the arrays of each Keras layer, in the order of `layer.get_weights()`."""
    for key, value in state_dict.items():
        if isinstance(value, list | tuple) and all(map(_is_array, value)):
            ranks = tuple(states.array(one).ndim for one in value)
            if ranks not in KERAS_LISTS:
                raise UsageError(
                    expected="the arrays of a Keras layer: a kernel, a kernel and a bias, or the four of a batch norm",
                    received=f"{key!r} with the shapes {[states.array(one).shape for one in value]}",
                    do="pass what layer.get_weights() returns, or the arrays by name: {weight.path: weight}",
                )
            yield from ((f"{key}/{name}", one) for name, one in zip(KERAS_LISTS[ranks], value, strict=True))
        else:
            yield key, value


def _from_keras(key: str, value: np.ndarray[Any, Any]) -> tuple[str, np.ndarray[Any, Any]]:
    """Convert a Keras name and array, such as "conv/kernel:0" (k, k, inputs, outputs), to torch's; keep any other."""
    path, _, leaf = key.removesuffix(":0").rpartition("/")
    if leaf not in KERAS_LEAVES or not path:
        return key, value
    if leaf == "kernel" and value.ndim not in TO_TORCH:
        raise UsageError(
            expected=f"{key!r} as the kernel of a dense layer or a convolution, of 2, 3 or 4 axes",
            received=f"the shape {value.shape}",
            do="check that the weights are of this mechanism",
        )
    return f"{path.replace('/', '.')}.{KERAS_LEAVES[leaf]}", value.transpose(
        TO_TORCH[value.ndim]
    ) if leaf == "kernel" else value


def _choose(module: Any, layout: str | None) -> list[WeightLayout]:
    known = _known(module.mechanism, states.shapes(module))
    if layout is not None and layout not in [entry.name for entry in known]:
        do = nearest(str(layout), [entry.name for entry in known])
        raise UsageError(expected=f"a layout of {module.mechanism.name}", received=repr(layout), do=do)
    return [entry for entry in known if layout in (None, entry.name)]


def _known(mechanism: Mechanism, names: Iterable[str]) -> list[WeightLayout]:
    own = {key.rpartition(".")[0] for key in names}
    return [*layouts(type(mechanism)), WeightLayout("foveate", "Foveate's own names", {part: part for part in own})]


def _recognise(module: Any, known: list[WeightLayout], saved: Arrays) -> tuple[Arrays, str]:
    target = states.read(module)
    for stripped in _without_prefixes(saved):
        named = [layout for layout in known if _fits(layout, target, stripped)]
        if named:
            return _agree([(*_convert(module, layout, target, stripped), layout.name) for layout in named])
    raise _unfit(module, known, saved) or _unknown(module, known, saved)


def _without_prefixes(saved: Arrays) -> Iterator[Arrays]:
    """Yield the weights as they are, then without each leading name that all keys share."""
    yield saved
    while len({key.partition(".")[0] for key in saved}) == 1 and all("." in key for key in saved):
        saved = {key.partition(".")[2]: value for key, value in saved.items()}
        yield saved


def _fits(layout: WeightLayout, target: Mapping[str, Any], saved: Mapping[str, Any]) -> bool:
    """Return whether the names are exactly the layout's, apart from optional ones and `num_batches_tracked`."""
    needed = {layout.theirs(key) for key in target if not key.endswith(OPTIONAL)}
    given = {key for key in saved if not key.endswith(".num_batches_tracked")}
    return needed <= given <= {layout.theirs(key) for key in target}


def _convert(module: Any, layout: WeightLayout, target: Arrays, saved: Arrays) -> tuple[Arrays, UsageError | None]:
    """Return the weights under our names, and the error that prevents their use, if any."""
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
            weights[key] = ours
            continue
        value = saved[theirs]
        if _lengths(value.shape) != _lengths(ours.shape):
            return {}, UsageError(
                expected=f"{theirs!r} of shape {tuple(ours.shape)}",
                received=f"shape {tuple(value.shape)}",
                do=f"build the module with the channels and options of the weights ({', '.join(options)})",
            )
        weights[key] = layout.ours(key, value.reshape(ours.shape))
    return weights, None


def _lengths(shape: Sequence[int]) -> tuple[int, ...]:
    """Return the shape without axes of one entry: a Linear weight (out, in) is a convolution's (out, in, 1, 1)."""
    return tuple(size for size in shape if size != 1)


def _agree(candidates: list[tuple[Arrays, UsageError | None, str]]) -> tuple[Arrays, str]:
    usable = [(weights, name) for weights, error, name in candidates if error is None]
    if not usable:
        raise next(error for _, error, _ in candidates if error is not None)
    first, name = usable[0]
    rivals = [other for weights, other in usable if any(not np.array_equal(weights[key], first[key]) for key in first)]
    if rivals:
        names = ", ".join(repr(other) for other in [name, *rivals])
        raise UsageError(
            expected="weights of one layout",
            received=f"names that fit several layouts: {names}",
            do=f"name the layout: load_published(module, state_dict, layout={name!r})",
        )
    return first, name


def _unfit(module: Any, known: list[WeightLayout], saved: Arrays) -> UsageError | None:
    """Return an error that names the options (biases, norms) with which the weights would fit, if there are any."""
    now = module.mechanism.options()
    found = _find_change(module, known, saved) or _find_change(module, known, saved, shapes_too=False)
    if found is None:
        return None
    change, layout, stripped = found
    return UsageError(
        expected=f"weights of a module with {listed({name: now[name] for name in change})}",
        received=f"those of one with {listed(change)}, in the layout {layout.name!r}: {_shown(stripped)}",
        do=f"build the module with {listed(change)}",
    )


def _find_change(
    module: Any, known: list[WeightLayout], saved: Arrays, *, shapes_too: bool = True
) -> tuple[dict[str, Any], WeightLayout, Arrays] | None:
    now, names = module.mechanism.options(), [layout.name for layout in known]
    choices = {name: (True, False) for name in now if isinstance(now[name], bool)} | _sizes(module, saved)
    settings = [dict(zip(choices, values, strict=True)) for values in itertools.product(*choices.values())]
    changes = [{name: value for name, value in setting.items() if now[name] != value} for setting in settings]
    for change in sorted(changes, key=len):
        try:
            with warnings.catch_warnings(action="ignore", category=ReductionWarning):
                other = make(type(module.mechanism), **{**now, **change})
                shapes = weights(other.parts(module.channels))
        except UsageError:
            continue
        for layout, stripped in itertools.product(_known(other, shapes), _without_prefixes(saved)):
            if (
                layout.name in names
                and _fits(layout, shapes, stripped)
                and (not shapes_too or _has_shapes(layout, shapes, stripped))
            ):
                return change, layout, stripped
    return None


def _has_shapes(layout: WeightLayout, shapes: Mapping[str, tuple[int, ...]], saved: Arrays) -> bool:
    """Return whether the weights have these shapes."""
    pairs = [(saved[their], shape) for key, shape in shapes.items() if (their := layout.theirs(key)) in saved and their]
    return all(_lengths(value.shape) == _lengths(shape) for value, shape in pairs)


def _sizes(module: Any, saved: Arrays) -> dict[str, tuple[Any, ...]]:
    """Return the reductions and kernel sizes that the weights may have, those of the module first."""
    now, channels = module.mechanism.options(), module.channels
    units = sorted({value.shape[0] for value in saved.values() if value.ndim > 1})
    sizes = {
        "reduction": [
            size for n in units for size in (channels // n if channels % n == 0 else channels / n, n / channels)
        ],
        "kernel_size": sorted({value.shape[-1] for value in saved.values() if value.ndim > 2 and value.shape[-1] % 2}),
    }
    return {name: tuple(dict.fromkeys([now[name], *found])) for name, found in sizes.items() if name in now}


def listed(options: Mapping[str, Any]) -> str:
    """Return options as they are written in a call."""
    return ", ".join(f"{name}={value!r}" for name, value in options.items())


def _unknown(module: Any, known: list[WeightLayout], saved: Arrays) -> UsageError:
    needed = [key for key in states.shapes(module) if not key.endswith(OPTIONAL)]
    lines = [
        f"  {layout.name} ({layout.source}): {', '.join(filter(None, map(layout.theirs, needed)))}" for layout in known
    ]
    return UsageError(
        expected="\n".join([f"one of the layouts known for {module.mechanism.name}:", *lines]),
        received=f"the keys {_shown(saved)}" if saved else "an empty state dict",
        do="rename the keys to one of these layouts, or check that the weights are of this mechanism",
    )


def _shown(saved: Arrays, count: int = 12) -> str:
    shown = ", ".join(f"{key} {tuple(value.shape)}" for key, value in list(saved.items())[:count])
    return shown + (f" and {len(saved) - count} more" if len(saved) > count else "")
