"""Throws random and damaged records at the codecs and at the play step, and counts them.

    python -m tests.fuzz --cases 100000 --seed 1

The properties are those of tests/property. Prints one JSON document; a case that fails is shown, smallest first, and
ends the run with exit status 1.
"""

import argparse
import json
import time
from collections.abc import Callable, Sequence
from functools import wraps
from typing import Any

from hypothesis import HealthCheck, seed, settings

from streams.datums import CODECS
from tests.property import test_codecs as codecs
from tests.property import test_play_step as step

STEP_SHARE = 50  # one case in so many goes through the model, which takes a thousand times as long


def targets() -> list[tuple[Any, dict[str, Any]]]:
    """The properties of the codecs, with what pytest would give them."""
    every = [(codecs.test_round_trip_in_every_encoding, {}), (codecs.test_damaged_records_never_crash, {})]
    for test in (codecs.test_no_bytes_raise_anything_but_decode_error, codecs.test_json_of_the_wrong_types):
        every += [(test, {"cls": cls}) for cls in CODECS]
    return every


class Counter:
    """How many cases were run."""

    def __init__(self) -> None:
        self.cases = 0

    def counted(self, function: Callable[..., None]) -> Callable[..., None]:
        """The function, counted."""

        @wraps(function)
        def call(*args: Any, **named: Any) -> None:
            self.cases += 1
            function(*args, **named)

        return call

    def run(self, test: Any, cases: int, number: int, given: dict[str, Any]) -> None:
        """At least `cases` cases of one property; its first failure is raised."""
        inner = test.hypothesis.inner_test
        test.hypothesis.inner_test = self.counted(inner)
        chosen = settings(max_examples=cases, deadline=None, database=None, suppress_health_check=list(HealthCheck))
        # One property is run for several records, or has settings as a test: hypothesis takes no settings twice.
        vars(test).pop("_hypothesis_internal_settings_applied", None)
        try:
            chosen(seed(number)(test))(**given)
        finally:
            test.hypothesis.inner_test = inner


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--cases", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=0)
    wanted = parser.parse_args(arguments)
    counter, started, turn = Counter(), time.monotonic(), 0
    through_model = max(wanted.cases // STEP_SHARE, 1)
    each = -(-(wanted.cases - through_model) // len(targets()))
    for test, given in targets():
        counter.run(test, each, wanted.seed, given)
    in_codecs = counter.cases
    while not turn or counter.cases < wanted.cases:  # some properties of the codecs run out of different cases
        turn += 1
        counter.run(step.test_every_record_has_one_answer, through_model, wanted.seed + turn, {})
    step.service().watch.stop()
    figures = {"cases": counter.cases, "codecs": in_codecs, "play_step": counter.cases - in_codecs, "failures": 0}
    print(json.dumps({**figures, "seed": wanted.seed, "seconds": round(time.monotonic() - started, 1)}))


if __name__ == "__main__":
    main()
