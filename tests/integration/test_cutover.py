"""A backfill by a newer model is swapped into the live topic while some listeners play on and the worker is killed."""

from __future__ import annotations

import threading
from pathlib import Path

from streams.cutover import REPLAYED, newest
from streams.operations import CUTOVER
from streams.outgoing import Out
from streams.publishing import Publisher
from streams.records import Recommendation
from streams.serialization import decode
from streams.topics import OPERATIONS, RECOMMENDATIONS
from tests.integration.system import System
from tests.integration.taps import Answers, Tap, headers_of, key_of

IDLE, BUSY, COUNT = 30, 6, 12


def test_a_backfill_is_swapped_in_but_never_over_a_newer_list(operated: System, unique: str, tmp_path: Path) -> None:
    system, worker, topic = operated, operated.shared(), unique
    idle = system.some_plays(f"{unique}-idle", IDLE, IDLE * COUNT)
    busy = system.some_plays(f"{unique}-busy", BUSY, BUSY * 4000)
    with Answers(system.config) as answers:
        answers.wait(system.play([*idle, *busy[: BUSY * COUNT]]), 120)
    second = system.train("--margin", "1")["version"]
    users = tmp_path / "users"
    users.write_text("\n".join(dict.fromkeys(user for user, *_ in [*idle, *busy])))
    words = ("--from", "offset:0", "--users", str(users), "--model", second, "--execute")
    made = system.ask("replay", "--to-topic", topic, *words, timeout=280)
    backfill = newest(system.config, topic)
    assert made["lists"] == (IDLE + BUSY) * COUNT and len(backfill) == IDLE + BUSY
    refused = system.msam("replay", "--to-topic", f"{unique}-none", "--cutover")
    assert refused.returncode == 1 and "no replay's that is known here" in refused.stderr

    planned = system.ask("replay", "--to-topic", topic, "--cutover", timeout=120)
    assert (planned["swapped"], planned["left"], planned["executed"]) == (IDLE + BUSY, 0, False)
    assert not swapped_lists(system, topic), "a plan changes nothing"
    stop, places = threading.Event(), []
    left = iter(busy[BUSY * COUNT :])

    def play_on() -> None:
        while not stop.wait(0.05):
            places.extend(system.play([next(left) for _ in range(BUSY)]))

    player = threading.Thread(target=play_on)
    with Answers(system.config) as answers:
        player.start()
        try:
            answers.until(lambda: len(answers.by_place) > 100, lambda: worker.tail(), 60)
            with Tap(system.config, OPERATIONS) as marks:  # asked for, and the worker is killed while it does it
                Publisher(system.config).send([Out(OPERATIONS, CUTOVER + topic.encode(), b"{}", 0)])
                marks.until(lambda: len(marks.messages) >= 2, lambda: worker.tail(), 60)
            worker.kill()
            system.quiet()
            worker = system.shared()
            done = system.ask("replay", "--to-topic", topic, "--cutover", "--execute", timeout=120)
            assert done["pending"] == [] and (done["swapped"], done["left"]) == (IDLE, BUSY)
            seen = len(answers.by_place)
            answers.until(lambda: len(answers.by_place) > seen + 100, lambda: worker.tail(), 60)
        finally:
            stop.set()
            player.join(30)
        answers.until(lambda: all(p in answers.by_place for p in places), lambda: worker.tail(), 90)
    swapped = swapped_lists(system, topic)
    assert len(swapped) == len(set(swapped)) == done["swapped"], "each once, whatever was killed"
    now = newest(system.config, RECOMMENDATIONS)
    for n in range(IDLE):
        assert now[f"{unique}-idle-{n}"] == backfill[f"{unique}-idle-{n}"]
        assert decode(Recommendation, now[f"{unique}-idle-{n}"][1]).model_version == second
    for n in range(BUSY):
        assert now[f"{unique}-busy-{n}"][0] > backfill[f"{unique}-busy-{n}"][0]
        assert f"{unique}-busy-{n}" not in swapped
    judged = system.recompute()
    assert not judged["differences"], judged["differences"][:3]
    again = system.ask("replay", "--to-topic", topic, "--cutover", "--execute", timeout=120)
    assert again["swapped"] == done["swapped"] and len(swapped_lists(system, topic)) == len(swapped)


def swapped_lists(system: System, topic: str) -> list[str]:
    """The listeners of the records that a cut-over of this topic published."""
    found: list[str] = []
    with Tap(system.config, RECOMMENDATIONS, beginning=True) as tap:
        while (some := tap.take(1.0)) or not tap.messages:
            found += [(key_of(m) or b"").decode() for m in some if headers_of(m).get(REPLAYED) == topic.encode()]
    return found
