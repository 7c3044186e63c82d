"""What a source gives to a trial: batches to train on, and the columns that held-out data fills.

    material = open_material(recipe.source, vocab=spec.vocab, tokens=recipe.tokens)
    ids_BT, targets_BT = material.train_batch(seed=0, step=0, batch=8, length=256)
    material.held_out(model, recipe, precision)     # {"valid_bits_per_byte": ...}

One class for text and one for tasks; the rest of a trial does not ask which it has.
"""

from collections.abc import Callable
from statistics import mean
from typing import Any, Protocol

from hybrid.int8 import with_int8_experts
from hybrid.model import HybridLM
from sweeps.trial.context import context_bits
from sweeps.trial.data import batches, synthetic
from sweeps.trial.data.batches import Batch
from sweeps.trial.data.documents import Split
from sweeps.trial.data.ngram_baselines import (
    TrainWindows,
    domain_bigram_bits_per_byte,
    ngram_bits_per_byte,
)
from sweeps.trial.data.sources import (
    HubDataset,
    PackagedCorpus,
    PackagedText,
    Source,
    Synthetic,
    TextFile,
)
from sweeps.trial.data.streams import Tokens, open_tokens
from sweeps.trial.events import Tell, tell_nobody
from sweeps.trial.heads import head_columns
from sweeps.trial.inside import largest_inside
from sweeps.trial.measure import (
    HeldOut,
    Loads,
    Scored,
    held_out_loss,
    held_out_windows,
    task_scores,
)
from sweeps.trial.recipe import Precision, Recipe


class Material(Protocol):
    """What is trained on and measured by."""

    def known(self, recipe: Recipe) -> dict[str, Any]:
        """Return the columns of the record that are known before training."""

    def train_batch(self, *, seed: int, step: int, batch: int, length: int) -> Batch:
        """Return (ids_BT, targets_BT), a function of the arguments."""

    def held_out(
        self, model: HybridLM, recipe: Recipe, precision: Precision, tell: Tell = tell_nobody
    ) -> dict[str, Any]:
        """Return the columns of held-out data; the test split's only where the recipe asks.

        `tell` is told what is measured.
        """


class TextMaterial:
    """The text of a source, as tokens."""

    def __init__(self, tokens: Tokens):
        self.tokens = tokens

    def known(self, recipe: Recipe) -> dict[str, Any]:
        return {
            "tokenizer_sha256": self.tokens.tokenizer_sha256,
            "text_sha256": self.tokens.text_sha256,
            **ngram_columns(self.tokens, recipe),
        }

    def train_batch(self, *, seed: int, step: int, batch: int, length: int) -> Batch:
        return batches.train_batch(self.tokens, seed=seed, step=step, batch=batch, length=length)

    def held_out(
        self, model: HybridLM, recipe: Recipe, precision: Precision, tell: Tell = tell_nobody
    ) -> dict[str, Any]:
        def losses(
            split: Split, length: int | None = None, of: HybridLM = model
        ) -> dict[str, HeldOut]:
            found = {}
            for domain in self.tokens.domains:
                tell(f"measuring the loss on {domain} ({split})")
                found[domain] = held_out_loss(
                    of, self.tokens, domain, recipe, precision, split, length
                )
            return found

        with largest_inside(model) as inside:
            valid = losses(Split.VALID)
        last = Split.TEST if recipe.measure_test else Split.VALID
        test = losses(Split.TEST) if recipe.measure_test else None
        longer = {length: _bits(losses(last, length)) for length in recipe.lengths}
        int8 = losses(last, of=with_int8_experts(model)) if recipe.measure_int8 else None
        context = self._context(model, recipe, precision, last) if recipe.measure_context else {}
        return {
            **context,
            "valid_bits_per_byte": _bits(valid),
            "test_bits_per_byte": test and _bits(test),
            "length_bits_per_byte": {n: mean(x.values()) for n, x in longer.items()} or None,
            "int8_bits_per_byte": int8 and _bits(int8),
            "activation_max": inside or None,
            "expert_load": _mean_loads([loss.loads for loss in valid.values()]) or None,
        }

    def _context(
        self, model: HybridLM, recipe: Recipe, precision: Precision, split: Split
    ) -> dict[str, dict[str, float]]:
        """Return the columns of what the context is worth, each by domain."""
        bits = {
            domain: context_bits(model, self.tokens, domain, recipe, precision, split)
            for domain in self.tokens.domains
        }
        names = next(iter(bits.values()))
        return {
            f"context_{name}_bits_per_byte": {domain: x[name] for domain, x in bits.items()}
            for name in names
        }


