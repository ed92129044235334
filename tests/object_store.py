"""Storage for tests: a folder, memory, or an S3 server on this machine, moto's, with one empty bucket."""

import logging
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from foveate import storage

SECRET = "moto-accepts-any-secret-0123456789"


@contextmanager
def s3(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Yield the URL of a folder in a bucket, with the server and its credentials in the environment."""
    pytest.importorskip("s3fs")
    server = pytest.importorskip("moto.server").ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server.start()
    host, port = server.get_host_and_port()
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "anyone")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    import s3fs

    s3fs.S3FileSystem.clear_instance_cache()  # it keeps the address of an earlier server
    try:
        bucket = f"bucket-{secrets.token_hex(8)}"  # the servers of a process share their buckets
        s3fs.S3FileSystem().mkdir(bucket)
        yield f"s3://{bucket}/study"
    finally:
        s3fs.S3FileSystem.clear_instance_cache()
        server.stop()


@contextmanager
def made(kind: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Yield an empty place of a kind: "folder", "memory" or "s3"."""
    if kind == "folder":
        yield str(folder / "shared")
    elif kind == "memory":
        monkeypatch.setitem(storage.OBJECT_STORES, "memory", "fsspec")
        yield f"memory://{folder.name}"
    else:
        with s3(monkeypatch) as url:
            yield url
