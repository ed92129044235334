"""Shared repositories: a folder or the Hub, a run or a model; what is loaded is what was saved, and nothing is run."""

import hashlib
import json
import shlex
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import huggingface_hub
import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from typer.main import get_command

import foveate
from foveate import mechanisms, plain_yaml
from foveate.cli import app, flags
from foveate.errors import DataError, HostMovedWarning, UsageError
from foveate.hub import cards, from_pretrained, save_pretrained
from foveate.hub.repository import FILES, RUN, RUN_WEIGHTS
from foveate.mechanisms.se import SE
from foveate.models import build
from foveate.studies import run
from hub.attached import attached, network
from studies.tiny import InProcess
from surgery import hosts
from test_verbs import SMALL
from training.toy import equal, state_of


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Any:
    project = tmp_path_factory.mktemp("runs")
    made = foveate.train(model="resnet8", attention="se:reduction=4", seed=2, lr=0.02, project=project, **SMALL)
    env = made.run.folder / "env.json"  # as if an earlier version had trained it
    env.write_text(json.dumps(json.loads(env.read_text()) | {"foveate": "0.0.1"}))
    return made


@pytest.fixture(scope="module")
def repository(trained: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cards, "SECONDS", 0.01)
        folder = tmp_path_factory.mktemp("shared") / "digits"
        return save_pretrained(trained.run.folder, folder, licence="cc-by-4.0", about="Digits among fragments.")


def test_a_run_comes_back_with_its_classes_and_preprocessing(repository: Path, trained: Any) -> None:
    for loaded in (from_pretrained(repository), foveate.load_run(repository)):
        pixels = np.random.default_rng(0).integers(0, 256, (30, 40, 3), np.uint8)
        assert loaded.classes == trained.classes
        image = loaded.preprocess(pixels)
        assert torch.equal(image, trained.preprocess(pixels))
        assert torch.equal(loaded.model(image), trained.model(image))
    assert {path.relative_to(repository).as_posix() for path in repository.rglob("*.*")} == {*FILES} - {
        "model.safetensors",
        "keras.safetensors",
    }


def test_a_run_can_be_loaded_into_a_host_of_the_same_network(repository: Path, trained: Any) -> None:
    host = build("resnet8", 10, channels=1)
    assert from_pretrained(repository, host, example=(1, 1, 24, 24)) is host
    assert equal(state_of(host), state_of(trained.model))
    x = torch.randn(2, 1, 24, 24)
    torch.testing.assert_close(host.eval()(x), trained.model(x))
    other = build("resnet8", 7, channels=1)
    before = state_of(other)
    with pytest.raises(UsageError, match=r"other or missing: linear\.weight"):
        from_pretrained(repository, other, example=(1, 1, 24, 24))
    assert equal(state_of(other), before)


def test_the_card_is_filled_from_the_run(repository: Path, trained: Any) -> None:
    text = (repository / "README.md").read_text()
    card: Any = huggingface_hub.ModelCard(text)
    assert card.data.license == "cc-by-4.0"
    assert card.data.library_name == "foveate"
    assert card.data.tags == ["foveate", "visual-attention", "se"]
    (result,) = card.data.eval_results
    score = json.loads((trained.run.folder / "results.json").read_text())["test_score"]
    assert (result.task_type, result.metric_type) == ("image-classification", "accuracy")
    assert result.metric_value == pytest.approx(score, abs=1e-4)
    parameters = sum(parameter.numel() for parameter in trained.model.parameters())
    for said in (
        "Digits among fragments.",
        trained.run.data["fingerprint"],
        "Seed: 2; 1 epoch",
        "95 % interval over the test images",
        f"{parameters:,} parameters",
        "ms for a batch of 8",
        "multiply-adds",
        f"Trained with Foveate 0.0.1, torch {torch.__version__}",
    ):
        assert said in text


@pytest.mark.parametrize(
    ("command", "shared"),
    [
        ("--weights=/home/me/w.pt", "--weights=w.pt"),
        ("--weights=~/w.pt --name a=b", "--weights=w.pt --name a=b"),
        ("--attention cbam,/home/me/mine.py:Mine,se", "--attention cbam,mine.py:Mine,se"),
        ("--attention /home/me/a.py:A,/home/me/b.py:B", "--attention a.py:A,b.py:B"),
        ("--attention=/home/me/,/home/me/b.py:B", "--attention=me,b.py:B"),
        ("'/home/me/Doe, Jane/photos'", "photos"),
        ("nets/mine.py:Mine,se:reduction=4 out/a~b", "nets/mine.py:Mine,se:reduction=4 'out/a~b'"),
    ],
)
def test_a_command_is_shared_without_absolute_paths(command: str, shared: str) -> None:
    assert cards.without_paths(command) == shared


