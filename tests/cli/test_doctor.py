"""What `foveate doctor` reports about packages and kernels."""

import json
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from foveate import kernels
from foveate.cli import doctor
from foveate.data import open_data
from foveate.data.images.working_copies import CacheOptions
from foveate.data.samples import write_samples
from foveate.facts import facts
from foveate.kernels import chosen, ops
from foveate.mechanisms import names


@pytest.fixture(autouse=True)
def _nothing_is_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chosen, "choice", None)


EXTRAS = {
    "torch": ["torch>=2.10"],
    "study": ["torch>=2.10", "scipy>=1.14", "lightning>=2.5"],
    "pretrained": ["torch>=2.10", "scipy>=1.14", "lightning>=2.5", "a-model>=0.1"],
    "detect": ["torch>=2.10", "scipy>=1.14", "lightning>=2.5", "av>=14"],
    "keras": ["keras>=3.15", "safetensors"],
}
VERSIONS = {
    "torch": "2.10",
    "scipy": "1.14.0",
    "lightning": "2.6",
    "a-model": "0.1",
    "av": "18.1.0",
    "keras": "4.0",
    "safetensors": "1",
}


@pytest.fixture
def versions(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """Set the versions of the installed packages, and the ones that Foveate requires."""
    lines = [f"{wanted}; extra == '{extra}'" for extra, packages in EXTRAS.items() for wanted in packages]
    found = dict(VERSIONS)
    monkeypatch.setattr("importlib.metadata.requires", lambda name: ["numpy>=2.0", *lines])
    monkeypatch.setattr(doctor, "_version", found.get)
    monkeypatch.setattr(doctor, "_torchvision", lambda: None)
    monkeypatch.setenv("KERAS_BACKEND", "torch")
    return found


def notes() -> dict[str, str]:
    return {one["name"]: one["note"] for one in doctor.examine()["packages"] if not one["ok"]}


def test_the_packages_of_every_extra_are_checked(versions: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    report = doctor.examine()
    assert {one["name"]: (one["version"], one["extra"]) for one in report["packages"]} == {
        name: (version, next(extra for extra, wanted in EXTRAS.items() if name in " ".join(wanted)))
        for name, version in VERSIONS.items()
    }
    assert [one["note"] for one in report["packages"] if one["name"] == "keras"] == ["fine, on torch"]
    assert notes() == {}
    for name in VERSIONS:
        monkeypatch.setitem(versions, name, "0.0.1")
    assert notes() == {
        name: f"older than {least}: pip install --upgrade {name}"
        for wanted in EXTRAS.values()
        for name, _, least in (line.partition(">=") for line in wanted)
        if least
    }


@pytest.mark.parametrize(
    ("changed", "fix"),
    [
        ({"scipy": None, "lightning": None}, 'pip install "foveate[study]"'),
        ({"a-model": None}, 'pip install "foveate[pretrained]"'),
        ({"av": None, "scipy": None}, 'pip install "foveate[detect]"'),
        ({"av": None, "a-model": None, "keras": None}, 'pip install "foveate[pretrained,detect,keras]"'),
        ({"scipy": "1.9"}, 'pip install --upgrade "foveate[study]"'),
        ({"lightning": "2.5.0.post1"}, None),
    ],
)
def test_one_line_installs_what_is_missing(
    versions: dict[str, str], changed: dict[str, str | None], fix: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doctor, "_version", {**versions, **changed}.get)
    assert [one for one in doctor.examine()["fixes"] if "foveate[" in one] == ([fix] if fix else [])


@pytest.mark.parametrize(
    ("chosen", "settings", "note"),
    [
        ("jxa", "", "its backend jxa is missing: install it, or set KERAS_BACKEND to tensorflow, jax or torch"),
        ("..", "", "its backend .. is missing: install it, or set KERAS_BACKEND to tensorflow, jax or torch"),
        ("", '{"backend": "torch"}', "fine, on torch"),
        (
            "",
            '{"backend": 3}',
            "its backend 3 is missing: install it, or set KERAS_BACKEND to tensorflow, jax or torch",
        ),
        ("", "[damaged", "fine, on tensorflow"),
        ("", "3", "fine, on tensorflow"),
    ],
)
def test_the_backend_of_keras_is_found_as_keras_finds_it(
    versions: dict[str, str], chosen: str, settings: str, note: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "keras.json").write_text(settings)
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    monkeypatch.setenv("KERAS_BACKEND", chosen)
    assert [one["note"] for one in doctor.examine()["packages"] if one["name"] == "keras"] == [note]


def own(report: dict[str, Any]) -> dict[str, Any]:
    return next(row for row in report["accelerations"] if row["name"] == "Foveate's own kernels")


def test_compiled_kernels_are_shown_with_their_instruction_set(foveate: Callable[..., Any]) -> None:
    if kernels.unavailable():
        pytest.skip(f"the kernels are not built: {kernels.unavailable()}")
    report = json.loads(foveate("doctor", "--json").out)
    assert own(report)["active"]
    assert any(name in own(report)["why"] for name in ("avx512", "avx2", "baseline"))
    without = "there is no kernel for it"
    assert report["kernels"] == {name: None if facts(name).get("kernel") else without for name in names()}
    assert "kernel" in foveate("doctor").out


@pytest.mark.parametrize(
    ("compiler", "first"), [("g++", ""), (None, "install g++ (Debian: apt-get install g++), then ")]
)
def test_without_the_library_it_says_how_to_get_it(
    monkeypatch: pytest.MonkeyPatch, compiler: str | None, first: str
) -> None:
    monkeypatch.setattr(ops, "unavailable", "they are not compiled")
    monkeypatch.setattr(doctor, "_compiler", lambda: compiler)
    report = doctor.examine()
    assert own(report) == {"name": doctor.KERNELS, "active": False, "why": "they are not compiled"}
    assert set(report["kernels"].values()) == {"they are not compiled"}
    assert report["fixes"][-1] == f"{first}python -m foveate.kernels.build"


@pytest.mark.parametrize(
    ("choice", "active", "why"),
    [
        ("off", False, "FOVEATE_KERNELS=off"),
        ("reference", False, "FOVEATE_KERNELS=reference"),
        ("fast", False, "received 'fast'"),
    ],
)
def test_the_choice_is_shown(monkeypatch: pytest.MonkeyPatch, choice: str, active: bool, why: str) -> None:
    monkeypatch.setattr(chosen, "choice", choice)
    report = doctor.examine()
    assert own(report)["active"] is active
    assert why in own(report)["why"]


def test_the_cache_of_decoded_images_is_shown(
    foveate: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FOVEATE_CACHE", str(tmp_path / "cache"))
    folder = tmp_path / "cache" / "images"
    empty = {"folder": str(folder), "images": 0, "bytes": 0, "limit": 10 * 2**30}
    assert json.loads(foveate("doctor", "--json").out)["cache"] == empty
    assert not folder.parent.exists()  # looking makes nothing
    files = write_samples(tmp_path / "samples")[0]
    copies = open_data(files, imgsz=32, cache=CacheOptions("disk", 0.001))
    for k in range(3):
        copies.train[k]
    (folder / "00").mkdir(exist_ok=True)
    (folder / "00" / "half.part").write_bytes(b"of a process that writes")
    held = [path.stat().st_size for path in folder.glob("??/*") if path.suffix != ".part"]
    found = json.loads(foveate("doctor", "--json").out)["cache"]
    assert found == {**empty, "images": 3, "bytes": sum(held)}
    assert len(held) == 3
    assert (folder / "00" / "half.part").exists()
    shown = " ".join(foveate("doctor").out.split())
    assert "Decoded images that --cache disk keeps: 3 in" in shown
    assert "0.00 of 10 GiB" in shown


def test_every_extra_that_users_install_is_looked_at(root: Path) -> None:
    named = tomllib.loads((root / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert set(doctor.EXTRAS) == set(named) - {"litert", "test", "docs", "dev"}  # litert has its own environment
