"""Names of modules, parameters and buffers: which belong to attached attention, and their names without wrappers."""

from torch import nn

from foveate.site_names import joined

CHILD = "foveate_attention"
"""The child name of the attention on a module's output. That on an argument has the argument's name after a hyphen."""

HOST = "foveate_host"
"""The name of what was a site in the sequence that `bake` puts in its place."""

FINISHED = "foveate_finished"
"""How the name of a block's end begins that `bake(inference=True)` made; the attention is its child."""

FOR_INFERENCE = "foveate_for_inference"
"""The attribute of a model that `bake(inference=True)` made."""

DATA_PARALLEL = (nn.parallel.DistributedDataParallel, nn.DataParallel)


def is_attention(name: str) -> bool:
    """Return whether a name such as "layer1.0.bn2.foveate_attention.reduce.weight" belongs to attached attention."""
    return any(part.partition("-")[0] == CHILD for part in name.split("."))


def child_of(argument: str, name: str = CHILD) -> str:
    """Return the child name of the attention on an argument of a module, or with "" on its output.

    An element of a list, "features.1", is named "foveate_attention-features-1".
    """
    return "-".join([name, *argument.split(".")]) if argument else name


def argument_of(child: str) -> str | None:
    """Return the argument that a child of this name attends to, "" for the output; None for other children."""
    name, _, argument = child.partition("-")
    return argument.replace("-", ".") if name == CHILD else None


def site_of(name: str) -> tuple[str, str] | None:
    """Return the site and the name inside its attention of a module or tensor, None where it is in no attention."""
    parts = name.split(".")
    for place, part in enumerate(parts):
        if (argument := argument_of(part)) is not None:
            site = [part for part in parts[:place] if not part.startswith(FINISHED)]
            return joined(".".join(site), argument), ".".join(parts[place + 1 :])
    return None


def plain_name(name: str) -> str:
    """Return the name of a module as it was before torch.compile wrapped any module around it."""
    return ".".join(part for part in name.split(".") if part != "_orig_mod")


def attached_name(name: str) -> str:
    """Return the name that a parameter or buffer of a baked model has in the attached one."""
    return ".".join(part for part in name.split(".") if part != HOST)


def unwrapped(model: nn.Module) -> nn.Module:
    """Return the model inside the wrappers of torch.compile and data parallelism."""
    inner = model.module if isinstance(model, DATA_PARALLEL) else getattr(model, "_orig_mod", None)
    return model if inner is None else unwrapped(inner)
