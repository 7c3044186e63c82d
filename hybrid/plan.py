"""Which members of the Jamba family fit a budget, and which of them no other one beats. No torch.

A family has the depth, width, heads and feed-forward widths of a base model; its members differ in
the attention:Mamba ratio and in (n, K, e). One member is better than another if it is no worse in
capacity (parameters), active compute (operations for one more token), cache and decoding bound, and
better in one of them. Quality is not among these: what attention is worth, only training tells.
Left to arithmetic alone, the front is pure Mamba; `min_attention` is where that knowledge enters.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import product

from hybrid.cost import Weights, active_params, cache_bytes, params
from hybrid.devices import Device
from hybrid.flops import forward_flops
from hybrid.jamba import jamba
from hybrid.memory import KV_BYTES, ServingBytes, serving_bytes
from hybrid.roofline import decode_bound
from hybrid.spec import MLP, Attention, Mamba, ModelSpec, MoE, StateSpace, require

RATIOS = ((1, 0), (1, 1), (1, 3), (1, 7), (1, 15), (0, 1))
PERIODS = (1, 2, 4)  # e
EXPERTS = (2, 4, 8, 16, 32, 64)  # n
TOP_KS = (1, 2, 4)  # K


@dataclass(frozen=True, kw_only=True)
class Budget:
    """What a member must meet; None asks for nothing."""

    memory: int  # bytes, for weights, cache and the pass under way
    context: int
    batch: int
    weights: Weights
    chunk: int | None  # tokens of a prompt in one pass; see hybrid/memory.py
    min_active: int | None = None  # parameters
    max_flops: int | None = None  # operations of one more token after `context`
    min_attention: int | None = None  # attention layers


@dataclass(frozen=True)
class Member:
    """One setting of the family and what it costs."""

    ratio: tuple[int, int]
    moe: tuple[int, int, int] | None  # (n, K, e); None: every feed-forward is dense
    spec: ModelSpec
    budget: Budget
    device: Device

    @property
    def name(self) -> str:
        experts = "dense" if self.moe is None else "n={} K={} e={}".format(*self.moe)
        return f"{self.ratio[0]}:{self.ratio[1]} {experts}"

    @property
    def attention_layers(self) -> int:
        return sum(isinstance(layer.mixer, Attention) for layer in self.spec.layers)

    @cached_property
    def params(self) -> int:
        return params(self.spec)

    @cached_property
    def active(self) -> int:
        return active_params(self.spec)

    @cached_property
    def flops(self) -> int:
        return forward_flops(self.spec, tokens=1, seen=self.budget.context).total

    @cached_property
    def cache(self) -> int:
        budget = self.budget
        return cache_bytes(self.spec, batch=budget.batch, tokens=budget.context, itemsize=KV_BYTES)

    @cached_property
    def need(self) -> ServingBytes:
        budget = self.budget
        return serving_bytes(
            self.spec,
            batch=budget.batch,
            context=budget.context,
            weights=budget.weights,
            chunk=budget.chunk,
        )

    @cached_property
    def tokens_per_s(self) -> float:
        budget = self.budget
        bound = decode_bound(
            self.spec,
            self.device,
            batch=budget.batch,
            context=budget.context,
            weights=budget.weights,
        )
        return bound.tokens_per_s

    @property
    def fits(self) -> bool:
        budget = self.budget
        return (
            self.need.total <= budget.memory
            and (budget.min_active is None or self.active >= budget.min_active)
            and (budget.max_flops is None or self.flops <= budget.max_flops)
            and (budget.min_attention is None or self.attention_layers >= budget.min_attention)
        )

    @property
    def merits(self) -> dict[str, float]:
        """What members are compared in; more is better."""
        return {
            "capacity": self.params,
            "active compute": -self.flops,
            "cache": -self.cache,
            "decoding": self.tokens_per_s,
        }

    def beats(self, other: "Member") -> bool:
        """Return whether this one is no worse in anything, and better in something."""
        mine, yours = self.merits.values(), other.merits.values()
        pairs = list(zip(mine, yours, strict=True))
        return all(a >= b for a, b in pairs) and any(a > b for a, b in pairs)


@dataclass(frozen=True, kw_only=True)
class Standing:
    """Where one member stands among those that fit."""

    member: Member
    fits: bool
    beaten_by: tuple[Member, ...]
    beats: int
    ranks: dict[str, int]  # of each merit, from 1; members as good share the best rank
    of: int  # members ranked, itself included


def members(base: ModelSpec, budget: Budget, device: Device) -> list[Member]:
    """Return the family of `base`: ratios whose period divides its depth, times (n, K, e).

    Raises ValueError for a base without attention or without a feed-forward.
    """
    depth = len(base.layers)
    attention = next((x.mixer for x in base.layers if isinstance(x.mixer, Attention)), None)
    mamba = next((x.mixer for x in base.layers if isinstance(x.mixer, StateSpace)), Mamba())
    found = [x.feed_forward for x in base.layers if x.feed_forward is not None]
    require(attention is not None, "plan: the base model has no attention layer to take heads from")
    require(len(found) > 0, "plan: the base model has no feed-forward to take a width from")
    assert attention is not None
    dense = next((x.hidden for x in found if isinstance(x, MLP)), found[0].hidden)
    expert = next((x.hidden for x in found if isinstance(x, MoE)), dense)

    def member(ratio: tuple[int, int], moe: tuple[int, int, int] | None) -> Member:
        n, top_k, e = (1, 1, 1) if moe is None else moe
        spec = jamba(
            vocab=base.vocab,
            width=base.width,
            hidden=dense,
            blocks=depth // sum(ratio),
            l=sum(ratio),
            ratio=ratio,
            attention=attention,
            mamba=mamba,
            moe=None if moe is None else MoE(hidden=expert, n_experts=n, top_k=top_k),
            e=e,
            moe_offset=e - 1,
            tied=base.tied,
        )
        return Member(ratio, moe, spec, budget, device)

    settings = [x for x in product(EXPERTS, TOP_KS, PERIODS) if x[1] <= x[0]]
    ratios = [ratio for ratio in RATIOS if depth % sum(ratio) == 0]
    return [member(ratio, moe) for ratio in ratios for moe in (None, *settings)]


def front(fitting: Sequence[Member]) -> list[Member]:
    """Return the members that no other one beats, the largest first."""
    best = [x for x in fitting if not any(other.beats(x) for other in fitting)]
    return sorted(best, key=lambda x: -x.params)


def standing(member: Member, fitting: Sequence[Member]) -> Standing:
    """Return where `member` stands among the members that fit, whether or not it fits itself."""
    others = [x for x in fitting if x is not member]
    ranks = {
        merit: 1 + sum(other.merits[merit] > value for other in others)
        for merit, value in member.merits.items()
    }
    return Standing(
        member=member,
        fits=member.fits,
        beaten_by=tuple(x for x in others if x.beats(member)),
        beats=sum(member.beats(x) for x in others),
        ranks=ranks,
        of=len(others) + 1,
    )


def find_member(family: Sequence[Member], base: ModelSpec) -> Member | None:
    """Return the member with exactly the layers of `base`, if the family has it."""
    return next((x for x in family if x.spec.layers == base.layers), None)
