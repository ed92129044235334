"""Darknet files: a written file can be read, and a wrong file does not change a model."""

import logging
import math
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as functional
from torch import Tensor, nn

from foveate.errors import DataError, FoveateError, UsageError
from foveate.models import YOLOv4Tiny, darknet_arrays, load_darknet, save_darknet, set_darknet_arrays
from foveate.models.darknet import Loaded
from foveate.models.darknet_file import read
from foveate.models.detectors import load_detector, trained_anchors
from foveate.models.yolov4_tiny_layers import head_outputs, table
from last_layers import put_to_sleep
from models.test_yolov4_tiny import close, images, run, same, settled

CLASSES = 4
ONE_OUTPUT = 4 * (513 + 257)  # bytes that one more output per head adds to a file


@pytest.fixture(scope="module")
def source() -> nn.Module:
    torch.manual_seed(0)
    return settled(YOLOv4Tiny(CLASSES))


@pytest.fixture(scope="module")
def content(source: nn.Module, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("darknet") / "source.weights"
    save_darknet(source, path, seen=123)
    return path.read_bytes()


def other(classes: int = CLASSES, **options: Any) -> nn.Module:
    torch.manual_seed(1)
    return settled(YOLOv4Tiny(classes, **options), seed=1)


def equal(one: nn.Module, two: nn.Module) -> bool:
    state = two.state_dict()
    return all(torch.equal(value, state[name]) for name, value in one.state_dict().items())


def test_a_file_of_cocos_size(tmp_path: Path) -> None:
    """A file like yolov4-tiny.weights for 80 classes: a header of 20 bytes and 6,062,814 numbers."""
    model, again, path = other(80), YOLOv4Tiny(80), tmp_path / "yolov4-tiny.weights"
    save_darknet(model, path, seen=32_012_800)
    assert path.stat().st_size == 24_251_276 == 20 + 4 * 6_062_814
    assert load_darknet(again, path) == Loaded((0, 2, 5), 32_012_800, ())
    assert equal(again, model)
    save_darknet(again, tmp_path / "b.weights", seen=32_012_800)
    assert (tmp_path / "b.weights").read_bytes() == path.read_bytes()


@pytest.mark.parametrize(("version", "seen", "header"), [(1, 7, "<3ii"), (2, 1 << 40, "<3iq")])
def test_round_trip(source: nn.Module, tmp_path: Path, version: int, seen: int, header: str) -> None:
    path, model = tmp_path / "a.weights", other()
    save_darknet(source, path, seen=seen, version=version)
    major, minor, _, count = struct.unpack_from(header, path.read_bytes())
    assert (10 * major + minor, count) == (version, seen)
    loaded = load_darknet(model, path)
    assert (loaded.version[:2], loaded.seen, loaded.kept) == ((0, version), seen, ())
    assert equal(model, source)
    assert same(run(model, images()), run(source, images()))
    save_darknet(model, tmp_path / "b.weights", seen=seen, version=version)
    assert path.read_bytes() == (tmp_path / "b.weights").read_bytes()


# yolov4-tiny.cfg of AlexeyAB/darknet, one line per stage: convolution filters/size/stride, g route with groups=2 and
# group_id=1, r route, m maxpool, u upsample, l linear convolution, y yolo.
CFG = """
c32/3/2 c64/3/2 c64/3/1  g c32/3/1  c32/3/1  r-1,-2 c64/1/1  r-6,-1 m
                c128/3/1 g c64/3/1  c64/3/1  r-1,-2 c128/1/1 r-6,-1 m
                c256/3/1 g c128/3/1 c128/3/1 r-1,-2 c256/1/1 r-6,-1 m
c512/3/1 c256/1/1 c512/3/1 l27/1/1 y
r-4 c128/1/1 u r-1,23 c256/3/1 l27/1/1 y
"""


def by_the_cfg(numbers: Tensor, x: Tensor) -> Iterator[Tensor]:
    """The network as Darknet reads it: layer by layer, with the weights in one sequence."""

    def take(*shape: int) -> Tensor:
        nonlocal numbers
        count = math.prod(shape)
        taken, numbers = numbers[:count].view(shape), numbers[count:]
        return taken

    done: list[Tensor] = []
    for word in CFG.split():
        kind, rest = word[0], word[1:]
        if kind in "cl":
            filters, size, stride = map(int, rest.split("/"))
            bias, *norm = (take(filters, 1, 1) for _ in range(4 if kind == "c" else 1))
            x = functional.conv2d(x, take(filters, x.shape[1], size, size), stride=stride, padding=size // 2)
            if norm:
                scale, mean, variance = norm
                x = (x - mean) / (variance + 1e-5).sqrt() * scale
            x = x + bias
            x = torch.where(x > 0, x, 0.1 * x) if norm else x
        elif kind == "g":
            x = x[:, x.shape[1] // 2 :]
        elif kind == "r":
            x = torch.cat([done[int(index)] for index in rest.split(",")], 1)
        elif kind == "m":
            x = functional.max_pool2d(x, 2, 2)
        elif kind == "u":
            x = x.repeat_interleave(2, 2).repeat_interleave(2, 3)
        else:
            yield x
        done.append(x)
    assert not numbers.numel()


def test_a_file_run_as_the_cfg_says(content: bytes, source: nn.Module) -> None:
    numbers = torch.from_numpy(np.frombuffer(content, "<f4", offset=20).copy())
    close(list(by_the_cfg(numbers, images())), run(source, images()))


def test_the_order_is_darknets(source: Any, content: bytes) -> None:
    """Beta, gamma, mean, variance, then the kernel; the coarse head is in the middle, bias first."""
    numbers = np.frombuffer(content, "<f4", offset=20)
    norm, kernel = source.stem1.norm, source.stem1.conv.weight
    first = [norm.bias, norm.weight, norm.running_mean, norm.running_var, kernel]
    np.testing.assert_array_equal(
        numbers[: 4 * 32 + 864], np.concatenate([value.detach().numpy().ravel() for value in first])
    )
    after = sum(np.prod(shape) for conv in table((27, 27))[-3:] for shape in conv.shapes.values())
    place = numbers.size - int(after) - 27 * 513
    np.testing.assert_array_equal(numbers[place : place + 27], source.coarse_head.bias.detach().numpy())
    np.testing.assert_array_equal(numbers[-27 * 256 :], source.fine_head.weight.detach().numpy().ravel())


LENGTHS = [0, 3, 11, 12, 15, 16, 19, 20, 24, 1_000_000]
CHANGES = [
    -1,
    1,
    -4,
    4,
    -8,
    8,
    -ONE_OUTPUT,
    ONE_OUTPUT,
    -9 * ONE_OUTPUT,
    9 * ONE_OUTPUT,
    -26 * ONE_OUTPUT,
    2000 * ONE_OUTPUT,
]


@pytest.fixture(scope="module")
def target() -> nn.Module:
    return other()


def refused(model: nn.Module, path: Path, said: str) -> None:
    """The file is refused, and the model is unchanged."""
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(DataError, match=said):
        load_darknet(model, path)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


@pytest.mark.parametrize("length", [*LENGTHS, *(f"{change:+}" for change in CHANGES)])
@pytest.mark.parametrize("filling", ["zeros", "itself"])
def test_a_file_of_another_length_is_refused(
    content: bytes, target: nn.Module, tmp_path: Path, length: int | str, filling: str
) -> None:
    """Some lengths are those of files for other classes; then the numbers show that the file is wrong."""
    size = len(content) + int(length) if isinstance(length, str) else length
    more = bytes(len(content)) if filling == "zeros" else content[20:]
    (tmp_path / "wrong.weights").write_bytes((content + more)[:size])
    refused(target, tmp_path / "wrong.weights", rf"(?s)Expected {len(content)} bytes.*with {size} bytes")


def corrupted(content: bytes, place: int, value: float) -> bytes:
    return content[:place] + struct.pack("<f", value) + content[place + 4 :]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda c: corrupted(c, 20 + 4 * 96, -1e-3), "negative variances at 'stem1'"),
        (lambda c: corrupted(c, len(c) - 4, float("nan")), "'fine_head' that are not finite"),
        (lambda c: corrupted(c, 2_000_000, float("inf")), "not finite"),
        (lambda c: struct.pack("<3i", 2000, 0, 0) + c[12:], "which starts with 2000.0.0"),
        (lambda c: b"PK\x03\x04" + c[4:], "first numbers are a version"),
        (lambda c: struct.pack("<3i", 0, 1, 0) + c[12:], "bytes"),
        (lambda c: c[:20] + bytes(len(c) - 20), "nothing but zeros"),
    ],
)
def test_a_damaged_file_is_refused(content: bytes, target: nn.Module, tmp_path: Path, change: Any, said: str) -> None:
    (tmp_path / "wrong.weights").write_bytes(change(content))
    refused(target, tmp_path / "wrong.weights", said)


