"""What each attention head does: how far it is an induction head, and what its removal costs.

An induction head finds where the present token came before and copies what followed it (Olsson et
al., arXiv 2209.11895). Both halves of that are scored here, head by head, on random tokens that
come twice; neither asks whether the model needs the head, so some are also taken out.

All is done around `attend`, the kernel of a layer: what goes in are the queries and keys after
positions were added, what comes out has one slice a head. Letters are those of `hybrid/__init__.py`
and n, the tokens of one of both copies.
"""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from statistics import fmean
from typing import Any, NamedTuple

import torch
from torch import Tensor

from hybrid.layers.attention import Attention
from hybrid.model import HybridLM
from hybrid.ops import reference
from sweeps.trial.device import autocast
from sweeps.trial.recipe import Precision, Recipe

SEQUENCES = 64  # that heads are scored on
SCORED_SEED = 0  # of their tokens, the same for every model of a vocabulary
PAIRS = 1 << 20  # of a query and a key, for each head, looked at together: bounds the memory
REMOVED = 4  # a quarter of all heads
DRAWS = 5  # of other heads, to hold the best against
THRESHOLD = 0.25  # prefix matching above which a head counts as an induction head

Attend = Callable[[Tensor, Tensor, Tensor, int | None], Tensor]


class Head(NamedTuple):
    """One attention head, by its places in the model and in its layer, both from 0."""

    layer: int
    place: int

    def __str__(self) -> str:
        return f"layer {self.layer} head {self.place}"


class Looked(NamedTuple):
    """What one attention layer did in one pass."""

    weight_BHTS: Tensor
    v_BSKP: Tensor


class Scores(NamedTuple):
    """Of one head; both are shares in 0..1."""

    prefix_matching: float
    copying: float


def attention_layers(model: HybridLM) -> dict[int, Attention]:
    """Return the attention layers by their places in the model."""
    mixers: dict[int, Any] = {i: block.mixing.mixer for i, block in _blocks(model).items()}
    return {i: mixer for i, mixer in mixers.items() if isinstance(mixer, Attention)}


def heads_of(model: HybridLM) -> list[Head]:
    """Return every attention head, from the first layer on."""
    layers = attention_layers(model).items()
    return [Head(i, place) for i, mixer in layers for place in range(mixer.config.heads)]


@contextmanager
def looking(model: HybridLM) -> Iterator[dict[int, Looked]]:
    """Fill a dict, by layer, with what attention looks at in the next pass.

    The probabilities are those of `reference.attention_weights`; what the model's own kernel made
    of the same queries and keys passes through untouched.
    """
    found: dict[int, Looked] = {}

    def noting(layer: int, attend: Attend) -> Attend:
        def noted(q: Tensor, k: Tensor, v: Tensor, window: int | None) -> Tensor:
            found[layer] = Looked(reference.attention_weights(q, k, window), reference.wide(v))
            return attend(q, k, v, window)

        return noted

    with _around(model, noting):
        yield found


@contextmanager
def without(model: HybridLM, heads: Collection[Head]) -> Iterator[None]:
    """Let the output of `heads` be zero meanwhile, before their layer's last projection."""

    def removing(layer: int, attend: Attend) -> Attend:
        places = [head.place for head in heads if head.layer == layer]

        def removed(q: Tensor, k: Tensor, v: Tensor, window: int | None) -> Tensor:
            y_BTHP = attend(q, k, v, window).clone()
            y_BTHP[:, :, places] = 0
            return y_BTHP

        return removed

    with _around(model, removing):
        yield


@contextmanager
def _around(model: HybridLM, make: Callable[[int, Attend], Attend]) -> Iterator[None]:
    """Put what `make` returns in the place of each attention layer's kernel."""
    layers = attention_layers(model)
    kernels = {i: mixer.attend for i, mixer in layers.items()}
    for i, mixer in layers.items():
        mixer.attend = make(i, kernels[i])
    try:
        yield
    finally:
        for i, mixer in layers.items():
            mixer.attend = kernels[i]


