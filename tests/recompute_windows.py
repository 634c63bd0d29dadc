"""Recomputes every window from the log and compares; counts the answers of every play. An independent witness.

    python tests/recompute_windows.py --bootstrap 127.0.0.1:9092 --group msam

Shares no code with the program: plain dictionaries, confluent-kafka, and fastavro with the schemas read as JSON files.
Run it while nothing is being played: a play that is still in flight counts as lost. Prints one JSON document; exits 1
when anything differs.
"""

import argparse
import hashlib
import io
import json
import math
import struct
import sys
import unicodedata
from bisect import insort
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import fastavro
from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition
from fastavro.schema import fingerprint, parse_schema, to_parsing_canonical_form

SCHEMAS = Path(__file__).resolve().parent.parent / "schemas"
MARK = b"\x00mark"
PART, PART_PLAYS = b"\x01", 50  # parts of histories: the first byte of their keys, and how many plays one holds
LATEST = 7258118400.0  # 2200-01-01, later plays are refused
ROLES = ("plays", "recommendations", "dead-letters", "changelog")
Fact = dict[str, Any]
Logs = dict[str, Any]  # a role to its records, "partitions" to how many plays has


REPLAYED = "msam.replayed-from"


class Record(NamedTuple):
    """A Kafka record as it came."""

    partition: int
    offset: int
    key: Any
    value: bytes | None
    headers: tuple[tuple[str, bytes], ...] = ()

    @property
    def place(self) -> tuple[int, int]:
        """Where it lies in its topic."""
        return self.partition, self.offset


# -- bytes ----------------------------------------------------------------------------------------------------------


class Schemas:
    """Every version of one schema, by its CRC-64-AVRO."""

    def __init__(self, name: str, ids: frozenset[int] = frozenset()) -> None:
        paths = [SCHEMAS / f"{name}.avsc", *sorted((SCHEMAS / "history" / name).glob("*.avsc"))]
        known = [parse_schema(json.loads(path.read_text())) for path in paths]
        self.current: Any = known[0]
        self._ids = ids
        self._by_crc = {bytes.fromhex(fingerprint(to_parsing_canonical_form(s), "CRC-64-AVRO")): s for s in known}

    def read(self, data: bytes) -> Fact:
        """The record in single-object encoding, in Confluent's (ids of the schema in force) or in JSON; ValueError."""
        if data[:2] == b"\xc3\x01":
            if data[2:10] not in self._by_crc:
                raise ValueError(f"unknown fingerprint {data[2:10].hex()}")
            return self._avro(data[10:], self._by_crc[data[2:10]])
        if data[:1] == b"{":
            value = json.loads(data.decode())
            return value if isinstance(value, dict) else {}
        if data[:1] == b"\x00" and int.from_bytes(data[1:5], "big") in self._ids:
            return self._avro(data[5:], self.current)
        raise ValueError(f"neither Avro nor JSON: {data[:8].hex() or 'empty'}")

    def _avro(self, data: bytes, writer: Any) -> Fact:
        stream = io.BytesIO(data)
        try:
            value: Any = fastavro.schemaless_reader(stream, writer, self.current)
        except Exception as error:
            raise ValueError(f"not Avro: {error!r}") from error
        if stream.tell() != len(data):
            raise ValueError("bytes left over")
        return dict(value)


def java_partition(key: bytes, partitions: int) -> int:
    """Where Java's default partitioner puts a key (murmur2)."""
    m, h = 0x5BD1E995, 0x9747B28C ^ len(key)
    for start in range(0, len(key) - 3, 4):
        (k,) = struct.unpack_from("<I", key, start)
        k = k * m & 0xFFFFFFFF
        k = (k ^ k >> 24) * m & 0xFFFFFFFF
        h = h * m & 0xFFFFFFFF ^ k
    rest = key[len(key) & ~3 :]
    if rest:
        h = (h ^ int.from_bytes(rest, "little")) * m & 0xFFFFFFFF
    h = (h ^ h >> 13) * m & 0xFFFFFFFF
    return ((h ^ h >> 15) & 0x7FFFFFFF) % partitions


def read_play(
    schemas: Schemas, partition: int, offset: int, key: bytes | None, value: bytes | None, partitions: int
) -> Fact:
    """What a record of `plays` says; `wrong` says why it may not be answered by a list."""
    fact: Fact = {"partition": partition, "offset": offset, "wrong": None}
    try:
        play = schemas.read(value or b"")
        user, track, at = play["user_id"], play["track_id"], play["played_at"]
        for name in (user, track):
            if not isinstance(name, str) or not 0 < len(name.encode()) <= 1024:
                raise ValueError("not an id")
            if any(unicodedata.category(c) == "Cc" for c in name):
                raise ValueError("control character in an id")
        if isinstance(at, bool) or not isinstance(at, int | float) or not 0 <= at < LATEST:
            raise ValueError("played_at")
        lasted = play.get("duration_played")
        if lasted is not None and not (math.isfinite(lasted) and lasted >= 0):
            raise ValueError("duration_played")
        if key is None or key != user.encode():
            raise ValueError("the key is not the user")
        if java_partition(key, partitions) != partition:
            raise ValueError("wrong partition")
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        return {**fact, "wrong": repr(error)}
    return {**fact, "user_id": user, "track_id": track, "played_at": float(at)}


