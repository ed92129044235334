"""One exception family: every error says what was expected, what was received and what to do."""

import difflib
import importlib
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import ModuleType
from typing import Any

# The modules of optional packages, by the extra that installs them.
EXTRAS = {
    "torch": ("torch", "safetensors"),
    "study": (
        *("lightning", "timm", "torchvision", "scipy", "sklearn", "PIL"),
        *("jinja2", "matplotlib", "psutil", "filelock"),
    ),
    "detect": ("pycocotools", "faster_coco_eval", "defusedxml", "av"),
    "explain": ("captum",),
    "ray": ("ray",),
    "s3": ("s3fs",),
    "keras": ("keras",),
    "onnx": ("onnx", "onnxruntime", "onnxscript"),
    "openvino": ("openvino",),
    "int8": ("nncf",),
    "hub": ("huggingface_hub",),
    "transformers": ("transformers", "accelerate"),
    "litert": ("litert_torch", "ai_edge_litert"),
}
_SHOWN = 8  # of a list of names


class FoveateError(Exception):
    """An error for a user: what was expected, what was received, and what to do."""

    exit_code = 1
    _keras_call_info_injected = True  # without this, Keras turns an error in a layer's call into a RuntimeError

    def __init__(self, *, expected: str, received: str, do: str):
        self.expected, self.received, self.do = expected, received, do
        super().__init__(f"Expected {expected}\nReceived {received}\nDo: {do}")

    def __reduce__(self):
        return _rebuild, (type(self), self.expected, self.received, self.do)


class UsageError(FoveateError):
    """A call, option or model that cannot work as given."""

    exit_code = 2


class MissingExtra(UsageError, ImportError):
    """An optional package is not installed."""


class DataError(FoveateError):
    """A data set, image or annotation that cannot be used; the message names the file."""

    exit_code = 3


class VerificationError(FoveateError):
    """An exported file that does not compute what the model does."""

    exit_code = 5


class ReductionWarning(UserWarning):
    """A reduction would leave no hidden unit, so one is kept."""


class BatchOfOneWarning(UserWarning):
    """A batch norm inside attention would have one value per channel in training with a batch of one."""


class HostMovedWarning(UserWarning):
    """An adapter was saved after the host changed, or is loaded into a host with other weights."""


def deprecate(old: str, new: str, removed_in: str) -> None:
    """Warn the caller of a public function of a name, argument or option that a later version removes.

    Call it in that function: `deprecate("attach(site=)", "attach(where=)", removed_in="1.3")`.
    """
    message = f"{old} is deprecated and will be removed in Foveate {removed_in}: use {new}"
    warnings.warn(message, DeprecationWarning, stacklevel=3)


def nearest(name: str, known: Iterable[str], count: int = 3) -> str:
    """Return "did you mean ...?" for the closest known names, or the whole list when nothing is close."""
    known = list(known)
    close = difflib.get_close_matches(name, known, count, cutoff=0.5)
    return f"did you mean {' or '.join(map(repr, close))}?" if close else f"choose one of: {', '.join(known)}"


def shortened(names: Sequence[str]) -> str:
    """Return the first names of a list, and how many more there are."""
    return ", ".join(names[:_SHOWN]) + (f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else "")


def counted(count: int | str, noun: str) -> str:
    """Return a number with its noun, in the singular for one.

    >>> counted(1, "epoch"), counted(0, "epoch"), counted("3..20", "seed")
    ('1 epoch', '0 epochs', '3..20 seeds')
    """
    return f"{count} {noun}{'s' * (str(count) != '1')}"


def missing_extra(package: str, extra: str) -> MissingExtra:
    """Return the error for an optional package that is not installed."""
    return MissingExtra(
        expected=f"the package {package!r}", received="an environment without it", do=f'pip install "foveate[{extra}]"'
    )


def extra_of(error: BaseException) -> str | None:
    """Return the extra that installs the module that an import did not find; None for other errors and modules."""
    module = (error.name or "").partition(".")[0] if isinstance(error, ModuleNotFoundError) else ""
    return next((extra for extra, modules in EXTRAS.items() if module in modules), None)


@contextmanager
def naming_extras() -> Iterator[None]:
    """Turn a ModuleNotFoundError for an optional package into a MissingExtra."""
    try:
        yield
    except ModuleNotFoundError as error:
        if extra := extra_of(error):
            raise missing_extra(error.name or "", extra) from None
        raise


def imported(module: str) -> ModuleType:
    """Return a module, imported by its full name. Raises MissingExtra for an optional package that is not installed."""
    with naming_extras():
        return importlib.import_module(module)


def lazy(module: str, homes: Mapping[str, str]) -> Callable[[str], Any]:
    """Return a `__getattr__` for a module (PEP 562), which imports each name from the module in `homes` at first use.

    It raises MissingExtra for an optional package that is not installed.
    """

    def find(name: str) -> Any:
        if name not in homes:
            raise AttributeError(f"module {module!r} has no attribute {name!r}")
        return getattr(imported(homes[name]), name)

    return find


def _rebuild(kind: type[FoveateError], expected: str, received: str, do: str) -> FoveateError:
    return kind(expected=expected, received=received, do=do)
