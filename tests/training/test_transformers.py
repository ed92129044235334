"""Attend with Hugging Face's Trainer, on a tiny network made here. It runs where transformers is installed."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

import foveate
from foveate.errors import UsageError
from foveate.surgery.torch.child import attached
from training.toy import equal, state_of

transformers = pytest.importorskip("transformers", reason='needs pip install "foveate[transformers]"')
pytest.importorskip("accelerate", reason='needs pip install "foveate[transformers]"')
pytestmark = [
    pytest.mark.slow,  # the import alone takes seconds
    pytest.mark.filterwarnings("default::DeprecationWarning", "default::FutureWarning", "default::UserWarning"),
]

SHAPE = (2, 3, 32, 32)
WHERE = "resnet.encoder.stages.*.layers.0.layer"


def network(seed: int = 0) -> Any:
    torch.manual_seed(seed)
    sizes: dict[str, Any] = {"embedding_size": 8, "hidden_sizes": [8, 16], "depths": [1, 1], "layer_type": "basic"}
    return transformers.ResNetForImageClassification(transformers.ResNetConfig(**sizes, num_labels=5))


def images() -> list[dict[str, Any]]:
    draw = torch.Generator().manual_seed(0)
    return [{"pixel_values": torch.randn(3, 32, 32, generator=draw), "labels": k % 5} for k in range(12)]


def trainer(model: Any, folder: Path, *callbacks: Any, epochs: int = 1, **options: Any) -> Any:
    arguments = transformers.TrainingArguments(
        output_dir=str(folder),
        num_train_epochs=epochs,
        per_device_train_batch_size=4,
        lr_scheduler_type="constant",
        learning_rate=0.01,
        use_cpu=True,
        report_to="none",
        disable_tqdm=True,
        **{"save_strategy": "epoch", "logging_strategy": "epoch", **options},
    )
    return transformers.Trainer(model=model, args=arguments, train_dataset=images(), callbacks=list(callbacks))


def attend(**options: Any) -> Any:
    from foveate.transformers import Attend

    return Attend("cbam", WHERE, example={"pixel_values": torch.zeros(SHAPE)}, reduction=2, **options)


def test_a_resumed_run_is_the_uninterrupted_one(tmp_path: Path) -> None:
    whole = network()
    trainer(whole, tmp_path / "whole", attend(), epochs=2).train()
    assert len(attached(whole)) == 2
    resumed = network(seed=1)
    trainer(resumed, tmp_path / "again", attend(), epochs=2).train(
        resume_from_checkpoint=str(tmp_path / "whole" / "checkpoint-3")
    )
    assert equal(state_of(resumed), state_of(whole))


def test_the_optimizer_moves_the_attention_and_the_adapter_fits_the_network(tmp_path: Path) -> None:
    model = network()
    made = trainer(model, tmp_path, attend(adapter=tmp_path / "cbam.safetensors"))
    foveate.freeze_host(model)
    model.classifier.requires_grad_(True)
    before = [parameter.clone() for parameter in foveate.attention_parameters(model)]
    with pytest.warns(foveate.errors.HostMovedWarning, match=r"classifier\.1"):
        made.train()
    after = foveate.attention_parameters(model)
    assert any(not torch.equal(old, new) for old, new in zip(before, after, strict=True))
    bare = network()
    bare.load_state_dict(foveate.host_state_dict(model))
    foveate.load_adapter(bare, tmp_path / "cbam.safetensors", example={"pixel_values": torch.zeros(SHAPE)})
    x = torch.randn(SHAPE)
    assert torch.equal(bare.eval()(x).logits, model.eval()(x).logits)


class Reporter(transformers.TrainerCallback):
    """A tracker that stands after Attend."""

    def __init__(self) -> None:
        self.seen: list[dict[str, float]] = []

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **others: Any) -> None:
        self.seen.append(dict(logs))


@pytest.mark.parametrize("logs", [True, False])
def test_gates_reach_the_history_and_later_reporters(logs: bool, tmp_path: Path) -> None:
    reporter, model = Reporter(), network()
    made = trainer(model, tmp_path, attend(log_gates=logs), reporter, epochs=2, gradient_accumulation_steps=2)
    made.train()
    name = f"gates/{next(iter(attached(model)))}/spatial/mean"
    epochs = 2 if logs else 0
    assert sum(name in entry for entry in made.state.log_history) == epochs
    assert sum(name in entry for entry in reporter.seen) == epochs
    saved = json.loads((tmp_path / f"checkpoint-{made.state.global_step}" / "trainer_state.json").read_text())
    assert sum(name in entry for entry in saved["log_history"]) == epochs


def test_the_block_of_the_page_runs(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    blocks = (root / "docs" / "how-to" / "own-loop.md").read_text(encoding="utf-8").split("```text\n")[1:]
    (block,) = (block.partition("```")[0] for block in blocks if "foveate.transformers" in block)
    monkeypatch.chdir(tmp_path)
    exec(block, {"torch": torch, "images": images()[:4]})
    assert (tmp_path / "cbam.safetensors").is_file()


def test_a_callback_that_came_too_late_is_refused(tmp_path: Path) -> None:
    made = trainer(network(), tmp_path)
    made.add_callback(attend())
    with pytest.raises(UsageError, match=r"callbacks=\[Attend"):
        made.train()
