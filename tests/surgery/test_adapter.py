"""Adapters: saved and loaded bit for bit, every changed byte detected, no code run, no partial changes."""

import hashlib
import json
import os
import pickle
import random
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors
import safetensors.torch
import torch
from torch import nn

from foveate.errors import DataError, UsageError
from foveate.normalisation import IMAGENET, Normalisation, normalisation_of, set_normalisation
from foveate.surgery import attach, detach, load_adapter, save_adapter
from foveate.surgery.core.adapter_file import BLANK, CHECKSUM, checksum_text, parse_adapter
from representatives import REPRESENTATIVES
from surgery import hosts

pytestmark = pytest.mark.filterwarnings("ignore::foveate.errors.ReductionWarning")


LITE0 = Normalisation((127 / 255,) * 3, (128 / 255,) * 3, "Lite0's")


def trained(mechanism: str = "cbam", where: Any = "residual", **options: Any) -> nn.Module:
    """Return a host whose attention has trained, with its batch norm statistics."""
    model = hosts.trained_resnet()
    attach(model, mechanism, where, example=hosts.SHAPE, **options)
    with torch.no_grad():
        for name, value in model.state_dict().items():
            if hosts.CHILD in name and value.is_floating_point():
                value.add_(0.1 * torch.rand_like(value))
    return model


@pytest.fixture
def adapter(tmp_path: Path) -> Path:
    path = tmp_path / "adapter.safetensors"
    save_adapter(trained("eca"), path)
    return path


def test_an_adapter_states_how_the_hosts_images_were_normalised(tmp_path: Path) -> None:
    model, path = trained("eca"), tmp_path / "a.safetensors"
    set_normalisation(model, LITE0)
    save_adapter(torch.compile(model, backend="eager"), path)  # pyright: ignore[reportArgumentType]
    silent, other = hosts.trained_resnet(), hosts.trained_resnet()
    load_adapter(silent, path, example=hosts.SHAPE)
    assert normalisation_of(silent) == LITE0
    set_normalisation(other, IMAGENET)
    before = {name: value.clone() for name, value in other.state_dict().items()}
    with pytest.raises(UsageError, match=r"host for images of mean 0\.498, deviation 0\.502") as caught:
        load_adapter(other, path, example=hosts.SHAPE)
    assert "mean 0.485 0.456 0.406" in caught.value.received
    assert list(other.state_dict()) == list(before)
    set_normalisation(other, LITE0)
    load_adapter(other, path, example=hosts.SHAPE)


@pytest.mark.parametrize("start", ["identity", "paper"])
@pytest.mark.parametrize("name", REPRESENTATIVES)
def test_a_loaded_adapter_computes_what_the_saved_model_did(name: str, start: Any, tmp_path: Path) -> None:
    model, x, path = trained(name, start=start), hosts.image(), tmp_path / "a.safetensors"
    saved = hosts.run(model, x)
    save_adapter(model, path)
    other = hosts.trained_resnet()
    state = torch.get_rng_state()
    plan = load_adapter(other, path, example=hosts.SHAPE)
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(hosts.run(other, x), saved)
    assert (plan.mechanism, plan.start, len(plan.sites)) == (name, start, 4)
    assert list(other.state_dict()) == list(model.state_dict())
    detach(other)
    assert torch.equal(hosts.run(other, x), hosts.run(hosts.trained_resnet(), x))


@pytest.mark.parametrize(
    "wrap", [nn.DataParallel, lambda model: torch.compile(nn.DataParallel(model), backend="eager")]
)
def test_a_wrapped_model_is_saved_as_if_it_were_bare(
    wrap: Callable[[nn.Module], nn.Module], adapter: Path, tmp_path: Path
) -> None:
    model, path = hosts.trained_resnet(), tmp_path / "a.safetensors"
    load_adapter(model, adapter, example=hosts.SHAPE)
    compiled: Any = torch.compile(model.get_submodule("layer1"), backend="eager")
    model.layer1 = compiled
    save_adapter(wrap(model), path)
    assert path.read_bytes() == adapter.read_bytes()


