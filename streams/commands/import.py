"""`msam import`: a public data set or one's own export as canonical CSVs."""

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from msam.datasets.sources import SOURCES, Layout, Source


def convert(
    layout: Annotated[Layout, typer.Argument(help="What SRC is.")],
    src: Annotated[Path, typer.Argument(exists=True, help="Folder, zip archive or one file.")],
    out: Annotated[Path, typer.Option(file_okay=False, help="Folder for plays.csv, tracks.csv and users.csv.")],
    user: Annotated[
        str | None, typer.Option(help="Whose plays these are, where the layout or record does not say.")
    ] = None,
    max_users: Annotated[int | None, typer.Option(min=1, help="Only the listeners met first.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Turn Last.fm 1K, LFM-1b, or an export of ListenBrainz or Spotify into canonical CSVs."""
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TransferSpeedColumn

    from msam.datasets import importing

    columns, quiet = (BarColumn(), DownloadColumn(), TransferSpeedColumn()), not sys.stderr.isatty()
    with Progress(*columns, console=Console(stderr=True), transient=True, disable=quiet) as progress:
        task = progress.add_task("read", total=None)
        with Source(src, user, max_users, lambda size: progress.advance(task, size)) as source:
            summary = importing.convert(SOURCES[layout](source), out)
    if as_json:
        print(json.dumps({"out": str(out), **summary._asdict()}))
        return
    print(f"imported: {summary.plays} plays of {summary.tracks} tracks by {summary.users} listeners in {out}")
    left = {"told twice": summary.duplicates, "unreadable (rejected.csv says why)": summary.rejected}
    for why, count in (left | summary.skipped).items():
        if count:
            print(f"left out: {count} records {why}")


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("import")(convert)
