"""An S3 server on this machine: moto's, with one empty bucket."""

import logging
import secrets
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

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
