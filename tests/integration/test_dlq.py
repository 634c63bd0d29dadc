"""Dead letters listed, shown and sent back: N in, N letters, and after the fix N lists; each letter once."""

from __future__ import annotations

import contextlib
import gzip
import json
import os
import signal
import subprocess
import sys
from collections import Counter
from typing import Any

import pytest
from confluent_kafka import Message, Producer
from confluent_kafka.admin import AdminClient, AlterConfigOpType, ConfigEntry, ConfigResource, ResourceType

from streams.dead_letters import SIZE, WHOLE_BYTES, dead_letter
from streams.letters import FROM
from streams.outgoing import Out
from streams.partitioner import partition_for
from streams.publishing import Publisher
from streams.records import Play, UserProfile
from streams.registry import HttpRegistry
from streams.serialization import encode, encode_confluent
from streams.topics import DEAD_LETTERS, PLAYS, USER_PROFILES
from tests.integration.faulty_model import FAULT
from tests.integration.system import START, System
from tests.integration.taps import Answers, Place, Tap, header_pairs, headers_of, key_of
from tests.integration.workers import ROOT, Worker

EACH = 12
LATER_ID = 100  # what the registry gives the next schema that is registered


def broken(system: System) -> list[Place]:
    """Plays that today's worker cannot answer, for three reasons, none of which lies in their bytes."""
    for n in range(EACH):
        user = f"dlq-{n}"
        home = partition_for(user.encode(), 4)
        track = system.described[n]
        headers = [("trace", b"\x00%d" % n)]
        misplaced, framed = encode(Play(user, track, START)), encode_confluent(Play(user, track, START + 1), LATER_ID)
        system.sender.send(PLAYS, user.encode(), misplaced, partition=(home + 1) % 4, headers=headers)
        system.sender.send(PLAYS, user.encode(), framed, headers=headers)
        system.sender.send(PLAYS, user.encode(), encode(Play(user, FAULT, START + 2)), headers=headers)
    return system.sender.flush()


def listed(system: System, *words: str) -> list[dict[str, Any]]:
    rows = system.ask("dlq", "list", *words)
    return [row for row in rows if (row["key"] or "").startswith("dlq-")]


def test_n_in_n_letters_and_after_the_fix_n_lists(operated: System) -> None:
    system = operated
    system.quiet()
    with system.worker("dlq", program="tests.integration.faulty_model") as worker, Answers(system.config) as answers:
        places = broken(system)
        letters = answers.wait(places)
        assert worker.get("/health/ready")[0] == 200
        assert [letter.record for letter in letters] == [None] * len(places)
        system.wait_committed()
        worker.kill()
    originals = {place: letter.message for place, letter in zip(places, letters, strict=True)}
    rows = listed(system)
    assert {(row["topic"], row["partition"], row["offset"]) for row in rows} == set(places)
    assert not any(row["redriven"] for row in rows) and len(rows) == 3 * EACH
    for words, kind in (("murmur2", "WrongPlay"), ("/schemas/ids/100", "DecodeError"), ("out of range", "ModelFailed")):
        found = listed(system, "--error", words, "--topic", PLAYS)
        assert len(found) == EACH and all(row["exception"].endswith(kind) for row in found)
    assert listed(system, "--topic", USER_PROFILES) == []
    one = found[0]
    shown = system.ask("dlq", "show", one["letter"])
    assert (shown["now"], shown["message"]) == ("its bytes can be read", one["message"])
    assert shown["headers"][0]["name"] == "trace" and shown["preview"].startswith("00000000  c3 01")
    assert "planted-fault" in system.msam("dlq", "show", one["letter"]).stdout
    words = ["dlq", "redrive", *(row["letter"] for row in rows)]
    with Tap(system.config, PLAYS) as plays, Answers(system.config) as answers:
        plan = system.ask(*words)
        assert (plan["executed"], plan["sent"], plan["letters"]) == (False, 0, {"to be sent": 3 * EACH})
        assert plays.take(0.5) == [], "a plan sends nothing"
        assert HttpRegistry(system.env["MSAM_REGISTRY_URL"]).register("plays-value", "play") == LATER_ID
        done = system.ask(*words, "--execute")
        assert (done["executed"], done["sent"], done["refused"]) == (True, 3 * EACH, {})
        plays.until(lambda: len(plays.messages) >= 3 * EACH, lambda: f"{len(plays.messages)} came", 20)
        again = system.ask(*words, "--execute")
        assert (again["sent"], again["letters"]) == (0, {"sent before": 3 * EACH})
        assert plays.take(0.5) == [], "a letter is sent once"
        back = [(PLAYS, m.partition() or 0, m.offset() or 0) for m in plays.messages]
        with system.worker("dlq"):
            for answer in answers.wait(back):
                assert answer.record is not None, answer.reason
            settle(system, answers)
    check_originals(plays.messages, originals, rows)
    assert all(row["redriven"] for row in listed(system)) and listed(system, "--waiting") == []
    with Tap(system.config, PLAYS) as plays:
        assert system.ask("dlq", "redrive", one["letter"], "--again", "--execute")["sent"] == 1
        plays.until(lambda: len(plays.messages) == 1, lambda: "it did not come", 20)


