"""What a run says of itself while it goes on, and how it is told to end."""

from collections.abc import Mapping
from dataclasses import dataclass

from sweeps.trial.train import Step


@dataclass(frozen=True, kw_only=True)
class Speeds:
    """What was measured before training, at batch 1; keys are tokens read before."""

    prefill_tokens_per_s: Mapping[int, float]
    decode_ms: Mapping[int, float]
    cache_bytes: Mapping[int, int]


Event = Step | Speeds


class Stop(Exception):
    """Raised by whoever watches a run: it ends there, with the outcome `pruned` and this reason."""
