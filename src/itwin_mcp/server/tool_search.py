"""Tool search: ranks tools by how well they answer a question, in engineers' words and several languages.

Each word of a question is searched in the names, titles, descriptions, arguments and answers of the tools, and so are
the synonyms that the vocabulary lists for it. The intent of a question (to read or to change something) decides which
tools may rank first.
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
from typing import Any, TypeAlias

from itwin_mcp.capability.catalog import Tool
from itwin_mcp.capability.parameters import list_choices
from itwin_mcp.capability.vocabulary import OtherApi, Vocabulary
from itwin_mcp.text import find_similar

MAX_WORDS = 40
"""Further words of a question are ignored."""
_NAME, _DESCRIPTION, _TOOLSET, _ARGUMENTS, _CHOICES, _ANSWERS = 3.0, 1.0, 1.0, 0.4, 0.3, 0.2
"""The weight of a word by the text that contains it; titles count like names."""
_SYNONYM_WEIGHT = 0.9
"""The weight of a synonym from the vocabulary, relative to the word itself."""
_NAME_BONUS = 1.0
"""The bonus if the question contains all words of the name."""
_LITERAL_BONUS = 0.3
"""The bonus for words in exactly the same form: `changesets` asks for a list, `changeset` for a single one."""
_PHRASE_WEIGHT = 3.0
"""The weight of a phrase with which people ask for the tool."""
_MIN_PHRASE_SHARE = 0.6
"""The share of a phrase that the question must contain."""
_STOP_WORD_WEIGHT = 0.3
"""The weight of a stop word in a phrase; other words weigh 0.7 to 5."""
_INTENT_FACTOR = 0.6
"""The factor for a reading tool if the question asks for a change, and for a writing tool if it does not."""
_MIN_SHARE = 0.2
"""Hits below this share of the best score are omitted."""
_MIN_PART = 4
"""The shortest word of the vocabulary that is recognized at the start of a longer word."""
_MIN_TYPO = 5
"""The shortest word in which typos are recognized."""
_TYPO_LENGTH = 2
"""The largest difference in length between a word and its typo."""
_TYPO_LIKENESS = 0.8
_IN_WORD = re.compile(r"([a-z0-9])([A-Z])")
_PREFIXED = re.compile(r"\b([a-z])([A-Z])(?=[a-z])")
"""The start of a name such as iTwin or iModel, which counts as one word."""
_WORD = re.compile(r"[^\W_]+")

Stems: TypeAlias = tuple[str, ...]


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
    """A word or phrase of a question, with the stems to search for."""

    previous: str
    """The word before it."""
    word: str
    """The word, or the first word of the phrase."""
    own_stem: str | None
    """None for stop words and phrases."""
    meanings: tuple[Stems, ...]

    @property
    def stems(self) -> Iterator[str]:
        if self.own_stem is not None:
            yield self.own_stem
        for meaning in self.meanings:
            yield from meaning


@dataclass(frozen=True)
class _Question:
    """A question, prepared for comparison with the tools."""

    text: str
    words: tuple[str, ...]
    terms: tuple[_Term, ...]
    intent: Intent

    @cached_property
    def stems(self) -> frozenset[str]:
        """The words as written, their stems, and the stems of all their possible meanings."""
        return frozenset((*self.words, *(part for term in self.terms for part in term.stems)))


@dataclass(frozen=True, slots=True)
class _Phrase:
    """A phrase with which people ask for a tool: its terms with their weights, and the sum of the weights."""

    terms: tuple[tuple[_Term, float], ...]
    total: float

    def match(self, stems: frozenset[str]) -> float:
        """Return a score for the share of the phrase that a question contains; 0 below `_MIN_PHRASE_SHARE`."""
        weight = sum(weight for term, weight in self.terms if _is_in(term, stems))
        share = weight / self.total if self.total else 0.0
        return share * share * weight if share >= _MIN_PHRASE_SHARE else 0.0


@dataclass(frozen=True, slots=True)
class _Entry:
    """A tool, prepared for the search: the stems of its texts with their weights."""

    tool: Tool
    name: Stems
    title: Stems
    words: frozenset[str]
    """The words of the name."""
    weights: Mapping[str, float]


class ToolIndex:
    """An index of tools. Building it takes about 0.1 s, so build it only at the first search."""

    def __init__(self, tools: Iterable[Tool], vocabulary: Vocabulary) -> None:
        self._vocabulary = vocabulary
        self._silent = {fold(word) for word in vocabulary.silent}
        self._asking = tuple(map(fold, vocabulary.asking))
        self._verbs = {
            **dict.fromkeys(map(stem, vocabulary.reading), Intent.READ),
            **dict.fromkeys(map(stem, vocabulary.writing), Intent.WRITE),
        }
        self._verb_meanings = dict(self._find_verb_meanings())
        self._meanings = _group_meanings(vocabulary, stem)
        exact = _group_meanings(vocabulary, str)
        self._exact = {phrase[0]: meanings for phrase, meanings in exact.items() if len(phrase) == 1}
        self._word_parts = tuple(word for word in self._exact if len(word) >= _MIN_PART or _is_dense(word))
        self._longest = max((len(phrase) for phrase in self._meanings), default=1)
        self._entries = tuple(self._index_tool(tool) for tool in tools)
        phrases = {
            entry.tool.name: tuple(map(self._parse_phrase, vocabulary.asked.get(entry.tool.name, ())))
            for entry in self._entries
        }
        self._rarity = _compute_rarity(self._entries, phrases)
        self._known_stems = {*self._rarity, *(phrase[0] for phrase in self._meanings if len(phrase) == 1)}
        self._phrases = {name: tuple(map(self._weigh_phrase, terms)) for name, terms in phrases.items()}

    def find(self, text: str) -> Hits:
        """Find the tools that answer a question. Ties keep the order of the tools."""
        words = tuple(split_words(text)[:MAX_WORDS])
        terms = self._find_terms(words, guess=True)
        question = _Question(text.lower(), words, terms, self._find_intent(words, terms))
        named = [entry for entry in self._entries if _is_named(entry, question)]
        scored = [
            (score, entry)
            for entry in self._entries
            if entry not in named and (score := self._score(entry, question)) > 0
        ]
        best = max((score for score, _ in scored), default=0.0)
        scored = [hit for hit in scored if hit[0] >= best * _MIN_SHARE]
        # For a reading question, every reading tool ranks before every writing one.
        reads = question.intent is Intent.READ
        scored.sort(key=lambda hit: (reads and not hit[1].tool.annotations.read_only, -hit[0]))
        ranked = [*named, *(entry for _, entry in scored)]
        return Hits(
            tools=tuple(entry.tool for entry in ranked),
            other_apis=tuple(api for api in self._vocabulary.other_apis if _asks_for(api, question.words)),
            weak=not ranked or question.stems.isdisjoint(ranked[0].name[1:] or ranked[0].name),
        )

    def _find_verb_meanings(self) -> Iterator[tuple[Stems, Intent]]:
        """Yield the meanings that express an intent: `create share` does, `shares` and `list changesets` do not."""
        for meaning in {meaning for meanings in self._vocabulary.meanings.values() for meaning in meanings}:
            words = split_words(meaning)
            if words[0] in self._vocabulary.writing:
                yield tuple(map(stem, words)), Intent.WRITE
            elif meaning in self._vocabulary.reading:
                yield tuple(map(stem, words)), Intent.READ

    # --- the question ------------------------------------------------------------------------------------------

    def _find_terms(self, words: Sequence[str], *, guess: bool = False) -> tuple[_Term, ...]:
        """Return the words that are not stop words, and the phrases of the vocabulary.

        Inside a phrase, a word has only its own stem and no synonyms: `check out` does not mean to check. With `guess`,
        unknown words may be compounds or typos.
        """
        terms: list[_Term] = []
        phrase_end = 0
        for start, word in enumerate(words):
            previous = words[start - 1] if start else ""
            for end in range(min(start + self._longest, len(words)), start + 1, -1):
                meanings = self._meanings.get(tuple(map(stem, words[start:end])))
                if meanings:
                    terms.append(_Term(previous, word, None, meanings))
                    phrase_end = max(phrase_end, end)
            is_stop_word = word in self._silent
            meanings = ()
            if start >= phrase_end:
                # As written first, then by its stem: `changes` are changesets, but `change` is to update.
                meanings = self._exact.get(word) or self._meanings.get((stem(word),), ())
                if guess and not is_stop_word and not meanings:
                    meanings = self._guess_meanings(word)
            if meanings or not is_stop_word:
                terms.append(_Term(previous, word, None if is_stop_word else stem(word), meanings))
        return tuple(terms)

    def _parse_phrase(self, text: str) -> tuple[_Term, ...]:
        """Return the terms of a phrase, with its stop words: some phrases consist of little else."""
        words = split_words(text)
        return (*self._find_terms(words), *(_Term("", word, word, ()) for word in words if word in self._silent))

    def _guess_meanings(self, word: str) -> tuple[Stems, ...]:
        """Return the meanings of the vocabulary words that an unknown word contains, or of which it is a typo."""
        if stem(word) in self._rarity:
            return ()
        parts = [part for part in self._word_parts if _is_part(part, word)]
        longest = [part for part in parts if not any(part != other and part in other for other in parts)]
        if longest:
            return tuple(meaning for part in longest for meaning in self._exact[part])
        if len(word) < _MIN_TYPO:
            return ()
        # Comparing is slow, so only words with the same first letter and about the same length are compared.
        candidates = [
            candidate
            for candidate in self._known_stems
            if candidate[0] == word[0] and abs(len(candidate) - len(word)) <= _TYPO_LENGTH
        ]
        similar = find_similar(stem(word), candidates, likeness=_TYPO_LIKENESS)
        return tuple(meaning for part in similar for meaning in ((part,), *self._meanings.get((part,), ())))

    def _find_intent(self, words: Sequence[str], terms: Sequence[_Term]) -> Intent:
        """Return the intent of a question.

        The first verb decides, as in `list released locks`; a later one counts if a word such as `and` joins it.
        """
        if any(_begins_with(" ".join(words), phrase) for phrase in self._asking):
            return Intent.READ
        intents = [self._find_verb_intent(term) for term in terms]
        first = next((intent for intent in intents if intent is not None), Intent.UNKNOWN)
        joined = any(
            intent is Intent.WRITE and term.previous in self._vocabulary.joining
            for intent, term in zip(intents, terms, strict=True)
        )
        return Intent.WRITE if joined else first

    def _find_verb_intent(self, term: _Term) -> Intent | None:
        """Return the intent of a verb, or None for another word; `exports` and `shares` are nouns."""
        if term.own_stem in self._verbs:
            return None if term.word.endswith("s") else self._verbs[term.own_stem]
        return next((self._verb_meanings[part] for part in term.meanings if part in self._verb_meanings), None)

    # --- scores --------------------------------------------------------------------------------

    def _score(self, entry: _Entry, question: _Question) -> float:
        phrase_score = max((phrase.match(question.stems) for phrase in self._phrases[entry.tool.name]), default=0.0)
        hints = entry.tool.annotations
        # A destructive tool is found only by a writing question that contains its verb or a phrase for it.
        is_wanted = question.intent is Intent.WRITE and (entry.name[0] in question.stems or phrase_score > 0)
        if hints.destructive and not is_wanted:
            return 0.0
        term_score = sum(self._score_term(entry, term) for term in question.terms)
        covered = len(question.stems.intersection(entry.name)) / len(entry.name)
        literal = len(entry.words.intersection(question.words)) / len(entry.name)
        score = term_score * (1 + _NAME_BONUS * covered + _LITERAL_BONUS * literal) + _PHRASE_WEIGHT * phrase_score
        return score if hints.read_only is (question.intent is not Intent.WRITE) else score * _INTENT_FACTOR

    def _score_term(self, entry: _Entry, term: _Term) -> float:
        """Return the score of a term: the maximum of its word and its meanings, so that synonyms do not add up."""
        own_score = self._score_stem(entry, term.own_stem) if term.own_stem is not None else 0.0
        scores = (sum(self._score_stem(entry, part) for part in meaning) / len(meaning) for meaning in term.meanings)
        return max((own_score, *(_SYNONYM_WEIGHT * score for score in scores)))

    def _score_stem(self, entry: _Entry, part: str) -> float:
        return entry.weights.get(part, 0.0) * self._rarity.get(part, 0.0)

    def _weigh_phrase(self, terms: tuple[_Term, ...]) -> _Phrase:
        weighted = tuple((term, self._weigh_term(term)) for term in terms)
        return _Phrase(weighted, sum(weight for _, weight in weighted))

    def _weigh_term(self, term: _Term) -> float:
        """Return the weight of a term in a phrase: the rarity of its rarest stem."""
        if not term.meanings and term.word in self._silent:
            return _STOP_WORD_WEIGHT
        return max((self._rarity.get(part, 0.0) for part in term.stems), default=0.0)

    # --- the index ---------------------------------------------------------------------------------------

    def _index_tool(self, tool: Tool) -> _Entry:
        name, title = (tuple(map(stem, split_words(text))) for text in (tool.name, tool.title))
        arguments = " ".join(f"{argument.name} {argument.schema.get('description', '')}" for argument in tool.arguments)
        choices = " ".join(str(choice) for argument in tool.arguments for choice in list_choices(argument.schema))
        weights: dict[str, float] = {}
        # In ascending order: a word keeps the weight of the most important text that contains it.
        for text, weight in (
            (" ".join(_list_fields(tool.output_schema)), _ANSWERS),
            (choices, _CHOICES),
            (arguments, _ARGUMENTS),
            (tool.toolset, _TOOLSET),
            (tool.description, _DESCRIPTION),
            (f"{tool.name} {tool.title}", _NAME),
        ):
            stems = (stem(word) for word in split_words(text) if word not in self._silent)
            weights.update(dict.fromkeys(stems, weight))
        return _Entry(tool, name, title, frozenset(split_words(tool.name)), weights)


def _is_named(entry: _Entry, question: _Question) -> bool:
    """Return whether a question is the name or title of a tool, or contains the name with its hyphens."""
    if tuple(map(stem, question.words)) in (entry.name, entry.title):
        return True
    return "-" in entry.tool.name and entry.tool.name in re.findall(r"[\w-]+", question.text)


def _is_in(term: _Term, stems: frozenset[str]) -> bool:
    return term.own_stem in stems or any(stems.issuperset(meaning) for meaning in term.meanings)


def _asks_for(api: OtherApi, words: Sequence[str]) -> bool:
    return any(all(_contains_word(words, word) for word in split_words(phrase)) for phrase in api.asked)


def _compute_rarity(entries: Sequence[_Entry], phrases: Mapping[str, Sequence[Sequence[_Term]]]) -> Mapping[str, float]:
    """Return for each stem how well it distinguishes tools (inverse document frequency)."""
    counts: Counter[str] = Counter()
    for entry in entries:
        terms = (term for phrase in phrases[entry.tool.name] for term in phrase)
        counts.update({*entry.weights, *(term.own_stem for term in terms if term.own_stem is not None)})
    return {part: math.log(1 + len(entries) / count) for part, count in counts.items()}


def _group_meanings(
    vocabulary: Vocabulary, convert: Callable[[str], str]
) -> Mapping[tuple[str, ...], tuple[Stems, ...]]:
    """Return the meanings of each phrase of the vocabulary, by the phrase's words as `convert` returns them."""
    groups: dict[tuple[str, ...], tuple[Stems, ...]] = {}
    for phrase, meanings in vocabulary.meanings.items():
        key = tuple(map(convert, split_words(phrase)))
        stems = (tuple(map(stem, split_words(meaning))) for meaning in meanings)
        groups[key] = tuple(dict.fromkeys((*groups.get(key, ()), *stems)))
    return groups