def test_options_and_several_mechanisms_come_back(tmp_path: Path) -> None:
    model, x, path = (
        trained("cbam", reduction=4, pools=("avg", "lse"), kernel_size=3),
        hosts.image(),
        tmp_path / "a.safetensors",
    )
    attach(model, "se", "stage", example=hosts.SHAPE, reduction=2, start="paper")
    save_adapter(model, path)
    other = hosts.trained_resnet()
    plan = load_adapter(other, path, example=hosts.SHAPE)
    assert torch.equal(hosts.run(other, x), hosts.run(model, x))
    assert plan.mechanism == "cbam + se"
    assert getattr(other.get_submodule("layer1.0.bn2"), hosts.CHILD).mechanism.pools == ("avg", "lse")


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
def test_every_precision_comes_back_exactly(dtype: torch.dtype, tmp_path: Path) -> None:
    model, path = trained("cbam").to(dtype), tmp_path / "a.safetensors"
    for name, value in model.state_dict().items():
        if value.dtype == torch.float64 and hosts.CHILD in name:
            value.mul_(1 + 1e-12)  # a change too small for float32
    save_adapter(model, path)
    other = hosts.trained_resnet().to(dtype)
    load_adapter(other, path, example=hosts.SHAPE)
    for name, value in model.state_dict().items():
        if hosts.CHILD in name:
            assert torch.equal(other.state_dict()[name], value), name


def test_weights_in_channels_last_memory_come_back(tmp_path: Path) -> None:
    model: Any = trained("cbam")
    model, path = model.to(memory_format=torch.channels_last), tmp_path / "a.safetensors"
    assert not all(value.is_contiguous() for name, value in model.state_dict().items() if hosts.CHILD in name)
    save_adapter(model, path)
    other = hosts.trained_resnet()
    load_adapter(other, path, example=hosts.SHAPE)
    assert all(torch.equal(other.state_dict()[name], value) for name, value in model.state_dict().items())


def test_bfloat16_in_a_file_is_read(adapter: Path) -> None:
    model, other = hosts.trained_resnet(), hosts.trained_resnet()
    load_adapter(model, adapter, example=hosts.SHAPE)
    forge(
        adapter, lambda file: file.update(tensors={name: value.bfloat16() for name, value in file["tensors"].items()})
    )
    load_adapter(other, adapter, example=hosts.SHAPE)
    for name, value in model.state_dict().items():
        if hosts.CHILD in name:
            assert torch.equal(other.state_dict()[name], value.bfloat16().float()), name


def test_sites_go_where_the_map_says(adapter: Path) -> None:
    sites = {f"layer{stage}.{block}.bn2": f"layer{stage}.{1 - block}.conv2" for stage in (1, 2) for block in (0, 1)}
    model, other = trained("eca"), hosts.trained_resnet()
    save_adapter(model, adapter)
    plan = load_adapter(other, adapter, sites=sites, example=hosts.SHAPE)
    assert {site.name for site in plan.sites} == set(sites.values())
    for theirs, ours in sites.items():
        one, two = (
            getattr(each.get_submodule(name), hosts.CHILD).state_dict()
            for each, name in ((model, theirs), (other, ours))
        )
        assert all(torch.equal(one[key], two[key]) for key in one)


@pytest.mark.parametrize(
    ("sites", "said"),
    [
        ({"layer1.0.bn2": "layer1.0.bn2"}, "no counterpart of 'layer1.1.bn2'"),
        (
            dict.fromkeys([f"layer{s}.{b}.bn2" for s in (1, 2) for b in (0, 1)], "layer1.0.bn2"),
            "two sites with one counterpart",
        ),
        (
            {f"layer{s}.{b}.bn2": f"layer{s}.{b}.bn9" for s in (1, 2) for b in (0, 1)},
            "runs 'layer1.0.bn9', 'layer1.1.bn9'",
        ),
        (
            {f"layer{s}.{b}.bn2": f"layer{3 - s}.{b}.bn2" for s in (1, 2) for b in (0, 1)},
            "16 channels at 'layer1.0.bn2'",
        ),
        (["layer1.0.bn2"], "sites as a mapping"),
    ],
)
def test_a_map_that_does_not_fit_is_refused(sites: Any, said: str, adapter: Path) -> None:
    model = hosts.ResNet()
    seen = hosts.anatomy(model)
    with pytest.raises(UsageError, match=said):
        load_adapter(model, adapter, sites=sites, example=hosts.SHAPE)
    assert hosts.anatomy(model) == seen


