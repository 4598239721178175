"""Tokens that could be guessed are refused, and no text of a token leaves the place where it was read."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from journeyman import DefinitionError
from journeyman.doors.web.tokens import OPERATOR_VARIABLE, READER_VARIABLE, TOKEN_BITS_MIN, bits_of, new_token
from journeyman.doors.web.tokens import read_tokens as read

GOOD = "Vq3bA9_xK-27cTtWm0sR1eZdL5uJyH8p"
OTHER = "0f9e8d7c6b5a49382716051423324150"


def test_a_new_token_is_taken_and_no_two_are_the_same() -> None:
    made = [new_token() for _ in range(50)]
    assert len(set(made)) == 50
    for token in made:
        assert read({OPERATOR_VARIABLE: token}).find(token) is not None


def test_the_environment_names_operators_and_readers() -> None:
    tokens = read({OPERATOR_VARIABLE: f"anna:{GOOD}", READER_VARIABLE: OTHER})

    found = tokens.find(GOOD), tokens.find(OTHER)
    assert [(token.actor, token.role) for token in found if token] == [
        ("operator:anna", "operator"),
        ("reader", "reader"),
    ]
    assert tokens.find(f"anna:{GOOD}") is None
    assert tokens.find("") is None
    assert tokens.find(GOOD[:-1]) is None
    assert tokens.find("ä" * 40 + "\udc80") is None


def test_several_tokens_stand_in_one_variable_so_that_one_can_be_replaced() -> None:
    tokens = read({OPERATOR_VARIABLE: f"anna:{GOOD} anna:{OTHER}"})
    assert [token.actor for token in tokens] == ["operator:anna", "operator:anna"]


def test_a_file_names_them_too(tmp_path: Path) -> None:
    file = tmp_path / "tokens"
    file.write_text(f"# who may act\noperator anna:{GOOD}  # from Monday on\n\nreader {OTHER}\n")
    file.chmod(0o600)

    assert [token.actor for token in read({}, file)] == ["operator:anna", "reader"]


def test_nobody_is_asked_where_nothing_names_a_token() -> None:
    assert len(read({})) == 0
    assert len(read({OPERATOR_VARIABLE: " "})) == 0


@pytest.mark.parametrize(
    "weak",
    [
        "secret",
        "correct-horse-battery",
        "1" * 60,
        "0123456789" * 3,
        "abababababababababababababababababababab",
        "00112233445566778899aabbccddee",
        "qwertyuiopasdfghjklzxcvbn",
    ],
)
def test_a_token_that_could_be_guessed_is_refused_and_not_repeated(weak: str) -> None:
    with pytest.raises(DefinitionError, match=r"JOURNEYMAN_OPERATOR_TOKEN .*128 bits.*journeyman token") as caught:
        read({OPERATOR_VARIABLE: weak})
    assert weak not in str(caught.value)


@pytest.mark.parametrize("malformed", ["an na:b", "anna:", f"anna:ben:{GOOD}", f"{GOOD}€", f":{GOOD}", f'"{GOOD}"'])
def test_what_is_no_token_is_refused_and_not_repeated(malformed: str) -> None:
    with pytest.raises(DefinitionError) as caught:
        read({READER_VARIABLE: malformed})
    assert GOOD not in str(caught.value)


def test_a_token_belongs_to_one_role() -> None:
    with pytest.raises(
        DefinitionError, match=r"JOURNEYMAN_READER_TOKEN .*JOURNEYMAN_OPERATOR_TOKEN has, too"
    ) as caught:
        read({OPERATOR_VARIABLE: GOOD, READER_VARIABLE: f"ben:{GOOD}"})
    assert GOOD not in str(caught.value)


@pytest.mark.parametrize("line", [f"admin {GOOD}", GOOD, f"operator {GOOD} more", "operator"])
def test_a_wrong_line_of_a_file_is_told_by_its_number(tmp_path: Path, line: str) -> None:
    file = tmp_path / "tokens"
    file.write_text(f"\n{line}\n")
    with pytest.raises(DefinitionError, match="Line 2 of ") as caught:
        read({}, file)
    assert GOOD not in str(caught.value)


def test_a_file_that_can_not_be_read_is_told(tmp_path: Path) -> None:
    with pytest.raises(DefinitionError, match="can't be read"):
        read({}, tmp_path / "none")


def test_a_file_that_everybody_can_read_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    file = tmp_path / "tokens"
    file.write_text(f"operator {GOOD}\n")
    for mode, told in ((0o600, 0), (0o640, 0), (0o644, 1)):
        file.chmod(mode)
        caplog.clear()
        with caplog.at_level(logging.WARNING):
            read({}, file)
        assert len(caplog.records) == told
        assert GOOD not in caplog.text


def test_nothing_that_is_kept_shows_the_token() -> None:
    [token] = tokens = read({OPERATOR_VARIABLE: f"anna:{GOOD}"})
    shown = repr(token) + repr(tokens) + repr([getattr(token, name) for name in token.__slots__])
    assert GOOD not in shown


@pytest.mark.parametrize(("secret", "bits"), [("12345678" * 5, 132.9), ("0a" * 16, 128.0), ("aZ" * 11, 125.4)])
def test_the_bits_of_a_token_follow_from_its_length_and_alphabet(secret: str, bits: float) -> None:
    assert bits_of(secret) == pytest.approx(bits, abs=0.1)
    assert (bits >= TOKEN_BITS_MIN) == (bits_of(secret) >= TOKEN_BITS_MIN)
