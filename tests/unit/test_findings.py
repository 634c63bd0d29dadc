"""What the doctor makes of what it has seen."""

from __future__ import annotations

from streams.findings import (
    GIB,
    Finding,
    Lag,
    Sampled,
    clocks,
    compatibility,
    disk_space,
    keys_in_place,
    lag_of,
    live_model,
    rights,
    schemas_known,
    topics_as_declared,
)
from streams.partitioner import partition_for
from streams.records import Play, UserProfile
from streams.sealing import seal
from streams.serialization import SINGLE_OBJECT, encode, encode_confluent

PLAY = Play("u1", "t1", 1000.0)
GOOD = encode(PLAY)


def sampled(partition: int, key: bytes | None = b"u1", value: bytes | None = GOOD) -> Sampled:
    return Sampled(partition, 7, key, value, 1000.0)


def refuses(finding: Finding | None, *words: str) -> bool:
    """It is wrong, says so in these words, and what to do."""
    assert finding is not None and not finding.ok and finding.remedy
    return all(word in f"{finding.text} {finding.remedy}" for word in words)


def test_topics() -> None:
    assert [f.ok for f in topics_as_declared(11, [])] == [True]
    found = topics_as_declared(11, ["plays: missing", "plays: 3 partitions, should be 4"])
    assert len(found) == 2 and all(refuses(f, "plays", "msam topics create") for f in found)


def test_keys() -> None:
    home = partition_for(b"u1", 4)
    good = [sampled(home), sampled((home + 1) % 4, key=None), sampled((home + 1) % 4, key=b"")]
    assert keys_in_place("plays", good, 4).ok, "a record without a key may be anywhere"
    wrong = keys_in_place("plays", [*good, sampled((home + 1) % 4)], 4)
    assert refuses(wrong, "1 of 2", f"plays[{(home + 1) % 4}]@7", "murmur2_random")
    assert keys_in_place("plays", [], 4).ok


def test_schemas() -> None:
    json, none = b'{"user_id": "u1"}', None
    framed = encode_confluent(PLAY, 1)
    closed = sampled(0, value=encode(seal(PLAY, "k", bytes(32))))
    assert schemas_known("plays", "play", [closed], False).ok
    assert not schemas_known("user-profiles", "user_profile", [closed], False).ok
    assert schemas_known("plays", "play", [sampled(0, value=v) for v in (GOOD, json, none, b"junk")], False).ok
    assert schemas_known("plays", "play", [sampled(0, value=framed)], True).ok
    assert refuses(schemas_known("plays", "play", [sampled(0, value=framed)], False), "1 of 1", "MSAM_REGISTRY_URL")
    for strange in (encode(UserProfile("u1")), SINGLE_OBJECT + bytes(8) + GOOD[10:], SINGLE_OBJECT):
        assert refuses(schemas_known("plays", "play", [sampled(0, value=v) for v in (GOOD, strange)], True), "1 of 2")


def lag(*pairs: tuple[int, int], waiting: bool = True) -> Finding | None:
    return lag_of("msam", "plays[0]", [Lag(*pair) for pair in pairs], waiting)


def test_lag() -> None:
    assert lag((10, 10), (10, 10)) is None, "nothing to do"
    assert lag((10, 60), (50, 70), (65, 80)) is None, "it keeps up"
    assert lag((10, 500), (300, 500), (500, 500)) is None, "it catches up"
    assert lag((10, 11), (10, 11), waiting=False) is None, "a commit marker is no play"
    assert lag((10, 10), (10, 40)) is None, "they have just come"
    assert refuses(lag((10, 12), (10, 12)), "stands at plays[0]@10", "2 behind", "msam worker")
    assert refuses(lag((0, 100), (500, 1100), (1000, 2100)), "falls behind", "2000 came while 1000", "more workers")
    assert lag((0, 100), (900, 1100), (2000, 2100)) is None


def test_disks() -> None:
    assert disk_space("/data", 100 * GIB, 10 * GIB).ok
    assert refuses(disk_space("/data", 100 * GIB, 4 * GIB), "4.0 of 100.0 GiB")
    assert refuses(disk_space("/data", 4 * GIB, GIB // 2), "free space")


def test_clocks() -> None:
    assert [f.ok for f in clocks(1000.0, [], [])] == [True]
    assert [f.ok for f in clocks(1000.0, [900.0, 1004.0], [(90_000.0, 1000.0)])] == [False]
    assert [f.ok for f in clocks(1000.0, [900.0, 1004.0], [(87_000.0, 1000.0)])] == [True], "less than a day"
    (ahead,) = clocks(1000.0, [900.0, 1060.0], [(5.0, 900.0)])
    assert refuses(ahead, "60 s ahead", "NTP")


def test_models_and_registry() -> None:
    assert live_model("v1", None).ok
    assert refuses(live_model(None, None), "plays wait", "msam trainer --once")
    assert refuses(live_model("v1", "cannot read"), "v1", "cannot read", "rollback")
    assert [f.ok for f in compatibility({})] == [True] and [f.ok for f in compatibility({"a": True})] == [True]
    (bad,) = compatibility({"a": True, "plays-value": False})
    assert refuses(bad, "plays-value", "register")


def test_rights() -> None:
    needed = ("READ", "WRITE")
    assert rights("app", "topic", "plays", needed, {"READ", "WRITE", "DESCRIBE"}) == []
    (missing,) = rights("app", "topic", "plays", needed, {"READ"})
    assert missing == Finding(
        "rights",
        False,
        "app may not WRITE topic plays",
        "kafka-acls.sh --bootstrap-server HOST:PORT --command-config ADMIN.properties --add "
        "--allow-principal User:app --operation Write --topic plays",
    )
    (configs,) = rights("app", "topic", "plays", ("DESCRIBE_CONFIGS",), ())
    assert "--operation DescribeConfigs " in configs.remedy
    assert len(rights("app", "group", "msam", needed, None)) == 2, "what may not even be described"
