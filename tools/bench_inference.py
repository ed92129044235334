"""The tables of networks that are baked for inference."""

from collections.abc import Iterator
from typing import Any

from bench_models import ratio

HOST, BAKED = "plain host", "plain host, baked"
FORMS = {
    "attached": "",
    "baked": ", baked",
    "timm": ", timm",
    "timm, compiled": ", timm compiled",
    "onnxruntime": ", onnx",
    "OpenVINO": ", openvino",
}


def lines(record: dict[str, Any]) -> Iterator[str]:
    """Yield one table for each case: mechanisms in rows, forms in columns; baked also over the baked plain host."""
    for result in record["results"]:
        calls, place = result["calls"], f", {result['where']}" if result["where"] else ""
        names = [name.removesuffix(", baked") for name in calls if name.endswith(", baked") and name != BAKED]
        forms = {title: end for title, end in FORMS.items() if any(f"{name}{end}" in calls for name in names)}
        yield from ("", f"**{result['host']}{place}, batch {result['batch']}, {result['size']} px**", "")
        yield f"| | {' | '.join(forms)} | baked, over the baked plain host |"
        yield "|---|" + "---:|" * (len(forms) + 1)
        first = {"": f"{calls[HOST]['ms']:.1f} ms", ", baked": ratio(calls[BAKED])}
        yield f"| {HOST} | {' | '.join(first.get(end, '') for end in forms.values())} | |"
        again = {"": ratio(calls[f"{HOST} again"])}
        yield f"| {HOST} again | {' | '.join(again.get(end, '') for end in forms.values())} | |"
        for name in names:
            cells = [ratio(calls.get(f"{name}{end}")) for end in forms.values()]
            yield f"| {' | '.join([name, *cells, ratio(result['over_baked'][f'{name}, baked'])])} |"
