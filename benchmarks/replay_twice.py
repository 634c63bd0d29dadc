"""Are two replays of one log the same bytes, and with `--as-recorded` those of the live lists?

    msam demo --data DATA --keep --out DIR
    python benchmarks/replay_twice.py DIR [--out results.json]

DIR is what the demo left: its broker is started again, no worker runs. Exits 1 when a digest differs or when anything
of the live group and topics has moved.
"""

import argparse
import hashlib
import os
import subprocess
import sys
import time
from pathlib import Path

from confluent_kafka import Consumer, TopicPartition
from telling import say, tell

from streams.local_kafka import LocalKafka
from streams.log_reader import end_offsets, partitions_of_topic, patiently, read_to_end
from streams.topics import PLAYS, RECOMMENDATIONS

GROUP = "msam"
KINDS = {"first": [], "second": [], "recorded": ["--as-recorded"]}


def digest(config: dict[str, str], topic: str) -> tuple[int, str]:
    """How many lists a topic holds, and the sha256 of their values, by partition and offset."""
    total, count = hashlib.sha256(), 0
    for partition in partitions_of_topic(config, topic):
        for message in read_to_end(config, topic, only=[partition]):
            value = message.value() or b""
            total.update(len(value).to_bytes(8, "big") + value)
            count += 1
    return count, total.hexdigest()


def live(config: dict[str, str]) -> dict[str, dict[int, int]]:
    """Where the live group stands, and where the live topics end."""
    consumer = Consumer({**config, "group.id": GROUP, "enable.auto.commit": False})
    try:
        places = [TopicPartition(PLAYS, partition) for partition in partitions_of_topic(config, PLAYS)]
        found = patiently(lambda: consumer.committed(places, timeout=30))
    finally:
        consumer.close()
    committed = {place.partition: place.offset for place in found}
    topics = (PLAYS, RECOMMENDATIONS, f"{GROUP}-windows-changelog", f"{GROUP}-profiles-changelog")
    return {"committed": committed, **{topic: end_offsets(config, topic) for topic in topics}}


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    home = given.folder.resolve()
    if not (home / "kafka").is_dir():
        parser.error(f"{home} holds no broker's data: make it with `msam demo --keep --out {home}`")
    with LocalKafka(home / "kafka") as broker:
        config = {"bootstrap.servers": broker.bootstrap}
        partitions = str(len(partitions_of_topic(config, PLAYS)))
        mine = {"MSAM_BOOTSTRAP": broker.bootstrap, "MSAM_HOME": str(home), "MSAM_PARTITIONS": partitions}
        before, run = live(config), f"{time.time():.0f}"
        digests = {"live": digest(config, RECOMMENDATIONS)}
        for kind, options in KINDS.items():
            topic = f"replay-{run}-{kind}"
            words = ["replay", "--from", "offset:0", *options, "--to-topic", topic, "--execute"]
            say(f"msam {' '.join(words)}")
            subprocess.run([sys.executable, "-m", "streams.cli", *words], check=True, env=os.environ | mine, stdout=2)
            digests[kind] = digest(config, topic)
        unchanged = live(config) == before
    same = digests["first"] == digests["second"] and digests["recorded"] == digests["live"]
    result = {name: {"lists": count, "sha256": found} for name, (count, found) in digests.items()}
    tell({"ok": same and unchanged, "live_unchanged": unchanged, **result}, given.out)
    sys.exit(0 if same and unchanged else 1)


if __name__ == "__main__":
    main()
