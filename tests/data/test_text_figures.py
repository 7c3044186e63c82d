"""The share of a text that repeats what came before, counted by hand on a few tokens."""

import numpy as np

from sweeps.trial.data.text_figures import foretold_share


def test_a_token_counts_where_its_context_came_before_with_the_same_token_behind():
    ids = np.array([1, 2, 3, 9, 1, 2, 3, 8, 1, 2, 3])
    # With two tokens of context: nine tokens are foreseen, of which the two later 3s are copies.
    assert foretold_share(ids, 2, 1, 100) == 2 / 9
    assert foretold_share(ids, 2, 4, 5) == 2 / 9  # both four tokens back
    assert foretold_share(ids, 2, 5, 100) == 0
    assert foretold_share(ids, 2, 1, 4) == 0
