"""The needle: hidden where it is said to be, scored against chance, drawn as a heat map."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest
from typer.testing import CliRunner

from sweeps import cli, trained
from sweeps.eval import needle, needle_figure, record
from sweeps.eval.record import NeedleScore
from sweeps.eval.scoring import Scored
from sweeps.trained import Words
from sweeps.trial.recipe import Precision

# Characters as tokens: so much can be read at a glance.
LETTERS = Words(
    encode=lambda text: [ord(x) for x in text],
    encode_more=lambda text: [ord(x) for x in text],
    decode=lambda ids: "".join(map(chr, ids)),
    begin_id=0,
    end_id=0,
)
HAY = LETTERS.encode("straw " * 200)


@pytest.mark.parametrize("depth", [0.0, 0.25, 1.0])
def test_a_needle_lies_at_its_depth_of_exactly_the_context(depth):
    hidden = needle.hide(LETTERS, HAY, 400, depth, seed=3)
    text = LETTERS.decode(hidden.ids)
    assert len(hidden.ids) == 400
    assert text.count(str(hidden.number)) == 1
    begin = text.index("\nThe magic number of")
    end = begin + len(text[begin:].partition(".\n")[0]) + 2
    question = text.index("\nQuestion: ")
    assert begin == pytest.approx(depth * (question - (end - begin)), abs=1)
    assert text.endswith(text[begin + 1 :].partition(f" {hidden.number}")[0])
    assert hidden.number not in hidden.others
    assert len(set(hidden.others)) == needle.OTHERS
    assert hidden == needle.hide(LETTERS, HAY, 400, depth, seed=3)
    assert hidden.number != needle.hide(LETTERS, HAY, 400, depth, seed=4).number


def test_a_context_begins_as_every_text_does():
    marked = replace(LETTERS, encode=lambda text: [1, *map(ord, text)])
    hidden = needle.hide(marked, HAY, 400, 0.0, seed=3)
    assert len(hidden.ids) == 400
    assert hidden.ids[:2] == (1, ord("\n"))


def test_every_number_of_five_digits_may_be_hidden(monkeypatch):
    monkeypatch.setattr(needle, "LOWEST", needle.HIGHEST - needle.OTHERS)
    hidden = needle.hide(LETTERS, HAY, 400, 0.5, seed=0)
    assert needle.HIGHEST in (hidden.number, *hidden.others)


def test_a_model_that_reads_less_than_a_context_is_not_asked():
    scorer = SimpleNamespace(longest=263)
    sizes = needle.sizes([128, 256, 128], None, 3, "")
    assert (sizes.contexts, sizes.depths, sizes.needles) == ((128, 256), 5, 3)
    with pytest.raises(ValueError, match=r"--longest 263 would cut .* give at least 264"):
        next(needle.run(None, scorer, None, sizes))


def test_a_context_without_room_is_refused():
    with pytest.raises(ValueError, match=r"needle: context=50 must be above \d+ tokens"):
        needle.hide(LETTERS, HAY, 50, 0.5, seed=0)


@pytest.mark.parametrize(
    ("said", "best", "exact", "beaten"),
    [(" {n}.", True, True, 1.0), (" {n}1", True, False, 1.0), (" nothing", False, False, 0.0)],
)
def test_what_is_seen_is_the_answer_and_the_rank(said, best, exact, beaten, monkeypatch):
    hidden = needle.hide(LETTERS, HAY, 400, 0.5, seed=1)
    monkeypatch.setattr(
        needle, "continue_ids", lambda *_, **__: iter([said.format(n=hidden.number)])
    )

    def score(requests):
        ends = [LETTERS.decode(request.continuation) for request in requests]
        assert ends == [f" {x}" for x in (hidden.number, *hidden.others)]
        return [Scored(-1.0 if (i == 0) == best else -2.0, False) for i in range(len(ends))]

    model = SimpleNamespace(embed=SimpleNamespace(weight=SimpleNamespace(device=CPU)))
    scorer = SimpleNamespace(score=score, precision=Precision.FP32)
    seen = needle.look(SimpleNamespace(words=LETTERS, model=model), scorer, hidden)
    assert (seen.exact, seen.beaten) == (exact, beaten)


CPU = SimpleNamespace(type="cpu")


def test_the_command_records_every_cell_and_draws_it(source, kept, tmp_path):
    (name,) = trained.with_weights(kept)
    options = ["--context", "128", "--context", "160", "--depths", "3", "--needles", "2"]
    command = ["eval", name, "--suite", "needle", "--results", str(kept), "--text", source.path]
    done = CliRunner().invoke(cli.app, [*command, *options])
    assert done.exit_code == 0, done.output
    cells = record.load(kept, NeedleScore)
    assert [*zip(cells["context"], cells["depth"], strict=True)] == [
        (context, depth) for context in (128, 160) for depth in (0, 0.5, 1)
    ]
    assert (cells["exact_chance"] == 1 / 90_000).all()
    assert cells["beaten"].between(0, 1).all()
    assert {path.suffix for path in Path(kept, "eval").glob("*needle*")} == {
        ".parquet",
        ".png",
        ".svg",
    }
    short = CliRunner().invoke(cli.app, [*command, "--context", "1000000"])
    assert short.exit_code == 2
    assert "give a longer one with --text" in " ".join(short.stderr.split())


def test_a_map_has_a_number_in_every_cell():
    cells = pd.DataFrame(
        [
            {
                "model": "made-up",
                "precision": "fp32",
                "n": 5,
                "candidates": 20,
                "exact_chance": 1 / 90_000,
                "context": context,
                "depth": depth,
                "exact": depth,
                "beaten": 1.0,
            }
            for context in (1024, 256)
            for depth in (0.0, 0.5, 1.0)
        ]
    )
    left, right = needle_figure.draw(cells).axes
    assert [x.get_text() for x in left.texts] == ["0.00"] * 2 + ["0.50"] * 2 + ["1.00"] * 2
    assert [x.get_text() for x in left.get_xticklabels()] == ["256", "1,024"]
    assert {x.get_text() for x in right.texts} == {"1.00"}
