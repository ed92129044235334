"""Simulate studies and how often `foveate study` judges right: a record, and the tables of docs/design/verdict.md."""

import argparse
import json
import os
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import special

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from benchmarks.harness import provenance  # noqa: E402

from foveate import files  # noqa: E402
from foveate.studies.design import Design  # noqa: E402
from foveate.studies.dunnett import critical_value  # noqa: E402
from foveate.studies.two_way import fit_two_way, unequal_spread  # noqa: E402

RECORD, PAGE = ROOT / "benchmarks" / "simulations" / "verdicts.json", ROOT / "docs" / "design" / "verdict.md"
BLOCK = re.compile(r"(<!-- table: (\w+) -->\n).*?(<!-- /table -->)", re.DOTALL)
ARMS, LEAST, MOST, MARGIN, LEVEL = 5, 3, 20, 1.0, 0.95

Array = NDArray[np.float64]

# The relative standard deviation of each arm's trials, the baseline first.
SPREADS: dict[str, Sequence[float]] = {
    "all alike": (1, 1, 1, 1, 1, 1),
    "one arm twice as noisy": (1, 1, 1, 1, 1, 2),
    "one arm four times": (1, 1, 1, 1, 1, 4),
    "one arm a quarter": (1, 1, 1, 1, 1, 0.25),
    "half the arms three times": (1, 1, 1, 3, 3, 3),
    "the baseline twice": (2, 1, 1, 1, 1, 1),
    "the baseline four times": (4, 1, 1, 1, 1, 1),
}
TAILS = {"all alike, t with 5 degrees of freedom": 5, "all alike, t with 3 degrees of freedom": 3}
NOISE = (0.35, 0.5, 0.7)  # points: the standard deviation of a trial
# True differences from the baseline, in points.
TRUTHS: dict[str, Sequence[float]] = {
    "none has any effect": (0, 0, 0, 0, 0),
    "all within the margin": (0, 0.2, -0.2, 0.1, 0),
    "one helps by 2": (2, 0, 0, 0, 0),
    "one helps by 4, one hurts by 2": (4, -2, 0, 0, 0),
    "all large: 3 to 8": (6, 5, 4, -8, 3),
}


def intervals(scores: Array, design: Design) -> tuple[Array, Array]:
    """Return the ends `(studies, arms)` of `compare`'s intervals for complete scores `(studies, 1 + arms, seeds)`."""
    studies, rows, seeds = scores.shape
    model, values = fit_two_way(np.ones((rows, seeds), dtype=bool)), scores.reshape(studies, -1)
    level, estimates = design.level(rows - 1, LEVEL), values @ model.solve.T
    spread = np.sqrt((model.residuals(values) ** 2).sum(1) / model.df)
    half = (
        critical_value([np.sqrt(0.5)] * (rows - 1), model.df, level) * spread[:, None] * np.sqrt(2 / seeds)
        + 0 * estimates
    )
    if rows > 2:
        own = (scores[:, 1:] - scores[:, :1]).std(-1, ddof=1) / np.sqrt(seeds)
        bound = float(special.stdtrit(seeds - 1, 1 - (1 - level) / (2 * (rows - 1))))
        alike = unequal_spread(model, values)[1] > design.check_level
        half = np.where(alike[:, None], half, bound * own)
    return estimates - half, estimates + half


def simulate(scores: Array, effects: Array, least: int, most: int, margin: float = MARGIN) -> dict[str, float]:
    """Judge simulated studies, one seed after another, and return rates; `scores` do not contain the effects yet.

    `false_at_the_end`: an arm without effect is finally judged "helps" or "hurts". `false_at_any_look`: the same at any
    look, as if it were the last. `covered`: all final intervals of a study contain the true differences. `right`: all
    verdicts of the study are true.
    """
    scores = scores + np.concatenate([[0.0], effects])[:, None]
    studies, none = len(scores), effects == 0
    running, looked_wrong = np.ones(studies, dtype=bool), np.zeros(studies, dtype=bool)
    low, high = np.empty((2, studies, len(effects)))
    seeds = np.full(studies, most)
    for n in range(least, most + 1):
        low_now, high_now = intervals(scores[:, :, :n], Design(least, most, n))
        looked_wrong |= ((low_now > 0) | (high_now < 0))[:, none].any(1)
        low[running], high[running] = low_now[running], high_now[running]
        equal = np.maximum(-low_now, high_now) < margin
        decided = (equal | (low_now > 0) | (high_now < 0)).all(1)
        seeds[running & decided] = n
        running &= ~decided
    equal = np.maximum(-low, high) < margin
    helps, hurts = ~equal & (low > 0), ~equal & (high < 0)
    right = np.where(np.abs(effects) < margin, equal, np.where(effects > 0, helps, hurts))
    return {
        "false_at_the_end": float((helps | hurts)[:, none].any(1).mean()),
        "false_at_any_look": float(looked_wrong.mean()),
        "covered": float(((low <= effects) & (effects <= high)).all(1).mean()),
        "right": float(right.all(1).mean()),
        "seeds": float(seeds.mean()),
        "decided": float(1 - running.mean()),
    }


def draw(
    studies: int,
    stream: int,
    spread: Sequence[float] = SPREADS["all alike"],
    tails: int | None = None,
    seeds: int = MOST,
) -> Array:
    """Return noise `(studies, 1 + arms, seeds)`, normal or Student's t of variance 1, plus a common effect per seed."""
    rng, shape = np.random.default_rng(stream), (studies, len(spread), seeds)
    noise = (
        rng.normal(size=shape) if tails is None else rng.standard_t(tails, size=shape) / np.sqrt(tails / (tails - 2))
    )
    return noise * np.array(spread)[:, None] + rng.normal(0, 2, (studies, 1, seeds))


