"""What the page says: `results.json` turned into plain text, before any HTML. No number appears that the record does not hold."""

from collections.abc import Iterator, Mapping
from typing import Any

from foveate.report import format as fmt
from foveate.report import table

SYMBOLS = {"helps": "▲", "hurts": "▼", "practically equal": "=", "undecided": "●", "baseline": "■", "not run": "○"}
TONES = {"helps": "helps", "hurts": "hurts", "baseline": "baseline"}
_LONGEST_LIST = 24
_JUDGED = 5  # columns of the table that follow from a measure

Facts = list[tuple[str, str]]


def view(results: Mapping[str, Any], drawn: Mapping[str, bool]) -> dict[str, Any]:
    """Return the texts of the page; `drawn` says which of the sections intervals, also, cost, gaze, maps, curves have something to show."""
    arms, data, model = results.get("arms") or [], results.get("data") or {}, results.get("model") or {}
    verdict, statistics = results.get("verdict") or {}, results.get("statistics") or {}
    measure, args = str(results.get("measure") or "accuracy"), results.get("args") or {}
    failures = [_failure(failure, arms) for failure in results.get("failures") or []]
    return {
        "title": f"Foveate study: {model.get('name', '?')} on {data.get('name', '?')}",
        "eyebrow": f"Does attention help {model.get('name', '?')} on {data.get('name', '?')}?",
        "headline": verdict.get("headline") or "No verdict",
        "sentences": verdict.get("sentences") or [],
        "measure": measure,
        "measure_title": measure[:1].upper() + measure[1:],
        "key_facts": _key_facts(results),
        "sections": _sections(drawn, bool(failures)),
        "rows": [_row(row, arm) for row, arm in zip(table.rows(results), arms, strict=True)],
        "also": _also(results),
        "latency": _latency(arms),
        "margin": _number(results.get("margin")),
        "warnings": results.get("warnings") or [],
        "why": _sentence(statistics.get("why")),
        "method": statistics.get("method"),
        "gaze_rows": list(_gaze_rows(arms)),
        "object": ("digit" if "digit" in str(data.get("name", "")) else "object") + "s" * (args.get("task") == "detect"),
        "failures": failures,
        "method_facts": _method_facts(statistics),
        "settings": _settings(results),
        "command": results.get("command") or fmt.MISSING,
        "foveate": results.get("foveate") or "",
    }


def flatten(value: Any, name: str = "") -> Iterator[tuple[str, str]]:
    """Yield (name, text) for every leaf of a nested record; lists of plain values stay on one line.

    >>> dict(flatten({"train": {"count": 3}, "seeds": [0, 1], "amp": None}))
    {'train · count': '3', 'seeds': '0, 1', 'amp': '–'}
    """
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from flatten(inner, f"{name} · {_spaced(key)}" if name else _spaced(key))
    elif isinstance(value, list) and any(isinstance(inner, Mapping | list) for inner in value):
        yield name, f"{len(value)} entries"
    elif isinstance(value, list):
        more = f", … ({len(value)} in all)" if len(value) > _LONGEST_LIST else ""
        yield name, (", ".join(map(_plain, value[:_LONGEST_LIST])) + more) or fmt.MISSING
    else:
        yield name, _plain(value)


def _key_facts(results: Mapping[str, Any]) -> Facts:
    arms, model = results.get("arms") or [], results.get("model") or {}
    facts = [
        ("Data", str((results.get("data") or {}).get("name", fmt.MISSING))),
        ("Model", str(model.get("name", fmt.MISSING))),
        ("Parameters", fmt.count(model.get("parameters"))),
        ("Arms", str(len(arms))),
        ("Seeds", str(len(results.get("seeds") or []))),
        ("Epochs", _plain((results.get("args") or {}).get("epochs"))),
        ("Date", str(results.get("created", fmt.MISSING))[:10]),
    ]
    return [(term, value) for term, value in facts if value != fmt.MISSING]


def _sections(drawn: Mapping[str, bool], failed: bool) -> Facts:
    every = [
        ("table", "Table", True),
        ("intervals", "Intervals", True),
        ("also", "By another measure", drawn["also"]),
        ("cost", "Cost", drawn["cost"]),
        ("gaze", "Gaze", drawn["gaze"]),
        ("maps", "Maps", drawn["maps"]),
        ("curves", "Training", drawn["curves"]),
        ("failures", "Failures", failed),
        ("method", "Method", True),
        ("setting", "Setting", True),
        ("command", "Command", True),
    ]
    return [(anchor, words) for anchor, words, there in every if there]