class TaskMaterial:
    """Tasks, with as many token numbers as the model has."""

    def __init__(self, source: Synthetic, vocab: int):
        self.source, self.vocab = source, vocab

    def known(self, recipe: Recipe) -> dict[str, Any]:
        return {}

    def train_batch(self, *, seed: int, step: int, batch: int, length: int) -> Batch:
        return synthetic.draw(
            self.source.task(step),
            seed=seed,
            step=step,
            split=Split.TRAIN,
            batch=batch,
            length=length,
            vocab=self.vocab,
        )

    def held_out(
        self, model: HybridLM, recipe: Recipe, precision: Precision, tell: Tell = tell_nobody
    ) -> dict[str, Any]:
        def scored(split: Split) -> list[Scored]:
            found = []
            for probe in self.source.probes:
                tell(f"measuring right answers of {probe.name} ({split})")
                found.append(task_scores(model, probe, recipe, precision, split))
            return found

        with largest_inside(model) as inside:
            valid = scored(Split.VALID)
        test = scored(Split.TEST) if recipe.measure_test else []
        last = Split.TEST if recipe.measure_test else Split.VALID

        def accuracy() -> float:
            return mean(share for found in scored(last) for share in found.shares.values())

        heads = head_columns(model, recipe, precision, accuracy) if recipe.measure_heads else {}
        return {
            "task_floor": self._floors(recipe),
            "task_accuracy": {key: x for found in valid for key, x in found.shares.items()},
            "test_task_accuracy": {k: x for found in test for k, x in found.shares.items()} or None,
            "activation_max": inside or None,
            "expert_load": _mean_loads([found.loads for found in valid]) or None,
            **heads,
        }

    def _floors(self, recipe: Recipe) -> dict[str, float]:
        """Return the scores of guessing among the values present, by key of `task_accuracy`."""
        return {
            key: share
            for probe in self.source.probes
            for key, share in synthetic.floor(
                probe, vocab=self.vocab, batch=recipe.batch, limit_tokens=recipe.valid_tokens
            ).items()
        }


def open_text(source: Any, vocab: int, tokens: int) -> Material:
    """Open the tokens of the source, built before if they are not in the cache."""
    return TextMaterial(open_tokens(source, vocab))


def open_tasks(source: Synthetic, vocab: int, tokens: int) -> Material:
    """Draw everything once: what does not fit the vocabulary or the length says so now."""
    lengths = [(task, tokens) for task in source.all_tasks]
    lengths += [(probe.task, probe.length) for probe in source.probes]
    for task, length in lengths:
        synthetic.draw(task, seed=0, step=0, split=Split.TRAIN, batch=1, length=length, vocab=vocab)
    return TaskMaterial(source, vocab)


OPENERS: dict[type, Callable[[Any, int, int], Material]] = {
    PackagedText: open_text,
    PackagedCorpus: open_text,
    TextFile: open_text,
    HubDataset: open_text,
    Synthetic: open_tasks,
}


def open_material(source: Source, *, vocab: int, tokens: int) -> Material:
    """Return what `source` gives to a model of that vocabulary, trained on `tokens` a sequence.

    Raises TypeError for a source of an unknown class, ValueError where a task does not fit them,
    and what `open_tokens` raises.
    """
    if type(source) not in OPENERS:
        known = ", ".join(kind.__name__ for kind in OPENERS)
        raise TypeError(f"a source must be one of {known}, got {source!r}")
    return OPENERS[type(source)](source, vocab, tokens)


def ngram_columns(tokens: Tokens, recipe: Recipe) -> dict[str, Any]:
    """Return bits per byte of n-gram tables, on the held-out tokens that the model is judged on."""
    splits = {"": Split.VALID} | ({"test_": Split.TEST} if recipe.measure_test else {})
    judged = [held_out_windows(recipe, split) for split in splits.values()]
    trained_on = TrainWindows(
        seed=recipe.seed, steps=recipe.steps, batch=recipe.batch, length=recipe.tokens
    )
    tables = zip(
        splits,
        ngram_bits_per_byte(tokens, None, judged),
        domain_bigram_bits_per_byte(tokens, judged),
        ngram_bits_per_byte(tokens, trained_on, judged),
        strict=True,
    )
    columns = {}
    for prefix, all_text, by_domain, windows in tables:
        columns[f"{prefix}bits_per_byte_unigram"] = all_text.unigram
        columns[f"{prefix}bits_per_byte_bigram"] = all_text.bigram
        columns[f"{prefix}bits_per_byte_bigram_domain"] = by_domain
        columns[f"{prefix}bits_per_byte_bigram_windows"] = windows.bigram
    return columns


def _bits(losses: dict[str, HeldOut]) -> dict[str, float]:
    return {domain: loss.bits_per_byte for domain, loss in losses.items()}


def _mean_loads(loads: list[Loads]) -> list[list[float]]:
    """Return the mean over domains or probes of each router's load."""
    return [
        [mean(expert) for expert in zip(*router, strict=True)]
        for router in zip(*loads, strict=True)
    ]
