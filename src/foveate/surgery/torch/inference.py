"""Make a baked model faster for inference: fold norms, and join attention, addition and activations."""

import inspect
import operator
from collections import Counter
from collections.abc import Collection
from contextlib import suppress
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.compiler import is_dynamo_compiling
from torch.nn import functional as F
from torch.nn.utils.fusion import fuse_conv_bn_weights
from torch.nn.utils.parametrize import is_parametrized

from foveate.bind.torch.attention import Attention
from foveate.errors import UsageError
from foveate.kernels import finish, prepared, table
from foveate.kernels.finish import NONE, Activation
from foveate.kernels.prepared import PREPARED
from foveate.kernels.torch_modules import is_hooked
from foveate.torch_utils.names import CHILD, FINISHED, FOR_INFERENCE

_FUNCTIONS: dict[Any, str] = {
    F.relu: "relu",
    F.relu_: "relu",
    torch.relu: "relu",
    torch.relu_: "relu",
    "relu": "relu",
    "relu_": "relu",
    F.relu6: "relu6",
    F.silu: "silu",
    F.hardswish: "hardswish",
    F.leaky_relu: "leaky_relu",
}
_MODULES: dict[type[nn.Module], str] = {
    nn.ReLU: "relu",
    nn.ReLU6: "relu6",
    nn.LeakyReLU: "leaky_relu",
    nn.SiLU: "silu",
    nn.Hardswish: "hardswish",
}
_ADDITIONS = {operator.add: False, torch.add: False, "add": False, operator.iadd: True, "add_": True}
"""The targets of nodes that add two maps, and whether they write into the first."""
_NEW_MAPS = (nn.Conv2d, nn.ConvTranspose2d, nn.BatchNorm2d)
"""The modules whose output no other module holds."""


class Finished(nn.Module):
    """activation(attention(before(x)) + shortcut), in passes that overwrite x; without attention there is no `before`.

    Where no kernel can run, under torch.compile and torch.export, it computes the same by torch's operations.
    """

    def __init__(self, attention: Attention | None, activation: Activation, before: Activation = NONE):
        super().__init__()
        self.add_module(CHILD, attention)
        self.activation, self.before = activation, before

    @property
    def attention(self) -> Attention | None:
        """The attention, which is first, None where there is none."""
        return self._modules[CHILD]  # pyright: ignore[reportReturnType]

    def forward(self, x: Tensor, shortcut: Tensor | None = None) -> Tensor:
        """Return the finished map (N, C, H, W); x may be overwritten."""
        attention = self.attention
        if not is_dynamo_compiling() and (ready := self.__dict__.get(PREPARED)) is not None:
            same = ready.attention is attention and ready.around == (self.activation, self.before)
            if same and ready.run(x, shortcut):
                return x
        if attention is None:
            y = finish.add(x, shortcut, self.activation)
        elif is_hooked(attention) or "vocabulary" in vars(attention):  # as while gates are recorded
            y = None
        else:
            y = finish.attend(attention.mechanism, attention, x, self.before, shortcut, self.activation)
            if y is x:
                prepared.prepare(self, attention, x, self.activation, self.before)
        if y is not None:
            return y
        y = x if attention is None else attention(self.before(x))
        return self.activation(y if shortcut is None else y + shortcut)

    def extra_repr(self) -> str:
        """Name the activations."""
        return self.activation.name if self.before == NONE else f"{self.before.name} before, {self.activation.name}"


class _BlockTracer(fx.Tracer):
    """Keeps attention, norms and modules with hooks as they are, so that their hooks run at each call."""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        kept = isinstance(m, Attention) or _is_norm(m) or is_hooked(m)
        return kept or super().is_leaf_module(m, module_qualified_name)


def for_inference(model: nn.Module) -> nn.Module:
    """Return a model in eval mode, whose attention is modules, with its norms folded and its blocks finished.

    It becomes a graph; where torch.fx cannot trace its forward, its parts do, and the model itself is changed.

    Raises UsageError where no part can be traced.
    """
    held = Counter(module for _, module in model.named_modules(remove_duplicate=False))
    made = _for_inference(model, {module for module, times in held.items() if times > 1}, {}).requires_grad_(False)
    vars(made)[FOR_INFERENCE] = True
    return made


