from pathlib import Path

import pytest
from benchmarks.options import MECHANISMS, SHAPES, Options, parse

KNOWN, RESULTS = ("kernels", "growth"), Path("results")


def test_everything_is_measured_by_default() -> None:
    command = parse(KNOWN, RESULTS, [])
    assert command.names == KNOWN
    assert command.options == Options()
    assert command.results == RESULTS


def test_a_part_is_chosen_by_name() -> None:
    arguments = (
        "kernels --shapes 1x2x3x4,5x6x7x8 --layouts NCHW --dtypes bfloat16 --mechanisms se,cbam --measures forward "
        "--no-compile"
    )
    command = parse(KNOWN, RESULTS, [*arguments.split(), "--rounds", "20", "--threads", "1", "--results", "elsewhere"])
    assert command.names == ("kernels",)
    assert command.results == Path("elsewhere")
    assert command.options == Options(
        rounds=20,
        threads=1,
        compile=False,
        shapes=((1, 2, 3, 4), (5, 6, 7, 8)),
        layouts=("NCHW",),
        dtypes=("bfloat16",),
        mechanisms=("se", "cbam"),
        measures=("forward",),
    )


@pytest.mark.parametrize("arguments", ["--rounds 30", "--threads 1", "kernels --device cuda", "growth"])
def test_the_whole_may_be_measured_otherwise_into_its_own_place(arguments: str) -> None:
    command = parse(KNOWN, RESULTS, arguments.split())
    assert command.results == RESULTS
    assert command.options.shapes == SHAPES
    assert command.options.mechanisms == MECHANISMS


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ("nothing", "no benchmark nothing; there are: kernels, growth"),
        ("--rounds 0", "--rounds must be at least 1"),
        ("--shapes 1x2x3 --results x", "is not a shape such as"),
        ("--mechanisms se,cross --results x", "'cross' is not one of se, eca"),
        ("--device cuda", "only the kernels benchmark runs on a GPU"),
        ("--clock cpu", "only detection, every_mechanism, keras_layers can use the CPU clock"),
        ("--mechanisms se", "choose another folder with --results"),
        ("--no-compile", "choose another folder with --results"),
    ],
)
def test_what_cannot_be_is_refused(arguments: str, said: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parse(KNOWN, RESULTS, arguments.split())
    assert said in capsys.readouterr().err
