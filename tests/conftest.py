"""Fixtures of the whole suite: one real broker a session, the real data, names that no other test uses."""

import os
import signal
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from streams.local_kafka import LocalKafka

ROOT = Path(__file__).resolve().parent.parent

# A run that was put in the background of a shell has SIGINT ignored, and so would have every process it starts; with a
# handler here they start with the default again, as they do for somebody at a terminal.
signal.signal(signal.SIGINT, signal.default_int_handler)


#: Systems that take most of a minute to make: the tests of one are run by one process, one after the other.
SHARED = ("operated", "system")
#: What takes longest begins first: the others fill up the time of the processes that are free.
LONGEST = ("models", "operated", "system", "chaos/test_chaos", "integration/test_demo", "integration/test_security")


def pytest_itemcollected(item: pytest.Item) -> None:
    """Tell the processes of a run what belongs together: what shares a system, else what stands in a file."""
    if item.get_closest_marker("xdist_group") is None:
        fixtures, file = getattr(item, "fixturenames", ()), f"{item.path.parent.name}/{item.path.stem}"
        item.add_marker(pytest.mark.xdist_group(next((name for name in SHARED if name in fixtures), file)))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the longest groups first, and leave everything else as it is."""
    items.sort(key=lambda item: LONGEST.index(group) if (group := group_of(item)) in LONGEST else len(LONGEST))


def group_of(item: pytest.Item) -> str:
    """What the test belongs to."""
    mark = item.get_closest_marker("xdist_group")
    assert mark is not None
    return str(mark.args[0])


@pytest.fixture(scope="session")
def kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalKafka]:
    """A running broker, shared by the session: use unique names, or a broker of your own where it must be killed."""
    with LocalKafka(tmp_path_factory.mktemp("kafka"), heap="384m") as broker:
        yield broker


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """The folder of real data; a test that needs it skips without it, except in CI, where absence fails."""
    folder = Path(os.environ.get("MSAM_DATA", ROOT.parent / "shared" / "data"))
    if not folder.is_dir():
        reason = f"no real data in {folder} (set MSAM_DATA)"
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)
    return folder


@pytest.fixture
def unique(request: pytest.FixtureRequest) -> str:
    """A name for topics and groups that no other test, and no other run of this one, uses."""
    stem = request.node.originalname.removeprefix("test_").replace("_", "-")[:40]
    return f"{stem}-{uuid.uuid4().hex[:8]}"
