"""docs/cli.md tells of every command and every option, of no others, and so does --help."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer.main

from journeyman.doors.cli.main import cli
from tests.doors.cli.terminal import Journeyman

REFERENCE = Path(__file__).parents[3] / "docs/cli.md"


def commands(command: Any, path: str = "journeyman") -> Iterator[tuple[str, Any]]:
    """Every command that does something, by its full name: the root with its options, and the leaves of the tree."""
    children = getattr(command, "commands", {})
    if path == "journeyman" or not children:
        yield path, command
    for name, child in children.items():
        yield from commands(child, f"{path} {name}")


TREE = dict(commands(typer.main.get_command(cli)))
SECTIONS = {
    section.partition("\n")[0]: section for section in REFERENCE.read_text().split("\n## ")[1:]
}  # fmt: skip


def options(command: Any) -> set[str]:
    return {name for parameter in command.params for name in parameter.opts if name.startswith("-")} - {"--help"}


def test_every_command_has_its_section_and_no_other() -> None:
    assert SECTIONS.keys() == TREE.keys()


def test_every_option_stands_in_its_commands_section_and_no_other() -> None:
    for path, command in TREE.items():
        told = set(re.findall(r"`(--?[a-z][a-z-]*)`", "".join(re.findall(r"^\| `-.*?\|", SECTIONS[path], re.M))))
        assert told == options(command), path


def test_every_command_and_option_has_its_help(journeyman: Journeyman) -> None:
    for path, command in TREE.items():
        assert command.help, path
        for parameter in command.params:
            assert getattr(parameter, "help", ""), f"{path}: {parameter.name}"
        said = journeyman(*path.split()[1:], "--help").ok()
        assert said.startswith(f"Usage: {path} ")
