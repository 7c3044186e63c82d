"""Scorer: log-probabilities of continuations, several at a time; knows tokens, not text.

A sequence is filled up on the right, where nothing a causal model has read can see it. Options that
share a context are scored from one pass over it: its cache is branched. What is longer than
`longest` loses its beginning, never its end.
"""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from hybrid import generate
from hybrid.model import HybridLM
from hybrid.spec import require, require_positive
from sweeps.trial.device import autocast
from sweeps.trial.recipe import Precision

Ids = Sequence[int]


class Request(NamedTuple):
    """Tokens, and those that are to follow; at least one of each."""

    context: tuple[int, ...]
    continuation: tuple[int, ...]


class Scored(NamedTuple):
    """What a continuation got."""

    log_probability: float  # nats, all its tokens together
    greedy: bool  # whether each of its tokens was the likeliest


@dataclass(frozen=True, kw_only=True)
class Scorer:
    """Scores requests with one model."""

    model: HybridLM
    precision: Precision  # not AUTO
    batch: int = 8  # sequences at once
    longest: int | None = None  # tokens that the model reads of one sequence; None is all

    def __post_init__(self) -> None:
        require_positive("Scorer", batch=self.batch)
        require(
            self.longest is None or self.longest >= 1,
            f"Scorer: longest={self.longest} must be 1 or more",
        )

    def score(self, requests: Sequence[Request]) -> list[Scored]:
        """Return what each continuation got, in the order of `requests`."""
        found: dict[int, Scored] = {}
        for scored in self.each(requests):
            found |= scored
        return [found[i] for i in range(len(requests))]

    def each(self, requests: Sequence[Request]) -> Iterator[dict[int, Scored]]:
        """Yield what was scored together, by place in `requests`, until all are."""
        cut = [self._cut(request) for request in requests]
        for places in self._calls(cut):
            yield dict(zip(places, self._together([cut[i] for i in places]), strict=True))

    @torch.inference_mode()
    def _together(self, requests: Sequence[Request]) -> list[Scored]:
        shared = len({request.context for request in requests}) == 1
        with autocast(self.precision, self.model.embed.weight.device):
            return self._branched(requests) if shared else self._filled(requests)

    def _cut(self, request: Request) -> Request:
        context, continuation = request
        require(len(context) > 0 < len(continuation), f"{request}: must have a token in both parts")
        # The model reads all but the last token of a sequence.
        room = len(context) if self.longest is None else self.longest + 1 - len(continuation)
        require(
            room >= 1,
            f"a continuation of {len(continuation)} tokens does not fit longest={self.longest}",
        )
        return Request(context[-room:], continuation)

    def _calls(self, requests: Sequence[Request]) -> Iterator[list[int]]:
        """Yield the places of requests that go together: of one context, or alike in length."""
        same: dict[tuple[int, ...], list[int]] = defaultdict(list)
        for i, request in enumerate(requests):
            same[request.context].append(i)
        alone: list[int] = []
        for context, places in same.items():
            if len(places) > 1 or len(context) > generate.CHUNK:
                yield from _pieces(places, self.batch)
            else:
                alone += places
        alone.sort(key=lambda i: -len(requests[i].context) - len(requests[i].continuation))
        yield from _pieces(alone, self.batch)

    def _branched(self, requests: Sequence[Request]) -> list[Scored]:
        """Score continuations of one context from one pass over it."""
        context_1T = self._ids([requests[0].context])
        logits_1V, cache = generate.prefill(self.model, context_1T)
        first_BV = logits_1V.expand(len(requests), -1)
        rest_BT = self._ids([x.continuation[:-1] for x in requests])
        logits_BTV = first_BV[:, None]
        if rest_BT.shape[1]:
            more = self.model(rest_BT, generate.branch(cache, len(requests)))
            logits_BTV = torch.cat([logits_BTV, more.logits_BTV], dim=1)
        lengths = [len(x.continuation) for x in requests]
        rows = [logits_TV[:n] for logits_TV, n in zip(logits_BTV, lengths, strict=True)]
        return self._read(requests, rows)

    def _filled(self, requests: Sequence[Request]) -> list[Scored]:
        """Score sequences side by side, the shorter ones filled up on the right."""
        sequences = [[*x.context, *x.continuation][:-1] for x in requests]
        x_BTD, _, _ = self.model.hidden(self._ids(sequences))
        ends = [
            x_TD[len(ids) - len(request.continuation) : len(ids)]
            for x_TD, ids, request in zip(x_BTD, sequences, requests, strict=True)
        ]
        logits_nV = self.model.head(torch.cat(ends))
        return self._read(requests, logits_nV.split([len(end) for end in ends]))

    def _read(self, requests: Sequence[Request], rows: Sequence[Tensor]) -> list[Scored]:
        found = []
        for request, logits_TV in zip(requests, rows, strict=True):
            wanted_T = torch.tensor(request.continuation, device=logits_TV.device)
            log_probability_TV = logits_TV.float().log_softmax(dim=-1)
            total = log_probability_TV.gather(1, wanted_T[:, None]).sum().item()
            found.append(Scored(total, bool((logits_TV.argmax(dim=-1) == wanted_T).all())))
        return found

    def _ids(self, sequences: Sequence[Ids]) -> Tensor:
        rows = [torch.tensor(ids, dtype=torch.long) for ids in sequences]
        return pad_sequence(rows, batch_first=True).to(self.model.embed.weight.device)


def _pieces(places: list[int], size: int) -> Iterator[list[int]]:
    for i in range(0, len(places), size):
        yield places[i : i + size]
