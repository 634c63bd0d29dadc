"""Topics on a real broker: created once, and every planted difference is found and named."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from confluent_kafka.admin import AdminClient, AlterConfigOpType, ConfigEntry, ConfigResource, NewTopic, ResourceType

from streams.local_kafka import LocalKafka
from streams.topics import (
    AUDIO_UPLOADS,
    DEAD_LETTERS,
    MODEL_VERSIONS,
    OPERATIONS,
    PLAYS,
    RECOMMENDATIONS,
    TRACK_FEATURES,
    USER_KEYS,
    TopicError,
    TopicSpec,
    check_topics,
    create_topics,
    topic_specs,
)

MSAM = Path(sys.executable).with_name("msam")


@pytest.fixture
def config(kafka: LocalKafka) -> dict[str, str]:
    return {"bootstrap.servers": kafka.bootstrap}


@pytest.fixture
def specs(unique: str, config: dict[str, str]) -> Iterator[list[TopicSpec]]:
    """All topics under names of this test's own, so that tests share one broker."""
    mine = [replace(spec, name=f"{unique}-{spec.name}") for spec in topic_specs(3, "g")]
    yield mine
    client = AdminClient({**config})
    left = [spec.name for spec in mine if spec.name in client.list_topics(timeout=10).topics]
    for future in client.delete_topics(left).values() if left else ():
        future.result(20)


def find(specs: list[TopicSpec], name: str) -> TopicSpec:
    (found,) = [spec for spec in specs if spec.name.endswith(name)]
    return found


def test_create_makes_what_is_missing_and_check_agrees(config: dict[str, str], specs: list[TopicSpec]) -> None:
    assert len(check_topics(config, specs)) == len(specs), "each is reported missing"
    assert sorted(create_topics(config, specs[:4])) == sorted(spec.name for spec in specs[:4])
    assert sorted(create_topics(config, specs)) == sorted(spec.name for spec in specs[4:])
    assert create_topics(config, specs) == []
    assert check_topics(config, specs) == []


def test_check_finds_planted_differences(config: dict[str, str], specs: list[TopicSpec]) -> None:
    client = AdminClient({**config})
    plays, features, lists = (find(specs, name) for name in (PLAYS, TRACK_FEATURES, RECOMMENDATIONS))
    planted = [
        NewTopic(plays.name, 5, 1, config=plays.full_config),
        NewTopic(features.name, 1, 1, config={"cleanup.policy": "delete"}),
    ]
    for future in client.create_topics(planted).values():
        future.result(20)
    create_topics(config, specs)
    lag = ConfigEntry("min.compaction.lag.ms", "0", incremental_operation=AlterConfigOpType.SET)
    altered = ConfigResource(ResourceType.TOPIC, lists.name, incremental_configs=[lag])
    for future in client.incremental_alter_configs([altered]).values():
        future.result(20)

    expected = {
        f"{plays.name}: 5 partitions, should be 3",
        f"{features.name}: cleanup.policy is delete, should be compact",
        f"{lists.name}: min.compaction.lag.ms is 0, should be 86400000",
    }
    deadline = time.monotonic() + 20
    while set(found := check_topics(config, specs)) != expected and time.monotonic() < deadline:
        time.sleep(0.05)  # the controller acknowledges a change of configuration before the broker applies it
    assert sorted(found) == sorted(expected)


def test_a_broker_that_is_not_there_is_one_clear_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("streams.topics.TIMEOUT", 0.5)
    with pytest.raises(TopicError, match="cannot list topics"):
        check_topics({"bootstrap.servers": "127.0.0.1:1", "log_level": "0"}, topic_specs(1, "g"))


def test_declared_policies() -> None:
    specs = topic_specs(6, "rock")
    by_name = {spec.name: spec for spec in specs}
    assert "rock-windows-changelog" in by_name
    assert {spec.name for spec in specs if spec.partitions == 1} == {
        TRACK_FEATURES,
        MODEL_VERSIONS,
        OPERATIONS,
        USER_KEYS,
    }
    assert {spec.name for spec in specs if spec.cleanup == "delete"} == {PLAYS, AUDIO_UPLOADS, DEAD_LETTERS}
    limits = {spec.name: int(spec.full_config.get("max.message.bytes", 1048588)) for spec in specs}
    largest = max(limit for name, limit in limits.items() if name != DEAD_LETTERS)
    assert limits[DEAD_LETTERS] == largest + 64 * 1024
    assert by_name[PLAYS].full_config["message.timestamp.type"] == "LogAppendTime"


def test_commands(kafka: LocalKafka, unique: str) -> None:
    def run(action: str, *more: str) -> "subprocess.CompletedProcess[str]":
        arguments = ["topics", action, "--bootstrap", kafka.bootstrap, "--group", unique, *more]
        return subprocess.run([str(MSAM), *arguments], env=os.environ, capture_output=True, text=True, timeout=120)

    first = run("create", "--json")
    assert first.returncode == 0, first.stderr
    assert f"{unique}-windows-changelog" in json.loads(first.stdout)["created"]
    assert json.loads(run("create", "--json").stdout)["created"] == []
    assert run("check").returncode == 0

    wrong = run("check", "--json", "--partitions", "7")
    assert wrong.returncode == 1
    differences = json.loads(wrong.stdout)["differences"]
    assert f"{unique}-windows-changelog: 4 partitions, should be 7" in differences
    assert not any(line.startswith((TRACK_FEATURES, MODEL_VERSIONS)) for line in differences)
    assert wrong.stderr.startswith("error: ") and len(wrong.stderr.splitlines()) == 1
