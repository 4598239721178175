"""Documents come in once, however often they are imported; a fault says where it is, and what was kept."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from journeyman.receipts import Receipts
from tests.doors.cli.terminal import SHOP, Journeyman, start, started, stopped, until


def posts(journeyman: Journeyman) -> list[dict[str, Any]]:
    """All posts, oldest first."""
    answer = json.loads(journeyman("query", "posts/list", '{"page_size": 100}', "--json").ok())
    found: list[dict[str, Any]] = answer["posts"]
    return found[::-1]


def counted(journeyman: Journeyman, *paths: str) -> dict[str, int]:
    found: dict[str, int] = json.loads(journeyman("import", *paths, "--json").ok())
    return found


def rows(*titles: str) -> str:
    return "".join(json.dumps({"title": title, "content": f"About {title}."}) + "\n" for title in titles)


@pytest.mark.parametrize(
    ("name", "text", "title", "content"),
    [
        ("a.jsonl", '{"title": "T", "content": "C"}\n', "T", "C"),
        ("a.ndjson", '\n{"content": "C", "title": "T"}', "T", "C"),
        ("a.csv", 'content,title\n"C,\nd",T\n', "T", "C,\nd"),
        ("a.CSV", "\ufefftitle,content,post_id\r\nT,C,\r\n", "T", "C"),
        ("a.md", "Before.\n\n## The *title* ##\n\nText.\n", "The *title*", "Before.\n\n## The *title* ##\n\nText.\n"),
        ("a.md", "```\n# no\n```\n# yes", "yes", "```\n# no\n```\n# yes"),
        ("a.md", "---\n# a comment\n---\n# yes", "yes", "---\n# a comment\n---\n# yes"),
        ("a.markdown", "No heading.", "a", "No heading."),
        ("a.txt", "\n The first line \nand more", "The first line", "\n The first line \nand more"),
        ("a.txt", "x" * 201, "a", "x" * 201),
        ("a.txt", "", "a", ""),
        ("a.md", "# " + "x" * 300, "x" * 199 + "…", "# " + "x" * 300),
    ],
)
def test_each_kind_of_file_is_read(
    journeyman: Journeyman, tmp_path: Path, name: str, text: str, title: str, content: str
) -> None:
    (tmp_path / name).write_bytes(text.encode())

    journeyman("import", name).ok()

    (post,) = posts(journeyman)
    assert (post["title"], post["content"]) == (title, content)


def test_run_again_it_imports_nothing_twice(journeyman: Journeyman, tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text(rows("one", "two"))

    assert journeyman("import", "a.jsonl").ok() == "2 documents in 1 files: 2 imported, 0 here already.\n"
    assert journeyman("import", "a.jsonl").ok() == "2 documents in 1 files: 0 imported, 2 here already.\n"

    (tmp_path / "a.jsonl").write_text(rows("zero", "one", "two", "three"))
    assert counted(journeyman, "a.jsonl")["imported"] == 2, "only what is new"
    assert len(posts(journeyman)) == 4


def test_the_same_text_twice_in_one_file_is_two_posts(journeyman: Journeyman, tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text(rows("one", "one"))

    assert counted(journeyman, "a.jsonl")["imported"] == 2
    assert counted(journeyman, "a.jsonl")["already"] == 2
    (tmp_path / "b.jsonl").write_text(rows("one"))
    assert counted(journeyman, "b.jsonl")["imported"] == 1, "another file's is another post"


def test_an_id_of_the_files_own_is_kept_and_never_overwritten(journeyman: Journeyman, tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("title,content,post_id\nT,C,mine\nU,D,\n")
    assert counted(journeyman, "a.csv")["imported"] == 2
    assert posts(journeyman)[0]["post_id"] == "mine"
    assert counted(journeyman, "a.csv")["already"] == 2

    (tmp_path / "a.csv").write_text("title,content,post_id\nT,changed,mine\n")
    refused = journeyman("import", "a.csv")

    refused.mistake("There is a post mine already.")
    assert "a.csv, line 2" in refused.err


def test_folders_are_searched_and_a_file_is_read_once(journeyman: Journeyman, tmp_path: Path) -> None:
    (tmp_path / "in/deep/.hidden").mkdir(parents=True)
    (tmp_path / "in/deep/a.txt").write_text("A")
    (tmp_path / "in/b.md").write_text("# B")
    (tmp_path / "in/picture.png").write_bytes(b"\x89PNG")
    (tmp_path / "in/deep/.hidden/c.txt").write_text("C")
    (tmp_path / "in/.d.txt").write_text("D")

    said = journeyman("import", "in", "in/b.md", "in/deep").ok()

    assert said == "2 documents in 2 files, 1 of other kinds passed over: 2 imported, 0 here already.\n"


@pytest.mark.parametrize(
    ("name", "data", "words", "kept"),
    [
        ("a.jsonl", rows("x").encode() + b'{"title": "T"}\n', "a.jsonl, line 2: Object missing required field", 1),
        ("a.jsonl", b'{"title": "T", "content": "C", "date": 1}', "a.jsonl, line 1: Object contains unknown field", 0),
        ("a.jsonl", b"\n\nnonsense", "a.jsonl, line 3: JSON is malformed", 0),
        ("a.jsonl", rows("x", "y").encode() + b'{"title": "\xff", "content": ""}', "line 3: this is not UTF-8", 2),
        ("a.jsonl", b'{"title": "T", "content": "' + b"x" * 4_300_000, "line 1: it has more than 4194304 bytes", 0),
        ("a.jsonl", (rows("x") + rows("")).encode(), "length >= 1 - at `$.title`", 1),
        ("a.jsonl", b'{"title": "T", "content": "' + b"x" * 600_000 + b'"}', "the limit is 524288", 0),
        ("a.csv", b"title,text\nT,C\n", "a.csv, line 1: it must name the columns title, content", 0),
        ("a.csv", b"", "a.csv, line 1: it must name the columns", 0),
        ("a.csv", b"title,title,content\nT,C,D\n", "a.csv, line 1: it must name the columns", 0),
        ("a.csv", b"title,content\nT,C\nT\n", "a.csv, line 3: it has 1 values for 2 columns", 1),
        ("a.csv", b'title,content\n"T\nU",C\nT,"C\n\n', "a.csv, line 4: this is no CSV", 1),
        ("a.csv", b"title,content\nT,C\n\xff,C\n", "a.csv, line 3: this is not UTF-8", 1),
        ("a.md", b"# T\n\n\xc3\x28", "a.md, line 3: this is not UTF-8", 0),
        ("a.txt", b"x" * 600_000, "a.txt: it has more than 524288 bytes", 0),
    ],
)
def test_a_fault_is_told_with_its_line_and_what_was_kept(
    journeyman: Journeyman, tmp_path: Path, name: str, data: bytes, words: str, kept: int
) -> None:
    (tmp_path / name).write_bytes(data)

    refused = journeyman("import", name)

    refused.mistake(words)
    assert f"Kept: {kept} imported, 0 here already; importing again doubles nothing." in refused.err
    assert f"{name}, line" in refused.err or name.endswith(".txt")
    assert len(posts(journeyman)) == kept


def test_all_before_a_faulty_line_is_kept_over_many_batches_and_the_rest_comes_once_it_is_mended(
    journeyman: Journeyman, tmp_path: Path
) -> None:
    titles = [f"number {number}" for number in range(450)]
    (tmp_path / "a.jsonl").write_text(rows(*titles[:333]) + "oops\n" + rows(*titles[333:]))
    journeyman("import", "a.jsonl").mistake("a.jsonl, line 334")

    (tmp_path / "a.jsonl").write_text(rows(*titles))

    assert counted(journeyman, "a.jsonl") == {
        "documents": 450, "imported": 117, "already": 333, "files": 1, "passed_over": 0,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["none.csv"], "none.csv: there is no such file or folder"),
        (["a.docx"], "a.docx: it is none of the kinds that can be read: .jsonl, .ndjson, .csv, .md, .markdown, .txt"),
    ],
)
def test_a_wrong_path_is_one_line(journeyman: Journeyman, tmp_path: Path, arguments: list[str], words: str) -> None:
    (tmp_path / "a.docx").write_bytes(b"PK")

    journeyman("import", *arguments).mistake(words)


def test_a_file_that_can_not_be_read_is_one_line(journeyman: Journeyman, tmp_path: Path) -> None:
    (tmp_path / "a.csv").symlink_to("a.csv")

    journeyman("import", ".").mistake("a.csv: Too many levels of symbolic links")


def test_an_application_without_the_function_says_how_to_write_it(journeyman: Journeyman, tmp_path: Path) -> None:
    (tmp_path / "shop.py").write_text(SHOP)
    (tmp_path / "a.txt").write_text("A")

    journeyman("--app", "shop:app", "import", "a.txt").mistake("define import_command(*, title, content, post_id)")


def test_what_the_application_has_forgotten_the_log_still_knows(
    journeyman: Journeyman, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only the newest idempotency keys are kept in the state: an import may be older, or larger."""
    (tmp_path / "a.jsonl").write_text(rows("one", "two"))
    counted(journeyman, "a.jsonl")
    forget: Callable[..., None] = lambda *_, **__: None  # noqa: E731  # as if 100,000 keyed commands had followed
    monkeypatch.setattr(Receipts, "find", forget)

    assert counted(journeyman, "a.jsonl")["already"] == 2


