"""Fixtures shared by every test: the provided data, seeds, one thread, a real browser."""

import gc
import os
import random
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

for variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[variable] = "1"  # before torch is imported; processes started by tests inherit it
os.environ["OMP_WAIT_POLICY"] = "passive"  # the threads of a study sleep while they wait, rather than spin
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")  # the same numbers on every machine
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell that runs `make test &` sets SIGINT to be ignored
# `timeout` stops pytest itself: Lightning's handler would fail the test that trains, and pytest would go on.
signal.signal(signal.SIGTERM, signal.default_int_handler)
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("MPLBACKEND", "agg")

import numpy as np
import pytest
import torch

from foveate.mechanisms import get, register
from foveate.models.torchvision_guard import ensure_torchvision
from reliability import Reliability, tried

__all__ = ["tried"]  # a fixture

pytest.register_assert_rewrite("contract", "golden_data")

ROOT = Path(__file__).resolve().parent.parent

torch.set_num_threads(1)
ensure_torchvision()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--mechanism", help="test a mechanism of your own as the built-in ones: nets/mine.py:Mine")
    parser.addoption("--reliability", action="store_true", help="print how much was tried of docs/reliability.md")


def pytest_configure(config: pytest.Config) -> None:
    """Give the mechanism of `--mechanism` its name, and select the tests that have it in their names."""
    config.pluginmanager.register(Reliability())
    if place := config.getoption("--mechanism"):
        config.option.keyword = config.option.keyword or register(get(place)).name


def pytest_collection_finish() -> None:
    """Exclude modules and test items from garbage collection: tests that collect would search them each time."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def root() -> Path:
    """Return the folder of the repository."""
    return ROOT


@pytest.fixture(scope="session")
def shared() -> Path:
    """Return the folder of data beside the repository; skip without it."""
    folder = ROOT.parent / "shared"
    if not folder.is_dir():
        pytest.skip(f"needs the data folder {folder}, which is not on this machine")
    return folder


@pytest.fixture(autouse=True)
def _same_numbers_every_time() -> None:
    random.seed(0)
    np.random.seed(0)  # noqa: NPY002 - third-party code still draws from the global generator
    torch.manual_seed(0)
    torch.set_num_threads(1)  # a study in this process sets its own number


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    """Yield a headless Chromium as a playwright Browser; use `browser.new_page()`."""
    executable = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if executable is None:
        pytest.skip("needs chromium on the PATH (Debian: apt-get install chromium)")
    playwright = pytest.importorskip("playwright.sync_api", reason="needs playwright (pip install foveate[dev])")
    with playwright.sync_playwright() as session:
        chromium = session.chromium.launch(executable_path=executable, args=["--no-sandbox"])
        yield chromium
        chromium.close()
