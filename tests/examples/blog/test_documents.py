"""The standard library's docstrings make about a hundred documents, the same on every run, without an import."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from journeyman.examples.blog import documents
from journeyman.examples.blog.documents import (
    CHARACTERS_MAX,
    CHARACTERS_MIN,
    DOCUMENTS_MAX,
    TITLE_CHARACTERS_MAX,
    standard_library_documents,
)


def test_there_are_about_a_hundred_in_order_and_no_two_have_one_name() -> None:
    names = [document.name for document in standard_library_documents()]

    assert 80 <= len(names) <= DOCUMENTS_MAX
    assert names == sorted(set(names))


def test_they_are_the_same_each_time() -> None:
    assert list(standard_library_documents()) == list(standard_library_documents())


def test_they_are_real_text_within_the_bounds_and_fit_into_json() -> None:
    for document in standard_library_documents():
        assert CHARACTERS_MIN <= len(document.content) <= CHARACTERS_MAX
        assert document.title.startswith(document.name)
        assert len(document.title) <= TITLE_CHARACTERS_MAX
        document.content.encode()


def test_a_document_begins_with_its_module_and_goes_on_with_its_classes() -> None:
    heapq = next(document for document in standard_library_documents() if document.name == "heapq")

    assert heapq.title == "heapq: Heap queue algorithm (a.k.a. priority queue)."
    assert heapq.content.startswith("Heap queue algorithm")
    assert "Push item onto heap, maintaining the heap invariant." in heapq.content


def test_no_module_is_imported() -> None:
    code = """
import sys, sysconfig
sys.path.insert(0, sys.argv[1])
import documents
sysconfig.get_path("stdlib")  # imports a module with its own data
before = set(sys.modules)
assert list(documents.standard_library_documents())
print(sorted(set(sys.modules) - before))
"""
    folder = str(Path(documents.__file__).parent)
    ran = subprocess.run(
        [sys.executable, "-I", "-W", "error", "-c", code, folder], capture_output=True, text=True, check=True
    )

    assert ran.stdout.strip() == "[]"


@pytest.mark.skipif(not Path("/usr/bin/python3").exists(), reason="This system has no Python of its own.")
def test_the_systems_own_python_has_them_too() -> None:
    code = (
        "import json, sys; sys.path.insert(0, sys.argv[1]); import documents; "
        "print(json.dumps([document.name for document in documents.standard_library_documents()]))"
    )
    folder = str(Path(documents.__file__).parent)
    ran = subprocess.run(
        ["/usr/bin/python3", "-I", "-B", "-c", code, folder], capture_output=True, text=True, check=True
    )

    assert len(json.loads(ran.stdout)) >= 80


def test_a_library_without_source_files_has_no_documents(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sysconfig.get_path", lambda name: str(tmp_path / name))

    assert list(standard_library_documents()) == []


def test_half_a_surrogate_pair_is_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sysconfig.get_path", lambda name: str(tmp_path))
    (tmp_path / "abc.py").write_text('"""Half of a pair: \\ud800. ' + "Words. " * 100 + '"""')

    [document] = standard_library_documents()

    assert document.content.startswith("Half of a pair: ?.")
