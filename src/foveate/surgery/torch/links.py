"""Pass the map of a context to the attention of another site, within one forward of the model, and keep nothing."""

import threading
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from foveate.errors import UsageError
from foveate.site_names import joined, parted
from foveate.surgery.torch.arguments import Signature, exchange
from foveate.torch_utils.names import plain_name

GIVES, LINKS = "foveate_gives", "foveate_links"  # attributes of a context's module, and of the model
TAKES = "foveate_takes"  # of a site: the links from the contexts of its attention, by argument


class Link:
    """From a context to a site, by their names. It holds a map only while the model runs, for each thread its own.

    `open` begins a forward of the model and `close` ends it. A link that is `free`, as in a baked model, needs neither:
    the site takes the map away. `arrange` puts the maps of the site and of the context in the order of the attention.
    """

    def __init__(self, context: str, site: str, arrange: Callable[[Any, Any], tuple[Any, Any]], free: bool = False):
        self.context, self.site, self.arrange, self.free = context, site, arrange, free
        self.maps: dict[int, Any] = {}

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "maps": {}}

    def freed(self) -> "Link":
        """Return a link for a baked model."""
        return Link(self.context, self.site, self.arrange, free=True)

    def open(self) -> None:
        """Begin a forward."""
        self.maps[_thread()] = None

    def close(self) -> None:
        """End a forward."""
        self.maps.pop(_thread(), None)

    def give(self, x: Any) -> None:
        """Keep a copy of the context's map, which later layers may overwrite, where the model runs."""
        if self.free or _thread() in self.maps:
            self.maps[_thread()] = x.clone()

    def pass_on(self, x: Any) -> Any:
        """Give a map, and return it."""
        self.give(x)
        return x

    def join(self, x: Any) -> tuple[Any, Any]:
        """Return the map x of the site and that of the context, in the order of the attention. Raises as `take`."""
        return self.arrange(x, self.take())

    def take(self) -> Any:
        """Return the map. Raises UsageError where the context did not run before in this forward."""
        x = self.maps.pop(_thread(), None) if self.free else self.maps.get(_thread())
        if x is None:
            raise UsageError(
                expected=f"a forward of the model that runs {self.context!r}, the context, before {self.site!r}",
                received="one in which it did not run, or was replaced",
                do="call the model as a whole, without checkpointing of this part and without modules replaced",
            )
        return x


def connect(model: nn.Module, link: Link) -> None:
    """Have the context give its map to the link, and the model begin and end it.

    The hook for an argument is that of the attention on arguments.
    """
    name, argument = parted(link.context)
    module = model.get_submodule(name)
    place = Signature(module).place(argument) if argument else None
    vars(module).setdefault(GIVES, []).append((argument, place, link))
    if not argument and give_output not in module._forward_hooks.values():
        module.register_forward_hook(give_output)
    if LINKS not in vars(model):
        vars(model)[LINKS] = []
        model.register_forward_pre_hook(open_links)
        model.register_forward_hook(close_links, always_call=True)
    vars(model)[LINKS].append(link)


def context_names(model: nn.Module) -> dict[Link, str]:
    """Return the name of each link's context in this model, which may hold the one that attention was attached to."""
    return {
        link: joined(plain_name(name), argument)
        for name, module in model.named_modules()
        for argument, _, link in vars(module).get(GIVES, ())
    }


def disconnect(model: nn.Module, link: Link) -> list[tuple[nn.Module, Any]]:
    """Undo `connect`, wherever the link is in the model; return the modules and those of our hooks that went."""
    gone: list[tuple[nn.Module, Any]] = []
    for module in model.modules():
        if GIVES in vars(module):
            vars(module)[GIVES] = [given for given in vars(module)[GIVES] if given[2] is not link]
            gone += [] if any(not argument for argument, *_ in vars(module)[GIVES]) else [(module, give_output)]
            if not vars(module)[GIVES]:
                del vars(module)[GIVES]
        if LINKS in vars(module):
            vars(module)[LINKS] = [other for other in vars(module)[LINKS] if other is not link]
            if not vars(module)[LINKS]:
                del vars(module)[LINKS]
                gone += [(module, open_links), (module, close_links)]
    return gone


def gives_arguments(module: nn.Module) -> bool:
    """Return whether an argument of the module is the context of a site."""
    return any(argument for argument, *_ in vars(module).get(GIVES, ()))


def give_last(module: nn.Module) -> None:
    """Move the hook that gives a context's map behind the one that runs attention there."""
    for key in [key for key, hook in module._forward_hooks.items() if hook is give_output]:
        module._forward_hooks[key] = module._forward_hooks.pop(key)


def give_output(module: nn.Module, args: Any, output: Tensor) -> None:
    """Give the output of a context, as its forward hook."""
    for argument, _, link in vars(module)[GIVES]:
        if not argument:
            link.give(output)


def give_arguments(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    """Give the arguments of a context's call."""
    for argument, place, link in vars(module).get(GIVES, ()):
        if argument:
            exchange(args, kwargs, argument, place, link.pass_on)


def open_links(model: nn.Module, args: Any) -> None:
    """Begin a forward, as a pre-hook of the model."""
    for link in model.__dict__[LINKS]:
        link.open()


def close_links(model: nn.Module, args: Any, output: Any) -> None:
    """End a forward, as a hook of the model, also where it fails."""
    for link in model.__dict__[LINKS]:
        link.close()


class Give(nn.Module):
    """Return the input, and give it to links, as the step after a context in a baked model."""

    def __init__(self, links: list[Link]):
        super().__init__()
        self.links = links

    def forward(self, x: Any) -> Any:
        """Return x."""
        for link in self.links:
            link.give(x)
        return x


def _thread() -> int:
    return 0 if torch.compiler.is_compiling() else threading.get_ident()
