"""The words that pages, tables and the terminal show for a verdict.

An outcome is shown where the question was asked. Elsewhere the gate that failed is shown with its
figure, and no p-value. What was counted is shown with the assumption that it was counted under.
"""

from ablations.verdict import OtherWay, Outcome, Part, Verdict

NOT_TESTABLE = "not testable at this length"


def label(verdict: Verdict) -> str:
    """Return the outcome in a few words, with its assumption where another one turns it."""
    if verdict.failed:
        return NOT_TESTABLE
    turned = [p for p in verdict.parts if any(way.holds != _holds(p) for way in p.otherwise)]
    return f"{verdict.outcome} for {turned[0].seen.under}" if turned else str(verdict.outcome)


def sentence(verdict: Verdict) -> str:
    """Return the outcome with the gate that failed, or with what other ways of counting give."""
    if verdict.failed:
        return f"{NOT_TESTABLE}: {verdict.failed.name}, {verdict.failed.figure}"
    return "; ".join([label(verdict), *map(_way, verdict.deciding.otherwise)])


def alone(verdict: Verdict, part: Part) -> str:
    """Return the outcome of one part. A counted part keeps its outcome where a gate failed."""
    if verdict.failed and not exact(part):
        return NOT_TESTABLE
    return "; ".join([str(part.outcome), *map(_way, part.otherwise)])


def kind(shown: str) -> str:
    """Return the name of a shown outcome as pages and figures colour it."""
    return next((str(o) for o in Outcome if shown.startswith(o)), NOT_TESTABLE)


def question(part: Part) -> str:
    """Return what is asked of a part: its name and unit, and the bar to pass or band to lie in."""
    return f"{part.name}, {part.unit}: {part.seen.asked.text}"


def exact(part: Part) -> bool:
    return bool(part.seen.under)


def has_p_value(verdict: Verdict) -> bool:
    """Return whether the verdict hangs on noise, and was asked at all."""
    return not (verdict.failed or exact(verdict.deciding))


def _holds(part: Part) -> bool:
    return part.outcome is Outcome.HOLDS


def _way(way: OtherWay) -> str:
    return f"{way.under}: {way.effect:.3g}, {Outcome.HOLDS if way.holds else Outcome.FAILS}"
