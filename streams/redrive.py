"""Dead letters back to where they came from: the original key, value and headers, exactly once per letter.

A transaction holds records and the marks that say so, under one transactional id: of two redrives the later one shuts
the earlier out before it reads the marks, so that no letter is sent by both.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from streams import topics
from streams.letters import FROM, Letter, header_pairs, read_letters
from streams.log_reader import key_of, read_to_end, record_at
from streams.operations import Operations, read_operations, redriven
from streams.outgoing import Out
from streams.publishing import NotTaken
from streams.transactions import Transactions

SOURCES = frozenset({topics.PLAYS, topics.USER_PROFILES, topics.TRACK_METADATA, topics.AUDIO_UPLOADS})
_NEWEST_COUNTS = (topics.USER_PROFILES, topics.TRACK_METADATA)
_TRANSACTION_RECORDS, _TRANSACTION_BYTES = 500, 4 * 2**20
Newest = Mapping[tuple[str, int, bytes], int]  # source topic, partition, key -> offset of the newest record


class Verdict(StrEnum):
    """What a redrive makes of a letter."""

    send = "to be sent"
    before = "sent before"  # only --again sends it once more
    superseded = "superseded"  # a newer record of the same key lies in its compacted topic
    forgotten = "of a forgotten listener"
    unknown = "from an unknown topic"


def verdict(letter: Letter, remembered: Operations, newest: Newest, again: bool) -> Verdict:
    """What is to be done with one letter."""
    if letter.topic not in SOURCES or letter.source_partition is None or letter.source_offset is None:
        return Verdict.unknown
    if letter.key is not None and letter.key.decode("utf-8", "replace") in remembered.forgotten:
        return Verdict.forgotten
    if not again and (letter.partition, letter.offset) in remembered.redriven:
        return Verdict.before
    place = letter.topic, letter.source_partition, letter.key or b""
    return Verdict.superseded if newest.get(place, -1) > letter.source_offset else Verdict.send


@dataclass(slots=True)
class Outcome:
    """Letters by verdict and, of those to be sent, by topic; how many were sent; which were refused, and why."""

    verdicts: Counter[Verdict] = field(default_factory=Counter)
    topics: Counter[str] = field(default_factory=Counter)
    sent: int = 0
    refused: dict[str, str] = field(default_factory=dict)


def plan(config: Mapping[str, str], asked: Callable[[Letter], bool], again: bool = False) -> Outcome:
    """What `execute` would do now."""
    outcome = Outcome()
    for letter in _judged(config, asked, again, read_operations(config), outcome):
        outcome.topics[letter.topic or ""] += 1
    return outcome


def execute(
    config: Mapping[str, str],
    asked: Callable[[Letter], bool],
    again: bool = False,
    progress: Callable[[int], None] = lambda done: None,
) -> Outcome:
    """Send the letters that are asked for; Fenced when another redrive begins meanwhile, which then does the rest."""
    producer = Transactions(config, "msam-redrive")
    producer.take_over()
    outcome = Outcome()
    for batch in _batches(_judged(config, asked, again, read_operations(config), outcome)):
        _send(config, producer, batch, outcome)
        progress(outcome.sent)
    return outcome


def _judged(
    config: Mapping[str, str],
    asked: Callable[[Letter], bool],
    again: bool,
    remembered: Operations,
    outcome: Outcome,
) -> Iterator[Letter]:
    """The letters to be sent; all are counted."""
    newest = _newest(config)
    for letter in read_letters(config):
        if asked(letter):
            found = verdict(letter, remembered, newest, again)
            outcome.verdicts[found] += 1
            if found is Verdict.send:
                yield letter


def _newest(config: Mapping[str, str]) -> dict[tuple[str, int, bytes], int]:
    """The newest record of every key in the topics where only that one counts, from the oldest letter's place on."""
    first: defaultdict[str, dict[int, int]] = defaultdict(dict)
    for letter in read_letters(config):
        if letter.topic in _NEWEST_COUNTS and letter.source_partition is not None and letter.source_offset is not None:
            starts = first[letter.topic]
            starts[letter.source_partition] = min(
                starts.get(letter.source_partition, letter.source_offset), letter.source_offset
            )
    newest = {}
    for topic, starts in first.items():
        for message in read_to_end(config, topic, starts):
            newest[topic, message.partition() or 0, key_of(message) or b""] = message.offset() or 0
    return newest


def _batches(letters: Iterator[Letter]) -> Iterator[list[Letter]]:
    batch: list[Letter] = []
    size = 0
    for letter in letters:
        batch.append(letter)
        size += letter.size
        if len(batch) >= _TRANSACTION_RECORDS or size >= _TRANSACTION_BYTES:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def _send(config: Mapping[str, str], producer: Transactions, batch: list[Letter], outcome: Outcome) -> None:
    """One transaction; where the broker refuses it, one a letter, to find which."""
    try:
        producer.commit([out for letter in batch for out in _outs(config, letter)])
        outcome.sent += len(batch)
        outcome.topics.update(letter.topic or "" for letter in batch)
    except NotTaken as error:
        if len(batch) == 1:
            outcome.refused[batch[0].name] = str(error)
            return
        for letter in batch:
            _send(config, producer, [letter], outcome)


def _outs(config: Mapping[str, str], letter: Letter) -> list[Out]:
    """The original record, to the partition that murmur2 gives its key, and the mark."""
    key, value, headers = letter.key, letter.value, letter.headers
    if not letter.whole:
        assert letter.source_partition is not None and letter.source_offset is not None
        original = record_at(config, letter.topic or "", letter.source_partition, letter.source_offset)
        if original is None:
            raise NotTaken(f"{letter.source} is gone from its topic, and its letter holds only the beginning")
        key, value, headers = key_of(original), original.value(), tuple(header_pairs(original))
    kept = [pair for pair in headers if pair[0] != FROM]
    origin = FROM, f"{topics.DEAD_LETTERS}[{letter.partition}]@{letter.offset}".encode()
    return [
        Out(letter.topic or "", key, value, None, [*kept, origin]),
        redriven(letter.partition, letter.offset),
    ]
