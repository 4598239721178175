"""What `import journeyman.web` offers changes only on purpose: here, and in docs/pages.md."""

from __future__ import annotations

from pathlib import Path

import journeyman.web

DOCS = (Path(__file__).parents[1] / "docs" / "pages.md").read_text()


def test_exported_members() -> None:
    assert sorted(journeyman.web.__all__) == journeyman.web.__all__, "kept sorted"
    assert journeyman.web.__all__ == [
        "Access",
        "Answer",
        "Form",
        "Page",
        "Request",
        "SeeOther",
        "Streams",
        "Templates",
        "WrongForm",
        "access_of",
        "event",
        "read_form",
        "submit",
    ]
    assert [name for name in journeyman.web.__all__ if name not in DOCS] == []
