"""Which language a text is in, told by its function words, and the stems of that language."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import snowballstemmer

#: How many characters of a text are looked at to tell its language.
SAMPLE_CHARACTERS = 5_000
#: The share of a text's words that must be function words of a language for it to be that language.
SHARE_MIN = 0.15

# A term is one character of a script that puts no spaces between words, or else a run of letters with their marks.
# Python's \w leaves out the vowel signs of Hebrew, Arabic and the scripts of India, which would break their words.
_UNSPACED = r"\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff"
_MARKS = r"\u0300-\u036f\u0591-\u05c7\u064b-\u0652\u0900-\u0963\u0981-\u0dff"
_TERM = re.compile(rf"[{_UNSPACED}]|(?:[^\W\d_{_UNSPACED}]|[{_MARKS}])+")


@dataclass(frozen=True, slots=True)
class Language:
    """What a summary needs to know of a language. `stemmer` is None where there is none: words stay as they are."""

    code: str
    stemmer: str | None
    function_words: frozenset[str]


def _language(code: str, stemmer: str, function_words: str) -> Language:
    return Language(code, stemmer, frozenset(function_words.split()))


LANGUAGES = (
    _language(
        "en",
        "english",
        "the of and to a in is it that for as with on this be are by not or from at an which can if will has have was "
        "were its but when then than these those any each may into only other such there their they you your we he "
        "she his her so no do does did been also more some one all would could should about out up what who how",
    ),
    _language(
        "de",
        "german",
        "der die das und ist in den von zu mit sich des auf für nicht ein eine einer einem einen als auch es an "
        "werden aus er hat dass sie nach wird bei noch wie über so sind war wurde oder aber wenn nur man im am zum "
        "zur vom dem durch kann können ihre sein seine wir ich mehr vor unter bis haben hatte diese dieser dieses",
    ),
    _language(
        "fr",
        "french",
        "le la les de des du un une et est en que qui dans pour pas par sur plus avec ce cette ces il elle ils elles "
        "au aux se ne sont été être ou où son sa ses leur leurs mais comme nous vous je on y l d qu c n s a ont avait "
        "fait tout tous même aussi bien sans sous entre",
    ),
    _language(
        "es",
        "spanish",
        "el la los las de del y que en un una es por con no se su sus para como más pero al lo le les o este esta "
        "estos estas ese esa son fue ha han ser está están también entre cuando muy sin sobre hasta hay donde quien "
        "desde todo todos nos ya porque era",
    ),
    _language(
        "it",
        "italian",
        "il lo la i gli le di del della dei delle e è che in un una uno per con non si su da dal dalla al alla nel "
        "nella come più ma anche se sono ha hanno questo questa questi essere stato l d o suo sua loro ci ne quando "
        "dove molto tra fra era",
    ),
    _language(
        "pt",
        "portuguese",
        "o a os as de do da dos das e que em um uma é por com não se para como mais mas ao à no na nos nas seu sua ou "
        "este esta são foi ser está também entre quando muito sem sobre até há onde quem desde pelo pela já tem isso "
        "ele ela eles era",
    ),
    _language(
        "nl",
        "dutch",
        "de het een en van in is dat op te met voor niet zijn aan er om ook als bij door uit naar maar over nog dan "
        "wat worden wordt werd was die dit deze ze hij zij hun haar je we of tot kan kunnen heeft hebben had meer "
        "geen al onder tegen",
    ),
    _language(
        "sv",
        "swedish",
        "och i att det som en på är av för med den till inte om ett har de var han hon kan från men så vid eller när "
        "ska skall detta denna dessa under efter mycket också blev bli blir sig sin sitt sina man hade utan mot där "
        "här mellan alla över",
    ),
    _language(
        "ru",
        "russian",
        "и в не на что с по как это он она они к из у за от о для но так же бы все его её их был была было были при "
        "или то до ли если когда только ещё уже мы вы я где который которая которые быть может чтобы со во под над "
        "также",
    ),
)
#: For every other language: no stems and no function words; `en` splits its sentences well enough.
UNKNOWN = Language("en", None, frozenset())


def guess_language(text: str) -> Language:
    """The language whose function words are most frequent in the beginning of `text`, or UNKNOWN."""
    counts = Counter(terms(text[:SAMPLE_CHARACTERS]))
    hits, language = max(((_hits(counts, language), language) for language in LANGUAGES), key=lambda pair: pair[0])
    return language if hits > SHARE_MIN * counts.total() else UNKNOWN


def _hits(counts: Counter[str], language: Language) -> int:
    return sum(counts[word] for word in language.function_words)


def terms(text: str) -> list[str]:
    """The words of `text` in lower case; where a script puts no spaces between words, its characters."""
    return _TERM.findall(text.lower())


def stemmer(language: Language) -> Callable[[str], str]:
    """A function from a word to its stem. It is new each time, since Snowball's stemmers are not for two threads."""
    if language.stemmer is None:
        return str
    stem: Callable[[str], str] = snowballstemmer.stemmer(language.stemmer).stemWord
    return lru_cache(maxsize=None)(stem)
