"""Study records like those that a study writes, of any size and state, to test the report without a model."""

import json
from pathlib import Path
from typing import Any

import numpy as np

ARMS = [
    ("none__host", "No attention", "none", "host", "paper", 0.0),
    ("control__residual", "Control (1×1 pair)", "control", "residual", "identity", 0.1),
    ("se-identity__residual", "SE, identity start", "se", "residual", "identity", 0.35),
    ("eca-identity__residual", "ECA, identity start", "eca", "residual", "identity", 0.15),
    ("cbam-identity__residual", "CBAM, identity start", "cbam", "residual", "identity", 1.1),
    ("cbam-paper__residual", "CBAM, paper start", "cbam", "residual", "paper", -8.2),
    ("coordinate-identity__residual", "Coordinate, identity start", "coordinate", "residual", "identity", 0.8),
    ("spatial-identity__stage", "Spatial, identity start, stages", "spatial", "stage", "identity", -0.2),
]
GATES = {"cbam": ("spatial",), "spatial": ("spatial",), "coordinate": ("row", "column")}


def results(arms: int = 8, seeds: int = 5, epochs: int = 12) -> dict[str, Any]:
    """A finished study: `arms` arms (the listed ones, then repeats at other sites) over `seeds` seeds."""
    rng = np.random.default_rng(7)
    records = [_arm(rng, k, seeds, epochs) for k in range(arms)]
    return {
        "schema": 2,
        "foveate": "0.1.0",
        "created": "2026-03-04T05:06:07+00:00",
        "command": "foveate study --model resnet20 --attention se,eca,cbam,coordinate,spatial --where residual "
        "--seeds 5 --epochs 12",
        "args": {
            "model": "resnet20",
            "attention": ["se", "eca", "cbam"],
            "where": ["residual"],
            "seeds": seeds,
            "epochs": epochs,
            "lr": 0.1,
        },
        "env": {
            "python": "3.11.9",
            "torch": "2.13.0",
            "cpu": "AMD EPYC 7B13 (2 cores)",
            "threads": 1,
            "load": [0.4, 0.5, 0.6],
        },
        "data": {
            "name": "cluttered digits",
            "classes": [str(i) for i in range(10)],
            "counts": {"train": 4000, "val": 1000, "test": 1000},
            "size": 64,
            "channels": 1,
            "fingerprint": "9c1185a5c5e9fc54612808977ee8f548b2258d31c8f0d5f0e0b3d2f3a4b5c6d7",
            "options": {"canvas": 64, "distractors": 16},
        },
        "model": {"name": "resnet20", "parameters": 272_474},
        "seeds": list(range(seeds)),
        "changed": ["model", "seeds", "lr"],
        "margin": 1.0,
        "design": {"kind": "fixed", "least": seeds, "most": seeds, "looks": 1},
        "warnings": [
            "The score still rose at the last epoch in 4 of 5 trials: "
            "train longer (--epochs) before believing a small difference."
        ],
        "advice": "Use CBAM, identity start: +1.1 points and 16 % slower.",
        "class_measure": "recall",
        "classes": [_class(rng, str(i), records) for i in range(10)],
        "confusion": {arm["slug"]: _confusion(rng, 10) for arm in (records[0], *records[4:5])},
        "verdict": {
            "headline": "CBAM with the identity start helps: +1.10 points over the plain resnet20.",
            "sentences": [
                "CBAM with the paper's start hurts: 8.20 points lost.",
                "SE, ECA, coordinate and spatial attention are undecided: the study could have seen ±0.85 points.",
                "The control gained 0.10 points, so the gain is not a matter of more parameters.",
            ],
        },
        "statistics": {
            "method": "dunnett-blocked",
            "why": "the arms' variances do not differ (p = 0.41), so one pooled variance is used for all",
            "critical": 2.71,
            "df": (arms - 1) * (seeds - 1),
            "residual_sd": 0.42,
            "variance_check": {
                "name": "John's test of equal residual variances, null simulated",
                "statistic": 1.07,
                "p": 0.41,
            },
            "seeds_for_half_point": 14,
            "seeds_for_one_point": 4,
        },
        "arms": records,
        "failures": [],
    }


