"""Names of modules, parameters and buffers: which belong to attached attention, and their names without wrappers."""

from torch import nn

CHILD = "foveate_attention"
"""The child name of the attention that is attached to a module."""

HOST = "foveate_host"
"""The name of what was a site in the sequence that `bake` puts in its place."""

DATA_PARALLEL = (nn.parallel.DistributedDataParallel, nn.DataParallel)


def is_attention(name: str) -> bool:
    """Return whether a name such as "layer1.0.bn2.foveate_attention.reduce.weight" belongs to attached attention."""
    return CHILD in name.split(".")


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
