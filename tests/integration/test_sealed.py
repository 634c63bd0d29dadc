"""Sealed plays through the whole system: answered like clear ones, unreadable once their listener is forgotten.

What may fail, and is tried here: bytes in `plays` or `dead-letters` that tell track or time; a sealed play that gets
another list than a clear one; a key that is published after its play; a play without a key that holds the worker up, is
lost or answered twice, or does not come back by a redrive; a key, or a way to open plays, that outlives `users forget`;
a trainer, replay or doctor that stops at sealed plays or passes them over in silence.
"""

from __future__ import annotations

import secrets
import struct
import time
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Producer

from streams.feeds import TopicFeed
from streams.local_kafka import LocalKafka
from streams.log_reader import end_offsets, key_of, read_to_end
from streams.operations import digest
from streams.outgoing import Out
from streams.publishing import Publisher
from streams.records import Play, Recommendation
from streams.sealing import KEY_BYTES, NotOpened, is_sealed, key_name, open_play, seal, unwrap, wrap
from streams.serialization import decode, encode
from streams.settings import load_settings
from streams.topics import DEAD_LETTERS, PLAYS, USER_KEYS, TopicSpec, create_topics
from streams.trainer import read_log
from streams.user_keys import read_keys
from tests.integration.system import START, System
from tests.integration.taps import Answers, Place, Tap, headers_of
from tests.integration.test_doctor import examined
from tests.integration.test_forget import newest, until

MASTER = "MSAM_MASTER_KEY_FILE"
GONE, KEPT, CLEAR = "sealed-gone", "sealed-kept", "sealed-not"


@pytest.fixture(scope="module")
def master(operated: System) -> bytes:
    """The master key; whether a process has it is for each test to say."""
    made = secrets.token_bytes(32)
    path = operated.home / "master"
    path.write_bytes(made)
    path.chmod(0o600)
    operated.quiet()
    return made


def published(system: System, folder: Path, rows: list[tuple[str, str, float]]) -> list[Place]:
    """`msam publish plays --seal`; where the plays landed, in the order of their file."""
    file = folder / "plays.csv"
    file.write_text("user_id,track_id,timestamp\n" + "".join(f"{u},{t},{at:.0f}\n" for u, t, at in rows))
    users = {user.encode() for user, *_ in rows}
    with Tap(system.config, PLAYS) as plays:
        done = system.ask("publish", "plays", str(file), "--seal")
        plays.until(lambda: len(mine(plays, users)) >= done["published"], lambda: f"{len(plays.messages)} came", 30)
        by_user: dict[bytes, list[Place]] = {}
        for m in mine(plays, users):
            assert is_sealed(m.value())
            by_user.setdefault(key_of(m) or b"", []).append((PLAYS, m.partition() or 0, m.offset() or 0))
    return [by_user[user.encode()].pop(0) for user, *_ in rows if by_user.get(user.encode())]


def mine(tap: Tap, users: set[bytes]) -> list[Any]:
    return [m for m in tap.messages if key_of(m) in users]


def rows_of(system: System, user: str, at: float = START) -> list[tuple[str, str, float]]:
    return [(user, system.described[n], at + n) for n in range(6)]


def shown(answer: Recommendation | None) -> list[tuple[str, str]]:
    assert answer is not None
    return [(item.track_id, item.reasons.kind) for item in answer.items]


