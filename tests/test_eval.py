"""Benchmarks through lm-eval: our adapter agrees with its own model, and every task runs, offline.

Nothing here may reach a network: the fixture `offline` breaks sockets.

One file: the benchmarks of `tests/benchmarks.py` and their one small model serve all of it.
"""

import json
import re
import socket
import sys
from pathlib import Path

import pandas as pd
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

lm_eval = pytest.importorskip("lm_eval", reason="the extra `eval` is not installed")

import datasets  # noqa: E402
import httpx2  # noqa: E402 - of the hub's client
from lm_eval.api.instance import Instance  # noqa: E402
from lm_eval.tasks import TaskManager  # noqa: E402

from sweeps.eval import adapter as adapter_module  # noqa: E402
from sweeps.eval import harness  # noqa: E402
from sweeps.eval.adapter import WorkbenchLM  # noqa: E402

CONTEXTS = ("Bafu kelo nara.", "Bafu kelo nara.", "", "A longer text. " * 20, "é日", "ta", "ta")
ENDINGS = (" Mito", " su", "Bafu", " kelo su", " na", " b", " c")
pytestmark = pytest.mark.usefixtures("offline")


@pytest.fixture
def offline(monkeypatch) -> None:
    def refuse(*_args, **_kwargs):
        raise AssertionError("something tried to reach a network")

    for name in ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE"):
        monkeypatch.setenv(name, "1")
    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


