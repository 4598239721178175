"""One command is recorded and one question answered from a shell, and what can't be is said in one line."""

from __future__ import annotations

import io
import json
from types import SimpleNamespace

import pytest

from tests.doors.cli.terminal import Journeyman

POST = '{"post_id": "one", "title": "A title", "content": "Text."}'


def test_a_command_is_recorded_with_its_actor_and_a_query_sees_it(journeyman: Journeyman) -> None:
    said = journeyman("execute", "posts/create", POST, "--actor", "anna").ok()

    assert said.startswith("Recorded at position 1, id ")
    assert json.loads(journeyman("log", "show", "1", "--json").ok())["actor"] == "anna"
    answer = json.loads(journeyman("query", "posts/get", '{"post_id": "one"}', "--json").ok())
    assert answer["title"] == "A title"


def test_a_person_sees_an_answer_as_names_and_values(journeyman: Journeyman, monkeypatch: pytest.MonkeyPatch) -> None:
    journeyman("execute", "posts/create", POST)

    said = journeyman("query", "posts/list").ok()
    monkeypatch.setenv("COLUMNS", "60")
    narrow = journeyman("query", "posts/list").ok()

    assert "total  1" in said
    assert "summary_status" in said.splitlines()[4], "a table"
    assert "title           A title" in narrow, "where a table has no room, one name a line"
    assert max(map(len, narrow.splitlines())) <= 60


def test_without_a_name_of_its_own_the_actor_is_the_user(
    journeyman: Journeyman, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LOGNAME", "berta")

    journeyman("execute", "posts/create", POST).ok()

    assert json.loads(journeyman("log", "show", "1", "--json").ok())["actor"] == "operator:berta"


def test_the_same_key_records_once(journeyman: Journeyman) -> None:
    first = json.loads(journeyman("execute", "posts/create", POST, "--idempotency-key", "k", "--json").ok())
    second = json.loads(journeyman("execute", "posts/create", POST, "--idempotency-key", "k", "--json").ok())

    assert not first["repeated"]
    assert second == {**first, "repeated": True}
    assert "by an earlier call" in journeyman("execute", "posts/create", POST, "--idempotency-key", "k").ok()


def test_the_body_may_come_from_standard_input(journeyman: Journeyman, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", SimpleNamespace(buffer=io.BytesIO(POST.encode())))

    journeyman("execute", "posts/create", "-").ok()

    assert json.loads(journeyman("query", "posts/list", "--json").ok())["total"] == 1


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["posts/creat", "{}"], "There is no command named 'posts/creat'. Known: journeyman/discard-job"),
        (["posts/create", "{}"], "posts/create: Object missing required field"),
        (["posts/create", '{"post_id": "x"'], "posts/create: "),
        (["posts/create", "[]"], "Expected `object`, got `array`"),
        (["posts/create", '{"post_id": "x", "title": "", "content": ""}'], "length >= 1"),
        (["posts/delete", '{"post_id": "x"}'], "There is no post x"),
        (["journeyman/job-started", "{}"], "the framework alone records"),
        (["journeyman/message-set-aside", "{}"], "the framework alone records"),
        (["journeyman/pause-worker", '{"worker": "nobody"}'], "nobody"),
    ],
)
def test_a_mistake_is_one_line(journeyman: Journeyman, arguments: list[str], words: str) -> None:
    journeyman("execute", *arguments).mistake(words)


def test_an_operators_command_is_taken(journeyman: Journeyman) -> None:
    journeyman("execute", "journeyman/pause-worker", '{"worker": "posts/summaries"}').ok()

    assert json.loads(journeyman("worker", "list", "--json").ok())[0]["status"] == "paused"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["posts/lis"], "There is no query named 'posts/lis'. Known: posts/get, posts/list."),
        (["posts/get"], "posts/get: Object missing required field"),
        (["posts/list", '{"page": 0}'], "Expected `int` >= 1"),
        (["posts/get", '{"post_id": "x"}'], "There is no post x."),
    ],
)
def test_a_wrong_question_is_one_line(journeyman: Journeyman, arguments: list[str], words: str) -> None:
    journeyman("execute", "posts/create", POST)

    journeyman("query", *arguments).mistake(words)


def test_a_question_creates_no_store(journeyman: Journeyman) -> None:
    journeyman("query", "posts/list").mistake("There is no store sqlite:///blog.db yet")
