"""Byte-level BPE: every text can be written, and every token stands for a known number of bytes.

The algorithm and the pre-tokenizing pattern are GPT-2's (Radford et al. 2019, section 2.2).
Token 0 is the separator that stands between documents; the next 256 are the single bytes.
"""

import contextlib
import hashlib
import os
from collections.abc import Iterator, Sequence

import numpy as np
import tokenizers
from tokenizers import decoders, models, pre_tokenizers, trainers

SEPARATOR = "<|endoftext|>"
SEPARATOR_ID = 0
MIN_VOCAB = 1 + 256
MIN_FREQUENCY = 2  # a token that was seen once teaches nothing
ENCODE_BYTES = 2_000_000  # text encoded at once: bounds the memory, keeps all cores busy


class ByteBPE:
    """A trained tokenizer. It lives on as its JSON text: equal `sha256`, equal tokens."""

    def __init__(self, json_text: str) -> None:
        self.json_text = json_text
        self.sha256 = hashlib.sha256(json_text.encode()).hexdigest()
        self._library = tokenizers.Tokenizer.from_str(json_text)
        # Otherwise a text that quotes the separator would be read as the end of a document.
        # The JSON does not keep this setting.
        self._library.encode_special_tokens = True

    @property
    def vocab(self) -> int:
        return self._library.get_vocab_size()

    def encode(self, text: str) -> list[int]:
        return self._library.encode(text).ids

    def decode(self, ids: Sequence[int]) -> str:
        """The text of ids; ids that end inside a character give U+FFFD for it."""
        return self._library.decode(list(ids), skip_special_tokens=False)

    def encode_many(self, texts: Sequence[str]) -> Iterator[list[int]]:
        """The ids of each text, encoded on all cores, a bounded amount at a time."""
        for part in _parts(texts):
            for encoding in self._library.encode_batch_fast(part):
                yield encoding.ids

    def bytes_per_token(self) -> np.ndarray:
        """Shape (V,), int64: the bytes of text that each token stands for; the separator has none.

        Byte-level BPE writes each byte as one character, so a token's length is its bytes.
        """
        table_V = np.zeros(self.vocab, dtype=np.int64)
        for token, index in self._library.get_vocab().items():
            table_V[index] = len(token)
        table_V[SEPARATOR_ID] = 0
        return table_V


def _parts(texts: Sequence[str]) -> Iterator[list[str]]:
    part: list[str] = []
    size = 0
    for text in texts:
        part.append(text)
        size += len(text)
        if size >= ENCODE_BYTES:
            yield part
            part, size = [], 0
    if part:
        yield part


def check_vocab(vocab: int) -> None:
    if not isinstance(vocab, int) or vocab < MIN_VOCAB:
        raise ValueError(
            f"vocab must be an integer of at least {MIN_VOCAB} (256 bytes and the separator), "
            f"got {vocab!r}"
        )


def train(texts: Sequence[str], vocab: int) -> ByteBPE:
    """A tokenizer of exactly `vocab` tokens; the same texts always give the same one."""
    check_vocab(vocab)
    library = tokenizers.Tokenizer(models.BPE())
    library.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    library.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab,
        min_frequency=MIN_FREQUENCY,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        special_tokens=[SEPARATOR],
        show_progress=False,
    )
    library.train_from_iterator(texts, trainer)
    if library.get_vocab_size() < vocab:
        raise ValueError(
            f"vocab={vocab} is too large for {sum(map(len, texts)):,} characters of training text, "
            f"which give {library.get_vocab_size()} tokens: train a model of so many tokens or "
            "fewer (ModelSpec.vocab), or give more text"
        )
    assert library.token_to_id(SEPARATOR) == SEPARATOR_ID
    return ByteBPE(library.to_str())


@contextlib.contextmanager
def all_cores() -> Iterator[None]:
    """Lets `tokenizers` use all cores inside, and no threads of its own afterwards.

    A process that forks after those threads ran gets a warning on stderr and may hang when its
    child encodes, unless the variable says what to do. A value that the user set is left alone.
    """
    if "TOKENIZERS_PARALLELISM" in os.environ:
        yield
        return
    os.environ["TOKENIZERS_PARALLELISM"] = "true"
    try:
        yield
    finally:
        os.environ["TOKENIZERS_PARALLELISM"] = "false"
