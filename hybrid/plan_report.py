"""What `python -m hybrid plan` prints: the front, and where the base model stands. No torch."""

from collections.abc import Sequence

from hybrid.devices import Device
from hybrid.plan import Budget, Member, Standing, find_member, front, members, standing
from hybrid.sheet import Sheet
from hybrid.spec import ModelSpec
from hybrid.units import bytes_text, count_text

NAMED = 6  # of those that beat a member


def plan_sheet(name: str, base: ModelSpec, budget: Budget, device: Device, top: int) -> Sheet:
    """Return the front of the family of `base`, its `top` largest members, and a verdict on base.

    Raises ValueError where nothing fits, saying what comes nearest.
    """
    family = members(base, budget, device)
    fitting = [member for member in family if member.fits]
    if not fitting:
        raise ValueError(_nothing_fits(family, budget))
    best = front(fitting)
    own = find_member(family, base)
    notes = [
        f"{len(fitting)} of {len(family)} settings fit; {len(best)} of them no other one beats in "
        f"capacity, active compute, cache and decoding bound (on {device.name}).",
    ]
    if len(best) > top:
        notes.append(f"Shown are the {top} largest.")
    if own is None:
        notes.append(f"{name} is not a member of its own family as enumerated here.")
    else:
        notes.append(describe(name, standing(own, fitting)))
    shown = best[:top] + ([own] if own is not None and own not in best[:top] else [])
    return Sheet(
        title=f"Jamba family within {bytes_text(budget.memory)} at {budget.context:,} tokens, "
        f"batch {budget.batch}, {budget.weights}",
        head=("", "parameters", "active", "FLOPs/token", "cache", "needed", "tokens/s, at most"),
        rows=[_row(member, name if member is own else "") for member in shown],
        notes=notes,
    )


def describe(name: str, where: Standing) -> str:
    """Return a sentence on where a member stands."""
    ranks = ", ".join(f"{merit} {rank}" for merit, rank in where.ranks.items())
    if where.beaten_by:
        others = ", ".join(member.name for member in where.beaten_by[:NAMED])
        more = len(where.beaten_by) - NAMED
        beaten = f"beaten in everything by {len(where.beaten_by)}: {others}"
        beaten += f" and {more} more" if more > 0 else ""
    else:
        beaten = "on the front: no setting is as good in everything and better in something"
    fits = "fits" if where.fits else "does not meet the budget"
    return (
        f"{name} ({where.member.name}) {fits}; {beaten}. It beats {where.beats} of {where.of - 1} "
        f"others. Rank among {where.of}: {ranks}."
    )


def _row(member: Member, own: str) -> tuple[str, ...]:
    return (
        f"{member.name}{f' <- {own}' if own else ''}",
        count_text(member.params),
        count_text(member.active),
        count_text(member.flops),
        bytes_text(member.cache),
        bytes_text(member.need.total),
        f"{member.tokens_per_s:,.0f}",
    )


def _nothing_fits(family: Sequence[Member], budget: Budget) -> str:
    least = min(family, key=lambda member: member.need.total)
    return (
        f"plan: no setting of the family meets the budget. The least memory is that of "
        f"{least.name}: {bytes_text(least.need.total)} of {bytes_text(budget.memory)}; active "
        f"parameters run from {count_text(min(m.active for m in family))} to "
        f"{count_text(max(m.active for m in family))}, FLOPs a token from "
        f"{count_text(min(m.flops for m in family))}"
    )