@pytest.fixture(scope="session")
def records(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("records")
    benchmarks.write(folder)
    return folder


def put(folder: Path, task: str, split: str, rows) -> tuple[data.Local, ...]:
    """Write records of a task as lines and return what is read of the folder."""
    path = folder / task / f"{split}.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
    return tuple(data.read(folder, chosen([task])))


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


@pytest.mark.parametrize("task", ["longfqa", "boolq"])
def test_examples_never_hold_the_question_itself(records, tmp_path, task):
    (benchmark,) = chosen([task])
    (tmp_path / task).mkdir()
    kept = [*records.glob(f"{task}/*.jsonl")]
    rows = "".join(path.read_text() for path in kept)
    (tmp_path / task / f"{benchmark.evaluated}.jsonl").write_text(rows)
    (local,) = data.read(tmp_path, (benchmark,))
    assert local.shots_from == local.evaluated == benchmark.evaluated
    made = harness.load(benchmark, local)
    made.build_all_requests(limit=None, rank=0, world_size=1)
    for instance in made.instances:
        question = instance.doc["question"]
        body = instance.doc.get("text", instance.doc.get("passage"))
        same = f"{body}\n\nQuestion: {question}" if task == "longfqa" else f"{body}\nQuestion"
        assert instance.args[0].count(same) == 1
        assert instance.args[0].count("Answer:") == benchmark.shots + 1


def test_on_the_hub_too_the_one_split_of_l_eval_gives_no_question_its_own_answer():
    (longfqa,) = chosen(["longfqa"])
    rows = [
        {
            "input": f"text {i}",
            "instructions": [f"{i} a?", f"{i} b?"],
            "outputs": [f"{i}a", f"{i}b"],
        }
        for i in range(2)
    ]
    change = {
        "task": "longfqa",
        "num_fewshot": longfqa.shots,
        "custom_dataset": lambda **_: datasets.DatasetDict(train=datasets.Dataset.from_list(rows)),
    }
    manager = TaskManager(include_path=harness.OURS, include_defaults=False)
    task = manager.load([{"group": "one", "task": [change]}])["tasks"]["longfqa"]
    task.set_fewshot_seed(0)
    for doc in task.test_docs():
        assert f"Answer: {doc['answers'][0]}" not in task.fewshot_context(doc, longfqa.shots)


def test_a_line_ends_where_json_lines_end(tmp_path):
    rows = [{"text": f"one{end}two", "label": 0} for end in ("\x85", "\u2028", "\n")]
    assert put(tmp_path, "imdb", "test", rows)[0].splits["test"] == rows


def test_boolq_has_its_answers_as_numbers(records):
    (local,) = data.read(records, chosen(["boolq"]))
    assert {(row["answer"], row["label"]) for row in local.splits["train"]} == {
        (True, 1),
        (False, 0),
    }


def test_records_are_read_from_every_kind_of_file(records, tmp_path):
    (piqa,) = chosen(["piqa"])
    want = data.read(records, (piqa,))[0].splits["validation"]
    frame, table = pd.DataFrame(want), record.pa.Table.from_pylist(want)
    folder = tmp_path / "piqa" / "validation"
    (tmp_path / "piqa" / "dataset_info.json").parent.mkdir()
    (tmp_path / "piqa" / "dataset_info.json").write_text("{}")  # saved beside records, is none
    for kind in ("jsonl", "json", "parquet", "arrow"):
        folder.mkdir(parents=True)
        path = folder / f"data-0.{kind}"
        match kind:
            case "jsonl":
                path.write_text("".join(json.dumps(row) + "\n" for row in want))
            case "json":
                path.write_text(json.dumps(want))
            case "parquet":
                frame.to_parquet(path)
            case "arrow":
                with record.pa.ipc.new_stream(str(path), table.schema) as stream:
                    stream.write_table(table)
        assert data.read(tmp_path, (piqa,))[0].splits["validation"] == want
        path.unlink()
        folder.rmdir()


def test_a_folder_that_the_library_saved_is_read(tmp_path):
    rows = [{"text": "fine", "label": 1}]
    split = datasets.Dataset.from_list(rows)
    datasets.DatasetDict(train=split, test=split).save_to_disk(tmp_path / "imdb")
    split.save_to_disk(tmp_path / "aside")  # a cache is a file of records that were there before
    (arrow,) = (tmp_path / "aside").glob("*.arrow")
    arrow.rename(tmp_path / "imdb" / "test" / "cache-1a2b3c4d.arrow")
    (imdb,) = data.read(tmp_path, chosen(["imdb"]))
    assert imdb.splits == {"train": rows, "test": rows}


def changed(task: str, n: int = 12, **fields) -> list[dict]:
    """Return records of which the second has these fields instead of its own."""
    rows = [benchmarks.MAKE[task](i) for i in range(n)]
    rows[1] |= fields
    return rows


AMISS = "a record is not as docs/evaluation.md says"
PIQA = [{**row, "label": str(row["label"])} for row in changed("piqa")]


@pytest.mark.parametrize(
    ("task", "rows", "message"),
    [
        ("piqa", PIQA, f"piqa: {AMISS}: the answer of record 0 is '0'; it must be the numb"),
        ("piqa", changed("piqa", label=-1), "the answer of record 1 is -1"),
        ("boolq", changed("boolq", answer=None, label=2), "the answer of record 1 is 2"),
        ("winogrande", changed("winogrande", answer="3"), f"winogrande: {AMISS}: KeyError"),
        ("arc_easy", changed("arc_easy", answerKey="E"), f"arc_easy: {AMISS}: "),
        ("quac", changed("quac", answers=[["a"]]), f"quac: {AMISS}: "),
        ("quac", [{**changed("quac")[0], "answers": [["a"]]}], f"quac: {AMISS}: TypeError"),
        ("quac", changed("quac", questions=["a?"], answers={"texts": [[]]}), "'a?' has no answer"),
        (
            "quac",
            [{"context": "a", "questions": [], "answers": {"texts": []}}],
            f"quac: {AMISS}: none of 1 records has a question",
        ),
        ("narrativeqa", [{**changed("narrativeqa")[0], "document": "a"}], f"{AMISS}: Type"),
        ("narrativeqa", changed("narrativeqa", answers=[]), "question 1 has no answer"),
        ("nq_open", changed("nq_open", answer=[]), "question 1 has no answer"),
    ],
)
def test_a_record_of_another_shape_is_one_sentence(task, rows, message, tmp_path):
    (benchmark,) = chosen([task])
    with pytest.raises(ValueError, match=re.escape(message)):
        harness.load(benchmark, *put(tmp_path, task, benchmark.evaluated, rows))


def test_a_record_that_is_none_is_one_sentence(tmp_path):
    with pytest.raises(ValueError, match="cannot be read: record 1 must be an object with fields"):
        put(tmp_path, "quac", "validation", [benchmarks.quac(0), 1])
    (tmp_path / "piqa").mkdir()
    (tmp_path / "piqa" / "test.json").write_text("{}")
    with pytest.raises(ValueError, match="it must be a list of records, not dict"):
        data.read(tmp_path, chosen(["piqa"]))


def test_examples_of_their_own_split_are_enough_when_they_are_as_many_as_asked(tmp_path):
    for n, split in ((6, "test"), (5, "train")):
        (imdb,) = put(tmp_path, "imdb", split, [benchmarks.imdb(i) for i in range(n)])
        task = harness.load(imdb.benchmark, imdb)
        task.build_all_requests(limit=2, rank=0, world_size=1)
    put(tmp_path, "imdb", "train", [benchmarks.imdb(i) for i in range(4)])
    with pytest.raises(ValueError, match=r"imdb: 4 examples .* give at least 5"):
        harness.load(imdb.benchmark, *data.read(tmp_path, (imdb.benchmark,)))


@pytest.mark.parametrize("error", [httpx2.ConnectError("no route"), OSError("no route")])
def test_a_hub_that_is_not_reached_is_one_sentence(error, monkeypatch):
    def refuse(*_args, **_kwargs):
        raise error

    monkeypatch.setattr(datasets, "load_dataset", refuse)
    with pytest.raises(
        OSError, match=r"longfqa cannot be had from the hub \(.*no route\); give its"
    ):
        harness.load(*chosen(["longfqa"]), None)


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
