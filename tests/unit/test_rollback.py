"""When a live version has proved worse: pairing of lists and plays, the comparison, what is announced."""

from __future__ import annotations

import random
import threading
from math import sqrt

import pytest
from scipy.stats import t as student

from streams.channels import NotPromoted, on_trial, withdrawal, withdrawn
from streams.commands.trainer import trainer
from streams.prequential import Rule, Scores, Tally, compare
from streams.records import Item, ModelVersion, Reasons, Recommendation, Source
from streams.trainer import NothingToTrain, Trainer

RULE = Rule(margin=0.02, plays=1000, alpha=0.001)


def made(user: str, version: str, offset: int, played: str, *tracks: str) -> Recommendation:
    items = tuple(Item(track, 0.0, rank, Reasons("similar")) for rank, track in enumerate(tracks, 1))
    return Recommendation(user, items, version, 1, 0, 0, Source("plays", 0, offset, 0.0, played))


def test_a_list_is_scored_by_its_listeners_next_play() -> None:
    scores = Scores(n=2)
    assert scores.add(made("u", "a", 1, "x", "t1", "t2", "t3")) is None
    assert scores.add(made("v", "a", 2, "t1", "t9")) is None, "another listener's play says nothing"
    assert scores.add(made("u", "b", 3, "t2", "t1")) == "a", "the version whose list it was, not the one that answers"
    assert scores.add(made("u", "b", 4, "t3", "t1")) == "b"
    assert scores.add(made("u", "b", 4, "t3", "t5")) is None, "a list made again is no play"
    assert scores.add(made("u", "b", 5, "t5")) == "b", "but it is the newest"
    assert scores.add(made("v", "b", 6, "t9")) == "a"
    found = {version: (tally.hits, tally.plays) for version, tally in scores.tallies.items()}
    assert found == {"a": (2, 2), "b": (1, 2)}
    beyond = Scores(n=2)
    beyond.add(made("u", "a", 1, "x", "t1", "t2", "t3"))
    beyond.add(made("u", "a", 2, "t3"))
    assert beyond.tallies["a"].hits == 0, "only the first n places count"


def test_scores_of_old_versions_go() -> None:
    scores = Scores()
    for n in range(20):
        scores.add(made("u", f"v{n}", n, "x"))
    assert list(scores.tallies) == [f"v{n}" for n in range(11, 19)]


def test_looks_come_at_doubling_numbers_of_plays() -> None:
    looks = {n: RULE.look(n) for n in range(9000)}
    assert {n: look for n, look in looks.items() if look is not None} == {1000: 0, 2000: 1, 4000: 2, 8000: 3}


def tally(chance: random.Random, plays: int, rate: float, users: int = 100, spread: float = 0.0) -> Tally:
    """Plays of listeners who differ: each has a rate of their own within `spread` of `rate`, the same in every call."""
    found = Tally()
    for n in range(plays):
        user = n % users
        own = rate + spread * (2 * user / (users - 1) - 1)
        found.add(f"u{user}", chance.random() < own)
    return found


def test_the_comparison_by_hand() -> None:
    live, before = Tally(), Tally()
    for n in range(20):  # each listener: two plays with each version; all hit before, half of them hit once now
        for _ in range(2):
            before.add(f"u{n}", True)
        live.add(f"u{n}", n % 2 == 0)
        live.add(f"u{n}", False)
    rule = Rule(margin=0.5, plays=40, alpha=0.01)
    found = compare(live, before, rule)
    assert found is not None and (found.rate, found.before) == (0.25, 1.0)
    # d_u = 0 - (h_u - 0.25 * 2) / 40 = -+ 0.5 / 40 for every listener
    assert found.error == pytest.approx(sqrt(20 / 19 * 20 * (0.5 / 40) ** 2))
    beyond = student.ppf(1 - 0.01 / 2, 19)
    assert found.worse == (beyond * found.error < 0.75 - 0.5) and found.worse
    closer = compare(live, before, Rule(margin=0.6, plays=40, alpha=0.01))
    assert closer is not None and closer.worse == (beyond * found.error < 0.75 - 0.6) and not closer.worse


def test_too_little_to_compare() -> None:
    chance = random.Random(1)
    good, bad = tally(chance, 1000, 0.3), tally(chance, 1000, 0.0)
    assert compare(bad, good, RULE) is not None
    assert compare(tally(chance, 999, 0.0), good, RULE) is None, "no look is due"
    assert compare(bad, tally(chance, 999, 0.3), RULE) is None, "too few plays before"
    assert compare(tally(chance, 1000, 0.0, users=5), good, RULE) is None, "too few listeners"


