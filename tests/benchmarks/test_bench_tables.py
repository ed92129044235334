import json
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pytest

import bench_tables
from tools import bench_every_mechanism

NB = "\N{NO-BREAK SPACE}"


def timing(ratio: float, unit: float = 10) -> dict[str, float]:
    ms = ratio * unit
    return {"ms": ms, "q1": 0.9 * ms, "q3": 1.1 * ms, "ratio": ratio, "low": ratio - 0.01, "high": ratio + 0.01}


def record(name: str, results: list[dict[str, Any]]) -> dict[str, Any]:
    provenance = {
        "created": "2026-01-02T03:04:05+00:00",
        "commit": "0123456789abcdef",
        "uncommitted_changes": False,
        "environment": {"foveate": "0.1.0", "processor": "A CPU", "packages": {"torch": "2.13.0", "timm": "1.0"}},
        "interval": 0.99,
        "threads": 2,
        "kernels": "avx2",
        "load_average": {"before": 0.1, "after": 1.9},
    }
    return {"name": name, "rounds": 15, "provenance": provenance, "results": results}


def kernel(mechanism: str, ours: float | None, target: dict[str, float], **peers: float) -> dict[str, Any]:
    calls = {
        "clone": timing(1),
        "read": timing(0.4),
        "plain": timing(9.0),
        **{name: timing(ratio) for name, ratio in peers.items()},
    }
    return {
        "shape": [8, 256, 56, 56],
        "layout": "NCHW",
        "mechanism": mechanism,
        "bytes": 25_000_000,
        "passes": {"reads": 3, "writes": 1},
        "once": {"reads": 1, "writes": 1},
        "target": target,
        "calls": calls | ({"foveate": timing(ours)} if ours else {}),
        "failed": {} if ours else {"foveate": "no reason"},
    }


def model() -> dict[str, Any]:
    calls = {
        "plain host": timing(1),
        "plain host again": timing(1.01),
        "foveate se": timing(1.03),
        "foveate cbam": timing(1.07),
    }
    calls |= {"timm se": timing(1.2), "plain se": timing(1.3)}
    targets = {"se": 1.03, "cbam": 1.06}
    return {
        "host": "resnet50",
        "mode": "eager",
        "batch": 8,
        "layout": "NCHW",
        "size": 224,
        "targets": targets,
        "calls": calls,
    }


def growth() -> list[dict[str, Any]]:
    shapes = {"batch": [(1, 256, 28, 28), (64, 256, 28, 28)], "pixels": [(8, 64, 14, 14), (8, 64, 28, 28)]}
    return [
        {
            "series": series,
            "measure": measure,
            "layout": "NCHW",
            "shape": list(shape),
            "calls": {"clone": timing(1, shape[0] * shape[2] ** 2), "se": timing(1.5, shape[0] ** 2 * shape[2] ** 4)},
        }
        for series, maps in shapes.items()
        for measure in ("forward", "training")
        for shape in maps
    ]


def layer(measure: str, ours: float, **others: float) -> dict[str, Any]:
    calls = {"by hand": timing(1), "foveate": timing(ours), **{name: timing(ratio) for name, ratio in others.items()}}
    failed = {} if others else {"keras_cv": "No module named 'keras_cv'"}
    return {"shape": [8, 28, 28, 256], "mechanism": "se", "measure": measure, "calls": calls, "failed": failed}


def test_the_table_of_the_explorer_says_what_was_reached(tmp_path: Path) -> None:
    calls = {"blank page": timing(1, 20), "explorer": timing(50, 20)}
    about = {"images": 200, "layers": 16, "target": {"seconds": 2.0, "bytes": 30_000_000}}
    results = [
        {"arms": 1, "shown": 200, "bytes": 15_400_000, "calls": calls, **about},
        {"arms": 3, "shown": 190, "bytes": 30_000_000, "calls": {**calls, "explorer": timing(100, 20)}, **about},
    ]
    page = filled(tmp_path, "explorer", results)
    assert "| 1 | 200 of 200 | 16 | 15.4 MB ✓ | 30 MB | 1.00 s ✓ | 0.90 to 1.10 s | 2 s | 0.02 s |" in page
    assert "| 3 | 190 of 200 | 16 | 30.0 MB ✗ | 30 MB | 2.00 s ✗ |" in page


def filled(folder: Path, name: str, results: list[dict[str, Any]]) -> str:
    (folder / f"{name}.json").write_text(json.dumps(record(name, results)), encoding="utf-8")
    page = bench_tables.fill(f"before\n<!-- table: {name} -->\nold\n<!-- /table -->\nafter\n", folder)
    assert page.startswith("before\n")
    assert page.endswith("after\n")
    assert "old" not in page
    assert bench_tables.fill(page, folder) == page
    for table in page.split("\n\n"):  # as many cells in every row of a table
        assert len({line.count("|") for line in table.splitlines() if line.startswith("|")}) <= 1
    return page


