import subprocess
import sys
from pathlib import Path

GOOD = """
```python
print(sum(range(3)))  # -> 3
```

```sh
git clone somewhere  # set-up is skipped
make study
make test ARGS="-x"
```

```console
$ make lint
all fine
```

```text
anything at all
```
"""

BAD = [
    ("python", "raise ValueError('the block broke')", "the block broke"),
    ("python", "import nothing_of_this_name", "nothing_of_this_name"),
    ("python", "print(1 + 1)  # -> 3", "the comment says '3'"),
    ("sh", "make coffee", "no target coffee"),
    ("sh", "make", "no target"),
    ("sh", "foveate no-such-verb", "ended with code"),
    ("sh", "rm -rf somewhere", "only foveate, make"),
    ("console", "$ make coffee", "no target coffee"),
    ("yaml", "a: 1", "'yaml'"),
    ("", "untold", "''"),
]


def run(root: Path, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "tools/run_readme.py", *map(str, arguments)]
    return subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)


def test_a_sound_file_passes(root: Path, tmp_path: Path) -> None:
    (tmp_path / "good.md").write_text(GOOD)
    result = run(root, tmp_path / "good.md")
    assert result.returncode == 0, result.stdout
    assert result.stdout.count("ok ") == 4


def test_each_kind_of_failure_is_found(root: Path, tmp_path: Path) -> None:
    (tmp_path / "bad.md").write_text(GOOD + "\n".join(f"```{language}\n{text}\n```\n" for language, text, _ in BAD))
    result = run(root, tmp_path / "bad.md")
    assert result.returncode == 1
    failures = result.stdout.split("FAIL")[1:]
    assert len(failures) == len(BAD)
    for failure, (*_, message) in zip(failures, BAD, strict=True):
        assert message in failure


def test_together_the_blocks_of_a_page_are_one_program(root: Path, tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("```python\nx = 1\n```\n\n```python\nassert x == 1\n```\n")
    assert run(root, page).returncode == 1
    assert run(root, page, "--together").returncode == 0
    page.write_text(page.read_text().replace("x == 1", "x == 2"))
    assert run(root, page, "--together").returncode == 1


def test_a_page_begins_with_nothing_and_its_blocks_continue_each_other(root: Path, tmp_path: Path) -> None:
    look = "from pathlib import Path\nfound = sorted(path.name for path in Path().iterdir())"
    pages = {
        "python.md": f"```python\n{look}\nassert found == ['block.py']\nPath('made').touch()\n```\n\n",
        "shell.md": f"```sh\nfoveate sample-data made\n```\n\n```python\n{look}\nassert 'made' in found\n```\n",
    }
    for name, text in pages.items():
        (tmp_path / name).write_text(text)
        assert run(root, tmp_path / name).returncode == 0
        assert run(root, tmp_path / name, "--together").returncode == 0
    (tmp_path / "python.md").write_text(pages["python.md"] * 2)
    assert run(root, tmp_path / "python.md").returncode == 1