def alarms(trials: int, live: float, before: float, seed: int, spread: float = 0.05) -> int:
    """In how many trials of four looks each a version is said to be worse."""
    chance, found = random.Random(seed), 0
    for _ in range(trials):
        earlier = tally(chance, 3000, before, spread=spread)
        mine, wrong = Tally(), False
        for n in range(8000):
            user = n % 100
            mine.add(f"u{user}", chance.random() < live + spread * (2 * user / 99 - 1))
            compared = compare(mine, earlier, RULE)
            wrong |= compared is not None and compared.worse
        found += wrong
    return found


def test_noise_does_not_roll_back() -> None:
    assert alarms(60, 0.10, 0.10, seed=1) == 0
    assert alarms(60, 0.10, 0.12, seed=2) <= 1, "behind by just the margin: one in a thousand"


def test_what_is_clearly_worse_is_seen_at_the_first_look() -> None:
    chance = random.Random(3)
    for _ in range(20):
        found = compare(tally(chance, 1000, 0.02, spread=0.02), tally(chance, 3000, 0.14, spread=0.05), RULE)
        assert found is not None and found.worse
    assert alarms(10, 0.06, 0.14, seed=4) == 10, "and what is worse by less, later"


def test_a_few_listeners_who_play_much_are_not_many_plays() -> None:
    """Half of all plays are one listener's, whose taste only the earlier version hit: no proof."""
    before, live = Tally(), Tally()
    for n in range(1000):
        mine = n % 2 == 0
        user = "busy" if mine else f"u{n % 97}"
        before.add(user, mine)
        live.add(user, False)
    found = compare(live, before, RULE)
    assert found is not None and found.before - found.rate == 0.5 and not found.worse


def test_the_trainer_watches_beside_its_trainings(monkeypatch: pytest.MonkeyPatch) -> None:
    rules, seen = [], threading.Event()

    def watch(config: object, rule: Rule, say: object) -> None:
        rules.append(rule)
        seen.set()

    def nothing(trainer: Trainer) -> ModelVersion:
        raise NothingToTrain("nothing new")

    def pause(seconds: float) -> None:
        assert seen.wait(10)
        raise KeyboardInterrupt

    monkeypatch.setattr("streams.watch.watch", watch)
    monkeypatch.setattr(Trainer, "once", nothing)
    monkeypatch.setattr("streams.commands.trainer.time.sleep", pause)
    monkeypatch.setattr("os.nice", lambda by: 0)
    monkeypatch.setenv("MSAM_ROLLBACK_MARGIN", "0.05")
    with pytest.raises(KeyboardInterrupt):
        trainer(bootstrap="127.0.0.1:9", every="1h")
    assert rules == [Rule(margin=0.05, plays=1000, alpha=0.001)]
    monkeypatch.setenv("MSAM_ROLLBACK_PLAYS", "0")
    seen.set()
    with pytest.raises(KeyboardInterrupt):
        trainer(bootstrap="127.0.0.1:9", every="1h")
    assert len(rules) == 1, "switched off"


VERSIONS = {"a": ModelVersion("a"), "b": ModelVersion("b", parent="a", metrics={"tracks": 3.0})}
AT_B = {"live": ModelVersion("b", channel="live", parent="a", state="channel", reason="promoted")}


def test_who_is_on_trial() -> None:
    assert on_trial("b", VERSIONS, AT_B) == "a"
    assert on_trial("a", VERSIONS, AT_B) is None and on_trial("b", VERSIONS, {}) is None
    alone = {"live": ModelVersion("a", channel="live", state="channel")}
    assert on_trial("a", VERSIONS, alone) is None, "there is nothing to go back to"
    for one in ("a", "b"):
        refused = {**VERSIONS, one: ModelVersion(one, parent=VERSIONS[one].parent, state="refused")}
        assert on_trial("b", refused, AT_B) is None, "somebody wanted it so"


def test_a_withdrawal_refuses_the_version_and_goes_back() -> None:
    refused, channel = withdrawal("b", "worse", {"live_plays": 9.0}, VERSIONS, AT_B)
    assert (refused.state, refused.reason, refused.metrics) == ("refused", "worse", {"tracks": 3.0, "live_plays": 9.0})
    assert (channel.version, channel.channel, channel.reason) == ("a", "live", "rolled back from b")
    assert withdrawn(refused) and not withdrawn(VERSIONS["b"]) and not withdrawn(channel)
    after = {**VERSIONS, "b": refused, "z": ModelVersion("z")}
    assert on_trial("a", after, {"live": channel}) is None, "one roll-back by itself, not a series"
    with pytest.raises(NotPromoted):
        withdrawal("b", "worse", {}, after, {"live": channel})
    with pytest.raises(NotPromoted):
        withdrawal("b", "worse", {}, VERSIONS, {"live": ModelVersion("z", channel="live", parent="b")})
