import csv
import json
import re
from collections.abc import Callable, Iterator
from html import unescape
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import numpy as np
import pytest

from foveate.errors import DataError
from foveate.report.page import build_report
from foveate.report.view import FILES
from report import records

CASES: dict[str, Callable[[], dict[str, Any]]] = {
    "usual": records.results,
    "one seed": records.one_seed,
    "failures": records.with_failures,
    "detection": records.detection,
    "one epoch": records.one_epoch,
    "collapsed": records.collapsed,
    "two arms": lambda: records.results(arms=2, seeds=2, epochs=1),
    "baseline only": lambda: records.results(arms=1, seeds=2),
    "fifteen arms": lambda: records.results(arms=15, seeds=3, epochs=4),
    "long names": lambda: _renamed("AVeryLongNameWithoutAnyPlaceToBreakIt" * 6),
    "bare": lambda: {"schema": 2, "arms": []},
}


def _renamed(name: str) -> dict[str, Any]:
    record = records.results(arms=4, seeds=2, epochs=2)
    for arm in record["arms"]:
        arm["label"] = name
    record["data"]["name"] = record["model"]["name"] = record["verdict"]["headline"] = name
    record["data"]["classes"] = [name] * 10
    record["data"]["counts"][name] = record["args"][name] = 3
    return record


