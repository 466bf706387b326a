"""What engineers call things, in several languages: the data file that the tool search reads."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from itwin_mcp.capability.loader import read_cached_data


@dataclass(frozen=True, slots=True)
class OtherApi:
    """An API of the platform that this server does not serve, and the phrases by which people ask for it."""

    name: str
    does: str
    asked: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """Words in every language together: a question may mix them, and its language is not known."""

    silent: frozenset[str] = frozenset()
    """Words that say nothing about what a question is about."""
    asking: tuple[str, ...] = ()
    """Words and phrases that open a question which wants to know something and change nothing."""
    reading: frozenset[str] = frozenset()
    writing: frozenset[str] = frozenset()
    joining: frozenset[str] = frozenset()
    """Words after which a second verb counts as much as the first."""
    meanings: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """A word or phrase of people, and the words that tools have for it."""
    asked: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """The name of a tool, and phrases by which people ask for it."""
    other_apis: tuple[OtherApi, ...] = ()


def read_vocabulary(folder: Path, cache: Path | None = None) -> Vocabulary:
    """Read `search/vocabulary.yaml` in the folder of our capability files. Raises CapabilityError."""
    data = read_cached_data(folder / "search" / "vocabulary.yaml", cache)
    languages = data["languages"].values()
    meanings: dict[str, tuple[str, ...]] = {}
    for language in languages:
        for meaning, spoken in language["words"].items():
            for phrase in _split(spoken):
                meanings[phrase] = (*meanings.get(phrase, ()), meaning)
    return Vocabulary(
        silent=frozenset(word for language in languages for word in language["silent"].split()),
        asking=tuple(phrase for language in languages for phrase in _split(language["asking"])),
        reading=frozenset(data["reading"].split()),
        writing=frozenset(data["writing"].split()),
        joining=frozenset(data["joining"].split()),
        meanings=meanings,
        asked={name: _split(phrases) for name, phrases in data["asked"].items()},
        other_apis=tuple(_other_api(entry) for entry in data["other-apis"]),
    )


def _other_api(entry: Mapping[str, Any]) -> OtherApi:
    return OtherApi(entry["api"], entry["does"], _split(entry["asked"]))


def _split(phrases: str) -> tuple[str, ...]:
    return tuple(phrase.strip() for phrase in phrases.split(",") if phrase.strip())
