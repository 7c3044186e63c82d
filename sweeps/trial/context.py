"""Whether a trained model uses its context: loss by position, and with the far context shuffled.

A model that predicts from the last few tokens alone is no better late in a window than early, and
loses nothing when all that lies further back is put into random order. All losses are in bits a
byte of text, so that tokenizers and positions compare.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from hybrid.model import HybridLM
from sweeps.trial.data.batches import bits_per_byte, held_out, text_bytes
from sweeps.trial.data.documents import Split
from sweeps.trial.data.streams import Tokens
from sweeps.trial.device import autocast
from sweeps.trial.measure import limit_of
from sweeps.trial.recipe import Precision, Recipe

EARLY = slice(8, 16)  # positions, from 0
KEPT = 8  # tokens read last, which stay in their order
SEED = 0  # of the orders


class _Bits:
    """Nats and bytes, summed over batches."""

    def __init__(self) -> None:
        self.nats, self.n_bytes = 0.0, 0

    def add(self, logits_BTV: Tensor, targets_BT: Tensor, tokens: Tokens) -> None:
        logits_nV = logits_BTV.flatten(0, 1).float()
        target_n = targets_BT.flatten().to(logits_nV.device)
        self.nats += F.cross_entropy(logits_nV, target_n, reduction="sum").item()
        self.n_bytes += text_bytes(tokens, targets_BT)

    def value(self) -> float:
        return bits_per_byte(nats=self.nats, n_bytes=self.n_bytes)


@torch.inference_mode()
def context_bits(
    model: HybridLM,
    tokens: Tokens,
    domain: str,
    recipe: Recipe,
    precision: Precision,
    split: Split,
) -> dict[str, float]:
    """Return bits per byte of a domain, by the middle of the names of the record's columns.

    `early` and `late` are positions 8 to 15 and the last quarter of the window. `unshuffled` and
    `shuffled` are the last position. Only whole windows are read. The orders are the same for every
    model and window length.
    """
    model.eval()
    device, T = model.embed.weight.device, recipe.tokens
    draws = torch.Generator().manual_seed(SEED)
    found = {name: _Bits() for name in ("early", "late", "unshuffled", "shuffled")}
    for ids_BT, targets_BT in held_out(
        tokens,
        split=split,
        domain=domain,
        length=T,
        batch=recipe.batch,
        limit_tokens=limit_of(recipe, split),
    ):
        if targets_BT.shape[1] < T:
            continue
        with autocast(precision, device):
            logits_BTV = model(ids_BT.to(device)).logits_BTV
            far_BTV = model(far_shuffled(ids_BT, draws).to(device)).logits_BTV[:, -1:]
        places = {"early": EARLY, "late": slice(T - T // 4, T), "unshuffled": slice(T - 1, T)}
        for name, place in places.items():
            found[name].add(logits_BTV[:, place], targets_BT[:, place], tokens)
        found["shuffled"].add(far_BTV, targets_BT[:, -1:], tokens)
    return {name: bits.value() for name, bits in found.items()}


def far_shuffled(ids_BT: Tensor, draws: torch.Generator) -> Tensor:
    """Return the windows with all but the last KEPT tokens in an order of each window's own."""
    far_BS, near_BK = ids_BT[:, :-KEPT], ids_BT[:, -KEPT:]
    order_BS = torch.rand(far_BS.shape, generator=draws).argsort(dim=1)
    return torch.cat([far_BS.gather(1, order_BS), near_BK], dim=1)
