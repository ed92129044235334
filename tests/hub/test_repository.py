"""The files of a repository: what a save and a push replace and leave alone, also when interrupted."""

import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import huggingface_hub
import pytest
import torch
from torch import nn

from foveate import files
from foveate.errors import DataError, UsageError
from foveate.hub import from_pretrained, push_to_hub, save_pretrained
from foveate.hub.repository import FILES, RUN_WEIGHTS, write
from foveate.models import save_weights
from hub.attached import attached, network
from surgery import hosts
from training.toy import equal, state_of


def test_a_second_save_replaces_the_first(tmp_path: Path) -> None:
    save_pretrained(attached(), tmp_path / "made", whole=True)
    again = attached("se")
    folder = save_pretrained(again, tmp_path / "made")
    assert not (folder / "model.safetensors").exists()
    host = network()
    from_pretrained(folder, host, example=hosts.SHAPE)
    assert torch.equal(hosts.run(host, hosts.image()), hosts.run(again, hosts.image()))


@pytest.mark.parametrize("manifest", [None, "", "[]", '{"name": "app"}', '{"schema": 1}', '{"foveate": "1.0"}'])
def test_a_folder_with_other_files_is_left_alone(manifest: str | None, tmp_path: Path) -> None:
    texts = {"README.md": "mine"} | ({} if manifest is None else {"manifest.json": manifest})
    for name, text in texts.items():
        (tmp_path / name).write_text(text)
    with pytest.raises(UsageError, match="which holds other files"):
        save_pretrained(attached(), tmp_path)
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == texts


@pytest.mark.parametrize("earlier", [False, True])
@pytest.mark.parametrize("written", range(4))
def test_an_interrupted_save_is_not_loaded_and_can_be_repeated(
    written: int, earlier: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, model = tmp_path / "made", attached("se")
    if earlier:
        save_pretrained(attached(), folder, whole=True)
    real, left = files.write_bytes, iter(range(written))

    def interrupted(path: Path, content: bytes) -> None:
        if folder in path.parents and next(left, None) is None:
            raise KeyboardInterrupt
        real(path, content)

    with monkeypatch.context() as patch:
        patch.setattr(files, "write_bytes", interrupted)
        with pytest.raises(KeyboardInterrupt):
            save_pretrained(model, folder, whole=True)
    host = network()
    seen = hosts.anatomy(host)
    if written != (0 if earlier else 3):  # then nothing was changed yet, or only the card is missing
        with pytest.raises((DataError, UsageError)):
            from_pretrained(folder, host, example=hosts.SHAPE)
        assert hosts.anatomy(host) == seen
    save_pretrained(model, folder, whole=True)
    from_pretrained(folder, host, example=hosts.SHAPE)
    assert torch.equal(hosts.run(host, hosts.image()), hosts.run(model, hosts.image()))


@pytest.mark.parametrize("wrap", [nn.DataParallel, lambda model: torch.compile(model, backend="eager")])
def test_weights_alone_go_into_a_host_in_a_wrapper(wrap: Any, tmp_path: Path) -> None:
    model = network()
    next(model.parameters()).data.mul_(1.5)
    save_weights(model, tmp_path / "weights")
    write(tmp_path / "made", {RUN_WEIGHTS: (tmp_path / "weights").read_bytes()})
    host = network()
    from_pretrained(tmp_path / "made", wrap(host))
    assert equal(state_of(host), state_of(model))


class Push:
    """The Hub: it keeps the files of commits; calls must fit the real functions."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch):
        self.folder, self.asked = folder, dict[str, Any]()
        for owner, name, ours in (
            (huggingface_hub.HfApi, "create_repo", self.create),
            (huggingface_hub.HfApi, "upload_folder", self.upload),
            (huggingface_hub, "snapshot_download", self.download),
        ):
            monkeypatch.setattr(owner, name, mock.create_autospec(getattr(owner, name), side_effect=ours))

    def create(self, api: Any, name: str, **options: Any) -> None:
        self.asked["create"] = (name, options)

    def upload(self, api: Any, *, repo_id: str, folder_path: Path, **options: Any) -> Any:
        self.asked["commit"] = (repo_id, options)
        for path in (self.folder / repo_id).rglob("*"):
            if path.relative_to(self.folder / repo_id).as_posix() in (options.get("delete_patterns") or ()):
                path.unlink()
        shutil.copytree(folder_path, self.folder / repo_id, dirs_exist_ok=True)
        return SimpleNamespace(commit_url=f"https://huggingface.co/{repo_id}/commit/1234")

    def download(self, name: str, *, revision: str | None, allow_patterns: list[str]) -> str:
        self.asked["download"] = (name, revision, allow_patterns)
        return str(self.folder / name)


def test_a_repository_goes_to_the_hub_as_one_commit_and_comes_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub, model = Push(tmp_path / "hub", monkeypatch), attached()
    assert push_to_hub(model, "me/attention", message="First") == "https://huggingface.co/me/attention/commit/1234"
    assert hub.asked["create"] == ("me/attention", {"private": True, "exist_ok": True})
    options = {"commit_message": "First", "revision": None, "delete_patterns": [*FILES]}
    assert hub.asked["commit"] == ("me/attention", options)
    sent = {path.relative_to(hub.folder / "me/attention").as_posix() for path in hub.folder.rglob("*.*")}
    assert sent == {"README.md", "adapter.safetensors", "manifest.json"}
    host = network()
    from_pretrained("me/attention", host, revision="v1", example=hosts.SHAPE)
    assert hub.asked["download"] == ("me/attention", "v1", [*FILES])
    assert torch.equal(hosts.run(host, hosts.image()), hosts.run(model, hosts.image()))


def test_a_second_push_of_fewer_files_replaces_the_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hub, model = Push(tmp_path / "hub", monkeypatch), attached()
    push_to_hub(model, "me/attention", whole=True)
    (hub.folder / "me/attention/plot.png").write_text("of the user")
    push_to_hub(model, "me/attention")
    host = network()
    from_pretrained("me/attention", host, example=hosts.SHAPE)
    assert torch.equal(hosts.run(host, hosts.image()), hosts.run(model, hosts.image()))
    assert (hub.folder / "me/attention/plot.png").is_file()


def test_the_hub_that_cannot_be_reached_is_named() -> None:
    with pytest.raises(DataError, match="a repository 'me/attention' that can be read"):
        from_pretrained("me/attention", hosts.ResNet())  # HF_HUB_OFFLINE is set
