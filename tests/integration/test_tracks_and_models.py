"""New tracks, profiles, commands that read, and a model that is swapped or refused while plays go on."""

import json
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlparse

from streams.records import ModelVersion, TrackMetadata, UserProfile
from streams.serialization import encode
from streams.topics import MODEL_VERSIONS, TRACK_FEATURES, TRACK_METADATA, USER_PROFILES
from tests.integration.system import START, System
from tests.integration.taps import Answers, Place, Tap, key_of
from tests.integration.workers import ROOT, Worker


def within(seconds: float, what: str, look: Callable[[], Any]) -> Any:
    """The first true value that `look` gives; fails after so many seconds."""
    deadline = time.monotonic() + seconds
    while not (found := look()):
        assert time.monotonic() < deadline, f"after {seconds:g} s: {what}"
        time.sleep(0.05)
    return found


def tracks_of(worker: Worker, user: str) -> list[str]:
    """All tracks that can be recommended to a user, best first (as many as one may ask for)."""
    status, body = worker.list_of(user, 1000)
    assert status == 200, body
    return [item["track_id"] for item in body["items"]]


def test_a_new_track_is_recommendable_within_seconds(system: System, worker: Worker) -> None:
    user = "fresh-1"
    with Answers(system.config) as answers:
        answers.wait(system.play((user, track, START + n) for n, track in enumerate(system.described[:5])))
    known = system.tracks[system.described[0]]
    new = TrackMetadata("fresh-track", "A Title Never Seen", known.artist_id, known.artist, labels=("rock",))
    assert new.track_id not in tracks_of(worker, user)
    before = worker.metric("msam_catalogue_tracks")
    system.describe([new])
    within(10, "the new track is not listed", lambda: new.track_id in tracks_of(worker, user))
    assert worker.metric("msam_catalogue_tracks") == before + 1
    body = worker.list_of(user, 1000)[1]
    (item,) = [item for item in body["items"] if item["track_id"] == new.track_id]
    assert item["reasons"]["kind"] == "artist" and item["score"] > 0
    # Where it stands is the model's to say; where nobody ever plays a track first, the wide head puts new ones last.
    system.sender.send(TRACK_METADATA, b"fresh-track", None)
    system.sender.flush()
    within(10, "the withdrawn track is still listed", lambda: new.track_id not in tracks_of(worker, user))


def test_a_track_that_nobody_described_counts(system: System, worker: Worker) -> None:
    with Answers(system.config) as answers, Tap(system.config, TRACK_FEATURES) as features:
        places = system.play([("sight-1", "never-described", START), ("sight-1", system.described[0], START + 1)])
        first, second = answers.wait(places)
        assert first.record is not None and second.record is not None

        def sightings() -> list[Any]:
            return [m for m in features.messages if key_of(m) == b"sighting/never-described"]

        features.until(lambda: bool(sightings()), lambda: f"no sighting; {worker.tail()}", 10)
        assert [m.value()[-8:-1] for m in sightings()] == [b"sight-1"]
    status, body = worker.list_of("sight-1")
    assert (status, body["window"]) == (200, ["never-described", system.described[0]])
    within(10, "the track is not listed", lambda: "never-described" in tracks_of(worker, "sight-1"))


def test_profiles(system: System, worker: Worker) -> None:
    user = "person-1"
    with Answers(system.config) as answers:
        (plain,) = answers.wait(system.play([(user, system.described[0], START)]))
        assert plain.record is not None and plain.record.profile_version == 0
        system.sender.send(USER_PROFILES, user.encode(), encode(UserProfile(user, "f", 24, "Austria")))
        ((_, _, offset),) = system.sender.flush()
        within(10, "no profile", lambda: worker.list_of(user)[1]["profile_version"] == offset + 1)
        (told,) = answers.wait(system.play([(user, system.described[0], START + 1)]))
        assert told.record is not None and told.record.profile_version == offset + 1
        system.sender.send(USER_PROFILES, user.encode(), None)
        system.sender.flush()
        within(10, "the profile stays", lambda: worker.list_of(user)[1]["profile_version"] == 0)


def test_who_takes_over_a_profile_needs_no_text_encoder(quiet: System) -> None:
    user = "person-2"
    with Answers(quiet.config) as answers:
        with quiet.worker("told") as worker:
            worker.wait_ready()
            (plain,) = answers.wait(quiet.play([(user, quiet.described[0], START)]))
            quiet.sender.send(USER_PROFILES, user.encode(), encode(UserProfile(user, "f", 24, "Austria")))
            ((_, _, offset),) = quiet.sender.flush()
            within(30, "no profile", lambda: worker.list_of(user)[1]["profile_version"] == offset + 1)
            told = worker.list_of(user)[1]["items"]
            assert has_text_encoder(worker)
        with quiet.worker("takes over", program="tests.integration.slow_to_take") as worker:
            worker.wait_ready()
            status, body = worker.list_of(user)
            assert (status, body.get("profile_version"), body.get("items")) == (200, offset + 1, told), body
            assert not has_text_encoder(worker)
        assert plain.record is not None
        assert [item.score for item in plain.record.items] != [item["score"] for item in told], "the profile counts"


def has_text_encoder(worker: Worker) -> bool:
    """Whether the process has loaded the library of tokenizers, which nothing else needs."""
    return "/tokenizers" in Path(f"/proc/{worker.process.pid}/maps").read_text()


