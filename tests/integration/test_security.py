"""TLS and SCRAM against the local broker with real certificates and ACLs; what outsiders get; what listens where."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest
from confluent_kafka import Producer
from confluent_kafka.admin import (
    AclBinding,
    AclBindingFilter,
    AclOperation,
    AclPermissionType,
    AdminClient,
    ResourcePatternType,
    ResourceType,
    ScramCredentialInfo,
    ScramMechanism,
    UserScramCredentialUpsertion,
)

from streams.broker_process import free_port
from streams.local_kafka import LocalKafka
from streams.outgoing import Out
from streams.publishing import Publisher
from streams.records import ModelVersion, Play
from streams.serialization import encode
from streams.topics import MODEL_VERSIONS, PLAYS, TRACK_FEATURES, create_topics, topic_specs
from tests.integration.certificates import authority, server
from tests.integration.taps import Answers
from tests.integration.workers import ROOT, Worker, running
from tests.unit.serving_data import features, made

USER, STRANGER = "msam-worker", "stranger"


@dataclass
class Guarded:
    """A broker whose second listener speaks SASL_SSL, with ACLs; and what its rightful user sets."""

    broker: LocalKafka
    port: int
    env: dict[str, str]
    home: Path

    def msam(self, *words: str, **changes: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "streams.cli", *words],
            env={**self.env, **changes},
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=120,
        )

    @property
    def config(self) -> dict[str, str]:
        """The rightful user's, for librdkafka."""
        return {
            "bootstrap.servers": f"127.0.0.1:{self.port}",
            "security.protocol": "SASL_SSL",
            "sasl.mechanism": "SCRAM-SHA-512",
            "sasl.username": USER,
            "sasl.password": Path(self.env["MSAM_KAFKA_SASL_PASSWORD_FILE"]).read_text(),
            "ssl.ca.location": self.env["MSAM_KAFKA_SSL_CA_LOCATION"],
        }


def grants() -> list[AclBinding]:
    """The ACLs that docs/operations.md names."""
    found = []

    def grant(kind: ResourceType, name: str, pattern: ResourcePatternType, *operations: AclOperation) -> None:
        for operation in operations:
            found.append(AclBinding(kind, name, pattern, f"User:{USER}", "*", operation, AclPermissionType.ALLOW))

    op = AclOperation
    for spec in topic_specs(4, "msam"):
        grant(ResourceType.TOPIC, spec.name, ResourcePatternType.LITERAL, op.READ, op.WRITE, op.DESCRIBE_CONFIGS)
    grant(ResourceType.TOPIC, "msam-__assignor-", ResourcePatternType.PREFIXED, op.CREATE, op.READ, op.WRITE)
    grant(ResourceType.GROUP, "msam", ResourcePatternType.PREFIXED, op.READ)
    grant(ResourceType.GROUP, "taps", ResourcePatternType.LITERAL, op.READ)  # what these tests read with
    grant(ResourceType.TRANSACTIONAL_ID, "msam-", ResourcePatternType.PREFIXED, op.WRITE)
    return found


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guarded]:
    home = tmp_path_factory.mktemp("guarded")
    ca, port = authority(home, "ca"), free_port()
    properties = {
        "listeners": f"SASL_SSL://127.0.0.1:{port}",
        "listener.security.protocol.map": "SASL_SSL:SASL_SSL",
        "ssl.keystore.type": "PEM",
        "ssl.keystore.location": str(server(home, "ca")),
        "sasl.enabled.mechanisms": "SCRAM-SHA-512",
        "listener.name.sasl_ssl.scram-sha-512.sasl.jaas.config": (
            "org.apache.kafka.common.security.scram.ScramLoginModule required;"
        ),
        "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
        "super.users": "User:ANONYMOUS",  # the plaintext listener of this broker, which the tests' own set-up uses
    }
    with LocalKafka(home / "kafka", heap="384m", properties=properties) as broker:
        admin = AdminClient({"bootstrap.servers": broker.bootstrap, "log_level": 4})
        env = {name: value for name, value in os.environ.items() if not name.startswith("MSAM_")}
        for name in (USER, STRANGER):
            password = secrets.token_hex(16)
            (home / name).write_text(password)
            credential = ScramCredentialInfo(ScramMechanism.SCRAM_SHA_512, 4096)
            change = UserScramCredentialUpsertion(name, credential, password.encode())
            for future in admin.alter_user_scram_credentials([change]).values():
                future.result(30)
        for granted in admin.create_acls(grants()).values():
            granted.result(30)
        create_topics({"bootstrap.servers": broker.bootstrap}, topic_specs(4, "msam"))
        token = home / "token"
        token.write_text(secrets.token_hex(16))
        env |= {
            "MSAM_HOME": str(home),
            "MSAM_BOOTSTRAP": f"127.0.0.1:{port}",
            "MSAM_KAFKA_SECURITY_PROTOCOL": "SASL_SSL",
            "MSAM_KAFKA_SASL_MECHANISM": "SCRAM-SHA-512",
            "MSAM_KAFKA_SASL_USERNAME": USER,
            "MSAM_KAFKA_SASL_PASSWORD_FILE": str(home / USER),
            "MSAM_KAFKA_SSL_CA_LOCATION": str(ca),
            "MSAM_WEB_TOKEN_FILE": str(token),
            "MSAM_WINDOW": "6",
            "OMP_NUM_THREADS": "1",
        }
        yield Guarded(broker, port, env, home)


