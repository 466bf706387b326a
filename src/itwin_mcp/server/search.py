"""Tools ranked by how well they answer a question, in the words of engineers and in several languages.

Each word of a question is looked for in the names, titles, descriptions, arguments and answers of the tools, together
with the words that the vocabulary has for it. What a question wants (to know, to change or to destroy something)
decides which tools may come first.
"""

from __future__ import annotations

import difflib
import math
import re
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from functools import cached_property, lru_cache
from typing import Any

from itwin_mcp.capability.catalog import Tool
from itwin_mcp.capability.vocabulary import OtherApi, Vocabulary

MAX_WORDS = 40
"""Words of a question that are looked at."""
_NAME, _DESCRIPTION, _TOOLSET, _ARGUMENTS, _CHOICES, _ANSWERS = 3.0, 1.0, 1.0, 0.4, 0.3, 0.2
"""What a word weighs by where it was found; a title is as good as a name."""
_MEANING = 0.9
"""What a word of the vocabulary weighs, compared with the word that was said."""
_COVERED = 1.0
"""How many times over a name counts if all of its words were said."""
_LITERAL = 0.3
"""The same for words that were said letter by letter: `changesets` asks for a list, `changeset` for one."""
_PHRASE = 3.0
"""What a phrase weighs by which people ask for the tool."""
_MIN_PHRASE = 0.6
"""The part of a phrase that must have been said."""
_SILENT = 0.3
"""What a silent word of a phrase weighs; 0.7 to 5 is usual for others."""
_UNASKED = 0.6
"""What is left of the score of a tool that reads if something is to be changed, or the other way round."""
_MIN_SHARE = 0.2
"""Hits below this share of the best score are left out."""
_MIN_PART = 4
"""The shortest word that may begin a longer one; one letter more if it is inside."""
_MIN_TYPO = 5


class Intent(Enum):
    """What the person wants."""

    READ = "read"
    WRITE = "write"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Hits:
    """The tools that answer a question, the best first, and the APIs that do what this server cannot."""

    tools: tuple[Tool, ...]
    other_apis: tuple[OtherApi, ...]
    weak: bool
    """Whether the question named nothing by which a tool can be told from others."""


@dataclass(frozen=True, slots=True)
class _Term:
    """A word or phrase of a question: the stem that counts literally, and what it may mean, each some stems."""

    word: str
    said: str | None
    meanings: tuple[tuple[str, ...], ...]

    @property
    def stems(self) -> Iterator[str]:
        if self.said is not None:
            yield self.said
        for meaning in self.meanings:
            yield from meaning


@dataclass(frozen=True, slots=True)
class _Entry:
    """A tool as it is searched: its stems with their weights, and the phrases by which people ask for it."""

    tool: Tool
    name: tuple[str, ...]
    literal: frozenset[str]
    title: tuple[str, ...]
    weights: Mapping[str, float]
    phrases: tuple[tuple[_Term, ...], ...]


