"""`msam replay`: backfill lists from plays; prints its plan unless told to execute."""

import contextlib
import json
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from streams.errors import ConfigError, MsamError

if TYPE_CHECKING:
    from streams.replay import Outcome
    from streams.replay_plan import Asked, Bound, ReplayPlan
    from streams.settings import Settings

_OFFSET = "offset:"


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(replay)


def replay(
    to_topic: Annotated[str, typer.Option(help="Topic that takes the lists; made where missing, never a live one.")],
    start: Annotated[
        str | None,
        typer.Option("--from", help="Append time (ISO 8601 in UTC, or Unix seconds), offset:N or offset:0=N,1=M,..."),
    ] = None,
    stop: Annotated[str | None, typer.Option("--to", help="As --from, exclusive; default: now.")] = None,
    users: Annotated[
        Path | None, typer.Option(exists=True, dir_okay=False, help="File with one user_id a line; default: everybody.")
    ] = None,
    model: Annotated[str | None, typer.Option(help="Model version; default: the live one.")] = None,
    catalogue: Annotated[int | None, typer.Option(help="Catalogue version; default: the present one.")] = None,
    as_recorded: Annotated[
        bool, typer.Option("--as-recorded", help="Each list with the versions that its live record names.")
    ] = False,
    rate: Annotated[
        float | None, typer.Option(min=0.1, help="Most lists a second; default: as fast as it goes.")
    ] = None,
    cutover: Annotated[
        bool,
        typer.Option("--cutover", help="Swap a finished replay's lists into the live topic, never over newer ones."),
    ] = False,
    wait: Annotated[float, typer.Option(min=0, help="Seconds that --cutover waits for the workers.")] = 60.0,
    execute: Annotated[bool, typer.Option("--execute", help="Do it; without, only the plan is shown.")] = False,
    bootstrap: Annotated[str | None, typer.Option(help="Kafka bootstrap servers; default: the local broker.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Make the lists of a past range of plays again, into another topic; live state is not touched.

    A replay that was cut off goes on when the same command is given again. Only `--cutover` touches what is live.
    """
    from streams.settings import load_settings

    if cutover:
        _cut_over(load_settings(bootstrap=bootstrap), to_topic, execute, wait, as_json)
        return
    if start is None:
        raise typer.BadParameter("it says where the replay begins", param_hint="--from")
    only = None if users is None else _ids(users)
    first, last = bound(start), None if stop is None else bound(stop)
    if isinstance(first, float) and isinstance(last, float) and last <= first:
        raise ConfigError("--to must be later than --from")
    if as_recorded and (model or catalogue):
        raise ConfigError("--as-recorded takes every version from the live records; leave --model and --catalogue away")
    settings = load_settings(bootstrap=bootstrap)
    from streams.replay_plan import Asked, digest

    asked = Asked(start, stop, model, catalogue, None if only is None else digest(only))
    _run(settings, to_topic, asked, first, last, only, as_recorded, rate, execute, as_json)


def _run(
    settings: "Settings",
    to_topic: str,
    asked: "Asked",
    first: "Bound",
    last: "Bound | None",
    only: frozenset[str] | None,
    as_recorded: bool,
    rate: float | None,
    execute: bool,
    as_json: bool,
) -> None:
    from streams import topics
    from streams.log_reader import partitions_of_topic
    from streams.replay_output import ReplayOutput
    from streams.replay_plan import check_target, make_plan

    config = settings.kafka_config()
    check_target(to_topic, settings.group)
    partitions = partitions_of_topic(config, topics.PLAYS)
    output = ReplayOutput(config, to_topic)
    try:
        if execute:
            output.open()
        begun = output.place(partitions)
        if begun is None:
            plan = make_plan(
                config,
                asked,
                first,
                last,
                as_recorded=as_recorded,
                window=settings.window,
                slack=settings.slack,
                history=settings.history,
                size=settings.list_size,
            )
            place = {p: at for p, (at, _) in plan.offsets.items()}
        else:
            plan, place = begun
            if plan.asked != asked or plan.as_recorded != as_recorded:
                raise MsamError(
                    f"--to-topic {to_topic} holds a replay that was asked for otherwise; name another topic"
                )
        outcome = None
        if execute:
            if begun is None:
                output.begin(plan)
            outcome = _execute(settings, config, output, plan, place, only, rate)
    finally:
        output.close()
    left = sum(stop - place[p] for p, (_, stop) in plan.offsets.items())
    _show(plan, to_topic, None if only is None else len(only), begun is not None, left, outcome, as_json)
    if outcome is not None and outcome.different:
        raise MsamError(
            f"{outcome.different} lists differ from their live records: those were made on another kind of CPU or with "
            "other libraries, or track-features and user-profiles do not hold their versions any more (compaction)"
        )


def _execute(
    settings: "Settings",
    config: dict[str, str],
    output: Any,
    plan: "ReplayPlan",
    place: dict[int, int],
    only: frozenset[str] | None,
    rate: float | None,
) -> "Outcome":
    import torch

    from streams.replay import execute
    from streams.user_keys import keyring_of

    torch.set_num_threads(1)
    return execute(
        config,
        output,
        plan,
        place,
        only=only,
        text_encoder=settings.text_encoder,
        registry=settings.registry(),
        keys=keyring_of(settings),
        half=settings.half(),
        rate=rate,
        progress=_progress(plan.records),
    )


def _cut_over(settings: "Settings", to_topic: str, execute: bool, wait: float, as_json: bool) -> None:
    """Swap the lists of a finished replay in, or say what that would do."""
    from streams import cutover

    config = settings.kafka_config()
    _finished(config, to_topic)
    counts, missing = cutover.request(config, to_topic, wait) if execute else (cutover.plan(config, to_topic), [])
    if as_json:
        figures = {"swapped": counts.swapped, "left": counts.left, "pending": missing, "executed": execute}
        print(json.dumps({"to_topic": to_topic, **figures}))
    else:
        print(f"{to_topic}: {counts.swapped} lists replace the newest one of their listeners, {counts.left} do not")
        if not execute:
            print("this is the plan; --execute carries it out, for who has not played on by then")
    if missing:
        raise MsamError(
            f"partitions {', '.join(map(str, missing))} are not done after {wait:g} s; whoever serves them does it, "
            "and the same command again waits for it"
        )


def _finished(config: dict[str, str], to_topic: str) -> None:
    """MsamError unless the topic holds a whole replay."""
    from streams import topics
    from streams.log_reader import partitions_of_topic
    from streams.replay_output import ReplayOutput

    output = ReplayOutput(config, to_topic)
    try:
        begun = output.place(partitions_of_topic(config, topics.PLAYS))
    finally:
        output.close()
    if begun is None:
        raise MsamError(f"--to-topic {to_topic} is no replay's that is known here; make one first, without --cutover")
    plan, place = begun
    if left := sum(stop - place[p] for p, (_, stop) in plan.offsets.items()):
        raise MsamError(f"the replay into {to_topic} is not finished, {left} records are left: run it again first")


def _ids(path: Path) -> frozenset[str]:
    try:
        return frozenset(path.read_text(encoding="utf-8").splitlines()) - {""}
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"--users {path} cannot be read: {error}") from error


def bound(text: str) -> "Bound":
    """An end of the range: an append time, or offsets of plays.

    >>> bound("offset:120"), bound("offset:0=120,1=80")
    (120, {0: 120, 1: 80})
    """
    if not text.startswith(_OFFSET):
        return moment(text)
    rest = text.removeprefix(_OFFSET)
    with contextlib.suppress(ValueError):
        if rest.isdecimal():
            return int(rest)
        pairs = [part.split("=") for part in rest.split(",")]
        return {int(partition): int(offset) for partition, offset in pairs}
    raise ConfigError(f"{text!r} names no offsets; write offset:120 or offset:0=120,1=80")


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


def _show(
    plan: "ReplayPlan",
    to_topic: str,
    users: int | None,
    resumed: bool,
    left: int,
    outcome: "Outcome | None",
    as_json: bool,
) -> None:
    if as_json:
        body: dict[str, Any] = {
            "model": plan.model,
            "catalogue_version": plan.catalogue,
            "as_recorded": plan.as_recorded,
            "to_topic": to_topic,
            "offsets": {str(p): [a, b] for p, (a, b) in plan.offsets.items()},
            "records": plan.records,
            "users": users,
            "resumed": resumed,
            "left": left,
            "executed": outcome is not None,
            "lists": None if outcome is None else outcome.lists,
            "not_opened": None if outcome is None else outcome.not_opened,
        }
        if outcome is not None and plan.as_recorded:
            body |= {name: getattr(outcome, name) for name in ("identical", "different", "unrecorded")}
        print(json.dumps(body))
        return
    for partition, (first, last) in sorted(plan.offsets.items()):
        print(f"plays[{partition}]  offsets {first} to {last}, {last - first} records")
    made = "each live record's versions" if plan.as_recorded else f"model {plan.model}, catalogue {plan.catalogue}"
    print(f"{made}, {'everybody' if users is None else f'{users} users'}, into {to_topic}")
    if resumed:
        print(f"begun before; {left} records of the range were left")
    if outcome is None:
        print("this is the plan; --execute carries it out")
        return
    print(f"{outcome.lists} lists published")
    if outcome.not_opened:
        print(f"{outcome.not_opened} sealed plays have no key (deleted, or no master key is set) and were left out")
    if plan.as_recorded:
        print(f"{outcome.identical} equal their live records byte by byte, {outcome.different} differ")
        if outcome.unrecorded:
            print(f"{outcome.unrecorded} plays have no live record (compacted, or never answered) and were left out")