def test_the_file_is_small_plain_safetensors_and_the_same_each_time(adapter: Path, tmp_path: Path) -> None:
    with safetensors.safe_open(adapter, "pt") as file:
        assert set(file.metadata()) == {"foveate"}
        assert all(name.startswith("layer") for name in list(file.keys()))
    torch.manual_seed(0)
    again = tmp_path / "again.safetensors"
    model = hosts.trained_resnet()
    load_adapter(model, adapter, example=hosts.SHAPE)
    save_adapter(model, again)
    assert again.read_bytes() == adapter.read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["adapter.safetensors", "again.safetensors"]


def refuses(path: Path, error: type[Exception] = DataError) -> None:
    """Check that loading raises our error with the file's name, and does not change the model."""
    model = hosts.ResNet()
    seen, state = hosts.anatomy(model), torch.get_rng_state()
    with pytest.raises(error, match=path.name if error is DataError else None):
        load_adapter(model, path, example=hosts.SHAPE)
    assert hosts.anatomy(model) == seen
    assert torch.equal(torch.get_rng_state(), state)


def damage(text: bytes, chance: random.Random) -> bytes:
    """Change a file in a way that disks, networks and editors do."""
    place = chance.randrange(len(text))
    kind = chance.randrange(8)
    if kind <= 2:
        return text[:place] + bytes([text[place] ^ 1 << chance.randrange(8)]) + text[place + 1 :]
    if kind == 3:
        return text[:place]
    if kind == 4:
        return text[:place] + chance.randbytes(chance.randint(1, 9)) + text[place:]
    if kind == 5:
        return text[:place] + text[place + chance.randint(1, 9) :]
    if kind == 6:
        header = 8 + int.from_bytes(text[:8], "little")
        place = chance.randrange(header)
        return text[:place] + chance.choice(b'0aA {}[]":,\\').to_bytes() + text[place + 1 :]
    return chance.randbytes(8) + text[8:] if chance.random() < 0.5 else text + b"\0"


def is_refused(text: bytes) -> bool:
    try:
        parse_adapter(text, Path("mutant"))
    except DataError as error:
        return "mutant" in error.received
    return False


def every_change_is_detected(adapter: Path, count: int) -> None:
    text, chance, changed = adapter.read_bytes(), random.Random(0), 0
    while changed < count:
        damaged = damage(text, chance)
        if damaged != text:
            changed += 1
            assert is_refused(damaged), damaged


@pytest.mark.reliability(11)
def test_2000_damaged_files(adapter: Path, tried: Any) -> None:
    every_change_is_detected(adapter, 2_000)
    tried(2_000)


@pytest.mark.slow
@pytest.mark.reliability(11)
def test_20000_damaged_files(adapter: Path, tried: Any) -> None:
    every_change_is_detected(adapter, 20_000)
    tried(20_000)


@pytest.mark.reliability(11)
def test_every_single_byte_counts(adapter: Path, tried: Any) -> None:
    text = bytearray(adapter.read_bytes())
    for place in range(len(text)):
        text[place] ^= 32  # turns lower-case letters into capitals, also in the checksum
        assert is_refused(bytes(text)), place
        text[place] ^= 32
    assert not is_refused(bytes(text))
    tried(len(text))


def test_a_damaged_file_changes_nothing(adapter: Path) -> None:
    text = adapter.read_bytes()
    for damaged in (b"", text[:7], text[:-1], text + text, b"\xff" * 8 + text[8:], text.replace(b"eca", b"ecb")):
        adapter.write_bytes(damaged)
        refuses(adapter)


def test_no_file_and_no_adapter_are_refused(tmp_path: Path) -> None:
    refuses(tmp_path / "missing.safetensors")
    refuses(tmp_path)
    plain = tmp_path / "plain.safetensors"
    safetensors.torch.save_file({"a": torch.zeros(1)}, plain, {"foveate": "{}"})
    refuses(plain)


class Payload:
    def __init__(self, act: Callable[..., Any], *args: Any):
        self.call = act, args

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return self.call


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize("kind", ["mkdir", "open", "exec", "torch.save", "zip in place"])
@pytest.mark.reliability(11)
def test_pickles_never_run(kind: str, protocol: int, tmp_path: Path) -> None:
    trap, path = tmp_path / "trap", tmp_path / "a.safetensors"
    payloads = {"open": Payload(open, str(trap), "w"), "exec": Payload(exec, f"import os; os.mkdir({str(trap)!r})")}
    payload = payloads.get(kind, Payload(os.mkdir, str(trap)))
    if kind == "torch.save":
        torch.save(payload, path, pickle_protocol=max(protocol, 2))
    else:
        text = pickle.dumps(payload, protocol)
        path.write_bytes(len(text).to_bytes(8, "little") + text if kind == "zip in place" else text)
    refuses(path)
    assert not trap.exists()


