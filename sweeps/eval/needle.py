"""The needle: a number hidden in a long text and asked for at its end. Knows nothing of lm-eval.

    ... held-out text. The magic number of Lisbon is 48213. More held-out text ...
    Question: What is the magic number of Lisbon?
    Answer: The magic number of Lisbon is

Scored twice: whether the greedy answer is the number, which needs a model that can write one, and
how likely the number is among others that were not hidden, which shows retrieval sooner.
"""

import random
import re
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

from hybrid import codec
from hybrid.spec import require
from sweeps.eval.record import NeedleScore, Origin, sha256_of
from sweeps.eval.scoring import Request, Scorer
from sweeps.speech import continue_ids
from sweeps.trained import Trained, Words
from sweeps.trial.data.documents import Split, split_by_group, without_duplicates
from sweeps.trial.data.sources import PackagedText, Source, TextFile
from sweeps.trial.data.streams import READERS, reading_source
from sweeps.trial.device import autocast

CONTEXTS = (256, 512, 1024, 2048)
LOWEST, HIGHEST = 10_000, 99_999  # all of as many digits, so that none is likelier for its length
OTHERS = 19  # numbers that the hidden one is compared with
ANSWER_TOKENS = 8  # at most; a digit is a token at worst
CITIES = ("Lisbon", "Oslo", "Cairo", "Lima", "Delhi", "Quito", "Riga", "Accra", "Hanoi", "Perth")
FACT = "\nThe magic number of {city} is {number}.\n"
QUESTION = "\nQuestion: What is the magic number of {city}?\nAnswer: The magic number of {city} is"


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """How many needles, and where."""

    contexts: tuple[int, ...] = CONTEXTS
    depths: int = 5
    needles: int = 5
    text: str = ""  # a file of the haystack; empty is the packaged text

    @property
    def source(self) -> Source:
        return TextFile(path=self.text) if self.text else PackagedText(domains=("books",))

    @property
    def places(self) -> list[float]:
        return [i / (self.depths - 1) for i in range(self.depths)]


def sizes(contexts: Sequence[int], depths: int | None, needles: int | None, text: str) -> Sizes:
    """Return the usual sizes with those that are given in their place, each context once."""
    given: dict[str, Any] = {
        "contexts": tuple(dict.fromkeys(contexts)),
        "depths": depths,
        "needles": needles,
    }
    return Sizes(text=text, **{name: value for name, value in given.items() if value})


@dataclass(frozen=True, kw_only=True)
class Hidden:
    """A needle in its haystack, as tokens, and what it is scored by."""

    ids: tuple[int, ...]
    number: int
    others: tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class Seen:
    """What a model made of one."""

    exact: bool
    beaten: float  # share of the other numbers


def run(trained: Trained, scorer: Scorer, start: Origin, sizes: Sizes) -> Iterator[NeedleScore]:
    """Yield the score of each cell; contexts in their order, depths from the beginning on.

    Raises ValueError, before the first, for a model that is not to read all of a context.
    """
    least = max(sizes.contexts) + ANSWER_TOKENS
    require(
        scorer.longest is None or scorer.longest >= least,
        f"needle: --longest {scorer.longest} would cut the largest context; give at least {least}, "
        "or a smaller --context",
    )
    source = sizes.source
    texts = _held_out(source)
    hay = _hay(trained.words, texts, source, max(sizes.contexts) + 1)
    text_sha256 = sha256_of(texts)
    for context in sizes.contexts:
        for depth in sizes.places:
            began = time.monotonic()
            seen = [
                look(trained, scorer, hide(trained.words, hay, context, depth, seed))
                for seed in range(sizes.needles)
            ]
            yield NeedleScore(
                **vars(start),
                source=codec.dumps(source),
                text_sha256=text_sha256,
                context=context,
                depth=depth,
                n=len(seen),
                exact=sum(x.exact for x in seen) / len(seen),
                exact_chance=1 / (HIGHEST - LOWEST + 1),
                first=sum(x.beaten == 1 for x in seen) / len(seen),
                first_chance=1 / (OTHERS + 1),
                beaten=sum(x.beaten for x in seen) / len(seen),
                candidates=OTHERS + 1,
                wall_s=time.monotonic() - began,
            )


def hide(words: Words, hay: Sequence[int], context: int, depth: float, seed: int) -> Hidden:
    """Return a needle in exactly `context` tokens, the question's included; ValueError if short.

    They begin with what the tokenizer puts before every text.
    Every cell has numbers of its own, for a model likes some whether it sees them or not.
    """
    draws = random.Random(f"{context}-{depth}-{seed}")
    city = draws.choice(CITIES)
    number, *others = draws.sample(range(LOWEST, HIGHEST + 1), OTHERS + 1)
    start = words.encode("")
    fact = words.encode_more(FACT.format(city=city, number=number))
    question = words.encode_more(QUESTION.format(city=city))
    taken = len(start) + len(fact) + len(question)
    room = context - taken
    require(room > 0, f"needle: context={context} must be above {taken} tokens")
    begin = draws.randrange(len(hay) - room + 1)
    before = round(depth * room)
    straw = hay[begin : begin + room]
    return Hidden(
        ids=(*start, *straw[:before], *fact, *straw[before:], *question),
        number=number,
        others=tuple(others),
    )


def look(trained: Trained, scorer: Scorer, hidden: Hidden) -> Seen:
    """Return what the model answers, and how it ranks the number."""
    words = trained.words
    numbers = [tuple(words.encode_more(f" {x}")) for x in (hidden.number, *hidden.others)]
    right, *others = scorer.score([Request(hidden.ids, x) for x in numbers])
    with autocast(scorer.precision, trained.model.embed.weight.device):
        said = "".join(continue_ids(trained, hidden.ids, tokens=ANSWER_TOKENS))
    found = re.match(r"\s*(\d+)", said)
    return Seen(
        exact=found is not None and int(found[1]) == hidden.number,
        beaten=sum(x.log_probability < right.log_probability for x in others) / len(others),
    )


def _held_out(source: Source) -> list[str]:
    """Return the documents of a text that nothing is trained on or chosen by."""
    with reading_source(source):
        documents = split_by_group(without_duplicates(READERS[type(source)](source)))[Split.TEST]
    return [f"{document.text}\n\n" for document in documents]


def _hay(words: Words, texts: Sequence[str], source: Source, least: int) -> list[int]:
    """Return tokens of held-out text, as many as there are; ValueError for fewer than `least`."""
    ids = list(chain.from_iterable(map(words.encode_more, texts)))
    require(
        len(ids) >= least,
        f"needle: the held-out text of {source} has {len(ids):,} tokens, too few for a context of "
        f"{least - 1:,}; give a longer one with --text",
    )
    return ids
