"""The explorer in a real browser: choose, fade, compare, keyboard, hostile names, sizes."""

import base64
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from foveate.gates import explorer
from foveate.gates.encoded import packed
from foveate.gates.explorer import cells_for, explorer_data, explorer_page
from foveate.gates.layers import layers
from foveate.gates.maps import EXTREMES
from foveate.gates.measures import MEASURES
from report.test_hostile import PAYLOADS, SHAPE

CLASSES = ["cat", "dog"]


def maps_of(
    n: int = 3, sites: int = 2, cells: int = 7, channels: int = 16, side: int = 32, cam: bool = False, seed: int = 0
) -> dict[str, Any]:
    """Return maps as `capture` makes them, of random gates."""
    rng = np.random.default_rng(seed)
    numbers = np.tile(np.array([0.5, 0.25, 0.9, np.nan], np.float32), (n, 1))
    assert numbers.shape[1] == len(MEASURES)
    found: dict[str, Any] = {
        "images": np.random.default_rng(9).integers(0, 256, (n, side, side, 3), np.uint8),
        "labels": np.zeros(n, int),
        "predictions": np.arange(n) % 2,
        "boxes": np.tile(np.array([4, 4, 20, 20], np.float32), (n, 1, 1)),
    }
    for k in range(sites):
        site = f"layer{k + 1}"
        found[f"gate/{site}/spatial"] = rng.uniform(0, 2, (n, cells, cells)).astype(np.float32)
        found[f"gate/{site}/spatial 1"] = rng.uniform(0, 1, (n, cells, cells)).astype(np.float32)
        found[f"channel/{site}/channel"] = gates = rng.uniform(0, 2, (n, channels)).astype(np.float32)
        order = np.argsort(-gates, 1)
        found[f"extremes/{site}/channel"] = np.concatenate(
            [order[:, :EXTREMES], order[:, ::-1][:, :EXTREMES]], 1
        ).astype(float)
        found[f"features/{site}/channel"] = rng.normal(size=(n, 2 * EXTREMES, cells, cells)).astype(np.float32)
        found |= {f"numbers/{site}/spatial": numbers, f"numbers/{site}/channel": numbers}
        found[f"dead/{site}/spatial"] = np.array("the same for every image" if k else "")
    if cam:
        found |= {"cam/best box": rng.uniform(0, 3, (n, 4, 4)).astype(np.float32), "cam_layer": np.array("layer4")}
        found |= {"cam/dog": found["cam/best box"][::-1], "cam_numbers/dog": numbers}
    return found


