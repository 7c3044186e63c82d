"""Makes a text with structure a tiny model can learn: sentences of made-up words, in a fixed order
of word classes."""

import random
from pathlib import Path

SYLLABLES = [a + b for a in "bdfgklmnprstvz" for b in ("a", "e", "i", "o", "u", "en", "ar")]


def write_text(path: Path, paragraphs: int = 250) -> None:
    """Write the same text at every call: paragraphs of five to nine sentences."""
    draws = random.Random(0)
    classes = [["".join(draws.choices(SYLLABLES, k=k)) for _ in range(60)] for k in (2, 1, 3, 2)]
    parts = [
        " ".join(_sentence(draws, classes) for _ in range(draws.randint(5, 9)))
        for _ in range(paragraphs)
    ]
    path.write_text("\n\n".join(parts))


def _sentence(draws: random.Random, classes: list[list[str]]) -> str:
    return " ".join(draws.choice(words) for words in classes).capitalize() + "."
