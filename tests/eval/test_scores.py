"""Benchmarks through lm-eval: our adapter agrees with its own model, and every task runs, offline.

Nothing here may reach a network: the fixture `offline` breaks sockets.

One file: one small model serves all of it; what needs none is in test_records.py.
"""

import copy
import json
import sys
from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from sweeps import cli, exchange, trained
from sweeps.eval import data, prompts, record
from sweeps.eval.scoring import Request, Scorer
from sweeps.eval.suite import JAMBA_PAPER, chosen
from sweeps.trained import Trained
from sweeps.trial.recipe import Precision
from tests import benchmarks
from tests.benchmarks import changed, put

lm_eval = pytest.importorskip("lm_eval", reason="the extra `eval` is not installed")

from lm_eval.api.instance import Instance  # noqa: E402

from sweeps.eval import adapter as adapter_module  # noqa: E402
from sweeps.eval import harness  # noqa: E402
from sweeps.eval.adapter import WorkbenchLM  # noqa: E402

CONTEXTS = ("Bafu kelo nara.", "Bafu kelo nara.", "", "A longer text. " * 20, "é日", "ta", "ta")
ENDINGS = (" Mito", " su", "Bafu", " kelo su", " na", " b", " c")
pytestmark = pytest.mark.usefixtures("offline")


@pytest.fixture
def model(source, kept) -> Trained:
    (name,) = trained.with_weights(kept)
    return trained.find(name, folder=kept, device="cpu")


def scorer_of(model: Trained, **changes) -> Scorer:
    return Scorer(model=model.model, **{"precision": Precision.FP32, "batch": 3, **changes})


def adapter(model: Trained, **changes) -> WorkbenchLM:
    return WorkbenchLM(model, scorer_of(model, **changes))


def asked(kind: str, arguments) -> list[Instance]:
    return [Instance(kind, {}, x, i) for i, x in enumerate(arguments)]


@pytest.fixture
def theirs(model, kept, tmp_path):
    """lm-eval's own model, over transformers' Jamba with the same weights and tokenizer."""
    transformers = pytest.importorskip("transformers", reason="the extra `hf` is not installed")
    pytest.importorskip("accelerate", reason="lm-eval's own model needs accelerate")
    from lm_eval.models.huggingface import HFLM

    exchange.export(model.name, tmp_path / "out", folder=kept)
    jamba = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "out")

    def make(longest: int) -> HFLM:
        return HFLM(
            pretrained=jamba, tokenizer=tokenizer, batch_size=2, device="cpu", max_length=longest
        )

    return make


@pytest.mark.parametrize("longest", [1000, 24])
def test_log_likelihoods_are_those_of_lm_evals_own_model(model, theirs, longest):
    requests = asked("loglikelihood", zip(CONTEXTS, ENDINGS, strict=True))
    ours, right = (
        lm.loglikelihood(requests) for lm in (adapter(model, longest=longest), theirs(longest))
    )
    torch.testing.assert_close([x for x, _ in ours], [x for x, _ in right], atol=1e-4, rtol=1e-4)
    assert [x for _, x in ours] == [x for _, x in right]
    rolled = asked("loglikelihood_rolling", [(text,) for text in CONTEXTS if text])
    torch.testing.assert_close(
        adapter(model, longest=longest).loglikelihood_rolling(rolled),
        theirs(longest).loglikelihood_rolling(rolled),
        atol=1e-3,
        rtol=1e-4,
    )


def test_generated_text_is_that_of_lm_evals_own_model(model, theirs):
    settings_ = {"until": ["."], "max_gen_toks": 12, "do_sample": False}
    requests = asked("generate_until", [(text, settings_) for text in ("Bafu kelo", "Ta", "na na")])
    assert adapter(model).generate_until(requests) == theirs(1000).generate_until(requests)


def test_generated_text_ends_at_the_first_stop_or_the_most_tokens(model):
    lm = adapter(model)

    def said(**settings_) -> str:
        return lm.generate_until(asked("generate_until", [("Bafu kelo", settings_)]))[0]

    whole = said(max_gen_toks=30)
    stop = whole[4:6]
    assert said(max_gen_toks=30, until=[stop]) == whole[: whole.index(stop)]
    assert said(max_gen_toks=30, until=["never said", stop]) == whole[: whole.index(stop)]
    assert said(max_gen_toks=30, until=whole[0]) == ""
    short = said(max_gen_toks=5)
    assert whole.startswith(short)
    assert len(model.words.encode_more(short)) <= 5
    with pytest.raises(ValueError, match=r"generate_until: unknown \['beams'\]"):
        said(beams=4)


