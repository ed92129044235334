import copy
import logging
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from foveate.errors import DataError, FoveateError, UsageError
from foveate.models import CifarResNet, YOLOv4Tiny, build, load_weights, save_weights
from foveate.models.detectors import load_detector
from foveate.models.weights import read_weights
from foveate.surgery import attach

WRAPPERS = {
    "bare": lambda weights: weights,
    "state_dict": lambda weights: {"state_dict": weights, "epoch": 3},
    "model": lambda weights: {"model": weights},
    "nested": lambda weights: {"model": {"state_dict": weights}},
    "DataParallel": lambda weights: {f"module.{name}": value for name, value in weights.items()},
    "compiled": lambda weights: {f"_orig_mod.{name}": value for name, value in weights.items()},
    "Lightning": lambda weights: {"state_dict": {f"model.module.{name}": value for name, value in weights.items()}},
}


def trained() -> nn.Module:
    torch.manual_seed(7)
    return CifarResNet(8, 10)


def save(content: Any, path: Path) -> Path:
    if path.suffix == ".safetensors":
        save_file(content, path)
    else:
        torch.save(content, path)
    return path


@pytest.mark.parametrize("wrapper", WRAPPERS)
def test_the_usual_wrappings_load(wrapper: str, tmp_path: Path) -> None:
    source = trained().state_dict()
    loaded = build("resnet8", 10, weights=save(WRAPPERS[wrapper](source), tmp_path / "weights.pt")).state_dict()
    assert all(torch.equal(source[name], loaded[name]) for name in source)


def test_a_first_convolution_for_grey_images_and_for_rgb(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    rgb, grey, x = trained().eval(), CifarResNet(8, 10, channels=1).eval(), torch.rand(2, 1, 16, 16)
    load_weights(grey, save(rgb.state_dict(), tmp_path / "rgb.pt"), 10)
    assert "has a first convolution for 3 channels, which was fitted to 1" in caplog.text
    with torch.no_grad():
        torch.testing.assert_close(grey(x), rgb(x.expand(-1, 3, -1, -1)))
        back = trained().eval()
        load_weights(back, save(grey.state_dict(), tmp_path / "grey.pt"), 10)
        picture = torch.rand(2, 3, 16, 16)
        torch.testing.assert_close(back(picture), grey(picture.mean(1, keepdim=True)))


@pytest.mark.parametrize("suffix", [".safetensors", ".pth", ".th"])
def test_a_classifier_for_other_classes_is_reset_and_reported(
    suffix: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, logger="foveate")
    path = save(trained().state_dict(), tmp_path / f"weights{suffix}")
    torch.manual_seed(1)
    fresh = build("resnet8", 4).state_dict()
    torch.manual_seed(1)
    loaded = build("resnet8", 4, weights=path).state_dict()
    assert torch.equal(loaded["linear.weight"], fresh["linear.weight"])
    assert torch.equal(loaded["layer3.0.conv1.weight"], trained().state_dict()["layer3.0.conv1.weight"])
    assert "'linear'" in caplog.text


@pytest.mark.parametrize(
    "name",
    ["timm/resnet10t", "timm/mobilenetv3_small_050", "torchvision/squeezenet1_1", "torchvision/mobilenet_v3_small"],
)
def test_any_hosts_classifier_is_found(name: str, tmp_path: Path) -> None:
    source = build(name, 6)
    loaded = build(name, 3, weights=save(source.state_dict(), tmp_path / "weights.pt")).state_dict()
    same = [key for key, value in source.state_dict().items() if value.shape == loaded[key].shape]
    assert len(loaded) - len(same) == 2
    assert all(torch.equal(source.state_dict()[key], loaded[key]) for key in same)


def change(weights: dict[str, Any], name: str, value: Any) -> dict[str, Any]:
    return {key: kept for key, kept in {**weights, name: value}.items() if kept is not None}


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("layer1.0.conv1.weight", None, "missing: layer1.0.conv1.weight"),
        ("linear.bias", None, "missing: linear.bias"),
        ("extra.weight", torch.zeros(3), "unexpected: extra.weight"),
        ("conv1.weight", torch.zeros(16, 2, 3, 3), "conv1.weight is (16, 2, 3, 3), here (16, 3, 3, 3)"),
        ("linear.weight", torch.zeros(10, 32), "linear.weight is (10, 32), here (10, 64)"),
    ],
)
def test_any_other_difference_is_refused_by_name(name: str, value: Any, message: str, tmp_path: Path) -> None:
    path = save(change(trained().state_dict(), name, value), tmp_path / "weights.pt")
    model = CifarResNet(8, 10)
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(UsageError) as caught:
        load_weights(model, path, 10)
    assert message in caught.value.received
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())


class Payload:
    """An object that runs a command when it is unpickled in the ordinary way."""

    def __init__(self, *call: Any):
        self.call = call

    def __reduce__(self) -> tuple[Any, ...]:
        return self.call[0], self.call[1:]


def payloads(target: Path) -> list[Any]:
    import builtins
    import os
    import subprocess

    write = f"open({str(target)!r}, 'w').close()"
    return [
        Payload(os.system, f"touch {target}"),
        Payload(subprocess.call, ["touch", str(target)]),
        Payload(builtins.eval, write),
        Payload(builtins.exec, write),
        Payload(open, str(target), "w"),
        Payload(os.mkdir, str(target)),
        Payload(Path.touch, target),
        Payload(os.rename, __file__, str(target)),
    ]


