"""What `foveate doctor --nodes` says about the nodes of a cluster."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from foveate import storage
from foveate.cli import main
from foveate.errors import UsageError
from foveate.files import CACHE
from foveate.studies import nodes
from foveate.studies.nodes import examine_nodes, look, try_storage
from foveate.studies.remote_trial import digest_of


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    path = tmp_path / "photos" / "a" / "x.png"
    path.parent.mkdir(parents=True)
    path.write_bytes(b"pixels")
    return path


def as_nodes(monkeypatch: pytest.MonkeyPatch, *changes: Any) -> None:
    """Pretend a cluster whose nodes are like this machine but for the changes; an exception is a node that failed."""

    def on_each_node(function: Any, *args: Any) -> list[Any]:
        return [change if isinstance(change, Exception) else {**function(*args), **change} for change in changes]

    class Connected:
        def __init__(self, address: str | None): ...
        def __enter__(self) -> None: ...
        def __exit__(self, *_: object) -> None: ...

    monkeypatch.setattr(nodes, "connected", Connected)
    monkeypatch.setattr(nodes, "on_each_node", on_each_node)


def problems(monkeypatch: pytest.MonkeyPatch, change: Any, *places: Path) -> list[str]:
    as_nodes(monkeypatch, change)
    (node,) = examine_nodes("auto", places)["nodes"]
    return node["problems"]


def test_a_node_that_is_alike_is_fine(photo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert problems(monkeypatch, {}, photo.parent.parent) == []


def test_what_is_absent_is_no_problem_and_other_content_is(photo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = photo.parent.parent
    assert problems(monkeypatch, {"places": {str(folder): None}}, folder) == []
    other = {"places": {str(folder): "other"}}
    assert problems(monkeypatch, other, folder) == [f"other content in {folder}"]


def test_other_versions_and_nodes_that_fail(monkeypatch: pytest.MonkeyPatch) -> None:
    versions = look([])["versions"]
    other = {"versions": {**versions, "torch": "1.0"}}
    assert problems(monkeypatch, other) == [f"torch 1.0 instead of {versions['torch']}"]
    assert problems(monkeypatch, RuntimeError("no\nforeign module")) == ["no foreign module"]


def test_every_byte_and_name_is_in_the_digest(photo: Path) -> None:
    folder, file = digest_of(photo.parent.parent), digest_of(photo)
    assert folder != file
    photo.write_bytes(b"pixelt")
    assert digest_of(photo) != file
    changed = digest_of(photo.parent.parent)
    photo.rename(photo.with_name("y.png"))
    assert len({folder, changed, digest_of(photo.parent.parent)}) == 3


def test_free_space_of_a_cache_that_is_not_made_yet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(CACHE, str(tmp_path / "not" / "yet"))
    assert look([])["free"] > 0
    assert not (tmp_path / "not").exists()


def storage_problems(monkeypatch: pytest.MonkeyPatch, place: Path, change: Any) -> list[str]:
    as_nodes(monkeypatch, change)
    (node,) = examine_nodes("auto", [], str(place))["nodes"]
    assert not list(place.iterdir())
    return node["problems"]


def test_storage_is_written_read_and_left_empty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert storage_problems(monkeypatch, tmp_path / "shared", {}) == []
    assert storage_problems(monkeypatch, tmp_path / "shared", {"storage": "wrong"}) == ["wrong"]
    (tmp_path / "elsewhere").mkdir()
    assert try_storage(str(tmp_path / "elsewhere"), "of-the-driver") == (
        f"other storage at {tmp_path / 'elsewhere'} than on the machine where the study begins"
    )


def test_storage_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "shared").mkdir()
    (tmp_path / "shared" / "of-the-driver").write_bytes(b"of-the-driver")

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(storage.files, "write_bytes", full)
    assert "No space left on device" in str(try_storage(str(tmp_path / "shared"), "of-the-driver"))
    as_nodes(monkeypatch, {})
    with pytest.raises(UsageError, match="No space left"):
        examine_nodes("auto", [], str(tmp_path / "shared"))


def test_storage_that_forgets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = str(tmp_path)
    (tmp_path / "of-the-driver").write_bytes(b"of-the-driver")
    opened = nodes.open_storage(place)
    monkeypatch.setattr(type(opened), "read", lambda self, name: name.encode()[:13])
    assert try_storage(place, "of-the-driver") == f"{place} does not give back what was written"


def test_storage_that_cannot_be_read_is_left_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "of-the-driver").write_bytes(b"of-the-driver")

    def read(self: Any, name: str) -> bytes:
        if name == "of-the-driver":
            return name.encode()
        raise TimeoutError("no answer")

    monkeypatch.setattr(type(nodes.open_storage(str(tmp_path))), "read", read)
    assert "TimeoutError: no answer" in str(try_storage(str(tmp_path), "of-the-driver"))
    assert [path.name for path in tmp_path.iterdir()] == ["of-the-driver"]


def test_storage_is_left_empty_where_the_nodes_cannot_be_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def lost(*_: Any) -> None:
        raise ConnectionError("the cluster ended")

    as_nodes(monkeypatch, {})
    monkeypatch.setattr(nodes, "on_each_node", lost)
    with pytest.raises(ConnectionError):
        examine_nodes("auto", [], str(tmp_path))
    assert not list(tmp_path.iterdir())


def run(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["foveate", "doctor", *arguments])
    with pytest.raises(SystemExit) as ended:
        main()
    return int(ended.value.code or 0)


def test_the_command(photo: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    folder = str(photo.parent.parent)
    as_nodes(monkeypatch, {}, {"node": "second", "processor": "another", "places": {folder: None}})
    assert run(monkeypatch, "--nodes", "--data", folder) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "second" in said
    assert "fine, photos will be shipped" in said
    assert "processors are of several makes" in said
    as_nodes(monkeypatch, {"places": {folder: "other"}})
    assert run(monkeypatch, "--nodes", "--data", folder) == 1
    assert "other content in" in capsys.readouterr().out
    assert run(monkeypatch, "--nodes", "--data", folder, "--json") == 1
    assert json.loads(capsys.readouterr().out)["nodes"][0]["problems"] == [f"other content in {folder}"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--data", "x"), "--data with --nodes"),
        (("--results", "x"), "--results with --nodes"),
        (("--nodes", "--data", "absent"), "a file or folder at absent"),
    ],
)
def test_what_is_refused(
    arguments: tuple[str, ...], message: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, *arguments) == 2
    assert message in " ".join(capsys.readouterr().err.split())
