"""Makes `docs/cost.md`: `python -m hybrid docs` writes it, a test holds it current. No torch."""

from pathlib import Path

from hybrid import law_grids, report
from hybrid.cost import Weights
from hybrid.devices import find_device
from hybrid.laws import Verdict
from hybrid.plan import Budget
from hybrid.plan_report import plan_sheet
from hybrid.presets import JAMBA_V0_1
from hybrid.sheet import Sheet

PAGE = Path("docs/cost.md")
HEAD = """# Cost by arithmetic

Made by `python -m hybrid docs` from `hybrid/`; do not edit. What is counted, and how, stands at the
head of each module: `cost.py` (parameters and bytes), `activations.py`, `flops.py`, `memory.py`,
`roofline.py`. The tests hold parameters and caches exactly against allocated tensors, FLOPs against
torch's counter, and training memory against live tensors.
"""


def page() -> str:
    """Return the text of PAGE."""
    sheets = [report.counts(), report.table_1(), report.figure_2(), *law_sheets(), *plan_sheets()]
    return "\n\n".join([HEAD.rstrip(), *(sheet.markdown() for sheet in sheets)]) + "\n"


def law_sheets() -> list[Sheet]:
    """Return the verdicts on the seed's formulas."""
    cheaper, allowed = law_grids.place_of_jamba()
    n, k, e = law_grids.JAMBA
    chosen = sorted(set(law_grids.optima().values()))
    budgets = ", ".join(map(str, law_grids.optima()))
    return [
        _verdicts(
            "The seed's cost of a mixture of experts",
            law_grids.moe_verdicts(),
            "C(n, K, e) = (n/e) K multiplies what is held (n/e experts for each layer) by what is "
            "used (K), and leaves out the width F of an expert. So it charges unused experts as "
            "compute. Compute goes as (K/e) F and does not depend on n, but for the router; "
            "memory goes as (n/e) F and does not depend on K.",
            f"min C subject to n K <= M, for M in {budgets}, chooses (n, K, e) = "
            f"{', '.join(map(str, chosen))} whatever M is: the bound is from above and C grows "
            f"with n and K, so the least setting always wins. Jamba's own (n={n}, K={k}, e={e}) is "
            f"dearer by C than {cheaper} of the {allowed} settings that its own n K allows. What "
            "holds instead: the most capacity that memory and active compute allow (last table).",
        ),
        _verdicts(
            "The seed's memory and throughput by number of Mamba layers",
            law_grids.mamba_verdicts(),
            "At a fixed depth L the cache goes with the attention layers that are left, L - m, not "
            "with 1/m. Weights grow with m, since a Mamba mixer is larger than an attention mixer: "
            "at short contexts more Mamba layers mean more memory and slower decoding, at long "
            "ones the reverse.",
        ),
        _verdicts(
            "Cost as a function of the numbers of layers",
            law_grids.layer_verdicts(),
            "Each kind of layer adds its own price, so the cost side of the seed's last statement "
            "is a sum. The quality side is for measurements: `hybrid.laws.judge` takes them.",
        ),
    ]


def _verdicts(title: str, verdicts: list[Verdict], *notes: str) -> Sheet:
    return Sheet(
        title=title,
        head=("formula", "against", "settings", "rank correlation", "worst error", "verdict"),
        rows=[
            (
                v.law,
                v.quantity,
                str(v.points),
                f"{v.rank_correlation:.3f}",
                f"{v.worst_error:.1%}",
                v.text,
            )
            for v in verdicts
        ],
        notes=(
            *notes,
            "Exact counts in the size of the released model; worst error after the best common "
            "factor.",
        ),
    )


def plan_sheets() -> list[Sheet]:
    """Return the plan under the released model's constraints, with and without attention asked."""
    free = Budget(
        memory=80 * 10**9,
        context=262_144,
        batch=1,
        weights=Weights.INT8,
        chunk=8192,
        min_active=12 * 10**9,
    )
    held = Budget(**{**vars(free), "min_attention": 4})
    device = find_device(law_grids.DEVICE)
    first, second = (
        plan_sheet("jamba-v0.1", JAMBA_V0_1, budget, device, top=12) for budget in (free, held)
    )
    return [
        _with(first, "at least 12B active"),
        _with(second, "at least 12B active and 4 attention layers"),
    ]


def _with(sheet: Sheet, also: str) -> Sheet:
    return Sheet(
        title=f"{sheet.title}, {also}", head=sheet.head, rows=sheet.rows, notes=sheet.notes
    )
