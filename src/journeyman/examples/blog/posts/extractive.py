"""Summaries without a service: the sentences of a document that are closest to what all of it is about.

A sentence is a vector of its words' stems. The centroid of all these vectors, drawn towards the title, stands for
the document, and the sentences nearest to it, in their own order, are the summary (Radev and others, "Centroid-based
summarization of multiple documents", 2004). It needs no key, no network and no download, and it takes time in
proportion to the length of the document.
"""

from __future__ import annotations

import asyncio
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import chain
from typing import TypeAlias

from journeyman import GiveUp

from .languages import Language, guess_language, stemmer, terms
from .prose import cut, is_sentence, paragraphs, sentences

#: How many sentences a summary has at most.
SENTENCES_PICKED_MAX = 3
#: How many sentences of a document are compared; of a longer one, this many, evenly spread.
SENTENCES_COMPARED_MAX = 500
#: How many words a sentence has at least.
WORDS_MIN = 4
#: How much the title draws the centroid; 1 would make it as heavy as the whole text.
TITLE_WEIGHT = 0.5
#: How much the first sentence is preferred to a late one; the second gets half of it, the third a third.
LEAD_BONUS = 0.5
#: Sentences closer than this say the same, so that one of them is enough.
SAME_CLOSENESS = 0.7

#: Terms with their weights; its length is 1, or it is empty.
Vector: TypeAlias = Mapping[str, float]


class ExtractiveSummarizer:
    """Summarises with sentences of the document itself. The work is done in a thread, so the event loop goes on."""

    description = "extractive: the document's own central sentences, offline"

    def __init__(self, *, characters_max: int) -> None:
        self._characters_max = characters_max

    async def summarize(self, title: str, content: str, *, key: str) -> str:
        """The most central sentences of `content`, in their order. The same text always gives the same summary.

        Raises:
            GiveUp: there is no running text in it.
        """
        return await asyncio.to_thread(extract, title, content, characters_max=self._characters_max)

    async def close(self) -> None:
        """Nothing is open."""


def extract(title: str, content: str, *, characters_max: int) -> str:
    """The most central sentences of `content`, in their order; all of it, if it is short."""
    text = paragraphs(content)
    if not text:
        raise GiveUp("There is nothing to summarise: the text is empty, or holds only code and markup.")
    language = guess_language(" ".join(text))
    found = _candidates(text, language, characters_max)
    if not found:
        return cut(" ".join(text), language.code, characters_max=characters_max)
    return _most_central(title, found, language, characters_max)


def _candidates(text: Sequence[str], language: Language, characters_max: int) -> Sequence[str]:
    """The sentences that can stand in a summary, evenly thinned out where there are too many to compare."""
    found = [
        sentence
        for sentence in chain.from_iterable(sentences(paragraph, language.code) for paragraph in text)
        if len(sentence) <= characters_max and is_sentence(sentence) and len(terms(sentence)) >= WORDS_MIN
    ]
    return found[:: math.ceil(len(found) / SENTENCES_COMPARED_MAX) or 1]


def _most_central(title: str, found: Sequence[str], language: Language, characters_max: int) -> str:
    title_vector, *vectors = _vectors([title, *found], language)
    target = _sum([_unit(_sum(vectors)), _scaled(title_vector, TITLE_WEIGHT)])
    scores = [_closeness(vector, target) * (1 + LEAD_BONUS / (1 + i)) for i, vector in enumerate(vectors)]
    ranked = sorted(range(len(found)), key=lambda i: (-scores[i], i))
    picked = _pick(ranked, found, vectors, characters_max)
    return " ".join(found[i] for i in sorted(picked))


def _pick(ranked: Sequence[int], found: Sequence[str], vectors: Sequence[Vector], characters_max: int) -> Sequence[int]:
    """The best sentences that fit together and don't repeat each other."""
    picked: list[int] = []
    room = characters_max
    for i in ranked:
        repeats = any(_closeness(vectors[i], vectors[other]) > SAME_CLOSENESS for other in picked)
        if len(found[i]) <= room and not repeats:
            picked.append(i)
            room -= len(found[i]) + 1
        if len(picked) == SENTENCES_PICKED_MAX:
            break
    return picked


def _vectors(texts: Sequence[str], language: Language) -> list[Vector]:
    """One vector a text: a term counts for more the more often it is in this text and the fewer texts it is in."""
    stem = stemmer(language)
    bags = [Counter(stem(term) for term in terms(text) if term not in language.function_words) for text in texts]
    texts_with = Counter(chain.from_iterable(bags))
    return [_unit({term: n * math.log(1 + len(bags) / texts_with[term]) for term, n in bag.items()}) for bag in bags]


def _sum(vectors: Sequence[Vector]) -> Vector:
    total: dict[str, float] = {}
    for vector in vectors:
        for term, weight in vector.items():
            total[term] = total.get(term, 0.0) + weight
    return total


def _scaled(vector: Vector, factor: float) -> Vector:
    return {term: weight * factor for term, weight in vector.items()}


def _unit(vector: Vector) -> Vector:
    length = math.hypot(*vector.values())
    return _scaled(vector, 1 / length) if length else vector


def _closeness(one: Vector, other: Vector) -> float:
    """The dot product: the cosine of the angle between two vectors of length 1."""
    return sum(weight * other.get(term, 0.0) for term, weight in one.items())
