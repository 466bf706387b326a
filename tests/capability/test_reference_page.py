"""The reference page of our `x-` words explains all of them, with valid examples."""

import re
from typing import Any

import pytest
import yaml
from pydantic import BaseModel, TypeAdapter

from itwin_mcp.capability import flow_schema
from itwin_mcp.capability.documents import find_shipped_files
from itwin_mcp.capability.extensions import WORDS
from itwin_mcp.capability.schema_types import Node

PAGE = (find_shipped_files()[0].parent / "README.md").read_text(encoding="utf-8")
SECTIONS = re.findall(r"^### `(x-[a-z]+)`: (.+)\n((?:(?!^###? ).*\n?)*)", PAGE, re.MULTILINE)


def list_served_words() -> dict[str, Any]:
    """Return the words that the schema accepts, with the types of their values."""
    words: dict[str, Any] = {}
    models: list[type[BaseModel]] = [Node]
    while models:
        model = models.pop()
        models.extend(model.__subclasses__())
        for field in model.model_fields.values():
            if field.alias is not None and field.alias.startswith("x-"):
                words[field.alias] = words[field.alias] | field.annotation if field.alias in words else field.annotation
    return words


def test_reference_page_explains_every_x_word_in_order() -> None:
    assert [(word, place) for word, place, _ in SECTIONS] == list(WORDS.items())
    assert list(WORDS) == sorted(WORDS)
    assert set(re.findall(r"`(x-[a-z-]+)", PAGE)) == set(WORDS)


def test_reference_page_marks_x_words_that_are_not_served() -> None:
    assert set(list_served_words()) <= set(WORDS)
    assert {word for word, _, text in SECTIONS if "Not served yet" in text} == set(WORDS) - set(list_served_words())


@pytest.mark.parametrize(("word", "text"), [(word, text) for word, _, text in SECTIONS if word in list_served_words()])
def test_reference_page_example_is_valid_for_its_model(word: str, text: str) -> None:
    (example,) = re.findall(r"```yaml\n(.*?)```", text, re.DOTALL)
    ((name, value),) = yaml.safe_load(example).items()
    TypeAdapter(list_served_words()[word]).validate_python(value if name == word else value[word])
    if isinstance(value, dict) and value.get("type") in ("call", "lookup"):
        TypeAdapter(flow_schema.StepSpec).validate_python(value)
