"""The benchmark of data loading, on few photos and a host too small for meaningful times."""

from pathlib import Path

import pytest
from benchmarks.harness import check
from benchmarks.options import Options
from PIL import Image

from benchmarks import data_loading


def test_every_cache_is_measured_with_every_number_of_workers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(data_loading, "CACHES", ("none", "disk"))
    for k in range(12):
        path = tmp_path / ("train", "val", "test")[k % 3] / "ab"[k % 2] / f"{k}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (40, 30), (20 * k, 90, 30)).save(path)
    kinds = {"as they are": (None, 2, (0, 2)), "enlarged": ((120, 90), 1, (0,))}
    [record] = data_loading.measure(Options(rounds=1), photos=tmp_path, host="resnet8", size=32, batch=4, kinds=kinds)
    assert check(record) == []
    assert [(one["photos"], one["pixels"], one["epoch"]) for one in record["results"]] == [
        ("as they are", [40, 30], "first"),
        ("as they are", [40, 30], "second"),
        ("enlarged", [120, 90], "first"),
        ("enlarged", [120, 90], "second"),
    ]
    plain, enlarged = record["results"][0]["calls"], record["results"][2]["calls"]
    assert list(plain) == ["none, 0", "none, 2", "disk, 0", "disk, 2"]
    assert list(enlarged) == ["none, 0", "disk, 0"]
    assert plain["none, 0"]["ratio"] == 1
    assert all(0 <= timing["least_busy"] <= timing["busy"] < 1 for timing in plain.values())


def test_without_the_photos_the_reason_is_printed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert list(data_loading.measure(Options(rounds=1), photos=tmp_path / "trashnet6")) == []
    assert "needs the photos of TrashNet" in capsys.readouterr().out
