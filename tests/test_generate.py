"""Text from a trained model: choices among tokens, branches of a cache, characters kept whole."""

import json
import re

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from typer.testing import CliRunner

from hybrid import generate
from hybrid.generate import Choice
from hybrid.model import build
from sweeps import cli, exchange, trained
from sweeps.speech import TextStream, speak
from sweeps.trial.data import tokenizer
from tests.models import SPECS, VOCAB

PROMPT_BT = torch.arange(6)[None]
BPE = tokenizer.train(["a little text of its own", "é and 日本 and 😀 too"] * 3, 280)


def draws(choice: Choice, tokens: int = 30) -> list[int]:
    model = build(SPECS["hybrid"], seed=1)
    return [x.item() for x in generate.sample(model, PROMPT_BT, tokens=tokens, choice=choice)]


def test_one_token_to_choose_from_is_the_likeliest():
    greedy = draws(Choice())
    assert draws(Choice(temperature=1.0, top_k=1)) == greedy
    assert draws(Choice(temperature=1.0, top_p=1e-6)) == greedy
    assert draws(Choice(temperature=1.0)) != greedy


def test_a_temperature_that_is_nearly_none_takes_the_likeliest():
    logits_BV = torch.tensor([[1.0, 30.0, 3.0], [0.0, -5.0, -1e-3]])
    for temperature in (1e-10, 1e-40, 1e-300):
        ids_B = generate._choose(logits_BV, Choice(temperature=temperature), torch.Generator())
        assert ids_B.tolist() == [1, 0]


def test_a_prompt_that_is_no_text_is_refused():
    with pytest.raises(ValueError, match=r"prompt: character 1 is '\\udcff', which is no text"):
        speak(None, "a\udcff", tokens=1)


@pytest.mark.parametrize("choice", [Choice(temperature=2.0, top_k=3), Choice(temperature=2.0)])
def test_only_the_likeliest_are_drawn(choice):
    logits_BV = torch.randn(1, VOCAB, generator=torch.Generator().manual_seed(0)).expand(500, -1)
    ids_B = generate._choose(logits_BV, choice, torch.Generator().manual_seed(0))
    allowed = logits_BV[0].topk(choice.top_k or VOCAB).indices
    assert set(ids_B.tolist()) <= set(allowed.tolist())
    assert len(set(ids_B.tolist())) > 2


def test_top_p_takes_just_as_many_as_have_the_probability():
    probability_V = torch.tensor([0.1, 0.5, 0.15, 0.25])
    logits_BV = probability_V.log().expand(400, -1)
    for top_p, right in ((0.5, {1}), (0.6, {1, 3}), (0.8, {1, 2, 3}), (1.0, {0, 1, 2, 3})):
        choice = Choice(temperature=1.0, top_p=top_p)
        ids_B = generate._choose(logits_BV, choice, torch.Generator().manual_seed(0))
        assert set(ids_B.tolist()) == right


def test_a_choice_that_cannot_be_is_refused():
    for wrong in ({"temperature": -1.0}, {"top_k": 0}, {"top_p": 0.0}, {"top_p": 1.5}):
        with pytest.raises(ValueError, match=rf"Choice: {next(iter(wrong))}="):
            Choice(**wrong)


@pytest.mark.parametrize("name", SPECS)
@torch.inference_mode()
def test_a_branch_goes_on_as_the_whole_would(name):
    model = build(SPECS[name], seed=1)
    ends_BT = torch.tensor([[3, 1, 4], [1, 5, 9], [2, 6, 5]])
    _, cache = generate.prefill(model, PROMPT_BT)
    got_BTV = model(ends_BT, generate.branch(cache, len(ends_BT))).logits_BTV
    whole_BT = torch.cat([PROMPT_BT.expand(len(ends_BT), -1), ends_BT], dim=1)
    want_BTV = model(whole_BT).logits_BTV[:, PROMPT_BT.shape[1] :]
    torch.testing.assert_close(got_BTV, want_BTV, atol=1e-4, rtol=1e-4)
    again_BTV = model(ends_BT[:1], cache).logits_BTV  # what was branched from is as it was
    torch.testing.assert_close(again_BTV, want_BTV[:1], atol=1e-4, rtol=1e-4)


@settings(deadline=None, max_examples=200)
@given(st.text(st.sampled_from("aé日😀 \n\ufffd") | st.characters(codec="utf-8"), max_size=30))
def test_pieces_of_a_text_are_whole_characters_and_add_up(text):
    stream = TextStream(BPE.decode)
    pieces = [stream.push(token) for token in BPE.encode(text)]
    assert "".join(pieces) + stream.rest() == text
    assert all(not piece.count("\ufffd") or "\ufffd" in text for piece in pieces)