def listening(pid: int) -> set[str]:
    """The addresses on which a process listens."""
    found = set()
    for process in [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]:
        with contextlib.suppress(psutil.Error):
            found |= {c.laddr.ip for c in process.net_connections("tcp") if c.status == psutil.CONN_LISTEN}
    return found


def fetch(url: str, token: str | None = None) -> tuple[int, str]:
    headers = {} if token is None else {"Authorization": f"Bearer {token}"}
    try:
        with urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=20) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


def test_plays_are_answered_over_tls_and_scram(guarded: Guarded) -> None:
    outs = [Out(TRACK_FEATURES, feature.key.encode(), encode(feature), 0) for feature in features()]
    version = made().version
    channel = ModelVersion(version.version, channel="live", state="channel")
    outs += [Out(MODEL_VERSIONS, record.key.encode(), encode(record), 0) for record in (version, channel)]
    Publisher(guarded.config).send(outs)
    worker = Worker(guarded.home / "worker", guarded.home / "worker.log", guarded.env, ["--roles", "plays"])
    with running(worker), Answers(guarded.config) as answers:
        worker.wait_ready()
        producer = Producer({**guarded.config, "partitioner": "murmur2_random", "log_level": 0})  # type: ignore[dict-item]
        for n in range(20):
            producer.produce(PLAYS, encode(Play(f"u{n}", f"t{n}", 1000.0 + n)), f"u{n}".encode())
        assert producer.flush(30) == 0
        answers.until(lambda: len(answers.by_place) == 20, lambda: worker.tail(), 60)
        assert all(len(many) == 1 and many[0].record for many in answers.by_place.values())
        # Outsiders: the endpoint without its token, and what listens where.
        url, token = worker.url, (guarded.home / "token").read_text()
        for path in ("/recommendations/u1", "/metrics", "/tables/windows"):
            assert fetch(url + path)[0] == fetch(url + path, "x" * 32)[0] == 401
        assert json.loads(fetch(f"{url}/health/ready")[1]) == {"status": "ready"}
        assert fetch(f"{url}/recommendations/u1", token)[0] == 200
        assert fetch(f"{url}/tables/windows", token)[0] == 404
        asked = guarded.msam("recommend", "u1", "--worker", url, "--json")
        assert asked.returncode == 0 and json.loads(asked.stdout)["user_id"] == "u1"
        for pid in (worker.process.pid, guarded.broker.pid):
            assert pid is not None
            assert {ip.removeprefix("::ffff:") for ip in listening(pid)} == {"127.0.0.1"}
        for secret in (token, (guarded.home / USER).read_text()):
            assert secret not in worker.log, "secrets are never logged"
    tailed = guarded.msam("tail", "recommendations", "--from", "earliest", "--max", "20", "--json")
    assert (tailed.returncode, len(tailed.stdout.splitlines())) == (0, 20), tailed.stderr
    checked = guarded.msam("topics", "check")
    assert checked.returncode == 0, checked.stderr
    examined = guarded.msam("doctor", "--seconds", "1", "--json")
    assert [f for f in json.loads(examined.stdout)["findings"] if not f["ok"] and f["check"] != "disk"] == []