def test_of_two_stops_in_one_piece_the_first_counts(model, monkeypatch):
    monkeypatch.setattr(adapter_module, "continue_ids", lambda *_, **__: iter(["ab", "c.d,e"]))
    for until in ([".", ","], [",", "."]):
        said = adapter(model).generate_until(asked("generate_until", [("a", {"until": until})]))
        assert said == ["abc"]


ids = st.lists(st.integers(1, 299), min_size=1, max_size=12).map(tuple)


@settings(deadline=None, max_examples=15, database=None)
@given(st.data())
def test_scores_do_not_depend_on_what_is_scored_beside(scoring_model, data):
    shared = data.draw(ids)
    contexts = st.one_of(st.just(shared), ids)
    requests = data.draw(st.lists(st.builds(Request, contexts, ids), min_size=1, max_size=7))
    together = scorer_of(scoring_model).score(requests)
    for request, (log_probability, greedy) in zip(requests, together, strict=True):
        sequence = torch.tensor([[*request.context, *request.continuation]])
        with torch.no_grad():
            logits_TV = scoring_model.model(sequence[:, :-1]).logits_BTV[0]
        wanted_T = torch.tensor(request.continuation)
        each_TV = logits_TV[-len(wanted_T) :].log_softmax(dim=-1)
        want = each_TV.gather(1, wanted_T[:, None]).sum().item()
        assert log_probability == pytest.approx(want, abs=1e-3)
        assert greedy == bool((each_TV.argmax(dim=-1) == wanted_T).all())


@pytest.fixture(scope="module")
def scoring_model(kept, cache_folder) -> Trained:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HYBRID_CACHE", str(cache_folder))
        (name,) = trained.with_weights(kept)
        return trained.find(name, folder=kept, device="cpu", ops="reference")


def test_what_is_too_long_loses_its_beginning(model):
    long, short = tuple(range(1, 40)), tuple(range(33, 40))
    cut, whole = scorer_of(model, longest=8), scorer_of(model)
    assert cut.score([Request(long, (5, 6))]) == whole.score([Request(short, (5, 6))])
    with pytest.raises(ValueError, match="9 tokens does not fit longest=8"):
        cut.score([Request(long, (1,) * 9)])


def run(*options: str, name: str, kept: Path, tmp_path: Path):
    results = tmp_path / "results"
    if not results.exists():
        results.symlink_to(kept)
    command = ["eval", name, "--results", str(results), "--device", "cpu", *options]
    return CliRunner().invoke(cli.app, command)


def test_every_task_of_the_suite_runs_and_is_recorded(model, kept, records, tmp_path):
    done = run(
        "--data", str(records), "--limit", "4", name=model.name, kept=kept, tmp_path=tmp_path
    )
    assert done.exit_code == 0, done.output + str(done.exception)
    scores = record.load(kept)
    assert set(scores["task"]) == {benchmark.task for benchmark in JAMBA_PAPER}
    assert {(x.task, x.shots) for x in JAMBA_PAPER} == set(
        zip(scores.task, scores.shots, strict=True)
    )
    assert scores["value"].between(0, 1).all()
    assert (scores["n"] == 4).all()
    assert set(scores["run_id"]) == {model.name}
    assert scores["limited"].all()
    assert dict(scores["versions"].iloc[0])["lm-eval"] == lm_eval.__version__
    assert set(scores.loc[scores.task == "longfqa", "shots_from"]) == {"test"}
    for task in ("hellaswag", "quac", "imdb"):
        assert task in done.stdout


def test_two_evaluations_of_one_second_have_names_of_their_own(model, monkeypatch):
    monkeypatch.setattr(record.provenance, "now_utc", lambda: "2026-01-01T12:00:00+00:00")
    first, second = (record.origin(model, scorer_of(model), "a test").eval_id for _ in range(2))
    assert first != second
    assert first[:16] == second[:16] == "20260101T120000-"


