"""Names come from outside: with any names, the page has the structure of a benign report."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from foveate.report.page import build_report
from report import records

ALERT = "window.hacked=1"
PAYLOADS = [
    f"<script>{ALERT}</script>",
    f"</script><script>{ALERT}</script>",
    f"</style><script>{ALERT}</script>",
    f"</title><script>{ALERT}</script>",
    f"</text></svg><script>{ALERT}</script>",
    f"</pre></code><img src=x onerror={ALERT}>",
    f"<img src=x onerror={ALERT}>",
    f"<svg onload={ALERT}>",
    f"<svg><script>{ALERT}</script></svg>",
    f"<svg><animate onbegin={ALERT} attributeName=x dur=1s>",
    f"<svg><use href='data:image/svg+xml,<svg id=x onload={ALERT}>#x'/></svg>",
    f"<foreignObject><body onload={ALERT}></foreignObject>",
    f"<math><mtext></mtext><script>{ALERT}</script></math>",
    f"<iframe srcdoc='<script>{ALERT}</script>'></iframe>",
    "<iframe src=https://evil.example></iframe>",
    "<object data=https://evil.example></object>",
    "<embed src=https://evil.example>",
    "<link rel=stylesheet href=https://evil.example/x.css>",
    "<base href=https://evil.example/>",
    "<meta http-equiv=refresh content='0;url=https://evil.example'>",
    '<meta http-equiv=Content-Security-Policy content="default-src *">',
    "<form action=https://evil.example><button>go",
    f"<details open ontoggle={ALERT}>",
    f"<video><source onerror={ALERT}></video>",
    f"<input autofocus onfocus={ALERT}>",
    f"<body onload={ALERT}>",
    f"<template><script>{ALERT}</script></template>",
    f"<noscript><img src=x onerror={ALERT}></noscript>",
    "<style>body{display:none}</style>",
    "<style>@import 'https://evil.example/x.css'</style>",
    "<plaintext>",
    "<textarea><xmp>",
    "<table><tr><td>",
    "<!-- a comment that does not end",
    "--><b>bold</b><!--",
    "<![CDATA[<script>]]>",
    "]]><b>bold</b>",
    "<?xml version='1.0'?><!DOCTYPE x [<!ENTITY a 'b'>]>&a;",
    f'" onmouseover="{ALERT}" x="',
    f"' onmouseover='{ALERT}' x='",
    f"` onmouseover=`{ALERT}`",
    f'" autofocus onfocus="{ALERT}" tabindex="1',
    f'"><script>{ALERT}</script>',
    f"'><script>{ALERT}</script>",
    f"javascript:{ALERT}",
    "data:text/html,<script>1</script>",
    "url(https://evil.example/x.png)",
    "expression(alert(1))",
    "x;background:url(//evil.example)",
    "&lt;script&gt;alert(1)&lt;/script&gt;",
    "&#60;script&#62;alert(1)&#60;/script&#62;",
    "&amp;&quot;&apos;&nbsp;&zwnj;",
    "&unfinished &#xZZ; &#1114112;",
    "{{ 7 * 7 }}{% for x in y %}{# comment #}",
    "{{ ''.__class__.__mro__ }}",
    "${window.hacked=1}`${1}`",
    "%s %d %(name)s {0} {name!r}",
    r"$\frac{1}{0}$ $x^$ \alpha $",
    "\\u003cscript\\u003e \\x3cscript\\x3e \\",
    "__proto__",
    "constructor.prototype",
    "../../../../etc/passwd",
    "con.txt:$DATA|<>*?",
    "line one\nline two\r\nline three\ttab",
    "\u2028window.hacked=1\u2029",
    "\u202eesrever\u202c \u2066isolate\u2069 \u200b\ufeff",
    "nul\x00bell\x07escape\x1b[31mred",
    "lone surrogates \ud800 \udfff",
    "non-characters \ufffe \uffff \U0001ffff",
    "Z\u0351\u036b\u0343\u0321\u0489a\u0363l\u034fgo " * 5,
    "漢字カタカナ한국어 עברית العربية हिन्दी 👩‍👩‍👧‍👦",
    "x" * 20_000,
    "+ADw-script+AD4-alert(1)+ADw-/script+AD4-",
    "=cmd|' /C calc'!A0",
    "\ud83d<script>",
]
OWN = ["explorer.html", "results.json", "explorer.html"]
PLOTS = [
    f"plots/{name}.svg"
    for name in ("intervals", "also-1", "cost", "classes", "pointing-game", "confusion-1", "confusion-2", "curves-2")
]
SHAPE = """() => ({
    shape: [...document.querySelectorAll("*")]
        .map((e) => e.tagName + " " + [...e.attributes].map((a) => a.name).sort().join(" ")),
    links: [...document.querySelectorAll("*")].flatMap((e) => [...e.attributes])
        .filter((a) => /^(href|src|srcset|action|data|formaction|poster|background|xlink:href)$/.test(a.name))
        .map((a) => a.value),
    policy: document.querySelector("meta[http-equiv]").content,
    hacked: window.hacked ?? null,
    text: document.body.innerText,
})"""


def poisoned(payload: str) -> dict[str, Any]:
    """Return a small study in which the payload replaces every text that comes from outside."""
    record = records.results(arms=3, seeds=1, epochs=2)
    record["command"] = record["model"]["name"] = record["created"] = record["foveate"] = payload
    record["data"] = {
        "name": payload,
        "classes": [payload] * 3,
        payload: {payload: payload},
        "list": [payload, payload],
        "fingerprint": payload,
    }
    record["args"], record["env"] = (
        {"epochs": payload, payload: [payload]},
        {payload: payload, "deep": {payload: [{payload: payload}]}},
    )
    record["args"]["credit"], record["changed"] = payload, [payload, "epochs"]
    record["verdict"] = {"headline": payload, "sentences": [payload, payload]}
    record["advice"], record["warnings"], record["class_measure"] = payload, [payload, payload], payload
    record["design"] = {"kind": "sequential", "least": payload, "most": payload, "looks": payload}
    record["classes"] = [
        {"name": payload, "host": 0.5, "arms": {payload: {"estimate": 2.0, "low": 1.0, "high": 3.0}}}
    ] * 3
    record["confusion"] = {record["arms"][0]["slug"]: 3 * [[5, 1, 0]], payload: 3 * [[4, 2, 0]]}
    record["statistics"] |= {
        "why": payload,
        "df": payload,
        "variance_check": {"name": payload, "statistic": 1.0, "p": 0.5},
    }
    for arm in record["arms"]:
        arm |= {
            "label": payload,
            "words": payload,
            "pointing_game": None,
            "curves": arm["curves"] if arm is record["arms"][1] else {},
        }
        arm["cost"]["latency"] |= {"batch": payload, "rounds": payload}
    pointing = {"mass": 0.3, "area": 0.2, "ratio": 1.5, "pointing": 0.4}
    record["arms"][1] |= {"verdict": payload, "maps": "maps.npz", "pointing_game": {payload: pointing}}
    record["arms"][2] |= {"label": None, "slug": payload, "difference": None, "maps": "channels.npz"}
    judged = {"mean": 0.5, "sd": None, "verdict": payload, "difference": {"estimate": 1.0, "low": 0.5, "high": 1.5}}
    record["also"] = {
        payload: {"verdict": {"headline": payload}, "arms": {arm["slug"]: judged for arm in record["arms"]}}
    }
    record["failures"] = [{"arm": payload, "seed": payload, "status": payload, "error": payload}]
    return record


def shape_of(browser_page: Any, run: Path, payload: str) -> dict[str, Any]:
    """Build the poisoned report, open it, and return its structure in the browser."""
    (run / "results.json").write_text(json.dumps(poisoned(payload)), encoding="utf-8")
    site = payload[:200].encode("utf-8", "replace").decode().replace("\0", "")  # the longest name in a zip archive
    maps: dict[str, Any] = {
        f"gate/{site}/{kind}": np.eye(2, dtype=np.float32)[None] for kind in ("row", "column", site)
    }
    maps |= {"images": np.zeros((1, 4, 4, 3), np.uint8), "labels": np.array([1]), "predictions": np.array([2])}
    np.savez(run / "maps.npz", allow_pickle=False, **maps)
    channels = {f"channel/{site}/{site}": np.eye(2, dtype=np.float32), "images": maps["images"]}
    np.savez(run / "channels.npz", allow_pickle=False, **channels)
    browser_page.goto(build_report(run).as_uri())
    for plot in (run / "plots").glob("*.svg"):
        assert "<script" not in plot.read_text(encoding="utf-8")
    return browser_page.evaluate(SHAPE)


@pytest.fixture(scope="module")
def sheet(browser: Any) -> Any:
    """One page for all payloads, which counts its network requests."""
    page = browser.new_page()
    page.asked, page.refused = [], []
    page.on(
        "request",
        lambda request: page.asked.append(request.url) if not request.url.startswith(("file:", "data:")) else None,
    )
    page.on("requestfailed", lambda request: page.refused.append((request.url, request.failure)))
    page.on("dialog", lambda dialog: page.asked.append(dialog.message))
    yield page
    page.close()


@pytest.fixture(scope="module")
def benign(sheet: Any, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The structure of the same study with harmless names."""
    found = shape_of(sheet, tmp_path_factory.mktemp("benign"), "harmless")
    assert found["text"].count("harmless") > 30
    return found