def test_the_committed_page_and_plots_are_fresh() -> None:
    for path in bench_tables.PAGES:
        page = path.read_text(encoding="utf-8")
        assert bench_tables.fill(page, bench_tables.RESULTS) == page
    for name, text in bench_tables.plots(bench_tables.RESULTS).items():
        assert (bench_tables.IMAGES / name).read_text(encoding="utf-8") == text


def test_the_page_says_where_its_numbers_come_from(tmp_path: Path) -> None:
    page = filled(tmp_path, "whole_models_eager", [model()])
    assert "2026-01-02, commit 0123456789, foveate 0.1.0, torch 2.13.0, timm 1.0.\n" in page
    assert "A CPU, 2 threads, kernels: avx2;\nload 0.1 before and 1.9 after;\n15 rounds, 99 % intervals." in page


def test_without_a_record_the_page_says_so(tmp_path: Path) -> None:
    assert "Not measured yet" in bench_tables.fill("<!-- table: growth -->\n<!-- /table -->\n", tmp_path)
    assert bench_tables.plots(tmp_path) == {}


@pytest.mark.parametrize(
    ("ours", "target", "cell"),
    [
        (1.5, {"most": 1.5}, f"**1.50**{NB}✓{NB}3.00"),
        (1.504, {"most": 1.5}, f"**1.50**{NB}✓{NB}3.00"),
        (1.51, {"most": 1.5}, f"**1.51**{NB}✗{NB}3.00"),
        (3.0, {"times_as_fast": 1.0}, f"**3.00**{NB}✓{NB}3.00"),
        (3.01, {"times_as_fast": 1.0}, f"**3.01**{NB}✗{NB}3.00"),
        (1.0, {"times_as_fast": 3.0}, f"**1.00**{NB}✓{NB}3.00"),
        (1.01, {"times_as_fast": 3.0}, f"**1.01**{NB}✗{NB}3.00"),
        (None, {"most": 1.5}, ""),
    ],
)
def test_a_kernel_is_judged_by_its_target(
    tmp_path: Path, ours: float | None, target: dict[str, float], cell: str
) -> None:
    page = filled(tmp_path, "kernels_float32_forward", [kernel("cbam", ours, target, timm=3.0)])
    assert f"| 8×256×56×56 | NCHW | {cell} |" in page
    assert ("Lower bounds for the 1 of 1" in page) == ("✗" in cell)
    assert ("All 1 targets are met." in page) == ("✓" in cell)
    assert ("- foveate, cbam, 1 of the maps: `no reason`" in page) == (ours is None)


def test_a_missed_target_is_shown_with_what_bounds_it(tmp_path: Path) -> None:
    results = [kernel("cbam", 2.5, {"most": 2.0}, **{"timm compiled": 3.0}), kernel("se", 1.2, {"most": 1.5})]
    page = filled(tmp_path, "kernels_float32_forward", results)
    # every pass: a read and a write as in clone, and two reads of 0.4 clones; 2 x 25 MB in 10 ms, 25 MB in 4 ms
    assert f"| cbam | 8×256×56×56 | NCHW | 2.50 > 2.00 | timm{NB}compiled | 1.00 | 1.80 | 5,{NB}6 |" in page
    assert "Lower bounds for the 1 of 2 that miss their target" in page
    assert "| *target: at most* | | *2* | *1.5* |" in page
    assert f"| cbam | 9.00{NB}[9.00,{NB}9.00] | 3.00{NB}[3.00,{NB}3.00] | 2.50{NB}[2.50,{NB}2.50] |" in page


def test_our_own_compiled_module_is_no_peer(tmp_path: Path) -> None:
    page = filled(tmp_path, "kernels_float32_forward", [kernel("se", 1.4, {"most": 1.5}, **{"foveate compiled": 1.1})])
    assert f"**1.40**{NB}✓{NB}9.00" in page


def test_whole_models_are_shown_beside_their_targets(tmp_path: Path) -> None:
    page = filled(tmp_path, "whole_models_eager", [model()])
    assert "**resnet50, batch 8, NCHW, 224 px**" in page
    assert "| plain host | 10.0 ms |  |  |  |" in page
    assert "| se | 1.03× [1.02, 1.04] | 1.30× [1.29, 1.31] | 1.20× [1.19, 1.21] | ✓ 1.03× |" in page
    assert "| cbam | 1.07× [1.06, 1.08] |  |  | ✗ 1.06× |" in page


