"""Record gates of Keras models, on every backend: `with foveate.keras.record(model) as maps: model.predict(x)`."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from foveate.bind.keras.attention import Attention
from foveate.bind.keras.ops import KerasOps
from foveate.bind.keras.parts import Gate
from foveate.checks import check_choice
from foveate.errors import UsageError
from foveate.gates.hearing import Hearing
from foveate.gates.kinds import KINDS, RecordedKind
from foveate.gates.pairwise import by_sample, is_map
from foveate.gates.recording import LIMIT, RecordedGate, Recording, limits_of
from foveate.spec import Mechanism
from foveate.surgery.keras.graph import paths
from foveate.surgery.keras.host import SUFFIX

ops: Any = keras.ops  # Any, because the declared return types include None
_COMPILED = ("train_function", "test_function", "predict_function")


@contextmanager
def record(
    model: Any, kinds: Iterable[RecordedKind] = KINDS, *, max_bytes: int | None = LIMIT
) -> Iterator[Recording[NDArray[Any]]]:
    """Record every gate of `kinds` that runs inside the block, as NumPy arrays, channels first.

    Call the model, or its `predict` or `evaluate`, which run eagerly inside the block. Afterwards all is as before. A
    site is the layer that attention was attached to, else the attention layer; one that runs twice is recorded twice.
    Raises UsageError for an unknown kind, and inside the block for gates of more than `max_bytes` in all (None allows
    any number) and in a compiled function of one's own, where gates have no values.
    """
    wanted = frozenset(kinds)
    for kind in wanted:
        check_choice("each of kinds", kind, KINDS)
    if not isinstance(model, keras.layers.Layer):
        raise UsageError(
            expected="a Keras model or layer",
            received=f"a {type(model).__name__}",
            do="use foveate.record for PyTorch models",
        )
    listener = _KerasListener(Recording(max_bytes=max_bytes), wanted)
    names = paths(model)
    with ExitStack() as undo:
        undo.enter_context(_eager(model))
        for layer in layers_in(model):
            if isinstance(layer, Attention):
                name = names.get(id(layer)) or ("" if layer is model else str(layer.path))
                inner = {id(part): part for part in layers_in(layer) if isinstance(part, Gate)}
                site = name.removesuffix(SUFFIX)
                undo.enter_context(replaced(layer, "vocabulary", _HearingKerasOps(layer, listener, name, site)))
                for gate in inner.values():
                    listener.sites[id(gate)] = f"{name}/{gate.name}".removeprefix("/"), site, layer
        for layer in layers_in(model):
            if isinstance(layer, Gate) and layer.kind in wanted:
                name, site, holder = listener.sites.get(id(layer), (str(layer.path), str(layer.path), None))
                undo.enter_context(replaced(layer, "call", listener.on_gate(layer, name, site, holder)))
        yield listener.recording


class _KerasListener:
    """Turns what runs inside one block into recorded gates."""

    def __init__(self, recording: Recording[NDArray[Any]], wanted: frozenset[RecordedKind]):
        self.recording, self.wanted = recording, wanted
        self.sites: dict[int, tuple[str, str, Attention]] = {}

    def on_gate(self, gate: Gate, name: str, site: str, holder: Attention | None) -> Callable[[Any, Any], Any]:
        """Return the `call` of a gate that is recorded."""
        plain = gate.call

        def call(x: Any, logits: Any) -> Any:
            if is_symbolic(x):
                return plain(x, logits)
            last = (holder.data_format if holder else keras.config.image_data_format()) == "channels_last"
            n, _, *size = _first(tuple(x.shape) if holder is None else holder.vocabulary.features, last)
            found = channels_first(gate.gate(logits), last, name, self.recording)
            if len(found) > n:  # of groups of channels, which `Ops.group` makes samples
                found = found.reshape(n, -1, *found.shape[2:])
            kind: Any = gate.kind
            self.keep(RecordedGate(name, site, kind, found, tuple(size), limits_of(gate)))
            return plain(x, logits)

        return call

    def keep(self, recorded: RecordedGate[NDArray[Any]]) -> None:
        """Keep a gate."""
        self.recording.gates.append(recorded)


class _HearingKerasOps(Hearing[Any], KerasOps):
    """A vocabulary that records attention between positions, and between channels."""

    def __init__(self, layer: Attention, listener: _KerasListener, name: str, site: str):
        super().__init__(layer.data_format)
        self.listener, self.name, self.site = listener, name, site
        self.features: tuple[int, ...] = ()
        self.outer: Any = layer.vocabulary  # of a recording around this one

    def apply(self, mechanism: Mechanism, p: Any, *xs: Any) -> Any:
        """Keep the shape of the features, and run the mechanism."""
        for each in (self, self.outer):
            if each is not None:
                each.features = tuple(xs[0].shape)
        return super().apply(mechanism, p, *xs)

    def hear(self, kind: RecordedKind, read: Callable[..., NDArray], *given: Any) -> None:
        """Keep what is read, here and in a recording around this one."""
        keys = given[-1]  # or the scores of the positions, or weights
        if self.outer is not None:
            self.outer.hear(kind, read, *given)
        if kind not in self.listener.wanted or is_symbolic(keys):
            return
        last, recording = self.data_format == "channels_last", self.listener.recording
        shape, features = (_first(tuple(one), last) for one in (keys.shape, self.features))
        if kind == "pairwise" and not is_map(shape, features):
            return
        kept, size = (shape[2:], shape[2:]) if kind == "pairwise" else (shape[1:2], features[2:])
        recording.reserve(4 * shape[0] * int(np.prod(kept)), self.name)
        found = by_sample(kind, read(*(channels_first(each, last, self.name) for each in given)), features[0])
        self.listener.keep(RecordedGate(self.name, self.site, kind, found, size))


def is_symbolic(x: Any) -> bool:
    """Return whether Keras only infers shapes; raise UsageError for a value inside a compiled function."""
    from keras.src.backend.common.symbolic_scope import in_symbolic_scope

    if isinstance(x, keras.KerasTensor) or in_symbolic_scope():
        return True
    try:
        ops.convert_to_numpy(ops.stop_gradient(x[:1, :1, :1, :1]))
    except Exception as error:  # each backend has an error of its own
        raise UsageError(
            expected="gates with values",
            received=f"gates of a compiled or traced function ({type(error).__name__})",
            do="call the model, its predict or its evaluate inside the block",
        ) from None
    return False


def channels_first(
    x: Any, last: bool, name: str, recording: Recording[NDArray[Any]] | None = None
) -> NDArray[np.float32]:
    """Return a map as a NumPy array (N, C, H, W) of float32, counted in the recording that is to keep it."""
    if recording is not None:
        recording.reserve(4 * int(np.prod(x.shape)), name)
    found = np.array(ops.convert_to_numpy(ops.stop_gradient(ops.cast(x, "float32"))))
    return np.ascontiguousarray(found.transpose(0, 3, 1, 2)) if last else found


def _first(shape: tuple[int, ...], last: bool) -> tuple[int, ...]:
    return (shape[0], shape[-1], *shape[1:-1]) if last else shape


def layers_in(layer: Any) -> Iterator[Any]:
    """Yield a layer and all layers inside it, each once."""
    seen: set[int] = set()
    for one in layer._flatten_layers(include_self=True, recursive=True):
        if id(one) not in seen:
            seen.add(id(one))
            yield one


@contextmanager
def replaced(layer: Any, name: str, value: Any) -> Iterator[None]:
    """Give an object an attribute of its own inside the block."""
    before = vars(layer).get(name)
    object.__setattr__(layer, name, value)
    try:
        yield
    finally:
        if before is None:
            object.__delattr__(layer, name)
        else:
            object.__setattr__(layer, name, before)


@contextmanager
def _eager(model: Any) -> Iterator[None]:
    """Let `predict` and `evaluate` of a model run eagerly inside the block, and keep what was compiled before."""
    if not hasattr(model, "run_eagerly"):
        yield
        return
    eagerly, compiled = model.run_eagerly, {name: getattr(model, name, None) for name in _COMPILED}
    try:
        model.run_eagerly = True
        for name in compiled:
            setattr(model, name, None)
        yield
    finally:
        model.run_eagerly = eagerly
        for name, function in compiled.items():
            setattr(model, name, function)
