"""`make fuzz` runs what it says: every property for every record, counted; a failure is not passed over."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.fuzz import Counter, targets


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
