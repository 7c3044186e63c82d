"""How `benchmarks.shared_gpu` counts trials an hour."""

from dataclasses import replace

import pytest

from benchmarks.shared_gpu import rate_of
from tests.test_record import complete, failed

STARTS = ("2026-01-01T00:00:00+00:00", "2026-01-01T00:00:10+00:00", "2026-01-01T00:00:30+00:00")
WALLS = (20.0, 50.0, 10.0)


def test_the_clock_runs_from_the_first_start_to_the_last_end():
    found = [
        replace(complete(seed), started_utc=start, wall_s=wall)
        for seed, (start, wall) in enumerate(zip(STARTS, WALLS, strict=True))
    ]
    rate = rate_of(found, workers=2)
    assert (rate.trials, rate.seconds, rate.trial_s) == (3, 60.0, 20.0)
    assert rate.per_hour == 180.0
    assert str(rate) == "| 2 | 3 | 180 | 20.0 |"


def test_a_rate_of_trials_that_failed_is_none():
    with pytest.raises(ValueError, match=r"is failed: "):
        rate_of([complete(), failed(1)], workers=1)
