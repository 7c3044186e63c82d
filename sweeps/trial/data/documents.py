"""Documents, their white space, and the split into train, valid and test.

    Document(domain="books", source="sotu", group="1790", text="Fellow-Citizens of the ...")

A group (a year, a book, a file) is the unit that is split, so that no text of one group is both
trained on and held out. Nothing here opens a file.
"""

import hashlib
import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum

HELD_OUT_SHARE = 0.03  # of a source's bytes, for test and again for valid


class Split(StrEnum):
    TRAIN = "train"
    VALID = "valid"
    TEST = "test"


@dataclass(frozen=True, kw_only=True, slots=True)
class Document:
    domain: str
    source: str
    group: str
    text: str  # normalised

    def __post_init__(self) -> None:
        if not self.text:
            raise ValueError(f"document of {self.source}:{self.group} has no text")

    @property
    def n_bytes(self) -> int:
        return len(self.text.encode())


def normalise_layout(text: str) -> str:
    """Keeps lines and indentation; drops blanks at line ends and blank lines beyond two.

    For code, where indentation is syntax and two blank lines are the custom (PEP 8), and for a
    user's text, which may be code.
    """
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    text = "\n".join(line.rstrip() for line in text.split("\n"))
    return re.sub(r"\n{4,}", "\n\n\n", text).strip("\n")


def normalise_prose(text: str) -> str:
    """Keeps paragraphs and lines; every other run of white space becomes one space."""
    text = re.sub(r"[^\S\n]+", " ", text.replace("\r\n", "\n").replace("\r", "\n"))
    text = "\n".join(line.strip() for line in text.split("\n"))
    return re.sub(r"\n{3,}", "\n\n", text).strip()


def without_duplicates(documents: Iterable[Document]) -> list[Document]:
    """The documents in their order, each text only where it comes first."""
    first: dict[str, Document] = {}
    for document in documents:
        first.setdefault(document.text, document)
    return list(first.values())


def split_by_group(documents: Sequence[Document]) -> dict[Split, list[Document]]:
    """Whole groups to test, then valid, then train, source by source; order inside a split kept."""
    by_source = defaultdict(list)
    for document in documents:
        by_source[document.source].append(document)
    splits: dict[Split, list[Document]] = {split: [] for split in Split}
    for source, members in by_source.items():
        group_split = _assign_groups(source, members)
        for document in members:
            splits[group_split[document.group]].append(document)
    return splits


def _assign_groups(source: str, documents: Sequence[Document]) -> dict[str, Split]:
    """Groups by sha256 of "source:group" until each held-out split has its share of the bytes."""
    group_bytes: dict[str, int] = defaultdict(int)
    for document in documents:
        group_bytes[document.group] += document.n_bytes
    share_bytes = HELD_OUT_SHARE * sum(group_bytes.values())
    taken = {Split.TEST: 0, Split.VALID: 0}
    assigned: dict[str, Split] = {}
    for group in sorted(group_bytes, key=lambda group: _sha256(f"{source}:{group}")):
        split = next((s for s in taken if taken[s] < share_bytes), Split.TRAIN)
        if split in taken:
            taken[split] += group_bytes[group]
        assigned[group] = split
    if Split.TRAIN not in assigned.values():
        raise ValueError(
            f"{source}: {len(assigned)} distinct document group(s), too few to split into test, "
            f"valid and train; give at least three (of one .txt file: parts between blank lines, "
            f"of 1,024 bytes or more in all)"
        )
    return assigned


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
