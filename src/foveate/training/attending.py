"""What the callbacks of all trainers for PyTorch share: attach once, record gates of one step, save the adapter."""

import os
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from torch import nn

from foveate.errors import FoveateError, UsageError, nearest
from foveate.files import try_place
from foveate.gates.logged import logged
from foveate.gates.record_torch import watch
from foveate.surgery import Plan, attach, detach, save_adapter
from foveate.surgery.torch.attachment import remember_host
from foveate.surgery.torch.child import attached


class Attending:
    """The attention of one training; its arguments are those of the callbacks `Attend`.

    `plan` is what was attached, None before that and without a mechanism.
    """

    plan: Plan | None = None

    def __init__(
        self,
        mechanism: Any,
        where: Any,
        host: str,
        log_gates: bool,
        adapter: str | os.PathLike[str] | None,
        arguments: dict[str, Any],
    ):
        self.arguments = {"mechanism": mechanism, "where": where, **arguments}
        self.host, self.log_gates = host, log_gates
        self.adapter = None if adapter is None else Path(adapter)
        self._figures: dict[str, float] = {}
        self._hooks = ExitStack()

    def host_of(self, model: nn.Module) -> nn.Module:
        """Return the host inside a trainer's model. Raises UsageError if there is no module of that name."""
        names = dict(model.named_modules())
        if self.host not in names:
            raise UsageError(
                expected=f"host: the name of a module of the {type(model).__name__}, which exists before training",
                received=repr(self.host),
                do=f"build it in __init__; {nearest(self.host, filter(None, names))}",
            )
        return names[self.host]

    def begin(self, model: nn.Module) -> None:
        """Attach to the host, unless it was done; check that the adapter can be saved.

        Raises UsageError and DataError; the model is then unchanged.
        """
        host = self.host_of(model)
        if self.adapter is not None:
            try_place(self.adapter, Path.touch)
        before = attached(host).keys()
        if self.arguments["mechanism"] is not None and not self._is_done(host):
            self.plan = attach(host, **self.arguments)
        if not attached(host):
            raise UsageError(
                expected="a mechanism, or a model with attention attached",
                received="neither",
                do='pass a mechanism, such as Attend("cbam")',
            )
        if self.adapter is not None:
            try:
                try_place(self.adapter, lambda path: save_adapter(host, path))
            except FoveateError:  # it cannot hold what was attached
                if new := [*(attached(host).keys() - before)]:
                    detach(host, new)
                    self.plan = None
                raise

    def restored(self, model: nn.Module) -> None:
        """Take the host as it is now, after a checkpoint was read, for the one that training starts from."""
        remember_host(self.host_of(model))

    def watch(self, model: nn.Module) -> None:
        """Record gates from now on, if they are logged."""
        self._hooks.close()  # of a step that failed
        if self.log_gates:
            see = watch(self.host_of(model), lambda gate, features: self._figures.update(logged(gate)))
            self._hooks.enter_context(see)

    def seen(self) -> dict[str, float]:
        """Stop recording, and return the numbers of each gate; {} if nothing was recorded."""
        self._hooks.close()
        figures, self._figures = self._figures, {}
        return figures

    def save(self, model: nn.Module) -> None:
        """Save the adapter, if a file was named. Raises DataError where it cannot be written."""
        if self.adapter is not None:
            save_adapter(self.host_of(model), self.adapter)

    def _is_done(self, host: nn.Module) -> bool:
        """Return whether the host has the attention that an earlier call attached, as when `fit` is called twice."""
        return self.plan is not None and {site.name for site in self.plan.sites} <= attached(host).keys()