@pytest.fixture(scope="module")
def page(browser: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """One page for all tests; messages and requests that it should not make are complaints."""
    path = tmp_path_factory.mktemp("explorer") / "explorer.html"
    channels_only = {name: array for name, array in maps_of(seed=2).items() if not name.startswith("gate/")}
    arms = [("CBAM", maps_of(cam=True)), ("Other", maps_of(seed=1)), ("SE", channels_only)]
    path.write_text(explorer_page(arms, ["a.jpg", "b.jpg", "c.jpg"], CLASSES, "Where it looks"), encoding="utf-8")
    sheet = browser.new_page(viewport={"width": 1280, "height": 900})
    sheet.complaints, sheet.arms = [], arms
    reads = "Canvas2D: Multiple readback"  # by these tests, which look at what is drawn
    sheet.on("console", lambda one: sheet.complaints.append(one.text) if not one.text.startswith(reads) else 0)
    sheet.on("pageerror", lambda error: sheet.complaints.append(str(error)))
    sheet.on(
        "request",
        lambda request: sheet.complaints.append(request.url) if not request.url.startswith(("file:", "data:")) else 0,
    )
    sheet.address = path.as_uri()
    yield sheet
    sheet.close()


@pytest.fixture
def sheet(page: Any) -> Iterator[Any]:
    """The page, loaded anew."""
    page.goto(page.address)
    yield page
    assert page.complaints == []


def value(sheet: Any, k: int = 0) -> float:
    """Return the value at the mark of a pane."""
    return float(re.findall(r"[\d.]+$", sheet.locator(".value").nth(k).inner_text())[0])


def pixels(sheet: Any, k: int = 0) -> list[int]:
    return (
        sheet.locator(".veil")
        .nth(k)
        .evaluate("""(canvas) => {
        return [...canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data];
    }""")
    )


@pytest.mark.browser
def test_a_person_chooses_picture_arm_layer_and_head(sheet: Any) -> None:
    seen = [pixels(sheet)]
    for name, label in (("picture", "2. b.jpg"), ("layer", "layer2"), ("head", "spatial 1"), ("arm", "Other")):
        sheet.locator(f"#{name}").select_option(label=label)
        seen.append(pixels(sheet))
    assert len({tuple(one) for one in seen}) == 5
    assert sheet.locator(".what").first.inner_text() == "layer2 · spatial 1"  # kept where the other arm has it
    assert sheet.locator(".words").first.inner_text() == "cat, predicted as dog"
    sheet.locator("#head").select_option(label="spatial")
    assert sheet.locator(".numbers").first.inner_text() == (
        "inside 50 %, area 25 % · entropy 0.90 · dead: the same for every image"
    )
    assert "Layer layer2, spatial. inside 50 %" in sheet.locator("#status").inner_text()
    sheet.locator("#arm").select_option(label="SE")
    assert not sheet.locator(".veil").first.is_visible()
    assert sheet.locator("#head option").all_inner_texts() == ["channels only"]
    assert sheet.locator(".value").first.inner_text() == "Weighs channels only"
    sheet.locator("#strip button").nth(2).click()
    assert sheet.locator("#picture").input_value() == "2"
    assert sheet.locator("#strip button").nth(2).get_attribute("aria-pressed") == "true"


@pytest.mark.browser
def test_the_overlay_fades_and_the_boxes_go(sheet: Any) -> None:
    opacity = "getComputedStyle(document.querySelector('.veil')).opacity"
    assert sheet.evaluate(opacity) == "0.6"
    sheet.locator("#fade").fill("15")
    assert sheet.evaluate(opacity) == "0.15"
    assert sheet.locator(".outline path").first.get_attribute("d") == "M4 4H20V20H4Z"
    sheet.locator("#boxes").uncheck()
    assert not sheet.locator(".outline").first.is_visible()


@pytest.mark.browser
def test_two_arms_lie_side_by_side_with_linked_hovering(sheet: Any) -> None:
    assert not sheet.locator(".pane").nth(1).is_visible()
    sheet.locator("#other").select_option(label="Other")
    left, right = (sheet.locator(".frame").nth(k).bounding_box() for k in (0, 1))
    assert left["x"] + left["width"] < right["x"]
    assert left["y"] == right["y"]
    sheet.mouse.move(right["x"] + 0.9 * right["width"], right["y"] + 0.1 * right["height"])
    gates = [maps["gate/layer1/spatial"][0, 0, 6] for _, maps in sheet.arms[:2]]  # of 7 x 7 cells
    assert [value(sheet, k) for k in (0, 1)] == pytest.approx(gates, abs=0.005)
    marks = [sheet.locator(".mark").nth(k).evaluate("(mark) => mark.style.left") for k in (0, 1)]
    assert marks[0] == marks[1] == "90%"
    sheet.mouse.move(5, 5)
    assert not sheet.locator(".mark").first.is_visible()
    sheet.locator("#other").select_option(label="Grad-CAM: best box")
    assert sheet.locator(".what").nth(1).inner_text() == "Grad-CAM: best box, at layer4"
    assert sheet.locator(".pane").nth(1).locator(".numbers").inner_text() == ""
    sheet.locator("#other").select_option(label="Grad-CAM: dog")
    assert sheet.locator(".pane").nth(1).locator(".numbers").inner_text() == "inside 50 %, area 25 % · entropy 0.90"
    assert pixels(sheet, 1) != pixels(sheet, 0)
    sheet.locator("#arm").select_option(label="Other")
    assert sheet.locator("#other option").all_inner_texts() == ["nothing", "CBAM", "SE"]


@pytest.mark.browser
def test_the_arrow_keys_step_through_layers_and_pictures(sheet: Any) -> None:
    layer, picture, focused = sheet.locator("#layer"), sheet.locator("#picture"), []
    for _ in range(8):
        sheet.keyboard.press("Tab")
        focused.append(sheet.evaluate("document.activeElement.id"))
    assert focused == ["picture", "arm", "layer", "head", "other", "fade", "boxes", "stage"]
    sheet.evaluate("document.activeElement.blur()")
    for key, expected in (("ArrowRight", "1"), ("ArrowRight", "1"), ("ArrowLeft", "0")):  # the page has the focus
        sheet.keyboard.press(key)
        assert layer.input_value() == expected
    sheet.keyboard.press("ArrowDown")
    assert picture.input_value() == "0"  # the page scrolls
    sheet.locator("#stage").focus()
    sheet.keyboard.press("ArrowDown")
    assert picture.input_value() == "1"
    sheet.keyboard.press("ArrowRight")
    assert "Image 2 of 3, b.jpg. Layer layer2" in sheet.locator("#status").inner_text()
    for _ in range(30):
        sheet.keyboard.press("Shift+ArrowLeft")
    sheet.keyboard.press("Shift+ArrowUp")
    gate = sheet.arms[0][1]["gate/layer2/spatial"][1, 3, 0]
    assert value(sheet) == pytest.approx(gate, abs=0.005)
    assert sheet.locator("#status").inner_text().startswith("At the mark")
    fade = sheet.locator("#fade")
    fade.focus()
    sheet.keyboard.press("ArrowRight")
    assert (fade.input_value(), layer.input_value()) == ("61", "1")


@pytest.mark.browser
def test_channel_gates_are_sorted_bars_with_the_extreme_channels(sheet: Any) -> None:
    gates = sheet.arms[0][1]["channel/layer1/channel"][0]
    order = np.argsort(-gates)
    label = sheet.locator(".bars").first.get_attribute("aria-label")
    assert label.startswith(f"Channel gates, sorted: 16 channels, from channel {order[0]} with")
    assert f"down to channel {order[-1]} with" in label
    captions = sheet.locator(".pane").first.locator(".extremes figcaption").all_inner_texts()
    shown = [*order[:EXTREMES], *order[::-1][:EXTREMES]]
    assert [caption.partition(":")[0] for caption in captions] == list(map(str, shown))
    bars = sheet.locator(".bars").first
    heights = bars.evaluate("""(canvas) => Array.from({length: 16}, (_, i) => {
        const at = Math.floor((i + 0.4) * canvas.width / 16), line = Math.round(canvas.height / 2);
        const pixels = canvas.getContext("2d").getImageData(at, 0, 1, canvas.height).data;
        return Array.from({length: canvas.height}, (_, y) => pixels[4 * y + 3] > 0).filter(Boolean).length;
    })""")
    assert heights[0] > 90
    assert heights[-1] < 12
    box = bars.bounding_box()
    sheet.mouse.move(box["x"] + 0.01 * box["width"], box["y"] + 20)
    assert sheet.locator(".channels .numbers").first.inner_text() == f"channel {order[0]}: {gates[order[0]]:.3f}"


@pytest.mark.browser
@pytest.mark.parametrize("width", [360, 1280])
def test_it_fits_phone_and_desk_and_its_parts_have_names(sheet: Any, width: int) -> None:
    sheet.set_viewport_size({"width": width, "height": 800})
    sheet.locator("#other").select_option(label="Other")
    try:
        assert sheet.evaluate("document.documentElement.scrollWidth") <= width
        nameless = sheet.evaluate("""() => [...document.querySelectorAll("select, input, button, [role]")]
            .filter((part) => part.checkVisibility() && part.role !== "status" && !part.labels?.length)
            .filter((part) => !(part.ariaLabel || part.querySelector("img[alt]")?.alt)).map((part) => part.id)""")
        assert nameless == []
    finally:
        sheet.set_viewport_size({"width": 1280, "height": 900})


SPOKEN = ("combobox", "slider", "checkbox", "button", "img", "group", "region", "heading", "figure", "link")


@pytest.mark.browser
def test_a_screen_reader_hears_a_name_of_each_control_and_image_and_each_state(sheet: Any) -> None:
    """The accessibility tree, as Chromium gives it to screen readers."""
    sheet.locator("#other").select_option(label="Grad-CAM: best box")
    tree = [line.strip(" -':") for line in sheet.locator("body").aria_snapshot().splitlines()]
    found = {role: [line for line in tree if re.match(rf"{role}\b", line)] for role in SPOKEN}
    nameless = [line for lines in found.values() for line in lines if not re.match(r'\w+ "[^"]', line)]
    assert nameless == []
    for name in ("Image", "Arm", "Layer", "Head", "Compare with"):
        assert any(line.startswith(f'combobox "{name}"') for line in found["combobox"])
    assert found["slider"] == ['slider "Overlay": "60"']
    assert found["checkbox"] == ['checkbox "True boxes" [checked]']
    assert [line for line in found["button"] if "[pressed]" in line] == ['button "1. a.jpg" [pressed]']
    assert len(found["button"]) == 3
    images = [line.partition('"')[2].rstrip('"') for line in found["img"]]
    assert images.count("a.jpg") == 2  # in both panes
    assert any(re.match(r"CBAM, layer1 · spatial: from [\d.]+ to", name) for name in images)
    assert any(name.startswith("CBAM, Grad-CAM: best box, at layer4: from") for name in images)
    assert any(name.startswith("Channel gates, sorted: 16 channels, from channel") for name in images)
    assert sum(name.startswith("What enters the gate in channel") for name in images) == 2 * EXTREMES
    (status,) = [line for line in tree if line.startswith("status")]
    assert "Image 1 of 3, a.jpg. Layer layer1, spatial. inside 50 %" in status
    sheet.locator("#boxes").uncheck()
    sheet.locator("#strip button").nth(1).click()
    after = sheet.locator("body").aria_snapshot()
    assert 'checkbox "True boxes"\n' in after
    assert 'button "2. b.jpg" [pressed]' in after
    assert "Image 2 of 3" in after


@pytest.mark.browser
@pytest.mark.reliability(13)
def test_no_name_adds_an_element_or_attribute(page: Any, tmp_path: Path) -> None:
    """All hostile names at once, as names of images, arms, layers, heads and classes, and as the title."""

    def opened(names: list[str]) -> dict[str, Any]:
        arms = [(name, _named(name)) for name in names]
        html = explorer_page(arms, names, names, names[0], names[-1])
        (tmp_path / "page.html").write_text(html, encoding="utf-8")
        page.goto((tmp_path / "page.html").as_uri())
        page.locator("#arm").select_option(index=len(names) - 1)
        page.locator("#other").select_option(index=1)
        return page.evaluate(SHAPE)

    benign, found = opened([f"name {k}" for k in range(len(PAYLOADS))]), opened(PAYLOADS)
    assert found["shape"] == benign["shape"]
    assert found["policy"] == benign["policy"]
    assert found["hacked"] is None
    assert all(link.startswith("data:image/") for link in found["links"] if link)
    assert "unsafe" not in found["policy"]
    assert page.complaints == []
    page.goto(page.address)


def test_no_hidden_character_enters_the_page() -> None:
    name = "a\u202eb\x07"
    maps = {**_named(name), "labels": np.zeros(1, int)}
    html = explorer_page([(name, maps)], [name], [name], name, name)
    assert not re.search("\u202e|\x07|\\\\u202e|\\\\u0007", html)
    assert html.count("a\N{REPLACEMENT CHARACTER}b") > 2


def _named(name: str) -> dict[str, Any]:
    site = name[:50].replace("/", "_")
    gate = np.linspace(0, 1, 4, dtype=np.float32).reshape(1, 2, 2)
    maps = {
        f"gate/{site}/{site}": gate,
        f"channel/{site}/{site}": gate[:, 0],
        "images": np.zeros((1, 4, 4, 3), np.uint8),
    }
    return {**maps, f"dead/{site}/{site}": np.array("dead"), f"cam/{name}": gate, "cam_layer": np.array(site)}


def test_the_data_are_the_maps_to_a_255th() -> None:
    maps = maps_of(cells=20)
    (arm,) = explorer_data([("CBAM", maps)], ["a", "b", "c"], CLASSES)["arms"]
    head = arm["layers"][1]["heads"][0]
    found = np.stack([_unpacked(head, k, 400) for k in range(3)]).reshape(3, 20, 20)
    np.testing.assert_allclose(found, maps["gate/layer2/spatial"], atol=2 / 255)
    assert arm["words"] == ["cat, recognised", "cat, predicted as dog", "cat, recognised"]


def _unpacked(head: dict[str, Any], k: int, count: int) -> np.ndarray:
    levels = np.frombuffer(base64.b64decode(head["data"][k * head["step"] : (k + 1) * head["step"]]), np.uint8)
    return head["low"] + (head["high"] - head["low"]) / 255 * levels[:count]


@pytest.mark.parametrize("rows", [np.full((2, 5), 0.3), np.array([[np.nan, np.inf, 1.0]])])
def test_constant_and_broken_values_can_be_packed(rows: np.ndarray) -> None:
    found = packed(rows)
    assert found["step"] == 4 * -(-rows.shape[1] // 3)
    np.testing.assert_allclose(_unpacked(found, 0, 1), np.nan_to_num(rows[0, 0]), atol=1e-6)
    json.dumps(found, allow_nan=False)


@pytest.mark.parametrize(
    ("pictures", "sites", "maps", "features"), [(8, 4, 56, 14), (200, 16, 37, 14), (200, 150, 14, 5)]
)
def test_maps_are_as_fine_as_there_is_room(pictures: int, sites: int, maps: int, features: int) -> None:
    given: dict[str, Any] = {"images": np.zeros((pictures, 1, 1, 3), np.uint8)}
    for k in range(sites):
        given |= {f"gate/{k}/{kind}": np.broadcast_to(np.float32(1), (pictures, 56, 56)) for kind in ("row", "column")}
        given |= {
            f"channel/{k}/channel": np.ones((pictures, 8), np.float32),
            f"extremes/{k}/channel": np.zeros((pictures, 6), np.float32),
        }
        given[f"features/{k}/channel"] = np.broadcast_to(np.float32(1), (pictures, 6, 14, 14))
    assert cells_for(layers(given)) == (maps, features)
    count = pictures * sites
    assert maps == 14 or 2 * count * maps**2 <= 9_000_000
    assert maps == 56 or 2 * count * (maps + 1) ** 2 > 9_000_000


def test_maps_leave_room_for_the_gates_of_many_channels() -> None:
    """Three arms of CBAM at the blocks of ResNet-50 over 200 images: 9 million channel gates."""
    given: dict[str, Any] = {"images": np.zeros((200, 1, 1, 3), np.uint8)}
    for cells, channels, blocks in ((56, 256, 9), (28, 512, 12), (14, 1024, 18), (7, 2048, 9)):
        for site in (f"{cells}, {k}" for k in range(blocks)):
            given[f"gate/{site}/spatial"] = np.broadcast_to(np.float32(1), (200, cells, cells))
            given[f"channel/{site}/channel"] = np.broadcast_to(np.float32(1), (200, channels))
    found = layers(given)
    assert 14 <= cells_for(found)[0] < 56
    for layer in found:
        layer.channels.clear()
    assert cells_for(found)[0] == 56


def test_a_page_that_would_be_too_large_shows_some_images_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    names = [f"{k}.jpg" for k in range(40)]
    arms = [("CBAM", maps_of(40)), ("fewer", maps_of(20))]
    whole = explorer_page(arms, names, CLASSES, "Where it looks")
    assert '<p class="note">40 images, 2 arms. A gate' in whole
    monkeypatch.setattr(explorer, "MOST_BYTES", len(whole) // 2)
    page = explorer_page(arms, names, CLASSES, "Where it looks")
    data = json.loads(page.partition('id="data">')[2].partition("</script>")[0])
    shown = [image["name"] for image in data["images"]]
    assert len(whole) // 4 < len(page) <= len(whole) // 2
    assert f"{len(shown)} of 40 images, 2 arms. More would make this page too large." in page
    assert [shown[0], shown[-1], sorted(shown, key=names.index)] == ["0.jpg", "39.jpg", shown]
    assert [len(arm["words"]) for arm in data["arms"]] == [len(shown), sum(names.index(name) < 20 for name in shown)]
    expected = maps_of(40)["gate/layer2/spatial"][names.index(shown[1])]
    found = _unpacked(data["arms"][0]["layers"][1]["heads"][0], 1, 49)
    np.testing.assert_allclose(found, expected.ravel(), atol=0.01)


def test_damaged_maps_are_left_out() -> None:
    maps = maps_of()
    maps |= {
        "gate/layer1/spatial": maps["gate/layer1/spatial"][:1],
        "gate/layer3/spatial": np.zeros((3, 4, 4), int),
        "channel/layer1/channel": np.zeros((3, 4, 4)),
        "extremes/layer2/channel": maps["extremes/layer2/channel"] + 99,
        "numbers/layer2/spatial": np.zeros(3),
        "dead/layer2/spatial": np.zeros(3),
    }
    found = {layer.site: layer for layer in layers(maps)}
    assert list(found) == ["layer1", "layer2"]
    assert [head.kind for head in found["layer1"].heads] == ["spatial 1"]
    assert found["layer1"].channels == []
    second = found["layer2"]
    assert [channels.extremes for channels in second.channels] == [None]
    assert np.isnan(second.heads[0].numbers).all()
    assert second.heads[0].dead == ""


def test_the_page_loads_nothing(tmp_path: Path) -> None:
    opened: Callable[..., str] = explorer_page
    html = opened([("CBAM", maps_of())], ["a", "b", "c"], CLASSES, "Where it looks")
    assert "http" not in html.replace("http-equiv", "")
    assert "style=" not in html
    assert not re.search(r"\son\w+=", html)
    assert html.count("<script") == html.count("</script>") == 2
    assert "default-src 'none'; img-src data:;" in html.replace("&#39;", "'")