class ToolIndex:
    """An index of tools. It is made in about 20 ms, when something is first searched."""

    def __init__(self, tools: Iterable[Tool], vocabulary: Vocabulary) -> None:
        self._vocabulary = vocabulary
        self._silent = {fold(word) for word in vocabulary.silent}
        self._meanings = _by_phrase(vocabulary, stem)
        self._exact = {phrase[0]: found for phrase, found in _by_phrase(vocabulary, str).items() if len(phrase) == 1}
        self._longest = max((len(phrase) for phrase in self._meanings), default=1)
        self._entries = tuple(self._entry(tool) for tool in tools)
        self._rarity = _rarity(self._entries)
        self._verbs = {
            **dict.fromkeys(map(stem, vocabulary.reading), Intent.READ),
            **dict.fromkeys(map(stem, vocabulary.writing), Intent.WRITE),
        }

    def find(self, question: str) -> Hits:
        """Find the tools that answer a question; the order of the tools breaks ties."""
        said = words(question)[:MAX_WORDS]
        stems = tuple(map(stem, said))
        named = [entry for entry in self._entries if self._names(entry, question, stems)]
        terms = self._terms(said, guess=True)
        meant = frozenset((*said, *(part for term in terms for part in term.stems)))
        intent = self._intent(said, terms)
        scored = [
            (score, entry)
            for entry in self._entries
            if entry not in named and (score := self._score(entry, frozenset(said), terms, meant, intent)) > 0
        ]
        scored.sort(key=lambda hit: (self._is_unwanted(hit[1].tool, intent), -hit[0]))
        best = max((score for score, _ in scored), default=0.0)
        ranked = [entry.tool for score, entry in scored if score >= best * _MIN_SHARE]
        told = any(set(entry.name) & meant for _, entry in scored[:1])
        return Hits(
            (*(entry.tool for entry in named), *ranked),
            tuple(api for api in self._vocabulary.other_apis if self._asks_for(api, said)),
            weak=not named and not told,
        )

    # --- what was said ------------------------------------------------------------------------------------------

    def _names(self, entry: _Entry, question: str, stems: Sequence[str]) -> bool:
        """Whether a question is the name or title of a tool, or holds its name as it is written."""
        if tuple(stems) in (entry.name, entry.title):
            return True
        return "-" in entry.tool.name and entry.tool.name in re.findall(r"[\w-]+", question.lower())

    def _terms(self, said: Sequence[str], *, guess: bool = False) -> tuple[_Term, ...]:
        stems = tuple(map(stem, said))
        terms, explained = [], 0
        for start, word in enumerate(said):
            for length in range(min(self._longest, len(said) - start), 1, -1):
                meanings = self._meanings.get(tuple(stems[start : start + length]))
                if meanings:
                    terms.append(_Term(word, None, meanings))
                    explained = max(explained, start + length)
            silent = word in self._silent
            meanings = () if start < explained else self._meant_by(word)
            if guess and not silent and not meanings and start >= explained:
                meanings = self._guess(word, stems[start])
            if meanings or not silent:
                terms.append(_Term(word, None if silent else stems[start], meanings))
        return tuple(terms)

    def _meant_by(self, word: str) -> tuple[tuple[str, ...], ...]:
        """Look a word up as it is written, then by its stem: `changes` are changesets, `change` is to update."""
        return self._exact.get(word) or self._meanings.get((stem(word),), ())

    def _phrase(self, text: str) -> tuple[_Term, ...]:
        """Return a phrase by which people ask. Its silent words count a little: they are all that some phrases have."""
        said = words(text)
        silent = tuple(_Term(word, word, ()) for word in said if word in self._silent)
        return (*self._terms(said), *silent)

    def _guess(self, word: str, stemmed: str) -> tuple[tuple[str, ...], ...]:
        """Return what an unknown word may mean: by its parts (compounds, endings, scripts without blanks) or as a typo."""
        if stemmed in self._rarity:
            return ()
        parts = [known for known in self._parts if _is_part(known, word)]
        longest = [part for part in parts if not any(part != other and part in other for other in parts)]
        if longest:
            return tuple(meaning for part in longest for meaning in self._meanings[self._parts[part]])
        if len(word) < _MIN_TYPO:
            return ()
        near = [known for known in self._known if known[0] == word[0] and abs(len(known) - len(stemmed)) <= 2]
        close = difflib.get_close_matches(stemmed, near, n=1, cutoff=0.8)
        return ((close[0],), *self._meanings.get((close[0],), ())) if close else ()

    @cached_property
    def _known(self) -> tuple[str, ...]:
        return tuple({*self._rarity, *(phrase[0] for phrase in self._meanings if len(phrase) == 1)})

    @cached_property
    def _parts(self) -> Mapping[str, tuple[str, ...]]:
        """The single words of the vocabulary, as they are written."""
        spoken = {fold(word): (stem(fold(word)),) for word in self._vocabulary.meanings if " " not in word}
        return {word: phrase for word, phrase in spoken.items() if phrase in self._meanings}

    def _intent(self, said: Sequence[str], terms: Sequence[_Term]) -> Intent:
        """Whether something is to be known or changed. `released` after a question word changes nothing."""
        opening = " ".join(said)
        asks = any(_opens(fold(phrase), opening) for phrase in self._vocabulary.asking)
        if asks:
            return Intent.READ
        verbs = [(verb, term.word) for term in terms if (verb := self._verb(term)) is not None]
        writes = [word for verb, word in verbs if verb is Intent.WRITE]
        if not writes:
            return Intent.READ if verbs else Intent.UNKNOWN
        past = all(word.endswith("ed") for word in writes)
        return Intent.READ if verbs[0][0] is Intent.READ and past else Intent.WRITE

    def _verb(self, term: _Term) -> Intent | None:
        """Return what a verb wants; `exports` and `shares` are nouns."""
        if term.said in self._verbs:
            return None if term.word.endswith("s") else self._verbs[term.said]
        found = ((self._verbs[part[0]], len(part)) for part in term.meanings if part[0] in self._verbs)
        # `history` means `list changesets`, which is a noun; `publish` means `create share`, which is none.
        return next((verb for verb, length in found if verb is Intent.WRITE or length == 1), None)

    def _asks_for(self, api: OtherApi, said: Sequence[str]) -> bool:
        return any(all(_is_said(word, said) for word in words(phrase)) for phrase in api.asked)

    # --- how well a tool answers --------------------------------------------------------------------------------

    def _score(self, entry: _Entry, said: frozenset[str], terms: Sequence[_Term], meant: frozenset[str], intent: Intent) -> float:
        phrase = max((self._said(phrase, meant) for phrase in entry.phrases), default=0.0)
        if entry.tool.annotations.destructive and not self._is_asked_for(entry, meant, phrase, intent):
            return 0.0
        found = sum(self._weigh(entry, term) for term in terms)
        covered = len(meant.intersection(entry.name)) / len(entry.name)
        literal = len(said.intersection(entry.literal)) / len(entry.name)
        whole = found * (1 + _COVERED * covered + _LITERAL * literal) + _PHRASE * phrase
        reads = entry.tool.annotations.read_only
        fits = reads if intent is Intent.READ else not reads if intent is Intent.WRITE else reads
        return whole if fits else whole * _UNASKED

    def _weigh(self, entry: _Entry, term: _Term) -> float:
        said = self._word(entry, term.said) if term.said is not None else 0.0
        meanings = (
            sum(self._word(entry, part) for part in meaning) / len(meaning) * _MEANING for meaning in term.meanings
        )
        return max((said, *meanings))

    def _word(self, entry: _Entry, part: str) -> float:
        return entry.weights.get(part, 0.0) * self._rarity.get(part, 0.0)

    def _said(self, phrase: Sequence[_Term], meant: frozenset[str]) -> float:
        """Return how much of a phrase was said, by how rare its words are; 0 for less than most of it."""
        whole = sum(map(self._rarest, phrase))
        said = sum(self._rarest(term) for term in phrase if self._is_meant(term, meant))
        share = said / whole if whole else 0.0
        return share * share * said if share >= _MIN_PHRASE else 0.0

    def _rarest(self, term: _Term) -> float:
        if not term.meanings and term.word in self._silent:
            return _SILENT
        return max((self._rarity.get(part, 0.0) for part in term.stems), default=0.0)

    def _is_meant(self, term: _Term, meant: frozenset[str]) -> bool:
        return term.said in meant or any(meant.issuperset(meaning) for meaning in term.meanings)

    def _is_asked_for(self, entry: _Entry, meant: frozenset[str], phrase: float, intent: Intent) -> bool:
        """Whether a destructive tool may come up: its verb was said, or a phrase for it, and not as a question."""
        return intent is not Intent.READ and (entry.name[0] in meant or phrase > 0)

    def _is_unwanted(self, tool: Tool, intent: Intent) -> bool:
        return intent is Intent.READ and not tool.annotations.read_only

    # --- what is searched ---------------------------------------------------------------------------------------

    def _entry(self, tool: Tool) -> _Entry:
        name, title = (tuple(map(stem, words(text))) for text in (tool.name, tool.title))
        arguments = " ".join(f"{argument.name} {argument.schema.get('description', '')}" for argument in tool.arguments)
        choices = " ".join(str(choice) for argument in tool.arguments for choice in choices_of(argument.schema))
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
        phrases = tuple(self._phrase(phrase) for phrase in self._vocabulary.asked.get(tool.name, ()))
        return _Entry(tool, name, frozenset(words(tool.name)), title, weights, phrases)


