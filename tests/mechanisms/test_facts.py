"""Every mechanism has a TOML of what is known of it, with the keys that the page on adding a mechanism describes."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_args

import pytest

import foveate
from foveate.facts import OTHER, WEIGHS, facts, grouped
from foveate.mechanisms import built_in
from foveate.parts import GateKind

NEEDED = {"weighs", "gates", "place", "use", "formula", "golden"}
KEYS = NEEDED | {"copies", "defaults", "kernel", "layouts", "meanings", "refuse", "smallest", "test", "try"}
INNER = {
    "test": {"batch", "channels", "open", "options", "widths"},
    "refuse": {"options", "message"},
    "layouts": {"name", "source", "names", "flip", "options"},
}


def wrong(known: Mapping[str, Any]) -> list[str]:
    """Return what is wrong in a table of facts."""
    found = [f"no {key}" for key in NEEDED - set(known)] + [f"unknown {key}" for key in set(known) - KEYS]
    for key, allowed in INNER.items():
        entries = known.get(key, [])
        for entry in entries if isinstance(entries, list) else [entries]:
            found += [f"unknown {key}.{inner}" for inner in set(entry) - allowed]
    found += ["weighs"] if known.get("weighs") not in WEIGHS else []
    found += ["gates"] if not set(known.get("gates", ())) <= set(get_args(GateKind)) else []
    found += [key for key in ("place", "use", "copies") if key in known and not known[key].strip().endswith(".")]
    found += ["formula"] if list(known.get("formula", ()))[-2:] != ["parameters", "macs"] else []
    return found


@pytest.mark.parametrize("name", built_in())
def test_the_facts_have_the_known_keys(name: str) -> None:
    assert wrong(facts(name)) == []


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"weighs": "colours"}, "weighs"),
        ({"gates": ["chanel"]}, "gates"),
        ({"use": "no full stop"}, "use"),
        ({"formula": {"macs": "1"}}, "formula"),
        ({"gate": []}, "unknown gate"),
        ({"test": {"width": 1}}, "unknown test.width"),
        ({"refuse": [{"option": {}}]}, "unknown refuse.option"),
    ],
)
def test_wrong_facts_are_found(change: dict[str, Any], said: str) -> None:
    assert wrong({**facts("se"), **change}) == [said]
    assert "no place" in wrong({key: value for key, value in facts("se").items() if key != "place"})


def test_a_file_of_facts_belongs_to_each_mechanism() -> None:
    folder = Path(foveate.__file__).parent / "mechanisms"
    assert {path.stem for path in folder.glob("*.toml")} == set(built_in())
    assert facts("pixel") == {}


def test_names_are_grouped_by_what_they_weigh() -> None:
    groups = grouped(["pixel", "cross", "se", "eca"])
    assert list(groups.items()) == [
        ("channels", ["se", "eca"]),
        ("pairs of positions", ["cross"]),
        (OTHER, ["pixel"]),
    ]
