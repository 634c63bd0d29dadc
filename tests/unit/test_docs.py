"""The documentation against the code: settings, commands, topics, metrics and fields; sound links and snippets."""

import dataclasses
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fastavro
import pytest
import typer
from prometheus_client import Counter
from typer.testing import CliRunner

import schemas
from msam.config import MSAMConfig
from streams.cli import build
from streams.metrics import Metrics
from streams.records import Play
from streams.sealing import Keyring, open_play
from streams.serialization import decode, encode
from streams.settings import Settings
from streams.topics import topic_specs

ROOT = Path(__file__).resolve().parents[2]
README = ROOT / "README.md"
PAGES = [README, ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").rglob("*.md"))]
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")


def blocks(page: Path, language: str) -> list[str]:
    """Fenced code of one language."""
    return [code for name, code in BLOCK.findall(page.read_text()) if name == language]


def prose(page: Path) -> str:
    """A page without its fenced code."""
    return BLOCK.sub("", page.read_text())


def table(page: Path, heading: str) -> dict[str, list[str]]:
    """Rows of the first table under a heading: what stands in backticks first -> the cells."""
    section = prose(page).partition(f"\n{heading}\n")[2]
    lines = re.search(r"(?:^\|.*\n)+", section, re.MULTILINE)
    assert lines, f"{page.name} has no table under {heading}"
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[0].splitlines()[2:]]
    return {row[0].strip("`"): row for row in rows}


