"""Attach attention to existing models: plan, attach, detach, and adapter files that hold only the attention."""

from typing import TYPE_CHECKING

from foveate.errors import lazy

if TYPE_CHECKING:
    from foveate.surgery.core.comparing import Candidate
    from foveate.surgery.core.plans import Plan, Site
    from foveate.surgery.torch.attaching import attach, detach, load_adapter, plan, save_adapter
    from foveate.surgery.torch.baking import bake
    from foveate.surgery.torch.comparing import compare
    from foveate.surgery.torch.host_state import (
        attached_state_dict,
        attention_parameters,
        freeze_host,
        host_state_dict,
        load_host_state_dict,
    )

_HOMES = {
    "Candidate": "core.comparing",
    **dict.fromkeys(("Plan", "Site"), "core.plans"),
    **dict.fromkeys(("attach", "detach", "load_adapter", "plan", "save_adapter"), "torch.attaching"),
    "bake": "torch.baking",
    "compare": "torch.comparing",
    **dict.fromkeys(
        ("attached_state_dict", "attention_parameters", "freeze_host", "host_state_dict", "load_host_state_dict"),
        "torch.host_state",
    ),
}

__all__ = [
    "Candidate",
    "Plan",
    "Site",
    "attach",
    "attached_state_dict",
    "attention_parameters",
    "bake",
    "compare",
    "detach",
    "freeze_host",
    "host_state_dict",
    "load_adapter",
    "load_host_state_dict",
    "plan",
    "save_adapter",
]

__getattr__ = lazy(
    __name__, {name: f"{__name__}.{home}" for name, home in _HOMES.items()}
)  # attaching to Keras models needs no torch
