"""What is read is what was written, in any version and under any former name; what can't be read is refused."""

from __future__ import annotations

import math
from typing import Annotated, Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Meta as Constraint

from journeyman.codec import Codec, MessageType, Upcaster, check_name, decode_meta, encode_meta, merge_schemas
from journeyman.errors import DefinitionError, Invalid, Undecodable
from journeyman.feature import Command
from journeyman.message import NO_META, Meta, ReactionStep
from journeyman.testing.records import make_records


class Tag(msgspec.Struct, frozen=True):
    """What a post is about."""

    word: str


class Save(Command):
    """Save a post."""

    post_id: str
    title: Annotated[str, Constraint(min_length=1, max_length=20)]
    score: float | None = None
    tags: tuple[Tag, ...] = ()
    votes: dict[int, int] = msgspec.field(default_factory=dict)


def make_codec(
    body: type[Any] = Save,
    *,
    name: str = "posts/save",
    version: int = 1,
    former_names: tuple[str, ...] = (),
    upcasters: dict[int, Upcaster] | None = None,
) -> Codec:
    return Codec(
        [MessageType(name=name, body=body, version=version, former_names=former_names, upcasters=upcasters or {})]
    )


saves = st.builds(
    Save,
    post_id=st.text(),
    title=st.text(min_size=1, max_size=20),
    score=st.none() | st.floats(allow_nan=False, allow_infinity=False),
    tags=st.lists(st.builds(Tag, word=st.text()), max_size=3).map(tuple),
    votes=st.dictionaries(st.integers(), st.integers(), max_size=3),
)


@given(saves)
def test_a_body_is_read_as_it_was_written(body: Save) -> None:
    codec = make_codec()
    assert codec.decode_body("posts/save", 1, codec.encode(body)) == body


@given(saves)
def test_equal_bodies_have_equal_bytes(body: Save) -> None:
    codec = make_codec()
    turned = msgspec.structs.replace(body, votes=dict(reversed(body.votes.items())))
    assert codec.encode(turned) == codec.encode(body)


@pytest.mark.parametrize("score", [math.nan, math.inf, -math.inf])
def test_a_number_that_json_can_not_say_is_refused_and_never_becomes_null(score: float) -> None:
    with pytest.raises(Invalid, match="NaN or infinite"):
        make_codec().encode(Save(post_id="p", title="t", score=score))


def test_null_and_the_word_null_are_no_nan() -> None:
    codec = make_codec()
    body = Save(post_id="null", title="null", score=None)
    assert codec.decode_body("posts/save", 1, codec.encode(body)) == body


@pytest.mark.parametrize("value", ["\ud800", object(), 1j])
def test_a_value_of_no_json_type_is_refused(value: object) -> None:
    with pytest.raises(Invalid):
        make_codec().encode(Save(post_id=value, title="t"))  # type: ignore[arg-type]


def test_what_python_did_not_check_is_found_in_the_bytes() -> None:
    codec = make_codec()
    with pytest.raises(Undecodable, match=r"Expected `str`, got `int` - at `\$.post_id`") as caught:
        codec.decode_body("posts/save", 1, codec.encode(Save(post_id=7, title="t")))  # type: ignore[arg-type]
    assert not caught.value.newer
    with pytest.raises(Undecodable, match="length <= 20"):
        codec.decode_body("posts/save", 1, codec.encode(Save(post_id="p", title="t" * 21)))


@pytest.mark.parametrize("data", [b"", b"[]", b'{"post_id":"p"', b'{"post_id":"\xff","title":"t"}', b"[" * 100_000])
def test_damaged_bytes_are_undecodable(data: bytes) -> None:
    with pytest.raises(Undecodable):
        make_codec().decode_body("posts/save", 1, data)


class Picky(Command):
    number: int

    def __post_init__(self) -> None:
        if self.number > 1:
            raise KeyError(self.number)


def test_whatever_a_body_raises_on_reading_makes_it_undecodable() -> None:
    codec = make_codec(Picky)
    assert codec.decode_body("posts/save", 1, b'{"number":1}') == Picky(number=1)
    with pytest.raises(Undecodable, match="2"):
        codec.decode_body("posts/save", 1, b'{"number":2}')