# -- judgement, pure ------------------------------------------------------------------------------------------------


def windows_of(plays: list[Fact], keep: int) -> dict[str, Fact]:
    """Every user's window after all these plays: the `keep` newest by (played_at, offset)."""
    by_user: defaultdict[str, list[Fact]] = defaultdict(list)
    for play in plays:
        if play["wrong"] is None:
            by_user[play["user_id"]].append(play)
    found = {}
    for user, mine in by_user.items():
        mine.sort(key=lambda p: (p["played_at"], p["offset"]))
        last: dict[str, int] = {}
        for play in mine:
            last[str(play["partition"])] = max(last.get(str(play["partition"]), -1), play["offset"])
        names = ("track_id", "played_at", "offset", "partition")
        found[user] = {"last_offsets": last, "entries": [{n: p[n] for n in names} for p in mine[-keep:]]}
    return found


def judge_windows(plays: list[Fact], windows: dict[str, Fact], marks: dict[int, int], keep: int) -> list[Fact]:
    """Differences between the windows that the changelog holds and those that the log gives."""
    wanted = windows_of(plays, keep)
    found: list[Fact] = []
    for user in sorted(wanted.keys() | windows.keys()):
        if user not in windows:
            found.append({"kind": "missing_window", "user_id": user})
        elif user not in wanted:
            found.append({"kind": "extra_window", "user_id": user})
        elif windows[user] != wanted[user]:
            both = {"is": windows[user], "should_be": wanted[user]}
            found.append({"kind": "wrong_window", "user_id": user, **both})
    ends: dict[int, int] = {}
    for play in plays:
        ends[play["partition"]] = max(ends.get(play["partition"], -1), play["offset"])
    for partition in sorted(ends.keys() | marks.keys()):
        now, right = marks.get(partition), ends.get(partition)
        if now != right:
            found.append({"kind": "wrong_mark", "partition": partition, "is": now, "should_be": right})
    return found


