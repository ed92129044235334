"""The texts of the page: `results.json` turned into plain text, before any HTML; every number is from the record."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from foveate.report import format as fmt
from foveate.report import pointing_game_plot, results_table
from foveate.report.axes import label
from foveate.report.pictures import Pictures
from foveate.report.plots import MOST_CLASSES, Plots, changed, compared, side

SYMBOLS = {"helps": "▲", "hurts": "▼", "practically equal": "=", "undecided": "?", "baseline": "■", "not run": "○"}
TONES = {"helps": "helps", "hurts": "hurts", "practically equal": "equal", "baseline": "baseline"}
FILES = {  # that the study writes into the folder of the page
    "results.json": "all that this page shows, as data",
    "explorer.html": "the maps of all arms: choose, fade, compare",
    "MODEL_CARD.md": "the model card",
}
EXPLORER = "explorer.html"
_LONGEST_LIST = 24
_JUDGED = ("arm", "verdict", "score", "difference", "p", "could_have_seen")  # columns of the table by a further measure

Facts = list[tuple[str, str]]


def view(results: Mapping[str, Any], plots: Plots, maps: Pictures | None, files: Sequence[str]) -> dict[str, Any]:
    """Return the texts of the page; `files` are those of `FILES` that exist in its folder."""
    arms, data, model = results.get("arms") or [], results.get("data") or {}, results.get("model") or {}
    verdict, statistics = results.get("verdict") or {}, results.get("statistics") or {}
    measure, args = str(results.get("measure") or "accuracy"), results.get("args") or {}
    failures = [_failure(failure, arms) for failure in results.get("failures") or []]
    return {
        "title": f"Foveate study: {model.get('name', '?')} on {data.get('name', '?')}",
        "eyebrow": f"Does attention help {model.get('name', '?')} on {data.get('name', '?')}?",
        "headline": verdict.get("headline") or "No verdict",
        "advice": results.get("advice") or "",
        "warnings": results.get("warnings") or [],
        "sentences": verdict.get("sentences") or [],
        "measure": measure,
        "measure_title": measure[:1].upper() + measure[1:],
        "key_facts": _key_facts(results),
        "sections": _sections(plots, maps, bool(failures)),
        "headings": [results_table.headings(results)[name] for name in results_table.JUDGED],
        "rows": [_row(row, arm) for row, arm in zip(results_table.rows(results), arms, strict=True)],
        "counted": [
            [results_table.headings(results)[name] for name in results_table.COUNTED],
            [row.cells(results_table.COUNTED) for row in results_table.rows(results)],
        ],
        "also": _also(results),
        "latency": _latency(arms),
        "margin": _points(results.get("margin")),
        "sequential": (results.get("design") or {}).get("kind") == "sequential",
        "far": [label(arm) for arm in arms if plots.near and arm.get("difference") and arm not in plots.near],
        "classes": _classes(results),
        "equal_loss": list(_equal_loss(arms)),
        "why": _sentence(statistics.get("why")),
        "method": statistics.get("method"),
        "pointing_game_rows": list(_pointing_game_rows(arms)),
        "pointing_game_kinds": {kind for _, kind, _ in pointing_game_plot.rows(arms)},
        "object": str(results.get("object") or "object").replace(
            "object", "digit" if "digit" in str(data.get("name", "")) else "object"
        ),
        "credit": args.get("credit") or "",
        "failures": failures,
        "method_facts": _method_facts(results),
        "changed": _changed(results),
        "settings": _settings(results),
        "command": results.get("command") or fmt.MISSING,
        "files": [(name, FILES[name]) for name in files],
        "plots": [one.name for one in plots.files()],
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


def _sections(plots: Plots, maps: Pictures | None, failed: bool) -> Facts:
    every = [
        ("table", "Table", True),
        ("intervals", "Intervals", True),
        ("also", "By another measure", plots.also),
        ("cost", "Cost", True),
        ("classes", "Classes", plots.classes or plots.confusion),
        ("pointing-game", "Pointing game", plots.pointing_game),
        ("maps", "Maps", maps),
        ("curves", "Training", plots.curves or plots.epoch),
        ("failures", "Failures", failed),
        ("method", "Method", True),
        ("setting", "Settings", True),
        ("files", "Files", True),
    ]
    return [(anchor, words) for anchor, words, there in every if there]


def _row(row: results_table.Row, arm: Mapping[str, Any]) -> dict[str, Any]:
    words = str(arm.get("words") or "")
    explained = arm.get("difference") or words == row.verdict
    return {
        "cells": row.cells(results_table.JUDGED),
        "tone": TONES.get(row.verdict, "calm"),
        "symbol": SYMBOLS.get(row.verdict, "●"),
        "note": "" if explained else words.removeprefix(row.verdict).lstrip(": "),
    }


def _classes(results: Mapping[str, Any]) -> dict[str, Any]:
    """Return the table of every class and arm, and what the plots of classes show."""
    arms = [arm for arm in results.get("arms") or [] if arm.get("verdict") != "baseline"]
    every = results.get("classes") or []
    best, shown = compared(results), len(changed(results))
    return {
        "measure": results.get("class_measure") or "score",
        "best": label(best) if best else "",
        "some": f"the {shown} of {len(every)} classes that change most" if shown == MOST_CLASSES < len(every) else "",
        "headings": ["Class", "Plain host, %", *(label(arm) for arm in arms)],
        "rows": [
            (
                one["name"],
                fmt.score(one.get("host")),
                [_cell((one.get("arms") or {}).get(arm.get("slug"))) for arm in arms],
            )
            for one in every
        ],
    }


def _cell(difference: Mapping[str, Any] | None) -> tuple[str, str]:
    return (fmt.difference(difference), side(difference)) if difference else (fmt.MISSING, "undecided")


def _also(results: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the results by each further measure: its name, its headline and the first columns of the table."""
    return [
        {
            "measure": name,
            "headline": ((results["also"][name] or {}).get("verdict") or {}).get("headline") or "No verdict",
            "headings": [results_table.headings({"measure": name})[column] for column in _JUDGED],
            "rows": [row.cells(_JUDGED) for row in results_table.rows({"arms": judged})],
        }
        for name, judged in results_table.also(results).items()
    ]