def test_it_works_while_another_process_runs_the_workers(journeyman: Journeyman, tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text(rows("one", "two", "three"))
    with started("work", cwd=tmp_path, says="Ctrl-C stops it") as (process, _):
        assert counted(journeyman, "a.jsonl")["imported"] == 3
        until(lambda: all(post["summary_status"] == "done" for post in posts(journeyman)))
        assert stopped(process) == 0


def test_ctrl_c_keeps_what_is_recorded_and_the_next_run_goes_on(journeyman: Journeyman, tmp_path: Path) -> None:
    (tmp_path / "interrupted.py").write_text(
        "import os, signal\n"
        "from journeyman.examples.blog.app import app\n"
        "from journeyman.examples.blog.posts import CreatePost\n"
        "def import_command(*, title, content, post_id):\n"
        "    if title == 'number 300' and os.environ.get('INTERRUPT'):\n"
        "        os.kill(os.getpid(), signal.SIGINT)\n"
        "    return CreatePost(post_id=post_id, title=title, content=content)\n"
    )
    (tmp_path / "a.jsonl").write_text(rows(*(f"number {number}" for number in range(450))))

    process = start("--app", "interrupted:app", "import", "a.jsonl", cwd=tmp_path, INTERRUPT="yes")
    _, error = process.communicate(timeout=60)

    assert process.returncode == 130
    assert error == "Stopped. Kept, at least: 200 imported, 0 here already; importing again goes on from there.\n"
    again = json.loads(journeyman("--app", "interrupted:app", "import", "a.jsonl", "--json").ok())
    assert again["already"] + again["imported"] == 450
    assert again["already"] >= 200
