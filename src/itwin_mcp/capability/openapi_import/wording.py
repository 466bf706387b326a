"""Names and short descriptions, made from those of a definition."""

from __future__ import annotations

import re
from collections.abc import Collection

from itwin_mcp.text import clean_text, shorten

MAX_NAME = 60
_LINK = re.compile(r"!?\[([^\]]*)\]\([^)]*\)")
_TAG = re.compile(r"<[^<>]{1,200}>")
_MARKS = re.compile(r"[`*_]{1,3}(?=\S)|(?<=\S)[`*_]{1,3}(?!\w)")
_HEADING = re.compile(r"^\s*(?:#+|[-=*_]{3,})\s*$|^\s*#+\s.*$", re.MULTILINE)
_SENTENCE = re.compile(r".+?[.!?](?=\s|$)(?<!e\.g\.)(?<!i\.e\.)", re.DOTALL)
_WORDS = re.compile(r"[A-Z]{2}[a-z]+|[A-Z]+(?![a-z])|[A-Z]?[a-z]+|[0-9]+")


def describe(text: str, fallback: str, limit: int = 200) -> str:
    """Return the first sentence of a Markdown text, without its marks, as one line; or the fallback."""
    text = _HEADING.sub("\n", _LINK.sub(r"\1", text.replace("\r", "")))
    paragraphs = [paragraph for paragraph in re.split(r"\n\s*\n", text) if re.search(r"\w", paragraph)]
    text = paragraphs[0] if paragraphs else ""
    text = " ".join(clean_text(_MARKS.sub("", _TAG.sub(" ", text))).split()).replace("{{", "{ {").replace("}}", "} }")
    first = _SENTENCE.match(text)
    sentence = shorten(first.group() if first else text, limit).strip()
    if not any(character.isalnum() for character in sentence):
        sentence = fallback
    if not sentence[1:2].isupper():  # as in iTwin
        sentence = sentence[:1].upper() + sentence[1:]
    return sentence if sentence.endswith((".", "!", "?", "…")) else f"{sentence}."


def make_kebab(text: str) -> str:
    """Return a text as `small-words`: `listPets` becomes `list-pets`. A text with separators keeps its words."""
    text = re.sub(r"(?<![A-Za-z])[a-z](?=[A-Z])", lambda found: found.group().upper(), text)  # iTwin is one word
    has_separators = re.search(r"[^A-Za-z0-9]", text.strip()) is not None
    words = re.findall(r"[A-Za-z0-9]+", text) if has_separators else _WORDS.findall(text)
    return "-".join(words).lower()[:MAX_NAME].strip("-")


def make_camel(text: str) -> str:
    """Return a kebab name as `smallCamelCase`."""
    first, *others = text.split("-")
    return first + "".join(word[:1].upper() + word[1:] for word in others)


def make_input_name(text: str) -> str:
    """Return a name that arguments and parameters can have: `$top` becomes `top`, `filter[name]` `filter-name`."""
    return re.sub(r"[^A-Za-z0-9_-]+", "-", text).strip("-_")[:MAX_NAME] or "value"


def make_singular(word: str) -> str:
    """Return the singular of an English plural, by its ending; other words are returned unchanged."""
    for plural, singular in (("ies", "y"), ("sses", "ss"), ("xes", "x"), ("ches", "ch"), ("shes", "sh")):
        if word.endswith(plural) and len(word) > len(plural) + 1:
            return word[: -len(plural)] + singular
    return word[:-1] if word.endswith("s") and not word.endswith(("ss", "us", "is")) and len(word) > 2 else word


def make_unique(name: str, taken: Collection[str]) -> str:
    """Return the name, with a number at its end if it is taken."""
    number = 2
    unique = name
    while unique in taken:
        unique = f"{name[: MAX_NAME - 3]}-{number}"
        number += 1
    return unique
