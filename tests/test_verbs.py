"""`foveate.study`, `foveate.train` and `foveate.load_run`: the commands as functions."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import foveate
from foveate.errors import UsageError
from foveate.studies import run
from studies.tiny import InProcess

SMALL: dict[str, Any] = {
    "canvas": 24,
    "fragments": 2,
    "train_count": 64,
    "val_count": 20,
    "test_count": 40,
    "batch": 32,
    "epochs": 1,
}


@pytest.fixture(scope="module")
def studied(tmp_path_factory: pytest.TempPathFactory) -> Any:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run, "measure_costs", lambda models, shape, **_: dict.fromkeys(models))
        patch.setattr(run, "LocalEngine", lambda *_: InProcess())
        return foveate.study(attention="se", control=False, seeds=2, project=tmp_path_factory.mktemp("runs"), **SMALL)


def test_a_study_returns_what_its_folder_holds(studied: Any) -> None:
    assert studied.verdict == studied.results["verdict"]["headline"]
    assert studied.report.is_file()
    assert studied.verdict in str(studied)
    assert "SE (identity start)" in studied.table
    frame = studied.to_frame()
    assert list(frame.index) == ["none__host", "se-identity__residual"]
    arms = studied.results["arms"]
    assert frame["mean"].tolist() == [arm["mean"] for arm in arms]
    assert frame["verdict"].tolist() == ["baseline", arms[1]["verdict"]]


def test_a_study_is_explained_by_its_arms(studied: Any) -> None:
    every = foveate.explain(studied.folder, grad_cam=False)
    assert list(every.arms) == ["plain host", "SE (identity start)"]
    assert len(every.names) == 8
    found = foveate.explain(studied.folder, arms=["se"], grad_cam=False)
    assert list(found.arms) == ["SE (identity start)"]
    assert {"boxes", "labels", "predictions"} <= found.arms["SE (identity start)"].keys()
    with pytest.raises(UsageError, match="did you mean 'se-identity__residual'"):
        foveate.explain(studied.folder, arms=["se-identity"[:-1]], grad_cam=False)


def test_a_notebook_shows_the_table_with_names_escaped(studied: Any) -> None:
    label = studied.results["arms"][1]
    label["label"] = "<script>"
    page = studied._repr_html_()
    assert "&lt;script&gt;" in page
    assert "<script>" not in page


def test_a_trained_model_comes_back_with_its_classes_and_preprocessing(tmp_path: Path) -> None:
    trained = foveate.train(model="resnet8", attention="se", project=tmp_path, **SMALL)
    loaded = foveate.load_run(trained.run.folder)
    assert loaded.classes == [str(k) for k in range(10)]
    pixels = np.random.default_rng(0).integers(0, 256, (30, 40, 3), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "one.png")
    inputs = [
        loaded.preprocess(one)
        for one in (tmp_path / "one.png", str(tmp_path / "one.png"), pixels, Image.fromarray(pixels))
    ]
    assert inputs[0].shape == (1, 1, 24, 24)
    assert all(torch.equal(inputs[0], one) for one in inputs)
    assert torch.equal(loaded.model(inputs[0]), trained.model(inputs[0]))
    assert any("foveate_attention" in name for name, _ in loaded.model.named_modules())


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: foveate.study(atention="se"), "did you mean 'attention'|attention"),
        (lambda: foveate.train(epoch=3), "epochs"),
        (lambda: foveate.train(attention="se,cbam"), "one attention to train"),
        (lambda: foveate.load_run("nowhere"), "no folder"),
    ],
)
def test_what_cannot_work_is_refused(call: Any, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        call()