def test_who_may_not_does_not(guarded: Guarded, tmp_path: Path) -> None:
    (tmp_path / "wrong").write_text("a wrong password")
    tail = ["tail", "recommendations", "--from", "earliest", "--max", "1", "--idle-exit", "5", "--json"]
    cases = {
        "another password": {"MSAM_KAFKA_SASL_PASSWORD_FILE": str(tmp_path / "wrong")},
        "another authority": {"MSAM_KAFKA_SSL_CA_LOCATION": str(authority(tmp_path, "other"))},
        "no ACL": {
            "MSAM_KAFKA_SASL_USERNAME": STRANGER,
            "MSAM_KAFKA_SASL_PASSWORD_FILE": str(guarded.home / STRANGER),
        },
        "no TLS": {"MSAM_KAFKA_SECURITY_PROTOCOL": "SASL_PLAINTEXT"},
    }
    for name, changes in cases.items():
        done = guarded.msam(*tail, **changes)
        assert (done.returncode, done.stdout) == (1, ""), f"{name}: {done.stdout[:300]}"
        assert done.stderr.startswith("error: ") and done.stderr.count("\n") == 1, f"{name}: {done.stderr}"


def wrong_rights(guarded: Guarded, **changes: str) -> set[str]:
    """What the doctor says that a user may not do."""
    done = guarded.msam("doctor", "--seconds", "1", "--json", **changes)
    assert done.stdout, done.stderr
    findings = json.loads(done.stdout)["findings"]
    found = {f["text"].partition(" may not ")[2] for f in findings if f["check"] == "rights" and not f["ok"]}
    assert not found or (done.returncode, done.stderr) == (
        1,
        f"error: {len(found)} of {len(found) + 1} checks failed\n",
    )
    return found


def test_the_doctor_finds_missing_rights(guarded: Guarded) -> None:
    admin = AdminClient({"bootstrap.servers": guarded.broker.bootstrap, "log_level": 4})
    assert wrong_rights(guarded) == set()
    op = AclOperation
    taken = [
        acl
        for acl in grants()
        if (acl.name, acl.operation) in {("recommendations", op.WRITE), ("operations", op.READ), ("msam", op.READ)}
        or acl.restype == ResourceType.TRANSACTIONAL_ID
    ]
    assert len(taken) == 4
    for acl in taken:
        kind = acl.resource_pattern_type
        one = AclBindingFilter(acl.restype, acl.name, kind, acl.principal, "*", acl.operation, acl.permission_type)
        for future in admin.delete_acls([one]).values():
            assert len(future.result(30)) == 1
    try:
        assert wrong_rights(guarded) == {
            "WRITE topic recommendations",
            "READ topic operations",
            "READ group msam",
            "WRITE transactional-id msam-",
        }
    finally:
        for granted in admin.create_acls(taken).values():
            granted.result(30)
    assert wrong_rights(guarded) == set()
    password = str(guarded.home / STRANGER)
    nothing = wrong_rights(guarded, MSAM_KAFKA_SASL_USERNAME=STRANGER, MSAM_KAFKA_SASL_PASSWORD_FILE=password)
    assert len(nothing) == 3 * len(topic_specs(4, "msam")) + 2


def test_a_public_endpoint_needs_a_token(guarded: Guarded, tmp_path: Path) -> None:
    env = {**guarded.env, "MSAM_WEB_HOST": "0.0.0.0"}
    del env["MSAM_WEB_TOKEN_FILE"]
    command = [sys.executable, "-m", "streams.cli", "worker", "--data-dir", str(tmp_path), "--web-port", "0"]
    done = subprocess.run(command, env=env, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 1 and "web_token_file" in done.stderr and "listening histories" in done.stderr
    (tmp_path / "short").write_text("short")
    env["MSAM_WEB_TOKEN_FILE"] = str(tmp_path / "short")
    done = subprocess.run(command, env=env, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 1 and "16 or more" in done.stderr and "'short'" not in done.stderr
