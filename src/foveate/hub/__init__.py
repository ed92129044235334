"""Share attention and whole models as a folder of plain files, on disk or as a repository of the Hugging Face Hub."""

from typing import TYPE_CHECKING

from foveate.errors import lazy

if TYPE_CHECKING:
    from foveate.hub.loading import from_pretrained
    from foveate.hub.saving import push_to_hub, save_pretrained

_HOMES = {"from_pretrained": "loading", "push_to_hub": "saving", "save_pretrained": "saving"}

__all__ = ["from_pretrained", "push_to_hub", "save_pretrained"]

__getattr__ = lazy(__name__, {name: f"{__name__}.{home}" for name, home in _HOMES.items()})
