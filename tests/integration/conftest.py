"""The expensive part, once a session: a broker with a system that has seen real plays and serves a first model."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from streams.local_kafka import LocalKafka
from tests.integration.registry_server import registry
from tests.integration.system import System
from tests.integration.workers import Worker


@pytest.fixture(scope="session")
def audio_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder from which workers may read audio, for files that tests make."""
    return tmp_path_factory.mktemp("audio")


@pytest.fixture(scope="session")
def system(
    kafka: LocalKafka, tmp_path_factory: pytest.TempPathFactory, data_dir: Path, audio_folder: Path
) -> Iterator[System]:
    """Topics, 300 described tracks, 1500 real plays, all answered by a first model."""
    roots = [data_dir / "audio_cc", audio_folder]
    with registry() as url:
        made = System(kafka.bootstrap, tmp_path_factory.mktemp("system"), data_dir / "classic_rock", url, roots)
        try:
            made.prepare()
            yield made
        finally:
            made.quiet()


@pytest.fixture(scope="session")
def operated(tmp_path_factory: pytest.TempPathFactory, data_dir: Path, audio_folder: Path) -> Iterator[System]:
    """A second system, on a broker of its own: for what operators do to a log."""
    with LocalKafka(tmp_path_factory.mktemp("kafka-operated"), heap="384m") as broker, registry() as url:
        made = System(
            broker.bootstrap, tmp_path_factory.mktemp("operated"), data_dir / "classic_rock", url, [audio_folder]
        )
        try:
            made.prepare()
            yield made
        finally:
            made.quiet()


@pytest.fixture
def operated_worker(operated: System) -> Worker:
    """Its running worker."""
    return operated.shared()


@pytest.fixture
def worker(system: System) -> Worker:
    """The running worker that tests share: with all roles, audio roots and a registry."""
    return system.shared()


@pytest.fixture
def quiet(system: System) -> System:
    """The system without a running worker: for tests that start, stop and kill their own."""
    system.quiet()
    return system
