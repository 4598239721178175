"""A feature declares its commands, queries and state once, under names that nobody else has."""

from __future__ import annotations

import re
from typing import Any

import msgspec
import pytest

from journeyman.errors import DefinitionError, UnknownName
from journeyman.feature import Catalog, Command, Feature, InternalFeature, Query
from journeyman.message import Message
from journeyman.tables import State, Table


class Account(msgspec.Struct, frozen=True):
    name: str


class AccountsState(State):
    accounts: Table[str, Account] = Table(Account, key="name")


class EmptyState(State):
    pass


class Open(Command):
    """Fields with defaults may stand before fields without."""

    note: str = ""
    name: str


class Close(Command):
    name: str


class CountAccounts(Query[int]):
    def run(self, state: AccountsState) -> int:
        return len(state.accounts)


class ListAccounts(Query[list[str]]):
    def run(self, state: AccountsState) -> list[str]:
        return [account.name for account in state.accounts]


def make_accounts() -> Feature[AccountsState]:
    accounts = Feature("accounts", state=AccountsState)
    accounts.command("open", subject="name")(Open)
    accounts.query("count")(CountAccounts)
    return accounts


# What plain classes become.


def test_a_command_is_frozen_and_built_by_keywords() -> None:
    command = Open(name="ann")
    with pytest.raises(AttributeError):
        command.name = "bob"  # type: ignore[misc]
    with pytest.raises(TypeError):
        Open("", "ann")  # type: ignore[call-arg]
    assert (command.name, command.note) == ("ann", "")


@pytest.mark.parametrize("kind", [Open, CountAccounts])
def test_unknown_fields_are_refused(kind: type[Any]) -> None:
    with pytest.raises(msgspec.ValidationError, match="unknown field"):
        msgspec.json.decode(b'{"name":"ann","age":7}', type=kind)


def test_a_command_allows_all_and_changes_nothing_until_it_says_so() -> None:
    message: Any = None
    Close(name="ann").validate(None, message)
    Close(name="ann").apply(None, message)


# The catalog.


def test_what_is_declared_is_found_by_class_and_by_name() -> None:
    catalog = Catalog([make_accounts()])
    kind = catalog.command_of(Open(name="ann"))
    assert (kind.name, kind.feature, kind.subject_of(Open(name="ann"))) == ("accounts/open", "accounts", "ann")
    assert catalog.commands["accounts/open"] is kind
    assert catalog.name_of(Open) == "accounts/open"
    assert catalog.query_of(CountAccounts()).name == "accounts/count"
    assert catalog.codec.knows("accounts/open")
    assert list(catalog.new_state().features) == ["accounts"]


def test_what_is_not_declared_is_unknown_and_what_is_known_is_told() -> None:
    catalog = Catalog([make_accounts()])
    with pytest.raises(UnknownName, match=r"no command named 'Close'\. Known: accounts/open"):
        catalog.command_of(Close(name="ann"))
    with pytest.raises(UnknownName, match=r"no query named 'ListAccounts'\. Known: accounts/count"):
        catalog.query_of(ListAccounts())
    with pytest.raises(DefinitionError, match="Close belongs to no feature"):
        catalog.name_of(Close)


def refuse(declare: Any, text: str) -> None:
    with pytest.raises(DefinitionError, match=re.escape(text)):
        declare()


def test_a_name_is_declared_once() -> None:
    accounts = make_accounts()
    refuse(lambda: accounts.command("open")(Close), "accounts/open is declared twice")
    refuse(lambda: accounts.query("count")(ListAccounts), "accounts/count is declared twice")
    refuse(lambda: Catalog([make_accounts(), make_accounts()]), "Two features are named 'accounts'")


def test_a_class_is_declared_once() -> None:
    accounts = make_accounts()
    accounts.command("open-again")(Open)
    refuse(lambda: Catalog([accounts]), "Open is registered twice")
    accounts = make_accounts()
    accounts.query("count-again")(CountAccounts)
    refuse(lambda: Catalog([accounts]), "CountAccounts is registered twice")


@pytest.mark.parametrize("former", ["open", "accounts/open", "opened", "accounts/opened"])
def test_a_former_name_belongs_to_one_command_too(former: str) -> None:
    accounts = Feature("accounts", state=AccountsState)
    accounts.command("open", former_names=["opened"])(Open)
    accounts.command("close", former_names=[former])(Close)
    refuse(lambda: Catalog([accounts]), "A name, once used, belongs to one command")


