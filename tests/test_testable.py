"""Whether a question was asked: gates from made-up records, and what is shown where one fails."""

import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from ablations import catalog, effects, page, ratio, rows, shown, summary, table, testable
from ablations.agreement import Factor, compared, factor
from ablations.evidence import at_most, better, counted, no_difference
from ablations.finding import Finding
from ablations.testable import ALL_TEXT, OWN_TOKENS, OWN_WINDOWS
from ablations.verdict import Gate, OtherWay, Part, Verdict, correct
from tests import made_up

ROOT = Path(__file__).parents[1]
PUBLISHED = ROOT / "results/published"
WORDS_GONE = re.compile(r"\b(reproduced|refuted|undecided)\b", re.IGNORECASE)
SHOWN = ("README.md", "docs/findings.md", "docs/report.html", "notebooks/03_findings.ipynb")
# Nothing that these compare was learned: it is counted, or timed.
COST = {
    *("cache_memory", "memory_law", "throughput", "throughput_law", "max_context", "moe_budget"),
}

every_finding = pytest.mark.parametrize("finding", catalog.FINDINGS, ids=lambda f: f.name)


def text_rows(bits: dict[str, float], **changed: object) -> pd.DataFrame:
    """Return the ratio finding's own rows with known text and the test loss of each arm set."""
    found = made_up.trials(ratio.FINDING, "cpu")
    whole = found[found["sweep"] == ratio.WHOLE.name].copy()
    for column in rows.measured(whole, rows.TEST):
        whole[column] = whole["arm"].map(bits)
    known = {"text_sha256": testable.TEXT_SHA256, "tokenizer_sha256": testable.TOKENIZER_SHA256}
    return whole.assign(**{**known, **changed})


def bits(best: float, others: float) -> dict[str, float]:
    return {ratio.SEVEN: best, **{arm: others for arm in ratio.ARMS if arm != ratio.SEVEN}}


def only(gates: tuple[Gate, ...]) -> Gate:
    (gate,) = gates
    return gate


# ---- G1 ------------------------------------------------------------------------------------------


def test_the_design_has_the_tokens_that_the_constant_was_counted_on():
    assert set(text_rows(bits(2, 2))["train_tokens"]) == {OWN_TOKENS}


def test_text_models_that_beat_both_tables_were_asked():
    gate = only(testable.learned_text(text_rows(bits(ALL_TEXT - 0.01, OWN_WINDOWS - 0.01))))
    assert gate.passed
    assert gate.name == "G1"


@pytest.mark.parametrize(
    ("best", "others", "figure"),
    [
        (2.61, 2.9, "best arm 1:7 at 2.61 bits/byte, bigram 2.415"),
        (2.3, 2.4, "best arm 1:7 at 2.30 bits/byte, bigram 2.157 counted on all"),
        (2.1, 2.5, "worst arm 0:1 at 2.50 bits/byte, bigram 2.415"),
    ],
)
def test_one_table_that_is_better_fails_and_is_named(best, others, figure):
    gate = only(testable.learned_text(text_rows(bits(best, others))))
    assert not gate.passed
    assert gate.figure.startswith(figure)


