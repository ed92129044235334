"""Make a baked model faster for inference: fold norms, and run attention, addition and activation in one pass."""

import operator
from collections import Counter
from contextlib import suppress
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn import functional as F
from torch.nn.utils.fusion import fuse_conv_bn_weights
from torch.nn.utils.parametrize import is_parametrized

from foveate.bind.torch.attention import Attention
from foveate.errors import UsageError
from foveate.kernels import finish
from foveate.kernels.torch_modules import is_hooked

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
_ADDITIONS = (operator.add, operator.iadd, torch.add)
_NEW_MAPS = (nn.Conv2d, nn.ConvTranspose2d, nn.BatchNorm2d)  # what these return, no other module holds


class Finished(nn.Module):
    """activation(attention(x) + shortcut) in one pass that overwrites x; without attention activation(x + shortcut).

    Where no kernel can run, under torch.compile and torch.export, it computes the same by torch's operations.
    """

    def __init__(self, attention: Attention | None, activation: str, slope: float = 0.0):
        super().__init__()
        self.attention = attention
        self.activation, self.slope = activation, slope

    def forward(self, x: Tensor, shortcut: Tensor | None = None) -> Tensor:
        """Return the finished map (N, C, H, W); x may be overwritten."""
        attention = self.attention
        of_attention = (None, None) if attention is None else (attention.mechanism, attention)
        y = finish.run(x, shortcut, self.activation, self.slope, *of_attention)
        if y is not None:
            return y
        y = x if attention is None else attention(x)
        y = y if shortcut is None else y + shortcut
        activate = finish.activation(self.activation, self.slope)
        return y if activate is None else activate(y)

    def extra_repr(self) -> str:
        """Name the activation."""
        return self.activation


class _BlockTracer(fx.Tracer):
    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return isinstance(m, (Attention, nn.BatchNorm2d)) or super().is_leaf_module(m, module_qualified_name)


def for_inference(model: nn.Module) -> nn.Module:
    """Return a model in eval mode, whose attention is modules, with its norms folded and its blocks finished.

    It becomes a graph; where torch.fx cannot trace its forward, its parts do, and the model itself is changed.

    Raises UsageError where no part can be traced.
    """
    tracer = _BlockTracer()
    try:
        graph = tracer.trace(model)
    except Exception as error:
        return _parts_for_inference(model, error)
    made = fx.GraphModule(tracer.root, graph, type(model).__name__)
    for step in (_drop_nothing, _fold_norms, _drop_nothing, _finish_blocks):
        step(made)  # nothing is removed as unused: FX takes methods in place, such as mul_, for pure
    made.delete_all_unused_submodules()
    made.graph.lint()
    made.recompile()
    return made.requires_grad_(False)


def _parts_for_inference(model: nn.Module, error: Exception) -> nn.Module:
    """Replace each child that can be traced, or else its parts; raise UsageError with `error` where there are none."""
    found = 0
    for name, child in model.named_children():
        if isinstance(child, Attention) or next(child.children(), None) is None:
            continue
        with suppress(UsageError):
            model._modules[name] = for_inference(child)
            found += 1
    if found:
        return model.requires_grad_(False)
    says = (str(error).strip().splitlines() or [""])[0]
    raise UsageError(
        expected="a model, or parts of one, whose forward torch.fx can trace",
        received=f"{type(model).__name__}: {type(error).__name__}: {says}",
        do="leave inference out; torch.compile fuses what it can in the attached model",
    ) from error


def _drop_nothing(made: fx.GraphModule) -> None:
    """Remove modules that do nothing in eval mode."""
    for node in list(made.graph.nodes):
        if isinstance(_module(node), (nn.Identity, nn.Dropout, nn.Dropout2d)) and len(node.args) == 1:
            node.replace_all_uses_with(node.args[0])
            made.graph.erase_node(node)


