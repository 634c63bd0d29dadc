"""A listener is forgotten: nothing is left but the log of plays, and nothing brings the listener back."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from streams.log_reader import key_of, read_to_end
from streams.operations import digest
from streams.records import TrackFeature, UserProfile
from streams.serialization import decode, encode
from streams.settings import load_settings
from streams.topics import DEAD_LETTERS, OPERATIONS, PLAYS, RECOMMENDATIONS, TRACK_FEATURES, USER_PROFILES
from streams.trainer import read_log
from tests.integration.system import START, System
from tests.integration.taps import Answers

GONE, KEPT = "forget-gone", "forget-kept"


def newest(system: System, topic: str, key: str) -> bytes | None:
    """The value that compaction would leave of a key."""
    return {key_of(m): m.value() for m in read_to_end(system.config, topic)}.get(key.encode())


def until(seconds: float, what: str, look: Callable[[], Any]) -> None:
    deadline = time.monotonic() + seconds
    while not look():
        assert time.monotonic() < deadline, what
        time.sleep(0.1)


def played(system: System, user: str, count: int, at: float = START) -> list[tuple[str, str, float]]:
    return [(user, system.described[n], at + n) for n in range(count)]


def test_forget(operated: System, tmp_path: Path) -> None:
    system = operated
    system.quiet()
    changelogs = ("msam-windows-changelog", "msam-profiles-changelog")
    with system.worker("forget") as worker, Answers(system.config) as answers:
        worker.wait_ready()
        for user in (GONE, KEPT):
            system.sender.send(USER_PROFILES, user.encode(), encode(UserProfile(user, "f", 24)))
        system.sender.flush()
        answers.wait(system.play([*played(system, GONE, 5), (GONE, "forget-sighted", START), *played(system, KEPT, 5)]))
        until(40, "no profile", lambda: newest(system, changelogs[1], GONE))
        assert newest(system, changelogs[0], GONE) and newest(system, RECOMMENDATIONS, GONE)
        done = system.ask("users", "forget", GONE)
        assert done == {"hash": digest(GONE), "sightings": 1, "keys": 0, "pending": []}
        for topic in (*changelogs, RECOMMENDATIONS, USER_PROFILES):
            assert newest(system, topic, GONE) is None, topic
            assert newest(system, topic, KEPT) is not None, topic
        assert worker.list_of(GONE)[0] == 404 and worker.list_of(KEPT)[0] == 200
        sighting = decode(TrackFeature, newest(system, TRACK_FEATURES, "sighting/forget-sighted") or b"")
        assert sighting.users == ()
        system.sender.send(USER_PROFILES, GONE.encode(), encode(UserProfile(GONE, "f", 24)))
        system.sender.flush()
        after = system.play([*played(system, GONE, 3, START + 50), *played(system, KEPT, 3, START + 50)])
        assert all(answer.record is not None for answer in answers.wait(after[3:]))
        until(40, "they are not passed over", lambda: worker.metric("msam_plays_forgotten_total") == 3)
        system.wait_committed()
        assert answers.count(after[:3]) == 0 and newest(system, RECOMMENDATIONS, GONE) is None
        worker.kill()
    with system.worker("forget-anew") as worker:  # without any state: all comes back from changelogs and topics
        worker.wait_ready()
        until(30, "no list", lambda: worker.list_of(KEPT)[0] == 200)
        assert worker.list_of(GONE)[0] == 404
        (mine,) = [m for m in read_to_end(system.config, USER_PROFILES) if key_of(m) == GONE.encode() and m.value()][
            -1:
        ]
        assert mine is not None, "a producer that goes on is not stopped, only passed over"
        assert newest(system, changelogs[1], GONE) is None
    check_jobs(system, tmp_path)


def check_jobs(system: System, tmp_path: Path) -> None:
    """Neither a trainer nor a replay knows the listener, and what stays tells no id."""
    state = read_log(system.config, load_settings(bootstrap=system.bootstrap, registry_url=None).registry())
    users = {user for user, *_ in state.plays}
    assert GONE not in users and GONE not in state.profiles and KEPT in users and KEPT in state.profiles
    only = tmp_path / "users"
    only.write_text(f"{GONE}\n{KEPT}\n")
    words = ["replay", "--from", "1970-01-02", "--users", str(only), "--to-topic", "forget-replayed", "--execute"]
    assert system.ask(*words)["lists"] == 8
    assert {key_of(m) for m in read_to_end(system.config, "forget-replayed")} == {KEPT.encode()}
    for message in read_to_end(system.config, OPERATIONS):
        assert GONE.encode() not in (key_of(message) or b"") + (message.value() or b"")
    assert sum(key_of(m) == GONE.encode() for m in read_to_end(system.config, PLAYS)) == 9, "they go by retention"
    assert not [m for m in read_to_end(system.config, DEAD_LETTERS) if key_of(m) == GONE.encode()]


def test_forgotten_while_no_worker_runs(operated: System) -> None:
    system, user = operated, "forget-later"
    system.quiet()
    with system.worker("forget-2") as worker, Answers(system.config) as answers:
        worker.wait_ready()
        answers.wait(system.play(played(system, user, 3)))
        worker.kill()
    done = system.ask("users", "forget", user, "--wait", "0")
    assert done["pending"] == ["msam-windows-changelog"]
    with system.worker("forget-2") as worker:  # with its RocksDB, which holds the window still
        worker.wait_ready()
        until(30, "not forgotten", lambda: worker.list_of(user)[0] == 404)
        until(30, "the window stays", lambda: newest(system, "msam-windows-changelog", user) is None)
    assert system.msam("users", "forget", "").returncode == 1