def test_a_name_or_version_that_is_not_known_is_from_newer_code() -> None:
    codec = make_codec()
    with pytest.raises(Undecodable, match="no command is named posts/other") as unknown:
        codec.decode_body("posts/other", 1, b"{}")
    with pytest.raises(Undecodable, match="its version is 2, this code knows up to 1") as newer:
        codec.decode_body("posts/save", 2, b"{}")
    assert unknown.value.newer
    assert newer.value.newer


def test_a_version_that_never_was_is_damage() -> None:
    with pytest.raises(Undecodable, match="versions count from 1") as caught:
        make_codec().decode_body("posts/save", 0, b'{"post_id":"p","title":"t"}')
    assert not caught.value.newer


# Old versions and former names.


def name_to_title(body: dict[str, Any]) -> dict[str, Any]:
    return {"post_id": body["post_id"], "title": body["name"]}


def count_votes(body: dict[str, Any]) -> dict[str, Any]:
    return {**body, "votes": {"7": 1}}


def test_old_versions_are_made_new_step_by_step() -> None:
    codec = make_codec(version=3, upcasters={2: name_to_title, 3: count_votes}, former_names=("posts/write",))
    wanted = Save(post_id="p", title="t", votes={7: 1})
    assert codec.decode_body("posts/save", 1, b'{"post_id":"p","name":"t"}') == wanted
    assert codec.decode_body("posts/write", 2, b'{"post_id":"p","title":"t"}') == wanted
    assert codec.decode_body("posts/save", 3, b'{"post_id":"p","title":"t","votes":{"7":1}}') == wanted


def test_what_an_upcaster_makes_is_checked_like_any_body() -> None:
    codec = make_codec(version=2, upcasters={2: lambda body: {**body, "title": ""}})
    with pytest.raises(Undecodable, match="length >= 1"):
        codec.decode_body("posts/save", 1, b'{"post_id":"p","title":"t"}')
    broken_upcasters: list[Upcaster] = [lambda body: body["absent"], lambda body: {"post_id": object()}]
    for broken in broken_upcasters:
        codec = make_codec(version=2, upcasters={2: broken})
        with pytest.raises(Undecodable) as caught:
            codec.decode_body("posts/save", 1, b'{"post_id":"p","title":"t"}')
        assert not caught.value.newer


@pytest.mark.parametrize(
    ("version", "upcasters"), [(2, {}), (3, {2: count_votes}), (1, {2: count_votes}), (2, {1: count_votes}), (0, {})]
)
def test_each_version_from_two_has_exactly_one_upcaster(version: int, upcasters: dict[int, Upcaster]) -> None:
    with pytest.raises(DefinitionError, match="version"):
        make_codec(version=version, upcasters=upcasters)


@pytest.mark.parametrize(
    ("first", "second"),
    [(("a/b", ()), ("a/b", ())), (("a/b", ()), ("a/c", ("a/b",))), (("a/b", ("a/old",)), ("a/c", ("a/old",)))],
)
def test_a_name_once_used_belongs_to_one_command(first: tuple[str, Any], second: tuple[str, Any]) -> None:
    kinds = [MessageType(name=name, body=Save, former_names=former) for name, former in (first, second)]
    with pytest.raises(DefinitionError, match="belongs to one command"):
        Codec(kinds)


@pytest.mark.parametrize("name", ["save", "set-summary", "v2", "a-1"])
def test_names_are_words_joined_by_hyphens(name: str) -> None:
    check_name("command", name)


@pytest.mark.parametrize("name", ["", "Save", "set_summary", "-a", "a-", "a--b", "a/b", "2nd", "ä", "a\n"])
def test_names_of_any_other_form_are_refused(name: str) -> None:
    with pytest.raises(DefinitionError, match="lower-case words"):
        check_name("command", name)


# The meta.


@given(
    st.builds(
        Meta,
        reaction=st.none() | st.builds(ReactionStep, st.text(), st.text(), st.integers(1), st.integers(1)),
        error=st.none() | st.text(),
    )
)
def test_meta_is_read_as_it_was_written(meta: Meta) -> None:
    record = msgspec.structs.replace(make_records(1, name="posts/save", body=b'{"post_id":"p","title":"t"}')[0])
    record = msgspec.structs.replace(record, meta=encode_meta(meta))
    assert make_codec().decode(record).meta == meta


def test_meta_of_newer_code_is_read_for_what_is_known() -> None:
    assert decode_meta(b'{"error":"e","unheard-of":1}') == Meta(error="e")
    assert encode_meta(NO_META) is None