def test_a_file_that_ends_after_a_layer(tmp_path: Path, caplog: Any) -> None:
    """A file like yolov4-tiny.conv.29, of 19,789,716 bytes: everything before the first head."""
    source, model, fresh, path = other(80), YOLOv4Tiny(3), YOLOv4Tiny(3), tmp_path / "yolov4-tiny.conv.29"
    fresh.load_state_dict(model.state_dict())
    save_darknet(source, path)
    path.write_bytes(path.read_bytes()[:19_789_716])
    missing = ("coarse_head", "lateral", "fine", "fine_head")
    assert load_detector(model, path) == missing
    said = f"yolov4-tiny.conv.29 ends after 'coarse': 17 of 21 convolutions were loaded, not {', '.join(missing)}"
    assert said in caplog.text
    ours, theirs, before = (darknet_arrays(each) for each in (model, source, fresh))
    for conv, named in ours.items():
        want = before if conv in missing else theirs
        assert all(np.array_equal(array, want[conv][name]) for name, array in named.items())
    assert trained_anchors(path, 80) is None  # no head, no anchors


@pytest.mark.parametrize(("layers", "last"), [(1, "stem1"), (16, "p5"), (18, "coarse_head"), (20, "fine")])
def test_a_file_may_end_after_any_layer(
    content: bytes, target: nn.Module, tmp_path: Path, caplog: Any, layers: int, last: str
) -> None:
    rows = table((27, 27))
    size = 20 + 4 * sum(math.prod(shape) for conv in rows[:layers] for shape in conv.shapes.values())
    (tmp_path / "a.weights").write_bytes(content[:size])
    assert load_darknet(other(), tmp_path / "a.weights").kept == tuple(conv.name for conv in rows[layers:])
    assert f"ends after {last!r}" in caplog.text
    (tmp_path / "a.weights").write_bytes(content[: size + 8])
    following = rows[layers].name
    refused(target, tmp_path / "a.weights", f"short of the end of {following!r}, convolution {layers + 1} of 21")
    refused(target, tmp_path / "a.weights", "the file is cut: get it again")


