"""The data dictionary of results/, from the fields of Record and Step themselves."""

from dataclasses import fields

from sweeps.trial.record import SCHEMA, Record

HEAD = """# Columns of the records

One row is one trial. Made by `python -m sweeps columns` from `sweeps/trial/record.py`; do not edit.
Null means not measured. `sweeps.results.load` turns a map into one column for each key, such as
`decode_ms.1024`.

| column | type | unit | meaning |
|---|---|---|---|
"""


def as_markdown() -> str:
    """Return one table row for each field of Record."""
    rows = [
        f"| `{f.name}` | {SCHEMA.field(f.name).type} | {f.metadata['unit'] or '-'} "
        f"| {f.metadata['meaning']} |"
        for f in fields(Record)
    ]
    return HEAD + "\n".join(rows)