def repeated(vocab: int, tokens: int) -> Tensor:
    """Return SEQUENCES rows of random tokens that come twice, (B, 2n), the same for every caller.

    n is half of `tokens`, or as many as there are; those of a row are distinct, so that each has
    come once when it comes again.
    """
    n = min(tokens // 2, vocab)
    draws = torch.Generator().manual_seed(SCORED_SEED)
    once_Bn = torch.stack([torch.randperm(vocab, generator=draws)[:n] for _ in range(SEQUENCES)])
    return once_Bn.repeat(1, 2)


@torch.inference_mode()
def head_scores(model: HybridLM, ids_BT: Tensor, precision: Precision) -> dict[Head, Scores]:
    """Return the scores of every attention head on rows of tokens that come twice."""
    model.eval()
    device = model.embed.weight.device
    parts = ids_BT.to(device).split(max(1, PAIRS // ids_BT.shape[1] ** 2))
    prefix: dict[int, Tensor] = {}
    raised: dict[int, Tensor] = {}
    for part_BT in parts:
        with looking(model) as looked, autocast(precision, device):
            model.hidden(part_BT)
        for layer, (weight_BHTS, v_BSKP) in looked.items():
            matching_H = prefix_matching(weight_BHTS).sum(dim=0)
            effects_2H = copying_effects(model, layer, part_BT, weight_BHTS, v_BSKP)
            prefix[layer] = prefix.get(layer, torch.zeros_like(matching_H)) + matching_H
            raised[layer] = raised.get(layer, torch.zeros_like(effects_2H)) + effects_2H
    return {
        head: Scores(
            prefix_matching=prefix[head.layer][head.place].item() / len(ids_BT),
            copying=_share(*raised[head.layer][:, head.place].tolist()),
        )
        for head in heads_of(model)
    }


def prefix_matching(weight_BHTS: Tensor) -> Tensor:
    """Return the mean attention, (B, H), from each token of the second copy to the one after its
    first coming; a head that looks at all tokens alike has the mean of 1 / (tokens seen).
    """
    n = weight_BHTS.shape[2] // 2
    return weight_BHTS[:, :, n:].diagonal(offset=1, dim1=2, dim2=3).mean(dim=-1)


def copying_effects(
    model: HybridLM, layer: int, ids_BT: Tensor, weight_BHTS: Tensor, v_BSKP: Tensor
) -> Tensor:
    """Return how much each head raises the logits of the tokens it looks at, and of all tokens of
    the row, (2, H): the first over the second is the copying score.

    The value of a token at s, through the head's columns of the output projection, the final norm's
    weights and the unembedding, makes a logit of each token u; less the mean over the vocabulary,
    and where above 0, that is what looking at s raises u by. It counts as often as s is looked at.
    A head that raises nothing but what it looks at has a score of 1, one that raises all n tokens
    of a row alike 1/n.

    After the appendix of arXiv 2209.11895, with these simplifications: the score stays in 0..1
    where the paper stretches it to -1..1; it is taken on the sequences of prefix matching; each
    value is weighed by itself, before attention mixes it with others; and layers in between and the
    size of the final norm's input are left out, the latter being one positive factor a position.
    """
    mixer = attention_layers(model)[layer]
    n, D = ids_BT.shape[1] // 2, model.spec.width
    H, K, P = mixer.config.heads, mixer.config.kv_heads, mixer.head_width
    out_DHP = mixer.out.weight.view(D, H, P).float()
    read_VD = model.head.weight.float()
    read_BuD = (read_VD[ids_BT[:, :n]] - read_VD.mean(dim=0)) * model.norm.weight
    seen_BHS = weight_BHTS.sum(dim=2)
    effects = []
    for place in range(H):
        written_BSD = v_BSKP[:, :, place // (H // K)] @ out_DHP[:, place].T
        raised_BSu = (written_BSD @ read_BuD.transpose(1, 2)).relu() * seen_BHS[:, place, :, None]
        own = torch.cat([torch.eye(n)] * 2).to(raised_BSu)  # the token at s is that at s mod n
        effects.append(torch.stack([(raised_BSu * own).sum(), raised_BSu.sum()]))
    return torch.stack(effects, dim=1)


def removals(
    prefix: Mapping[Head, float], seed: int, accuracy: Callable[[Collection[Head]], float]
) -> dict[str, float]:
    """Return `accuracy` without the quarter of all heads, at least one, that matches prefixes best
    (`top`), and without as many others, mean over draws from `seed` (`random`).

    A single head has no others; then there is no `random`.
    """
    ranked = sorted(prefix, key=lambda head: -prefix[head])
    count = max(1, len(ranked) // REMOVED)
    top, others = ranked[:count], ranked[count:]
    found = {"top": accuracy(top)}
    if others:
        found["random"] = _mean_without(others, count, seed, accuracy)
    return found


def induction_removals(
    prefix: Mapping[Head, float], seed: int, accuracy: Callable[[Collection[Head]], float]
) -> dict[str, float] | None:
    """Return `accuracy` without all heads above THRESHOLD (`above`), and without as many others,
    mean over draws from `seed` (`others`, if so many exist).

    None where no head is above, and where every head is: nothing can then be compared.
    """
    above = [head for head, score in prefix.items() if score > THRESHOLD]
    others = [head for head in prefix if head not in above]
    if not above or not others:
        return None
    found = {"above": accuracy(above)}
    if len(others) >= len(above):
        found["others"] = _mean_without(others, len(above), seed, accuracy)
    return found


def _mean_without(
    heads: Sequence[Head], count: int, seed: int, accuracy: Callable[[Collection[Head]], float]
) -> float:
    """Return the mean of `accuracy` without `count` of the heads, over DRAWS draws from `seed`."""
    draws = torch.Generator().manual_seed(seed)
    picks = [torch.randperm(len(heads), generator=draws)[:count] for _ in range(DRAWS)]
    return fmean(accuracy([heads[i] for i in pick]) for pick in picks)


def head_columns(
    model: HybridLM,
    recipe: Recipe,
    precision: Precision,
    accuracy: Callable[[], float],
) -> dict[str, Any]:
    """Return the columns of a record on heads; none for a model without attention.

    `accuracy` measures the model as it is when called.
    """

    def of_rest(removed: Collection[Head]) -> float:
        with without(model, removed):
            return accuracy()

    if not attention_layers(model):
        return {}
    scores = head_scores(model, repeated(model.spec.vocab, recipe.tokens), precision)
    prefix = {head: score.prefix_matching for head, score in scores.items()}
    whole = accuracy()
    induction = induction_removals(prefix, recipe.seed, of_rest)
    return {
        "head_prefix_matching": {str(head): x for head, x in prefix.items()},
        "head_copying": {str(head): score.copying for head, score in scores.items()},
        "heads_removed_accuracy": {"none": whole, **removals(prefix, recipe.seed, of_rest)},
        "induction_heads_removed_accuracy": induction and {"none": whole, **induction},
    }


def _blocks(model: HybridLM) -> dict[int, Any]:
    return dict(enumerate(model.blocks))


def _share(part: float, whole: float) -> float:
    """Return part / whole; a head that raises no token copies none."""
    return part / whole if whole > 0 else 0.0
