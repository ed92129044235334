"""A mechanism of a source, a TOML and golden data has everything that a built-in one has, wherever it lies."""

import inspect
import shutil
from pathlib import Path

import pytest

from contract import Contract
from foveate.cli.list import describe
from foveate.mechanisms import get
from outside.files import NAME, ROOT, install, passed_tests, run, write

FILES = [
    "tests/mechanisms",
    "tests/bind/test_published.py",
    "tests/gates/test_recording.py",
    "tests/surgery/test_every_mechanism.py",
    "tests/tools/test_docs_hooks.py",
    "tests/tools/test_docs_structure.py",
]
CONTRACT = {
    name
    for name, test in inspect.getmembers(Contract, inspect.isfunction)
    if name.startswith("test_") and not any(mark.name == "slow" for mark in getattr(test, "pytestmark", ()))
}
MORE = {
    "test_torch_computes_what_the_authors_compute",
    "test_the_oracle_computes_what_the_authors_compute",
    "test_parameters_and_multiply_adds",
    "test_the_facts_are_complete",
    "test_the_defaults_are_the_authors",
    "test_right_options",
    "test_wrong_options",
    "test_every_layout_loads_under_a_prefix_without_batch_counts_and_as_numpy",
    "test_captured_gates_are_the_recomputed_ones",
    "test_a_mechanism_lives_in_a_network",
    "test_a_page_shows_options_parts_and_counts",
    "test_a_picture_shows_every_part_from_x_to_y",
}


def test_a_registered_one_passes_the_tests_of_the_built_in_ones(tmp_path: Path) -> None:
    passed = passed_tests("--mechanism", write(tmp_path, tmp_path), *FILES)
    assert passed >= CONTRACT | MORE


@pytest.mark.slow
def test_one_of_an_installed_package_passes_the_tests_of_the_built_in_ones(tmp_path: Path) -> None:
    write(tmp_path, tmp_path)
    install(tmp_path)
    assert passed_tests("-k", NAME, *FILES, path=str(tmp_path)) >= CONTRACT | MORE
    told = run("-m", "foveate", "list", NAME, path=str(tmp_path)).stdout
    assert "In tests." in told
    assert "Copies leave out the norm." in told


@pytest.mark.slow
def test_its_golden_data_can_fail(tmp_path: Path) -> None:
    place = write(tmp_path, tmp_path)
    source = tmp_path / f"{NAME}.py"
    source.write_text(source.read_text(encoding="utf-8").replace("F.mean(x, F.w)", "F.max(x, F.w)"), encoding="utf-8")
    with pytest.raises(AssertionError, match="test_torch_computes_what_the_authors_compute"):
        passed_tests("--mechanism", place, "tests/mechanisms/test_golden.py")


def test_its_page_is_made_as_those_of_the_built_in_ones(tmp_path: Path) -> None:
    place = write(tmp_path, tmp_path)
    page = run("tools/docs_hooks.py", place).stdout
    for text in ("# RowGauge", "from gauge import RowGauge", "In tests.", "Copies leave out the norm.", "<svg"):
        assert text in page
    for text in ("`expand` = `excite`", "in 2 configurations: `gauge/default`, `gauge/no_bias`", "| 256 | 8,496 |"):
        assert text in page
    assert describe(NAME, get(place))["weighs"] == "rows and columns"


ELSEWHERE = [
    "tests/mechanisms/test_catalogue.py",
    "tests/test_public_api.py",
    "tests/benchmarks/test_references.py",
    "tests/cli/test_list.py",
    "tests/cli/test_doctor.py",
    "tests/tools/test_docs_reference.py",
    "tests/tools/test_readme_mechanisms.py",
    "tests/tools/test_tree.py",
]


@pytest.mark.slow
def test_in_the_catalogue_it_is_three_files(tmp_path: Path) -> None:
    """Add the files to a copy of the checkout, refresh what is made from the catalogue, and run the tests there."""
    for folder in ("src", "tests", "tools", "docs", "benchmarks", "examples"):
        shutil.copytree(ROOT / folder, tmp_path / folder, ignore=shutil.ignore_patterns("__pycache__"))
    for path in ROOT.iterdir():
        if path.is_file() and not path.name.startswith("."):
            shutil.copy(path, tmp_path)
    before = {path for path in tmp_path.rglob("*") if path.is_file()}
    write(tmp_path / "src/foveate/mechanisms", tmp_path / "tests/golden")
    assert len({path for path in tmp_path.rglob("*") if path.is_file()} - before) == 3
    for tool in (["stubs"], ["readme_mechanisms"], ["tree", "--write"]):
        done = run(f"tools/{tool[0]}.py", *tool[1:], root=tmp_path)
        assert done.returncode == 0, done.stderr
    assert passed_tests("-k", NAME, *FILES, root=tmp_path) >= CONTRACT | MORE
    assert passed_tests(*ELSEWHERE, root=tmp_path)