def test_keras_layers_are_shown_beside_the_block_by_hand(tmp_path: Path) -> None:
    page = filled(tmp_path, "keras_jax", [layer("forward", 0.5, keras_cv=2.0), layer("training", 1.5)])
    ours, other, lost = (
        f"{text}".replace(" ", NB) for text in ("0.50× [0.49, 0.51]", "2.00× [1.99, 2.01]", "1.50× [1.49, 1.51]")
    )
    assert (
        f"| se | 8×28×28×256 | 10.00{NB}ms | **{ours}**{NB}✓ | {other}{NB}keras_cv | 10.00{NB}ms | **{lost}**{NB}✗ |  |"
        in page
    )
    assert "in 1 (✓) and slower in 1 (✗)" in page
    assert "Did not run: keras_cv, 1 of the cells: `No module named 'keras_cv'`" in page


def test_a_ratio_that_may_be_one_gets_no_mark(tmp_path: Path) -> None:
    page = filled(tmp_path, "keras_jax", [layer("forward", 1.005, keras_cv=2.0)])
    assert "in 0 (✓) and slower in 0 (✗)" in page
    assert "Did not run" not in page


def detector(**failed: str) -> list[dict[str, Any]]:
    calls = {
        "plain": timing(1),
        "plain again": timing(1.01),
        "se": timing(1.03),
        "cbam": timing(1.04),
        "onnxruntime": timing(0.5),
    }
    calls |= {"se, its sites": timing(0.012), "cbam, its sites": timing(0.021)}
    network = {"part": "network", "size": 416, "target": 1.03, "calls": calls}
    shares = {
        "whole": timing(1),
        "letterbox": timing(0.02),
        "network": timing(0.9),
        "all but the network": timing(0.1504),
    }
    growth = {"part": "nms", "kind": "crowded", "kept": {"10": 5, "40": 7}, "peak_mb": {"10": 1.0, "40": 2.0}}
    return [
        network | {"batch": 1, "failed": {}},
        network | {"batch": 8, "failed": failed, "calls": calls | {"compiled": timing(0.9)}},
        {
            "part": "predict",
            "size": 416,
            "picture": [640, 480],
            "candidates": 9,
            "kept": 4,
            "target": 0.15,
            "calls": shares,
        },
        growth | {"calls": {"10": timing(1), "40": timing(4.2)}},
    ]


def test_a_detector_is_shown_beside_its_targets(tmp_path: Path) -> None:
    page = filled(tmp_path, "detection", detector(se="no kernel"))
    assert "| plain | 10.0 ms |  | 10.0 ms |  |  |" in page
    assert "| se | 1.03× [1.02, 1.04] ✓ | 1.2 % | 1.03× [1.02, 1.04] ✓ | 1.2 % | 1.03× |" in page
    assert "| cbam | 1.04× [1.03, 1.05] ✗ | 2.1 % | 1.04× [1.03, 1.05] ✗ | 2.1 % | 1.03× |" in page
    assert "| compiled |  |  | 0.90× [0.89, 0.91] |  |  |" in page  # of one batch size alone
    assert "Batch 8, se: `no kernel`" in page
    assert "640 × 480, 9 candidates, 4 boxes" in page
    assert "| letterbox | 0.20 | 2.0 % [1.0, 3.0] |  |" in page
    assert "| all but the network | 1.50 | 15.0 % [14.0, 16.0] | ✓ 15 % |" in page
    assert "| 40 | crowded | 7 | 42.0 | 1.05 ✗ | 2.00 | 0.50 ✓ |" in page


def test_growth_is_told_over_what_is_linear(tmp_path: Path) -> None:
    page = filled(tmp_path, "growth", growth())
    assert "| clone | 1.00× | 1.00× |" in page
    assert "| se | 64.00× | 64.00× |" in page
    assert "| se | 4.00× | 4.00× |" in page
    assert page.count("images/growth-") == 2


def test_the_plots_name_their_axes_and_follow_light_and_dark(tmp_path: Path) -> None:
    filled(tmp_path, "growth", growth())
    plots = bench_tables.plots(tmp_path)
    assert set(plots) == {"growth-batch.svg", "growth-pixels.svg"}
    assert plots == bench_tables.plots(tmp_path)
    for name, unit in (("growth-batch.svg", "ms per sample"), ("growth-pixels.svg", "ms per call")):
        words = [element.text for element in ET.fromstring(plots[name]).iter() if element.tag.endswith("text")]
        assert unit in words
        assert {"clone", "se", "forward, NCHW", "training, NCHW"} <= set(words)
        assert "prefers-color-scheme: dark" in plots[name]


