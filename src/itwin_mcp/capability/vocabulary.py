"""Vocabulary of the tool search: words that people use for tools, in several languages."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from itwin_mcp.capability.documents import read_cached_data
from itwin_mcp.capability.entities import Entities


@dataclass(frozen=True, slots=True)
class OtherApi:
    """An API of the platform that this server does not offer, and the phrases that ask for it."""

    name: str
    does: str
    asked: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """The words of all languages together, because the language of a query is unknown and may be mixed."""

    silent: frozenset[str] = frozenset()
    """Words that the search ignores."""
    asking: tuple[str, ...] = ()
    """Words and phrases that begin a question. A question asks for a tool that reads."""
    reading: frozenset[str] = frozenset()
    """Verbs of tools that read."""
    writing: frozenset[str] = frozenset()
    """Verbs of tools that write."""
    joining: frozenset[str] = frozenset()
    """Words such as "and", after which a second verb counts as much as the first."""
    meanings: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """The words in tools that each word or phrase of a query stands for."""
    asked: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """The phrases that ask for each tool, by the name of the tool."""
    other_apis: tuple[OtherApi, ...] = ()


def read_vocabulary(folder: Path, cache: Path | None = None, entities: Entities | None = None) -> Vocabulary:
    """Read `search/vocabulary.yaml` in the folder of our capability files, and add the words of the entities.

    Raises:
        CapabilityError: The file cannot be read.
    """
    data = read_cached_data(folder / "search" / "vocabulary.yaml", cache)
    languages = data["languages"].values()
    meanings: dict[str, tuple[str, ...]] = {}
    for language in languages:
        for meaning, spoken in language["words"].items():
            for phrase in _split(spoken):
                meanings[phrase] = (*meanings.get(phrase, ()), meaning)
    for entity in (entities or {}).values():
        for phrase in entity.words:
            meanings[phrase] = (*meanings.get(phrase, ()), entity.noun.lower())
    return Vocabulary(
        silent=frozenset(word for language in languages for word in language["silent"].split()),
        asking=tuple(phrase for language in languages for phrase in _split(language["asking"])),
        reading=frozenset(data["reading"].split()),
        writing=frozenset(data["writing"].split()),
        joining=frozenset(data["joining"].split()),
        meanings=meanings,
        asked={name: _split(phrases) for name, phrases in data["asked"].items()},
        other_apis=tuple(OtherApi(entry["api"], entry["does"], _split(entry["asked"])) for entry in data["other-apis"]),
    )


def _split(phrases: str) -> tuple[str, ...]:
    return tuple(phrase.strip() for phrase in phrases.split(",") if phrase.strip())
