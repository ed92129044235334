"""The tables of a study's time on many machines."""

from collections.abc import Iterator
from typing import Any

from foveate.studies.outline import clock


def lines(record: dict[str, Any]) -> Iterator[str]:
    """Yield a table for each study, predicted beside simulated by machines, and that of the check with Ray."""
    probe, steps = record["probe"], record["steps"].values()
    yield ""
    start, event, runs = probe["start_up"], 1000 * probe["event"], record["rounds"]
    yield f"Probe of this machine: {start:.0f} s until a node can train, {event:.1f} ms for an event. A step takes"
    yield f"{min(steps):.1f} to {max(steps):.1f} s. Each simulated time is the median of {runs} runs."
    for study in record["studies"]:
        yield from ("", f"**{study['study']}** ({study['trials']} trials)", "")
        yield "| machines | predicted | times as fast | most of it is | simulated | 5 % to 95 % of the runs |"
        yield "|---:|---:|---:|---|---:|---:|"
        for row in study["machines"]:
            low, high = ("never" if end is None else clock(end) for end in row["interval"])
            cells = [clock(row["seconds"]), f"{row['times_faster']:.1f}", row["bound"], clock(row["simulated"])]
            yield f"| {row['machines']:,} | {' | '.join(cells)} | {low} to {high} |"
    yield from ("", "| nodes | trials that sleep | predicted | measured | measured / predicted |")
    yield "|---:|---:|---:|---:|---:|"
    for row in record["real"]:
        ratio = row["measured"] / row["predicted"]
        times = f"{row['predicted']:.1f} s | {row['measured']:.1f} s | {ratio:.2f}"
        yield f"| {row['nodes']} | {row['trials']} | {times} |"