def settle(system: System, answers: Answers) -> None:
    """A play in every partition, and no lag: the last offset of a redrive is a commit marker, which nobody consumes."""
    places = system.play((f"settle-{n}", system.described[n], START) for n in range(12))
    assert {partition for _, partition, _ in places} == {0, 1, 2, 3}
    answers.wait(places)
    system.wait_committed()


def check_originals(sent: list[Message], originals: dict[Place, Message], rows: list[dict[str, Any]]) -> None:
    """Every record that was sent back is the one of its letter, to the partition that murmur2 names."""
    places = {f"dead-letters[{r['dead_letter']['partition']}]@{r['dead_letter']['offset']}": r for r in rows}
    assert len(sent) == len(places)
    for message in sent:
        row = places.pop(headers_of(message)[FROM].decode())
        original = originals[row["topic"], row["partition"], row["offset"]]
        assert (message.value(), key_of(message)) == (original.value(), key_of(original))
        kept = [pair for pair in header_pairs(original) if not pair[0].startswith("__streams.errors.")]
        assert header_pairs(message)[:-1] == kept and len(kept) == 1
        assert message.partition() == partition_for(key_of(message) or b"", 4)


def test_two_redrives_and_a_kill_send_each_letter_once(operated: System) -> None:
    system, count = operated, 3000
    system.quiet()
    lost = ValueError("lost in a test of two redrives")
    outs = []
    for n in range(count):
        play = Play(f"twice-{n % 50}", system.described[n % 300], START + n)
        made = dead_letter(topic=PLAYS, partition=0, offset=n, key=play.user_id.encode(), value=encode(play),
                           headers=None, timestamp_ms=1, error=lost)  # fmt: skip
        outs.append(Out(DEAD_LETTERS, made.key, made.value, None, made.headers, made.timestamp_ms))
    Publisher(system.config).send(outs)
    command = [sys.executable, "-m", "streams.cli", "dlq", "redrive", "--error", str(lost), "--execute", "--json"]

    def start() -> subprocess.Popen[bytes]:
        return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env=system.env, cwd=ROOT)

    with Tap(system.config, PLAYS) as plays:
        killed = start()
        plays.until(lambda: bool(plays.messages) or killed.poll() is not None, lambda: "nothing is sent", 60)
        with contextlib.suppress(ProcessLookupError):
            os.kill(killed.pid, signal.SIGKILL)
        killed.communicate(timeout=20)
        both = [start(), start()]
        said = [own_words(process.communicate(timeout=90)[1].decode()) for process in both]
        assert sorted(process.returncode for process in both) in ([0, 0], [0, 1]), said
        assert all(not text or "another job of the same kind took over" in text for text in said), said
        left = system.ask("dlq", "redrive", "--error", str(lost), "--execute")
        assert left["sent"] + left["letters"].get("sent before", 0) == count
        plays.until(lambda: len(plays.messages) >= count, lambda: f"{len(plays.messages)} of {count}", 30)
        plays.take(0.5)
    origins = Counter(headers_of(message)[FROM] for message in plays.messages)
    assert len(origins) == count and set(origins.values()) == {1}
    with system.worker(), Answers(system.config) as answers:
        places = [(PLAYS, m.partition() or 0, m.offset() or 0) for m in plays.messages]
        assert all(answer.record is not None for answer in answers.wait(places, 90))
        settle(system, answers)


