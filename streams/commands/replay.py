"""`msam replay`: backfill lists from plays; prints its plan unless told to execute."""

import contextlib
import json
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from streams.errors import ConfigError

if TYPE_CHECKING:
    from streams.replay import ReplayPlan


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(replay)


def replay(
    to_topic: Annotated[str, typer.Option(help="Topic that takes the lists; made where missing, never a live one.")],
    start: Annotated[str, typer.Option("--from", help="Append time: ISO 8601 (UTC) or Unix seconds.")],
    stop: Annotated[str | None, typer.Option("--to", help="Append time, exclusive; default: now.")] = None,
    users: Annotated[
        Path | None, typer.Option(exists=True, dir_okay=False, help="File with one user_id a line; default: everybody.")
    ] = None,
    model: Annotated[str | None, typer.Option(help="Model version; default: the live one.")] = None,
    execute: Annotated[bool, typer.Option("--execute", help="Do it; without, only the plan is shown.")] = False,
    bootstrap: Annotated[str | None, typer.Option(help="Kafka bootstrap servers; default: the local broker.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Make the lists of a past range of plays again, into another topic; live state is not touched."""
    from streams.settings import load_settings

    only = None if users is None else _ids(users)
    first, last = moment(start), None if stop is None else moment(stop)
    if last is not None and last <= first:
        raise ConfigError("--to must be later than --from")
    settings = load_settings(bootstrap=bootstrap)
    config = settings.kafka_config()
    from streams.replay import make_plan

    plan = make_plan(config, first, last, to_topic, model, None if only is None else len(only))
    done = None
    if execute:
        import torch

        from streams import replay as work
        from streams.stored_profiles import read_profiles

        torch.set_num_threads(1)
        registry = settings.registry()
        profiles = read_profiles(config, settings.text_encoder, registry)
        done = work.execute(
            config,
            plan,
            k=settings.window,
            slack=settings.slack,
            n=settings.list_size,
            only=only,
            profile_of=profiles,
            registry=registry,
            half=settings.half(),
            progress=_progress(plan.records),
        )
    _show(plan, done, as_json)


def _ids(path: Path) -> frozenset[str]:
    try:
        return frozenset(path.read_text(encoding="utf-8").splitlines()) - {""}
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"--users {path} cannot be read: {error}") from error


def moment(text: str) -> float:
    """An ISO 8601 time (UTC where it names no zone) or Unix seconds, as Unix seconds.

    >>> moment("1970-01-02T00:00:00")
    86400.0
    """
    with contextlib.suppress(ValueError):
        time = float(text)
        if not 0 <= time < 1e11:
            raise ConfigError(f"{text!r} is not a time; write 2026-01-31T12:00:00 or Unix seconds")
        return time
    try:
        date = datetime.fromisoformat(text)
    except ValueError as error:
        raise ConfigError(f"{text!r} is not a time; write 2026-01-31T12:00:00 or Unix seconds") from error
    return (date if date.tzinfo else date.replace(tzinfo=UTC)).timestamp()


def _progress(total: int) -> Callable[[int], None]:
    def show(done: int) -> None:
        if sys.stderr.isatty():
            print(f"\r{done}/{total} lists", end="" if done < total else "\n", file=sys.stderr, flush=True)

    return show


def _show(plan: "ReplayPlan", done: int | None, as_json: bool) -> None:
    if as_json:
        offsets = {str(p): [a, b] for p, (a, b) in plan.offsets.items()}
        body = {"model": plan.model, "to_topic": plan.to_topic, "offsets": offsets, "records": plan.records}
        print(json.dumps({**body, "users": plan.users, "executed": done is not None, "lists": done}))
        return
    for partition, (first, last) in sorted(plan.offsets.items()):
        print(f"plays[{partition}]  offsets {first} to {last}, {last - first} records")
    who = "everybody" if plan.users is None else f"{plan.users} users"
    print(f"model {plan.model}, {who}, into {plan.to_topic}")
    print(f"{done} lists published" if done is not None else "this is the plan; --execute carries it out")