def test_a_shorter_run_is_held_against_all_text_where_its_own_windows_are_not_counted():
    shorter = text_rows(bits(2.1, 2.3), train_tokens=OWN_TOKENS // 2)
    assert not only(testable.learned_text(shorter)).passed
    shorter = text_rows(bits(2.1, 2.15), train_tokens=OWN_TOKENS // 2)
    assert only(testable.learned_text(shorter)).passed


@pytest.mark.parametrize(
    "changed",
    [
        {"text_sha256": "another"},
        {"tokenizer_sha256": "another"},
        {"text_sha256": None},
        {"spec": text_rows(bits(1, 1))["spec"].str.replace('"vocab": 2048', '"vocab": 4096')},
    ],
)
def test_what_has_no_known_table_never_passes(changed):
    gate = only(testable.learned_text(text_rows(bits(1.0, 1.0), **changed)))
    assert not gate.passed
    assert "no bigram table is known" in gate.figure


def test_a_run_that_diverged_does_not_pass():
    found = text_rows(bits(1.0, 1.0))
    first = found.index[0]
    found.loc[first, rows.measured(found, rows.TEST)] = float("nan")
    found.loc[first, "outcome"] = "diverged"
    assert "diverged" in only(testable.learned_text(found)).figure


# ---- G3 and G5 -----------------------------------------------------------------------------------


def shares(a: float, b: float) -> pd.DataFrame:
    return pd.DataFrame({"a": [a] * 3, "b": [b] * 3})


@pytest.mark.parametrize(
    ("a", "b", "passed"),
    [(0.95, 0.5, True), (0.89, 0.5, False), (1.0, 0.81, False), (float("nan"), 0.5, False)],
)
def test_a_task_must_be_learned_and_leave_room(a, b, passed):
    gate = testable.learned_task(shares(a, b), ("a", "b"), "tables", above="b", matters=10)
    assert gate.passed is passed
    assert gate.name == "G3"
    assert gate.figure.startswith("tables: ")


def test_a_remedy_is_asked_for_where_there_is_an_outlier():
    assert testable.outliers(shares(5000, 1), "a").passed
    assert not testable.outliers(shares(140, 1), "a").passed


# ---- what is shown -------------------------------------------------------------------------------


@every_finding
def test_a_finding_that_compares_what_was_learned_has_a_gate(finding: Finding):
    gates = finding.gates(
        pd.concat(
            rows.of_design(c.with_rates("cpu", _rates(c, finding)), "cpu", _trials(finding))
            for c in finding.comparisons
        )
    )
    assert bool(gates) is (finding.name not in COST)


def _trials(finding: Finding) -> pd.DataFrame:
    return made_up.trials(finding, "cpu", True)


def _rates(comparison, finding: Finding) -> dict[str, float]:
    return {arm: c.rate for arm, c in comparison.chosen("cpu", _trials(finding)).items()}


@every_finding
def test_the_committed_records_decide_only_what_was_counted_or_timed(finding: Finding):
    verdict = catalog.verdict(finding, "cpu", PUBLISHED)
    assert (shown.label(verdict) == shown.NOT_TESTABLE) is (finding.name not in COST)
    if verdict.failed:
        assert f"{verdict.failed.name}, {verdict.failed.figure}" in shown.sentence(verdict)
        assert not shown.has_p_value(verdict)


@every_finding
def test_what_is_counted_names_its_assumption(finding: Finding):
    for part in catalog.verdict(finding, "cpu", PUBLISHED).parts:
        assert (part.seen.interval.level == 1) is bool(part.seen.under)


def judged(*parts: Part, passed: bool) -> Verdict:
    gate = Gate(name="G1", passed=passed, figure="a at 3 bits/byte, bigram 2")
    verdict = Verdict(finding="moe", scale="cpu", parts=parts, n_seeds=5, runs=9, gates=(gate,))
    (corrected,) = correct({"moe": verdict}, family=20).values()
    return corrected


def test_a_failed_gate_takes_the_place_of_the_outcome_and_of_every_p_value():
    seen = better([2.0, 4.4, 0.8, 2.9, 1.2], matters=1)  # holds alone, and not among twenty
    part = Part(name="a gains", unit="%", seen=seen)
    text = page.one(catalog.find("moe"), judged(part, passed=False))
    assert "**cpu: not testable at this length: G1, a at 3 bits/byte, bigram 2**" in text
    assert "p =" not in text
    assert "| not testable at this length |" in text
    row = table.parts({"moe": judged(part, passed=False)}).iloc[0]
    assert row["outcome"] == shown.NOT_TESTABLE
    assert "p =" in page.one(catalog.find("moe"), judged(part, passed=True))


def test_an_assumption_that_turns_the_outcome_stands_in_it():
    other = OtherWay(under="read at once", effect=1.25, holds=False)
    seen = counted(6.83, bar=2, under="cache alone")
    verdict = judged(Part(name="a", unit="times", seen=seen, otherwise=(other,)), passed=True)
    assert shown.label(verdict) == "holds for cache alone"
    assert shown.sentence(verdict).endswith("read at once: 1.25, does not hold")


def test_a_page_says_what_other_ways_to_read_a_prompt_give():
    text = (ROOT / "docs/findings.md").read_text()
    section = text[text.index("\n## max_context") : text.index("\n## moe_budget")]
    for figure in ("6.83", "6.76", "1.25", "1,734,145", "1,619,397", "115,560"):
        assert figure in section


@pytest.mark.parametrize("name", SHOWN)
def test_pages_use_the_words_for_outcomes_that_there_are(name):
    assert not WORDS_GONE.findall((ROOT / name).read_text())


def test_the_condition_stands_above_every_table_of_findings():
    said = summary.condition(PUBLISHED, page.JUDGED)
    assert "none of the 210 judged runs" in said
    for name, head in (
        ("README.md", "| finding | asked"),
        ("docs/findings.md", "| finding | cpu"),
        ("docs/report.html", '<table id="findings">'),
    ):
        text = " ".join((ROOT / name).read_text().split())
        assert said in text
        assert text.index(said) < text.index(head)


def test_without_records_nothing_is_said_of_them(tmp_path):
    assert summary.condition(tmp_path, page.JUDGED) == "No record has been judged."


def test_each_rule_says_its_bar_or_its_band():
    sample = [1.0, 2.0, 3.0]
    assert better(sample, matters=1).asked.text == "at least 1"
    assert no_difference(sample, within=2).asked.text == "within -2 to 2"
    assert at_most(sample, bound=5).asked.text == "at most 5"


def test_the_figure_has_a_band_for_likeness_and_a_bar_for_superiority():
    alike, more = no_difference([1.0, 1.1], within=2), better([1.0, 1.1], matters=3)
    parts = tuple(Part(name=n, unit="%", seen=s) for n, s in (("alike", alike), ("more", more)))
    (axes,) = effects.forest(table.parts({"moe": judged(*parts, passed=True)})).axes
    bands = [b.get_paths()[0].get_extents() for b in axes.collections if _is_band(b)]
    assert [(b.x0, b.x1) for b in bands] == [(-2, 2)]
    assert any(list(line.get_xdata()) == [3, 3] for line in axes.lines)


def _is_band(collection) -> bool:
    return bool(collection.get_paths()) and len(collection.get_paths()[0]) > 3


# ---- two records of one thing --------------------------------------------------------------------


def timed(*ratios: float) -> pd.DataFrame:
    both = [("a", ratio) for ratio in ratios], [("b", 1.0) for _ in ratios]
    return pd.DataFrame(
        {"arm": arm, "seed": seed, "outcome": "complete", "decode_ms.64": value}
        for of_arm in both
        for seed, (arm, value) in enumerate(of_arm)
    )


def test_a_factor_has_students_interval_of_its_logarithm():
    seen = factor(timed(90.0, 100.0, 1e4 / 90), "decode_ms.64", "a", "b")
    assert seen.times == pytest.approx(100)
    assert seen.low * seen.high == pytest.approx(100**2)
    with pytest.raises(ValueError, match="needs at least two seeds, got 1"):
        factor(timed(2.0), "decode_ms.64", "a", "b")


def test_records_agree_where_intervals_overlap_and_the_quieter_is_named():
    records = {"one": timed(5.8, 6.0, 6.2), "two": timed(4.0, 6.0, 9.0)}
    row = compared(records, ("decode_ms",), "a", "b").iloc[0]
    assert row["agree"]
    assert row["quieter"] == "one"
    assert not compared({**records, "two": timed(20, 21, 22)}, ("decode_ms",), "a", "b")["agree"][0]
    assert Factor(1, 1, 2).agrees(Factor(2, 2, 3))


def test_readme_quotes_the_quieter_of_two_records_of_decoding():
    from ablations import readme
    from sweeps import results

    records = {
        name: results.load(name, folder=PUBLISHED, scale="cpu")
        for name in (readme.LOUD, readme.QUIET)
    }
    found = compared(records, ("decode_ms", "prefill_tokens_per_s"), ratio.ATTENTION, ratio.MAMBA)
    at = found.set_index("measured").loc[[readme.DECODE, readme.PREFILL]]
    assert set(at["quieter"]) == {readme.QUIET}
    said = " ".join((ROOT / "README.md").read_text().split())
    assert ("do not agree with it" in said) is not at["agree"].all()
    assert np.isclose(float(re.search(r"([\d.]+) against ([\d.]+) ms", said)[2]), 0.74)