def test_there_are_enough_payloads():
    assert len(set(PAYLOADS)) >= 60


@pytest.mark.browser
@pytest.mark.parametrize(
    "payload",
    # neighbours in the list are alike
    [pytest.param(text, marks=pytest.mark.slow if k % 3 else (), id=str(k)) for k, text in enumerate(PAYLOADS)],
)
@pytest.mark.reliability(13)
def test_a_hostile_name_adds_no_element_or_attribute(sheet: Any, benign: dict[str, Any], tmp_path: Path, payload: str):
    found = shape_of(sheet, tmp_path, payload)
    assert Counter(found["shape"]) == Counter(benign["shape"])
    assert found["shape"] == benign["shape"]
    assert found["policy"] == benign["policy"]
    assert "default-src 'none'" in found["policy"]
    assert "unsafe" not in found["policy"]
    data = ("#", "data:image/png;base64,", "data:text/csv;base64,")
    assert all(link.startswith(data) or link in benign["links"] for link in found["links"])
    assert [link for link in benign["links"] if not link.startswith(("#", "data:"))] == [*OWN, *PLOTS]
    assert found["hacked"] is None
    assert sheet.asked == []


@pytest.mark.browser
def test_the_comparison_sees_an_injected_element(sheet: Any, benign: dict[str, Any], tmp_path: Path):
    shape_of(sheet, tmp_path, "harmless")
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    (tmp_path / "report.html").write_text(page.replace("<h1", "<b onclick='x'></b><h1", 1), encoding="utf-8")
    sheet.goto((tmp_path / "report.html").as_uri())
    assert sheet.evaluate(SHAPE)["shape"] != benign["shape"]


@pytest.mark.browser
def test_the_policy_stops_an_injected_script(sheet: Any, tmp_path: Path, benign: dict[str, Any]):
    shape_of(sheet, tmp_path, "harmless")
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    inline = "<script>window.hacked=1</script><img src=x onerror='window.hacked=1'><img src=https://evil.example/x.png>"
    (tmp_path / "report.html").write_text(page.replace("<h1", f"{inline}<h1", 1), encoding="utf-8")
    sheet.goto((tmp_path / "report.html").as_uri())
    assert sheet.evaluate("window.hacked ?? null") is None
    assert ("https://evil.example/x.png", "csp") in sheet.refused
