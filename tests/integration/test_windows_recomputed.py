"""No window differs from the one recomputed from the log, nothing is lost and nothing doubled, also after kill -9."""

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from copy import deepcopy
from typing import Any

import pytest
from confluent_kafka import Producer

from streams.partitioner import partition_for
from streams.records import Play
from streams.serialization import encode
from tests.integration.registry_server import PLAY_ID
from tests.integration.system import GROUP, System
from tests.integration.taps import Answers, Place, ends
from tests.integration.workers import ROOT, Worker
from tests.recompute_windows import java_partition, judge_answers, judge_windows, windows_of

BURST = 1500
USERS = 30  # of a burst: 50 plays each, more than k + slack


def assert_clean(system: System) -> dict[str, Any]:
    """The witness finds nothing; its report."""
    report = system.recompute()
    assert report["differences"] == [], f"{report['kinds']}: {json.dumps(report['differences'][:3])[:3000]}"
    assert report["plays"] == report["recommendations"] + report["dead_letters"]
    return report


def test_after_a_run_by_hand(system: System) -> None:
    script = str(ROOT / "tests" / "recompute_windows.py")
    command = [sys.executable, script, "--bootstrap", system.bootstrap, "--group", GROUP]
    command += ["--schema-id", str(PLAY_ID)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, ""), done.stdout[:2000]
    report = json.loads(done.stdout)
    assert report["plays"] >= 1500 and report["recommendations"] >= 1500
    assert report["windows"] == report["users"] >= 15


def kill_in_flight(system: System, worker: Worker, prefix: str) -> list[Place]:
    """Publish a burst at once and kill the worker while its lists come; the places of all that was published.

    It is stopped first: where all were answered by then, another burst follows.
    """
    mine, places = f"{prefix}-", list[Place]()
    with Answers(system.config) as answers:

        def come() -> int:
            found = [a for many in answers.by_place.values() for a in many if a.record is not None]
            return sum(a.record.user_id.startswith(mine) for a in found if a.record is not None)

        before = 0
        while before == len(places) < 5 * BURST:
            for user, track, at in system.some_plays(prefix, USERS, BURST):
                system.sender.send("plays", user.encode(), encode(Play(user, track, at)))
            seen = len(places)
            answers.until(lambda seen=seen: come() >= seen + 100, lambda: f"{come()} lists; {worker.tail()}")
            worker.process.send_signal(signal.SIGSTOP)
            places += system.sender.flush()
            before = -1
            while before != (before := answers.count(places)):  # what was committed before
                answers.take(1.0)
            if before == len(places):
                worker.process.send_signal(signal.SIGCONT)
        worker.kill()
    assert 100 <= before < len(places), f"the kill hit nothing in flight: {before} of {len(places)} were answered"
    return places


def test_kill_in_flight_with_its_state_and_without(quiet: System) -> None:
    system = quiet
    with system.worker("killed") as worker:
        worker.wait_ready()
        first = kill_in_flight(system, worker, "kill-a")
    with system.worker("killed") as worker, Answers(system.config) as answers:
        worker.wait_ready()
        wait_answered(system, answers, worker, first)
        second = kill_in_flight(system, worker, "kill-b")
    with system.worker("killed-fresh") as worker, Answers(system.config) as answers:  # RocksDB is lost
        worker.wait_ready()
        wait_answered(system, answers, worker, second)
        report = assert_clean(system)
        assert report["plays"] >= 1500 + 2 * BURST
        window = worker.list_of("kill-b-3")[1]["window"]
        assert len(window) == 20, "the window is whole again"


def wait_answered(system: System, answers: Answers, worker: Worker, places: list[Place]) -> None:
    """Until the group's offsets are past these plays."""
    last: dict[int, int] = {}
    for _, partition, offset in places:
        last[partition] = max(last.get(partition, -1), offset)

    def done() -> bool:
        assert worker.process.poll() is None, worker.tail()
        found = system.committed()
        return all(found.get(p, 0) > offset for p, offset in last.items())

    answers.until(done, lambda: f"committed {system.committed()}, wanted beyond {last}; {worker.tail()}")


# -- the witness itself, on planted faults ----------------------------------------------------------------------------


def log() -> dict[str, Any]:
    """A small log in which everything is right: three users, 40 plays each, one refused record."""
    plays = []
    for n in range(120):
        at = 1000.0 + n - (50.0 if n % 5 == 0 else 0.0)
        plays.append(
            {"partition": 0, "offset": n, "wrong": None, "user_id": f"u{n % 3}", "track_id": f"t{n}", "played_at": at}
        )
    plays.append({"partition": 0, "offset": 120, "wrong": "garbage"})
    names = ("partition", "offset", "user_id", "track_id", "played_at")
    lists = [{name: play[name] for name in names} for play in plays[:-1]]
    return {
        "plays": plays,
        "lists": lists,
        "letters": [{"partition": 0, "offset": 120}],
        "windows": windows_of(plays, 36),
        "marks": {0: 120},
    }


def kinds(state: dict[str, Any]) -> list[str]:
    found = judge_answers(state["plays"], state["lists"], state["letters"])
    found += judge_windows(state["plays"], state["windows"], state["marks"], 36)
    return sorted(difference["kind"] for difference in found)


def test_witness_finds_nothing_where_all_is_right() -> None:
    state = log()
    assert kinds(state) == []
    assert [len(w["entries"]) for w in state["windows"].values()] == [36, 36, 36]
    entries = state["windows"]["u1"]["entries"]
    assert entries == sorted(entries, key=lambda e: (e["played_at"], e["offset"])) and entries[0]["offset"] > 0


