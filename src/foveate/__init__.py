"""Foveate: visual attention for convolutional networks, in PyTorch and Keras."""

from typing import TYPE_CHECKING

from foveate.errors import lazy

if TYPE_CHECKING:
    from foveate.experiment.run_folder import load_run
    from foveate.exporting.exported import export
    from foveate.gates.record_torch import record
    from foveate.mechanisms import register
    from foveate.surgery import (
        attach,
        attached_state_dict,
        attention_parameters,
        bake,
        compare,
        detach,
        freeze_host,
        host_state_dict,
        load_adapter,
        load_host_state_dict,
        plan,
        save_adapter,
    )
    from foveate.surgery.core.published import load_published
    from foveate.surgery.core.transfer import transfer_weights
    from foveate.torch import attention  # with an overload for each mechanism
    from foveate.verbs import explain, study, train

__version__ = "0.1.0"

_HOMES = {
    "attention": "foveate.bind.torch.attention",
    "load_published": "foveate.surgery.core.published",
    "plan": "foveate.surgery",
    "attach": "foveate.surgery",
    "attached_state_dict": "foveate.surgery",
    "bake": "foveate.surgery",
    "compare": "foveate.surgery",
    "detach": "foveate.surgery",
    "freeze_host": "foveate.surgery",
    "attention_parameters": "foveate.surgery",
    "host_state_dict": "foveate.surgery",
    "load_host_state_dict": "foveate.surgery",
    "save_adapter": "foveate.surgery",
    "load_adapter": "foveate.surgery",
    "transfer_weights": "foveate.surgery.core.transfer",
    "record": "foveate.gates.record_torch",
    "register": "foveate.mechanisms",
    "export": "foveate.exporting.exported",
    "load_run": "foveate.experiment.run_folder",
    "explain": "foveate.verbs",
    "study": "foveate.verbs",
    "train": "foveate.verbs",
}

__all__ = [
    "attach",
    "attached_state_dict",
    "attention",
    "attention_parameters",
    "bake",
    "compare",
    "detach",
    "explain",
    "export",
    "freeze_host",
    "host_state_dict",
    "load_adapter",
    "load_host_state_dict",
    "load_published",
    "load_run",
    "plan",
    "record",
    "register",
    "save_adapter",
    "study",
    "train",
    "transfer_weights",
]

__getattr__ = lazy(__name__, _HOMES)  # `import foveate` pulls in no framework


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOMES])
