"""The learning rates in use are those that the committed tuning trials choose."""

import json
import warnings
from pathlib import Path

import pandas as pd
import pytest

from sweeps import ratio, ratio_lr, results

PUBLISHED = Path(__file__).parents[1] / results.PUBLISHED


def test_the_rates_of_the_cpu_scale_come_from_committed_trials():
    trials = results.load("ratio-lr", folder=PUBLISHED, scale="cpu")
    assert len(results.complete(trials)) == len(ratio.ARMS) * len(ratio_lr.RATES)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # an arm's best at the edge: docs/log.md
        assert ratio_lr.chosen(trials) == ratio.SCALES["cpu"].lr


def made_up(losses: dict[float, float]) -> pd.DataFrame:
    return pd.DataFrame(
        [
            {
                "outcome": "complete",
                "ratio": "1:7",
                "recipe": json.dumps({"lr": lr}),
                "valid_bits_per_byte.books": loss,
            }
            for lr, loss in losses.items()
        ]
    )


def test_the_smallest_rate_near_the_least_loss_is_chosen():
    losses = {1e-3: 2.2, 2e-3: 2.105, 4e-3: 2.1, 8e-3: 2.3, 1.6e-2: 2.4}
    assert ratio_lr.chosen(made_up(losses)) == {"1:7": 2e-3}


def test_a_least_loss_at_the_edge_is_a_warning():
    with pytest.warns(UserWarning, match=r"1:7: the least loss is at the edge .* lr=0.001"):
        ratio_lr.chosen(made_up({1e-3: 2.0, 2e-3: 2.1}))
