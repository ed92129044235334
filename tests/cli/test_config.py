from pathlib import Path
from typing import Annotated, Any

import pytest
import typer
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.main import get_command

from foveate.cli import flags
from foveate.cli.config import read_config
from foveate.errors import UsageError

GOOD = "attention: [se, cbam]\nbatch: 32\nimg-size: 96\namp: true\nlr: 0.01\nname: x\nmodel: null\n"


def parse(*arguments: str) -> dict[str, Any]:
    """Parse the arguments of a small verb and return its parameters."""
    app, seen = typer.Typer(), {}

    @app.command()
    def verb(
        attention: flags.Attentions = "eca",
        batch: flags.Batch = None,
        imgsz: flags.Imgsz = None,
        amp: flags.Amp = None,
        lr: flags.Lr = None,
        name: flags.Name = None,
        model: flags.Model = "resnet8",
        dry_run: Annotated[bool, typer.Option("--dry-run")] = False,
        config: flags.Config = None,
    ) -> None:
        seen.update(
            attention=attention, batch=batch, imgsz=imgsz, amp=amp, lr=lr, name=name, model=model, dry_run=dry_run
        )

    command = get_command(app)
    with command.make_context("verb", [*arguments]) as context:
        command.invoke(context)
    return seen


@pytest.fixture
def config(tmp_path: Path) -> Any:
    def write(text: str | bytes) -> str:
        path = tmp_path / "study.yaml"
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return str(path)

    return write


def test_the_file_gives_the_options(config: Any) -> None:
    assert parse("--config", config(GOOD)) == {
        "attention": "se,cbam",
        "batch": 32,
        "imgsz": 96,
        "amp": True,
        "lr": 0.01,
        "name": "x",
        "model": "resnet8",
        "dry_run": False,
    }


def test_the_command_line_overrides_the_file_in_any_order(config: Any) -> None:
    path = config(GOOD)
    assert parse("--batch", "8", "--config", path)["batch"] == 8
    assert parse("--config", path, "--batch", "8", "--no-amp") == {**parse("--config", path), "batch": 8, "amp": False}


def test_names_may_have_dashes_or_underscores(config: Any) -> None:
    assert parse("--config", config("dry-run: yes"))["dry_run"] is True
    assert parse("--config", config("dry_run: yes"))["dry_run"] is True


def test_an_alias_is_the_option(config: Any) -> None:
    assert parse("--config", config("batch_size: 16"))["batch"] == 16


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("epocs: 3\nbatch: 2", "'epocs'"),
        ("bach: 3", "did you mean 'batch'"),
        ("config: other.yaml", "'config'"),
        ("- a\n- b", "a list"),
        ("just words", "a str"),
        ("batch: {size: 3}", "'batch' as a dict"),
        ("attention: [[se], cbam]", "'attention' as a list"),
        ("3: batch", "a int as a name"),
        ("batch: [", "expected the node content"),
        ("batch: 3\n\tlr: 2", "found character"),
        ("batch: !!python/object/apply:os.system [true]", "could not determine a constructor"),
        ("when: 2001-99-99", "month must be in"),
        (b"batch: \xff", "bytes in line 1 that are not UTF-8: 0xff"),
        ("[" * 20_000, "nested more than 16 deep"),
        ("a" * 1_000_001, "more than 1,000,000 bytes"),
    ],
)
@pytest.mark.reliability(12)
def test_a_wrong_file_is_refused(config: Any, text: str | bytes, said: str) -> None:
    with pytest.raises(UsageError) as raised:
        parse("--config", config(text))
    assert said in str(raised.value)


def test_an_absent_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"none\.yaml"):
        read_config(tmp_path / "none.yaml")
    with pytest.raises(UsageError, match="directory"):
        read_config(tmp_path)


@pytest.mark.reliability(12)
def test_aliases_that_expand_to_gigabytes_are_refused_at_once(config: Any) -> None:
    lines = ["a: &a [x,x,x,x,x,x,x,x,x]"]
    lines += [
        f"{new}: &{new} [{','.join(f'*{old}' for _ in range(9))}]"
        for old, new in zip("abcdefgh", "bcdefghi", strict=True)
    ]
    with pytest.raises(UsageError, match="an alias"):
        read_config(Path(config("\n".join(lines))))


@settings(max_examples=150, deadline=None)
@given(data=st.data())
@pytest.mark.reliability(12)
def test_damage_gives_our_error_or_plain_values(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    content = bytearray(GOOD.encode())
    insertions = st.binary(max_size=4) | st.sampled_from([b"&a *a", b"!!", b"{", b": -", b"\t"])
    for _ in range(data.draw(st.integers(1, 6))):
        place = data.draw(st.integers(0, len(content) - 1))
        content[place : place + data.draw(st.integers(0, 3))] = data.draw(insertions)
        if not content:
            break
    path = tmp_path_factory.mktemp("config") / "study.yaml"
    path.write_bytes(content)
    try:
        values = read_config(path)
    except UsageError:
        return
    assert all(isinstance(name, str) for name in values)
    assert all(value is None or isinstance(value, str | int | float | bool) for value in values.values())


def test_the_args_of_a_run_can_be_read_as_its_config(tmp_path: Path) -> None:
    path = tmp_path / "args.yaml"
    values = {"attention": ["se", "cbam-paper"], "lr": 0.006, "imgsz": None, "name": None, "batch": 64}
    path.write_text(yaml.safe_dump(values), encoding="utf-8")
    assert parse("--config", str(path))["attention"] == "se,cbam-paper"
    assert parse("--config", str(path))["lr"] == 0.006
