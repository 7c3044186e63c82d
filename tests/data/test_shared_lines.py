"""Long lines that train shares with held-out text: counted, and removed from train alone."""

from sweeps.trial.data.documents import Document, Split
from sweeps.trial.data.shared_lines import MIN_CHARACTERS, shared_share, without_shared_lines

LONG = "raise TypeError('expected a matrix with as many rows as columns')"
OTHER = "from some.package.with.a.long.name import a_function_of_that_package"
MINE = "a line of this document that is long enough and stands in no other one"
SHORT = "return x"
assert min(map(len, (LONG, OTHER, MINE))) >= MIN_CHARACTERS


def doc(*lines: str, domain: str = "code") -> Document:
    return Document(domain=domain, source="s", group="g", text="\n".join(lines))


def splits(train, valid, test) -> dict[Split, list[Document]]:
    return {Split.TRAIN: train, Split.VALID: valid, Split.TEST: test}


def test_lines_of_valid_and_of_test_leave_train_whatever_their_indentation_and_domain():
    held_out = [doc(SHORT, "    " + LONG)], [doc(OTHER, MINE + "!", domain="web")]
    train = [doc(MINE, LONG, SHORT), doc("\t" + OTHER, "end", domain="books")]
    cleaned = without_shared_lines(splits(train, *held_out))
    assert [x.text for x in cleaned[Split.TRAIN]] == [f"{MINE}\n{SHORT}", "end"]
    assert (cleaned[Split.VALID], cleaned[Split.TEST]) == held_out


def test_a_document_of_shared_lines_alone_is_dropped():
    cleaned = without_shared_lines(splits([doc(LONG, LONG), doc(MINE)], [], [doc(LONG)]))
    assert [x.text for x in cleaned[Split.TRAIN]] == [MINE]


def test_a_line_one_character_too_short_is_kept():
    short, long = "x" * (MIN_CHARACTERS - 1), "y" * MIN_CHARACTERS
    cleaned = without_shared_lines(splits([doc(short, long)], [], [doc(short, long)]))
    assert [x.text for x in cleaned[Split.TRAIN]] == [short]


def test_the_share_is_of_the_long_lines_of_each_domain():
    test = [doc(LONG, OTHER, LONG, MINE, SHORT), doc(OTHER, domain="web"), doc(SHORT, domain="b")]
    found = splits([doc("  " + LONG, SHORT)], [], test)
    assert shared_share(found, Split.TEST) == {"code": 0.5, "web": 0.0, "b": 0.0}
    assert shared_share(without_shared_lines(found), Split.TEST)["code"] == 0.0