def _rarity(entries: Sequence[_Entry]) -> Mapping[str, float]:
    """Return for each stem how much it tells tools apart."""
    count: dict[str, int] = {}
    for entry in entries:
        for part in {*entry.weights, *(term.said for phrase in entry.phrases for term in phrase if term.said)}:
            count[part] = count.get(part, 0) + 1
    return {part: math.log(1 + len(entries) / number) for part, number in count.items()}


def _by_phrase(
    vocabulary: Vocabulary, spell: Callable[[str], str]
) -> Mapping[tuple[str, ...], tuple[tuple[str, ...], ...]]:
    """Return what each phrase means; `spell` says how its words are compared."""
    found: dict[tuple[str, ...], tuple[tuple[str, ...], ...]] = {}
    for phrase, meanings in vocabulary.meanings.items():
        key = tuple(map(spell, words(phrase)))
        stems = tuple(tuple(map(stem, words(meaning))) for meaning in meanings)
        found[key] = tuple(dict.fromkeys((*found.get(key, ()), *stems)))
    return found


def _fields(schema: Any) -> Iterator[str]:
    """Yield the names of an answer's fields, without those that every tool has."""
    if isinstance(schema, dict):
        for name, child in schema.get("properties", {}).items():
            if name not in ("error", "page", "resolved", "job", "preview", "truncated", "warnings"):
                yield name
                yield from _fields(child)
        yield from _fields(schema.get("items"))