def _list_fields(schema: Any) -> Iterator[str]:
    """Yield the names of an answer's fields, except those that every tool has."""
    if isinstance(schema, dict):
        for name, child in schema.get("properties", {}).items():
            if name not in ("error", "page", "resolved", "job", "preview", "truncated", "warnings"):
                yield name
                yield from _list_fields(child)
        yield from _list_fields(schema.get("items"))


# --- words ------------------------------------------------------------------------------------------------------


def _is_dense(word: str) -> bool:
    """Return whether a word is in a script without spaces, such as Chinese, where one character may be a word."""
    return word[0] >= "\u2e80"


def _is_part(part: str, word: str) -> bool:
    """Return whether a longer word starts with a vocabulary word or, if that is not short, contains it."""
    if _is_dense(part) or len(part) > _MIN_PART:
        return part in word
    return word.startswith(part)


def _begins_with(question: str, phrase: str) -> bool:
    if _is_dense(phrase):
        return phrase in question
    return f"{question} ".startswith(f"{phrase} ")


def _contains_word(words: Sequence[str], word: str) -> bool:
    """Return whether a question contains a word, its plural or, if the word is long, a word that starts with it.

    Stems are not compared: `issued` does not mean `issue`.
    """
    is_long = len(word) > _MIN_TYPO
    return any(other in (word, f"{word}s") or (is_long and other.startswith(word)) for other in words)


