"""From seconds to the figures of a row: speeds, ratios, shares of what the machine does at best."""

from itertools import chain
from typing import Any

from sweeps.bench.clock import Rounds, ratios, spread
from sweeps.bench.phases import tokens_of
from sweeps.bench.roof import Roof, bytes_of_call, elements_of_call, flops_of_call
from sweeps.bench.setting import Phase, Setting


def timed(
    setting: Setting, phase: Phase, context: int | None, mine: Rounds, baseline: Rounds | None
) -> dict[str, Any]:
    """Return the columns of `sweeps.bench.record.Row` that follow from the seconds of calls.

    `baseline` None leaves the ratios null.
    """
    calls = list(chain.from_iterable(mine))
    seconds = spread(calls)
    tokens = tokens_of(setting, phase, context)
    return {
        "rounds": len(mine),
        "calls": len(calls),
        "call_tokens": tokens,
        "median_s": seconds.median,
        "low_s": seconds.low,
        "high_s": seconds.high,
        "tokens_per_s": tokens / seconds.median,
        **_relative(mine, baseline),
        **_reached("flops_per_s", flops_of_call(setting, phase, context), seconds.median),
        **_reached("bytes_per_s", bytes_of_call(setting, phase, context), seconds.median),
        **_reached("elements_per_s", elements_of_call(setting, phase, context), seconds.median),
    }


def shares(measured: dict[str, Any], roof: Roof) -> dict[str, float]:
    """Return what part of the machine's rates the measured ones are, where there are any."""
    rates = {
        "fraction_of_gemm": ("flops_per_s", roof.gemm_flops_per_s),
        "fraction_of_bandwidth": ("bytes_per_s", roof.copy_bytes_per_s),
    }
    return {
        share: measured[rate] / best for share, (rate, best) in rates.items() if rate in measured
    }


def _relative(mine: Rounds, baseline: Rounds | None) -> dict[str, float]:
    if baseline is None:
        return {}
    ratio = spread(ratios(mine, baseline))
    return {"ratio": ratio.median, "ratio_low": ratio.low, "ratio_high": ratio.high}


def _reached(name: str, work: float | None, seconds: float) -> dict[str, float]:
    return {} if work is None else {name: work / seconds}