def _for_inference(model: nn.Module, shared: Collection[nn.Module], done: dict[nn.Module, nn.Module]) -> nn.Module:
    """`shared` are the modules with more than one name, whose norms are not folded; `done` the parts made before."""
    if model in done:
        return done[model]
    try:
        made = _traced(model)
    except Exception as error:
        return _parts_for_inference(model, error, shared, done)
    _remove_identities(made)
    _fold_norms(made, shared)
    _remove_identities(made)
    _finish_blocks(made)
    # Nothing is removed as unused: FX takes methods in place, such as mul_, for pure.
    made.delete_all_unused_submodules()
    made.graph.lint()
    made.recompile()
    done[model] = made
    return made


def _traced(model: nn.Module) -> fx.GraphModule:
    """Return the graph of a model, whose arguments with defaults have these at each call.

    Raises an error of any kind where it has none, or one that would not compute the same at each call.
    """
    if is_hooked(model):
        raise TypeError("hooks of a module are not part of its graph")
    parameters = inspect.signature(model.forward).parameters.items()
    defaults = {name: one.default for name, one in parameters if one.default is not inspect.Parameter.empty}
    tracer = _BlockTracer()
    graph = tracer.trace(model, concrete_args=defaults or None)
    made = fx.GraphModule(tracer.root, graph, type(model).__name__)
    if any(node.op == "get_attr" and str(node.target).startswith("_tensor_constant") for node in graph.nodes):
        raise TypeError("a tensor that the forward makes would be one constant for all calls")
    for name, value in vars(model).items():
        if not name.startswith("_") and name not in vars(made):
            vars(made)[name] = value  # a parent may read it
    return made


def _parts_for_inference(
    model: nn.Module, error: Exception, shared: Collection[nn.Module], done: dict[nn.Module, nn.Module]
) -> nn.Module:
    """Replace each child that can be traced, or else its parts; raise UsageError with `error` where there are none."""
    found = 0
    for name, child in model._modules.items():
        if child is None or isinstance(child, Attention) or _is_norm(child) or next(child.children(), None) is None:
            continue
        with suppress(UsageError):
            model._modules[name] = _for_inference(child, shared, done)
            found += 1
    if found:
        done[model] = model
        return model
    says = (str(error).strip().splitlines() or [""])[0]
    raise UsageError(
        expected="a model, or parts of one, whose forward torch.fx can trace",
        received=f"{type(model).__name__}: {type(error).__name__}: {says}",
        do="leave inference out; torch.compile fuses what it can in the attached model",
    ) from error


def _remove_identities(made: fx.GraphModule) -> None:
    """Remove modules that do nothing in eval mode."""
    for node in list(made.graph.nodes):
        module = _module(node)
        if module is None or is_hooked(module) or not _takes_one_map(node):
            continue
        if type(module) in (nn.Identity, nn.Dropout, nn.Dropout2d):
            node.replace_all_uses_with(node.args[0])
            made.graph.erase_node(node)


def _fold_norms(made: fx.GraphModule, shared: Collection[nn.Module]) -> None:
    """Fold each batch norm into the convolution before it, where nothing else takes its output."""
    calls = Counter(node.target for node in made.graph.nodes if node.op == "call_module")
    for node in list(made.graph.nodes):
        norm, before = _module(node), node.args[0] if node.args else None
        if norm is None or not _is_norm(norm) or not isinstance(before, fx.Node) or not _alone(before):
            continue
        conv = _module(before)
        if type(conv) is not nn.Conv2d or norm.running_mean is None or calls[node.target] + calls[before.target] > 2:
            continue
        if {conv, norm} & {*shared} or is_hooked(conv) or is_hooked(norm) or is_parametrized(conv):
            continue
        statistics = norm.running_mean, norm.running_var, norm.eps, norm.weight, norm.bias
        conv.weight, conv.bias = fuse_conv_bn_weights(conv.weight, conv.bias, *statistics)  # type: ignore[arg-type]
        last, rest = before, [name for name in ("drop", "act") if name in norm._modules]  # of timm's norms
        if rest:
            made.set_submodule(str(node.target), nn.ModuleDict(dict(norm.named_children())))
        with made.graph.inserting_before(node):
            for name in rest:
                last = made.graph.call_module(f"{node.target}.{name}", (last,))
        node.replace_all_uses_with(last, delete_user_cb=lambda user, node=node: user is not node)
        made.graph.erase_node(node)


