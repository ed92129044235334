"""Attaching attention to live models: plan, attach, detach, and adapters that carry the attention alone."""

from typing import TYPE_CHECKING, Any

from foveate.errors import imported

if TYPE_CHECKING:
    from foveate.surgery.core.plans import Plan, Site
    from foveate.surgery.torch.attaching import attach, detach, load_adapter, plan, save_adapter
    from foveate.surgery.torch.host_state import attention_parameters, freeze_host, host_state_dict, load_host_state_dict

_HOMES = {
    **dict.fromkeys(("Plan", "Site"), "core.plans"),
    **dict.fromkeys(("attach", "detach", "load_adapter", "plan", "save_adapter"), "torch.attaching"),
    **dict.fromkeys(("attention_parameters", "freeze_host", "host_state_dict", "load_host_state_dict"), "torch.host_state"),
}

__all__ = [
    "Plan",
    "Site",
    "attach",
    "attention_parameters",
    "detach",
    "freeze_host",
    "host_state_dict",
    "load_adapter",
    "load_host_state_dict",
    "plan",
    "save_adapter",
]


def __getattr__(name: str) -> Any:
    """Import a name where it is first used: Keras models are attached to without torch (PEP 562)."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(imported(f"{__name__}.{_HOMES[name]}"), name)