def one_epoch() -> dict[str, Any]:
    """A study of one epoch: no curves to draw."""
    return results(seeds=3, epochs=1)


def collapsed() -> dict[str, Any]:
    """A study in which one arm fell to chance level, significantly, and another is very noisy."""
    record = results()
    record["arms"][5]["difference"] = {"estimate": -70.0, "low": -78.0, "high": -62.0, "p": 1e-9}
    record["arms"][5]["scores"] = {seed: score - 0.62 for seed, score in record["arms"][5]["scores"].items()}
    record["arms"][6] |= {
        "difference": {"estimate": 2.0, "low": -31.0, "high": 35.0, "p": 0.9},
        "could_have_seen": 33.0,
    }
    return record


def _class(rng: np.random.Generator, name: str, arms: list[dict[str, Any]]) -> dict[str, Any]:
    gains = {arm["slug"]: float(rng.normal(0, 2)) for arm in arms if arm["verdict"] != "baseline"}
    return {
        "name": name,
        "host": 0.88,
        "arms": {slug: {"estimate": gain, "low": gain - 3.5, "high": gain + 3.5} for slug, gain in gains.items()},
    }


def _confusion(rng: np.random.Generator, classes: int) -> list[list[int]]:
    return (rng.integers(0, 9, (classes, classes)) + 400 * np.eye(classes, dtype=int)).tolist()


def one_seed() -> dict[str, Any]:
    """A study of one seed: no spread, no interval, no verdict."""
    record = results(arms=5, seeds=1)
    record["verdict"] = {
        "headline": "One seed shows no difference that could be distinguished from chance.",
        "sentences": ["Run at least three seeds."],
    }
    record["statistics"] |= {"critical": None, "df": 0, "residual_sd": None, "variance_check": None}
    record["statistics"]["why"] = "at least 2 seeds are needed to tell an effect from chance"
    record["statistics"] |= {"seeds_for_half_point": None, "seeds_for_one_point": None}
    for arm in record["arms"]:
        arm["sd"] = None
        if arm["difference"]:
            gain = arm["difference"]["estimate"]
            arm["verdict"], arm["difference"], arm["could_have_seen"] = "undecided", None, None
            arm["words"] = f"undecided: {gain:+.1f} points; at least 2 seeds are needed to tell an effect from chance"
    return record


def with_failures() -> dict[str, Any]:
    """A study in which one arm crashed in every seed and another diverged in one."""
    record = results()
    crashed = record["arms"][3]
    crashed |= {
        "scores": {},
        "mean": None,
        "sd": None,
        "difference": None,
        "verdict": "not run",
        "words": "not run: no trial finished",
        "n_done": 0,
    }
    crashed |= {"curves": {}, "pointing_game": None, "maps": None}
    del record["arms"][5]["scores"]["2"]
    record["arms"][5]["n_done"] -= 1
    record["arms"][5]["curves"]["2"][-1] |= {"train_loss": float("nan"), "val_loss": float("inf"), "val_score": None}
    error = "UsageError: Expected an odd kernel size\nReceived 4\nDo: choose 3, 5 or 7"
    record["failures"] = [{"arm": crashed["slug"], "seed": k, "status": "failed", "error": error} for k in range(5)]
    record["failures"].append(
        {"arm": record["arms"][5]["slug"], "seed": 2, "status": "diverged", "error": "loss is nan in epoch 12"}
    )
    return record


