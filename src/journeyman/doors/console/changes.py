"""What is different between a table of then and of now."""

from __future__ import annotations

from collections.abc import Mapping
from heapq import nsmallest
from typing import Any, Final, Literal

import msgspec

#: How many changed rows of a table are told. All are counted.
TOLD_MAX: Final = 200


class FieldChange(msgspec.Struct, frozen=True):
    """A field that is different."""

    field: str
    before: Any
    after: Any


class RowChange(msgspec.Struct, frozen=True):
    """A row that was added, removed or changed; in all three cases by its fields."""

    key: Any
    what: Literal["added", "removed", "changed"]
    fields: tuple[FieldChange, ...]


class TableChanges(msgspec.Struct, frozen=True):
    """How many rows of a table are different, and the first of them in key order."""

    feature: str
    table: str
    added: int
    removed: int
    changed: int
    rows: tuple[RowChange, ...]

    @property
    def total(self) -> int:
        """All rows that are different."""
        return self.added + self.removed + self.changed


def changes_between(feature: str, table: str, before: Mapping[Any, Any], after: Mapping[Any, Any]) -> TableChanges:
    """Compare the rows of one table, by key."""
    added = after.keys() - before.keys()
    removed = before.keys() - after.keys()
    # Rows that nothing has touched are the same objects: those are not compared field by field.
    changed = {key for key, row in after.items() if key in before and before[key] is not row and before[key] != row}
    told = nsmallest(TOLD_MAX, added | removed | changed)
    rows = tuple(_row_change(key, before.get(key), after.get(key)) for key in told)
    return TableChanges(feature, table, len(added), len(removed), len(changed), rows)


def _row_change(key: Any, before: Any, after: Any) -> RowChange:
    what: Literal["added", "removed", "changed"] = "changed"
    if before is None or after is None:
        what = "added" if before is None else "removed"
    fields = tuple(
        FieldChange(name, getattr(before, name, None), getattr(after, name, None))
        for name in (before if after is None else after).__struct_fields__
        if what != "changed" or getattr(before, name) != getattr(after, name)
    )
    return RowChange(key, what, fields)