def test_two_checkpoints_of_one_name_are_two(scoring_model, kept):
    first = record.origin(scoring_model, scorer_of(scoring_model), "a test")
    other = replace(scoring_model, model=copy.deepcopy(scoring_model.model))
    assert record.origin(other, scorer_of(other), "a test").weights_sha256 == first.weights_sha256
    with torch.no_grad():
        next(other.model.parameters())[0, 0] += 1e-3
    second = record.origin(other, scorer_of(other), "a test")
    assert (first.model, first.run_id) == (second.model, second.run_id)
    assert first.weights_sha256 != second.weights_sha256


def test_two_versions_of_a_folder_of_records_are_two(scoring_model, tmp_path):
    lm = adapter(scoring_model)
    start = record.origin(scoring_model, lm.scorer, "a test")

    def scored() -> record.Score:
        (scores,) = harness.run(lm, chosen(["piqa"]), start, folder=tmp_path, limit=1)
        return scores[0]

    rows = changed("piqa")
    put(tmp_path, "piqa", "validation", rows)
    first, again = scored(), scored()
    put(tmp_path, "piqa", "validation", [*rows[:-1], {**rows[-1], "goal": "another goal"}])
    second = scored()
    assert (first.data, first.data_sha256) == (again.data, again.data_sha256)
    assert first.data == second.data
    assert first.data_sha256 != second.data_sha256


def test_a_file_is_of_the_class_whose_columns_it_has(scoring_model, tmp_path):
    lm = adapter(scoring_model)
    start = record.origin(scoring_model, lm.scorer, "a test")
    put(tmp_path, "piqa", "validation", changed("piqa"))
    (scores,) = harness.run(lm, chosen(["piqa"]), start, folder=tmp_path, limit=1)
    record.write(scores, "a-needle", tmp_path)  # a name that says something else
    assert set(record.load(tmp_path)["task"]) == {"piqa"}
    with pytest.raises(LookupError, match="no NeedleScore"):
        record.load(tmp_path, record.NeedleScore)


def test_files_of_older_columns_are_read_or_named(scoring_model, tmp_path):
    lm = adapter(scoring_model)
    start = record.origin(scoring_model, lm.scorer, "a test")
    put(tmp_path, "piqa", "validation", changed("piqa"))
    (scores,) = harness.run(lm, chosen(["piqa"]), start, folder=tmp_path, limit=2)
    path = record.write(scores, "piqa", tmp_path)
    whole = record.load(tmp_path)
    table = record.as_table(scores)
    pq.write_table(table.drop_columns(["longest"]), path.with_name("older-piqa.parquet"))
    assert len(record.load(tmp_path)) == 2 * len(whole)
    pq.write_table(table.drop_columns(["wall_s"]), path.with_name("oldest-piqa.parquet"))
    with pytest.warns(UserWarning, match=r"oldest-piqa.parquet is left out: .* no column wall_s"):
        assert len(record.load(tmp_path)) == 2 * len(whole)
    with pytest.raises(LookupError, match="no NeedleScore"):
        record.load(tmp_path, record.NeedleScore)


def test_acc_and_acc_norm_are_what_log_likelihoods_say(model, records):
    (hellaswag,) = data.read(records, chosen(["hellaswag"]))
    lm = adapter(model)
    task = harness.load(hellaswag.benchmark, hellaswag)
    task.build_all_requests(limit=None, rank=0, world_size=1)
    right, right_norm = [], []
    for i, doc in enumerate(task.eval_docs):
        options = [x for x in task.instances if x.doc_id == i]
        assert options[0].args[0].count(": ") == 11  # ten examples and the question
        assert [x.args[1] for x in options] == [f" {ending}" for ending in doc["endings"]]
        nats = [x for x, _ in lm.loglikelihood(options)]
        norm = [x / len(y) for x, y in zip(nats, doc["endings"], strict=True)]
        right.append(nats.index(max(nats)) == int(doc["label"]))
        right_norm.append(norm.index(max(norm)) == int(doc["label"]))
    start = record.origin(model, lm.scorer, "a test")
    (scores,) = harness.run(lm, (hellaswag.benchmark,), start, folder=records)
    values = {x.metric: x.value for x in scores}
    assert values == pytest.approx(
        {"acc": sum(right) / len(right), "acc_norm": sum(right_norm) / len(right)}
    )


