"""WorkbenchLM: a trained model as lm-eval asks for one. Written against lm-eval 0.4.13.

A context that is too long loses its beginning. Text is generated for one context at a time: a state
of Mamba knows no filling up on the left.
"""

from collections.abc import Iterator
from typing import Any

from lm_eval.api.instance import Instance
from lm_eval.api.model import TemplateLM
from lm_eval.utils import get_rolling_token_windows, make_disjoint_window
from tqdm import tqdm

from hybrid.generate import Choice
from hybrid.spec import require
from sweeps.eval.scoring import Request, Scored, Scorer
from sweeps.speech import continue_ids
from sweeps.trained import Trained
from sweeps.trial.device import autocast
from sweeps.trial.events import Tell, tell_nobody

MOST_TOKENS = 256  # of a generated text where a task does not say; as lm-eval's own models have it
KNOWN = {"until", "max_gen_toks", "do_sample", "temperature", "top_k", "top_p"}


class WorkbenchLM(TemplateLM):
    """Answers lm-eval's three questions with one model of ours."""

    def __init__(self, trained: Trained, scorer: Scorer, seed: int = 0, tell: Tell = tell_nobody):
        """Answer with `trained`; `tell` is told how many questions are answered.

        A terminal has a bar besides, which is mute elsewhere.
        """
        super().__init__()
        self.tell = tell
        self.trained, self.scorer, self.seed = trained, scorer, seed
        self._device = trained.model.embed.weight.device

    @property
    def eot_token_id(self) -> int:
        return self.trained.words.end_id

    @property
    def prefix_token_id(self) -> int:
        return self.trained.words.begin_id

    def tok_encode(
        self, string: str, add_special_tokens: bool | None = None, **kwargs: Any
    ) -> list[int]:
        require(not kwargs, f"tok_encode: unknown {sorted(kwargs)}")
        words = self.trained.words
        return words.encode_more(string) if add_special_tokens is False else words.encode(string)

    def loglikelihood(
        self, requests: list[Instance], disable_tqdm: bool = False
    ) -> list[tuple[float, bool]]:
        return super().loglikelihood(requests, disable_tqdm=True)  # tokenizing takes no time

    def _loglikelihood_tokens(
        self, requests: list[tuple[tuple[str, str], list[int], list[int]]], **kwargs: Any
    ) -> list[tuple[float, bool]]:
        asked = [Request(tuple(context), tuple(more)) for _, context, more in requests]
        found: dict[int, Scored] = {}
        with tqdm(total=len(asked), desc="scoring", leave=False, disable=None) as bar:
            for scored in self.scorer.each(asked):
                found |= scored
                bar.update(len(scored))
                self.tell(f"scored {len(found):,} of {len(asked):,} answers")
        return [(found[i].log_probability, found[i].greedy) for i in range(len(asked))]

    def loglikelihood_rolling(
        self, requests: list[Instance], disable_tqdm: bool = False
    ) -> list[float]:
        """Return the log-probability of each text, its first token after the token before texts."""
        found: list[float] = []
        for request in requests:
            self.tell(f"scoring text {len(found) + 1:,} of {len(requests):,}")
            scored = self.scorer.score(list(self._windows(request.args[0])))
            found.append(sum(x.log_probability for x in scored))
        return found

    def _windows(self, text: str) -> Iterator[Request]:
        ids = self.tok_encode(text, add_special_tokens=False)
        longest = self.scorer.longest or max(1, len(ids))
        for window in get_rolling_token_windows(ids, self.prefix_token_id, longest, 1):
            context, continuation = make_disjoint_window(window)
            yield Request(tuple(context), tuple(continuation))

    def generate_until(self, requests: list[Instance], disable_tqdm: bool = False) -> list[str]:
        """Return the text that continues each context, up to the first of its stops."""
        with autocast(self.scorer.precision, self._device):
            texts: list[str] = []
            for request in tqdm(requests, desc="generating", leave=False, disable=None):
                self.tell(f"generating answer {len(texts) + 1:,} of {len(requests):,}")
                texts.append(self._until(*request.args))
            return texts

    def _until(self, context: str, asked: dict[str, Any]) -> str:
        unknown = sorted(set(asked) - KNOWN)
        require(not unknown, f"generate_until: unknown {unknown}; known are {sorted(KNOWN)}")
        tokens = int(asked.get("max_gen_toks", MOST_TOKENS))
        until = asked.get("until") or []
        stops = [until] if isinstance(until, str) else list(until)
        text = ""
        for piece in self._pieces(context, tokens, _choice(asked)):
            text += piece
            if ends := [text.index(stop) for stop in stops if stop and stop in text]:
                return text[: min(ends)]
        return text

    def _pieces(self, context: str, tokens: int, choice: Choice) -> Iterator[str]:
        words, longest = self.trained.words, self.scorer.longest
        ids = words.encode(context) or [words.begin_id]
        if longest is not None:
            require(
                tokens < longest, f"generate_until: max_gen_toks={tokens} must be below {longest}"
            )
            ids = ids[tokens - longest :]
        return continue_ids(self.trained, ids, tokens=tokens, choice=choice, seed=self.seed)


def _choice(asked: dict[str, Any]) -> Choice:
    """Return how a task wants tokens chosen; without `do_sample` the likeliest."""
    if not asked.get("do_sample", False):
        return Choice()
    return Choice(
        temperature=float(asked.get("temperature", 1.0)),
        top_k=asked.get("top_k"),
        top_p=float(asked.get("top_p", 1.0)),
    )
