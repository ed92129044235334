"""The files for the repository's host can be parsed, and agree with pyproject.toml and the Makefile."""

import re
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

import foveate
from tools import release_notes

CHANGELOG = (
    "# Changelog\n\n## [Unreleased]\n\n- new\n\n## [1.2.0] - 2026-01-02\n\n- two\n\n## [1.1.0] - 2026-01-01\n\n- one\n"
)


@pytest.fixture(scope="module")
def project(root: Path) -> dict[str, Any]:
    return tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def workflows(root: Path) -> dict[str, dict[str, Any]]:
    return {
        path.stem: yaml.safe_load(path.read_text(encoding="utf-8"))
        for path in (root / ".github/workflows").glob("*.yml")
    }


def runs(workflow: dict[str, Any]) -> list[str]:
    return [step["run"] for job in workflow["jobs"].values() for step in job.get("steps", []) if "run" in step]


def test_every_yaml_file_of_the_repository_parses(root: Path) -> None:
    paths = [*root.glob(".github/**/*.yml"), root / ".pre-commit-config.yaml", root / "CITATION.cff"]
    assert len(paths) >= 8
    for path in paths:
        assert isinstance(yaml.safe_load(path.read_text(encoding="utf-8")), dict), path


def test_no_link_is_committed(root: Path) -> None:
    """A link such as `.venv` to another checkout would replace the folder of that name wherever it is checked out."""
    if not (root / ".git").exists():
        pytest.skip("not a checkout")
    git = ["git", "-C", str(root), "ls-files", "--stage"]
    files = subprocess.run(git, capture_output=True, text=True, check=True).stdout.splitlines()
    assert len(files) > 100
    assert [line for line in files if line.startswith("120000")] == []


def test_the_gate_is_the_one_script(workflows: dict[str, dict[str, Any]]) -> None:
    assert "bash .ci/run" in runs(workflows["ci"])
    assert "bash .ci/run" in runs(workflows["release"])


def test_the_targets_that_workflows_make_exist(root: Path, workflows: dict[str, dict[str, Any]]) -> None:
    targets = set(re.findall(r"^([a-z][\w-]*):", (root / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    asked = {
        target
        for workflow in workflows.values()
        for run in runs(workflow)
        for target in re.findall(r"\bmake ([a-z-]+)", run)
    }
    asked |= set(re.findall(r"^step make ([a-z-]+)", (root / ".ci/run").read_text(encoding="utf-8"), re.MULTILINE))
    assert "test" in asked
    assert asked <= targets


def test_the_matrix_begins_with_the_oldest_versions_allowed(
    project: dict[str, Any], workflows: dict[str, dict[str, Any]]
) -> None:
    matrix = workflows["ci"]["jobs"]["matrix"]["strategy"]["matrix"]
    oldest = [row for row in matrix["include"] if row["torch"]]
    floors = {**floor(project, "torch"), **floor(project, "study")}
    (versions,) = [dict(part.split("==") for part in row["torch"].split()) for row in oldest]
    assert versions == {name: f"{floors[name]}.0" for name in ("torch", "torchvision")}
    assert {row["python"] for row in oldest} == {project["project"]["requires-python"].removeprefix(">=")}
    assert matrix["python"][0] == project["project"]["requires-python"].removeprefix(">=")


def floor(project: dict[str, Any], extra: str) -> dict[str, str]:
    lines = project["project"]["optional-dependencies"][extra]
    return {name: lowest for line in lines for name, lowest in re.findall(r"^([\w-]+)>=([\d.]+)$", line)}


def test_the_version_is_in_one_place(root: Path, project: dict[str, Any]) -> None:
    assert "version" not in project["project"]
    assert project["tool"]["hatch"]["version"]["path"] == "src/foveate/__init__.py"
    assert release_notes.version(root) == foveate.__version__


def test_every_extra_that_make_installs_exists(root: Path, project: dict[str, Any]) -> None:
    made = set(
        re.findall(r"\.venv/\.with-([a-z]+)$", (root / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    ) - {"torch"}
    assert made == {"study", "detect", "dev"}
    assert made <= set(project["project"]["optional-dependencies"])


def test_torch_is_asked_for_as_it_is_pinned(root: Path) -> None:
    (pinned,) = re.findall(r"^torch==.*$", (root / "constraints.txt").read_text(encoding="utf-8"), re.MULTILINE)
    assert f"{pinned} " in (root / "Makefile").read_text(encoding="utf-8")


def test_notes_are_the_changes_of_the_tagged_version() -> None:
    assert release_notes.notes("v1.2.0", "1.2.0", CHANGELOG) == "- two"
    assert release_notes.notes("v1.1.0", "1.1.0", CHANGELOG) == "- one"


@pytest.mark.parametrize(
    ("tag", "version", "said"),
    [
        ("v1.2.1", "1.2.0", "the version 1.2.0"),
        ("1.2.0", "1.2.0", "tag v1.2.0"),
        ("v1.3.0", "1.3.0", "no section for 1.3.0"),
    ],
)
def test_a_tag_without_its_version_or_notes_is_refused(tag: str, version: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        release_notes.notes(tag, version, CHANGELOG)
