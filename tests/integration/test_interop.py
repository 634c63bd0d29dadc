"""Plays that know nothing of this program: kcat with JSON, plain fastavro, Confluent's framing with a registry."""

import io
import json
import os
import shutil
import struct
import subprocess

import fastavro
import pytest
from confluent_kafka import Producer
from fastavro.schema import fingerprint, parse_schema, to_parsing_canonical_form

from streams.records import Recommendation
from tests.integration.registry_server import PLAY_ID
from tests.integration.system import START, System
from tests.integration.taps import Answers
from tests.integration.workers import ROOT, Worker

SCHEMA = parse_schema(json.loads((ROOT / "schemas" / "play.avsc").read_text()))


def answers_of(answers: Answers, user: str, count: int, worker: Worker) -> list[Recommendation]:
    """The lists of one user, once there are so many."""

    def mine() -> list[Recommendation]:
        found = [a.record for many in answers.by_place.values() for a in many if a.record is not None]
        return [record for record in found if record.user_id == user]

    answers.until(lambda: len(mine()) >= count, lambda: f"{len(mine())} of {count} for {user}; {worker.tail()}", 30)
    return sorted(mine(), key=lambda record: record.source.offset)


def check_list(record: Recommendation, track: str, played_at: float) -> None:
    """A whole list that answers this play."""
    assert (record.source.topic, record.source.track_id, record.source.played_at) == ("plays", track, played_at)
    assert [item.rank for item in record.items] == list(range(1, 21))
    scores = [item.score for item in record.items]
    assert scores == sorted(scores, reverse=True) and 0 < sum(scores) <= 1 + 1e-6
    assert len({item.track_id for item in record.items}) == 20


def avro(user: str, track: str, at: float) -> bytes:
    out = io.BytesIO()
    play = {"user_id": user, "track_id": track, "played_at": at, "source": "elsewhere"}
    fastavro.schemaless_writer(out, SCHEMA, play)
    return out.getvalue()


def produce(system: System, user: str, value: bytes) -> None:
    """A producer as anybody would set it up."""
    producer = Producer({"bootstrap.servers": system.bootstrap, "partitioner": "murmur2_random"})
    producer.produce("plays", value, user.encode())
    assert producer.flush(30) == 0


def test_kcat_and_json(system: System, worker: Worker) -> None:
    kcat = shutil.which("kcat") or shutil.which("kafkacat")
    if kcat is None:
        assert not os.environ.get("CI"), "CI must have kcat"
        pytest.skip("kcat is not installed")
    tracks = system.described[:3]
    lines = []
    for n, track in enumerate(tracks):
        play = {"user_id": "kcat-1", "track_id": track, "played_at": START + n, "app": "unknown fields are ignored"}
        lines.append("kcat-1|" + json.dumps(play))
    command = [kcat, "-P", "-b", system.bootstrap, "-t", "plays", "-K", "|", "-X", "partitioner=murmur2_random"]
    with Answers(system.config) as answers:
        done = subprocess.run(command, input="\n".join(lines), text=True, capture_output=True, timeout=30, check=False)
        assert done.returncode == 0, done.stderr
        found = answers_of(answers, "kcat-1", 3, worker)
    for n, (record, track) in enumerate(zip(found, tracks, strict=True)):
        check_list(record, track, START + n)


def test_single_object_by_plain_fastavro(system: System, worker: Worker) -> None:
    crc = bytes.fromhex(fingerprint(to_parsing_canonical_form(SCHEMA), "CRC-64-AVRO"))
    track = system.described[0]
    with Answers(system.config) as answers:
        produce(system, "avro-1", b"\xc3\x01" + crc + avro("avro-1", track, START))
        (record,) = answers_of(answers, "avro-1", 1, worker)
    check_list(record, track, START)
    assert record.items[0].reasons.because == track, "the only play of the window"


def test_confluent_framing_with_a_registry(system: System, worker: Worker) -> None:
    track = system.described[1]
    with Answers(system.config) as answers:
        produce(system, "framed-1", b"\x00" + struct.pack(">I", PLAY_ID) + avro("framed-1", track, START))
        (record,) = answers_of(answers, "framed-1", 1, worker)
    check_list(record, track, START)


def test_the_three_encodings_are_one_user(system: System, worker: Worker) -> None:
    crc = bytes.fromhex(fingerprint(to_parsing_canonical_form(SCHEMA), "CRC-64-AVRO"))
    user, tracks = "mixed-1", system.described[:3]
    values = [
        json.dumps({"user_id": user, "track_id": tracks[0], "played_at": START}).encode(),
        b"\xc3\x01" + crc + avro(user, tracks[1], START + 1),
        b"\x00" + struct.pack(">I", PLAY_ID) + avro(user, tracks[2], START + 2),
    ]
    with Answers(system.config) as answers:
        for value in values:
            produce(system, user, value)
        answers_of(answers, user, 3, worker)
    status, body = worker.list_of(user)
    assert (status, body["window"]) == (200, tracks)
