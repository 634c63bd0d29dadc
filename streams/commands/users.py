"""`msam users forget`: erase a listener everywhere."""

import json
import sys
from dataclasses import asdict
from typing import Annotated

import typer

app = typer.Typer()


@app.callback()
def users() -> None:
    """Listeners."""


@app.command()
def forget(
    user: Annotated[str, typer.Argument(help="The listener's id.")],
    wait: Annotated[float, typer.Option(min=0, help="Seconds to wait for workers to erase what they hold.")] = 30.0,
    bootstrap: Annotated[str | None, typer.Option(help="Kafka bootstrap servers; default: the local broker.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Erase a listener, for good: windows, lists, profile, and from the training of later models."""
    from streams import forget as work
    from streams.settings import load_settings

    config = load_settings(bootstrap=bootstrap).kafka_config()
    if sys.stderr.isatty():
        print("waiting for the workers", file=sys.stderr)
    done = work.forget(config, user, wait)
    if as_json:
        print(json.dumps(asdict(done)))
        return
    print(f"forgotten for good under {done.hash}; {done.sightings} sightings no longer name the listener")
    for name in done.pending:
        print(f"{name}: no worker has erased the listener yet; the next one that takes the partition will")
    if done.keys:
        print(f"{done.keys} keys deleted: plays and dead letters that were sealed with them can no longer be read")
    print("plays stay until the retention of their topic ends, artifacts of earlier models until they are deleted")