def test_the_command_of_the_card_asks_for_the_same_training(repository: Path, trained: Any) -> None:
    line = next(line for line in (repository / "README.md").read_text().splitlines() if "Command:" in line)
    program, verb, *words = shlex.split(line.partition("`")[2].rpartition("`")[0].replace("&#95;", "_"))
    commands: Any = get_command(app)
    context = commands.commands[verb].make_context(verb, words)
    assert (program, context.params["seed"]) == ("foveate", 2)
    asked = flags.study_options(context.params, control=False, attention=context.params["attention"]).resolve()
    assert asked.asked() | {"control": True} == trained.run.options.asked()  # training one model asks for no control


def test_nothing_of_this_machine_is_shared(repository: Path, trained: Any) -> None:
    for path in repository.rglob("*.*"):
        assert str(trained.run.options.project).encode() not in path.read_bytes()
    shared = plain_yaml.load((repository / "args.yaml").read_bytes())
    assert not {"project", "name", "address", "workers", "jobs"} & shared.keys()


def test_a_run_on_images_keeps_their_names_and_places_to_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cards, "SECONDS", 0.01)
    for number in range(20):
        path = tmp_path / "home" / "photos" / ("dark", "light")[number % 2] / f"anna-{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(number).integers(0, 99, (16, 16, 3), np.uint8) + 100 * (number % 2)
        Image.fromarray(pixels.astype(np.uint8)).save(path)
    trained = foveate.train(
        tmp_path / "home" / "photos", "resnet8", imgsz=16, epochs=1, batch=4, project=tmp_path / "home" / "runs"
    )
    folder = save_pretrained(trained, tmp_path / "made")
    for path in folder.rglob("*.*"):
        assert b"anna" not in path.read_bytes()
        assert b"home" not in path.read_bytes()
    loaded = from_pretrained(folder)
    image = loaded.preprocess(tmp_path / "home" / "photos" / "dark" / "anna-0.png")
    assert torch.equal(loaded.model(image), trained.model(image))
    assert "Command: `foveate train photos --model resnet8" in (folder / "README.md").read_text()


@pytest.mark.slow
def test_the_run_of_a_detector_comes_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cards, "SECONDS", 0.01)
    counts = {"train_count": 16, "val_count": 10, "test_count": 10, "canvas": 64}
    options: Any = {"task": "detect", "attention": "cbam", "epochs": 1, "batch": 4, "project": tmp_path, **counts}
    trained = foveate.train(**options)
    folder = save_pretrained(trained, tmp_path / "made")
    loaded = from_pretrained(folder)
    image = loaded.preprocess(np.full((50, 64, 3), 99, np.uint8))
    for found, wanted in zip(loaded.model(image), trained.model(image), strict=True):
        assert torch.equal(found, wanted)
    assert (loaded.classes, loaded.model.heads) == (trained.classes, trained.model.heads)
    card: Any = huggingface_hub.ModelCard((folder / "README.md").read_text())
    assert [(one.task_type, one.metric_type) for one in card.data.eval_results] == [("object-detection", "ap50")]


@pytest.mark.slow  # it trains four models
def test_a_trial_brings_the_card_of_its_study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run, "measure_costs", lambda models, shape, **_: dict.fromkeys(models))
    monkeypatch.setattr(run, "LocalEngine", lambda *_: InProcess())
    studied = foveate.study(attention="se", control=False, seeds=2, project=tmp_path, **SMALL)
    trial = studied.folder / "trials" / "se-identity__residual__seed1"
    folder = save_pretrained(trial, tmp_path / "made")
    text = (folder / "README.md").read_text()
    for said in ("arm se-identity__residual, seed 1", studied.verdict, "simultaneous 95 % interval", "- Seeds: 0, 1"):
        assert said in text
    loaded = from_pretrained(folder)
    image = loaded.preprocess(np.zeros((24, 24, 3), np.uint8))
    assert torch.equal(loaded.model(image), foveate.load_run(trial).model(image))


@pytest.mark.parametrize("whole", [False, True])
def test_a_model_is_shared_as_its_attention_or_as_a_whole(whole: bool, tmp_path: Path) -> None:
    model = attached()
    if whole:
        next(model.parameters()).data.mul_(1.5)
    folder = save_pretrained(model, tmp_path / "made", whole=whole)
    host = network()
    assert from_pretrained(folder, host, example=hosts.SHAPE) is host
    assert torch.equal(hosts.run(host, hosts.image()), hosts.run(model, hosts.image()))
    assert (folder / "model.safetensors").is_file() == whole
    assert "CBAM(reduction=2" in (folder / "README.md").read_text()
    with pytest.raises(UsageError, match=r"from_pretrained\(source, host\)"):
        from_pretrained(folder)


def test_an_adapter_of_a_moved_host_warns(tmp_path: Path) -> None:
    model = attached()
    next(model.parameters()).data.mul_(1.5)
    with pytest.warns(HostMovedWarning):
        save_pretrained(model, tmp_path / "made")


