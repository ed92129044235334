"""MODEL_CARD.md: what was trained on what, how well it does, what it costs, and how to repeat it."""

from collections.abc import Mapping
from typing import Any

from foveate.errors import counted
from foveate.normalisation import Normalisation
from foveate.training.tasks import task


def model_card(results: Mapping[str, Any]) -> str:
    """Return the card of a study as Markdown."""
    args, env, data = results["args"], results["env"], results["data"]
    rows = [_row(arm) for arm in results["arms"]]
    return "\n".join(
        [
            f"# {plain_text(results['model']['name'])} on {plain_text(data['name'])}, with and without attention",
            "",
            plain_text(results["verdict"]["headline"]),
            "",
            f"| arm | test {results['measure']} % (sd) | difference, points (simultaneous 95 % interval) "
            "| latency ratio | parameters |",
            "|---|---|---|---|---|",
            *rows,
            "",
            *data_lines(data),
            f"- Seeds: {', '.join(map(str, results['seeds']))}; {counted(args['epochs'], 'epoch')}; "
            "the epoch is chosen on val, test is read once",
            f"- Latency: {_latency(results)}, "
            f"on {plain_text(env['gpu'] if args.get('device') == 'cuda' else env['processor'])}",
            f"- Made with Foveate {results['foveate']}, torch {env['packages'].get('torch', '?')}, "
            f"on {results['created']}",
            f"- Command: `{plain_text(results['command'])}`",
            "- Licence: Foveate is Apache-2.0; the weights in `trials/*/weights` are yours, "
            "under the terms of their training data",
            f"- Intended for comparing attention in small {task(args['task']).NETWORK}s; not checked for any other use",
            "",
        ]
    )


def data_lines(data: Mapping[str, Any]) -> list[str]:
    """Return what a card says of the data, from the content of data.json."""
    return [
        f"- Data: {plain_text(data['name'])}, {len(data['classes'])} classes, {data['size']} px, "
        f"fingerprint `{data['fingerprint']}`",
        f"- Source: {plain_text(data.get('source', 'not stated'))}",
        f"- Normalisation of the images: {plain_text(Normalisation.from_dict(data['normalisation'], 'the results'))}",
        f"- Augmentation of the training images: {plain_text(data.get('augmentation') or 'none')}",
    ]


def _row(arm: Mapping[str, Any]) -> str:
    score = (
        "-"
        if arm["mean"] is None
        else f"{100 * arm['mean']:.2f}" + (f" ({100 * arm['sd']:.2f})" if arm["sd"] is not None else "")
    )
    difference, latency = arm["difference"], (arm["cost"] or {}).get("latency")
    gained = (
        f"{difference['estimate']:+.2f} ({difference['low']:+.2f} to {difference['high']:+.2f})"
        if difference
        else arm["verdict"]
    )
    ratio = "-" if not latency else f"{latency['ratio']:.2f} ({latency['low']:.2f} to {latency['high']:.2f})"
    parameters = f"{arm['cost']['parameters']:,}" if arm["cost"] else "-"
    return f"| {plain_text(arm['label'])} | {score} | {gained} | {ratio} | {parameters} |"


def _latency(results: Mapping[str, Any]) -> str:
    found = next((arm["cost"]["latency"] for arm in results["arms"] if arm["cost"]), None)
    if found is None:
        return "not measured"
    setting = f"batch {found['batch']}, {found['threads']} thread(s), {found['rounds']} interleaved rounds"
    return f"{setting}, median and 99 % interval"


def plain_text(text: object) -> str:
    """Return one line that Markdown shows unchanged, as names of models, classes and folders come from outside."""
    line = " ".join(str(text).split())
    return "".join(f"&#{ord(c)};" if c in "|<>`*_[]&" else c for c in line)
