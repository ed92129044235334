"""A study gives the same results with every cache and any number of workers."""

from functools import partial
from pathlib import Path
from typing import Any

import pytest

from foveate.data.samples import write_samples
from foveate.studies import run
from foveate.studies.costs import measure_costs
from foveate.studies.run import run_study
from studies.tiny import results_of, tiny


@pytest.mark.slow  # each study starts processes, which take seconds
@pytest.mark.parametrize(("task", "imgsz"), [("classify", 32), ("detect", 64)])
def test_the_cache_and_the_workers_change_no_result(
    task: str, imgsz: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FOVEATE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(run, "measure_costs", partial(measure_costs, seconds=0.0))
    photos, boxes = write_samples(tmp_path)
    data = photos if task == "classify" else boxes
    found: list[dict[str, Any]] = []
    for changes in ({"cache": "none"}, {"workers": 2}, {"cache": "disk", "workers": 2}):
        options = tiny(tmp_path / "runs", task=task, data=data, imgsz=imgsz, batch=8, epochs=2, **changes)
        folder = run_study(options, command="foveate study")
        assert folder is not None
        results = results_of(folder)
        for name in ("cache", "workers"):
            del results["args"][name]
        found.append({**results, "changed": None})
    assert any((tmp_path / "cache" / "images").glob("??/*"))
    assert found[0]["arms"][0]["scores"]
    assert found[1] == found[0]
    assert found[2] == found[0]
