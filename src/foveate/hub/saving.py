"""Save a run or a model with attention as a repository, and push it to the Hugging Face Hub."""

import json
import os
import tempfile
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from foveate import plain_yaml, user_code
from foveate.errors import HostMovedWarning, UsageError, imported
from foveate.experiment.options import PLACES
from foveate.experiment.run_folder import BEST, LoadedRun, TrainedRun, load_run
from foveate.files import read_json
from foveate.hub import cards, keras_weights
from foveate.hub.repository import ADAPTER, CARD, FILES, KERAS_WEIGHTS, RUN_WEIGHTS, WEIGHTS, write
from foveate.models import save_weights
from foveate.surgery import save_adapter
from foveate.surgery.core.transfer import is_keras
from foveate.torch_utils.names import unwrapped

_RESULT = ("seed", "sha256", "best_epoch", "val_score", "test_score", "test_loss", "test")


def save_pretrained(
    source: Any, folder: str | os.PathLike[str], *, whole: bool = False, licence: str | None = None, about: str = ""
) -> Path:
    """Write a repository: the weights as safetensors, what loading them needs, and a card. Return its folder.

    Args:
        source: the folder of a run (of `foveate train`, or of a trial of a study), what `foveate.load_run` returns, or
            a model with attention attached, of PyTorch or Keras. A run is saved whole.
        folder: a new folder, or one that an earlier call made, which is replaced.
        whole: whether to save all weights of a model, and not only its attention.
        licence: the licence of the weights, by its identifier on the Hub, such as "apache-2.0".
        about: what the card says first, as Markdown: data, purpose, limits.

    Raises:
        UsageError: the source is none of these, or the folder holds something else.
        DataError: the run is damaged.
    """
    contents = _contents(source, whole, licence, about)
    write(Path(folder), contents)
    return Path(folder)


def push_to_hub(
    source: Any,
    name: str,
    *,
    private: bool = True,
    message: str = "Save with Foveate",
    revision: str | None = None,
    token: str | None = None,
    whole: bool = False,
    licence: str | None = None,
    about: str = "",
) -> str:
    """Save a repository as `save_pretrained` does, upload it as one commit, and return the address of the commit.

    Args:
        source: as in `save_pretrained`.
        name: "owner/name". A repository that does not exist is made.
        private: whether a new repository is private.
        message: of the commit.
        revision: the branch; None is the main one.
        token: by default that of `hf auth login`, or of the variable HF_TOKEN.
        whole: as in `save_pretrained`.
        licence: as in `save_pretrained`.
        about: as in `save_pretrained`.

    Raises:
        UsageError: as `save_pretrained`.
        huggingface_hub.errors.HfHubHTTPError: the Hub refuses it.
    """
    api = imported("huggingface_hub").HfApi(token=token)
    with tempfile.TemporaryDirectory() as folder:
        made = save_pretrained(source, Path(folder) / "repository", whole=whole, licence=licence, about=about)
        api.create_repo(name, private=private, exist_ok=True)
        commit = api.upload_folder(
            repo_id=name,
            folder_path=made,
            commit_message=message,
            revision=revision,
            delete_patterns=[*FILES],  # those of an earlier push that this one does not replace
        )
    return str(commit.commit_url)


def _contents(source: Any, whole: bool, licence: str | None, about: str) -> dict[str, bytes]:
    """Return the files of a repository by their names."""
    if isinstance(source, str | os.PathLike):
        source = load_run(os.fspath(source))
    if isinstance(source, LoadedRun):
        return _of_run(source, licence, about)
    if is_keras(source):
        from foveate.surgery.keras.attaching import save_adapter as save_of_keras

        with warnings.catch_warnings():
            if whole:  # the host's own weights are saved too
                warnings.simplefilter("ignore", HostMovedWarning)
            adapter = _written(ADAPTER, lambda path: save_of_keras(source, path))
        weights = {KERAS_WEIGHTS: keras_weights.save(source)} if whole else {}
        return {ADAPTER: adapter, **weights, CARD: cards.of_adapter(source, adapter, whole, licence, about).encode()}
    if not hasattr(source, "state_dict"):
        raise UsageError(
            expected="a run's folder, a run, or a model with attention",
            received=f"a {type(source).__name__}",
            do="pass the folder of a run, or the model itself",
        )
    model = unwrapped(source)
    with warnings.catch_warnings():
        if whole:  # the host's own weights are saved too
            warnings.simplefilter("ignore", HostMovedWarning)
        adapter = _written(ADAPTER, lambda path: save_adapter(model, path))
    weights = {WEIGHTS: _written(WEIGHTS, lambda path: save_weights(model, path))} if whole else {}
    return {ADAPTER: adapter, **weights, CARD: cards.of_adapter(model, adapter, whole, licence, about).encode()}


def _of_run(loaded: LoadedRun, licence: str | None, about: str) -> dict[str, bytes]:
    run, model = loaded.run, loaded.model
    args = _shared_args(run)
    data = {**run.data, "split": None, "notes": []}  # these name images
    result = _result(run)
    contents = {
        RUN_WEIGHTS: (run.folder / BEST).read_bytes(),
        "args.yaml": plain_yaml.dump(args).encode(),
        "data.json": _json(data),
        "results.json": _json(result),
    }
    if run.arm.is_attention:
        with warnings.catch_warnings(action="ignore", category=HostMovedWarning):
            contents[ADAPTER] = _written(ADAPTER, lambda path: save_adapter(model, path))
    card = cards.of_run(loaded, result, args, licence, about)
    return {**contents, CARD: card.encode(errors="backslashreplace")}


def _shared_args(run: TrainedRun) -> dict[str, Any]:
    """Return the options without what belongs to this machine: of a folder or a file, only its name is kept."""
    values = run.options.to_dict()
    places = {name: values[name] and Path(values[name]).name for name in PLACES}
    return {**run.options.asked(), **places} | ({"data": values["data"]} if run.options.planted else {})


def _result(run: TrainedRun) -> dict[str, Any]:
    """Return results.json, in the form that `foveate train` writes, also for a trial of a study."""
    record = read_json(run.folder / ("results.json" if (run.folder / "results.json").is_file() else "trial.json"))
    arm = run.arm.to_dict()
    return {
        "schema": 1,
        "model": user_code.short_name(run.options.model),
        "arm": {**arm, "mechanism": user_code.short_name(run.arm.mechanism)},
        "data": run.data["fingerprint"],
        "measure": run.options.what.MEASURE,
        **{name: record[name] for name in _RESULT},
    }


def _written(name: str, save: Any) -> bytes:
    """Return the content of a file that a function writes."""
    with tempfile.TemporaryDirectory() as folder:
        save(Path(folder) / name)
        return (Path(folder) / name).read_bytes()


def _json(value: Mapping[str, Any]) -> bytes:
    return (json.dumps(value, indent=1) + "\n").encode()