def test_from_the_first_play_to_the_forgotten_key(
    operated: System, master: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    system = operated
    monkeypatch.setitem(system.env, MASTER, str(system.home / "master"))
    with system.worker("sealed") as worker, Answers(system.config) as answers:
        worker.wait_ready()
        clear = answers.wait(system.play(rows_of(system, CLEAR)))
        closed = answers.wait(published(system, tmp_path, [*rows_of(system, GONE), *rows_of(system, KEPT)]))
        for user, some in ((GONE, closed[:6]), (KEPT, closed[6:])):
            assert {a.record.user_id for a in some if a.record} == {user}
            assert [shown(a.record) for a in some] == [shown(a.record) for a in clear], "the same plays, the same lists"
        check_bytes(system, master)
        check_jobs(system, tmp_path, master, {GONE, KEPT}, 12)
        before = keys_of_user(system, GONE)
        assert len(before) == 1 and len(keys_of_user(system, KEPT)) == 1
        opened = read_keys(system.config, master)
        done = system.ask("users", "forget", GONE)
        assert (done["keys"], done["pending"]) == (1, [])
        assert list(keys_of_user(system, GONE).values()) == [None], "its record is a tombstone"
        assert list(keys_of_user(system, KEPT).values()) != [None]
        ring = read_keys(system.config, master)
        for value in values_of(system, GONE):
            assert open_play(value, keys=opened).user_id == GONE, "the key that is gone had opened it"
            with pytest.raises(NotOpened):
                open_play(value, keys=ring)
        rows = (tmp_path / "plays.csv").read_text().splitlines(keepends=True)
        (tmp_path / "again.csv").write_text("".join(row for row in rows if not row.startswith(KEPT)))
        again = system.msam("publish", "plays", str(tmp_path / "again.csv"), "--seal")
        assert "6 plays of forgotten listeners were left out" in again.stderr and len(values_of(system, GONE)) == 6
        assert list(keys_of_user(system, GONE).values()) == [None], "and get no new key"
        late = encode(seal(Play(GONE, system.described[0], START), *seen(before, master)))
        system.sender.send(PLAYS, GONE.encode(), late)  # by a producer that holds the key still
        system.sender.flush()
        system.wait_committed()
        assert newest(system, "recommendations", GONE) is None
    assert not [m for m in read_to_end(system.config, DEAD_LETTERS) if key_of(m) == GONE.encode()]
    check_jobs(system, tmp_path, master, {KEPT}, 12)


def values_of(system: System, user: str) -> list[bytes]:
    return [m.value() or b"" for m in read_to_end(system.config, PLAYS) if key_of(m) == user.encode()]


def keys_of_user(system: System, user: str) -> dict[bytes, bytes | None]:
    """What compaction would leave of the listener's keys."""
    found = {key_of(m) or b"": m.value() for m in read_to_end(system.config, USER_KEYS)}
    return {name: value for name, value in found.items() if name.startswith(digest(user).encode())}


def seen(records: dict[bytes, bytes | None], master: bytes) -> tuple[str, bytes]:
    ((name, value),) = records.items()
    return name.decode().partition("/")[2], unwrap(master, name, value or b"")


def check_bytes(system: System, master: bytes) -> None:
    """Neither track nor time, as text or as a double, is in what the log holds of sealed plays; no key is anywhere."""
    values = [value for user in (GONE, KEPT) for value in values_of(system, user)]
    assert len(values) == 12
    for value in values:
        for n in range(6):
            for told in (system.described[n].encode(), struct.pack("<d", START + n), b"%d" % (START + n)):
                assert told not in value
    _, key = seen(keys_of_user(system, GONE), master)
    for topic in (PLAYS, USER_KEYS):
        for message in read_to_end(system.config, topic):
            whole = (key_of(message) or b"") + (message.value() or b"")
            assert key not in whole and master not in whole
    for message in read_to_end(system.config, USER_KEYS):
        assert GONE.encode() not in (key_of(message) or b"")


def check_jobs(system: System, folder: Path, master: bytes, users: set[str], sealed: int) -> None:
    """Trainer and replay read what can be opened, and say how many plays cannot."""
    registry = load_settings(bootstrap=system.bootstrap, registry_url=system.env["MSAM_REGISTRY_URL"]).registry()
    state = read_log(system.config, registry, read_keys(system.config, master))
    mine = [(user, track, at) for user, track, at, *_ in state.plays if user in (GONE, KEPT)]
    assert {user for user, *_ in mine} == users and len(mine) == 6 * len(users)
    assert {track for _, track, _ in mine} == set(system.described[:6])
    assert state.not_opened == (0 if GONE in users else 7)
    blind = read_log(system.config, registry)
    assert not {user for user, *_ in blind.plays} & {GONE, KEPT} and blind.not_opened >= sealed
    only = folder / "users"
    only.write_text(f"{GONE}\n{KEPT}\n")
    words = ["replay", "--from", "1970-01-02", "--users", str(only), "--execute", "--to-topic"]
    name = f"sealed-replayed-{len(users)}"
    done = system.ask(*words, name)
    assert (done["lists"], done["not_opened"]) == (6 * len(users), 0), "who is forgotten is not even tried"
    assert {(key_of(m) or b"").decode() for m in read_to_end(system.config, name)} == users
    with pytest.MonkeyPatch.context() as without:
        without.delitem(system.env, MASTER)
        done = system.ask(*words, f"{name}-blind")
        refused = system.msam("publish", "plays", str(folder / "plays.csv"), "--seal")
    assert (done["lists"], done["not_opened"]) == (0, 6 * len(users))
    assert refused.returncode == 1 and "--seal needs the master key" in refused.stderr


def test_a_play_without_its_key_waits_a_moment_and_comes_back_by_a_redrive(
    operated: System, master: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    system, user = operated, "sealed-early"
    key, name = secrets.token_bytes(KEY_BYTES), key_name(user, "later")
    sealed = [encode(seal(Play(user, system.described[n], START + n), "later", key)) for n in range(40)]
    changed = sealed[0][:-1] + bytes([sealed[0][-1] ^ 1])

    def send(*values: bytes) -> list[Place]:
        for value in values:
            system.sender.send(PLAYS, user.encode(), value)
        return system.sender.flush()

    with system.worker("sealed-blind") as blind, Answers(system.config) as answers:
        blind.wait_ready()
        (letter,) = answers.wait(send(sealed[0]))
        assert letter.record is None and "MSAM_MASTER_KEY_FILE" in letter.reason
        assert letter.message.value() == sealed[0]
        code, wrong, _ = examined(system)
        assert code == 1 and "no master key" in wrong["sealed"][0]["text"]
    monkeypatch.setitem(system.env, MASTER, str(system.home / "master"))
    with system.worker("sealed-blind") as worker, Answers(system.config) as answers:
        worker.wait_ready()
        started = time.monotonic()
        letters = answers.wait(send(*sealed[:40]))
        assert time.monotonic() - started < 20, "forty plays that lack a key do not hold the others up"
        assert all(a.record is None and "no key later of its listener" in a.reason for a in letters)
        for letter in letters:
            told = b"".join(headers_of(letter.message).values())
            assert system.described[0].encode() not in told
        Publisher(system.config).send([Out(USER_KEYS, name, wrap(master, name, key), 0)])
        (tampered, good) = answers.wait(send(changed, sealed[1]))
        assert tampered.record is None and "changed since" in tampered.reason
        assert good.record is not None, "the key is known as soon as it is there"
        first = f"{letters[0].message.partition()}@{letters[0].message.offset()}"
        assert system.ask("dlq", "show", first)["now"] == "its bytes can be read"
        with Tap(system.config, PLAYS) as plays:
            assert system.ask("dlq", "redrive", "--error", "no key later", "--execute")["sent"] == 40
            plays.until(lambda: len(mine(plays, {user.encode()})) == 40, lambda: "they did not come", 30)
            back = mine(plays, {user.encode()})
        assert [m.value() for m in back] == sealed, "the bytes as they were"
        for answer in answers.wait([(PLAYS, m.partition() or 0, m.offset() or 0) for m in back]):
            assert answer.record is not None, answer.reason
        assert decode(Recommendation, newest(system, "recommendations", user) or b"").user_id == user
        fresh = f"{user}-2"
        for n in range(5):  # the key and the play at once, the key first: no play comes before the feed has its key
            name = key_name(fresh, f"k{n}")
            Publisher(system.config).send([Out(USER_KEYS, name, wrap(master, name, key), 0)])
            system.sender.send(
                PLAYS, fresh.encode(), encode(seal(Play(fresh, system.described[n], START + n), f"k{n}", key))
            )
        assert all(answer.record is not None for answer in answers.wait(system.sender.flush()))
        code, wrong, _ = examined(system)
        assert "sealed" in wrong and "changed since" in wrong["sealed"][0]["text"]
        assert MASTER not in worker.log and master.hex() not in worker.log and key.hex() not in worker.log


def test_a_feed_catches_up_with_what_is_there_now(kafka: LocalKafka, unique: str) -> None:
    config = {"bootstrap.servers": kafka.bootstrap, "log_level": "0"}
    create_topics(config, [TopicSpec(unique, "k", 1, "compact")])
    seen: list[bytes] = []
    feed = TopicFeed(config, unique, lambda key, value, offset: seen.append(key))
    assert feed.catch_up(5), "nothing is there"
    publisher = Publisher(config)
    publisher.send([Out(unique, b"0", b"x", 0)])
    assert not feed.catch_up(0.2), "it does not read yet"
    feed.start()
    try:
        for n in range(1, 20):
            publisher.send([Out(unique, b"%d" % n, b"x", 0)])
            assert feed.catch_up(10) and seen[-1] == b"%d" % n
        producer = Producer({**config, "transactional.id": unique})
        producer.init_transactions(20)
        producer.begin_transaction()
        producer.produce(unique, b"x", b"in a transaction", partition=0)
        producer.commit_transaction(20)
        until(20, "no commit marker", lambda: end_offsets(config, unique)[0] == 22)
        assert feed.catch_up(10) and seen[-1] == b"in a transaction", "a commit marker is passed, not waited for"
        began = time.monotonic()
        assert all(feed.catch_up(10) for _ in range(20))
        assert time.monotonic() - began < 5, "nothing new: one question each"
    finally:
        feed.stop()
