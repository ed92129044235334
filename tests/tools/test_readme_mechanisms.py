"""The README's table of mechanisms is made from the catalogue."""

import sys
from pathlib import Path

import pytest
from tools.readme_mechanisms import README, table, written

from tools import readme_mechanisms

STALE = "# Title\n\n## The mechanisms\n\n| what they weigh | mechanisms |\n| --- | --- |\n\nMore.\n\n| a |\n| - |\n"


def test_the_readme_is_fresh() -> None:
    text = README.read_text(encoding="utf-8")
    assert text == written(text), "run python tools/readme_mechanisms.py"
    assert "| channels | " in text
    assert "`se`" in text


def test_only_the_table_below_the_heading_is_written() -> None:
    once = written(STALE)
    assert once == f"# Title\n\n## The mechanisms\n\n{table()}\nMore.\n\n| a |\n| - |\n"
    assert written(once) == once
    with pytest.raises(LookupError, match="no table"):
        written("# Title\n")


def test_check_says_when_it_is_stale(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page = tmp_path / "README.md"
    page.write_text(STALE, encoding="utf-8")
    monkeypatch.setattr(readme_mechanisms, "README", page)
    for arguments, code in ((["--check"], 1), ([], 0), (["--check"], 0)):
        monkeypatch.setattr(sys, "argv", ["readme_mechanisms.py", *arguments])
        assert readme_mechanisms.main() == code
    assert "run python tools/readme_mechanisms.py" in capsys.readouterr().out
