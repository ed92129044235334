"""A Keras model as a host: attaching builds a new graph over the same weights, with attention after each site."""

import math
import random
import warnings
from collections.abc import Callable, Collection, Mapping
from functools import partial
from typing import Any, ClassVar

import keras

from foveate import mechanisms
from foveate.bind.keras.attention import Attention, attention
from foveate.cost import Cost
from foveate.errors import ReductionWarning, UsageError
from foveate.parts import Start
from foveate.surgery.core.checksums import Checksums
from foveate.surgery.core.host import channels_of, cost_of
from foveate.surgery.core.selectors import Selector
from foveate.surgery.core.trace import Call
from foveate.surgery.keras.graph import Graph, every_path, paths, read
from foveate.surgery.keras.rebuild import check, rebuilt

SUFFIX = "_foveate_attention"  # an attached layer has the name of its site with this suffix


def attached(model: Any) -> dict[str, Attention]:
    """Return the attached attention of a model by the path of its site."""
    names = paths(model)
    layers = (layer for _, layer in every_path(model) if isinstance(layer, Attention) and layer.name.endswith(SUFFIX))
    return {names[id(layer)].removesuffix(SUFFIX): layer for layer in layers}


class KerasHost:
    """A `foveate.surgery.core.host.Host`; `insert` and `remove` return new models and never change this one."""

    bound: ClassVar = Attention
    versions: ClassVar[dict[str, str]] = {"keras": keras.__version__, "backend": keras.backend.backend()}
    graph: Graph  # set by `read`

    def __init__(self, model: Any):
        names = {kind.__module__.partition(".")[0] for kind in type(model).__mro__}
        if "torch" in names and "keras" not in names:  # on the torch backend, Keras models are torch modules too
            do = "use foveate.attach, foveate.plan and the other functions of foveate"
            raise UsageError(expected="a keras.Model", received=f"a {type(model).__name__} of PyTorch", do=do)
        self.model = model

    def random_state(self) -> Callable[[], None]:
        """Return a function that restores the present random state from which Keras draws seeds."""
        return partial(random.setstate, random.getstate())

    def read(self, example: Any) -> Selector:
        """Return the layers of the model and the trace of its graph, without running the model.

        Raises UsageError for a model without a known graph.
        """
        self.graph = read(self.model, example)
        return Selector(self.graph.trace, self.graph.layers, keras.layers.Layer, "layer", "/", aliases=self.graph.paths)

    def attached(self) -> dict[str, Attention]:
        """Return the attached attention by the path of its site."""
        return attached(self.model)

    def count(self) -> int:
        """Count the weights of a model without its attention, trained or frozen, but not the statistics of norms."""
        ours = {id(weight) for layer in self.attached().values() for weight in layer.weights}
        found = {id(weight): weight for layer in self.model._flatten_layers() for weight in layer._trainable_variables}
        return sum(math.prod(weight.shape) for key, weight in found.items() if key not in ours)

    def checksums(self) -> Checksums:
        """Return nothing: Keras counts the names of layers on, so that equal names may be other layers."""
        return {}

    def replaced(self) -> dict[str, str]:
        """Return nothing: attention takes the place of no layer."""
        return {}

    def check_replaces(self) -> None:
        """Raise UsageError: the SE of `keras.applications` is several layers of the graph, and no layer of its own."""
        raise UsageError(
            expected="attention after layers of a Keras model",
            received="attention that is to take the place of layers",
            do="leave replace out, or use the model in PyTorch; in Keras, build the model without that attention",
        )

    def check_contexts(self) -> None:
        """Raise UsageError: attention in a Keras graph takes the output of its own site only."""
        raise UsageError(
            expected="attention to the output of its own layer, in a Keras model",
            received="context=, which names another layer",
            do="call foveate.keras.CrossAttention()(other, map) in the model's code, or use the model in PyTorch",
        )

    def contexts(self) -> dict[str, str]:
        """Return nothing: no attention has a context."""
        return {}

    def check_factory(self, mechanism: Any) -> None:
        """Raise UsageError: a Keras host takes no factories, only mechanisms of the catalogue."""
        raise UsageError(
            expected="a mechanism's name, a Mechanism, or a class of foveate.keras",
            received=repr(mechanism),
            do=f"use one of {', '.join(mechanisms.names())}",
        )

    def make(self, call: Call, mechanism: Any, start: Start) -> Attention:
        """Return built attention for a site, in the site's data format and precision.

        Raises UsageError where a model around the site cannot be rebuilt, where another layer has the attention's name,
        where the channel axis is unknown, and where the number of channels would change.
        """
        check(self.model, [self.graph.layers[call.name]])
        self._check_name(call.name)
        if len(call.shape or ()) != 4:
            raise UsageError(
                expected=f"a site with a 2-D feature map, {call.name!r}",
                received=f"the shape {call.shape}",
                do="choose a 2-D layer; on 1-D and 3-D maps use PyTorch, or the layer between two keras.layers.Reshape",
            )
        if call.name not in self.graph.formats:
            raise UsageError(
                expected=f"a site with its channels in the second or the last axis, {call.name!r}",
                received=f"the shape {call.shape}, made by a reshape or the like, with an unknown channel axis",
                do="choose a layer before or after it that has a data format, such as a convolution",
            )
        data_format = self.graph.formats[call.name]
        common = {"name": call.name.rpartition("/")[2] + SUFFIX, "dtype": self.graph.layers[call.name].dtype_policy}
        layer = attention(mechanism, start=start, data_format=data_format, **common)
        channels = channels_of(call)
        shape = (None, None, None, channels) if data_format == "channels_last" else (None, channels, None, None)
        layer.build(shape)
        with warnings.catch_warnings(
            action="ignore", category=ReductionWarning
        ):  # they were already shown when the layer was built
            output = layer.compute_output_shape(shape)
        if output != shape:
            raise UsageError(
                expected=f"attention that keeps the {channels} channels of {call.name!r}",
                received=f"{type(layer).__name__}, which outputs {output[shape.index(channels)]}",
                do="use options that keep the shape, such as out_channels=None and stride=1",
            )
        return layer

    def measure(self, attention: Attention, call: Call) -> Cost:
        """Return the cost of attention at one call of its site."""
        return cost_of(attention.mechanism, call, attention.start)

    def needs_batch(self, attention: Attention, call: Call) -> bool:
        """Return False: the batch norm of Keras takes a single value per channel."""
        return False

    def insert(
        self,
        attentions: Mapping[str, Attention],
        replaced: Collection[str] = (),
        contexts: Mapping[str, str] | None = None,
    ) -> Any:
        """Return a model with attention after the layers of these paths."""
        new = rebuilt(self.model, {id(self.graph.layers[path]): layer for path, layer in attentions.items()}, ())
        wanted, got = self.attached().keys() | attentions.keys(), attached(new).keys()
        if got != wanted:
            raise UsageError(
                expected=f"attention after {', '.join(sorted(wanted))}",
                received=f"a model with attention after {', '.join(sorted(got)) or 'none'}",
                do="choose other sites, and report this model: the plan should have refused it",
            )
        return new

    def remove(self) -> Any:
        """Return a model over the same weights without attention; a model without attention is returned as is."""
        found = self.attached().values()
        check(self.model, found)
        return rebuilt(self.model, {}, found) if found else self.model

    def _check_name(self, site: str) -> None:
        """Raise UsageError where another layer has the name that the attention of a site would get."""
        for path, known in self.graph.paths.items():
            if known == site and path + SUFFIX in self.graph.paths:
                raise UsageError(
                    expected=f"a model without a layer {path + SUFFIX!r}, the name for the attention of {site!r}",
                    received="a model with a layer of that name that is not attached attention",
                    do="give that layer another name, or choose other sites",
                )