def test_weights_for_grey_images_and_for_rgb(source: nn.Module, content: bytes, tmp_path: Path, caplog: Any) -> None:
    """A grey image gives what it gives as RGB; weights for grey images see the mean of the channels."""
    (tmp_path / "rgb.weights").write_bytes(content)
    grey, back, x = other(channels=1), other(), images()
    load_darknet(grey, tmp_path / "rgb.weights")
    assert "has a first convolution for 3 channels, which was fitted to 1" in caplog.text
    mean = x.mean(1, keepdim=True)
    close(run(grey, mean), run(source, mean.expand(-1, 3, -1, -1)))
    save_darknet(grey, tmp_path / "grey.weights")
    assert len(content) - (tmp_path / "grey.weights").stat().st_size == 2 * 4 * 32 * 9
    assert load_darknet(back, tmp_path / "grey.weights").kept == ()
    close(run(back, x), run(grey, mean))
    again = other(channels=1)
    load_darknet(again, tmp_path / "grey.weights")
    assert equal(again, grey)
    assert load_darknet(other(3, channels=1), tmp_path / "rgb.weights").kept == ("coarse_head", "fine_head")
    with pytest.raises(UsageError, match=r"first convolution of 5 channels, or of one(?s:.*)first convolution reads 3"):
        load_darknet(other(channels=5), tmp_path / "rgb.weights")
    with pytest.raises(UsageError, match=r"images \(N, 1, H, W\)(?s:.*)channels=3 RGB"):
        grey(x)