def fold(text: str) -> str:
    """Return a text in lower case and without accents."""
    if text.isascii():
        return text.lower()
    decomposed = unicodedata.normalize("NFKD", text.casefold())
    return "".join(character for character in decomposed if not unicodedata.combining(character))


def split_words(text: str) -> list[str]:
    """Return the folded words of a text. `iTwinId` is the words `itwin id`, and `createdDateTime` three words."""
    text = _IN_WORD.sub(r"\1 \2", _PREFIXED.sub(lambda match: match[1] + match[2].lower(), text))
    return _WORD.findall(fold(text))


@lru_cache(maxsize=8192)
def stem(word: str) -> str:
    """Return a folded English word without its ending. Words of other languages change little."""
    if len(word) < 4 or not word.isascii():
        return word
    for ending, replacement in (("ies", "y"), ("ied", "y"), ("sses", "ss"), ("ing", ""), ("ed", ""), ("s", "")):
        base = word.removesuffix(ending)
        if base != word and len(base) > 2 and not word.endswith(("ss", "us", "is")):
            word = base + replacement
            # `planned` becomes `plan`, but `called` and `passed` keep both letters.
            if ending in ("ing", "ed") and len(word) > 3 and word[-1] == word[-2] and word[-1] not in "ls":
                word = word[:-1]
            break
    return word.removesuffix("e") if len(word) > 3 else word
