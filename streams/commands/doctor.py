"""`msam doctor`: looks for what is wrong, and says what to do about it."""

import json
from dataclasses import asdict
from typing import Annotated

import typer

from streams.errors import MsamError


class Unwell(MsamError):
    """Some checks failed."""


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(doctor)


def doctor(
    seconds: Annotated[float, typer.Option(min=0, help="How long lags are watched.")] = 6.0,
    bootstrap: Annotated[str | None, typer.Option(help="Kafka bootstrap servers; default: the local broker.")] = None,
    group: Annotated[str | None, typer.Option(help="The workers' group.")] = None,
    partitions: Annotated[int | None, typer.Option(min=1, help="Partitions as the workers are told.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Topics, keys, schemas, registry, disks, clocks, the live model, lag; exit 1 when something is wrong."""
    from streams.doctor import examine
    from streams.settings import load_settings

    found = []
    for finding in examine(load_settings(bootstrap=bootstrap, group=group, partitions=partitions), seconds):
        found.append(finding)
        if not as_json:
            remedy = f"\n       to do: {finding.remedy}" if finding.remedy else ""
            print(f"{'ok   ' if finding.ok else 'WRONG'}  {finding.check}: {finding.text}{remedy}", flush=True)
    bad = sum(not finding.ok for finding in found)
    if as_json:
        print(json.dumps({"ok": not bad, "findings": [asdict(finding) for finding in found]}))
    if bad:
        raise Unwell(f"{bad} of {len(found)} checks failed")
