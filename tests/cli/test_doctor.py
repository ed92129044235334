"""What `foveate doctor` says of the kernels."""

import json
from collections.abc import Callable
from typing import Any

import pytest

from foveate import kernels
from foveate.cli import doctor
from foveate.kernels import ops
from foveate.mechanisms import names


@pytest.fixture(autouse=True)
def _nothing_is_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernels, "choice", None)


def own(report: dict[str, Any]) -> dict[str, Any]:
    return next(row for row in report["accelerations"] if row["name"] == "Foveate's own kernels")


def test_compiled_kernels_are_named_with_what_they_run_on(foveate: Callable[..., Any]) -> None:
    if kernels.unavailable():
        pytest.skip(f"the kernels are not built: {kernels.unavailable()}")
    report = json.loads(foveate("doctor", "--json").out)
    assert own(report)["active"]
    assert any(name in own(report)["why"] for name in ("avx512", "avx2", "baseline"))
    assert report["kernels"] == {name: "there is no kernel for it" if name == "cross" else None for name in names()}
    assert "kernel" in foveate("doctor").out


@pytest.mark.parametrize(("compiler", "first"), [("g++", ""), (None, "install g++ (Debian: apt-get install g++), then ")])
def test_without_the_library_it_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch, compiler: str | None, first: str) -> None:
    monkeypatch.setattr(ops, "unavailable", "they are not compiled")
    monkeypatch.setattr(doctor, "_compiler", lambda: compiler)
    report = doctor.examine()
    assert own(report) == {"name": doctor.KERNELS, "active": False, "why": "they are not compiled"}
    assert set(report["kernels"].values()) == {"they are not compiled"}
    assert report["fixes"][-1] == f"{first}python -m foveate.kernels.build"


@pytest.mark.parametrize(
    ("choice", "active", "why"),
    [("off", False, "FOVEATE_KERNELS=off"), ("reference", False, "FOVEATE_KERNELS=reference"), ("fast", False, "received 'fast'")],
)
def test_the_choice_is_shown(monkeypatch: pytest.MonkeyPatch, choice: str, active: bool, why: str) -> None:
    monkeypatch.setattr(kernels, "choice", choice)
    report = doctor.examine()
    assert own(report)["active"] is active
    assert why in own(report)["why"]
