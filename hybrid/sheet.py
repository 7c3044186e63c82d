"""A table with a title and notes, shown in a terminal or as Markdown. Knows nothing of models."""

from collections.abc import Sequence
from dataclasses import dataclass

from rich.console import Console, Group
from rich.table import Table
from rich.text import Text


@dataclass(frozen=True, kw_only=True)
class Sheet:
    """One table; the first column is text, the others are numbers."""

    title: str
    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    notes: Sequence[str] = ()

    def markdown(self) -> str:
        lines = [self.head, ["---", *["---:"] * (len(self.head) - 1)], *self.rows]
        table = "\n".join(f"| {' | '.join(line)} |" for line in lines)
        return "\n\n".join([f"## {self.title}", table, *self.notes])

    def show(self, console: Console) -> None:
        table = Table()
        for index, name in enumerate(self.head):
            table.add_column(name, justify="right" if index else "left")
        for row in self.rows:
            table.add_row(*map(Text, row))
        title = Text(f"\n{self.title}", style="bold")
        console.print(Group(title, table, *map(Text, self.notes)))
