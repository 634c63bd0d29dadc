"""Two workers share the partitions; when one leaves while plays stream, the other takes over whole."""

import json
import time

from tests.integration.system import System
from tests.integration.taps import Answers, Place
from tests.integration.workers import Worker

USERS = 24
PLAYS = 1200
RATE = 200.0  # a second


def owners(workers: list[Worker], users: list[str]) -> dict[str, list[int]]:
    """The status that each worker answers for each user."""
    return {user: [worker.list_of(user, 5)[0] for worker in workers] for user in users}


def wait_shared(workers: list[Worker], users: list[str]) -> dict[str, list[int]]:
    """Until each user is answered by exactly one worker, and each worker answers for some."""
    deadline = time.monotonic() + 60
    while True:
        found = owners(workers, users)
        if {tuple(status) for status in found.values()} == {(200, 404), (404, 200)}:
            return found
        assert time.monotonic() < deadline, f"not shared after 60 s: {found}; {workers[0].tail()}\n{workers[1].tail()}"
        time.sleep(0.2)


def stream(
    system: System, answers: Answers, plays: list[tuple[str, str, float]], leave: int, gone: Worker
) -> list[Place]:
    """Publish at RATE; once `leave` of them are sent, ask a worker to go and do not wait for it."""
    places: list[Place] = []
    started = time.monotonic()
    for n in range(0, len(plays), 10):
        while (wait := started + n / RATE - time.monotonic()) > 0:
            answers.take(min(wait, 0.02))
        places += system.play(plays[n : n + 10])
        if n == leave:
            answers.wait(places[: leave // 4 + 1])
            gone.interrupt()
    return places


def test_one_leaves_while_plays_stream(quiet: System) -> None:
    system = quiet
    users = [f"two-{n}" for n in range(USERS)]
    with (
        system.worker("two-a", None) as first,
        system.worker("two-b", None) as second,
        Answers(system.config) as answers,
    ):
        first.wait_ready()
        second.wait_ready()
        answers.wait(system.play((user, system.described[0], 1.0) for user in users), 60)
        shared = wait_shared([first, second], users)
        mine = [user for user, status in shared.items() if status == [200, 404]]
        status, body = second.list_of(mine[0])
        assert status == 404 and "another worker serves" in body["error"]
        plays = system.some_plays("two", USERS, PLAYS)
        places = stream(system, answers, plays, PLAYS // 3, first)
        assert first.wait() in (0, 130, -2), first.tail()
        for answer, (user, track, _) in zip(answers.wait(places, 60), plays, strict=True):
            assert answer.record is not None, answer.reason
            assert (answer.record.user_id, answer.record.source.track_id) == (user, track)
        left = owners([second], users)
        assert set(map(tuple, left.values())) == {(200,)}, f"the second worker serves everybody now: {left}"
    report = system.recompute()
    assert report["differences"] == [], f"{report['kinds']}: {json.dumps(report['differences'][:3])[:3000]}"


def test_a_worker_that_cannot_end_ends_all_the_same(quiet: System) -> None:
    worker = quiet._launch("stuck", "plays", "tests.integration.stuck_worker")
    worker.wait_ready()
    worker.interrupt()
    assert worker.wait(30) == 1
    assert "ended the hard way" in worker.log