def null_studies(studies: int, least: int = LEAST, most: int = MOST) -> dict[str, dict[str, float]]:
    """Return the rates for studies without any effect, by the spread of the arms; the margin is practically 0."""
    cases: dict[str, tuple[Sequence[float], int | None]] = {name: (spread, None) for name, spread in SPREADS.items()}
    cases |= {name: (SPREADS["all alike"], tails) for name, tails in TAILS.items()}
    return {
        name: simulate(draw(studies, k, spread, tails), np.zeros(ARMS), least, most, margin=1e-9)
        for k, (name, (spread, tails)) in enumerate(cases.items())
    }


def savings(studies: int) -> list[dict[str, Any]]:
    """Compare the sequential study with the fixed study that is right as often, by noise and truth; then give means."""
    rows: list[dict[str, Any]] = []
    for sd in NOISE:
        for k, (name, effects) in enumerate(TRUTHS.items()):
            scores, truth = sd * draw(studies, 100 + k), np.array(effects, dtype=float)
            fixed = [simulate(scores[:, :, :n], truth, n, n)["right"] for n in range(2, MOST + 1)]
            rows.append({"sd": sd, "truth": name, "fixed_right": fixed, **simulate(scores, truth, LEAST, MOST)})
    means = [_mean([row for row in rows if row["sd"] == sd], sd) for sd in NOISE] + [_mean(rows, None)]
    return [{**row, "fixed_seeds": _fewest(row["fixed_right"], row["right"])} for row in [*rows, *means]]


def _mean(rows: Sequence[Mapping[str, Any]], sd: float | None) -> dict[str, Any]:
    mean = {key: float(np.mean([row[key] for row in rows])) for key in ("right", "seeds")}
    return {
        "sd": sd,
        "truth": None,
        "fixed_right": np.mean([row["fixed_right"] for row in rows], axis=0).tolist(),
        **mean,
    }


def _fewest(right: Sequence[float] | Array, wanted: float) -> int:
    """Return the fewest seeds, from 2 up, that are right as often as wanted; the largest number where none is."""
    enough = np.asarray(right) >= wanted
    return 2 + (int(enough.argmax()) if enough.any() else len(enough) - 1)


def tables(record: Mapping[str, Any]) -> dict[str, list[str]]:
    """Return the tables of the page."""
    return {
        "null": list(_null_table(record["null"])),
        "fixed": list(_fixed_table(record["fixed"])),
        "savings": list(_savings_table(record["savings"])),
    }


def fill(page: str, record: Mapping[str, Any]) -> str:
    """Return the page with its tables made from the record."""
    made = tables(record)
    return BLOCK.sub(lambda match: f"{match[1]}\n{chr(10).join(made[match[2]])}\n\n{match[3]}", page)


def _null_table(null: Mapping[str, Mapping[str, float]]) -> Iterator[str]:
    yield "| how the arms scatter | false at the end | false at any look | final intervals that hold |"
    yield "|---|---:|---:|---:|"
    for name, row in null.items():
        end, any_look, covered = (_percent(row[key]) for key in ("false_at_the_end", "false_at_any_look", "covered"))
        yield f"| {name} | {end} | {any_look} | {covered} |"


def _fixed_table(fixed: Mapping[str, Mapping[str, Mapping[str, float]]]) -> Iterator[str]:
    yield f"| how the arms scatter | {' | '.join(f'{seeds} seeds' for seeds in fixed)} |"
    yield "|---|" + "---:|" * len(fixed)
    for name in next(iter(fixed.values())):
        yield f"| {name} | {' | '.join(_percent(rows[name]['false_at_the_end']) for rows in fixed.values())} |"


def _savings_table(savings: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    yield (
        "| noise of a trial, points | truth | every verdict right | seeds, 3..20 "
        "| fixed seeds for the same | fewer trials |"
    )
    yield "|---:|---|---:|---:|---:|---:|"
    for row in sorted(savings, key=lambda row: (row["sd"] is None, row["sd"])):
        saved, bold = 1 - row["seeds"] / row["fixed_seeds"], "" if row["truth"] else "**"
        name = row["truth"] or ("mean of these" if row["sd"] else "mean of all, the noise unknown beforehand")
        yield (
            f"| {row['sd'] or 'any'} | {bold}{name}{bold} | {_percent(row['right'])} | {row['seeds']:.1f} "
            f"| {row['fixed_seeds']} | {100 * saved:.0f} % |"
        )


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def main() -> int:
    """Simulate and write the record and the page, or with --tables only write the page's tables from the record."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tables", action="store_true", help="do not simulate")
    parser.add_argument("--studies", type=int, default=4000)
    given = parser.parse_args()
    if not given.tables:
        load, studies = os.getloadavg()[0], given.studies
        record = {
            "studies": studies,
            "arms": ARMS,
            "null": null_studies(studies),
            "fixed": {str(seeds): null_studies(studies, seeds, seeds) for seeds in (3, 5, 10, 20)},
            "savings": savings(studies),
            "provenance": provenance(1, load),
        }
        files.write_json(RECORD, record)
    PAGE.write_text(
        fill(PAGE.read_text(encoding="utf-8"), json.loads(RECORD.read_text(encoding="utf-8"))), encoding="utf-8"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
