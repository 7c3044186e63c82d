"""Leave-one-seed-out tuning: no seed is judged at a rate that it helped to choose."""

from math import inf, nan

import numpy as np
import pytest

from ablations.statistics.tuning import leave_one_seed_out


def test_a_lucky_draw_does_not_choose_its_own_rate():
    # Rate 1 is best on average. Seed 2 was lucky at rate 0, where the others were not.
    valid = np.array([[3.0, 3.0, 1.5], [2.0, 2.0, 2.0], [2.5, 2.5, 2.5]])
    test = valid + 0.1
    tuned = leave_one_seed_out(valid, test)
    assert tuned.chosen == (1, 1, 1)
    assert tuned.values == pytest.approx([2.1, 2.1, 2.1])
    assert not tuned.at_edge


def test_each_value_is_unmoved_by_its_own_validation_loss():
    generator = np.random.default_rng(3)
    valid, test = generator.random((2, 4, 6))
    before = leave_one_seed_out(valid, test)
    for seed in range(6):
        changed = valid.copy()
        changed[:, seed] = generator.random(4) * 10
        assert leave_one_seed_out(changed, test).values[seed] == before.values[seed]


def test_the_edge_is_seen_in_any_fold():
    valid = np.array([[1.0, 1.9, 1.9], [2.0, 1.8, 1.8], [3.0, 3.0, 3.0]])
    tuned = leave_one_seed_out(valid, valid)
    assert 0 in tuned.chosen
    assert tuned.at_edge


def test_a_rate_that_diverged_is_not_chosen():
    valid = np.array([[inf, 1.0, 1.0], [2.0, 2.0, 2.0], [3.0, 3.0, 3.0]])
    tuned = leave_one_seed_out(valid, valid)
    assert tuned.chosen == (0, 1, 1)  # without seed 0 nothing diverged at the first rate
    assert np.isinf(tuned.values[0])  # and so seed 0 is judged as diverged


@pytest.mark.parametrize(
    ("valid", "test", "message"),
    [
        (np.ones((3, 4)), np.ones((4, 3)), "alike"),
        (np.ones(3), np.ones(3), "alike"),
        (np.ones((3, 1)), np.ones((3, 1)), "two seeds"),
        (np.full((3, 4), nan), np.ones((3, 4)), "missing"),
        (np.ones((3, 4)), np.full((3, 4), nan), "missing"),
    ],
)
def test_what_cannot_be_tuned_is_refused(valid, test, message):
    with pytest.raises(ValueError, match=message):
        leave_one_seed_out(valid, test)