@pytest.mark.parametrize("classes", [1, 3, 80])
def test_other_classes_leave_the_heads(
    source: nn.Module, content: bytes, tmp_path: Path, caplog: Any, classes: int
) -> None:
    path, model, fresh = tmp_path / "a.weights", other(classes), other(classes)
    path.write_bytes(content)
    with caplog.at_level(logging.INFO, logger="foveate"):
        assert load_darknet(model, path).kept == ("coarse_head", "fine_head")
    assert f"coarse_head 27 outputs, here {3 * (5 + classes)}" in caplog.text
    ours, theirs, before = (darknet_arrays(each) for each in (model, source, fresh))
    for conv, named in ours.items():
        want = before if conv.endswith("head") else theirs
        assert all(np.array_equal(array, want[conv][name]) for name, array in named.items())


def test_other_numbers_of_anchors_leave_the_heads(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "a.weights").write_bytes(content)
    assert load_darknet(other(1, anchors_mask=[[3, 4, 5, 2], [0, 1, 2, 3]]), tmp_path / "a.weights").kept


def test_attention_stays_as_it_is(source: nn.Module, content: bytes, tmp_path: Path) -> None:
    (tmp_path / "a.weights").write_bytes(content)
    model = other(attention="cbam")
    put_to_sleep(model)
    attention = {name: value.clone() for name, value in model.state_dict().items() if "foveate" in name}
    load_darknet(model, tmp_path / "a.weights")
    assert all(torch.equal(value, model.state_dict()[name]) for name, value in attention.items())
    assert same(run(model, images()), run(source, images()))  # COCO's weights stay valid under the identity start
    save_darknet(model, tmp_path / "b.weights", seen=123)
    assert (tmp_path / "b.weights").read_bytes() == content


def test_a_model_of_another_type_and_a_wrapped_one(source: nn.Module, tmp_path: Path) -> None:
    save_darknet(torch.compile(source, backend="eager"), tmp_path / "a.weights")
    model = other().to(torch.bfloat16)
    load_darknet(model, tmp_path / "a.weights")
    assert equal(model, other().to(torch.bfloat16)) is False
    state = source.state_dict()
    assert all(torch.equal(value, state[name].to(value.dtype)) for name, value in model.state_dict().items())


def test_arrays_there_and_back(source: nn.Module) -> None:
    model, arrays = other(), darknet_arrays(source)
    set_darknet_arrays(model, arrays)
    assert equal(model, source)
    arrays["stem1"]["beta"] += 1  # a copy
    assert equal(model, source)


NOTHING: Any = 3


@pytest.mark.parametrize(
    ("wrong", "kind", "said"),
    [
        (lambda folder: load_darknet(other(), folder / "absent.weights"), UsageError, "which is not a file"),
        (lambda folder: load_darknet(other(), folder), UsageError, "which is not a file"),
        (lambda folder: load_darknet(nn.ReLU(), folder), UsageError, "YOLOv4Tiny"),
        (lambda folder: save_darknet(NOTHING, folder / "a.weights"), UsageError, "a int"),
        (lambda folder: save_darknet(other(), folder / "a.weights", version=3), UsageError, "version 1 or 2"),
        (
            lambda folder: save_darknet(other(), folder / "a.weights", seen=1 << 31, version=1),
            UsageError,
            "version 1 can hold",
        ),
        (lambda folder: save_darknet(other(), folder / "a.weights", seen=-1), UsageError, "seen"),
        (lambda folder: set_darknet_arrays(other(), darknet_arrays(other(5))), UsageError, r"coarse_head bias \(27,\)"),
        (lambda folder: set_darknet_arrays(other(), {}), UsageError, "missing"),
    ],
)
def test_bad_input(wrong: Any, kind: type[FoveateError], said: str, tmp_path: Path) -> None:
    with pytest.raises(kind, match=said):
        wrong(tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_file_is_read_with_only_a_table(source: nn.Module, content: bytes, tmp_path: Path) -> None:
    (tmp_path / "a.weights").write_bytes(content)
    weights = read(tmp_path / "a.weights", table(head_outputs(((3, 4, 5), (1, 2, 3)), CLASSES)))
    want = darknet_arrays(source)
    assert list(weights.arrays) == list(want)
    assert all(
        np.array_equal(array, want[conv][name])
        for conv, named in weights.arrays.items()
        for name, array in named.items()
    )
