"""Tool search: ranks tools by how well they answer a question, in engineers' words and several languages.

Each word of a question, and the synonyms that the vocabulary lists for it, are searched in the names, titles,
descriptions, arguments and answers of the tools. The intent of a question (to read, to change or to destroy something)
decides which tools may rank first.
"""

from __future__ import annotations

import math
import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from functools import cached_property, lru_cache
from typing import Any

from itwin_mcp.capability.catalog import Tool
from itwin_mcp.capability.parameters import list_choices
from itwin_mcp.capability.vocabulary import OtherApi, Vocabulary
from itwin_mcp.text import find_similar

MAX_WORDS = 40
"""Words of a question that are looked at."""
_NAME, _DESCRIPTION, _TOOLSET, _ARGUMENTS, _CHOICES, _ANSWERS = 3.0, 1.0, 1.0, 0.4, 0.3, 0.2
"""The weight of a word by where it was found; titles count like names."""
_MEANING = 0.9
"""The weight of a synonym from the vocabulary, relative to the word itself."""
_COVERED = 1.0
"""The bonus if the question contains all words of the name."""
_LITERAL = 0.3
"""The bonus for words in exactly the same form: `changesets` asks for a list, `changeset` for one."""
_PHRASE = 3.0
"""The weight of a phrase by which people ask for the tool."""
_MIN_PHRASE = 0.6
"""The share of a phrase that the question must contain."""
_SILENT = 0.3
"""The weight of a stop word in a phrase; other words weigh 0.7 to 5."""
_UNASKED = 0.6
"""The factor for a reading tool if the question asks for a change, and the other way round."""
_MIN_SHARE = 0.2
"""Hits below this share of the best score are omitted."""
_MIN_PART = 4
"""The shortest word of the vocabulary that is recognized at the start of a longer word."""
_MIN_TYPO = 5
"""The shortest word in which typos are recognized."""
_TYPO_LENGTH = 2
_TYPO_LIKENESS = 0.8
_IN_WORD = re.compile(r"([a-z0-9])([A-Z])")
_PREFIXED = re.compile(r"\b([a-z])([A-Z])(?=[a-z])")
"""The beginning of a name such as iTwin or iModel, which is one word."""
_WORD = re.compile(r"[^\W_]+")


class Intent(Enum):
    """The intent of a question."""

    READ = "read"
    WRITE = "write"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Hits:
    """The tools that answer a question, best first, and the platform's APIs that do what this server cannot."""

    tools: tuple[Tool, ...]
    other_apis: tuple[OtherApi, ...]
    weak: bool
    """Whether the question contains no more than the verb of the best tool."""


@dataclass(frozen=True, slots=True)
class _Term:
    """A word or phrase of a question: its own stem, and its possible meanings, each a tuple of stems."""

    follows: str
    """The word before it."""
    word: str
    said: str | None
    meanings: tuple[tuple[str, ...], ...]

    @property
    def stems(self) -> Iterator[str]:
        if self.said is not None:
            yield self.said
        for meaning in self.meanings:
            yield from meaning


@dataclass(frozen=True)
class _Question:
    """A question, prepared for comparison with the tools."""

    text: str
    said: tuple[str, ...]
    terms: tuple[_Term, ...]
    intent: Intent

    @cached_property
    def words(self) -> frozenset[str]:
        return frozenset(self.said)

    @cached_property
    def meant(self) -> frozenset[str]:
        """Every word of the question, as written and as a stem, and all its possible meanings."""
        return frozenset((*self.said, *(part for term in self.terms for part in term.stems)))


@dataclass(frozen=True, slots=True)
class _Phrase:
    """A phrase by which people ask for a tool: its terms with their weights, and the sum of these."""

    terms: tuple[tuple[_Term, float], ...]
    whole: float

    def match(self, meant: frozenset[str]) -> float:
        """Return a score for how much of the phrase the question contains, by rarity; 0 below `_MIN_PHRASE`."""
        said = sum(weight for term, weight in self.terms if _is_meant(term, meant))
        share = said / self.whole if self.whole else 0.0
        return share * share * said if share >= _MIN_PHRASE else 0.0


@dataclass(frozen=True, slots=True)
class _Entry:
    """A tool, prepared for the search: the stems of its texts with their weights."""

    tool: Tool
    name: tuple[str, ...]
    title: tuple[str, ...]
    words: frozenset[str]
    weights: Mapping[str, float]


