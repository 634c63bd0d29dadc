"""The command line: help is fast and light, errors are one line, usage errors are 2."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import typer
from typer.main import get_command

from streams import cli
from streams.commands.replay import moment
from streams.commands.trainer import seconds
from streams.errors import ConfigError

MSAM = Path(sys.executable).with_name("msam")
HEAVY = ("torch", "faust", "transformers", "librosa", "confluent_kafka", "scipy", "numpy", "aiohttp")
# Shows every command's help in one process and then what has been imported.
HELP = """
import contextlib, io, json, sys
from streams import cli
from typer.main import get_command
command = get_command(cli.build())
def walk(node, path):
    yield path
    for name, child in sorted(getattr(node, "commands", {}).items()):
        yield from walk(child, [*path, name])
texts = {}
for path in walk(command, []):
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        try:
            command.main([*path, "--help"], prog_name="msam", standalone_mode=True)
        except SystemExit as ended:
            assert ended.code == 0, (path, ended.code)
    texts[" ".join(path)] = out.getvalue()
print(json.dumps({"texts": texts, "modules": sorted({name.partition(".")[0] for name in sys.modules})}))
"""


def environment(home: Path) -> dict[str, str]:
    mine = {name: value for name, value in os.environ.items() if not name.startswith("MSAM_")}
    return {**mine, "MSAM_HOME": str(home), "COLUMNS": "120", "NO_COLOR": "1"}


def msam(home: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(MSAM), *arguments], env=environment(home), cwd=home, capture_output=True, text=True, timeout=60
    )


def test_help_of_every_command_is_light(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", HELP], env=environment(tmp_path), capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    texts = found["texts"]
    assert {"", *cli.COMMANDS, *cli.GROUPS} <= set(texts) and "kafka start" in texts and "publish audio" in texts
    for name, text in texts.items():
        assert "Usage: msam" in text and len(text) > 100, name
    assert sorted(set(found["modules"]) & set(HEAVY)) == []


def test_every_command_has_json(tmp_path: Path) -> None:
    def leaves(node: object, path: str) -> dict[str, object]:
        children = getattr(node, "commands", None)
        if not children:
            return {path: node}
        return {k: v for name, child in children.items() for k, v in leaves(child, f"{path} {name}").items()}

    for path, command in leaves(get_command(cli.build()), "msam").items():
        options = {option for parameter in getattr(command, "params", []) for option in parameter.opts}
        assert "--json" in options, path
        assert getattr(command, "help", None), path
    assert isinstance(cli.build(), typer.Typer)


@pytest.mark.parametrize(
    "arguments",
    [
        ("nonsense",),
        ("tail", "plays"),
        ("recommend",),
        ("recommend", "alice", "-n", "5"),
        ("recommend", "alice", "--n", "0"),
        ("publish", "plays"),
        ("publish", "plays", "no-such-file.csv"),
        ("trainer", "--epochs", "0"),
        ("replay", "--to-topic", "x"),
        ("topics", "create", "--partitions", "none"),
    ],
)
def test_wrong_usage_is_2(arguments: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    command = get_command(cli.build())
    with pytest.raises(SystemExit) as ended:
        command.main(list(arguments), prog_name="msam", standalone_mode=True)
    assert ended.value.code == 2
    told = capsys.readouterr()
    assert told.out == "" and "Usage" in told.err


WRONG = [
    (("models", "list"), "msam kafka start"),
    (("topics", "check"), "msam kafka start"),
    (("trainer", "--once"), "msam kafka start"),
    (("trainer", "--every", "soon"), "not a duration"),
    (("trainer", "--published", "--cold-share"), "an extension"),
    (("worker", "--roles", "cooking"), "--roles takes"),
    (("demo", "--data", "."), "holds no plays.csv"),
    (("replay", "--from", "yesterday", "--to-topic", "x"), "is not a time"),
    (("replay", "--from", "20", "--to", "10", "--to-topic", "x"), "later than"),
]


@pytest.mark.parametrize(("arguments", "words"), WRONG, ids=[" ".join(arguments) for arguments, _ in WRONG])
def test_an_error_is_one_line_and_1(
    arguments: tuple[str, ...],
    words: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    told = failing(arguments, tmp_path, monkeypatch, capsys)
    assert words in told


def failing(
    arguments: tuple[str, ...], home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> str:
    """The one line of a command that has to fail with exit status 1."""
    for name in list(os.environ):
        if name.startswith("MSAM_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("MSAM_HOME", str(home))
    monkeypatch.chdir(home)
    monkeypatch.setattr(sys, "argv", ["msam", *arguments])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    told = capsys.readouterr()
    assert ended.value.code == 1 and told.out == ""
    assert told.err.startswith("error: ") and told.err.count("\n") == 1, told.err
    return told.err


def test_the_process_ends_like_that_too(tmp_path: Path) -> None:
    done = msam(tmp_path, "models", "list", "--json")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("error: no Kafka broker") and done.stderr.count("\n") == 1
    assert msam(tmp_path, "nonsense").returncode == 2


def test_a_missing_users_file_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ("replay", "--from", "1", "--to-topic", "x", "--users", "nowhere.txt")
    command = get_command(cli.build())
    monkeypatch.setenv("MSAM_HOME", str(tmp_path))
    with pytest.raises(SystemExit) as ended:  # as a usage error or as ours, but never as a traceback
        command.main(list(arguments), prog_name="msam", standalone_mode=True)
    assert ended.value.code in (1, 2)


def test_kafka_status_in_json(tmp_path: Path) -> None:
    done = msam(tmp_path, "kafka", "status", "--json")
    assert done.returncode == 0 and json.loads(done.stdout)["running"] is False and done.stderr == ""


@pytest.mark.parametrize(("text", "found"), [("90s", 90), ("10m", 600), ("2h", 7200), ("1.5m", 90), (" 7 ", 7)])
def test_durations(text: str, found: float) -> None:
    assert seconds(text) == found


@pytest.mark.parametrize("text", ["", "0s", "-1m", "10 minutes", "m", "1e3s"])
def test_what_is_no_duration(text: str) -> None:
    with pytest.raises(ConfigError, match="not a duration"):
        seconds(text)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("1700000000.5", 1700000000.5),
        ("1970-01-02", 86400.0),
        ("1970-01-01T01:00:00", 3600.0),
        ("1970-01-01T01:00:00+01:00", 0.0),
        ("1970-01-01T00:00:10Z", 10.0),
    ],
)
def test_moments(text: str, found: float) -> None:
    assert moment(text) == found


@pytest.mark.parametrize("text", ["nan", "inf", "-inf"])
def test_a_moment_is_finite(text: str) -> None:
    with pytest.raises(ConfigError, match="is not a time"):
        moment(text)
