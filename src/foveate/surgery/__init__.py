"""Attaching attention to live models: plan, attach, detach, and adapters that carry the attention alone."""

from foveate.surgery.adapter import load_adapter, save_adapter
from foveate.surgery.attach import attach, attention_parameters, detach, freeze_host, host_state_dict, load_host_state_dict
from foveate.surgery.plan import Plan, Site
from foveate.surgery.prepare import plan

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