class ToolIndex:
    """An index of tools. Building it takes about 0.1 s, so build it at the first search."""

    def __init__(self, tools: Iterable[Tool], vocabulary: Vocabulary) -> None:
        self._vocabulary = vocabulary
        self._silent = {fold(word) for word in vocabulary.silent}
        self._asking = tuple(map(fold, vocabulary.asking))
        self._verbs = {
            **dict.fromkeys(map(stem, vocabulary.reading), Intent.READ),
            **dict.fromkeys(map(stem, vocabulary.writing), Intent.WRITE),
        }
        self._wants = dict(self._wants_of_meanings())
        self._meanings = _by_phrase(vocabulary, stem)
        self._exact = {phrase[0]: found for phrase, found in _by_phrase(vocabulary, str).items() if len(phrase) == 1}
        self._longest = max((len(phrase) for phrase in self._meanings), default=1)
        self._entries = tuple(self._entry(tool) for tool in tools)
        phrases = {
            entry.tool.name: tuple(map(self._phrase_terms, vocabulary.asked.get(entry.tool.name, ())))
            for entry in self._entries
        }
        self._rarity = _rarity(self._entries, phrases)
        self._phrases = {name: tuple(map(self._phrase, found)) for name, found in phrases.items()}

    def find(self, text: str) -> Hits:
        """Find the tools that answer a question. Ties keep the order of the tools."""
        question = self._question(text)
        named = [entry for entry in self._entries if _is_named(entry, question)]
        scored = [
            (score, entry)
            for entry in self._entries
            if entry not in named and (score := self._score(entry, question)) > 0
        ]
        best = max((score for score, _ in scored), default=0.0)
        scored = [hit for hit in scored if hit[0] >= best * _MIN_SHARE]
        # For a reading question, every reading tool ranks before every writing one.
        asks = question.intent is Intent.READ
        scored.sort(key=lambda hit: (asks and not hit[1].tool.annotations.read_only, -hit[0]))
        ranked = [*named, *(entry for _, entry in scored)]
        return Hits(
            tools=tuple(entry.tool for entry in ranked),
            other_apis=tuple(api for api in self._vocabulary.other_apis if _asks_for(api, question.said)),
            weak=not ranked or question.meant.isdisjoint(ranked[0].name[1:] or ranked[0].name),
        )

    def _wants_of_meanings(self) -> Iterator[tuple[tuple[str, ...], Intent]]:
        """Yield the meanings that are verbs: `create share` is one, `shares` and `list changesets` are not."""
        for meaning in {meaning for meanings in self._vocabulary.meanings.values() for meaning in meanings}:
            said = words(meaning)
            if said[0] in self._vocabulary.writing:
                yield tuple(map(stem, said)), Intent.WRITE
            elif meaning in self._vocabulary.reading:
                yield tuple(map(stem, said)), Intent.READ

    # --- the question ------------------------------------------------------------------------------------------

    def _question(self, text: str) -> _Question:
        said = tuple(words(text)[:MAX_WORDS])
        terms = self._terms(said, guess=True)
        return _Question(text.lower(), said, terms, self._intent(said, terms))

    def _terms(self, said: Sequence[str], *, guess: bool = False) -> tuple[_Term, ...]:
        """Return the words that are not stop words, and the phrases of the vocabulary.

        Inside a phrase, a word keeps only its literal meaning: in `check out` nothing is checked.
        """
        terms, explained = [], 0
        for start, word in enumerate(said):
            before = said[start - 1] if start else ""
            for length in range(min(self._longest, len(said) - start), 1, -1):
                meanings = self._meanings.get(tuple(map(stem, said[start : start + length])))
                if meanings:
                    terms.append(_Term(before, word, None, meanings))
                    explained = max(explained, start + length)
            silent = word in self._silent
            meanings = () if start < explained else self._meant_by(word)
            if guess and not silent and not meanings and start >= explained:
                meanings = self._guess(word)
            if meanings or not silent:
                terms.append(_Term(before, word, None if silent else stem(word), meanings))
        return tuple(terms)

    def _meant_by(self, word: str) -> tuple[tuple[str, ...], ...]:
        """Look a word up as it is written, then by its stem: `changes` are changesets, `change` is to update."""
        return self._exact.get(word) or self._meanings.get((stem(word),), ())

    def _phrase_terms(self, text: str) -> tuple[_Term, ...]:
        """Return the terms of a phrase by which people ask. Stop words count a little: some phrases have few others."""
        said = words(text)
        return (*self._terms(said), *(_Term("", word, word, ()) for word in said if word in self._silent))

    def _guess(self, word: str) -> tuple[tuple[str, ...], ...]:
        """Return what an unknown word may mean: vocabulary words that it contains, or a word of which it is a typo."""
        if stem(word) in self._rarity:
            return ()
        parts = [known for known in self._parts if _is_part(known, word)]
        longest = [part for part in parts if not any(part != other and part in other for other in parts)]
        if longest:
            return tuple(meaning for part in longest for meaning in self._exact[part])
        if len(word) < _MIN_TYPO:
            return ()
        near = [known for known in self._known if known[0] == word[0] and abs(len(known) - len(word)) <= _TYPO_LENGTH]
        close = find_similar(stem(word), near, likeness=_TYPO_LIKENESS)
        return tuple(meaning for known in close for meaning in ((known,), *self._meanings.get((known,), ())))

    @cached_property
    def _known(self) -> tuple[str, ...]:
        return tuple({*self._rarity, *(phrase[0] for phrase in self._meanings if len(phrase) == 1)})

    @cached_property
    def _parts(self) -> tuple[str, ...]:
        return tuple(word for word in self._exact if len(word) >= _MIN_PART or _is_dense(word))

    def _intent(self, said: Sequence[str], terms: Sequence[_Term]) -> Intent:
        """Return the intent of a question. In `list released locks`, only the first verb counts."""
        if any(_opens(phrase, " ".join(said)) for phrase in self._asking):
            return Intent.READ
        verbs = [(verb, term) for term in terms if (verb := self._verb(term)) is not None]
        if not verbs:
            return Intent.UNKNOWN
        first = verbs[0][0]
        joined = any(term.follows in self._vocabulary.joining for verb, term in verbs if verb is Intent.WRITE)
        return Intent.WRITE if first is Intent.WRITE or joined else Intent.READ

    def _verb(self, term: _Term) -> Intent | None:
        """Return the intent of a verb, or None; `exports` and `shares` are nouns."""
        if term.said in self._verbs:
            return None if term.word.endswith("s") else self._verbs[term.said]
        return next((self._wants[part] for part in term.meanings if part in self._wants), None)

    # --- scores --------------------------------------------------------------------------------

    def _score(self, entry: _Entry, question: _Question) -> float:
        phrase = max((phrase.match(question.meant) for phrase in self._phrases[entry.tool.name]), default=0.0)
        hints = entry.tool.annotations
        # A destructive tool is found only by a writing question that contains its verb or a phrase for it.
        asked_for = question.intent is Intent.WRITE and (entry.name[0] in question.meant or phrase > 0)
        if hints.destructive and not asked_for:
            return 0.0
        found = sum(self._weigh(entry, term) for term in question.terms)
        covered = len(question.meant.intersection(entry.name)) / len(entry.name)
        literal = len(question.words.intersection(entry.words)) / len(entry.name)
        score = found * (1 + _COVERED * covered + _LITERAL * literal) + _PHRASE * phrase
        return score if hints.read_only is (question.intent is not Intent.WRITE) else score * _UNASKED

    def _weigh(self, entry: _Entry, term: _Term) -> float:
        """Return the score of a term: the maximum of its word and its meanings, so that synonyms do not add up."""
        said = self._word(entry, term.said) if term.said is not None else 0.0
        meanings = (sum(self._word(entry, part) for part in meaning) / len(meaning) for meaning in term.meanings)
        return max((said, *(_MEANING * weight for weight in meanings)))

    def _word(self, entry: _Entry, part: str) -> float:
        return entry.weights.get(part, 0.0) * self._rarity.get(part, 0.0)

    def _phrase(self, terms: tuple[_Term, ...]) -> _Phrase:
        weighted = tuple((term, self._rarest(term)) for term in terms)
        return _Phrase(weighted, sum(weight for _, weight in weighted))

    def _rarest(self, term: _Term) -> float:
        if not term.meanings and term.word in self._silent:
            return _SILENT
        return max((self._rarity.get(part, 0.0) for part in term.stems), default=0.0)

    # --- the index ---------------------------------------------------------------------------------------

    def _entry(self, tool: Tool) -> _Entry:
        name, title = (tuple(map(stem, words(text))) for text in (tool.name, tool.title))
        arguments = " ".join(f"{argument.name} {argument.schema.get('description', '')}" for argument in tool.arguments)
        choices = " ".join(str(choice) for argument in tool.arguments for choice in list_choices(argument.schema))
        weights: dict[str, float] = {}
        for text, weight in (
            (" ".join(_fields(tool.output_schema)), _ANSWERS),
            (choices, _CHOICES),
            (arguments, _ARGUMENTS),
            (tool.toolset, _TOOLSET),
            (tool.description, _DESCRIPTION),
            (f"{tool.name} {tool.title}", _NAME),
        ):
            weights.update(dict.fromkeys((stem(word) for word in words(text) if word not in self._silent), weight))
        return _Entry(tool, name, title, frozenset(words(tool.name)), weights)