def _finish_blocks(made: fx.GraphModule) -> None:
    """Replace attention, or an addition, with the activation before attention and what follows it, by one module."""
    for node in list(made.graph.nodes):
        if isinstance(_module(node), Attention) and _takes_one_map(node) and _owned(node.args[0]):
            _finish(made, node.args[0], node)
    for node in list(made.graph.nodes):
        owned = next(filter(_owned, _added(node)), None)
        if owned is not None and _activation(_only_user(node)):
            _finish(made, owned, node)


def _finish(made: fx.GraphModule, x: fx.Node, first: fx.Node) -> None:
    """Put one module in the place of `first`, attention on x or an addition to it, and of what follows it.

    After attention an addition may follow, after both an activation. Where x is an activation before attention that a
    kernel can compute, it joins them.
    """
    module, add, summand = _module(first), first, x
    attention = module if isinstance(module, Attention) else None
    steps, before = [first], None
    if attention is not None:
        before = _activation(x) if table.has_kernel(attention.mechanism) else None
        if before is not None:
            steps, x = [x, first], x.all_input_nodes[0]
        add, summand = _only_user(first), first
        steps += [add] if add is not None and _added(add) else []
    inputs = (x, *(one for one in _added(add) if one is not summand))
    at = steps[-1]  # here all inputs are computed, and later the shortcut may be overwritten
    following = _only_user(at)
    activation = _activation(following)
    if following is not None and activation:
        steps.append(following)
    # A module may be called more than once; a node has its own name.
    home = "" if attention is None else str(first.target).rpartition(".")[0]
    name = f"{home}.{FINISHED}_{first.name}" if home else f"{FINISHED}_{first.name}"
    made.add_submodule(name, Finished(attention, activation or NONE, before or NONE).eval())
    with made.graph.inserting_before(at):
        new = made.graph.call_module(name, inputs)
    steps[-1].replace_all_uses_with(new)
    for step in reversed(steps):
        made.graph.erase_node(step)


def _module(node: Any) -> nn.Module | None:
    """Return the module that a node calls, None for other nodes."""
    if not isinstance(node, fx.Node) or node.op != "call_module" or node.graph.owning_module is None:
        return None
    return node.graph.owning_module.get_submodule(str(node.target))


def _takes_one_map(node: fx.Node) -> bool:
    return len(node.args) == 1 and not node.kwargs


def _alone(node: fx.Node) -> bool:
    return len(node.users) == 1


def _is_norm(module: nn.Module) -> bool:
    """Return whether a module is a batch norm of torch, or timm's that ends with an activation."""
    kind = type(module)
    timms = (
        kind.__name__ == "BatchNormAct2d" and kind.__module__.startswith("timm.") and isinstance(module, nn.BatchNorm2d)
    )
    return kind is nn.BatchNorm2d or timms


def _owned(x: Any) -> bool:
    """Return whether x is a new map that one node alone takes, so that this may overwrite it.

    An activation, which may work in place, gives a new map where it took one.
    """
    if not isinstance(x, fx.Node) or not _alone(x):
        return False
    module = _module(x)
    if module is not None and is_hooked(module):
        return False  # a hook may keep the map
    return type(module) in _NEW_MAPS or (_activation(x) is not None and _owned(x.args[0]))


def _only_user(node: fx.Node | None) -> fx.Node | None:
    return next(iter(node.users)) if node is not None and _alone(node) else None


def _added(node: fx.Node | None) -> tuple[fx.Node, ...]:
    """Return the two different maps that a node adds; nothing for another node."""
    if node is None or node.op not in ("call_function", "call_method") or node.kwargs or len(node.args) != 2:
        return ()
    in_place = _ADDITIONS.get(node.target)
    summands = tuple(one for one in node.args if isinstance(one, fx.Node))
    if in_place is None or len(set(summands)) != 2 or not node.users:
        return ()
    return () if in_place and not _alone(summands[0]) else summands  # others may read the sum where it was written


def _activation(node: fx.Node | None) -> Activation | None:
    """Return the activation that a node is; None for another node."""
    if node is None or not node.args:
        return None
    module = _module(node)
    if module is not None:
        name = None if is_hooked(module) else _MODULES.get(type(module))
        return Activation(name, getattr(module, "negative_slope", 0.0)) if name and _takes_one_map(node) else None
    if node.op not in ("call_function", "call_method") or set(node.kwargs) - {"inplace", "negative_slope"}:
        return None
    name = _FUNCTIONS.get(node.target)
    slope = node.kwargs.get("negative_slope", 0.01 if name == "leaky_relu" else 0.0)
    return Activation(name, slope) if name and len(node.args) == 1 and isinstance(slope, float) else None
