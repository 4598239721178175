"""What the documents show is true: their code runs, and prints what they say it prints.

In a document, a fence ```` ```python NAME.py ```` is a file, ```` ```python NAME.py + ```` adds to it, and
```` ```console test ```` has commands behind `$ ` with their output, in which … stands for anything.
"""

from __future__ import annotations

import importlib
import inspect
import os
import re
import subprocess
import sys
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import urlopen

import pytest

ROOT = Path(__file__).parent.parent
FENCE = re.compile(r"^```(\S+)([^\n]*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def fences(document: str) -> list[tuple[str, list[str], str]]:
    """(language, further words, text) of each fence of a document."""
    text = (ROOT / document).read_text()
    return [(language, words.split(), body) for language, words, body in FENCE.findall(text)]


def python_of(document: str) -> list[str]:
    return [body for language, _, body in fences(document) if language == "python"]


def run(command: str, folder: Path) -> str:
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    environment.pop("JOURNEYMAN_STORE", None)
    finished = subprocess.run(  # noqa: S602  # the commands are the project's own documents
        command,
        shell=True,
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert finished.returncode == 0, f"{command}\n{finished.stdout}{finished.stderr}"
    return finished.stdout


def shown_runs(body: str) -> list[tuple[str, str]]:
    """(command, the output that the document shows) for each command of a console fence."""
    parts = re.split(r"^\$ ", body, flags=re.MULTILINE)[1:]
    return [(command, output) for command, _, output in (part.partition("\n") for part in parts)]


def as_pattern(output: str) -> str:
    return ".*".join(re.escape(piece) for piece in output.strip().split("…"))


@pytest.mark.parametrize("document", ["docs/tutorial.md"])
def test_a_document_followed_from_top_to_bottom_prints_what_it_says(document: str, tmp_path: Path) -> None:
    commands = 0
    for language, words, body in fences(document):
        if language == "python" and words:
            mode = "a" if "+" in words else "w"
            with (tmp_path / words[0]).open(mode) as file:
                file.write("\n\n" + body)
        if language == "console" and "test" in words:
            for command, output in shown_runs(body):
                commands += 1
                assert re.fullmatch(as_pattern(output), run(command, tmp_path).strip(), re.DOTALL), command
    assert commands >= 5


def test_the_pages_of_the_document_take_a_note_and_tell_what_is_wrong(tmp_path: Path) -> None:
    for _, words, body in fences("docs/pages.md"):
        if words:
            (tmp_path / words[0]).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / words[0]).write_text(body)
    command = [sys.executable, "-m", "journeyman", "--app", "notes:app", "--store", "memory:", "serve", "--port", "0"]
    with subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            url = process.stdout.readline().split()[1]
            empty = ask(url)
            [proof] = re.findall(r'name="_csrf" value="([^"]*)"', empty)
            wrong = ask(url, f"_csrf={proof}&_key=k1&text=".encode())
            note = f"_csrf={proof}&_key=k2&text=%3Cb%3Ehello".encode()
            written, again = ask(url, note), ask(url, note)
        finally:
            process.terminate()

    assert "Nothing is noted yet." in empty
    assert "It must have at least 1 character." in wrong
    assert written.count("&lt;b&gt;hello") == again.count("&lt;b&gt;hello") == 1


def ask(url: str, form: bytes | None = None) -> str:
    """The page that a browser ends up with, whatever its status."""
    try:
        with urlopen(url, form, timeout=30) as answer:  # noqa: S310  # our own server
            return str(answer.read().decode())
    except HTTPError as error:
        with error:
            return error.read().decode()


def test_every_python_file_of_a_document_can_be_imported(tmp_path: Path) -> None:
    for language, words, body in fences("docs/tutorial.md"):
        if language == "python" and words and words[0] == "upcast_example.py":
            (tmp_path / words[0]).write_text(body)
            run(f"python {words[0]}", tmp_path)
            return
    pytest.fail("the tutorial shows no upcaster any more")


def test_the_tour_of_the_readme_runs_and_is_under_a_hundred_lines(tmp_path: Path) -> None:
    code = python_of("README.md")[1]
    assert len(code.splitlines()) < 100
    (tmp_path / "desk.py").write_text(code)

    for _ in range(2):  # The second run repeats the command under its key, and finds the answer in the log.
        assert run("python desk.py", tmp_path) == (
            "[Ticket(ticket_id='t1', text='The server is down!', urgency='high')]\n"
        )


def test_the_worker_of_the_readme_does_its_job(tmp_path: Path) -> None:
    code = python_of("README.md")[0]
    assert len(code.splitlines()) <= 25
    (tmp_path / "notes.py").write_text(code)
    (tmp_path / "story.py").write_text(
        "import asyncio\n"
        "from notes import AddNote, app\n"
        "async def main():\n"
        "    async with app.running():\n"
        "        await app.execute(AddNote(note_id='n1', text='hello'))\n"
        "        while True:\n"
        "            for record in await app.store.log.read(0, 100):\n"
        "                if record.name == 'notes/set-shout':\n"
        "                    return print(record.body.decode())\n"
        "            await app.store.log.wait(app.position, 1.0)\n"
        "asyncio.run(main())\n"
    )

    assert '"result":"HELLO"' in run("python story.py", tmp_path)


@pytest.mark.parametrize("document", ["README.md", *(str(p.relative_to(ROOT)) for p in (ROOT / "docs").rglob("*.md"))])
def test_links_between_documents_lead_somewhere(document: str) -> None:
    text = (ROOT / document).read_text()
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)", text):
        if "://" not in target:
            assert ((ROOT / document).parent / target).exists(), f"{document} links to {target}"


def test_every_symbol_and_every_test_of_the_seed_table_exists() -> None:
    text = (ROOT / "docs/seed.md").read_text()
    rows = [line.split("|") for line in text.splitlines() if line.startswith("| ") and "---" not in line]
    rows = [row for row in rows if "the plan says" not in row[1]]
    assert len(rows) >= 30
    for _, statement, where, tests, _ in rows:
        symbols = re.findall(r"`(journeyman[\w.]*):([\w.]+)`", where)
        assert symbols, f"no symbol for: {statement}"
        for module, path in symbols:
            check_symbol(module, path)
        names = re.findall(r"`(tests/[\w/.]+)::(\w+)`", tests)
        assert names, f"no test for: {statement}"
        for file, name in names:
            assert re.search(rf"def {name}\(", (ROOT / file).read_text()), f"{file} has no {name}"


def check_symbol(module: str, path: str) -> None:
    found = importlib.import_module(module)
    for name in path.split("."):
        annotated = getattr(found, "__annotations__", {})
        if name in annotated and not hasattr(found, name):
            return
        # An attribute that __init__ sets is looked for in its source.
        if not hasattr(found, name):
            assert f"self.{name} =" in inspect.getsource(found), f"{module} has no {path}"
            return
        found = getattr(found, name)
