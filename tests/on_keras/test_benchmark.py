"""The benchmark of the Keras layers, on small maps so that it takes seconds."""

from pathlib import Path

import keras
import numpy as np
import pytest
from benchmarks.harness import check, write
from benchmarks.keras_blocks import BLOCKS
from benchmarks.options import Options

from benchmarks import keras_layers

BACKEND = keras.backend.backend()


@pytest.mark.parametrize(("measure", "mechanisms"), [("forward", tuple(BLOCKS)), ("training", ("cbam",))])
def test_layers_compute_what_the_blocks_by_hand_do_and_both_are_timed(
    measure: str, mechanisms: tuple[str, ...], tmp_path: Path
) -> None:
    options = Options(rounds=1, measures=(measure,), mechanisms=mechanisms)
    [record] = keras_layers.measure(options, shapes=((2, 4, 5, 32),))
    assert check(record) == []
    write(record, tmp_path / "record.json")
    assert record["name"] == f"keras_{BACKEND}"
    assert {"keras", BACKEND} <= set(record["packages"])
    assert [result["mechanism"] for result in record["results"]] == list(mechanisms)
    for result in record["results"]:
        assert {"by hand", "foveate"} <= set(result["calls"])
        assert result["calls"]["by hand"]["ratio"] == 1
        package, _ = keras_layers.PEERS.get(result["mechanism"], ("", None))
        assert set(result["calls"]) - {"by hand", "foveate"} | set(result["failed"]) == {package} - {""}


def test_a_block_that_computes_something_else_gets_no_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(BLOCKS, "se", lambda x: 1.01 * keras_layers.BLOCKS["eca"](x))
    monkeypatch.setattr(keras_layers, "share_weights", lambda layer, block: None)
    options = Options(rounds=1, measures=("forward",), mechanisms=("se",))
    with pytest.raises(AssertionError, match="se forward"):
        list(keras_layers.measure(options, shapes=((2, 4, 5, 32),)))


def test_cross_attention_is_left_out_on_large_maps() -> None:
    assert np.prod(keras_layers.SHAPES[0][1:3]) > keras_layers.MOST_POSITIONS
    assert any(np.prod(shape[1:3]) <= keras_layers.MOST_POSITIONS for shape in keras_layers.SHAPES)