def test_what_would_stop_a_later_task_stops_before_the_first(scoring_model, tmp_path):
    lm = adapter(scoring_model, longest=256)
    start = record.origin(scoring_model, lm.scorer, "a test")
    put(tmp_path, "piqa", "validation", changed("piqa"))
    put(tmp_path, "nq_open", "validation", changed("nq_open"))
    few = chosen(["piqa", "nq_open"])
    with pytest.raises(ValueError, match=r"--longest 256 is too little for nq_open.* least 257"):
        next(harness.run(lm, few, start, folder=tmp_path))
    put(tmp_path, "nq_open", "validation", changed("nq_open", answer=[]))
    with pytest.raises(ValueError, match="nq_open: a record"):
        next(harness.run(adapter(scoring_model), few, start, folder=tmp_path))


def test_f1_is_that_of_squad():
    assert prompts.f1("The red car!", "a red car") == 1
    assert prompts.f1("a red car", "blue car") == pytest.approx(0.5)
    assert prompts.f1("", "car") == 0
    doc = {"answers": ["one two", "three"]}
    assert prompts.f1_of_answers(doc, [" Three."]) == {"f1": 1}


def test_an_answer_that_is_no_label_is_neither_right_nor_valid():
    doc = {"sentiment": "Positive"}
    for said, right, valid in ((" Positive", 1, 1), (" negative.", 0, 1), (" Very Good", 0, 0)):
        assert prompts.sentiment_of(doc, [said]) == {"acc": right, "valid_label": valid}


def test_a_question_of_quac_comes_after_the_answers_before_it(records):
    (quac,) = data.read(records, chosen(["quac"]))
    task = harness.load(quac.benchmark, quac)
    row = quac.splits["validation"][0]
    second = task.doc_to_text(task.eval_docs[1])
    first_answer = row["answers"]["texts"][0][0]
    asked_first, asked_second = row["questions"][:2]
    assert second == (
        f"{row['context']}\n\nQ: {asked_first}\nA: {first_answer}\nQ: {asked_second}\nA:"
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("--data empty", "has no records of hellaswag, winogrande"),
        ("--data empty --tasks boolq", "put them into empty/boolq/validation.jsonl and so on"),
        ("--data few", "`--tasks winogrande` runs what is there"),
        ("--data few --tasks winogrande", "winogrande: 1 examples to choose from are too few"),
        ("--data odd --tasks piqa", "record 0 has no 'goal'; it has ['question']"),
        ("--data broken --tasks piqa", "piqa/validation.jsonl cannot be read"),
        ("--data split --tasks piqa", "its split 'dev' must be one of"),
        ("--tasks mmlu", "no task 'mmlu' in jamba-paper; there are: hellaswag, winogrande"),
        ("--ops none", "none"),
        ("--tasks piqa --depths 3 --text a", "--suite jamba-paper has no --depths, --text; leave"),
        ("--suite needle --tasks piqa --limit 1", "--suite needle has no --tasks, --limit; leave"),
    ],
)
def test_what_is_wrong_is_one_sentence(options, message, model, kept, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for path, text in (
        ("empty/boolq/notes.txt", "none yet"),
        ("few/winogrande/validation.jsonl", json.dumps(benchmarks.winogrande(0))),
        ("odd/piqa/validation.jsonl", '{"question": "a"}'),
        ("broken/piqa/validation.jsonl", "not JSON"),
        ("split/piqa/dev.jsonl", "{}"),
    ):
        Path(path).parent.mkdir(parents=True)
        Path(path).write_text(text)
    done = run(*options.split(), name=model.name, kept=kept, tmp_path=tmp_path)
    assert done.exit_code == 2, done.output
    assert message in " ".join(done.stderr.split())
    assert "Traceback" not in done.output


def test_without_the_extra_it_says_what_to_install(model, kept, records, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "lm_eval", None)
    done = run("--data", str(records), name=model.name, kept=kept, tmp_path=tmp_path)
    assert done.exit_code == 2
    assert "pip install 'hybrid-workbench[eval]'" in " ".join(done.stderr.split())