def parts_of(plays: list[Fact], limit: int) -> dict[tuple[int, str], Fact]:
    """What the ring of parts of every user's history holds after all these plays: slot and user to plays."""
    ring = -(-limit // PART_PLAYS) + 1
    by_user: defaultdict[str, list[Fact]] = defaultdict(list)
    for play in sorted(plays, key=lambda p: (p["partition"], p["offset"])):
        if play["wrong"] is None:
            by_user[play["user_id"]].append(play)
    found = {}
    for user, mine in by_user.items():
        for first in range(0, len(mine), PART_PLAYS):
            made = [{"track": track_key(p["track_id"]), "played_at": p["played_at"]} for p in mine[first:][:PART_PLAYS]]
            found[first // PART_PLAYS % ring, user] = {"first": first, "plays": made}
    return found


def track_key(track: str) -> int:
    """The key of a track in a history."""
    return int.from_bytes(hashlib.blake2b(track.encode(), digest_size=8).digest(), "little", signed=True) or 1


def judge_histories(plays: list[Fact], parts: dict[tuple[int, str], Fact], limit: int) -> list[Fact]:
    """Parts of histories that differ from those that the log gives."""
    wanted = parts_of(plays, limit)
    return [
        {"kind": "wrong_history", "slot": place[0], "user_id": place[1]}
        for place in sorted(wanted.keys() | parts.keys())
        if parts.get(place) != wanted.get(place)
    ]


def judge_answers(plays: list[Fact], lists: list[Fact], letters: list[Fact]) -> list[Fact]:
    """Plays without exactly one answer, answers of the wrong sort, lists out of a user's order or with other content.

    `lists` are in the order of their log within a partition; `partition` and `offset` of an answer name its play.
    """
    known = {(p["partition"], p["offset"]): p for p in plays}
    counts: defaultdict[tuple[int, int], list[str]] = defaultdict(list)
    found: list[Fact] = []
    last: dict[str, int] = {}
    for kind, answers in (("list", lists), ("letter", letters)):
        for answer in answers:
            if not answer.get("replayed"):
                counts[answer["partition"], answer["offset"]].append(kind)
    swapped: set[tuple[bytes, int, int]] = set()
    for answer in lists:
        place = (answer["partition"], answer["offset"])
        user = answer["user_id"]
        if answer.get("replayed"):  # swapped in: once, and (as every list) not over a newer one
            again = (answer["replayed"], *place)
            if again in swapped:
                found.append({"kind": "doubled", "place": place, "user_id": user})
            swapped.add(again)
        if answer["offset"] < last.get(user, -1):
            found.append({"kind": "reordered", "place": place, "user_id": user})
        last[user] = max(last.get(user, -1), answer["offset"])
        play = known.get(place)
        if play is None or play["wrong"] is not None:
            continue
        if any(answer[name] != play[name] for name in ("user_id", "track_id", "played_at")):
            found.append({"kind": "wrong_content", "place": place, "is": answer, "should_be": play})
    for place in sorted(known.keys() | counts.keys()):
        kinds, play = counts.get(place, []), known.get(place)
        if play is None:
            found.append({"kind": "unknown_source", "place": place})
        elif not kinds:
            found.append({"kind": "lost", "place": place, "play": play})
        elif len(kinds) > 1:
            found.append({"kind": "doubled", "place": place, "answers": kinds})
        elif play["wrong"] is None and kinds == ["letter"]:
            found.append({"kind": "good_play_refused", "place": place})
        elif play["wrong"] is not None and kinds == ["list"]:
            found.append({"kind": "bad_play_answered", "place": place, "why": play["wrong"]})
    return found


def judge_lists(plays: list[Fact], lists: list[Fact], k: int) -> list[Fact]:
    """Lists that were not made from the window as of their play, or that are no ranked list.

    A track of that window is a repeat and no other is, and what a track is explained by is a play of that window.
    """
    made = {(one["partition"], one["offset"]): one for one in lists}
    found: list[Fact] = []
    history: defaultdict[str, list[tuple[float, int, str]]] = defaultdict(list)
    for play in sorted(plays, key=lambda p: (p["partition"], p["offset"])):
        if play["wrong"] is not None:
            continue
        mine = history[play["user_id"]]
        insort(mine, (play["played_at"], play["offset"], play["track_id"]))
        one = made.get((play["partition"], play["offset"]))
        if one is None:
            continue
        window = {track for _, _, track in mine[-k:]}
        wrong = [
            item
            for item in one["items"]
            if (item["reasons"]["kind"] == "repeat") != (item["track_id"] in window)
            or item["reasons"]["because"] not in window | {None}
        ]
        ranks = [item["rank"] for item in one["items"]]
        scores = [item["score"] for item in one["items"]]
        tracks = {item["track_id"] for item in one["items"]}
        ordered = ranks == list(range(1, len(ranks) + 1)) and scores == sorted(scores, reverse=True)
        if wrong or not ordered or len(tracks) != len(ranks):
            found.append({"kind": "wrong_list", "place": (play["partition"], play["offset"]), "items": wrong[:3]})
    return found


# -- Kafka ----------------------------------------------------------------------------------------------------------


def records(config: dict[str, str], topic: str) -> Iterator[Message]:
    """Every committed record of a topic as it stands, in order within a partition."""
    options = {"group.id": "recompute", "enable.auto.commit": False, "isolation.level": "read_committed"}
    consumer = Consumer({**config, **options, "enable.partition.eof": True, "auto.offset.reset": "earliest"})
    try:
        left = set(consumer.list_topics(topic, timeout=30).topics[topic].partitions)
        if not left:
            raise SystemExit(f"there is no topic {topic}")
        consumer.assign([TopicPartition(topic, p, 0) for p in left])
        while left:
            for message in consumer.consume(1000, timeout=0.1):
                error = message.error()
                if error is None:
                    yield message
                elif error.code() == KafkaError._PARTITION_EOF:
                    left.discard(message.partition() or 0)
                else:
                    raise KafkaException(error)
    finally:
        consumer.close()


def read_logs(config: dict[str, str], group: str) -> Logs:
    """Every committed record of the topics that the judgement needs, in the order of each partition."""
    names = ("plays", "recommendations", "dead-letters", f"{group}-windows-changelog")
    logs: Logs = {}
    for role, name in zip(ROLES, names, strict=True):
        logs[role] = [
            Record(m.partition() or 0, m.offset() or 0, m.key(), m.value(), tuple(m.headers() or ()))  # type: ignore[arg-type]
            for m in records(config, name)
        ]
    consumer = Consumer({**config, "group.id": "recompute"})
    partitions = len(consumer.list_topics("plays", timeout=30).topics["plays"].partitions)
    consumer.close()
    return logs | {"partitions": partitions}


def facts(logs: Logs, ids: frozenset[int]) -> Fact:
    """What the records say; those that cannot be read are facts of their own."""
    play, recommendation, window = Schemas("play", ids), Schemas("recommendation"), Schemas("window")
    partitions = logs["partitions"]
    unreadable: list[Fact] = []
    history = Schemas("user_history")
    windows: dict[str, Fact] = {}
    parts: dict[tuple[int, str], Fact] = {}
    marks: dict[int, int] = {}
    changelog = {(r.partition, r.key): r for r in logs["changelog"]}
    for (partition, key), r in changelog.items():
        if r.value is None:
            continue
        try:
            if key[:1] == PART:
                parts[key[1], key[2:].decode()] = history.read(r.value)
                continue
            state = window.read(r.value)
            name = key.decode()
        except ValueError as error:
            unreadable.append({"kind": "unreadable", "topic": "changelog", "place": r.place, "why": str(error)})
            continue
        if key == MARK:
            marks[partition] = state["mark"]
        else:
            misplaced = "" if java_partition(key, partitions) == partition else f" in partition {partition}"
            windows[name + misplaced] = {part: state[part] for part in ("last_offsets", "entries")}
    lists = []
    for r in logs["recommendations"]:
        if r.value is None:
            continue
        try:
            made = recommendation.read(r.value)
        except ValueError as error:
            unreadable.append({"kind": "unreadable", "topic": "recommendations", "place": r.place, "why": str(error)})
            continue
        versions = {name: made[name] for name in ("model_version", "catalogue_version", "profile_version")}
        fact = {"user_id": made["user_id"], **made["source"], **versions, "items": made["items"]}
        if r.key != made["user_id"].encode() or r.partition != made["source"]["partition"]:
            fact["user_id"] = f"{made['user_id']} under key {r.key!r} in partition {r.partition}"
        fact["replayed"] = dict(r.headers).get(REPLAYED)
        lists.append(fact)
    letters = []
    for r in logs["dead-letters"]:
        headers = dict(r.headers)
        if headers["__streams.errors.topic"] == b"plays":
            letters.append({n: int(headers[f"__streams.errors.{n}"]) for n in ("partition", "offset")})
    plays = [read_play(play, r.partition, r.offset, r.key, r.value, partitions) for r in logs["plays"]]
    return {
        "plays": plays,
        "lists": lists,
        "letters": letters,
        "windows": windows,
        "parts": parts,
        "marks": marks,
        "unreadable": unreadable,
    }


def judge(logs: Logs, k: int = 20, slack: int = 16, ids: frozenset[int] = frozenset(), limit: int = 1000) -> Fact:
    """Counts and every difference; nothing differs when `differences` is empty.

    `ids`: what a Schema Registry calls the play schema in force; Confluent's frames with other ids count as wrong.
    """
    log = facts(logs, ids)
    differences = log["unreadable"] + judge_answers(log["plays"], log["lists"], log["letters"])
    differences += judge_lists(log["plays"], log["lists"], k)
    differences += judge_windows(log["plays"], log["windows"], log["marks"], k + slack)
    differences += judge_histories(log["plays"], log["parts"], limit)
    kinds: defaultdict[str, int] = defaultdict(int)
    for difference in differences:
        kinds[difference["kind"]] += 1
    return {
        "plays": len(log["plays"]),
        "recommendations": sum(not one["replayed"] for one in log["lists"]),
        "replayed": sum(bool(one["replayed"]) for one in log["lists"]),
        "dead_letters": len(log["letters"]),
        "users": len(windows_of(log["plays"], 1)),
        "windows": len(log["windows"]),
        "lost": kinds["lost"],
        "duplicates": kinds["doubled"],
        "wrong_windows": sum(kinds[f"{wrong}_window"] for wrong in ("wrong", "missing", "extra"))
        + kinds["wrong_list"]
        + kinds["wrong_history"],
        "stale": kinds["reordered"],
        "kinds": dict(kinds),
        "differences": differences,
    }


def check(config: dict[str, str], group: str, k: int = 20, slack: int = 16, ids: frozenset[int] = frozenset()) -> Fact:
    """The judgement on what a broker holds now."""
    return judge(read_logs(config, group), k, slack, ids)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--bootstrap", required=True)
    parser.add_argument("--group", default="msam")
    parser.add_argument("--window", type=int, default=20, help="k")
    parser.add_argument("--slack", type=int, default=16)
    parser.add_argument("--schema-id", type=int, action="append", default=[], help="a registry's id of the play schema")
    given = parser.parse_args()
    config, ids = {"bootstrap.servers": given.bootstrap}, frozenset(given.schema_id)
    report = check(config, given.group, given.window, given.slack, ids)
    print(json.dumps(report))
    sys.exit(1 if report["differences"] else 0)


if __name__ == "__main__":
    main()
