"""The reference lists every public name, every option of the command line and every error, from the docstrings."""

import dataclasses
import re

import pytest
from typer.testing import CliRunner

import docs_reference
import foveate
import foveate.models
import foveate.torch
import option_meanings
from foveate import cli, errors, mechanisms
from foveate.facts import facts
from mechanisms.own import Pixel


@pytest.mark.parametrize("package", [foveate, foveate.models, foveate.torch], ids=lambda package: package.__name__)
def test_every_public_name_is_on_the_page_of_its_package(package) -> None:
    page = docs_reference.face(package.__name__)
    directives = re.findall(rf"^::: {re.escape(package.__name__)}\.(\w+)$", page, re.MULTILINE)
    rows = re.findall(r"^\| \[(\w+)\]\(\.\./mechanisms/\w+\.md\) \|", page, re.MULTILINE)
    assert sorted([*directives, *rows]) == sorted(package.__all__)
    assert directives


def test_keras_is_read_without_keras() -> None:
    page = docs_reference.face("foveate.keras")
    assert "::: foveate.keras.attach" in page
    assert "[CBAM](../mechanisms/cbam.md)" in page


def test_a_package_without_public_names_is_refused() -> None:
    with pytest.raises(LookupError, match="__all__"):
        docs_reference.public("foveate.bind")


@pytest.mark.parametrize("verb", ["study", "train", "val", "predict", "explain", "list", "plan", "doctor"])
def test_every_option_of_the_command_line_has_its_row(verb: str) -> None:
    part = re.split(r"^## ", docs_reference.command_line(), flags=re.MULTILINE)
    (page,) = [text for text in part if text.startswith(f"`foveate {verb}`")]
    rows = dict(re.findall(r"^\| `(.+?)` \| (.*) \|$", page, re.MULTILINE))
    helped = CliRunner().invoke(cli.app, [verb, "--help"], env={"COLUMNS": "200", "NO_COLOR": "1"}).output
    plain = re.sub(r"\x1b\[[\d;]*m", "", helped)
    asked = set(re.findall(r"^\W{0,6}(--[a-z][\w-]*)", plain, re.MULTILINE)) - {"--help"}
    shown = {name for row in rows for name in re.findall(r"--[a-z][\w-]*", row)}
    assert asked
    assert asked <= shown
    assert all(rows.values())


def test_every_error_and_its_exit_code_are_reported() -> None:
    page = docs_reference.exceptions()
    for kind in (errors.UsageError, errors.DataError):
        assert f"| `{kind.__name__}` | {kind.exit_code} |" in page


def test_every_option_of_a_mechanism_has_its_meaning_and_no_meaning_is_left_over() -> None:
    used = set[str]()
    for name, kind in mechanisms.built_in().items():
        options = {field.name for field in dataclasses.fields(kind) if field.init}
        own = facts(name).get("meanings", {})
        assert set(own) <= options <= set(own) | set(option_meanings.MEANINGS)
        used |= options - set(own)
    assert used == set(option_meanings.MEANINGS)
    spatial, se = (mechanisms.get(name) for name in ("spatial", "se"))
    assert option_meanings.meaning(spatial, "bias") != option_meanings.meaning(se, "bias") != ""
    assert option_meanings.meaning(Pixel, "bias") == ""
