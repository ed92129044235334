"""Every mechanism has a TOML of what is known of it, with the keys that the page on adding a mechanism describes."""

import textwrap
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

import foveate
from foveate.errors import UsageError
from foveate.facts import INNER, KEYS, NEEDED, OTHER, facts, grouped, wrong
from foveate.mechanisms import built_in, names
from foveate.user_code import find


def missing(known: Mapping[str, Any]) -> list[str]:
    """Return what the catalogue needs and does not find in the facts of a mechanism."""
    found = [f"no {key}" for key in NEEDED - set(known)]
    found += [key for key in ("place", "use", "copies") if key in known and not known[key].strip().endswith(".")]
    found += ["formula"] if list(known.get("formula", ()))[-2:] != ["parameters", "macs"] else []
    return found


@pytest.mark.parametrize("name", names())
def test_the_facts_are_complete(name: str) -> None:
    assert missing(facts(name)) == []


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
    changed = {**facts("se"), **change}
    assert wrong(changed) + missing(changed) == [said]
    assert "no place" in missing({key: value for key, value in facts("se").items() if key != "place"})


def test_the_page_shows_every_key(root: Path) -> None:
    page = (root / "docs/how-to/add-a-mechanism.md").read_text(encoding="utf-8")
    shown = tomllib.loads(textwrap.dedent(page.partition("```toml\n")[2].partition("```")[0]))
    assert wrong(shown) == []
    assert set(shown) == KEYS
    for key, inner in INNER.items():
        assert set(shown[key] if isinstance(shown[key], dict) else shown[key][0]) == inner
    first = page.partition("# needed: ")[2].partition("\n")[0]
    assert {*first.replace(" and ", ", ").split(", ")} == NEEDED


def test_a_file_of_facts_belongs_to_each_mechanism() -> None:
    folder = Path(foveate.__file__).parent / "mechanisms"
    assert {path.stem for path in folder.glob("*.toml")} == set(built_in())


OWN = Path(__file__).with_name("own.py")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("place = 'Anywhere.'", None),
        ("weighs = 'colours'\ngate = []", "unknown gate, weighs"),
        ("place = ", "TOMLDecodeError"),
        ("test = 3", "TypeError"),
    ],
)
def test_facts_stand_beside_the_source_of_any_mechanism(tmp_path: Path, text: str, said: str | None) -> None:
    (tmp_path / "gates.py").write_text(OWN.read_text(encoding="utf-8"), encoding="utf-8")
    kind: Any = find(f"{tmp_path / 'gates.py'}:Pixel")
    assert facts(kind) == {}
    (tmp_path / "pixel.toml").write_text(text, encoding="utf-8")
    if said is None:
        assert facts(kind) == {"place": "Anywhere."}
        return
    with pytest.raises(UsageError, match=rf"pixel\.toml.*\nReceived {said}.*\nDo: correct"):
        facts(kind)


def test_what_is_typed_has_no_file() -> None:
    assert facts(type("Typed", (foveate.mechanisms.get("se"),), {"__module__": "nowhere"})) == {}


def test_names_are_grouped_by_what_they_weigh(monkeypatch: pytest.MonkeyPatch) -> None:
    groups = grouped(["cross", "se", "eca"])
    assert list(groups.items()) == [("channels", ["se", "eca"]), ("pairs of positions", ["cross"])]
    monkeypatch.setattr("foveate.facts.facts", lambda name: {})
    assert grouped(["pixel"]) == {OTHER: ["pixel"]}