@pytest.fixture(scope="module", params=CASES)
def page(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    run = records.write_run(
        tmp_path_factory.mktemp("run"),
        CASES[request.param](),
        pictures=0 if request.param == "one seed" else 3,
        size=32,
    )
    return request.param, build_report(run)


@pytest.fixture
def open_page(browser: Any) -> Iterator[Callable[..., Any]]:
    """Open a page, and fail on every message and every request that it should not make."""
    contexts, complaints = [], []

    def opened(path: Path, width: int = 1280, scheme: str = "light", **options: Any) -> Any:
        context = browser.new_context(viewport={"width": width, "height": 800}, color_scheme=scheme, **options)
        contexts.append(context)
        sheet = context.new_page()
        sheet.on("console", lambda message: complaints.append(message.text))
        sheet.on("pageerror", lambda error: complaints.append(str(error)))
        sheet.on(
            "request",
            lambda request: complaints.append(request.url) if not request.url.startswith(("file:", "data:")) else None,
        )
        sheet.goto(path.as_uri())
        return sheet

    yield opened
    for context in contexts:
        context.close()
    assert complaints == []


@pytest.mark.browser
@pytest.mark.parametrize(("width", "scheme"), [(390, "light"), (390, "dark"), (1280, "light"), (1280, "dark")])
def test_every_study_fits_phone_and_desk(
    open_page: Callable[..., Any], page: tuple[str, Path], width: int, scheme: str
):
    sheet = open_page(page[1], width, scheme)
    assert sheet.evaluate("document.documentElement.scrollWidth") <= width
    first = sheet.evaluate("document.querySelector('h1, h2, h3, table, figure').textContent")
    headline = (
        json.loads((page[1].parent / "results.json").read_text()).get("verdict", {}).get("headline", "No verdict")
    )
    assert first == headline
    assert sheet.locator("h1").bounding_box()["y"] < 400
    light, ground = sheet.evaluate(
        "[matchMedia('(prefers-color-scheme: light)').matches, getComputedStyle(document.body).backgroundColor]"
    )
    assert light == (scheme == "light")
    assert (sum(map(int, re.findall(r"\d+", ground)[:3])) > 380) == light


def contrast(one: list[float], other: list[float]) -> float:
    """The contrast ratio of WCAG 2 between two sRGB colours in 0..255."""

    def luminance(colour: list[float]) -> float:
        linear = [(c / 3294.6) if c <= 10 else ((c / 255 + 0.055) / 1.055) ** 2.4 for c in colour]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    light, dark = sorted((luminance(one), luminance(other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


@pytest.mark.browser
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_is_legible(open_page: Callable[..., Any], tmp_path: Path, scheme: str):
    assert contrast([0, 0, 0], [255, 255, 255]) == pytest.approx(21)
    sheet = open_page(
        build_report(records.write_run(tmp_path, records.with_failures(), pictures=2, size=16)), 1280, scheme
    )
    pairs = sheet.evaluate("""() => {
        const canvas = document.createElement("canvas").getContext("2d", {willReadFrequently: true});
        const paint = (colours) => {
            canvas.clearRect(0, 0, 1, 1);
            for (const colour of colours) { canvas.fillStyle = colour; canvas.fillRect(0, 0, 1, 1); }
            return [...canvas.getImageData(0, 0, 1, 1).data].slice(0, 3);
        };
        const texts = "h1, h2, p, td, th, dt, dd, a, figcaption, small, pre, label, .chip, svg.plot text";
        return [...document.querySelectorAll(texts)]
            .filter((element) => element.textContent.trim() && element.checkVisibility() && !element.matches(".skip"))
            .map((element) => {
                const back = [];
                for (let at = element; at; at = at.parentElement) back.unshift(getComputedStyle(at).backgroundColor);
                const style = getComputedStyle(element), inside = element.closest("svg");
                const words = element.textContent.trim().slice(0, 40);
                return [words, paint([inside ? style.fill : style.color]), paint(back)];
            });
    }""")
    assert len(pairs) > 150
    # The numbers on the marks of the cost plot are the only text on another background than the page's.
    poor = [
        (text, fore, back) for text, fore, back in pairs if contrast(fore, back) < 4.5 and not re.fullmatch(r"\d", text)
    ]
    assert poor == []


@pytest.mark.browser
def test_the_explorer_chooses_arm_gate_and_image(open_page: Callable[..., Any], tmp_path: Path):
    sheet = open_page(
        build_report(records.write_run(tmp_path, records.results(arms=8, seeds=2, epochs=2), pictures=4, size=32))
    )
    veil = "document.querySelector('#big .veil').getAttribute('href')"
    assert sheet.locator("#explorer").is_visible()
    assert sheet.locator("#pick-arm option").all_inner_texts() == [
        *("CBAM, identity start", "CBAM, paper start"),
        *("Coordinate, identity start", "Spatial, identity start, stages"),
    ]
    seen = [sheet.evaluate(veil)]
    sheet.locator("#pick-arm").select_option("Coordinate, identity start")
    seen.append(sheet.evaluate(veil))
    sheet.locator("#pick-gate").select_option("stages.0.2 · row")
    seen.append(sheet.evaluate(veil))
    sheet.locator("#strip button").nth(2).click()
    seen.append(sheet.evaluate(veil))
    assert len(set(seen)) == 4
    assert all(uri.startswith("data:image/png;base64,") for uri in seen)
    assert sheet.locator("#big-caption").inner_text() == "2, recognised"
    sheet.locator("#show-box").uncheck()
    assert not sheet.locator("#big .box").is_visible()
    sheet.locator("#fade").fill("0")
    assert sheet.evaluate("getComputedStyle(document.querySelector('#big .veil')).opacity") == "0"


@pytest.mark.browser
def test_the_report_links_to_the_explorer_of_all_arms(open_page: Callable[..., Any], tmp_path: Path):
    record = records.results(arms=8, seeds=2, epochs=2)
    sheet = open_page(build_report(records.write_run(tmp_path, record, pictures=4, size=32)))
    sheet.locator("#maps a[href='explorer.html']").click()
    assert sheet.locator("#arm option").all_inner_texts() == [arm["label"] for arm in record["arms"] if arm["maps"]]
    assert sheet.locator("h1").inner_text() == f"Where {record['model']['name']} looks in {record['data']['name']}"
    sheet.locator("#picture").select_option(index=2)
    assert sheet.locator(".words").first.inner_text() == "2, recognised"


@pytest.mark.browser
def test_a_copy_of_the_page_has_the_tables(open_page: Callable[..., Any], tmp_path: Path):
    record = records.results(arms=3, seeds=2, epochs=1)
    record["arms"][1]["label"] = 'a "quoted", name'
    path = build_report(records.write_run(tmp_path / "run", record, pictures=0))
    copy = tmp_path / "report.html"
    copy.write_bytes(path.read_bytes())
    sheet, found = open_page(copy), {}
    for name in ("arms.csv", "classes.csv"):
        with sheet.expect_download() as download:
            sheet.locator(f"a[download='{name}']").click()
        assert download.value.suggested_filename == name
        text = Path(download.value.path()).read_text(encoding="utf-8")
        assert text == (path.parent / name).read_text(encoding="utf-8")
        found[name] = list(csv.DictReader(text.splitlines()))
    assert [row["arm"] for row in found["arms.csv"]] == [arm["label"] for arm in record["arms"]]
    assert float(found["arms.csv"][1]["latency_ratio"]) == record["arms"][1]["cost"]["latency"]["ratio"]
    last, difference = found["arms.csv"][2], record["arms"][2]["difference"]
    assert {key: float(last[key]) for key in ("low", "high", "p")} == {
        key: difference[key] for key in ("low", "high", "p")
    }
    assert len(found["classes.csv"]) == 2 * len(record["classes"])
    change = record["classes"][0]["arms"][record["arms"][2]["slug"]]
    assert [float(found["classes.csv"][1][key]) for key in ("difference", "low", "high")] == list(change.values())


@pytest.mark.browser
def test_arms_with_only_channel_gates_show_strips(open_page: Callable[..., Any], tmp_path: Path):
    record = records.results(arms=3, seeds=2, epochs=1)
    sheet = open_page(build_report(records.write_run(tmp_path, record, pictures=4, size=16)))
    assert sheet.locator(".channels").count() == 3
    assert sheet.locator(".channels").first.get_attribute("viewBox") == "0 0 16 4"
    assert not sheet.locator("#explorer").is_visible()
    assert sheet.locator(".strips figcaption").first.inner_text().startswith("stages.0.2: from 0.2")


@pytest.mark.browser
def test_a_detector_is_judged_twice_and_shows_every_box(open_page: Callable[..., Any], tmp_path: Path):
    run = records.write_run(tmp_path, records.detection(), pictures=3)
    sheet = open_page(build_report(run))
    assert sheet.locator("#also h2").text_content() == "And by mAP?"
    assert "CoordinateAttention helps" in sheet.locator("#also").text_content()
    assert sheet.locator("#also tbody tr").count() == 5
    assert (run / "plots" / "also-1.svg").is_file()
    assert sheet.locator("#pointing-game-title").text_content() == "Does it look at the digits?"
    outlines = sheet.locator(".tiles .box").evaluate_all("all => all.map((one) => one.getAttribute('d'))")
    assert outlines
    assert {outline.count("Z") for outline in outlines} == {2}
    box, tile = (sheet.locator(f"#big{part}").bounding_box() for part in (" .box", ""))
    assert tile["x"] <= box["x"] < box["x"] + box["width"] <= tile["x"] + tile["width"]
    assert sheet.locator("#big-caption").text_content() == "2 objects: 0 found, 0 false"


def test_true_boxes_are_not_named_where_none_are_known(tmp_path: Path):
    run = records.write_run(tmp_path, records.results(arms=5, seeds=1, epochs=1), pictures=2, size=16)
    for path in run.rglob("maps.npz"):
        with np.load(path) as maps:
            kept = {name: maps[name] for name in maps.files if name != "boxes"}
        np.savez(path, allow_pickle=False, **kept)
    page = build_report(run).read_text(encoding="utf-8")
    assert 'id="maps"' in page
    assert "True boxes" not in page
    assert "Dashed lines" not in page


@pytest.mark.browser
def test_the_maps_are_shown_without_javascript(open_page: Callable[..., Any], tmp_path: Path):
    path = build_report(records.write_run(tmp_path, records.results(arms=5, seeds=2, epochs=2), pictures=4, size=32))
    sheet = open_page(path, java_script_enabled=False)
    assert not sheet.locator("#explorer").is_visible()
    assert sheet.locator(".maps-row .tile").count() == 4
    assert sheet.locator(".maps-row .tile").first.is_visible()


def test_the_page_is_one_file_and_shows_the_record(page: tuple[str, Path]):
    name, path = page
    html, record = path.read_text(encoding="utf-8"), json.loads((path.parent / "results.json").read_text())
    data = "data:image/png;base64,|data:image/jpeg;base64,|data:text/csv;base64,"
    links = re.findall(rf"""(?:href|src)=["']((?!#|{data})[^"']*)""", html)
    assert [link for link in links if not (path.parent / link).is_file()] == []
    assert {link.partition("/")[0] for link in links} <= {*FILES, "plots"}
    assert "http" not in html.replace("http-equiv", "").replace("http://www.w3.org/2000/svg", "")
    assert "style=" not in html
    assert ('href="explorer.html"' in html) == ('id="maps"' in html)
    assert html.count("<script") == html.count("</script>") == 1 + ('id="maps-data"' in html)
    assert re.search(
        r"default-src 'none'; img-src data:; style-src 'sha256-[\w+/=]+'; script-src 'sha256-[\w+/=]+';", unescape(html)
    )
    assert len(re.findall(r'<tr role="row" class=', html)) == len(record["arms"])
    assert ('id="failures"' in html) == bool(record.get("failures"))
    if name in ("usual", "failures"):
        assert "−8.20 [−9.05, −7.35]" in html
        assert "1.16× [1.14, 1.18]" in html
        assert "not distinguishable" in html
        assert '<span class="cell-value">&lt; 0.001</span>' in html
        assert "p = &lt;" not in html
        assert "True boxes" in html
        assert "<td>−8.20</td><td>−4.10 [−5.10, −3.10]</td><td>0.41</td>" in html
        assert "<strong>Advice:</strong> Use CBAM" in html
        assert "<li>The score still rose at the last epoch" in html
    if name == "one seed":
        assert "At least 2 seeds are needed" in html
        assert 'id="intervals"' in html


def test_plots_are_separate_files(page: tuple[str, Path]):
    record = json.loads((page[1].parent / "results.json").read_text())
    plots = sorted((page[1].parent / "plots").glob("*")) if record["arms"] else []
    assert {"intervals.svg", "cost.svg"} <= {plot.name for plot in plots} or page[0] in (
        "one seed",
        "baseline only",
        "bare",
    )
    for plot in plots:
        root = ET.fromstring(plot.read_text(encoding="utf-8"))
        assert root.get("role") == "img"
        assert root.get("aria-label")
        assert "prefers-color-scheme: dark" in plot.read_text(encoding="utf-8")


def test_ids_are_unique_and_references_resolve(page: tuple[str, Path]):
    html = page[1].read_text(encoding="utf-8")
    ids = re.findall(r'\bid="([^"]*)"', html)
    assert len(ids) == len(set(ids))
    assert set(re.findall(r'href="#([^"]*)"', html)) | set(re.findall(r"url\(#([^)]*)\)", html)) <= set(ids)


def test_the_same_record_gives_the_same_bytes(tmp_path: Path):
    pages = []
    for name in ("one", "two"):
        run = records.write_run(tmp_path / name, records.results(arms=3, seeds=2, epochs=2), pictures=2, size=16)
        pages.append(
            (build_report(run).read_bytes(), {plot.name: plot.read_bytes() for plot in (run / "plots").iterdir()})
        )
    assert pages[0] == pages[1]


def test_a_missing_or_broken_record_is_named(tmp_path: Path):
    with pytest.raises(DataError, match="no file"):
        build_report(tmp_path)
    for text in ("{", "[]", '{"schema": 1, "arms": []}', '{"schema": 2, "arms": 3}', "[" * 100_000, "\udcff"):
        (tmp_path / "results.json").write_bytes(text.encode("utf-8", "surrogateescape"))
        with pytest.raises(DataError, match=r"results\.json"):
            build_report(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["results.json"]


@pytest.mark.parametrize(
    "judged",
    [
        None,
        *(pytest.param(empty, marks=pytest.mark.slow) for empty in ({}, {"arms": None})),
        {"arms": {"none__host": None}, "verdict": None},
    ],
)
def test_an_arm_without_a_further_measure_does_not_show_the_first_instead(tmp_path: Path, judged: Any):
    record = records.detection()
    record["also"] = {"mAP": judged}
    page = build_report(records.write_run(tmp_path, record, pictures=0)).read_text(encoding="utf-8")
    section = page[page.index('id="also"') : page.index('id="cost"')]
    assert "No verdict" in section
    assert section.count("<td>–</td>") == 5 * len(record["arms"])
    assert not (tmp_path / "plots" / "also-1.svg").exists()


@pytest.mark.parametrize(
    "broken",
    [
        *(pytest.param(kind, marks=pytest.mark.slow) for kind in ("empty", "cut")),
        *("missing", "no zip", "pickle", "outside", "no images"),
    ],
)
def test_unreadable_maps_leave_only_their_arm_out(tmp_path: Path, broken: str):
    record = records.results(arms=6, seeds=2, epochs=2)
    run = records.write_run(tmp_path / "run", record, pictures=2, size=16)
    path = run / record["arms"][4]["maps"]
    content = path.read_bytes()
    if broken == "missing":
        path.unlink()
    elif broken == "outside":
        (tmp_path / "outside.npz").write_bytes(content)
        record["arms"][4]["maps"] = "../outside.npz"
        (run / "results.json").write_text(json.dumps(record))
    elif broken == "no images":
        np.savez(path, labels=np.zeros(2))
    elif broken == "pickle":
        np.savez(path, images=np.array([{"a": 1}], dtype=object))
    else:
        path.write_bytes({"empty": b"", "cut": content[: len(content) // 2], "no zip": b"no archive"}[broken])
    html = build_report(run).read_text(encoding="utf-8")
    rows = re.findall(r"<figcaption><strong>([^<]*)</strong>", html)
    assert rows == ["CBAM, paper start", "SE, identity start"]