def own_words(text: str) -> str:
    """What a command says, without what librdkafka says of a request that it tries again."""
    return "\n".join(line for line in text.splitlines() if not line.startswith("%"))


def test_a_profile_that_is_newer_stays(operated: System, operated_worker: Worker) -> None:
    system = operated
    user = "dlq-profile"
    with Answers(system.config) as answers:
        system.sender.send(USER_PROFILES, user.encode(), b"no profile")
        (letter,) = answers.wait(system.sender.flush())
        system.sender.send(USER_PROFILES, user.encode(), encode(UserProfile(user, "f", 24)))
        system.sender.flush()
    name = f"{letter.message.partition()}@{letter.message.offset()}"
    assert system.ask("dlq", "redrive", name, "--execute")["letters"] == {"superseded": 1}


def test_wrong_names_and_filters(operated: System, operated_worker: Worker) -> None:
    system = operated
    for words, told in ((("show", "9@1"), "there is no dead letter"), (("redrive", "x"), "names no dead letter")):
        done = system.msam("dlq", *words)
        assert done.returncode == 1 and told in done.stderr and done.stderr.count("\n") == 1
    assert system.msam("dlq", "list", "--error", "nobody ever said this").stdout == "no such dead letters\n"


@pytest.fixture
def large_plays(operated: System) -> Any:
    """plays takes 11 MiB for the length of a test, as an operator might allow."""
    admin = AdminClient({**operated.config, "log_level": 4})

    def alter(operation: AlterConfigOpType) -> None:
        entry = ConfigEntry("max.message.bytes", str(11 * 2**20), incremental_operation=operation)
        resource = ConfigResource(ResourceType.TOPIC, PLAYS, incremental_configs=[entry])
        for future in admin.incremental_alter_configs([resource]).values():
            future.result(30)

    alter(AlterConfigOpType.SET)
    yield
    alter(AlterConfigOpType.DELETE)


def test_large_values_and_bombs(operated: System, operated_worker: Worker, large_plays: None) -> None:
    """A value of 10 MB, and batches of a few kilobytes that unfold to more than a letter can hold."""
    system, key = operated, b"dlq-large"
    values = [os.urandom(10**7), bytes(12 * 2**20), b"bomb " * (8 * 2**20)]
    assert len(gzip.compress(values[2], 6)) < 2**17
    places: list[Place] = []

    def landed(error: object, message: Message) -> None:
        assert error is None, error
        places.append((PLAYS, message.partition() or 0, message.offset() or 0))

    with Answers(system.config) as answers:
        for value, kind in zip(values, ("none", "lz4", "gzip"), strict=True):
            config = {"partitioner": "murmur2_random", "message.max.bytes": 10**8, "compression.type": kind}
            producer = Producer({**system.config, **config, "log_level": 0})  # type: ignore[dict-item]
            producer.produce(PLAYS, value, key, on_delivery=landed)
            assert producer.flush(30) == 0
        letters = answers.wait(places, 60)
        ((after,),) = [answers.wait(system.play([("dlq-large", system.described[0], START)]))]
        assert after.record is not None
        for value, letter in zip(values, letters, strict=True):
            kept, headers = letter.message.value() or b"", headers_of(letter.message)
            assert value.startswith(kept) and len(kept) == min(len(value), WHOLE_BYTES - len(key))
            assert (SIZE in headers) == (len(kept) < len(value))
            assert int(headers.get(SIZE, b"%d" % len(value))) == len(value)
        name = f"{letters[2].message.partition()}@{letters[2].message.offset()}"
        assert system.ask("dlq", "show", name)["bytes"] == len(values[2])
        done = system.msam("dlq", "redrive", name, "--execute", "--json")
        assert done.returncode == 1 and json.loads(done.stdout)["refused"].keys() == {name}
        assert "1 letters were not taken" in done.stderr and "too large" in done.stderr