@pytest.mark.parametrize("source", ["nowhere", "./runs/train", "/runs/train", "a/b/c"])
def test_a_path_without_a_folder_is_not_looked_up(source: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda *_, **__: pytest.fail("the Hub was asked"))
    with pytest.raises(UsageError, match="check the path"):
        from_pretrained(source)


@pytest.mark.parametrize("name", [*RUN, RUN_WEIGHTS, "adapter.safetensors", "manifest.json"])
@pytest.mark.parametrize("harm", ["a byte", "cut", "gone"])
def test_a_damaged_file_is_refused(harm: str, name: str, repository: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(repository, tmp_path / "copy"))
    content = (folder / name).read_bytes()
    half = len(content) // 2
    rest = b"" if harm == "cut" else bytes([content[half] ^ 1]) + content[half + 1 :]
    (folder / name).write_bytes(content[:half] + rest)
    if harm == "gone":
        (folder / name).unlink()
    with pytest.raises((DataError, UsageError), match=r"sha256|missing|readable record|manifest\.json|schema"):
        from_pretrained(folder)


def test_the_card_may_be_edited(repository: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(repository, tmp_path / "copy"))
    (folder / "README.md").write_text("# Better words\n")
    assert from_pretrained(folder).classes


def forged(repository: Path, folder: Path, name: str, change: Callable[[str], str]) -> Path:
    """Change a file of a repository, and its sha256 in the manifest."""
    shutil.copytree(repository, folder)
    text = change((folder / name).read_text())
    (folder / name).write_text(text)
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["files"][name] = hashlib.sha256(text.encode()).hexdigest()
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return folder


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("args.yaml", lambda text: text.replace("model: resnet8", "model: evil.py:make")),
        ("args.yaml", lambda text: text.replace("- se:reduction=4", "- evil.py:Mechanism")),
        ("args.yaml", lambda text: text.replace("model: resnet8", "model: evil:make")),
        ("args.yaml", lambda text: text.replace("model: resnet8", "model: timm/hf-hub:evil/net")),
        ("results.json", lambda text: text.replace('"mechanism": "se"', '"mechanism": "evil.py:Mechanism"')),
    ],
)
def test_nothing_that_a_run_names_is_imported(
    name: str, change: Callable[[str], str], repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "evil.py").write_text("from pathlib import Path\nPath('trap').touch()\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    folder = forged(repository, tmp_path / "copy", name, change)
    with pytest.raises(UsageError, match=r"nothing in a repository is run\n.*evil"):
        from_pretrained(folder)
    assert not (tmp_path / "trap").exists()


@pytest.mark.parametrize("name", ["evil.py:make", "{folder}/evil.py:make", "/..{folder}/evil.py:make", "evil.net:make"])
@pytest.mark.parametrize("what", ["model: resnet8", "- se:reduction=4"])
def test_load_run_runs_no_code_of_the_folder(
    what: str, name: str, repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "copy"
    key = what.partition(" ")[0]
    forged(repository, folder, "args.yaml", lambda text: text.replace(what, f"{key} {name.format(folder=folder)}"))
    (folder / "evil.py").write_text("from pathlib import Path\nPath('trap').touch()\n")
    monkeypatch.chdir(folder)
    monkeypatch.syspath_prepend(folder)
    for place in (folder, Path()):
        with pytest.raises(UsageError, match=r"a run whose code is outside .*\n.*evil"):
            foveate.load_run(place)
    assert not (folder / "trap").exists()


def test_a_mechanism_that_is_not_imported_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Mine(SE):
        name = "mine"

    folder = save_pretrained(attached(Mine), tmp_path / "made")
    host = network()
    from_pretrained(folder, host, example=hosts.SHAPE)
    monkeypatch.setattr(mechanisms, "_loaded", lambda place: None)
    bare = network()
    seen = hosts.anatomy(bare)
    with pytest.raises(UsageError, match=r"test_hub:.*Mine, which is not built in"):
        from_pretrained(folder, bare, example=hosts.SHAPE)
    assert hosts.anatomy(bare) == seen


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (3, "a run's folder, a run, or a model"),
        ("nowhere", "no folder"),
        (nn.Conv2d(3, 3, 1), "attach"),
    ],
)
def test_what_is_nothing_to_share_is_refused(source: Any, message: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=message):
        save_pretrained(source, tmp_path / "made")
    assert not (tmp_path / "made").exists()


def test_an_adapter_alone_is_no_repository(tmp_path: Path) -> None:
    foveate.save_adapter(attached(), tmp_path / "adapter.safetensors")
    with pytest.raises(UsageError, match=r"foveate\.load_adapter"):
        from_pretrained(tmp_path, hosts.ResNet())
