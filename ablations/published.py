"""The Jamba paper's own numbers (arXiv 2403.19887), as printed, with table and row.

The paper has one run for each row: no seeds, no intervals, no learning rates. Its log-probabilities
are per byte; the base is not stated, so effects are taken as fractions, which do not need it. What
the paper counts of memory (Table 1, Figure 2) stands in `hybrid/published.py`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean


@dataclass(frozen=True, kw_only=True)
class Source:
    """A place in the paper, and what was done there."""

    name: str  # such as "Table 4"
    setting: str
    rows: Mapping[str, Mapping[str, float]]  # row -> column -> number

    def __hash__(self) -> int:
        return hash(self.name)

    def number(self, row: str, column: str) -> float:
        """Return one number; LookupError names the rows and columns there are."""
        if row not in self.rows or column not in self.rows[row]:
            raise LookupError(
                f"{self.name} has no {column!r} of {row!r}; rows {', '.join(self.rows)}, "
                f"columns {', '.join(next(iter(self.rows.values()), {}))}"
            )
        return self.rows[row][column]

    def percent_less(self, row: str, other: str, columns: Sequence[str]) -> float:
        """Return by how many percent `row` is nearer 0 than `other`, mean over `columns`."""
        mine, theirs = (fmean(self.number(r, c) for c in columns) for r in (row, other))
        return 100 * (1 - mine / theirs)


def _source(name: str, setting: str, columns: str, rows: Mapping[str, Sequence[float]]) -> Source:
    names = columns.split()
    return Source(
        name=name,
        setting=setting,
        rows={row: dict(zip(names, numbers, strict=True)) for row, numbers in rows.items()},
    )


LOG_PROBS = ("C4", "Books", "Code")  # per byte; nearer 0 is better

TABLE_1 = _source(
    "Table 1",
    "keys and values in 16 bits at 256K tokens, GB",
    "KV",
    {"Llama-2": (128,), "Mistral": (32,), "Mixtral": (32,), "Jamba": (4,)},
)
TABLE_4 = _source(
    "Table 4",
    "1.3B parameters, 250B tokens, no experts",
    "OLLM HellaSwag WinoGrande NQ C4 Books Code",
    {
        "Attention": (36.4, 62.4, 59.6, 14.5, -0.543, -0.659, -0.331),
        "Mamba": (36.1, 62.6, 59.4, 14.5, -0.543, -0.661, -0.334),
        "Jamba 1:3": (37.2, 65.1, 61.7, 16.5, -0.533, -0.649, -0.321),
        "Jamba 1:7": (37.2, 65.1, 61.7, 16.0, -0.533, -0.650, -0.321),
    },
)
TABLE_5 = _source(
    "Table 5",
    "7B parameters, 50B tokens, no experts",
    "OLLM HellaSwag WinoGrande NQ",
    {
        "Attention": (36.1, 60.4, 59.7, 13.7),
        "Mamba": (35.3, 60.2, 55.8, 14.0),
        "Jamba 1:7": (36.6, 62.5, 58.8, 15.4),
    },
)
TABLE_6 = _source(
    "Table 6",
    "1.3B parameters, 250B tokens; few-shot, IMDB accuracy, QuAC and NarrativeQA F1",
    "IMDB QuAC NarrativeQA",
    {
        "Attention": (84.1, 27.9, 45.8),
        "Mamba": (48.8, 20.2, 27.7),
        "Jamba": (90.9, 26.6, 43.7),
    },
)
TABLE_7 = _source(
    "Table 7",
    "7B parameters, 50B tokens; with experts n=16, K=2, e=2",
    "OLLM HellaSwag WinoGrande NQ C4",
    {
        "without MoE": (36.6, 62.5, 58.8, 15.4, -0.547),
        "with MoE": (38.1, 66.0, 61.2, 18.9, -0.534),
    },
)
TABLE_8 = _source(
    "Table 8",
    "1.3B parameters, 250B tokens, with experts",
    "OLLM HellaSwag NarrativeQA C4 Books Code",
    {
        "without": (39.6, 71.5, 50.5, -0.516, -0.623, -0.299),
        "with RoPE": (40.1, 71.8, 46.2, -0.516, -0.623, -0.299),
    },
)
FIGURE_2 = _source(
    "Figure 2",
    "longest context on one 80 GB A100, int8 weights",
    "context",
    {"Jamba over Mixtral": (2,), "Jamba over Llama-2-70B": (7,)},
)
FIGURE_3B = _source(
    "Figure 3b",
    "tokens/s end to end, batch 1, 512 generated tokens, four A100, no quantisation",
    "128K",
    {"Jamba over Mixtral": (3,)},
)
FIGURE_4 = Source(
    name="Figure 4", setting="the released model, needles in up to 256K tokens", rows={}
)
FIGURE_5 = Source(
    name="Figure 5",
    setting="the released model and Mixtral, 50 to 150 labels, a curve for each data set",
    rows={},
)
FIGURE_8 = _source(
    "Figure 8",
    "induction heads of the hybrid, in attention layers 4, 12 and 20; how found is not stated",
    "heads layers",
    {"Jamba": (12, 3)},
)
FIGURE_9 = Source(
    name="Figure 9", setting="loss spikes of Mamba without inner norms, above 1.3B", rows={}
)
RELEASED = _source(
    "Released configuration",
    "Jamba v0.1, coefficient of the router's auxiliary loss",
    "balance",
    {"Jamba v0.1": (0.001,)},
)
FIGURE_1_OF_1_5 = Source(
    name="Jamba-1.5, Figure 1",
    setting="arXiv 2408.12570; 350M and 1.3B parameters, 100B tokens, curves without numbers",
    rows={},
)
ACTIVATION_LOSS = _source(
    "Jamba-1.5, activation loss",
    "arXiv 2408.12570; largest activation, before and with the loss, where of 2 to 3 thousand the "
    "less favourable end is taken",
    "largest",
    {"without": (4e6,), "alpha 1e-5": (3e3,)},
)
EXPERTS_INT8 = _source(
    "Jamba-1.5, ExpertsInt8",
    "arXiv 2408.12570; weights in MoE layers, at least, %",
    "share",
    {"Jamba-1.5": (85,)},
)
DT_INIT = Source(
    name="Mamba, section 3.6", setting="arXiv 2312.00752, its initialisation of dt", rows={}
)
# Later than the paper, and by others; the numbers that a claim needs stand in its file.
RATIO_AND_RECALL = Source(
    name="arXiv 2507.06457",
    setting="recall by ratio, 24:1 to 3:1 of linear to full attention, language-model scores flat",
    rows={},
)
SHORT_CONV = Source(
    name="Zoology, arXiv 2312.04927",
    setting="recall of small models in tables of a prompt; no number of this ablation's",
    rows={},
)
PLACEMENT = Source(
    name="arXiv 2608.12149",
    setting="340M parameters, one attention layer of 24 at depth 4, 12 or 20",
    rows={},
)
# Not the paper's: the formulas of this project's seed text, which hybrid/laws.py holds.
SEED_LAWS = Source(name="Seed text", setting="Memory ~ 1/m, Throughput ~ m", rows={})

SOURCES = (
    TABLE_1,
    TABLE_4,
    TABLE_5,
    TABLE_6,
    TABLE_7,
    TABLE_8,
    FIGURE_2,
    FIGURE_3B,
    FIGURE_4,
    FIGURE_5,
    FIGURE_8,
    FIGURE_9,
    RELEASED,
    FIGURE_1_OF_1_5,
    ACTIVATION_LOSS,
    EXPERTS_INT8,
    DT_INIT,
    RATIO_AND_RECALL,
    SHORT_CONV,
    PLACEMENT,
    SEED_LAWS,
)
