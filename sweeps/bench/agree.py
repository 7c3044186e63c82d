"""Whether a contender computes what the baseline computes; only then is it timed.

Logits are compared in fp32, where they can be told apart, relative to the largest one. The loss is
compared in the precision that will be timed, so a contender that breaks there is found too.
"""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from sweeps.bench.contender import Contender
from sweeps.bench.ours import Ours
from sweeps.bench.setting import Setting
from sweeps.trial.device import autocast
from sweeps.trial.recipe import Precision

LOGITS_ALLOWED = 1e-3  # of the largest logit: sums in another order, through all layers
LOSS_ALLOWED = {Precision.FP32: 1e-3, Precision.BF16: 5e-3}  # nats
PROMPT = 24  # tokens of which the served answers are compared


@dataclass(frozen=True, kw_only=True)
class Agreement:
    """How far a contender is from the baseline; null where that was not compared."""

    logits: float  # largest difference / largest logit; of the scan, the same of its output
    loss_nats: float | None

    def problem(self, precision: Precision) -> str | None:
        """Return what is too far off, in words; None if nothing is. Not a number is too far."""
        if not self.logits <= LOGITS_ALLOWED:
            return f"logits differ by {self.logits:.1e} of the largest"
        if self.loss_nats is not None and not self.loss_nats <= LOSS_ALLOWED[precision]:
            return f"the training loss differs by {self.loss_nats:.1e} nats"
        return None


class Answers(NamedTuple):
    """What a contender says to the same input as all others."""

    logits: Tensor  # of the scan, its output
    loss_nats: float | None


@torch.no_grad()
def trained_answers(contender: Contender, setting: Setting) -> Answers:
    """Return logits and loss on the first training batch."""
    ids_BT, targets_BT = training_batch(setting, 0)
    with autocast(setting.precision, setting.device):
        nats, _ = contender.loss(ids_BT, targets_BT)
    return Answers(contender.logits(ids_BT), nats.item())


@torch.inference_mode()
def served_answers(contender: Contender, setting: Setting) -> Answers:
    """Return the logits after a short prompt and after one and two tokens more."""
    ids_1T = prompt(setting, PROMPT + 2)
    logits_1V, cache = contender.prefill(ids_1T[:, :PROMPT])
    cache, found = contender.ready(cache), [logits_1V]
    for ids_1 in ids_1T[:, PROMPT:].unbind(1):
        logits_1V, cache = contender.decode(ids_1, cache)
        found.append(logits_1V)
    return Answers(torch.stack(found), None)


@torch.inference_mode()
def scanned_answers(contender: Contender, setting: Setting) -> Answers:
    """Return what the scan alone makes of random numbers."""
    assert isinstance(contender, Ours)
    return Answers(contender.scan(batch=setting.batch, tokens=setting.tokens)(), None)


def scan_trained_answers(contender: Contender, setting: Setting) -> Answers:
    """Return what the scan alone makes of random numbers, and its gradients, side by side."""
    assert isinstance(contender, Ours)
    call = contender.scan_step(batch=setting.batch, tokens=setting.tokens, dtype=torch.float32)
    return Answers(torch.cat([x.flatten() for x in call()]), None)


def agreement(mine: Answers, baseline: Answers) -> Agreement:
    """Return how far `mine` are from the baseline's."""
    ours = baseline.logits.float()
    difference = (mine.logits.float() - ours).abs().max() / ours.abs().max()
    losses = mine.loss_nats, baseline.loss_nats
    loss = None if losses[0] is None or losses[1] is None else abs(losses[0] - losses[1])
    return Agreement(logits=difference.item(), loss_nats=loss)


def training_batch(setting: Setting, step: int) -> tuple[Tensor, Tensor]:
    """Return (ids_BT, targets_BT) of a step: random tokens that (seed, step) decide."""
    row_BT = _random_ids(setting, setting.batch, setting.tokens + 1, stream=step)
    return row_BT[:, :-1], row_BT[:, 1:]


def prompt(setting: Setting, tokens: int, rows: int = 1) -> Tensor:
    """Return random tokens (`rows`, `tokens`)."""
    return _random_ids(setting, rows, tokens, stream=-1)


def _random_ids(setting: Setting, rows: int, tokens: int, stream: int) -> Tensor:
    # Streams count from -1; a generator takes no negative seed on every version.
    draws = torch.Generator().manual_seed(1_000_003 * setting.seed + stream + 1)
    ids_BT = torch.randint(setting.spec.vocab, (rows, tokens), generator=draws)
    return ids_BT.to(setting.device)
