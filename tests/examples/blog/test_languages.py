"""A text's language is told by its function words, and an unknown one still has words."""

import pytest

from journeyman.examples.blog.posts.languages import LANGUAGES, UNKNOWN, guess_language, stemmer, terms

TEXTS = {
    "en": "The tides are the regular rise and fall of the sea, and they are caused by the moon.",
    "de": "Die Gezeiten sind die regelmäßigen Bewegungen des Meeres, die durch den Mond und die Sonne entstehen.",
    "fr": "Les marées sont les mouvements de la mer qui sont causés par la lune et par le soleil.",
    "es": "Las mareas son los movimientos del mar que causan la luna y el sol, y suben dos veces al día.",
    "it": "Le maree sono i movimenti del mare che sono causati dalla luna e dal sole.",
    "pt": "As marés são os movimentos do mar causados pela lua e pelo sol, e sobem duas vezes ao dia.",
    "nl": "De getijden zijn de bewegingen van de zee die worden veroorzaakt door de maan en de zon.",
    "sv": "Tidvatten är havets rörelser som orsakas av månen och solen, och det stiger två gånger om dagen.",
    "ru": "Приливы и отливы — это движения моря, которые вызваны луной и солнцем.",
}


@pytest.mark.parametrize(("code", "text"), TEXTS.items())
def test_each_language_is_told(code: str, text: str) -> None:
    assert guess_language(text).code == code


def test_each_language_that_can_be_told_has_a_text_here() -> None:
    assert {language.code for language in LANGUAGES} == TEXTS.keys()


@pytest.mark.parametrize(
    "text",
    [
        "",
        "Gelgit, ayın ve güneşin çekim gücüyle denizin düzenli hareketidir. Su günde iki kez yükselir.",
        "潮汐是海水在月球和太阳引力作用下的周期性运动。",
    ],
)
def test_any_other_text_is_of_an_unknown_language(text: str) -> None:
    assert guess_language(text) is UNKNOWN


def test_terms_are_words_in_lower_case_without_digits() -> None:
    assert terms("The 2 Moons' tides, naïve café_au") == ["the", "moons", "tides", "naïve", "café", "au"]


def test_a_script_without_spaces_gives_its_characters() -> None:
    assert terms("潮汐 is 海") == ["潮", "汐", "is", "海"]


def test_vowel_signs_don_t_break_words() -> None:
    assert terms("पानी दिन") == ["पानी", "दिन"]


@pytest.mark.parametrize("language", LANGUAGES, ids=lambda language: language.code)
def test_each_language_has_a_stemmer(language: object) -> None:
    known = next(one for one in LANGUAGES if one is language)

    assert known.stemmer is not None
    assert stemmer(known)("x") == "x"


def test_stems_join_the_forms_of_a_word_and_an_unknown_language_keeps_them_apart() -> None:
    english = guess_language(TEXTS["en"])

    assert stemmer(english)("connections") == stemmer(english)("connected")
    assert stemmer(UNKNOWN)("connections") == "connections"
