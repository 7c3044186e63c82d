"""Speech: text from a model as it comes, token after token.

A token of a byte-level tokenizer may end inside a character, so its text waits until the character
is whole.
"""

from collections.abc import Callable, Iterator, Sequence

import torch

from hybrid import generate
from hybrid.generate import GREEDY, Choice
from hybrid.spec import require
from sweeps.trained import Trained

BROKEN = "\ufffd"  # what decoding gives for bytes that are no character
MOST_BROKEN = 3  # bytes of a UTF-8 character that may have come without the last


class TextStream:
    """The text of tokens that come one by one; joined, it is that of all tokens together."""

    def __init__(self, decode: Callable[[Sequence[int]], str]):
        self.decode = decode
        self.ids: list[int] = []  # since the last one but one that ended with its character
        self.told = 0  # characters of their text that are out

    def push(self, token: int) -> str:
        """Return the text that is certain with this token, which may be none."""
        self.ids.append(token)
        text = self.decode(self.ids)
        whole = len(text.rstrip(BROKEN))
        piece = text[self.told : max(whole, len(text) - MOST_BROKEN)]
        self.told += len(piece)
        if whole == len(text):  # one token stays: some tokenizers drop a space before the first
            self.ids, self.told = [token], len(self.decode([token]))
        return piece

    def rest(self) -> str:
        """Return what was held back, broken as it is."""
        return self.decode(self.ids)[self.told :]


def speak(
    trained: Trained, prompt: str, *, tokens: int, choice: Choice = GREEDY, seed: int = 0
) -> Iterator[str]:
    """Yield text that continues `prompt`, at most `tokens` tokens of it, as it comes.

    It ends before the token that ends a text. An empty prompt is the beginning of a text.
    Raises ValueError for a prompt with bytes that are no UTF-8.
    """
    _check_utf8(prompt)
    ids = trained.words.encode(prompt) or [trained.words.begin_id]
    return continue_ids(trained, ids, tokens=tokens, choice=choice, seed=seed)


def _check_utf8(prompt: str) -> None:
    try:
        prompt.encode()
    except UnicodeEncodeError as error:
        raise ValueError(
            f"prompt: character {error.start} is {prompt[error.start]!r}, which is no text; give "
            "the prompt in UTF-8"
        ) from error


def continue_ids(
    trained: Trained, ids: Sequence[int], *, tokens: int, choice: Choice = GREEDY, seed: int = 0
) -> Iterator[str]:
    """Yield what `speak` does, after a prompt that is tokens already, at least one."""
    require(tokens >= 1, f"speak: tokens={tokens} must be 1 or more")
    stream = TextStream(trained.words.decode)
    ids_BT = torch.tensor([list(ids)], device=trained.model.embed.weight.device)
    for id_B in generate.sample(trained.model, ids_BT, tokens=tokens, choice=choice, seed=seed):
        token = int(id_B.item())
        if token == trained.words.end_id:
            break
        if piece := stream.push(token):
            yield piece
    if rest := stream.rest():
        yield rest
