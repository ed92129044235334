"""Storage that machines share: folders and object stores read, write and refuse alike."""

import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from foveate import files
from foveate.errors import MissingExtra, UsageError
from foveate.storage import Storage, checked_place, open_storage, reached
from object_store import made


@pytest.fixture(params=["folder", "memory", "s3"])
def place(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    with made(request.param, tmp_path, monkeypatch) as empty:
        yield empty


def test_files_are_written_once_read_listed_and_removed(place: str) -> None:
    opened: Storage = open_storage(checked_place(place))
    assert opened.read("a/x") is None
    assert opened.names("a") == []
    assert opened.create("a/x", b"first")
    assert not opened.create("a/x", b"second")
    assert opened.read("a/x") == b"first"
    opened.write("a/x", b"third")
    opened.write("a/b/y", b"")
    opened.write("ab/z", b"not below a")
    assert opened.read("a/x") == b"third"
    assert opened.read("a/b/y") == b""
    assert opened.names("a") == ["b/y", "x"]
    opened.remove("a/x")
    assert opened.read("a/x") is None
    assert open_storage(checked_place(place)).names("a") == ["b/y"]


def test_a_folder_that_does_not_answer_is_not_empty(tmp_path: Path) -> None:
    (tmp_path / "x").symlink_to("x")
    with pytest.raises(OSError, match="symbolic links"):
        open_storage(str(tmp_path)).read("x")


def test_of_many_writers_at_once_one_wins(tmp_path: Path) -> None:
    begin, won = threading.Barrier(8), []

    def write(number: int) -> None:
        begin.wait(10)
        if files.write_once(tmp_path / "x", str(number).encode()):
            won.append(str(number).encode())

    threads = [threading.Thread(target=write, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert won == [(tmp_path / "x").read_bytes()]
    assert [path.name for path in tmp_path.iterdir()] == ["x"]


def test_a_file_system_without_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_links(*_: Any) -> None:
        raise PermissionError("no links here")

    monkeypatch.setattr(files.os, "link", no_links)
    assert files.write_once(tmp_path / "x", b"1")
    assert not files.write_once(tmp_path / "x", b"2")
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {"x": b"1"}


@pytest.mark.parametrize("url", ["s3://key:hush@bucket/x", "s3://hush@bucket", "s3://bucket/x?token=hush"])
def test_credentials_in_a_url_are_refused_and_not_repeated(url: str) -> None:
    with pytest.raises(UsageError, match="a URL without a user name") as raised:
        checked_place(url)
    assert "hush" not in str(raised.value)


def test_places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert checked_place("shared/study") == str(tmp_path / "shared" / "study")
    assert checked_place("s3://bucket/study/") == "s3://bucket/study"
    with pytest.raises(UsageError, match="mount that storage"):
        checked_place("ftp://host/study")


@pytest.mark.parametrize(
    "url", ["s3+x://user:hush@bucket/f", "x-y://hush@bucket", "hush:hush@s3://bucket", "abfs://hush@account.host/f"]
)
def test_other_protocols_are_refused_and_not_repeated(url: str) -> None:
    with pytest.raises(UsageError, match="a URL of another protocol") as raised:
        checked_place(url)
    assert "hush" not in str(raised.value)


def test_an_absent_library_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    registry = pytest.importorskip("fsspec.registry")
    monkeypatch.setitem(sys.modules, "s3fs", None)
    monkeypatch.delitem(registry._registry, "s3", raising=False)
    with pytest.raises(MissingExtra, match=r"foveate\[s3\]"):
        open_storage("s3://bucket")
    monkeypatch.setitem(sys.modules, "gcsfs", None)
    with pytest.raises(UsageError, match="pip install gcsfs"):
        open_storage("gs://bucket")


def test_what_a_storage_says_is_in_the_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(UsageError, match="FileExistsError: "), reached("there"):
        open_storage(str(tmp_path / "file")).write("x", b"")