def _fold_norms(made: fx.GraphModule) -> None:
    """Fold each batch norm into the convolution before it, where nothing else takes its output."""
    calls = Counter(node.target for node in made.graph.nodes if node.op == "call_module")
    for node in list(made.graph.nodes):
        norm, before = _module(node), node.args[0] if node.args else None
        if not isinstance(norm, nn.BatchNorm2d) or not isinstance(before, fx.Node) or not _alone(before):
            continue
        conv = _module(before)
        if not isinstance(conv, nn.Conv2d):
            continue
        if calls[node.target] > 1 or calls[before.target] > 1 or norm.running_mean is None:
            continue
        if is_hooked(conv) or is_hooked(norm) or is_parametrized(conv):
            continue
        rest = _after_norm(norm)
        if rest is None:
            continue
        statistics = norm.running_mean, norm.running_var, norm.eps, norm.weight, norm.bias
        conv.weight, conv.bias = fuse_conv_bn_weights(conv.weight, conv.bias, *statistics)  # type: ignore[arg-type]
        last = before
        if rest:
            made.set_submodule(str(node.target), nn.ModuleDict(dict(norm.named_children())))
        with made.graph.inserting_before(node):
            for name in rest:
                last = made.graph.call_module(f"{node.target}.{name}", (last,))
        node.replace_all_uses_with(last, delete_user_cb=lambda user, node=node: user is not node)
        made.graph.erase_node(node)


def _after_norm(norm: nn.BatchNorm2d) -> list[str] | None:
    """Return the names of a norm's own children, which run after it; None for a norm that is not known."""
    if type(norm) is nn.BatchNorm2d:
        return []
    names = [name for name, _ in norm.named_children()]  # timm's BatchNormAct2d
    known = type(norm).__name__ == "BatchNormAct2d" and set(names) <= {"drop", "act"}
    return sorted(names, reverse=True) if known else None


def _finish_blocks(made: fx.GraphModule) -> None:
    """Replace attention, or an addition, with what follows it, by one module."""
    for node in list(made.graph.nodes):
        if isinstance(_module(node), Attention) and _takes_one_map(node) and _owned(node.args[0]):
            _finish(made, node, node.args[0], _module(node))
    for node in list(made.graph.nodes):
        owned = [x for x in _added(node) if _owned(x)]
        if owned and _activation(_only_user(node)):
            _finish(made, None, owned[0], None, node)


def _finish(
    made: fx.GraphModule, attend: fx.Node | None, x: fx.Node, attention: Any, add: fx.Node | None = None
) -> None:
    """Put one module in the place of the attention on x, an addition and an activation, as far as they follow."""
    steps = [] if attend is None else [attend]
    add = add if attend is None else _only_user(attend)
    summands = _added(add)
    inputs = (x, *(one for one in summands if one is not (x if attend is None else attend)))
    if add is not None and summands:
        steps.append(add)
    at = steps[-1]  # here all inputs are computed, and later the shortcut may be overwritten
    following = _only_user(at)
    activation = _activation(following)
    if following is not None and activation:
        steps.append(following)
    of = x if attend is None else attend
    name = f"{of.target}_finished_{of.name}"  # a module may be called more than once, a node has its own name
    made.add_submodule(name, Finished(attention, *(activation or ("none", 0.0))).eval())
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


def _owned(x: Any) -> bool:
    """Return whether x is a new map that one node alone takes, so that this may overwrite it.

    An activation, which may work in place, gives a new map where it took one.
    """
    if not isinstance(x, fx.Node) or not _alone(x):
        return False
    return isinstance(_module(x), _NEW_MAPS) or (_activation(x) is not None and _owned(x.args[0]))


def _only_user(node: fx.Node | None) -> fx.Node | None:
    return next(iter(node.users)) if node is not None and _alone(node) else None


def _added(node: fx.Node | None) -> tuple[fx.Node, ...]:
    """Return the two different maps that a node adds; nothing for another node."""
    if node is None or node.kwargs or len(node.args) != 2:
        return ()
    adds = node.target in _ADDITIONS if node.op == "call_function" else node.target in ("add", "add_")
    summands = tuple(one for one in node.args if isinstance(one, fx.Node))
    adds = adds and node.op in ("call_function", "call_method")
    return summands if adds and len(set(summands)) == 2 else ()


def _activation(node: fx.Node | None) -> tuple[str, float] | None:
    """Return the name and the slope of the activation that a node is; None for another node."""
    if node is None or not node.args:
        return None
    module = _module(node)
    if module is not None:
        name = _MODULES.get(type(module))
        return (name, getattr(module, "negative_slope", 0.0)) if name and _takes_one_map(node) else None
    if node.op not in ("call_function", "call_method") or set(node.kwargs) - {"inplace", "negative_slope"}:
        return None
    name = _FUNCTIONS.get(node.target)
    slope = node.kwargs.get("negative_slope", 0.01 if name == "leaky_relu" else 0.0)
    return (name, slope) if name and len(node.args) == 1 and isinstance(slope, float) else None
