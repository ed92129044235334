import dataclasses
from pathlib import Path
from typing import get_args

import pytest

import docs_hooks
from foveate import mechanisms
from foveate.cost import measure
from foveate.facts import facts
from foveate.parts import GateKind


def test_every_mechanism_has_its_page_and_its_row() -> None:
    pages = docs_hooks.pages()
    assert set(pages) == {"mechanisms/index.md", *(f"mechanisms/{name}.md" for name in mechanisms.built_in())}
    index = pages["mechanisms/index.md"]
    for name, kind in mechanisms.built_in().items():
        group = next(part for part in index.split("\n## ") if f"({name}.md)" in part)
        assert group.partition("\n")[0].lower() == facts(name)["weighs"]
        assert f"| {measure(kind(), (1, 256, 56, 56)).parameters:,} |" in group


@pytest.mark.parametrize("name", mechanisms.names())
def test_a_page_shows_options_parts_and_counts(name: str) -> None:
    kind = mechanisms.get(name)
    text = docs_hooks.page(kind)
    for field in dataclasses.fields(kind):
        assert f"| `{field.name}` |" in text
        assert f"`{field.default!r}`" in text
    for part in kind().parts(256):
        assert f"`{part}" in text
    known = facts(name)
    (row,) = [line for line in text.splitlines() if line.startswith("| what `record` shows")]
    assert {gate for gate in get_args(GateKind) if f" {gate}" in row} == set(known["gates"])
    for key in ("weighs", "use", "place", "copies"):
        assert docs_hooks.escape(known.get(key, "")).replace("|", r"\|") in text
    assert f"{measure(kind(), (1, 256, 56, 56)).parameters:,} parameters, " in text
    assert f"{docs_hooks.measure(kind, 512).parameters:,}" in text


def test_published_numbers_are_on_the_pages() -> None:
    assert "| 256 | 8,464 |" in docs_hooks.page(mechanisms.get("se"))  # 2 * 256 * 16 + 16 + 256
    assert "| 1024 | 5 |" in docs_hooks.page(mechanisms.get("eca"))


def test_widths_that_the_default_options_refuse_have_no_costs() -> None:
    text = docs_hooks.costs(mechanisms.get("shuffle"))  # 64 groups
    assert "| 32 |" not in text
    assert "| 64 |" not in text
    assert "| 128 | " in text


def test_markup_stays_literal() -> None:
    assert docs_hooks.escape("y = x * f_c(x), `a*b_c`") == r"y = x \* f\_c(x), `a*b_c`"
    assert docs_hooks.table(["a"], [["x | y"]]).endswith(r"| x \| y |")


def test_the_navigation_is_filled_and_empty_sections_go(tmp_path: Path) -> None:
    (tmp_path / "design").mkdir()
    (tmp_path / "design/b.md").write_text("# B")
    (tmp_path / "design/a.md").write_text("# A")
    config = {
        "docs_dir": str(tmp_path),
        "nav": [{"Foveate": "index.md"}, {"Mechanisms": []}, {"Results": []}, {"Design": []}],
    }
    home, pages, design = docs_hooks.on_config(config)["nav"]
    assert (home, design) == ({"Foveate": "index.md"}, {"Design": ["design/a.md", "design/b.md"]})
    assert {"CBAM": "mechanisms/cbam.md"} in pages["Mechanisms"]
