"""`make fuzz` runs what it says: every property for every record, counted; a failure is not passed over."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.fuzz import Counter, main, targets


def test_every_property_is_run_for_every_record() -> None:
    counter = Counter()
    for test, named in targets():
        before = counter.cases
        counter.run(test, 5, 1, named)
        assert counter.cases - before >= 5, (test.__name__, named)


def test_a_failure_ends_it() -> None:
    @settings(max_examples=1)
    @given(n=st.integers(0, 100))
    def small(n: int) -> None:
        assert n < 50

    with pytest.raises(AssertionError):
        Counter().run(small, 200, 1, {})


def test_the_command_counts_what_it_ran(capsys: pytest.CaptureFixture[str]) -> None:
    main(["--cases", "150", "--seed", "3"])
    told = json.loads(capsys.readouterr().out)
    assert told["cases"] == told["codecs"] + told["play_step"] >= 150
    assert told["play_step"] >= 3 and (told["failures"], told["seed"]) == (0, 3)