Plant = Callable[[dict[str, Any]], object]
FAULTS: dict[str, tuple[Plant, list[str]]] = {
    "dropped list": (lambda s: s["lists"].pop(7), ["lost"]),
    "dropped letter": (lambda s: s["letters"].pop(), ["lost"]),
    "doubled list": (lambda s: s["lists"].append(dict(s["lists"][-1])), ["doubled"]),
    "doubled letter": (lambda s: s["letters"].append(dict(s["letters"][0])), ["doubled"]),
    "both answers": (lambda s: s["letters"].append({"partition": 0, "offset": 3}), ["doubled"]),
    "reordered": (lambda s: s["lists"].insert(3, s["lists"].pop(9)), ["reordered", "reordered"]),
    "list of no play": (lambda s: s["lists"].append({**s["lists"][-1], "offset": 999}), ["unknown_source"]),
    "other track": (lambda s: s["lists"][5].update(track_id="x"), ["wrong_content"]),
    "other user": (lambda s: s["lists"][119].update(user_id="new"), ["wrong_content"]),
    "good play refused": (
        lambda s: (s["lists"].pop(), s["letters"].append({"partition": 0, "offset": 119})),
        ["good_play_refused"],
    ),
    "bad play answered": (
        lambda s: (s["letters"].clear(), s["lists"].append({**s["lists"][-1], "offset": 120})),
        ["bad_play_answered"],
    ),
    "entry missing": (lambda s: s["windows"]["u0"]["entries"].pop(4), ["wrong_window"]),
    "entry twice": (lambda s: s["windows"]["u0"]["entries"].append(s["windows"]["u0"]["entries"][4]), ["wrong_window"]),
    "entries out of order": (lambda s: s["windows"]["u2"]["entries"].reverse(), ["wrong_window"]),
    "other offset": (lambda s: s["windows"]["u1"]["last_offsets"].update({"0": 117}), ["wrong_window"]),
    "window missing": (lambda s: s["windows"].pop("u1"), ["missing_window"]),
    "window of nobody": (lambda s: s["windows"].update(x=s["windows"]["u1"]), ["extra_window"]),
    "swapped in over a newer list": (lambda s: s["lists"].append({**s["lists"][5], "replayed": b"t"}), ["reordered"]),
    "swapped in twice": (lambda s: s["lists"].extend(2 * [{**s["lists"][-1], "replayed": b"t"}]), ["doubled"]),
    "swapped in for a lost list": (lambda s: s["lists"][-1].update(replayed=b"t"), ["lost"]),
    "mark behind": (lambda s: s["marks"].update({0: 119}), ["wrong_mark"]),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_witness_reports_planted_faults(fault: str) -> None:
    state = deepcopy(log())
    plant, wanted = FAULTS[fault]
    plant(state)
    assert kinds(state) == wanted


def test_a_list_that_is_swapped_in_is_no_fault() -> None:
    state = log()
    state["lists"].append({**state["lists"][-1], "replayed": b"t"})
    assert kinds(state) == []


def test_witness_partitions_like_java() -> None:
    assert java_partition(b"foobar", 4) == (-790332482 & 0x7FFFFFFF) % 4
    keys = [f"user-{n}é"[: n % 9 + 1].encode() for n in range(500)]
    assert [java_partition(k, 7) for k in keys] == [partition_for(k, 7) for k in keys]


def test_plays_that_the_consumer_drops_are_read_again(quiet: System) -> None:
    plays = iter(quiet.some_plays("dropped", 20, 600))
    with (
        quiet.worker("dropping", program="tests.integration.dropping_reader") as worker,
        Answers(quiet.config) as answers,
    ):
        worker.wait_ready()
        places = []
        for _ in range(20):
            places += quiet.play([next(plays) for _ in range(30)])
            time.sleep(0.1)
        answers.wait(places, 120)
        assert "reading anew" in worker.log
        quiet.wait_committed()
    assert_clean(quiet)


def test_plays_in_transactions_are_not_taken_for_missing(quiet: System) -> None:
    """Commit markers and aborted plays leave offsets without a record."""
    producer = Producer({**quiet.config, "transactional.id": "plays", "partitioner": "murmur2_random"})
    producer.init_transactions(30)
    taken = []
    with quiet.worker("transactions") as worker, Answers(quiet.config) as answers:
        worker.wait_ready()
        for n, (user, track, at) in enumerate(quiet.some_plays("transacted", 20, 120)):
            producer.begin_transaction()
            producer.produce("plays", encode(Play(user, track, at)), user.encode())
            if n % 5 == 3:
                producer.flush()
                producer.abort_transaction()
            else:
                producer.commit_transaction()
                taken.append(user)

        def come() -> list[str]:
            found = [a.record for many in answers.by_place.values() for a in many if a.record is not None]
            return [record.user_id for record in found if record.user_id.startswith("transacted-")]

        answers.until(lambda: len(come()) >= len(taken), lambda: f"{len(come())} lists; {worker.tail()}")
        assert sorted(come()) == sorted(taken)
        assert "reading anew" not in worker.log
        time.sleep(2.5)  # offsets are committed every second
        committed = quiet.committed()
        behind = {p: end - committed.get(p, 0) for p, end in ends(quiet.config, "plays").items() if end}
        assert max(behind.values()) <= 3, f"{behind}: at most two markers and an aborted play are left"
    assert_clean(quiet)
