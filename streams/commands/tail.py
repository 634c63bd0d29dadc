"""`msam tail`: decoded records of a topic, one a line."""

import sys
from collections.abc import Iterator
from enum import StrEnum
from functools import partial
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from confluent_kafka import Message


class Topic(StrEnum):
    """What can be tailed."""

    recommendations = "recommendations"
    dead_letters = "dead-letters"


class Start(StrEnum):
    """Where to begin."""

    earliest = "earliest"
    latest = "latest"


def register(app: typer.Typer) -> None:
    """Mount the command."""
    app.command()(tail)


def tail(
    topic: Annotated[Topic, typer.Argument(help="What to read.")],
    user: Annotated[str | None, typer.Option(help="Only this user's records (by key).")] = None,
    start: Annotated[Start, typer.Option("--from", help="Where to begin.")] = Start.latest,
    idle_exit: Annotated[
        float | None, typer.Option(min=0.0, help="End after so many seconds without a record.")
    ] = None,
    limit: Annotated[int | None, typer.Option("--max", min=1, help="End after so many records.")] = None,
    bootstrap: Annotated[str | None, typer.Option(help="Kafka servers; default: the running local broker.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON lines.")] = False,
) -> None:
    """Print records as they come, committed ones only; Ctrl-C ends it."""
    from streams.serialization import DecodeError
    from streams.settings import load_settings
    from streams.show import as_line, as_object, dump

    config = load_settings(bootstrap=bootstrap).kafka_config()
    try:
        for message in _messages(config, topic, user, start, idle_exit, limit):
            try:
                line = dump(as_object(message)) if as_json else as_line(message)
            except DecodeError as error:
                place = f"{message.topic()}[{message.partition()}]@{message.offset()}"
                print(f"warning: {place}: {error}", file=sys.stderr)
                continue
            print(line, flush=True)
    except KeyboardInterrupt:
        return


def _messages(
    config: dict[str, str], topic: Topic, user: str | None, start: Start, idle_exit: float | None, limit: int | None
) -> "Iterator[Message]":
    from streams.partitioner import partition_for
    from streams.reader import read

    key = None if user is None else user.encode()

    def wanted(message: "Message") -> bool:
        # A list without a value is a tombstone: the user was forgotten, there is no record to show.
        lists = topic is Topic.recommendations
        return (key is None or message.key() == key) and not (lists and message.value() is None)

    only = None
    if key is not None and topic is Topic.recommendations:  # dead letters of a wrongly partitioned play are anywhere
        only = partial(partition_for, key)
    return read(
        config, topic.value, start=start.value, partition_of=only, wanted=wanted, idle_exit=idle_exit, limit=limit
    )
