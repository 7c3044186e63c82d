"""Records of benchmarks: read from any file, given the right examples, refused by a sentence."""

import json
import re

import pandas as pd
import pytest

from sweeps.eval import data, record
from sweeps.eval.suite import chosen
from tests import benchmarks
from tests.benchmarks import changed, put

pytest.importorskip("lm_eval", reason="the extra `eval` is not installed")

import datasets
from lm_eval.tasks import TaskManager

from sweeps.eval import harness

pytestmark = pytest.mark.usefixtures("offline")


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


AMISS = "a record is not as docs/evaluation.md says"
PIQA = [{**row, "label": str(row["label"])} for row in changed("piqa")]


@pytest.mark.parametrize(
    ("task", "rows", "message"),
    [
        ("piqa", PIQA, f"piqa: {AMISS}: the answer of record 0 is '0'; it must be the numb"),
        ("piqa", changed("piqa", label=-1), "the answer of record 1 is -1"),
        ("boolq", changed("boolq", answer=None, label=2), "the answer of record 1 is 2"),
        (
            "winogrande",
            changed("winogrande", answer="3"),
            f"winogrande: {AMISS}: KeyError",
        ),
        ("arc_easy", changed("arc_easy", answerKey="E"), f"arc_easy: {AMISS}: "),
        ("quac", changed("quac", answers=[["a"]]), f"quac: {AMISS}: "),
        (
            "quac",
            [{**changed("quac")[0], "answers": [["a"]]}],
            f"quac: {AMISS}: TypeError",
        ),
        (
            "quac",
            changed("quac", questions=["a?"], answers={"texts": [[]]}),
            "'a?' has no answer",
        ),
        (
            "quac",
            [{"context": "a", "questions": [], "answers": {"texts": []}}],
            f"quac: {AMISS}: none of 1 records has a question",
        ),
        (
            "narrativeqa",
            [{**changed("narrativeqa")[0], "document": "a"}],
            f"{AMISS}: Type",
        ),
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


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("test.jsonl", b'{"goal": "a"}\n{"goal": \n', "line 2 is not JSON: Expecting value"),
        ("test.jsonl", b'{}\n\n{"a": ' + b"9" * 5000 + b"}", "line 3: Exceeds the limit"),
        ("test.jsonl", b"caf\xe9", "can't decode byte 0xe9"),
        ("test.parquet", None, "OSError: "),
        ("test.arrow", b"no arrow", "Expected to read"),
    ],
)
def test_a_damaged_file_of_records_is_named_with_its_line(name, content, message, tmp_path):
    path = tmp_path / "piqa" / name
    path.parent.mkdir()
    if content is None:  # pages that are damaged, behind a whole footer
        pd.DataFrame({"goal": [f"a goal {i}" for i in range(999)]}).to_parquet(path)
        whole = bytearray(path.read_bytes())
        whole[4:60] = b"\xff" * 56
        content = bytes(whole)
    path.write_bytes(content)
    with pytest.raises(ValueError, match=re.escape(message)) as refused:
        data.read(tmp_path, chosen(["piqa"]))
    assert f"{path} cannot be read: " in str(refused.value)


def test_examples_of_their_own_split_are_enough_when_they_are_as_many_as_asked(tmp_path):
    for n, split in ((6, "test"), (5, "train")):
        (imdb,) = put(tmp_path, "imdb", split, [benchmarks.imdb(i) for i in range(n)])
        task = harness.load(imdb.benchmark, imdb)
        task.build_all_requests(limit=2, rank=0, world_size=1)
    put(tmp_path, "imdb", "train", [benchmarks.imdb(i) for i in range(4)])
    with pytest.raises(ValueError, match=r"imdb: 4 examples .* give at least 5"):
        harness.load(imdb.benchmark, *data.read(tmp_path, (imdb.benchmark,)))


class NoRoute(Exception):
    """Of a class that nothing here can know, as the hub's client has them."""


@pytest.mark.parametrize("error", [NoRoute("no route"), OSError("no route")])
def test_a_hub_that_is_not_reached_is_one_sentence(error, monkeypatch):
    def refuse(*_args, **_kwargs):
        raise error

    monkeypatch.setattr(datasets, "load_dataset", refuse)
    with pytest.raises(
        OSError, match=r"longfqa cannot be had from the hub \(.*no route\); give its"
    ):
        harness.load(*chosen(["longfqa"]), None)
