"""The seed's optimisation as formulas, each beside the exact count it stands for. Free of torch.

The project's seed text states, for a block with n experts of which K are used in every e-th layer:
the cost of a setting is C(n, K, e) = (n/e) K, to be made least subject to n K <= M; memory falls as
1/m and throughput grows as m with the number m of Mamba layers; performance is a function of the
numbers of attention, Mamba and MoE layers. `judge` compares a formula with a count, or with a
measurement, over a grid of settings: does it put them in the right order, and how far off is it
after the best single factor? The grids and the exact counts are in `law_grids.py`.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import exp, log

from hybrid.spec import require

RIGHT_ORDER = 0.95  # rank correlation from which on an order is called right
RIGHT_SIZE = 0.10  # largest error, as a fraction, up to which a size is called right


# ---- the formulas --------------------------------------------------------------------------------


def moe_cost(n: int, top_k: int, e: int) -> float:
    """C(n, K, e) = (n/e) K; the seed text's cost of a mixture of experts."""
    return n / e * top_k


def expert_budget(n: int, top_k: int) -> int:
    """n K, which the seed text wants at most M."""
    return n * top_k


def least_cost(settings: Iterable[tuple[int, int, int]], budget: int) -> tuple[int, int, int]:
    """Return the (n, K, e) of least C with n K <= budget; ValueError where none is within it."""
    allowed = [x for x in settings if expert_budget(x[0], x[1]) <= budget]
    require(len(allowed) > 0, f"least_cost: no setting has n K <= {budget}")
    return min(allowed, key=lambda x: moe_cost(*x))


def memory_share(m: int) -> float:
    """1/m: the seed text's memory of a model with m Mamba layers, up to a factor."""
    return 1 / m


def throughput_share(m: int) -> float:
    """m: the seed text's throughput of a model with m Mamba layers, up to a factor."""
    return float(m)


# ---- the judgement -------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """How well a formula stands for a quantity over a grid."""

    law: str
    quantity: str
    points: int
    rank_correlation: float  # Spearman's; 1 is the same order
    worst_error: float  # after the best single factor, as a fraction of the true value

    @property
    def text(self) -> str:
        """The verdict in words, from the two numbers alone."""
        if self.rank_correlation < 0:
            order = "wrong direction"
        elif self.rank_correlation < RIGHT_ORDER:
            order = "misleading order"
        else:
            order = "right order"
        size = "right size" if self.worst_error <= RIGHT_SIZE else "wrong size"
        return f"{order}, {size}"


def judge(*, law: str, quantity: str, pairs: Sequence[tuple[float, float]]) -> Verdict:
    """Return the verdict on (formula, count or measurement) pairs, all above 0.

    The formula may be off by one common factor: the one that makes the worst error least on a
    logarithmic scale is divided out first. Raises ValueError for fewer than three pairs.
    """
    require(len(pairs) >= 3, f"judge {law}: {len(pairs)} pairs; at least 3 are needed")
    require(all(a > 0 and b > 0 for a, b in pairs), f"judge {law}: every value must be above 0")
    logs = [log(formula / true) for formula, true in pairs]
    middle = (min(logs) + max(logs)) / 2
    formula_ranks, true_ranks = (_ranks([p[i] for p in pairs]) for i in (0, 1))
    return Verdict(
        law=law,
        quantity=quantity,
        points=len(pairs),
        rank_correlation=_correlation(formula_ranks, true_ranks),
        worst_error=max(exp(abs(x - middle)) - 1 for x in logs),
    )


def _ranks(values: Sequence[float]) -> list[float]:
    """Return ranks from 0, equal values sharing their mean rank."""
    ordered = sorted(values)
    places = {x: [i for i, y in enumerate(ordered) if y == x] for x in set(values)}
    return [sum(places[x]) / len(places[x]) for x in values]


def _correlation(a: Sequence[float], b: Sequence[float]) -> float:
    """Pearson's correlation; 0 where one side does not vary."""
    mean_a, mean_b = sum(a) / len(a), sum(b) / len(b)
    cross = sum((x - mean_a) * (y - mean_b) for x, y in zip(a, b, strict=True))
    spread = sum((x - mean_a) ** 2 for x in a) * sum((y - mean_b) ** 2 for y in b)
    return cross / spread**0.5 if spread > 0 else 0.0
