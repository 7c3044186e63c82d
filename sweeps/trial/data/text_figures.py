"""The figures of docs/text.md, as Markdown: `python -m sweeps.trial.data.text_figures`.

Builds the tokens of the corpus if the cache lacks them, which takes minutes and 3 GB of memory.
"""

import time
from collections.abc import Iterable, Iterator
from statistics import mean

import numpy as np

from sweeps.trial.data.batches import HeldOutWindows
from sweeps.trial.data.documents import Split, split_by_group, without_duplicates
from sweeps.trial.data.ngram_baselines import domain_bigram_bits_per_byte, ngram_bits_per_byte
from sweeps.trial.data.packaged_corpus import (
    read_corpus,
    split_with_shared_lines,
)
from sweeps.trial.data.packages import read_packages
from sweeps.trial.data.shared_lines import shared_share, without_shared_lines
from sweeps.trial.data.sources import PackagedCorpus, PackagedText
from sweeps.trial.data.streams import Tokens, open_tokens

VOCAB = 2048
LENGTH = 512
CONTEXT = 4  # tokens that have to come again
REACHES = ((8, 512), (512, 4096), (4096, 32_768))  # tokens back, from and to


def foretold_share(ids_T: np.ndarray, context: int, least: int, most: int) -> float:
    """Return the share of tokens that a copy of what came before would get right.

    A token counts where the `context` tokens before it stood in the text before, last between
    `least` and `most` tokens back, and the same token came after them.
    """
    groups = np.lib.stride_tricks.sliding_window_view(ids_T[:-1], context)
    _, group_n = np.unique(groups, axis=0, return_inverse=True)
    following_n = ids_T[context:]
    order = np.argsort(group_n, kind="stable")
    again = group_n[order][1:] == group_n[order][:-1]
    back = order[1:] - order[:-1]
    right = following_n[order][1:] == following_n[order][:-1]
    return float((again & right & (back >= least) & (back < most)).sum() / len(following_n))


def sizes(tokens: Tokens) -> Iterator[str]:
    """Yield a row for each domain and split."""
    yield "| domain | split | documents | bytes | tokens | bytes/token |\n|---|---|---|---|---|---|"
    for domain in tokens.domains:
        for split in Split:
            x = tokens.stream(split, domain)
            yield (
                f"| {domain} | {split} | {x.documents:,} | {x.text_bytes:,} | {x.tokens:,} "
                f"| {x.text_bytes / x.tokens:.2f} |"
            )


def baselines(tokens: Tokens) -> Iterator[str]:
    """Yield a row for each domain and the mean: tables of all training text, on both splits."""
    splits = (Split.VALID, Split.TEST)
    judged = [HeldOutWindows(split=x, length=LENGTH, limit_tokens=None) for x in splits]
    tables: dict[str, dict[str, float]] = {}
    pooled = ngram_bits_per_byte(tokens, None, judged)
    own = domain_bigram_bits_per_byte(tokens, judged)
    for split, bits, by_domain in zip(splits, pooled, own, strict=True):
        tables[f"{split} unigram"] = bits.unigram
        tables[f"{split} bigram"] = bits.bigram
        tables[f"{split} bigram of the domain"] = by_domain
    yield f"| domain | {' | '.join(tables)} |\n|---|" + "---|" * len(tables)
    for domain in tokens.domains:
        yield _row(domain, [bits[domain] for bits in tables.values()])
    yield _row("mean", [mean(bits.values()) for bits in tables.values()])


def ties(tokens: Tokens) -> Iterator[str]:
    """Yield a row for each domain: how much of the test text stood before, and how far back."""
    heads = " | ".join(f"{least:,} to {most:,} back" for least, most in REACHES)
    yield f"| domain | {heads} |\n|---|" + "---|" * len(REACHES)
    for domain in tokens.domains:
        ids_T = np.asarray(tokens.stream(Split.TEST, domain).ids)
        shares = [foretold_share(ids_T, CONTEXT, *reach) for reach in REACHES]
        yield f"| {domain} | " + " | ".join(f"{share:.1%}" for share in shares) + " |"


def leakage() -> Iterator[str]:
    """Yield a row for each domain of the old text, and of the corpus before and after."""
    old = split_by_group(without_duplicates(read_packages(PackagedText())))
    before = split_with_shared_lines(without_duplicates(read_corpus(PackagedCorpus())))
    after = without_shared_lines(before)
    named = {"PackagedText": old, "corpus before": before, "corpus after": after}
    yield "| text | domain | valid | test | train bytes |\n|---|---|---|---|---|"
    for name, splits in named.items():
        valid, test = (shared_share(splits, split) for split in (Split.VALID, Split.TEST))
        for domain in valid:
            n_bytes = sum(x.n_bytes for x in splits[Split.TRAIN] if x.domain == domain)
            yield f"| {name} | {domain} | {valid[domain]:.2%} | {test[domain]:.2%} | {n_bytes:,} |"


def _row(name: str, values: Iterable[float]) -> str:
    return f"| {name} | " + " | ".join(f"{value:.3f}" for value in values) + " |"


def main() -> None:
    """Print every table."""
    start = time.perf_counter()
    tokens = open_tokens(PackagedCorpus(), VOCAB)
    print(f"opened in {time.perf_counter() - start:.0f} s; text_sha256 {tokens.text_sha256}")
    print("mixture", {domain: round(share, 3) for domain, share in tokens.mixture.items()})
    print("train tokens", sum(tokens.stream(Split.TRAIN, x).tokens for x in tokens.domains))
    for part in (sizes(tokens), baselines(tokens), ties(tokens), leakage()):
        print("", *part, sep="\n")


if __name__ == "__main__":
    main()
