import subprocess
import sys
from pathlib import Path

GOOD = """
```python
print(sum(range(3)))
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
    ("sh", "make coffee", "no target coffee"),
    ("sh", "make", "no target"),
    ("sh", "foveate no-such-verb", "ended with code"),
    ("sh", "rm -rf somewhere", "only foveate, make"),
    ("console", "$ make coffee", "no target coffee"),
    ("yaml", "a: 1", "'yaml'"),
    ("", "untold", "''"),
]


def run(root: Path, markdown: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "tools/run_readme.py", str(markdown)]
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
    for failure, (*_, told) in zip(failures, BAD, strict=True):
        assert told in failure