def test_two_parts_of_the_framework_have_no_message_name_in_common() -> None:
    one, two = (InternalFeature(name, state=EmptyState) for name in ("one", "two"))
    one.command("done")(Open)
    two.command("done")(Close)
    refuse(lambda: Catalog([one, two]), "Two commands are named journeyman/done")
    three, four = (InternalFeature(name, state=AccountsState) for name in ("three", "four"))
    three.query("all")(CountAccounts)
    four.query("all")(ListAccounts)
    refuse(lambda: Catalog([three, four]), "Two queries are named journeyman/all")


def test_the_frameworks_name_is_its_own() -> None:
    refuse(lambda: Catalog([Feature("journeyman", state=EmptyState)]), "the framework's own")
    refuse(lambda: Feature("journeyman/jobs", state=EmptyState), "lower-case words")


def test_names_are_checked_where_they_are_given() -> None:
    accounts = make_accounts()
    refuse(lambda: Feature("Accounts", state=EmptyState), "feature name 'Accounts'")
    refuse(lambda: accounts.command("Close"), "command name 'Close'")
    refuse(lambda: accounts.command("close", former_names=["Shut"]), "command name 'Shut'")
    refuse(lambda: accounts.command("close", former_names=["a/b/c"]), "command name 'b/c'")
    refuse(lambda: accounts.query("list_all"), "query name 'list_all'")


def test_a_subject_is_a_field() -> None:
    accounts = make_accounts()
    refuse(lambda: accounts.command("close", subject="account")(Close), "Close has no field 'account'")
    kind = Catalog([accounts]).command_of(Open(name="ann"))
    assert kind.subject_of(msgspec.structs.replace(Open(name="ann"), name=None)) is None


# Old names and versions.


def test_old_messages_are_read_under_their_former_names_even_of_another_feature() -> None:
    accounts = Feature("accounts", state=AccountsState)
    accounts.command("open", version=2, former_names=["create", "users/sign-up"])(Open)
    accounts.upcast("open", to=2)(lambda body: {"name": body["who"]})
    codec = Catalog([accounts]).codec
    for name in ("accounts/open", "accounts/create", "users/sign-up"):
        assert codec.decode_body(name, 1, b'{"who":"ann"}') == Open(name="ann")
    assert not codec.knows("accounts/sign-up")
    assert not codec.knows("users/create")


def test_upcasters_belong_to_versions_that_are_there() -> None:
    accounts = make_accounts()
    accounts.upcast("close", to=2)(lambda body: body)
    refuse(lambda: Catalog([accounts]), "an upcaster for accounts/close, but no such command")
    accounts = make_accounts()
    accounts.upcast("open", to=2)(lambda body: body)
    refuse(lambda: accounts.upcast("open", to=2)(lambda body: {}), "two upcasters to version 2")
    refuse(lambda: Catalog([accounts]), "accounts/open has version 1")


# One feature reads another's state.


def test_a_feature_finds_its_state_from_any_features() -> None:
    accounts, blog = make_accounts(), Feature("blog", state=EmptyState)
    state = Catalog([accounts, blog]).new_state()
    found = accounts.of(state.features["blog"])
    assert found is state.features["accounts"]
    with pytest.raises(DefinitionError, match="The state of accounts is AccountsState, not EmptyState"):
        Feature("accounts", state=EmptyState).of(state.features["blog"])


# A job of one function.


async def summarize(message: Message[Open]) -> str:
    return message.body.name


async def without_type(message):  # type: ignore[no-untyped-def]  # noqa: ANN001
    return message


def test_a_function_becomes_three_commands_of_its_feature() -> None:
    accounts = make_accounts()
    job = accounts.job("greet", on=Open)(summarize)
    assert job.name == "accounts/greet"
    catalog = Catalog([accounts])
    assert [catalog.name_of(kind) for kind in (job.request, job.set, job.fail)] == [
        "accounts/request-greet",
        "accounts/set-greet",
        "accounts/fail-greet",
    ]
    with pytest.raises(msgspec.ValidationError, match="Expected `str`"):
        msgspec.json.decode(b'{"request_id":"r","subject":null,"result":7}', type=job.set)


def test_a_function_that_does_not_say_what_it_returns_is_no_job() -> None:
    accounts = make_accounts()
    refuse(lambda: accounts.job("greet", on=Open)(without_type), "without_type needs a return type")
    accounts.job("greet", on=Open)(summarize)
    refuse(lambda: accounts.job("greet", on=Open)(summarize), "accounts/request-greet is declared twice")
