"""`msam publish`: files to topics."""

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from streams import topics
from streams.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable

    from streams.settings import Settings
    from streams.sources import Event
    from streams.user_keys import Sealer

app = typer.Typer(help="Publish canonical CSV files, JSON lines or audio.")


class Form(StrEnum):
    """Formats of input files."""

    csv = "csv"
    jsonl = "jsonl"


File = Annotated[Path, typer.Argument(exists=True, readable=True, help="The file to publish.")]
Source = Annotated[Path, typer.Argument(exists=True, readable=True, help="Audio folder, CSV or JSON lines.")]
Rate = Annotated[float | None, typer.Option(min=0.001, help="Events per second, evenly; default: as fast as it goes.")]
Format = Annotated[Form | None, typer.Option("--format", help="Default: by the file's suffix.")]
Bootstrap = Annotated[str | None, typer.Option(help="Kafka servers; default: the running local broker.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]


@app.command()
def plays(
    file: File,
    rate: Rate = None,
    form: Format = None,
    seal: Annotated[
        bool, typer.Option("--seal", help="Encrypt each under a key of its listener; needs MSAM_MASTER_KEY_FILE.")
    ] = False,
    bootstrap: Bootstrap = None,
    as_json: Json = False,
) -> None:
    """Plays: CSV with user_id, track_id, timestamp (Unix seconds), or JSON lines."""
    from streams import sources

    _run(topics.PLAYS, file, sources.plays(file, _form(form)), rate, bootstrap, as_json, seal)


@app.command()
def tracks(
    file: File, rate: Rate = None, form: Format = None, bootstrap: Bootstrap = None, as_json: Json = False
) -> None:
    """Tracks: CSV with track_id, title, artist_id, artist, album_id, album; optional: labels (a|b), duration, year."""
    from streams import sources

    _run(topics.TRACK_METADATA, file, sources.tracks(file, _form(form)), rate, bootstrap, as_json)


@app.command()
def profiles(
    file: File, rate: Rate = None, form: Format = None, bootstrap: Bootstrap = None, as_json: Json = False
) -> None:
    """User profiles: CSV with user_id, gender, age, country, or JSON lines."""
    from streams import sources

    _run(topics.USER_PROFILES, file, sources.profiles(file, _form(form)), rate, bootstrap, as_json)


@app.command()
def audio(
    source: Source,
    rate: Rate = None,
    form: Format = None,
    inline: Annotated[bool, typer.Option("--inline", help="Send the bytes themselves, up to 10 MiB a file.")] = False,
    bootstrap: Bootstrap = None,
    as_json: Json = False,
) -> None:
    """Audio: a folder (track_id = file name without suffix), or a CSV with track_id, path; by reference and sha256."""
    from streams import sources

    events = sources.audio(source, _form(form), inline=inline)
    _run(topics.AUDIO_UPLOADS, source, events, rate, bootstrap, as_json)


def _form(form: Form | None) -> Literal["csv", "jsonl"] | None:
    return None if form is None else form.value


def _run(
    topic: str,
    path: Path,
    events: "Iterator[Event]",
    rate: float | None,
    bootstrap: str | None,
    as_json: bool,
    seal: bool = False,
) -> None:
    from streams.publisher import publish
    from streams.settings import load_settings

    settings = load_settings(bootstrap=bootstrap)
    config = settings.kafka_config()
    sealer = _sealer(settings) if seal else None
    events = events if sealer is None else sealer(events)
    with _progress(topic, path) as advance:
        done = publish(config, topic, events, rate=rate, progress=advance)
    if as_json:
        summary = {"topic": topic, "published": done.records, "seconds": round(done.seconds, 3)}
        print(json.dumps({**summary, "per_second": round(done.per_second, 1), "interrupted": done.interrupted}))
    else:
        typer.echo(f"{done.records} records published to {topic} in {done.seconds:.1f} s ({done.per_second:.0f}/s)")
    if sealer is not None and sealer.left_out:
        print(f"{sealer.left_out} plays of forgotten listeners were left out", file=sys.stderr)
    if done.interrupted:
        # The run was cut short on purpose, and the counts above say where: what follows Ctrl-C is exit status 130.
        raise typer.Exit(130)


def _sealer(settings: "Settings") -> "Sealer":
    from streams.user_keys import Sealer

    master = settings.master_key()
    if master is None:
        raise ConfigError("--seal needs the master key: set MSAM_MASTER_KEY_FILE")
    return Sealer(settings.kafka_config(), master)


@contextmanager
def _progress(topic: str, path: Path) -> "Iterator[Callable[[int], None] | None]":
    """A bar on stderr when that is a terminal."""
    if not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import Progress

    from streams.sources import count

    with Progress(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(topic, total=count(path) or None)
        yield lambda done: bar.update(task, completed=done)
