"""Which version a channel points to next: promotion, roll-back, and a trainer whose basis has gone."""

from __future__ import annotations

import pytest

from streams.channels import NotPromoted, earlier, known, pointing, promotion, rollback
from streams.errors import NotReady
from streams.records import ModelVersion
from streams.trainer import announcement

VERSIONS = {
    "a": ModelVersion("a"),
    "b": ModelVersion("b", parent="a"),
    "c": ModelVersion("c", parent="b"),
    "bad": ModelVersion("bad", parent="c", state="refused", reason="hr@20 0.1"),
}


def at(version: str, before: str | None = None) -> dict[str, ModelVersion]:
    return {"live": ModelVersion(version, channel="live", parent=before, state="channel")}


def test_promotion() -> None:
    made = promotion("c", VERSIONS, at("a"), "live", False)
    assert (made.key, made.version, made.parent, made.state) == ("channel/live", "c", "a", "channel")
    assert promotion("c", VERSIONS, at("a"), "canary", False).parent is None
    assert promotion("bad", VERSIONS, at("a"), "live", True).version == "bad"
    with pytest.raises(NotPromoted, match="hr@20"):
        promotion("bad", VERSIONS, at("a"), "live", False)
    with pytest.raises(NotPromoted, match="already"):
        promotion("c", VERSIONS, at("c"), "live", True)
    with pytest.raises(NotReady, match="models list"):
        promotion("z", VERSIONS, at("c"), "live", True)


def test_rollback_goes_back_step_by_step() -> None:
    first = rollback(VERSIONS, at("c", "a"), "live")
    assert (first.version, first.parent, first.reason) == ("a", None, "rolled back from c")
    by_lineage = rollback(VERSIONS, at("c"), "live")
    assert (by_lineage.version, by_lineage.parent) == ("b", "a")
    second = rollback(VERSIONS, {"live": by_lineage}, "live")
    assert second.version == "a", "one further back, not forth again"
    with pytest.raises(NotPromoted, match="no version before a"):
        rollback(VERSIONS, {"live": second}, "live")
    with pytest.raises(NotPromoted, match="points to nothing"):
        earlier(VERSIONS, {}, "live")
    assert earlier(VERSIONS, at("c", "lost"), "live") == "b", "a version that is gone is passed over"
    assert earlier(VERSIONS, at("c", "c"), "live") == "b"


def test_a_trainer_whose_basis_is_live_still() -> None:
    new = ModelVersion("d", parent="c")
    version, channel = announcement(new, "c", VERSIONS, at("c"))
    assert version == new and (channel.version, channel.parent) == ("d", "c")
    version, channel = announcement(ModelVersion("first"), None, {}, {})
    assert (version.state, channel.version, channel.parent) == ("accepted", "first", None)


def test_a_trainer_whose_basis_has_gone() -> None:
    for basis, now in (("c", at("b", "c")), (None, at("a")), ("c", {})):
        (version,) = announcement(ModelVersion("d"), basis, VERSIONS, now)
        assert version.state == "refused" and "went live while it was trained" in str(version.reason)
    refused = ModelVersion("d", state="refused", reason="worse")
    assert announcement(refused, "c", VERSIONS, at("b")) == [refused], "what the gate said stands"


def test_names() -> None:
    assert known("a", VERSIONS).version == "a"
    assert pointing("b", VERSIONS, {}).parent is None
