"""What a design costs, by arithmetic: nothing is built or run."""

from collections.abc import Iterator
from dataclasses import dataclass

from ablations.finding import Finding
from hybrid import cost
from hybrid.devices import Rate, find_device
from hybrid.flops import training_flops
from hybrid.spec import ModelSpec
from hybrid.units import count_text
from sweeps.sweep import Point

DEVICE = "h100-sxm"
HOUR_S = 3600


@dataclass(frozen=True, kw_only=True)
class Price:
    """Of all runs of a finding at one scale, those that tune included."""

    runs: int
    tokens: int  # trained on
    flops: float  # of training
    least_params: int
    most_params: int

    @property
    def device_hours(self) -> float:
        """The least time on one DEVICE: at its peak in bf16, which nothing reaches."""
        return self.flops / find_device(DEVICE).flops_per_s(Rate.BF16) / HOUR_S

    @property
    def text(self) -> str:
        low, high = count_text(self.least_params), count_text(self.most_params)
        size = low if low == high else f"{low} to {high}"
        return (
            f"{self.runs} runs of {size} parameters, {count_text(self.tokens)} tokens, "
            f"{self.flops:.2g} FLOPs"
        )


def price(finding: Finding, scale: str) -> Price:
    """Return what `finding` costs at `scale`."""
    points = list(_points(finding, scale))
    flops = _flops_of_a_token(points)
    trained = [p.recipe.steps * p.recipe.batch * p.recipe.tokens for p in points]
    params = [cost.params(spec) for spec, _ in flops]
    return Price(
        runs=len(points),
        tokens=sum(trained),
        flops=sum(n * flops[p.spec, p.recipe.tokens] for n, p in zip(trained, points, strict=True)),
        least_params=min(params),
        most_params=max(params),
    )


def _flops_of_a_token(points: list[Point]) -> dict[tuple[ModelSpec, int], float]:
    """Return the operations of training, by model and length; seeds share them."""
    different = {(p.spec, p.recipe.tokens) for p in points}
    return {(spec, tokens): training_flops(spec, tokens=tokens) for spec, tokens in different}


def _points(finding: Finding, scale: str) -> Iterator[Point]:
    for sweep in finding.tunings(scale).values():
        yield from sweep.points(scale, None)
    for comparison in finding.comparisons:
        yield from comparison.sweep.points(scale, None)
