"""`msam models list|promote|rollback|verify|watch`: versions, with metrics and state, and which one is live."""

import json
import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated

import typer

from streams.errors import ConfigError

if TYPE_CHECKING:
    from streams.channels import Versions
    from streams.moves import Aim
    from streams.records import ModelVersion

    Make = Callable[[Versions, Versions], ModelVersion]

app = typer.Typer()

Bootstrap = Annotated[str | None, typer.Option(help="Kafka bootstrap servers; default: the local broker.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]
Channel = Annotated[str, typer.Option(help="The channel; workers serve live.")]


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


@app.command()
def promote(
    version: Annotated[str, typer.Argument(help="The version, as `msam models list` names it.")],
    channel: Channel = "live",
    even_refused: Annotated[bool, typer.Option("--even-refused", help="Also one that the gate refused.")] = False,
    bootstrap: Bootstrap = None,
    as_json: Json = False,
) -> None:
    """Point a channel to a version, once its artifact has been verified as a worker would."""
    from streams import channels as work

    _move(
        bootstrap,
        as_json,
        channel,
        lambda versions, at: version,
        lambda versions, at: work.promotion(version, versions, at, channel, even_refused),
    )


@app.command()
def rollback(channel: Channel = "live", bootstrap: Bootstrap = None, as_json: Json = False) -> None:
    """Point a channel to the version before, once its artifact has been verified as a worker would."""
    from streams import channels as work

    _move(
        bootstrap,
        as_json,
        channel,
        lambda versions, at: work.earlier(versions, at, channel),
        lambda versions, at: work.rollback(versions, at, channel),
    )


@app.command()
def verify(
    versions: Annotated[list[str] | None, typer.Argument(help="Versions; default: all that passed the gate.")] = None,
    bootstrap: Bootstrap = None,
    as_json: Json = False,
) -> None:
    """Load versions as a worker would: hashes, shapes, finite numbers, golden answers. Exit 1 if one is not sound."""
    from streams.catalogue_log import read_catalogue
    from streams.channels import known
    from streams.model_log import read_models
    from streams.served import ModelRefused, load_model

    config = _config(bootstrap)
    announced, _ = read_models(config)
    names = versions or [v.version for v in announced.values() if v.state == "accepted"]
    records, catalogue = [known(name, announced) for name in names], read_catalogue(config)
    problems: dict[str, str | None] = {}
    for record in records:
        try:
            load_model(record, catalogue, wait=0)
            problems[record.version] = None
        except ModelRefused as error:
            problems[record.version] = str(error)
        if not as_json:
            print(f"{record.version}  {problems[record.version] or 'sound'}", flush=True)
    if as_json:
        print(json.dumps([{"version": v, "sound": p is None, "reason": p} for v, p in problems.items()]))
    if bad := sum(problem is not None for problem in problems.values()):
        raise ModelRefused(f"{bad} of {len(problems)} versions cannot be served; workers refuse them too")


@app.command()
def watch(
    bootstrap: Bootstrap = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON line for what is said.")] = False,
) -> None:
    """Score every list by its listener's next play, and roll live back when its version proves worse; does not end.

    `msam trainer` does so too, beside its trainings.
    """
    from streams.settings import load_settings
    from streams.watch import watch as follow

    settings, config = load_settings(bootstrap=bootstrap), _config(bootstrap)
    rule = settings.rollback()
    if rule is None:
        raise ConfigError("MSAM_ROLLBACK_PLAYS is 0: versions are never rolled back by themselves")

    def say(text: str) -> None:
        line = json.dumps({"time": round(time.time(), 3), "message": text}) if as_json else text
        print(line, file=sys.stdout if as_json else sys.stderr, flush=True)

    follow(config, rule, say)


def _move(bootstrap: str | None, as_json: bool, channel: str, aim: "Aim", decide: "Make") -> None:
    """Move a channel and say so."""
    from streams.moves import move

    previous, record = move(_config(bootstrap), channel, aim, lambda versions, at: [decide(versions, at)])
    if as_json:
        print(json.dumps({"channel": channel, "version": record.version, "previous": previous}))
    else:
        print(f"{channel} points to {record.version}" + (f", before to {previous}" if previous else ""))


def _config(bootstrap: str | None) -> dict[str, str]:
    import torch

    from streams.settings import load_settings

    torch.set_num_threads(1)
    return load_settings(bootstrap=bootstrap).kafka_config()


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
