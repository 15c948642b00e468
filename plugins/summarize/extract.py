"""A summary without a model: the sentences whose words say most, in the order in which they were said."""

from __future__ import annotations

import functools
import re
import unicodedata
from collections import Counter
from collections.abc import Iterator
from math import sqrt

# A stretch of more words without an end is no sentence but a caption without punctuation: it is cut into pieces.
MOST_WORDS = 50
PIECE_WORDS = 25
# A shorter one says too little, whatever its words.
FEWEST_WORDS = 4
# In a text of some length a word that stands in two sentences of five is a stop word of its language.
COMMON_SHARE, COMMON_FROM = 0.4, 12

# Chinese and Japanese are written without spaces: there each character counts as a word.
_UNSPACED = "\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
_TOKEN = re.compile(rf"[{_UNSPACED}]|[^\s{_UNSPACED}]+")
# An empty line, or a full stop, question or exclamation mark that no small letter follows.
_END = re.compile(r"\n\s*\n|(?<![.!?…؟।])[.!?…؟।]+[\"'”’»)\]]*\s+(?=\S)|[。！？]+[」』”）]*\s*(?=\S)")
_STOP_WORDS = frozenset("""
    a about after all also am an and any are aren't as at back be because been before being but by can can't come
    could did didn't do does doesn't doing don't down even for from get go going gonna got had has have having he
    her here him his how i i'd i'll i'm i've if in into is isn't it it's its just know let's like little look lot
    make me more most much my no not now of off oh ok okay on one only or other our out over really right said say
    see she should so some something sort than that that's the their them then there there's these they they're
    thing things think this those through to too uh um up us very want was wasn't way we we'll we're we've well were
    what what's when where which while who why will with would yeah yes you you'll you're you've your
""".split())


def summary(text: str, sentences: int) -> str:
    """Return at most `sentences` sentences of `text`, a paragraph each. The same text gives the same summary."""
    parts = list(split(text))
    said = [words(part) for part in parts]
    content = [tuple(dict.fromkeys(one)) for one in _without_stop_words(said)]
    weights = Counter(word for one in content for word in one)
    worth = {word: float(count) for word, count in weights.items()}
    left = [index for index, one in enumerate(said) if len(one) >= FEWEST_WORDS] or list(range(len(parts)))
    chosen = []
    while left and len(chosen) < sentences:
        best = max(left, key=lambda index: (_score(content[index], worth) * _place(index, len(parts)), -index))
        left.remove(best)
        chosen.append(best)
        # What has been said once is worth less the next time, so that no sentence is chosen in two wordings.
        for word in content[best]:
            worth[word] /= 4
    return "\n\n".join(parts[index] for index in sorted(chosen))


def split(text: str) -> Iterator[str]:
    """Yield the sentences of `text`, each on one line; a stretch that is too long for one in pieces."""
    start = 0
    for end in _END.finditer(text):
        if not text[end.end():end.end() + 1].islower():
            yield from _pieces(" ".join(text[start:end.end()].split()))
            start = end.end()
    yield from _pieces(" ".join(text[start:].split()))


def words(text: str) -> list[str]:
    """Return the words of `text`, without their punctuation and without difference of case."""
    stripped = (_stripped(match[0]) for match in _TOKEN.finditer(text))
    return [word.replace("’", "'").casefold() for word in stripped if word]


def _pieces(sentence: str) -> Iterator[str]:
    tokens = [token for token in _TOKEN.finditer(sentence) if _stripped(token[0])]
    if not tokens:
        return
    count = len(tokens)
    # Pieces of about the same length: a short rest would never be chosen.
    number = 1 if count <= MOST_WORDS else round(count / PIECE_WORDS)
    starts = [tokens[count * piece // number].start() for piece in range(1, number)]
    for start, end in zip([0, *starts], [*starts, len(sentence)], strict=False):
        yield sentence[start:end].rstrip()


# Few words make up a text.
@functools.lru_cache(maxsize=20_000)
def _stripped(token: str) -> str:
    # By category, as `str.isalnum` takes the vowel signs of many scripts for punctuation.
    start, end = 0, len(token)
    while start < end and unicodedata.category(token[start])[0] not in "LMN":
        start += 1
    while start < end and unicodedata.category(token[end - 1])[0] not in "LMN":
        end -= 1
    return token[start:end]


def _without_stop_words(said: list[list[str]]) -> list[list[str]]:
    spread = Counter(word for one in said for word in set(one))
    limit = len(said) * COMMON_SHARE if len(said) >= COMMON_FROM else len(said)
    return [[word for word in one if word not in _STOP_WORDS and spread[word] <= limit] for one in said]


def _score(content: tuple[str, ...], worth: dict[str, float]) -> float:
    # The root: a sum would choose the longest sentence, a mean the shortest.
    return sum(worth[word] for word in content) / sqrt(len(content)) if content else 0.0


def _place(index: int, count: int) -> float:
    """Return what a place in the text is worth: who speaks begins with the subject and ends with a result."""
    if index < max(1, count // 10):
        return 1.2
    return 1.1 if index >= count - max(1, count // 10) else 1.0
