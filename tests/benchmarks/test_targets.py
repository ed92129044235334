from itertools import product

import pytest
from benchmarks.options import DTYPES, MEASURES, MECHANISMS, SHAPES
from benchmarks.targets import ONCE, PASSES, target

LARGE, SMALLER, ONE, LAST = SHAPES[0], SHAPES[2], SHAPES[4], SHAPES[5]


@pytest.mark.parametrize(
    ("shape", "dtype", "mechanism", "measure", "expected"),
    [
        (LARGE, "float32", "se", "forward", {"most": 1.5}),
        (LARGE, "float32", "spatial", "forward", {"most": 1.6}),
        (LARGE, "float32", "cbam", "forward", {"most": 2.0}),
        (SMALLER, "float32", "cbam", "forward", {"most": 2.6}),
        (SMALLER, "float32", "coordinate", "forward", {"most": 2.6}),
        (SMALLER, "float32", "spatial", "forward", {"most": 1.6}),
        (SMALLER, "float32", "cbam", "training", {"most": 7.0}),
        (LARGE, "float32", "coordinate", "training", {"most": 6.0}),
        (LARGE, "bfloat16", "cbam", "forward", {"times_as_fast": 1.0}),
        (ONE, "float32", "cbam", "forward", {"times_as_fast": 3.0}),
        (ONE, "float32", "se", "forward", {"times_as_fast": 1.0}),
        (LAST, "float32", "cbam", "training", {"times_as_fast": 1.0}),
        ((1, 2, 3, 4), "float32", "cbam", "training", {"times_as_fast": 1.0}),
    ],
)
def test_the_target_of_a_cell(
    shape: tuple[int, ...], dtype: str, mechanism: str, measure: str, expected: dict[str, float]
) -> None:
    assert target(shape, dtype, mechanism, measure) == expected


def test_every_cell_has_a_target_and_its_passes() -> None:
    for shape, dtype, mechanism, measure in product(SHAPES, DTYPES, MECHANISMS, MEASURES):
        assert len(target(shape, dtype, mechanism, measure)) == 1
        passes = PASSES[measure][mechanism]
        assert passes.reads > ONCE[measure].reads
        assert passes.writes == ONCE[measure].writes
