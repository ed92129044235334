"""YAML that could need much memory or time is refused early; ordinary YAML is read as PyYAML reads it."""

import pytest
import yaml
import yaml.reader

from foveate import plain_yaml

DEEP = {
    "brackets": "[" * 20_000,
    "brackets as a value": "names: " + "[" * 20_000,
    "braces": "{a: " * 20_000,
    "a bracket a line": "[\n" * 20_000,
    "dashes": "- " * 20_000,
    "question marks": "? " * 20_000,
    "indented names": "\n".join(" " * depth + "a:" for depth in range(2000)),
}
READ = [
    "names: [cat, dog]\ntrain: [a, b]\n",
    "names:\n  0: cat\n  1: dog\nval: images/val\n",
    "[" * plain_yaml.DEEPEST + "]" * plain_yaml.DEEPEST,
    "text: 'x [[[[[[[[[[[[[[[[[[[[[[[[[[[[[[ y'  # {{{{{{{{{{{{{{{{{{{{{{{{{{{{{\n",
    "",
]


@pytest.mark.parametrize("text", DEEP.values(), ids=DEEP)
@pytest.mark.reliability(12)
def test_deep_nesting_is_refused_before_it_is_read(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    scanned, forward = [0], yaml.reader.Reader.forward

    def counting(reader: yaml.reader.Reader, length: int = 1) -> None:
        scanned[0] += length
        forward(reader, length)

    monkeypatch.setattr(yaml.reader.Reader, "forward", counting)
    with pytest.raises(yaml.YAMLError, match="nested more than 16 deep"):
        plain_yaml.load(text)
    assert 0 < scanned[0] < 200


@pytest.mark.parametrize("text", ["a: &a [x, x]\nb: [*a, *a]", "&a [*a]"])
@pytest.mark.reliability(12)
def test_aliases_are_refused(text: str) -> None:
    with pytest.raises(yaml.YAMLError, match="an alias"):
        plain_yaml.load(text)


@pytest.mark.parametrize("text", READ)
def test_ordinary_yaml_is_read(text: str) -> None:
    assert plain_yaml.load(text) == yaml.safe_load(text)


def test_dumped_values_are_loaded_again_even_if_one_is_used_twice() -> None:
    twice = ["eins", 2, None, 3.5, True]
    values = {"z": twice, "a": twice, "name": "größe"}
    assert plain_yaml.load(plain_yaml.dump(values)) == values
    assert list(plain_yaml.load(plain_yaml.dump(values))) == ["z", "a", "name"]