def test_a_mechanism_slower_than_the_better_one_is_marked() -> None:
    def timing(ratio: float) -> dict[str, float]:
        return {"ratio": ratio, "low": ratio - 0.01, "high": ratio + 0.01}

    calls = {"reference": timing(1.0), "foveate": timing(1.04)}
    assert bench_every_mechanism.cell(calls) == "1.04× [1.03, 1.05]"
    assert bench_every_mechanism.cell({**calls, "foveate": timing(1.07)}).startswith("✗ 1.07×")
    with_timm = bench_every_mechanism.cell({**calls, "timm": timing(0.95)})
    assert with_timm == "✗ 1.04× [1.03, 1.05] (timm 0.95×)"


def test_a_mechanism_with_a_kernel_names_its_best_peer() -> None:
    def result(mechanism: str, **ratios: float) -> dict[str, Any]:
        calls = {name.replace("_", " "): timing(ratio) for name, ratio in {"reference": 1.0, **ratios}.items()}
        return {"mechanism": mechanism, "shape": [1, 2, 3, 4], "layout": "NCHW", "calls": calls}

    plain = result("nam", foveate=0.9)
    eager = result("ese", foveate=0.9, reference_compiled=1.2)
    compiled = result("se", foveate=0.66, timm=1.1, reference_compiled=0.8, timm_compiled=0.6)
    shown = list(bench_every_mechanism.lines({"results": [plain, eager, compiled]}))
    heading = next(number for number, line in enumerate(shown) if "best peer" in line)
    assert "| se | ✗ 1.10× timm compiled |" in shown[heading:]
    assert "| ese | 0.90× reference |" in shown[heading:]
    assert not any("| nam |" in line for line in shown[heading:])
    assert not any("best peer" in line for line in bench_every_mechanism.lines({"results": [plain]}))


def test_data_loading_shows_each_cache_and_whether_training_was_busy(tmp_path: Path) -> None:
    about = {"photos": "enlarged", "pixels": [4032, 3024], "host": "net", "size": 224, "batch": 24, "steps": 8}
    first = {
        "none, 0": timing(1) | {"busy": 0.7, "least_busy": 0.6},
        "disk, 2": timing(0.5) | {"busy": 0.9, "least_busy": 0.88},
    }
    second = {name: timing(0.5) | {"busy": 0.95, "least_busy": 0.94} for name in first}
    epochs = [
        about | {"epoch": name, "target": 0.9, "calls": calls} for name, calls in (("first", first), ("second", second))
    ]
    page = filled(tmp_path, "data_loading", epochs)
    assert "**Photos enlarged**, 4032 × 3024 pixels, 8 steps an epoch" in page
    assert "| none | 0 | 70.0 % ✗ (least 60.0 %) | 10 | 1.00 | 95.0 % ✓ (least 94.0 %) | 5 | 0.50 |" in page
    assert "| disk | 2 | 90.0 % ✓ (least 88.0 %) | 5 | 0.50 | 95.0 % ✓ (least 94.0 %) | 5 | 0.50 |" in page


def test_the_steps_of_a_site_are_rows(tmp_path: Path) -> None:
    calls = {"its hook": {"ms": 0.00966}, "the operation": {"ms": 0.0034}}
    results = [{"mechanism": name, "calls": calls} for name in ("se", "eca")]
    page = filled(tmp_path, "site", results)
    assert "| µs | se | eca |\n|---|---:|---:|\n| its hook | 9.7 | 9.7 |\n| the operation | 3.4 | 3.4 |" in page


def test_the_steps_inside_a_network_are_rows(tmp_path: Path) -> None:
    calls = {"nothing": {"quick": 0.001}, "the operation": {"quick": 0.0734}, "the hook": {"quick": 0.101}}
    host = {"convolutions": 38.0, "at the site": 0.0, "addition": 2.0}
    results = [{"mechanism": name, "calls": calls, "host": host, "sites": 16} for name in ("se", "eca")]
    page = filled(tmp_path, "in_network", results)
    assert (
        "| µs at a site | se | eca |\n|---|---:|---:|\n| the operation | 73 | 73 |\n| the hook | 101 | 101 |\n" in page
    )
    assert "| *the hooks of all sites, in % of the plain blocks* | 4.0 | 4.0 |" in page
    assert "The 16 plain blocks take, in ms: convolutions 38.0, addition 2.0." in page


def test_a_page_may_take_a_record_from_a_folder(tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    results = [{"mechanism": "se", "calls": {"its hook": {"ms": 0.0097}}}]
    assert "| its hook | 9.7 |" in filled(tmp_path, "other/site", results)