def _latency(arms: list[Mapping[str, Any]]) -> Mapping[str, Any]:
    """Return how latency was measured, from any arm that records it."""
    measured = ((arm.get("cost") or {}).get("latency") or {} for arm in arms)
    return next((latency for latency in measured if latency.get("batch") and latency.get("rounds")), {})


def _pointing_game_rows(arms: list[Mapping[str, Any]]) -> Iterator[list[str]]:
    for arm, kind, found in pointing_game_plot.rows(arms):
        spread = f" ± {100 * found['sd']:.1f}" if fmt.known(found.get("sd")) else ""
        mass = fmt.share(found.get("mass")).replace(" %", f"{spread} %")
        yield [
            f"{label(arm)} · {kind}",
            mass,
            fmt.share(found.get("area")),
            fmt.times(found.get("ratio")),
            fmt.share(found.get("pointing")),
        ]


def _equal_loss(arms: list[Mapping[str, Any]]) -> Iterator[list[str]]:
    for arm in arms:
        if found := arm.get("at_equal_loss"):
            loss, gain = found.get("train_loss"), (arm.get("difference") or {}).get("estimate")
            yield [
                label(arm),
                fmt.points(gain),
                fmt.difference(found),
                f"{loss:.3g}" if fmt.known(loss) else fmt.MISSING,
            ]


def _failure(failure: Mapping[str, Any], arms: list[Mapping[str, Any]]) -> dict[str, str]:
    slug = failure.get("arm")
    label = next((arm.get("label") for arm in arms if arm.get("slug") == slug), None) or slug
    return {
        "arm": str(label),
        "what": f"seed {failure.get('seed')}: {failure.get('status')}",
        "error": str(failure.get("error") or fmt.MISSING),
    }


def _method_facts(results: Mapping[str, Any]) -> Facts:
    statistics = results.get("statistics") or {}
    check = statistics.get("variance_check") or {}
    method = {"dunnett-blocked": "Dunnett, seeds as blocks", "paired-holm": "paired t, Holm"}.get(
        str(statistics.get("method")), "none"
    )
    facts = [
        ("Method", method),
        ("Seeds", _design(results)),
        ("Margin, points", fmt.plus_minus(results.get("margin"))),
        ("Critical value", _number(statistics.get("critical"))),
        ("Degrees of freedom", _plain(statistics.get("df"))),
        ("Residual standard deviation, points", _number(statistics.get("residual_sd"))),
        (f"Equal spread ({check.get('name', 'check')}), p", fmt.p_value(check.get("p"))),
        ("Seeds needed to find 1 point", _plain(statistics.get("seeds_for_one_point"))),
        ("Seeds needed to find half a point", _plain(statistics.get("seeds_for_half_point"))),
    ]
    return [(term, value) for term, value in facts if value != fmt.MISSING]


def _design(results: Mapping[str, Any]) -> str:
    """Return how many seeds ran, and whether the number was fixed beforehand."""
    design, ran = results.get("design") or {}, len(results.get("seeds") or [])
    if design.get("kind") == "sequential":
        return f"{ran} of {_plain(design.get('least'))} to {_plain(design.get('most'))}, judged after each"
    return f"{ran}, fixed beforehand"


def _changed(results: Mapping[str, Any]) -> Facts:
    """The arguments that are not at their defaults."""
    args = results.get("args") or {}
    return [pair for name in results.get("changed") or [] if name in args for pair in flatten({name: args[name]})]


def _settings(results: Mapping[str, Any]) -> list[tuple[str, Facts]]:
    blocks = [("All arguments", "args"), ("Data", "data"), ("Environment", "env")]
    return [(title, list(flatten(results[key]))) for title, key in blocks if results.get(key)]


def _sentence(text: Any) -> str:
    text = str(text or "").strip().rstrip(".")
    return f"{text[:1].upper()}{text[1:]}." if text else ""


def _points(value: Any) -> str:
    return f"{value:g} point{'s' * (value != 1)}" if fmt.known(value) else ""


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
