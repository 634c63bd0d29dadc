"""`msam models list`: versions, with metrics and state."""

import json
from typing import Annotated

import typer

app = typer.Typer()

Bootstrap = Annotated[str | None, typer.Option(help="Kafka bootstrap servers; default: the local broker.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]


@app.callback()
def models() -> None:
    """Model versions."""


@app.command("list")
def list_versions(bootstrap: Bootstrap = None, as_json: Json = False) -> None:
    """Every announced version, newest first, and which one is live."""
    from streams.model_log import read_versions
    from streams.settings import load_settings

    versions, channels = read_versions(load_settings(bootstrap=bootstrap).kafka_config())
    rows: list[dict[str, object]] = [
        {
            "version": v.version,
            "state": v.state,
            "channels": sorted(name for name, version in channels.items() if version == v.version),
            "created_at": v.created_at,
            "parent": v.parent,
            "reason": v.reason,
            "metrics": dict(v.metrics),
            "uri": v.uri,
        }
        for v in reversed(versions)
    ]
    if as_json:
        print(json.dumps(rows))
        return
    if not rows:
        print("no model version yet; `msam trainer --once` makes the first")
        return
    _table(rows)


def _table(rows: list[dict[str, object]]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table("version", "state", "channels", "metrics", "reason")
    for row in rows:
        metrics, channels = row["metrics"], row["channels"]
        assert isinstance(metrics, dict) and isinstance(channels, list)
        shown = ", ".join(f"{name} {value:.4g}" for name, value in sorted(metrics.items()))
        table.add_row(str(row["version"]), str(row["state"]), ", ".join(channels), shown, str(row["reason"] or ""))
    Console().print(table)
