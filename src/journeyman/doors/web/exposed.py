"""What of an application can be reached through this door."""

from __future__ import annotations

from typing import Any, get_args

from journeyman.feature import Catalog, CommandType, Query, QueryType
from journeyman.message import INTERNAL_PREFIX
from journeyman.todo.jobs import OPERATOR_COMMANDS


def exposed_commands(catalog: Catalog) -> list[CommandType]:
    """The features' commands, and those of the framework's that are a person's to give: its facts can't come in."""
    return [
        command
        for name, command in sorted(catalog.commands.items())
        if not name.startswith(INTERNAL_PREFIX) or command.message_type.body in OPERATOR_COMMANDS
    ]


def exposed_queries(catalog: Catalog) -> list[QueryType]:
    """The features' queries."""
    return [query for name, query in sorted(catalog.queries.items()) if not name.startswith(INTERNAL_PREFIX)]


def result_type(query: type[Query[Any]]) -> Any:
    """The T of a `Query[T]`; Any where it can't be told."""
    for base in getattr(query, "__orig_bases__", ()):
        arguments = get_args(base)
        if arguments and not hasattr(arguments[0], "__bound__"):
            return arguments[0]
    return Any