@pytest.mark.parametrize("kind", range(8))
@pytest.mark.parametrize("writer", ["torch", "pickle"])
@pytest.mark.reliability(11)
def test_a_pickle_payload_never_runs(kind: int, writer: str, tmp_path: Path) -> None:
    target, path = tmp_path / "ran", tmp_path / "weights.pt"
    content = {"state_dict": {"conv1.weight": payloads(target)[kind]}}
    if writer == "torch":
        torch.save(content, path)
    else:
        path.write_bytes(pickle.dumps(content))
    with pytest.raises(DataError):
        build("resnet8", 10, weights=path)
    assert not target.exists()


@pytest.mark.parametrize(
    "content",
    [[1, 2], {}, {"a": 1}, {"state_dict": {}}, torch.zeros(3), {"state_dict": {"a": torch.zeros(1), "b": "text"}}],
)
def test_anything_but_tensors_is_refused(content: Any, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="dictionary of tensors"):
        read_weights(save(content, tmp_path / "weights.pt"))


@pytest.mark.parametrize("suffix", [".safetensors", ".pt"])
@pytest.mark.reliability(11)
def test_damaged_files_give_only_our_error(suffix: str, tmp_path: Path) -> None:
    path = save({"a": torch.arange(6.0), "b": torch.ones(2, 2)}, tmp_path / f"weights{suffix}")
    whole = path.read_bytes()
    generator = torch.Generator().manual_seed(0)
    refused = 0
    for _ in range(300):
        position, byte = (int(torch.randint(high, (), generator=generator)) for high in (len(whole), 256))
        damaged = bytearray(whole[: position + 1] if byte % 4 == 0 else whole)
        damaged[position] = byte
        path.write_bytes(damaged)
        try:
            read_weights(path)
        except FoveateError:
            refused += 1
    assert refused > 50


@pytest.mark.parametrize("name", ["missing.pt", "folder.pt", "notes.txt", "weights.h5"])
def test_a_path_that_cannot_be_weights_is_refused(name: str, tmp_path: Path) -> None:
    (tmp_path / "folder.pt").mkdir()
    (tmp_path / "notes.txt").write_text("no weights")
    with pytest.raises(UsageError, match="local file of weights"):
        build("resnet8", 10, weights=tmp_path / name)


def test_plain_weights_for_a_host_with_attention_blame_the_host(tmp_path: Path) -> None:
    plain = save(YOLOv4Tiny(2).state_dict(), tmp_path / "plain.safetensors")
    with pytest.raises(UsageError) as error:
        load_detector(YOLOv4Tiny(2, attention="eca"), plain)
    assert error.value.received.startswith("a model with attention at sites.feat1, sites.feat2, sites.up, and ")
    assert "attach afterwards" in error.value.do


@pytest.mark.parametrize(
    ("theirs", "ours", "message"),
    [
        (("se", {}), ("channel", {}), "mechanism 'se', here 'channel'"),
        (("cbam", {}), ("cbam", {"order": "spatial-channel"}), "'order': 'spatial-channel'"),
        (("coordinate", {"activation": "relu"}), ("coordinate", {}), "'activation': 'relu'"),
    ],
    ids=str,
)
def test_attention_of_the_same_shapes_is_distinguished_by_the_metadata(
    theirs: Any, ours: Any, message: str, tmp_path: Path
) -> None:
    def dressed(kind: tuple[str, dict[str, Any]]) -> nn.Module:
        model = trained()
        attach(model, kind[0], example=(1, 3, 32, 32), **kind[1])
        return model

    model, path = dressed(ours), tmp_path / "theirs.safetensors"
    before = copy.deepcopy(model.state_dict())
    save_weights(dressed(theirs), path)
    with pytest.raises(UsageError, match=r"attention at layer1\.0\.bn2 has ") as error:
        load_weights(model, path, 10)
    assert message in error.value.received
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    save_weights(dressed(ours), path)
    assert load_weights(model, path, 10) == ()


def test_a_file_that_does_not_say_what_its_attention_is_loads_by_names_and_shapes(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    model, other = YOLOv4Tiny(2, attention="eca"), YOLOv4Tiny(2, attention={"feat1": "se", "feat2": "eca", "up": "eca"})
    path = save(model.state_dict(), tmp_path / "silent.safetensors")
    assert load_detector(model, path) == ()
    assert "does not say what its attention is" in caplog.text
    with pytest.raises(UsageError, match=r"at sites\.feat1 is of another kind .*: conv\.weight is .*, here absent"):
        load_detector(other, path)


@pytest.mark.parametrize("words", ["", "[", "{}", "[3]", '{"sites": 3}', "[" * 100_000])
def test_damaged_metadata_about_attention_are_refused(words: str, tmp_path: Path) -> None:
    save_file(trained().state_dict(), tmp_path / "a.safetensors", {"foveate": words})
    with pytest.raises(DataError, match=r"a\.safetensors"):
        load_weights(trained(), tmp_path / "a.safetensors", 10)