def detection() -> dict[str, Any]:
    """A study of a detector: judged by AP50, and by mAP too, with many objects in an image."""
    record = results(arms=5, seeds=3, epochs=6)
    record["measure"], record["class_measure"], record["object"], record["args"]["task"] = (
        "AP50",
        "AP50",
        "objects",
        "detect",
    )
    record["confusion"] = {slug: _confusion(np.random.default_rng(1), 11) for slug in record["confusion"]}
    record["model"]["name"], record["data"]["name"] = "yolov4-tiny", "digit-scenes"
    judged = {arm["slug"]: {**arm, "mean": arm["mean"] - 0.3} for arm in record["arms"]}
    verdict = {"headline": "CoordinateAttention helps: +0.80 points.", "sentences": []}
    record["also"] = {
        "mAP": {
            "verdict": verdict,
            "statistics": record["statistics"],
            "arms": judged,
            "versus_control": {},
            "starts": [],
        }
    }
    return record


def write_run(run: Path, record: dict[str, Any], *, pictures: int = 8, size: int = 64) -> Path:
    """Write `results.json`, and `maps.npz` for each arm that names one; `pictures=0` leaves the maps out."""
    run.mkdir(parents=True, exist_ok=True)
    for k, arm in enumerate(record["arms"]):
        if not pictures:
            arm["maps"] = None
        if arm["maps"]:
            path = run / arm["maps"]
            path.parent.mkdir(parents=True, exist_ok=True)
            np.savez_compressed(
                path,
                allow_pickle=False,
                **_maps(arm["mechanism"], pictures, size, k, record.get("args", {}).get("task")),
            )
    (run / "results.json").write_text(json.dumps(record), encoding="utf-8")
    return run


def _arm(rng: np.random.Generator, k: int, seeds: int, epochs: int) -> dict[str, Any]:
    slug, label, mechanism, where, start, gain = ARMS[k % len(ARMS)]
    if k >= len(ARMS):
        slug, label, where = slug.split("__")[0] + "__neck", f"{label} (neck)", "neck"
    accuracy = {str(s): 0.889 + gain / 100 + float(rng.normal(0, 0.003)) for s in range(seeds)}
    baseline = k == 0
    undecided = "practically equal" if abs(gain) < 0.2 else "undecided"
    half = 0.75 if abs(gain) < 0.2 else 0.85
    verdict = "baseline" if baseline else "helps" if gain > 0.9 else "hurts" if gain < -0.9 else undecided
    added = 0 if baseline else int(800 * (1 + k % len(ARMS)) * 1.37)
    ratio = 1.0 if baseline else 1 + 0.04 * (k % len(ARMS))
    return {
        "slug": slug,
        "label": label,
        "mechanism": mechanism,
        "where": where,
        "start": start,
        "plan": None
        if baseline
        else {"mechanism": mechanism, "sites": [{"name": f"stages.{i}", "shape": [1, 16, 64, 64]} for i in range(9)]},
        "sites": 0 if baseline else 9,
        "n_done": seeds,
        "scores": accuracy,
        "mean": float(np.mean(list(accuracy.values()))),
        "sd": float(np.std(list(accuracy.values()), ddof=1)) if seeds > 1 else None,
        "difference": None
        if baseline
        else {
            "estimate": gain,
            "low": gain - half,
            "high": gain + half,
            "p": 0.0002 if abs(gain) > 2 else 0.02 if gain > 0.9 else 0.4,
        },
        "could_have_seen": None if baseline else half,
        "verdict": verdict,
        "words": verdict
        if baseline
        else f"{verdict}: {gain:+.1f} points (95 % interval {gain - half:+.1f} to {gain + half:+.1f})",
        "cost": {
            "parameters": 272_474 + added,
            "added_parameters": added,
            "macs": 165_000_000 + 900 * added,
            "elementwise": 5_000_000 + 1000 * added,
            "bytes": 48_000_000 + 12_000 * added,
            "latency": {
                "ms": 8.4 * ratio,
                "ratio": ratio,
                "low": ratio - 0.018,
                "high": ratio + 0.021,
                "distinguishable": ratio > 1.02,
                "batch": 32,
                "rounds": 40,
            },
            "peak_memory": 312_000_000 + 4_000 * added,
        },
        "pointing_game": {
            kind: {
                "mass": 0.2 + 0.02 * k,
                "area": 0.191,
                "ratio": (0.2 + 0.02 * k) / 0.191,
                "pointing": 0.25 + 0.06 * k,
                "sd": 0.014,
            }
            for kind in GATES[mechanism]
        }
        if mechanism in GATES
        else None,
        "at_equal_loss": None
        if baseline
        else {"seeds": seeds, "train_loss": 0.41}
        | {name: gain / 2 + off for name, off in (("estimate", 0), ("low", -1), ("high", 1))},
        "curves": {str(s): [_epoch(rng, e, epochs, gain) for e in range(1, epochs + 1)] for s in range(seeds)},
        "maps": f"trials/{slug}__seed0/maps.npz" if mechanism in GATES or mechanism == "se" else None,
    }