def anchors(page: Path) -> set[str]:
    """Anchors of the headings of a page, as GitHub makes them."""
    headings = re.findall(r"^#+ (.*)$", prose(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", text.lower()).strip().replace(" ", "-") for text in headings}


def commands(command: Any, path: tuple[str, ...] = ("msam",)) -> Iterator[str]:
    """Every command that can be run, as it is typed."""
    inner = getattr(command, "commands", None)
    if not inner:
        yield " ".join(path)
        return
    for name, one in inner.items():
        yield from commands(one, (*path, name))


def typed() -> list[tuple[str, list[str]]]:
    """Every `msam ...` line of the shell examples: where it stands, and its words after `msam`."""
    found = []
    for page in PAGES:
        for code in blocks(page, "bash"):
            for line in code.splitlines():
                words = shlex.split(line, comments=True)
                if words[:1] == ["msam"]:
                    found.append((f"{page.name}: {line}", [word for word in words[1:] if word != "&"]))
    return found


def test_every_page_is_there() -> None:
    names = {page.relative_to(ROOT).as_posix() for page in PAGES}
    assert {"README.md", "docs/architecture.md", "docs/operations.md", "docs/schemas.md"} <= names
    assert sum(name.startswith("docs/decisions/") for name in names) >= 5


def test_every_setting_is_documented_with_its_default() -> None:
    rows = table(README, "## Settings")
    assert set(rows) == {f"MSAM_{name.upper()}" for name in Settings.model_fields}
    for name, field in Settings.model_fields.items():
        shown = rows[f"MSAM_{name.upper()}"][1].strip("`")
        if isinstance(field.default, int | str):
            assert shown == str(field.default), name
        else:  # None, a path or an empty tuple is said in words
            assert shown, name
    assert len(rows) >= 20


def test_every_command_is_documented() -> None:
    known = list(commands(typer.main.get_command(build())))
    assert len(known) >= 15
    tour = prose(README).partition("\n## Quick tour\n")[2].partition("\n## ")[0]
    rows = [line.partition(" | ")[0] for line in tour.splitlines() if line.startswith("| `msam")]
    shown = [name for row in rows for name in re.findall(r"`(msam [a-z ]+)`", row)]
    assert sorted(shown) == sorted(known)


def test_every_extension_of_the_network_is_named() -> None:
    model = prose(README).partition("\n## The model in short\n")[2].partition("\n## ")[0]
    switches = [field.name for field in dataclasses.fields(MSAMConfig) if field.default is True]
    assert len(switches) >= 2
    assert [name for name in switches if f"`{name}`" not in model] == []


def test_what_is_said_not_to_be_built_is_not_built() -> None:
    line = re.search(r"^- Not built: (.*?)^- ", README.read_text(), re.MULTILINE | re.DOTALL)
    assert line
    known = set(commands(typer.main.get_command(build())))
    missing = [name for text in re.findall(r"`(msam [a-z/ ]+)`", line[1]) for name in expand(text)]
    assert missing
    assert [name for name in known if any(name == one or name.startswith(f"{one} ") for one in missing)] == []


def expand(text: str) -> list[str]:
    """`msam models a/b` -> both."""
    stem, _, last = text.rpartition(" ")
    return [f"{stem} {one}" for one in last.split("/")]


@pytest.mark.parametrize(("line", "words"), typed(), ids=lambda value: value if isinstance(value, str) else "")
def test_examples_are_commands_and_options_of_ours(line: str, words: list[str]) -> None:
    result = CliRunner().invoke(build(), [*words, "--help"], prog_name="msam", env={"COLUMNS": "200", "TERM": "dumb"})
    assert result.exit_code == 0, f"{line}\n{result.output}"
    assert "Usage: msam" in result.output


def test_there_are_examples() -> None:
    assert len(typed()) >= 20


def test_every_topic_is_documented() -> None:
    rows = table(README, "## Topics")
    specs = topic_specs(4, "{group}")
    assert set(rows) == {spec.name for spec in specs}
    for spec in specs:
        _, _, partitions, cleanup, _ = rows[spec.name]
        assert partitions == ("1" if spec.partitions == 1 else "`MSAM_PARTITIONS`"), spec.name
        assert cleanup.startswith(spec.cleanup), spec.name


def test_every_metric_is_documented() -> None:
    rows = table(ROOT / "docs" / "operations.md", "## Metrics")
    collectors = [value for value in vars(Metrics()).values() if hasattr(value, "describe")]
    described = [(metric.name, collector) for collector in collectors for metric in collector.describe()]
    names = {f"{name}_total" if isinstance(collector, Counter) else name for name, collector in described}
    assert len(names) >= 10
    assert set(rows) == names


@pytest.mark.parametrize("name", schemas.NAMES)
def test_every_field_is_documented_as_the_schema_says(name: str) -> None:
    raw = schemas.raw(name)
    rows = table(ROOT / "docs" / "schemas.md", f"### {raw['name']}")
    assert set(rows) == {path for path, _ in fields(raw)}
    for path, field in fields(raw):
        assert rows[path][3] == field["doc"], path
    assert f"`{schemas.fingerprint(name).hex()}`" in (ROOT / "docs" / "schemas.md").read_text()


def fields(record: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """Every field inside a record: `a`, `list[].b`, `inner.c`."""
    for field in record["fields"]:
        yield prefix + field["name"], field
        kind = field["type"]
        many = isinstance(kind, dict) and kind["type"] == "array"
        inner = kind["items"] if many else kind
        if isinstance(inner, dict) and inner["type"] == "record":
            yield from fields(inner, f"{prefix}{field['name']}{'[].' if many else '.'}")


def test_every_relative_link_resolves() -> None:
    checked = 0
    for page in PAGES:
        for target in LINK.findall(prose(page)):
            if re.match(r"[a-z]+:", target):
                continue
            path, _, anchor = target.partition("#")
            file = (page.parent / path).resolve() if path else page
            assert file.exists(), f"{page.name}: {target}"
            assert not anchor or anchor in anchors(file), f"{page.name}: {target} has no such heading"
            checked += 1
    assert checked >= 15


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_pages_name_no_machine(page: Path) -> None:
    text = page.read_text()
    assert not re.search(r"/(?:work|root|tmp/team|home)/", text)


def test_python_examples_compile() -> None:
    found = [(page, code) for page in PAGES for code in blocks(page, "python")]
    assert len(found) >= 3
    for page, code in found:
        compile(code, str(page), "exec")


def test_the_avro_example_makes_plays() -> None:
    """Everything of the README's producer but the broker: what it encodes is a play of ours."""
    (code,) = blocks(README, "python")
    made: dict[str, Any] = {}
    before, _, after = code.partition("producer = Producer(")
    assert '"partitioner": "murmur2_random"' in after
    exec(compile(before, str(README), "exec"), made)
    play = Play("u0001", "t00042", 1767225600.0, None, "web")
    row = {
        "user_id": "u0001",
        "track_id": "t00042",
        "played_at": 1767225600.0,
        "duration_played": None,
        "source": "web",
    }
    assert decode(Play, made["encode"](row)) == play


def test_the_sealing_example_seals(monkeypatch: pytest.MonkeyPatch) -> None:
    """A key and a play that are made as the page says are opened."""
    (code,) = [code for code in blocks(ROOT / "docs" / "schemas.md", "python") if "sealed_play.avsc" in code]
    monkeypatch.chdir(ROOT)
    made: dict[str, Any] = {}
    exec(compile(code, "schemas.md", "exec"), made)
    master, key, ring = bytes(range(32)), bytes(range(1, 33)), Keyring(bytes(range(32)))
    name = made["name_of"]("u0001", "k1")
    ring.fold(name, made["wrap"](master, name, key))
    value = made["seal"]("u0001", "k1", key, encode(Play("u0001", "t00042", 1767225600.0)))
    assert open_play(value, keys=ring) == Play("u0001", "t00042", 1767225600.0)


def test_the_reading_example_reads_a_list() -> None:
    """The schema file and the ten bytes that the reader passes over."""
    (code,) = [code for code in blocks(ROOT / "docs" / "schemas.md", "python") if "recommendation.avsc" in code]
    assert "message.value()[10:]" in code and '"isolation.level": "read_committed"' in code
    loaded: Any = fastavro.schema.load_schema(str(ROOT / "schemas" / "recommendation.avsc"))
    assert loaded == schemas.load("recommendation")
