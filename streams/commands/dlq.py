"""`msam dlq list|show|redrive`: dead letters, and the way back."""

import json
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated

import typer

from streams.errors import MsamError

if TYPE_CHECKING:
    from streams.redrive import Outcome

app = typer.Typer()

Bootstrap = Annotated[str | None, typer.Option(help="Kafka bootstrap servers; default: the local broker.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]
Topic = Annotated[str | None, typer.Option(help="Only letters of records of this topic.")]
Words = Annotated[str | None, typer.Option("--error", help="Only letters whose error contains this text.")]


class LettersRefused(MsamError):
    """The broker did not take some of the letters."""


@app.command("list")
def list_letters(
    topic: Topic = None,
    error: Words = None,
    waiting: Annotated[bool, typer.Option("--waiting", help="Only letters that were not sent again yet.")] = False,
    limit: Annotated[int | None, typer.Option("--max", min=1, help="End after so many letters.")] = None,
    bootstrap: Bootstrap = None,
    as_json: Json = False,
) -> None:
    """Every dead letter: its name, its source, when, whose, why."""
    from itertools import islice

    from streams.letters import read_letters, wanted
    from streams.operations import read_operations
    from streams.settings import load_settings
    from streams.show import letter_line, letter_object

    config = load_settings(bootstrap=bootstrap).kafka_config()
    sent, asked = read_operations(config).redriven, wanted(topic, error, frozenset())
    found = (
        (letter, (letter.partition, letter.offset) in sent)
        for letter in read_letters(config)
        if asked(letter) and not (waiting and (letter.partition, letter.offset) in sent)
    )
    if as_json:
        print(json.dumps([letter_object(letter, again) for letter, again in islice(found, limit)], allow_nan=False))
        return
    count = 0
    for letter, again in islice(found, limit):
        count += 1
        print(letter_line(letter, again))
    if not count:
        print("no dead letters" if topic is error is None and not waiting else "no such dead letters")


@app.command()
def show(
    letter: Annotated[str, typer.Argument(help="The letter's name, such as 3@41.")],
    bootstrap: Bootstrap = None,
    as_json: Json = False,
) -> None:
    """One letter: headers, key and the beginning of the value in printable form, and whether it can be read now."""
    from streams.letters import find_letter
    from streams.operations import read_operations
    from streams.settings import load_settings
    from streams.show import letter_details, letter_object, letter_verdict
    from streams.user_keys import keyring_of

    settings = load_settings(bootstrap=bootstrap)
    config = settings.kafka_config()
    found = find_letter(config, letter)
    sent = (found.partition, found.offset) in read_operations(config).redriven
    now = letter_verdict(found, settings.registry(), keyring_of(settings))
    if as_json:
        print(json.dumps({**letter_object(found, sent, whole=True), "now": now}, allow_nan=False))
    else:
        print(letter_details(found, sent, now))


@app.command()
def redrive(
    letters: Annotated[list[str] | None, typer.Argument(help="Names, such as 3@41; default: all.")] = None,
    topic: Topic = None,
    error: Words = None,
    again: Annotated[bool, typer.Option("--again", help="Also letters that were sent again before.")] = False,
    execute: Annotated[bool, typer.Option("--execute", help="Do it; without, only the plan is shown.")] = False,
    bootstrap: Bootstrap = None,
    as_json: Json = False,
) -> None:
    """Send original records back to their topics, each letter once; prints its plan unless told to execute."""
    from streams import redrive as work
    from streams.letters import place_of, wanted
    from streams.settings import load_settings

    asked = wanted(topic, error, frozenset(place_of(name) for name in letters or ()))
    config = load_settings(bootstrap=bootstrap).kafka_config()
    outcome = work.execute(config, asked, again, _progress()) if execute else work.plan(config, asked, again)
    _show(outcome, execute, as_json)
    if outcome.refused:
        name, why = next(iter(outcome.refused.items()))
        raise LettersRefused(f"{len(outcome.refused)} letters were not taken, the first of them {name}: {why}")


def _progress() -> Callable[[int], None]:
    def show(done: int) -> None:
        if sys.stderr.isatty():
            print(f"\r{done} letters", end="", file=sys.stderr, flush=True)

    return show


def _show(outcome: "Outcome", executed: bool, as_json: bool) -> None:
    counts = {str(name): count for name, count in sorted(outcome.verdicts.items())}
    if as_json:
        by_topic = dict(sorted(outcome.topics.items()))
        body = {"letters": counts, "topics": by_topic, "executed": executed}
        print(json.dumps({**body, "sent": outcome.sent, "refused": outcome.refused}))
        return
    for name, count in counts.items():
        print(f"{count} letters {name}")
    for topic, count in sorted(outcome.topics.items()):
        print(f"  {topic}: {count}")
    if executed:
        print(f"{outcome.sent} records sent back")
    elif outcome.topics:
        print("this is the plan; --execute carries it out")
    else:
        print("nothing to send")