def _epoch(rng: np.random.Generator, epoch: int, epochs: int, gain: float) -> dict[str, Any]:
    progress = 1 - float(np.exp(-4 * epoch / epochs))
    accuracy = 0.1 + (0.79 + gain / 100) * progress + float(rng.normal(0, 0.012))
    return {
        "epoch": epoch,
        "train_loss": 2.3 - 1.9 * progress,
        "val_loss": 2.3 - 1.8 * progress,
        "val_score": accuracy,
        "seconds": 1.9,
    }


def _maps(mechanism: str, pictures: int, size: int, k: int, task: str | None) -> dict[str, Any]:
    rng = np.random.default_rng(11)
    side, images, boxes = (
        size * 7 // 16,
        np.zeros((pictures, size, size, 3), np.uint8),
        np.zeros((pictures, 4), np.float32),
    )
    for i in range(pictures):
        for _ in range(16):
            y, x = rng.integers(0, size - size // 8, 2)
            images[i, y : y + size // 8, x : x + size // 8] = _blob(rng, size // 8)
        y, x = rng.integers(0, size - side, 2)
        images[i, y : y + side, x : x + side] = _blob(rng, side)
        boxes[i] = x, y, x + side, y + side
    maps: dict[str, Any] = {"images": images, "boxes": boxes[:, None]}
    if task == "detect":
        maps |= {"objects": np.full(pictures, 2), "found": np.arange(pictures) % 3, "false": np.arange(pictures) % 2}
        maps["boxes"] = np.stack([boxes, boxes / 2, np.full_like(boxes, np.nan)], 1)
    else:
        maps |= {"labels": np.arange(pictures) % 10, "predictions": (np.arange(pictures) * (1 + k % 2)) % 10}
    for site, grid in (("stages.0.2", size), ("stages.1.2", size // 2), ("stages.2.2", size // 4)):
        for kind in GATES.get(mechanism, ()):
            maps[f"gate/{site}/{kind}"] = np.stack([_gate(rng, box, size, grid, kind) for box in boxes])
        if mechanism in ("se", "cbam"):
            maps[f"channel/{site}/channel"] = rng.uniform(0.2, 0.8, (pictures, 16)).astype(np.float32)
    return maps


def _blob(rng: np.random.Generator, side: int) -> np.ndarray:
    y, x = np.mgrid[-1 : 1 : side * 1j, -1 : 1 : side * 1j]
    ring = np.exp(-(((np.hypot(x * rng.uniform(1, 1.7), y) - 0.6) / 0.2) ** 2))
    return np.repeat((255 * ring).astype(np.uint8)[..., None], 3, 2)


def _gate(rng: np.random.Generator, box: np.ndarray, size: int, grid: int, kind: str) -> np.ndarray:
    centre = (box[:2] + box[2:]) / 2 / size * grid
    y, x = np.mgrid[:grid, :grid] + 0.5
    distance = {
        "spatial": np.hypot(x - centre[0], y - centre[1]),
        "row": np.abs(y - centre[1]),
        "column": np.abs(x - centre[0]),
    }[kind]
    noise = 0.05 * rng.normal(size=(grid, grid)) if kind == "spatial" else 0.0
    return (0.3 + 0.5 * np.exp(-((distance / grid * 3.5) ** 2)) + noise).astype(np.float32)