def _row(row: table.Row, arm: Mapping[str, Any]) -> dict[str, Any]:
    told = str(arm.get("words") or "")
    explained = arm.get("difference") or told == row.verdict
    return {
        "cells": row.cells(),
        "tone": TONES.get(row.verdict, "calm"),
        "symbol": SYMBOLS.get(row.verdict, "●"),
        "note": "" if explained else told.removeprefix(row.verdict).lstrip(": "),
    }


def _also(results: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return what the study says by each further measure: its name, its headline and the first columns of the table."""
    return [
        {
            "measure": name,
            "headline": ((results["also"][name] or {}).get("verdict") or {}).get("headline") or "No verdict",
            "headings": list(table.headings({"measure": name}).values())[:_JUDGED],
            "rows": [row.cells()[:_JUDGED] for row in table.rows({"arms": judged})],
        }
        for name, judged in table.also(results).items()
    ]


def _latency(arms: list[Mapping[str, Any]]) -> Mapping[str, Any]:
    """Return how latency was measured, as any arm tells it."""
    measured = ((arm.get("cost") or {}).get("latency") or {} for arm in arms)
    return next((latency for latency in measured if latency.get("batch") and latency.get("rounds")), {})


def _gaze_rows(arms: list[Mapping[str, Any]]) -> Iterator[list[str]]:
    for arm in arms:
        for kind, gaze in (arm.get("gaze") or {}).items():
            if gaze:
                spread = f" ± {100 * gaze['sd']:.1f}" if fmt.known(gaze.get("sd")) else ""
                mass = fmt.share(gaze.get("mass")).replace(" %", f"{spread} %")
                label = f"{arm.get('label') or arm.get('slug')} · {kind}"
                yield [label, mass, fmt.share(gaze.get("area")), fmt.times(gaze.get("ratio")), fmt.share(gaze.get("pointing"))]


def _failure(failure: Mapping[str, Any], arms: list[Mapping[str, Any]]) -> dict[str, str]:
    slug = failure.get("arm")
    label = next((arm.get("label") for arm in arms if arm.get("slug") == slug), None) or slug
    return {
        "arm": str(label),
        "what": f"seed {failure.get('seed')}: {failure.get('status')}",
        "error": str(failure.get("error") or fmt.MISSING),
    }


def _method_facts(statistics: Mapping[str, Any]) -> Facts:
    check = statistics.get("variance_check") or {}
    facts = [
        (
            "Method",
            {"dunnett-blocked": "Dunnett, seeds as blocks", "paired-holm": "paired t, Holm"}.get(str(statistics.get("method")), "none"),
        ),
        ("Critical value", _number(statistics.get("critical"))),
        ("Degrees of freedom", _plain(statistics.get("df"))),
        ("Residual standard deviation, points", _number(statistics.get("residual_sd"))),
        (f"Equal spread ({check.get('name', 'check')})", f"p = {fmt.p_value(check.get('p'))}" if check else fmt.MISSING),
        ("Seeds needed to find 1 point", _plain(statistics.get("seeds_for_one_point"))),
        ("Seeds needed to find half a point", _plain(statistics.get("seeds_for_half_point"))),
    ]
    return [(term, value) for term, value in facts if value != fmt.MISSING]


def _settings(results: Mapping[str, Any]) -> list[tuple[str, Facts]]:
    blocks = [("Data", "data"), ("Environment", "env"), ("Arguments", "args")]
    return [(title, list(flatten(results[key]))) for title, key in blocks if results.get(key)]


def _sentence(text: Any) -> str:
    text = str(text or "").strip().rstrip(".")
    return f"{text[:1].upper()}{text[1:]}." if text else ""


def _number(value: Any) -> str:
    return f"{value:.2f}" if fmt.known(value) else fmt.MISSING


def _plain(value: Any) -> str:
    if value is None or value == "":
        return fmt.MISSING
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}" if abs(value) >= 10_000 else str(value)
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _spaced(key: Any) -> str:
    return str(key).replace("_", " ")
