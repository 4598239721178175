"""The application and the store are named by option, environment, pyproject.toml or the application, in that order."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.doors.cli.terminal import SHOP, Finished, Journeyman


@pytest.fixture(autouse=True)
def two_shops(tmp_path: Path) -> None:
    for name in ("shop", "market"):
        (tmp_path / f"{name}.py").write_text(SHOP.replace("shop", name))


def seen(journeyman: Journeyman, *options: str) -> tuple[str, str]:
    view: dict[str, Any] = json.loads(journeyman(*options, "inspect", "--json").ok())
    return view["features"][0], view["store"]


def test_each_source_goes_before_the_next(
    journeyman: Journeyman, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert seen(journeyman) == ("posts", "sqlite:///blog.db"), "the example, and its own store"

    (tmp_path / "pyproject.toml").write_text('[tool.journeyman]\napp = "shop:app"\n')
    assert seen(journeyman) == ("shop", "sqlite:///shop.db"), "the application's own store"

    (tmp_path / "pyproject.toml").write_text('[tool.journeyman]\napp = "shop:app"\nstore = "sqlite:///project.db"\n')
    assert seen(journeyman) == ("shop", "sqlite:///project.db")

    monkeypatch.setenv("JOURNEYMAN_APP", "market:app")
    monkeypatch.setenv("JOURNEYMAN_STORE", "sqlite:///environment.db")
    assert seen(journeyman) == ("market", "sqlite:///environment.db")

    assert seen(journeyman, "--app", "shop", "--store", "sqlite:///option.db") == ("shop", "sqlite:///option.db")


def test_a_password_in_the_stores_url_is_not_shown(journeyman: Journeyman) -> None:
    url = "postgresql://anna:secret:/@word@db/blog"

    assert seen(journeyman, "--store", url)[1] == "postgresql://anna@db/blog"
    assert "secret" not in journeyman("--store", url, "inspect").ok()
    refused = journeyman("--store", url, "log", "tail")
    assert refused.code == 1
    assert "secret" not in refused.err


def test_help_loads_nothing_that_it_does_not_need() -> None:
    """It answers at once. What serves, draws, or opens a store is loaded by the commands that do."""
    heavy = ["rich", "litestar", "uvicorn", "apsw", "sentencex", "openai", "importlib.metadata"]
    script = f"import journeyman.doors.cli as door, sys; print([name for name in {heavy} if name in sys.modules])"
    finished = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True)

    assert finished.stdout == "[]\n"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[tool.journeyman]\napp = 7\n", "Expected `str | null`, got `int`"),
        ('[tool.journeyman]\napps = "shop:app"\n', "unknown field `apps`"),
        ("[tool.journeyman\n", "pyproject.toml"),
        ('[tool.journeyman]\napp = ":app"\n', "There is no module ''"),
        ('[tool.journeyman]\napp = "shop:nothing"\n', "shop has no App named 'nothing'"),
    ],
)
def test_a_wrong_pyproject_is_one_line(journeyman: Journeyman, tmp_path: Path, text: str, words: str) -> None:
    (tmp_path / "pyproject.toml").write_text(text)

    journeyman("inspect").mistake(words)


def test_a_pyproject_of_others_says_nothing(journeyman: Journeyman, tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_text('[project]\nname = "x"\n')

    assert seen(journeyman)[0] == "posts"


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("1 +", "SyntaxError: invalid syntax (shop.py, line 1)"),
        ("1 / 0", "ZeroDivisionError: division by zero ("),
        ("from journeyman import App, Feature, State\nFeature('A B', state=State)", "The feature name 'A B' must be"),
    ],
)
def test_an_application_that_can_not_be_imported_is_one_line(
    journeyman: Journeyman, tmp_path: Path, line: str, words: str
) -> None:
    (tmp_path / "shop.py").write_text(line)

    journeyman("--app", "shop:app", "inspect").mistake(words)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["lag"], "No such command 'lag'"),
        (["log", "tail", "-n", "many"], "Try: journeyman log tail --help"),
        (["log", "show"], "Missing argument 'position'"),
        (["serve", "--prot", "1"], "No such option"),
        (["serve", "--port", "70000"], "65535"),
    ],
)
def test_a_command_line_that_makes_no_sense_is_one_line(
    journeyman: Journeyman, arguments: list[str], words: str
) -> None:
    finished = journeyman(*arguments)

    Finished(finished.code, finished.out, finished.err.lower()).mistake(words.lower(), code=2)