@pytest.mark.parametrize("data", [b"", b"[]", b'{"error":1}', b'{"error":"\xff"}'])
def test_damaged_meta_is_undecodable(data: bytes) -> None:
    with pytest.raises(Undecodable, match="meta is damaged"):
        decode_meta(data)


# The schema file.


class Renamed(Command):
    """Other prose, another name, and the fields in another order: the same JSON."""

    votes: dict[int, int] = msgspec.field(default_factory=dict)
    tags: tuple[Tag, ...] = ()
    score: float | None = None
    title: Annotated[str, Constraint(min_length=1, max_length=20, description="The headline.", title="Headline")]
    post_id: str


class Narrower(Command):
    post_id: str
    title: Annotated[str, Constraint(min_length=1, max_length=19)]
    score: float | None = None
    tags: tuple[Tag, ...] = ()
    votes: dict[int, int] = msgspec.field(default_factory=dict)


class OtherTag(msgspec.Struct, frozen=True):
    word: int


class OtherWithin(Command):
    post_id: str
    title: Annotated[str, Constraint(min_length=1, max_length=20)]
    score: float | None = None
    tags: tuple[OtherTag, ...] = ()
    votes: dict[int, int] = msgspec.field(default_factory=dict)


class Titled(Command):
    title: str
    description: str


class Untitled(Command):
    pass


class Chain(Command):
    value: int
    rest: Chain | None = None


RECORDED, _ = merge_schemas(make_codec(), {})


def faults_of(codec: Codec, recorded: dict[str, Any] = RECORDED) -> list[str]:
    merged, faults = merge_schemas(codec, msgspec.json.decode(msgspec.json.encode(recorded)))
    for name, versions in recorded.items():
        assert versions == {version: merged[name][version] for version in versions}, "what is recorded stays"
    return faults


def test_the_same_schema_and_a_new_command_are_no_faults() -> None:
    assert faults_of(make_codec()) == []
    assert merge_schemas(make_codec(), RECORDED) == (RECORDED, [])
    merged, faults = merge_schemas(make_codec(), {})
    assert list(merged) == ["posts/save"]
    assert not faults


def test_prose_and_the_names_of_classes_and_the_order_of_fields_may_change() -> None:
    assert faults_of(make_codec(Renamed)) == []
    chained, _ = merge_schemas(make_codec(Chain), {})
    assert faults_of(make_codec(Chain), chained) == []


@pytest.mark.parametrize("body", [Narrower, OtherWithin, Untitled])
def test_a_changed_field_without_a_new_version_is_a_fault(body: type[Any]) -> None:
    (fault,) = faults_of(make_codec(body))
    assert "posts/save version 1 has another schema than before: make it version 2" in fault
    assert faults_of(make_codec(body, version=2, upcasters={2: name_to_title})) == []


def test_fields_named_like_prose_are_fields() -> None:
    recorded, _ = merge_schemas(make_codec(Titled), {})
    assert faults_of(make_codec(Untitled), recorded)


def test_a_version_that_goes_back_is_a_fault() -> None:
    recorded, _ = merge_schemas(make_codec(version=2, upcasters={2: name_to_title}), RECORDED)
    assert sorted(recorded["posts/save"]) == ["1", "2"]
    assert faults_of(make_codec(version=2, upcasters={2: name_to_title}), recorded) == []
    (fault,) = faults_of(make_codec(), recorded)
    assert fault == "posts/save has version 1 now, but version 2 is recorded: versions only grow"


def test_a_removed_command_is_a_fault_unless_it_is_a_former_name() -> None:
    (fault,) = faults_of(make_codec(name="posts/keep"))
    assert fault.startswith("posts/save can't be read any more")
    assert faults_of(make_codec(name="posts/keep", former_names=("posts/save",))) == []


def test_what_was_recorded_under_a_former_name_binds_the_command_of_today() -> None:
    (changed,) = faults_of(make_codec(Narrower, name="posts/keep", former_names=("posts/save",)))
    assert changed.startswith("posts/save version 1 has another schema")
    recorded, _ = merge_schemas(make_codec(version=2, upcasters={2: name_to_title}), {})
    (back,) = faults_of(make_codec(name="posts/keep", former_names=("posts/save",)), recorded)
    assert "version 2 is recorded" in back
