"""Deployment files against the code: commands that exist, ports on loopback, the same pins, no place of one machine."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner, Result

from streams.cli import build
from streams.kafka_distribution import KAFKA_VERSION, MESSAGE_MAX_BYTES
from streams.settings import Settings

ROOT = Path(__file__).resolve().parents[2]
COMPOSE = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
OURS = {name: service for name, service in SERVICES.items() if "build" in service}
LOCKS = ["requirements.lock", "deploy/requirements.lock"]


def parse(arguments: list[str]) -> Result:
    """Parse as `msam` would, without running: --help answers only after every word and option was recognised."""
    return CliRunner().invoke(build(), [*arguments, "--help"], prog_name="msam", env={"COLUMNS": "200", "TERM": "dumb"})


def pins(lock: str) -> dict[str, str]:
    """Requirement -> the whole pinned line, marker included."""
    lines = re.findall(r"^([A-Za-z0-9_.-]+)==(.*?) ?\\?$", (ROOT / lock).read_text(), re.MULTILINE)
    return {f"{name} {rest.partition(';')[2]}": rest for name, rest in lines}


def test_services() -> None:
    assert set(OURS) == {"topics", "worker-1", "worker-2", "trainer"}
    assert set(SERVICES) - set(OURS) == {"broker"}
    assert SERVICES["broker"]["image"] == f"apache/kafka:{KAFKA_VERSION}"


@pytest.mark.parametrize("name", OURS)
def test_every_command_is_one_of_ours(name: str) -> None:
    expected = {"topics": "msam topics create", "trainer": "msam trainer"}.get(name, "msam worker")
    result = parse(OURS[name]["command"])
    assert result.exit_code == 0, result.output
    assert f"Usage: {expected} [OPTIONS]" in result.output


def test_a_wrong_command_or_option_would_be_found() -> None:
    assert parse(["wurker"]).exit_code == 2
    assert parse(["trainer", "--evry", "10m"]).exit_code == 2


def test_ports_are_published_on_loopback_only() -> None:
    published = [port for service in SERVICES.values() for port in service.get("ports", [])]
    assert published == ["127.0.0.1:9092:9092"]
    assert not any("network_mode" in service for service in SERVICES.values())
    inside, host = SERVICES["broker"]["environment"]["KAFKA_ADVERTISED_LISTENERS"].split(",")
    assert host == "HOST://127.0.0.1:9092"
    assert all(inside == f"INSIDE://{service['environment']['MSAM_BOOTSTRAP']}" for service in OURS.values())


def test_broker_is_set_as_the_local_one() -> None:
    environment = SERVICES["broker"]["environment"]
    assert environment["KAFKA_AUTO_CREATE_TOPICS_ENABLE"] == "false"
    assert environment["KAFKA_MESSAGE_MAX_BYTES"] == str(MESSAGE_MAX_BYTES)


def test_our_containers_are_confined() -> None:
    for service in OURS.values():
        assert service["read_only"] is True
        assert service["cap_drop"] == ["ALL"]
        assert "privileged" not in service
        known = {f"MSAM_{name.upper()}" for name in Settings.model_fields}
        assert {name for name in service["environment"] if name.startswith("MSAM_")} <= known


def test_each_worker_has_its_own_state_and_all_share_the_models() -> None:
    mounts = {name: service["volumes"] for name, service in OURS.items() if "volumes" in service}
    states = [volume for volumes in mounts.values() for volume in volumes if volume.endswith(":/var/lib/msam")]
    assert len(states) == len(set(states)) == 3
    assert all("models" in {volume.split(":")[0] for volume in volumes} for volumes in mounts.values())
    used = {volume.split(":")[0] for service in SERVICES.values() for volume in service.get("volumes", [])}
    assert used == set(COMPOSE["volumes"])


def test_order_and_health() -> None:
    assert SERVICES["topics"]["depends_on"] == {"broker": {"condition": "service_healthy"}}
    for name in ("worker-1", "worker-2", "trainer"):
        assert SERVICES[name]["depends_on"] == {"topics": {"condition": "service_completed_successfully"}}
    for name in ("broker", "worker-1", "worker-2"):
        assert SERVICES[name]["healthcheck"]["test"][0] == "CMD"
    port = Settings.model_fields["web_port"].default
    assert f"127.0.0.1:{port}/health/ready" in SERVICES["worker-1"]["healthcheck"]["test"][-1]


def test_image_runs_as_a_user_and_without_development_tools() -> None:
    dockerfile = (ROOT / "deploy" / "Dockerfile").read_text()
    final = dockerfile.rpartition("FROM ")[2]
    assert re.search(r"^USER msam$", final, re.MULTILINE)
    assert "--require-hashes -r requirements.lock" in dockerfile
    run_time, all_pins = (pins(lock) for lock in reversed(LOCKS))
    assert len(run_time) > 100
    assert run_time.items() <= all_pins.items(), "the image has the very versions that the tests ran with"
    left_out = {requirement.split()[0] for requirement in all_pins.keys() - run_time.keys()}
    assert {"pytest", "ruff", "mypy", "hypothesis"} <= left_out


@pytest.mark.parametrize("lock", LOCKS)
def test_locks_name_no_index_and_no_place(lock: str) -> None:
    text = (ROOT / lock).read_text()
    assert not re.search(r"://|^--|\s/\w|file:", text, re.MULTILINE)
    requirements = re.findall(r"^[A-Za-z0-9].*", text, re.MULTILINE)
    assert requirements and all("==" in line for line in requirements)
    assert text.count("--hash=sha256:") > len(requirements)


def test_prometheus_scrapes_what_workers_serve() -> None:
    (job,) = yaml.safe_load((ROOT / "deploy" / "prometheus.yml").read_text())["scrape_configs"]
    assert job["metrics_path"] == "/metrics"
    (group,) = job["static_configs"]
    assert f"127.0.0.1:{Settings.model_fields['web_port'].default}" in group["targets"]