def choices_of(schema: Mapping[str, Any]) -> Sequence[Any]:
    """Return the values that an argument, or each element of it, may have; empty if they are not listed."""
    items = schema.get("items")
    choices = schema.get("enum") or (items.get("enum") if isinstance(items, dict) else None)
    return choices if isinstance(choices, list) else ()


# --- words ------------------------------------------------------------------------------------------------------


def _is_part(known: str, word: str) -> bool:
    """Whether a word of the vocabulary is a part of a longer word; a script without blanks has short ones."""
    if not known.isascii() and ord(known[0]) > 0x2E7F:
        return known in word
    return len(known) >= _MIN_PART and (word.startswith(known) or (len(known) > _MIN_PART and known in word))


def _is_said(word: str, said: Sequence[str]) -> bool:
    """Whether a word was said, in the plural or as the beginning of a long one. Stems would take `issued` for `issue`."""
    long = len(word) >= _MIN_TYPO + 1
    return any(other in (word, f"{word}s") or (long and other.startswith(word)) for other in said)


def _opens(phrase: str, question: str) -> bool:
    if ord(phrase[0]) > 0x2E7F:
        return phrase in question
    return question == phrase or question.startswith(phrase + " ")


def fold(text: str) -> str:
    """Return a text without case and accents."""
    if text.isascii():
        return text.lower()
    decomposed = unicodedata.normalize("NFKD", text.casefold())
    return "".join(character for character in decomposed if not unicodedata.combining(character))


def words(text: str) -> list[str]:
    """Return the folded words of a text; `iTwinId` is `itwin id`, `createdDateTime` three words."""
    text = re.sub(r"\bi(Twin|Model)", lambda found: "i" + found[1].lower(), text)
    text = re.sub(r"([a-z0-9])([A-Z])", r"\1 \2", text)
    return re.findall(r"[^\W_]+", fold(text))


@lru_cache(maxsize=8192)
def stem(word: str) -> str:
    """Return a folded English word without its ending; words of other languages lose little by it."""
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
