"""The page about our words tells all of them and nothing else, and its examples are what the models take."""

import re
from typing import Any

import pytest
import yaml
from pydantic import BaseModel, TypeAdapter

from itwin_mcp.capability import flows
from itwin_mcp.capability.catalog import shipped
from itwin_mcp.capability.extensions import WORDS
from itwin_mcp.capability.node import Node

PAGE = (shipped()[0].parent / "README.md").read_text(encoding="utf-8")
SECTIONS = re.findall(r"^### `(x-[a-z]+)`: (.+)\n((?:(?!^###? ).*\n?)*)", PAGE, re.MULTILINE)


def served() -> dict[str, Any]:
    """The words that some model takes, and the types of their values."""
    words: dict[str, Any] = {}
    models: list[type[BaseModel]] = [Node]
    while models:
        model = models.pop()
        models.extend(model.__subclasses__())
        for field in model.model_fields.values():
            if field.alias is not None and field.alias.startswith("x-"):
                words[field.alias] = words[field.alias] | field.annotation if field.alias in words else field.annotation
    return words


def test_the_page_explains_every_word_in_order_where_it_stands_and_no_other() -> None:
    assert [(word, stands) for word, stands, _ in SECTIONS] == list(WORDS.items())
    assert list(WORDS) == sorted(WORDS)
    assert set(re.findall(r"`(x-[a-z-]+)", PAGE)) == set(WORDS)


def test_a_word_that_is_not_served_is_said_to_be_so() -> None:
    assert set(served()) <= set(WORDS)
    assert {word for word, _, text in SECTIONS if "Not served yet" in text} == set(WORDS) - set(served())


@pytest.mark.parametrize(("word", "text"), [(word, text) for word, _, text in SECTIONS if word in served()])
def test_the_example_of_a_word_is_what_its_model_takes(word: str, text: str) -> None:
    (example,) = re.findall(r"```yaml\n(.*?)```", text, re.DOTALL)
    ((name, value),) = yaml.safe_load(example).items()
    TypeAdapter(served()[word]).validate_python(value if name == word else value[word])
    if isinstance(value, dict) and value.get("type") in ("call", "lookup"):
        TypeAdapter(flows.Step).validate_python(value)