def _is_named(entry: _Entry, question: _Question) -> bool:
    """Return whether a question is the name or title of a tool, or contains its name."""
    if tuple(map(stem, question.said)) in (entry.name, entry.title):
        return True
    return "-" in entry.tool.name and entry.tool.name in re.findall(r"[\w-]+", question.text)


def _is_meant(term: _Term, meant: frozenset[str]) -> bool:
    return term.said in meant or any(meant.issuperset(meaning) for meaning in term.meanings)


def _asks_for(api: OtherApi, said: Sequence[str]) -> bool:
    return any(all(_is_said(word, said) for word in words(phrase)) for phrase in api.asked)


def _rarity(entries: Sequence[_Entry], phrases: Mapping[str, Sequence[Sequence[_Term]]]) -> Mapping[str, float]:
    """Return for each stem how well it distinguishes tools (inverse document frequency)."""
    count: Counter[str] = Counter()
    for entry in entries:
        asked = (term.said for phrase in phrases[entry.tool.name] for term in phrase if term.said is not None)
        count.update({*entry.weights, *asked})
    return {part: math.log(1 + len(entries) / number) for part, number in count.items()}


def _by_phrase(
    vocabulary: Vocabulary, spell: Callable[[str], str]
) -> Mapping[tuple[str, ...], tuple[tuple[str, ...], ...]]:
    """Return the meanings of each phrase; `spell` converts its words for comparison."""
    found: dict[tuple[str, ...], tuple[tuple[str, ...], ...]] = {}
    for phrase, meanings in vocabulary.meanings.items():
        key = tuple(map(spell, words(phrase)))
        stems = tuple(tuple(map(stem, words(meaning))) for meaning in meanings)
        found[key] = tuple(dict.fromkeys((*found.get(key, ()), *stems)))
    return found