def forge(path: Path, change: Callable[[dict], Any]) -> None:
    """Write a file with a right checksum and wrong content."""
    with safetensors.safe_open(path, "pt") as file:
        head = {**json.loads(file.metadata()["foveate"]), "sha256": BLANK}
        tensors = {name: file.get_tensor(name) for name in list(file.keys())}
    whole = {"head": head, "tensors": tensors}
    change(whole)
    text = safetensors.torch.save(whole["tensors"], {"foveate": json.dumps(whole["head"], separators=(",", ":"))})
    path.write_bytes(CHECKSUM.sub(checksum_text(hashlib.sha256(text).hexdigest()), text, count=1))


FORGED: list[tuple[str, Callable[[dict], Any], type[Exception]]] = [
    ("schema", lambda f: f["head"].update(schema=99), DataError),
    ("no sites", lambda f: f["head"].update(sites=[]), DataError),
    ("a site twice", lambda f: f["head"]["sites"].append(f["head"]["sites"][0]), DataError),
    ("sites of another kind", lambda f: f["head"].update(sites={"a": 1}), DataError),
    ("a site without options", lambda f: f["head"]["sites"][0].pop("options"), DataError),
    ("a weight missing", lambda f: f["tensors"].popitem(), DataError),
    ("a weight too many", lambda f: f["tensors"].update(more=torch.zeros(1)), DataError),
    (
        "a weight of another shape",
        lambda f: f["tensors"].update({next(iter(f["tensors"])): torch.zeros(3, 3)}),
        DataError,
    ),
    ("an unknown mechanism", lambda f: f["head"]["sites"][0].update(mechanism="os.system"), UsageError),
    ("a name that would be imported", lambda f: f["head"]["sites"][0].update(mechanism="this:s"), UsageError),
    ("a class that is not imported", lambda f: f["head"]["sites"][0].update(place="this:s"), UsageError),
    (
        "a class that is no mechanism",
        lambda f: f["head"]["sites"][0].update(place="os:system"),
        UsageError,
    ),
    ("an unknown option", lambda f: f["head"]["sites"][0].update(options={"x": 1}), UsageError),
    ("a site that is not there", lambda f: f["head"]["sites"][0].update(name="layer9"), UsageError),
    ("a site that is a container", lambda f: f["head"]["sites"][0].update(name="layer1"), UsageError),
    ("another width", lambda f: f["head"]["sites"][0].update(channels=99), UsageError),
]


@pytest.mark.parametrize(("change", "error"), [pytest.param(change, error, id=name) for name, change, error in FORGED])
def test_what_a_right_checksum_hides_is_refused(
    change: Callable[[dict], Any], error: type[Exception], adapter: Path
) -> None:
    forge(adapter, change)
    refuses(adapter, error)
    assert "this" not in sys.modules  # nothing that a file names is imported


def test_another_host_is_refused(adapter: Path) -> None:
    for host in (hosts.Plain(), hosts.ResNet(width=4)):
        seen = hosts.anatomy(host)
        with pytest.raises(UsageError, match="load the adapter into its own host"):
            load_adapter(host, adapter, example=hosts.SHAPE)
        assert hosts.anatomy(host) == seen


def test_a_host_with_attention_is_refused(adapter: Path) -> None:
    model = trained("eca")
    seen = hosts.anatomy(model)
    with pytest.raises(UsageError, match="detach"):
        load_adapter(model, adapter, example=hosts.SHAPE)
    assert hosts.anatomy(model) == seen


def test_what_cannot_be_saved_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="attach"):
        save_adapter(hosts.ResNet(), tmp_path / "a")
    control = hosts.ResNet()
    attach(control, lambda channels: nn.Conv2d(channels, channels, 1), example=hosts.SHAPE)
    with pytest.raises(UsageError, match="state_dict"):
        save_adapter(control, tmp_path / "a")
    with pytest.raises(DataError, match="nowhere"):
        save_adapter(trained(), tmp_path / "nowhere" / "a")
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_keeps_the_last_good_file(adapter: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = adapter.read_bytes()

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(DataError, match="No space left"):
        save_adapter(trained("se"), adapter)
    assert adapter.read_bytes() == text
    assert list(adapter.parent.iterdir()) == [adapter]