@settings(deadline=None, max_examples=200)
@given(st.lists(st.integers(1, 279), max_size=40))
def test_any_tokens_come_out_as_they_would_together(ids):
    stream = TextStream(BPE.decode)
    assert "".join(map(stream.push, ids)) + stream.rest() == BPE.decode(ids)


def test_text_waits_for_its_character_and_no_longer():
    stream = TextStream(BPE.decode)
    told = [stream.push(token) for token in BPE.encode("a\u00f1b")]  # a letter BPE has not seen
    assert told == ["a", "", "\u00f1", "b"]


def run_id(folder, keeps: bool) -> str:
    names = {r.run_id for f in trained.results.sweeps(folder) for r in trained.records.read(f)}
    (name,) = [x for x in names if (x in trained.with_weights(folder)) == keeps]
    return name


def test_a_run_and_its_exported_folder_say_the_same(source, kept, tmp_path):
    name = run_id(kept, keeps=True)
    exchange.export(name, tmp_path / "out", folder=kept)
    ours, theirs = (
        trained.find(x, folder=kept, device="cpu") for x in (name, str(tmp_path / "out"))
    )
    said = "".join(speak(ours, "Bafu", tokens=40))
    assert said
    assert "".join(speak(theirs, "Bafu", tokens=40)) == said
    quoted = "a <|endoftext|> quoted"
    assert theirs.words.encode(quoted) == ours.words.encode(quoted)
    assert theirs.words.begin_id == ours.words.begin_id == 0
    assert Tokenizer.from_file(str(tmp_path / "out" / "tokenizer.json"))


def test_a_folders_tokenizer_reads_all_of_a_text_and_no_more(tmp_path):
    library = Tokenizer(WordLevel({"end": 0, "a": 1, "b": 2}, unk_token="end"))
    library.pre_tokenizer = Whitespace()
    (tmp_path / "config.json").write_text('{"eos_token_id": 0}')
    for settle in (lambda: library.enable_truncation(2), lambda: library.enable_padding(length=9)):
        settle()
        library.save(str(tmp_path / "tokenizer.json"))
        words = trained._words(tmp_path, vocab=3)
        assert words.encode("a b a b") == words.encode_more("a b a b") == [1, 2, 1, 2]


def test_the_command_streams_text_and_repeats_a_seed(source, kept):
    command = ["generate", run_id(kept, keeps=True), "--results", str(kept), "--tokens", "12"]
    first, again, other = (
        CliRunner().invoke(cli.app, [*command, "--seed", seed]) for seed in ("1", "1", "2")
    )
    assert first.exit_code == 0, first.output
    assert first.stdout == again.stdout != other.stdout
    assert first.stdout.endswith("\n")


def test_what_is_wrong_is_one_sentence(source, kept, tmp_path):
    name, kept_none = run_id(kept, keeps=True), run_id(kept, keeps=False)
    for asked, message in (
        ("nothing", f"kept their weights: {name}. `python -m sweeps run ratio"),
        (kept_none, f"that did: {name}. Run its sweep with --keep-weights into another"),
        (str(tmp_path), "has no such file; text needs a tokenizer"),
    ):
        done = CliRunner().invoke(cli.app, ["generate", asked, "--results", str(kept)])
        assert done.exit_code == 2
        assert message in " ".join(done.stderr.split())
        assert "Traceback" not in done.output


@pytest.mark.parametrize(
    ("changed", "file", "message"),
    [
        ({"bos_token_id": 999_999}, "config.json", "bos_token_id=999999 must be the number of a"),
        ({"bos_token_id": -1}, "config.json", "bos_token_id=-1 must be the number of a token"),
        ({"bos_token_id": "<s>"}, "config.json", "bos_token_id='<s>' must be the number of a"),
        (
            {"eos_token_id": 3},
            "config.json",
            "eos_token_id=3 must be the number of a token, 0 to 2",
        ),
        ({"eos_token_id": True}, "config.json", "eos_token_id=True must be the number of a token"),
        ({}, "tokenizer.json", "its highest token id is 3, but the model has the 3 tokens 0 to 2"),
        (None, "tokenizer.json", "not a tokenizer of the library tokenizers"),
    ],
)
def test_token_ids_beyond_the_vocabulary_are_refused_with_their_file(
    tmp_path, changed, file, message
):
    words = {"end": 0, "a": 1, "b": 2} | ({} if changed else {"c": 3})
    Tokenizer(WordLevel(words, unk_token="end")).save(str(tmp_path / "tokenizer.json"))
    if changed is None:
        (tmp_path / "tokenizer.json").write_text("{}")
    (tmp_path / "config.json").write_text(json.dumps({"eos_token_id": 0} | (changed or {})))
    with pytest.raises(ValueError, match=re.escape(message)) as refused:
        trained._words(tmp_path, vocab=3)
    assert str(tmp_path / file) in str(refused.value)
