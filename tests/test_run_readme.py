import subprocess
import sys
from pathlib import Path

import pytest

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


@pytest.mark.parametrize(("language", "text", "told"), BAD)
def test_each_kind_of_failure_is_found(root: Path, tmp_path: Path, language: str, text: str, told: str) -> None:
    (tmp_path / "bad.md").write_text(f"{GOOD}\n```{language}\n{text}\n```\n")
    result = run(root, tmp_path / "bad.md")
    assert result.returncode == 1
    assert result.stdout.count("FAIL") == 1
    assert told in result.stdout