def _fields(schema: Any) -> Iterator[str]:
    """Yield the names of an answer's fields, except those that every tool has."""
    if isinstance(schema, dict):
        for name, child in schema.get("properties", {}).items():
            if name not in ("error", "page", "resolved", "job", "preview", "truncated", "warnings"):
                yield name
                yield from _fields(child)
        yield from _fields(schema.get("items"))


# --- words ------------------------------------------------------------------------------------------------------


def _is_dense(word: str) -> bool:
    """Return whether a word is in a script without spaces, such as Chinese, where one character may be a word."""
    return word[0] >= "\u2e80"


def _is_part(known: str, word: str) -> bool:
    """Return whether a vocabulary word starts a longer word or, if it is not short, is inside it."""
    if _is_dense(known):
        return known in word
    return word.startswith(known) or (len(known) > _MIN_PART and known in word)


def _opens(phrase: str, question: str) -> bool:
    if _is_dense(phrase):
        return phrase in question
    return question == phrase or question.startswith(f"{phrase} ")


def _is_said(word: str, said: Sequence[str]) -> bool:
    """Return whether a question contains a word, its plural, or a word that starts with it if it is long.

    Stems are not compared: `issued` does not mean `issue`.
    """
    long = len(word) > _MIN_TYPO
    return any(other in (word, f"{word}s") or (long and other.startswith(word)) for other in said)


def fold(text: str) -> str:
    """Return a text in lower case and without accents."""
    if text.isascii():
        return text.lower()
    decomposed = unicodedata.normalize("NFKD", text.casefold())
    return "".join(character for character in decomposed if not unicodedata.combining(character))


def words(text: str) -> list[str]:
    """Return the folded words of a text; `iTwinId` becomes `itwin id`, `createdDateTime` three words."""
    text = _IN_WORD.sub(r"\1 \2", _PREFIXED.sub(lambda found: found[1] + found[2].lower(), text))
    return _WORD.findall(fold(text))


@lru_cache(maxsize=8192)
def stem(word: str) -> str:
    """Return a folded English word without its ending. Words of other languages change little."""
    if len(word) < 4 or not word.isascii():
        return word
    for ending, instead in (("ies", "y"), ("ied", "y"), ("sses", "ss"), ("ing", ""), ("ed", ""), ("s", "")):
        rest = word.removesuffix(ending)
        if rest != word and len(rest) > 2 and not word.endswith(("ss", "us", "is")):
            word = rest + instead
            if ending in ("ing", "ed") and len(word) > 3 and word[-1] == word[-2] and word[-1] not in "ls":
                word = word[:-1]
            break
    return word.removesuffix("e") if len(word) > 3 else word
