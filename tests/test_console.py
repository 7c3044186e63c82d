"""Errors: a person's own come with file and line, refusals without, bugs with a traceback."""

import contextlib
import json
import textwrap
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from hybrid import codec, console
from hybrid.spec import look_up, require
from sweeps import ratio
from sweeps.bench import record as bench_record
from sweeps.trial.data.sources import PackagedText
from tests.commands import invoke

START = """\
import os
from dataclasses import replace
from sweeps.ratio import SWEEP as RATIO
from sweeps import ratio
"""
# What a sweep file does in line 5, and what is said of it.
OWN_MISTAKES = {
    "SWEEP = os.environ['NOT_SET']": "KeyError: 'NOT_SET'",
    "SWEEP = [RATIO][1]": "IndexError: list index out of range",
    "SWEEP = int('many')": "ValueError: invalid literal for int()",
    "import not_there_pkg": "ModuleNotFoundError: No module named 'not_there_pkg'",
    "SWEEP = open('/nowhere/rates.json')": "FileNotFoundError: [Errno 2] No such file",
    "SWEEP = undefined": "NameError: name 'undefined' is not defined",
    "SWEEP = len(3)": "TypeError: object of type 'int' has no len()",
    "SWEEP = (": "SyntaxError: '(' was never closed",
    "raise KeyError('smoke')": "KeyError: 'smoke'",
    "SWEEP = replace(RATIO, point=lambda *_: {}['x'])": "KeyError: 'x'",
    "SWEEP = replace(RATIO, point=lambda a, *_: {}[a])": "KeyError: '1:0'",
    # Refused by our own code, with its own message, that the line 5 led to.
    "SWEEP = replace(RATIO, point=lambda a, s, x: ratio.point('9:9', s, x))": (
        "there is no arm of the sweep ratio '9:9'; there are: 1:0"
    ),
}


@pytest.mark.parametrize("line", OWN_MISTAKES)
def test_what_a_sweep_file_raises_says_file_line_and_what(line, tmp_path):
    file = tmp_path / "mine.py"
    file.write_text(START + line)
    result = invoke(f"rebuild {file} --scale smoke --device cpu --results {tmp_path / 'results'}")
    assert result.exit_code == 2, result.output
    assert f"{file}, line 5: {OWN_MISTAKES[line]}" in result.stderr
    assert "Traceback" not in result.output
    assert not (tmp_path / "results").exists()


