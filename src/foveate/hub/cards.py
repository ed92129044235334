"""The card of a repository, README.md: metadata for the Hub, and what the records say of data, scores and cost."""

import re
import shlex
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from scipy.stats import binomtest

import foveate
from foveate import plain_yaml
from foveate.errors import counted
from foveate.experiment.environment import describe_environment
from foveate.experiment.options import Resolved, StudyOptions
from foveate.experiment.run_folder import LoadedRun, TrainedRun
from foveate.files import read_json
from foveate.studies.card import data_lines, model_card, plain_text
from foveate.studies.costs import measure_costs
from foveate.surgery.core.adapter_file import parse_adapter

SECONDS = 2.0  # of measuring the latency of a run's model
_LOAD_RUN = """from foveate import hub

run = hub.from_pretrained("FOLDER_OR_OWNER/NAME")
scores = run.model(run.preprocess("image.jpg"))  # the classes are run.classes"""
_LOAD_HOST = """from foveate import hub

model = hub.from_pretrained("FOLDER_OR_OWNER/NAME", host)  # host: the network that it was trained in"""


def of_run(
    loaded: LoadedRun, result: Mapping[str, Any], args: Mapping[str, Any], licence: str | None, about: str
) -> str:
    """Return the card of a run's model; that of a trial also has the card of its study."""
    run = loaded.run
    name = f"{result['model']} with {run.arm.slug}" if run.arm.is_attention else f"{result['model']}, {run.arm.slug}"
    kind = run.options.what.PIPELINE
    score = {"type": result["measure"].lower(), "value": round(result["test_score"], 4), "name": result["measure"]}
    measured = {
        "task": {"type": kind},
        "dataset": {"name": str(run.data["name"]), "type": str(run.data["kind"])},
        "metrics": [score],
    }
    head = _head(licence, [run.arm.mechanism] if run.arm.is_attention else [])
    head |= {"pipeline_tag": kind, "model-index": [{"name": name, "results": [measured]}]}
    study = run.folder.resolve().parent.parent / "results.json"
    if (run.folder / "trial.json").is_file() and study.is_file():
        rest = [f"Trial of a study: arm {run.arm.slug}, seed {run.seed}. {_score(run, result)}", "", _of_study(study)]
    else:
        rest = [*_of_training(loaded, result, args)]
    return _page(head, f"{name}, on {run.data['name']}", about, _LOAD_RUN, rest)


def of_adapter(model: Any, adapter: bytes, whole: bool, licence: str | None, about: str) -> str:
    """Return the card of the attention of a model, from its adapter."""
    content = parse_adapter(adapter, Path("adapter"))
    names = list(dict.fromkeys(entry.mechanism.name for entry in content.entries))
    rows = [
        f"| {plain_text(entry.name)} | {plain_text(entry.mechanism)} | {entry.start} | {entry.channels} |"
        for entry in content.entries
    ]
    rest = [
        "| site | mechanism | start | channels |",
        "|---|---|---|---|",
        *rows,
        "",
        f"- Host: {plain_text(type(model).__name__)}"
        + ("; all its weights are here" if whole else ", which is not here"),
        f"- Parameters of the attention: {sum(array.size for array in content.arrays.values()):,}",
        f"- Normalisation of the images: {plain_text(content.normalisation or 'not stated')}",
        f"- Saved with Foveate {foveate.__version__}",
    ]
    return _page(_head(licence, names), f"{', '.join(names)} for a {type(model).__name__}", about, _LOAD_HOST, rest)


def _head(licence: str | None, mechanisms: list[str]) -> dict[str, Any]:
    head: dict[str, Any] = {"license": licence} if licence else {}
    return head | {"library_name": "foveate", "tags": ["foveate", "visual-attention", *mechanisms]}


def _page(head: Mapping[str, Any], title: str, about: str, example: str, rest: list[str]) -> str:
    lines = ["---", plain_yaml.dump(head).rstrip(), "---", "", f"# {plain_text(title)}", ""]
    lines += [about.strip(), ""] if about.strip() else []
    lines += ["```python", example, "```", "", *rest]
    return "\n".join(lines).rstrip() + "\n"


def _of_study(results: Path) -> str:
    """Return the card of a study as a section: its table has the intervals and the cost of every arm."""
    found = read_json(results)
    return "#" + model_card({**found, "command": without_paths(found["command"])})


def _of_training(loaded: LoadedRun, result: Mapping[str, Any], args: Mapping[str, Any]) -> Iterator[str]:
    run = loaded.run
    yield from data_lines(run.data)
    epochs = counted(run.options.epochs, "epoch")
    yield f"- Seed: {run.seed}; {epochs}; epoch {result['best_epoch']} was best on val, test is read once"
    yield f"- {_score(run, result)}"
    yield f"- Cost of one image of {run.data['size']} px: {_cost(loaded)}"
    if (run.folder / "env.json").is_file():  # a shared repository has none
        env = read_json(run.folder / "env.json")
        yield f"- Trained with Foveate {env['foveate']}, torch {env['packages'].get('torch', '?')}"
    yield f"- Command: `{plain_text(command_of(args, run.seed))}`"


def _score(run: TrainedRun, result: Mapping[str, Any]) -> str:
    test = result["test"]
    text = f"Test {result['measure']}: {100 * result['test_score']:.2f} %"
    if "correct" in test and test["count"]:
        interval = binomtest(test["correct"], test["count"]).proportion_ci(method="wilson")
        low, high = (f"{100 * end:.2f}" for end in interval)
        text += f" (95 % interval over the test images: {low} to {high}; one seed)"
    return f"{text} {run.options.what.figures(test)}"


def _cost(loaded: LoadedRun) -> str:
    data, machine = loaded.run.data, describe_environment()
    shape = (data["channels"], data["size"], data["size"])
    cost = measure_costs({"model": loaded.model}, shape, seconds=SECONDS)["model"]
    latency = cost["latency"]
    return (
        f"{cost['parameters']:,} parameters, {cost['macs']:,} multiply-adds; "
        f"{latency['ms']:.2f} ms for a batch of {latency['batch']} on {plain_text(machine['processor'])}, "
        f"{counted(latency['threads'], 'thread')} (median of {latency['rounds']} rounds when this card was written)"
    )


def command_of(args: Mapping[str, Any], seed: int) -> str:
    """Return the command that trains with these options, without those at their defaults."""
    asked = Resolved.from_dict(dict(args))
    default = StudyOptions(task=asked.task, data=asked.data).resolve().asked()
    words = ["foveate", "train", *([str(asked.data)] if asked.data else [])]
    for name, value in {**asked.asked(), "weights": args["weights"]}.items():
        if name in ("control", "seeds", "margin", "credit") or value in (default.get(name), None):
            continue
        flag = name.replace("_", "-")
        if isinstance(value, bool):
            words.append(f"--{flag}" if value else f"--no-{flag}")
        else:
            words += [f"--{flag}", ",".join(value) if isinstance(value, list) else str(value)]
    return shlex.join([*words, *(["--seed", str(seed)] if seed else [])])


def without_paths(command: str) -> str:
    """Return a command in which absolute paths are only names, also those after "=" and ",".

    >>> without_paths("foveate study /home/me/photos --weights ~/w.safetensors --name /a/b/c")
    'foveate study photos --weights w.safetensors --name c'
    """
    try:
        words = shlex.split(command)
    except ValueError:  # an open quote
        words = command.split()
    return shlex.join("".join(map(_last, re.split(r"([=,])(?=[/~])", word))) for word in words)


def _last(text: str) -> str:
    return Path(text).name if text.startswith(("/", "~")) else text
