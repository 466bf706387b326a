"""`prompts/list` and `prompts/get`: an engineer's workflows, with what the person gave put in once."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping
from typing import Any

import mcp.types as t
from mcp.server.context import ServerRequestContext
from mcp.shared.exceptions import MCPError

from itwin_mcp.capability.catalog import Catalog, Prompt

MOST_CHARACTERS = 2048
"""Of one argument."""

_SLOT = re.compile(r"\{\{\s*([a-zA-Z0-9_*-]+)\s*\}\}")
_TURNS_TEXT = frozenset("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")


class Prompts:
    """The prompts of one server."""

    def __init__(self, catalog: Catalog) -> None:
        self._prompts = catalog.prompts

    async def list(self, _: ServerRequestContext[Any], params: t.PaginatedRequestParams | None) -> t.ListPromptsResult:
        """Every prompt on one page, in the order of the catalog."""
        if params is not None and params.cursor is not None:
            raise MCPError(t.INVALID_PARAMS, "There is one page of prompts: ask without a cursor.")
        return t.ListPromptsResult(
            prompts=[
                t.Prompt(
                    name=prompt.name,
                    title=prompt.title,
                    description=prompt.description,
                    arguments=[
                        t.PromptArgument(name=name, title=title, description=description, required=required)
                        for name, title, description, required in prompt.arguments
                    ],
                )
                for prompt in self._prompts.values()
            ]
        )

    async def get(self, _: ServerRequestContext[Any], params: t.GetPromptRequestParams) -> t.GetPromptResult:
        """One prompt with its arguments. A missing or unknown argument, or an unknown prompt, is -32602."""
        prompt = self._prompts.get(params.name)
        if prompt is None:
            raise MCPError(t.INVALID_PARAMS, f"Unknown prompt: {params.name[:128]}")
        values = _checked(prompt, params.arguments or {})
        return t.GetPromptResult(
            description=prompt.description,
            messages=[
                t.PromptMessage(role=role, content=t.TextContent(type="text", text=fill(content, values)))
                for role, content in prompt.messages
            ],
        )


def fill(content: str, values: Mapping[str, str]) -> str:
    """The text with each slot replaced by its value, nothing where there is none; no value is read for slots again."""
    return _SLOT.sub(lambda slot: values.get(slot[1], ""), content)


def _checked(prompt: Prompt, given: Mapping[str, str]) -> dict[str, str]:
    known = [name for name, _, _, _ in prompt.arguments]
    values = {name: _plain(value) for name, value in given.items()}
    missing = [name for name, _, _, required in prompt.arguments if required and not values.get(name, "").strip()]
    if missing:
        raise MCPError(t.INVALID_PARAMS, f"{prompt.name} needs {', '.join(missing)}.", {"missing": missing})
    unknown = sorted(set(values) - set(known))
    if unknown:
        named = ", ".join(name[:64] for name in unknown[:5])
        raise MCPError(t.INVALID_PARAMS, f"{prompt.name} has no argument {named}; it has {', '.join(known)}.")
    for name, value in values.items():
        if len(value) > MOST_CHARACTERS:
            raise MCPError(t.INVALID_PARAMS, f"{name} has more than {MOST_CHARACTERS} characters.")
    return values


def _plain(value: str) -> str:
    """Without control characters and those that turn the direction of a text: a person must see what they send."""
    return "".join(
        one for one in value if one in "\n\t" or (unicodedata.category(one) != "Cc" and one not in _TURNS_TEXT)
    )