def test_commands_that_read(system: System, worker: Worker) -> None:
    rows = system.ask("models", "list")
    assert [row["channels"] for row in rows if row["version"] == live(system)] == [["live"]]
    first = next(row for row in rows if row["version"] == system.model)
    assert first["state"] == "accepted" and first["metrics"]["tracks"] > 300 and first["parent"] is None
    user = system.plays[0].user_id
    body = system.ask("recommend", user, "--worker", worker.url)
    assert (body["user_id"], body["model_version"]) == (user, live(system))
    assert [item["rank"] for item in body["items"]] == list(range(1, 21)) and len(body["window"]) == 20
    nobody = system.msam("recommend", "nobody-at-all", "--json", "--worker", worker.url)
    assert (nobody.returncode, nobody.stdout) == (1, "")
    assert nobody.stderr == "error: user 'nobody-at-all' has not played anything yet\n"
    done = system.msam("tail", "recommendations", "--json", "--from", "earliest", "--max", "3")
    assert (done.returncode, done.stderr) == (0, "")
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(lines) == 3
    names = ["user_id", "items", "model_version", "catalogue_version", "counts_version", "profile_version", "source"]
    for line in lines:
        assert list(line) == [*names, "produced_at"]
        assert list(line["source"]) == ["topic", "partition", "offset", "played_at", "track_id"]
        assert list(line["items"][0]) == ["track_id", "score", "rank", "reasons"] and len(line["items"]) == 20
        assert abs(line["produced_at"] - time.time()) < 3600


def live(system: System) -> str:
    """The version that the channel live points to."""
    return next(str(row["version"]) for row in system.ask("models", "list") if "live" in row["channels"])


def test_a_second_model_is_swapped_in_under_load(system: System, worker: Worker) -> None:
    before, places = live(system), list[Place]()
    plays = iter(system.some_plays("swap", 12, 6000))
    command = [sys.executable, "-m", "streams.cli", "trainer", "--once", "--epochs", "1", "--max-seconds", "5"]
    log_path, answer_path = system.home / "trainer-swap.log", system.home / "trainer-swap.json"
    with log_path.open("wb") as log, answer_path.open("wb") as answer, Answers(system.config) as answers:
        words = [*command, "--margin", "1", "--json"]
        trainer = subprocess.Popen(words, stdout=answer, stderr=log, env=system.env, cwd=ROOT)
        try:
            deadline, left = time.monotonic() + 120, 40  # and some more plays once the trainer has ended
            while left:
                places += system.play([next(plays) for _ in range(5)])
                answers.take(0.1)
                if trainer.poll() is not None and worker.get("/health/ready")[1]["model"] != before:
                    left -= 1
                assert time.monotonic() < deadline, f"no swap; {log_path.read_text()[-1000:]}; {worker.tail()}"
        finally:
            trainer.kill()
            trainer.wait(10)
        assert trainer.returncode == 0, log_path.read_text()[-2000:]
        after = json.loads(answer_path.read_text())
        found = answers.wait(places)
    assert (after["state"], after["parent"]) == ("accepted", before) and after["version"] != before
    by_partition: dict[int, list[str]] = {}
    for place, one in zip(places, found, strict=True):
        assert one.record is not None, one.reason
        by_partition.setdefault(place[1], []).append(one.record.model_version)
    for versions in by_partition.values():
        assert set(versions) == {before, after["version"]}, "each record names one of the two"
        assert versions == sorted(versions, key=[before, after["version"]].index), "and none goes back"


def announce(system: System, version: ModelVersion, as_live: ModelVersion) -> None:
    """As the trainer does: the version, then the channel."""
    channel = ModelVersion(as_live.version, channel="live", state="channel", created_at=time.time())
    for record in (version, channel):
        system.sender.send(MODEL_VERSIONS, record.key.encode(), encode(record), partition=0)
        system.sender.flush()


def test_a_corrupt_model_is_refused(system: System, worker: Worker) -> None:
    good = next(row for row in system.ask("models", "list") if "live" in row["channels"])
    folder = Path(unquote(urlparse(good["uri"]).path))
    digest = json.loads((folder / "manifest.json").read_text())["weights"]["sha256"]
    record = ModelVersion(good["version"], uri=good["uri"], sha256=digest, state="accepted", metrics=good["metrics"])
    copy = folder.parent / "corrupt-1"
    shutil.copytree(folder, copy)
    weights = bytearray((copy / "weights.safetensors").read_bytes())
    for place in range(len(weights) // 2, len(weights) // 2 + 8):
        weights[place] ^= 0xFF
    (copy / "weights.safetensors").write_bytes(weights)
    bad = ModelVersion("corrupt-1", uri=copy.as_uri(), sha256=digest, state="accepted")
    refused = worker.metric("msam_models_refused_total")
    try:
        announce(system, bad, bad)
        within(30, "not refused", lambda: worker.metric("msam_models_refused_total") == refused + 1)
        assert "corrupt-1" in worker.log and "refused, the old model stays" in worker.log
        with Answers(system.config) as answers:
            (answer,) = answers.wait(system.play([("refuse-1", system.described[0], START)]))
        assert answer.record is not None and answer.record.model_version == good["version"]
        assert worker.get("/health/ready")[0] == 200
    finally:
        announce(system, record, record)
    with Answers(system.config) as answers:
        (answer,) = answers.wait(system.play([("refuse-1", system.described[1], START + 1)]))
    assert answer.record is not None and answer.record.model_version == good["version"]
