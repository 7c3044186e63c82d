"""White space, and splits in which no document and no group comes twice."""

from collections import Counter, defaultdict

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sweeps.trial.data import packages, streams
from sweeps.trial.data.documents import (
    HELD_OUT_SHARE,
    Document,
    Split,
    normalise_layout,
    normalise_prose,
    split_by_group,
    without_duplicates,
)
from sweeps.trial.data.sources import PackagedText
from tests.data.samples import words

# Of the packaged text in its splits. Where it changes, new losses do not compare with old ones.
PACKAGED_TEXT_SHA256 = "7dcd5cdf17b82949c234ac46ba5ad0f8d04562e85dea7e66588a4bb28594b123"


@pytest.fixture(scope="session")
def packaged_splits():
    documents = without_duplicates(packages.read_packages(PackagedText()))
    return split_by_group(documents)


def test_prose_keeps_lines_and_paragraphs_but_no_runs_of_blanks():
    assert normalise_prose(" a\t\xa0 b \r\nc\r\n \n\n\nd  ") == "a b\nc\n\nd"


def test_layout_keeps_indentation():
    code = "\n\n  def f():\r\n\treturn  1   \n\n\n\n\nx\n"
    assert normalise_layout(code) == "  def f():\n\treturn  1\n\n\nx"


@given(st.text())
def test_normalising_twice_changes_nothing_more(text):
    for normalise in (normalise_prose, normalise_layout):
        assert normalise(normalise(text)) == normalise(text)


def test_no_group_and_no_document_is_in_two_splits(packaged_splits):
    for key in (lambda d: (d.source, d.group), lambda d: d.text):
        seen = [{key(document) for document in members} for members in packaged_splits.values()]
        assert len(set.union(*seen)) == sum(map(len, seen))


def test_no_document_comes_twice(packaged_splits):
    texts = Counter(document.text for members in packaged_splits.values() for document in members)
    assert max(texts.values()) == 1


def test_of_equal_documents_the_first_is_kept():
    first, second, other = (
        Document(domain="d", source=source, group=group, text=text)
        for source, group, text in [("s", "1", "same"), ("t", "2", "same"), ("t", "2", "other")]
    )
    assert without_duplicates([first, second, other]) == [first, other]


def test_every_source_holds_out_its_share_and_little_more(packaged_splits):
    n_bytes: dict[str, Counter[Split]] = defaultdict(Counter)
    for split, members in packaged_splits.items():
        for document in members:
            n_bytes[document.source][split] += document.n_bytes
    assert set(n_bytes) == {package.source for package in packages.PACKAGES}
    for by_split in n_bytes.values():
        for split in (Split.TEST, Split.VALID):
            assert HELD_OUT_SHARE <= by_split[split] / by_split.total() < 2 * HELD_OUT_SHARE


def test_the_packaged_text_and_its_splits_are_the_pinned_ones(packaged_splits):
    assert streams._text_sha256(packaged_splits) == PACKAGED_TEXT_SHA256


def test_groups_are_what_the_policy_says(packaged_splits):
    groups = defaultdict(set)
    for document in (document for members in packaged_splits.values() for document in members):
        groups[document.source].add(document.group)
    assert {"1790", "2026"} <= groups["sotu"]
    assert len(groups["kjv"]) == 66
    assert "core/expr.py" in groups["sympy"]
    assert not [g for g in groups["sympy"] if "/tests/" in g or "benchmarks/" in g]


def test_a_split_ignores_the_order_of_documents():
    documents = [
        Document(domain="d", source="s", group=str(number), text=text)
        for number, text in enumerate(words(60))
    ]
    forward, backward = split_by_group(documents), split_by_group(documents[::-1])
    for split in Split:
        assert forward[split] == backward[split][::-1]
        assert forward[split]