def test_a_mistake_in_a_file_that_the_sweep_file_imports_is_found_there(tmp_path, monkeypatch):
    (tmp_path / "my_rates.py").write_text("RATES = {}\n\nBEST = RATES['cpu']\n")
    (tmp_path / "mine.py").write_text("from my_rates import BEST\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    result = invoke(f"table {tmp_path / 'mine.py'}")
    assert result.exit_code == 2
    assert f"{tmp_path / 'my_rates.py'}, line 3: KeyError: 'cpu'" in result.stderr


def test_an_arm_that_no_point_knows_is_named(tmp_path):
    file = tmp_path / "mine.py"
    file.write_text(START + "SWEEP = replace(RATIO, arms=('1:2',))")
    result = invoke(f"rebuild {file} --scale smoke --device cpu --results {tmp_path / 'results'}")
    assert result.exit_code == 2
    assert "there is no arm of the sweep ratio '1:2'; there are: 1:0, 1:1" in result.stderr


def test_an_arm_that_a_table_of_ours_lacks_is_named_where_all_points_are_made():
    from ablations import balance

    sweep = balance.FINDING.comparisons[0].sweep
    with pytest.raises(ValueError, match=r"sweep 'finding-balance': its `point` has no arm 'x'"):
        type(sweep)(**{**vars(sweep), "arms": ("x",)}).points("smoke", PackagedText())


def test_a_scale_without_seeds_is_named():
    with pytest.raises(ValueError, match=r"Sweep 'ratio': seeds is for \['cpu'\]"):
        type(ratio.SWEEP)(**{**vars(ratio.SWEEP), "seeds": {"cpu": (0,)}})


def of_ours(body: str):
    """Return a function `f` with this body, as if it stood in a file of the package sweeps."""
    path = Path(console.PACKAGES[1]) / "made_up_by_a_test.py"
    source = "import json, os, optuna\ndef f(call=None):\n" + textwrap.indent(body, "    ")
    names: dict = {}
    exec(compile(source, str(path), "exec"), names)
    return names["f"]


BUGS = (
    "{}['smoke']",
    "raise KeyError('smoke')",
    "raise ValueError",
    "[][0]",
    "int('many')",
    "json.loads('{')",  # raised by a library, on purpose, and not for a person
    "import not_there_pkg",
    "os.fdopen(10**6)",  # refused by the system, without the name of a file
    "raise RuntimeError('a sentence, but no class for a mistake')",
    "raise TypeError('a sentence, but no class for a mistake')",
)
ON_PURPOSE = {
    "raise ValueError('heads must divide width')": "heads must divide width",
    "raise KeyError('there is no such study')": "there is no such study",
    "raise ImportError('pip install it')": "pip install it",
    "raise OSError('no record fits')": "no record fits",
    "open('/nowhere/spec.json')": "[Errno 2] No such file or directory: '/nowhere/spec.json'",
    "call()": "outer heads must divide width",
}


def error_of(function, *arguments) -> Exception:
    try:
        function(*arguments)
    except Exception as error:
        return error
    raise AssertionError("it must raise")


@pytest.mark.parametrize("body", BUGS)
def test_a_bug_of_ours_is_no_sentence(body):
    found = error_of(of_ours(body))
    assert console.sentence(console_cut(found)) is None


@pytest.mark.parametrize("body", ON_PURPOSE)
def test_what_we_raise_on_purpose_is_its_message(body):
    inner = of_ours("raise ValueError('outer heads must divide width')")
    found = error_of(of_ours(body), inner)
    assert console.sentence(console_cut(found)) == ON_PURPOSE[body]


def console_cut(error: Exception) -> Exception:
    """Return the error with a traceback that begins where a command would: not in this test."""
    trace = error.__traceback__
    while trace is not None and trace.tb_frame.f_code.co_filename == __file__:
        trace = trace.tb_next
    return error.with_traceback(trace)


def test_a_command_shows_a_traceback_for_a_bug_and_two_for_a_mistake():
    app = typer.Typer()
    app.command("bug")(console.plain_errors(of_ours("{}['smoke']")))
    app.command("mistake")(console.plain_errors(of_ours("raise ValueError('no [such] thing')")))
    result = CliRunner().invoke(app, ["bug"])
    assert isinstance(result.exception, KeyError)
    assert "error:" not in result.output
    result = CliRunner().invoke(app, ["mistake"])
    assert result.exit_code == 2
    assert result.stderr == "error: no [such] thing\n"


def test_long_paths_are_not_broken_up(tmp_path):
    path = tmp_path / ("long " * 40) / "spec.json"
    app = typer.Typer()
    app.command()(console.plain_errors(of_ours(f"raise ValueError({str(path)!r})")))
    assert CliRunner().invoke(app, []).stderr == f"error: {path}\n"


def test_an_option_is_named_as_it_was_typed_and_a_bug_is_left_alone():
    refused = of_ours("raise LookupError('no such device')")
    with (
        pytest.raises(ValueError, match="--device tpu: no such device"),
        console.naming("--device tpu"),
    ):
        refused()
    with pytest.raises(KeyError, match="'tpu'"), console.naming("--device tpu"):
        of_ours("{}['tpu']")()


def test_reading_names_the_file_once(tmp_path):
    path = tmp_path / "a.json"
    with (
        pytest.raises(ValueError, match=r"a\.json: cannot be read: JSONDecodeError: Expecting"),
        console.reading(path),
    ):
        json.loads("{")
    with pytest.raises(FileNotFoundError), console.reading(path):
        path.read_text()
    with pytest.raises(ValueError, match="cannot be read: FileNotFoundError"):
        bench_record.read(path, bench_record.Row)  # pyarrow's, which says nothing but the path


def test_look_up_lists_what_there_is():
    assert look_up("scale", {"cpu": 1}, "cpu") == 1
    with pytest.raises(ValueError, match="there is no scale 'gpu'; there are: cpu, smoke"):
        look_up("scale", {"cpu": 1, "smoke": 2}, "gpu")


def test_require_and_codec_raise_for_a_person():
    for function in (lambda: require(False, "it must hold"), lambda: codec.decode(int, "a", "x")):
        with contextlib.suppress(StopIteration):
            assert console.sentence(console_cut(error_of(function)))
