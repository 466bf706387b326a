"""`prompts/list` and `prompts/get`: an engineer's workflows, filled in with the user's arguments."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import mcp.types as t
from mcp.server.context import ServerRequestContext
from mcp.shared.exceptions import MCPError

from itwin_mcp.capability.catalog import Catalog, Prompt
from itwin_mcp.text import clean_text

MAX_CHARACTERS = 2048
"""The longest value of an argument."""

_SLOT = re.compile(r"\{\{\s*([a-zA-Z0-9_*-]+)\s*\}\}")


class Prompts:
    """The prompts of one server."""

    def __init__(self, catalog: Catalog) -> None:
        self._prompts = catalog.prompts

    async def list(self, _: ServerRequestContext[Any], params: t.PaginatedRequestParams | None) -> t.ListPromptsResult:
        """Return every prompt on one page, in the order of the catalog."""
        if params is not None and params.cursor is not None:
            raise MCPError(t.INVALID_PARAMS, "There is only one page of prompts: omit the cursor.")
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
        """Return a prompt, filled in. Invalid arguments and unknown prompts are the error -32602."""
        prompt = self._prompts.get(params.name)
        if prompt is None:
            raise MCPError(t.INVALID_PARAMS, f"Unknown prompt: {params.name[:128]}")
        values = _check_arguments(prompt, params.arguments or {})
        return t.GetPromptResult(
            description=prompt.description,
            messages=[
                t.PromptMessage(role=role, content=t.TextContent(type="text", text=fill(content, values)))
                for role, content in prompt.messages
            ],
        )


def fill(content: str, values: Mapping[str, str]) -> str:
    """Replace each slot `{{name}}` with its value, or with nothing. Slots inside a value are not replaced."""
    return _SLOT.sub(lambda slot: values.get(slot[1], ""), content)


def _check_arguments(prompt: Prompt, arguments: Mapping[str, str]) -> dict[str, str]:
    """Return the cleaned values. Raises MCPError if one is missing, unknown or too long."""
    names = [name for name, _, _, _ in prompt.arguments]
    # The user sees the prompt before sending it, so that nothing in it may be invisible.
    values = {name: clean_text(value) for name, value in arguments.items()}
    missing = [name for name, _, _, required in prompt.arguments if required and not values.get(name, "").strip()]
    if missing:
        raise MCPError(t.INVALID_PARAMS, f"{prompt.name} needs {', '.join(missing)}.", {"missing": missing})
    unknown = sorted(name[:64] for name in values.keys() - set(names))
    if unknown:
        known = ", ".join(names)
        raise MCPError(
            t.INVALID_PARAMS, f"{prompt.name} has no argument {', '.join(unknown[:5])}. Its arguments: {known}."
        )
    for name, value in values.items():
        if len(value) > MAX_CHARACTERS:
            raise MCPError(t.INVALID_PARAMS, f"{name} has more than {MAX_CHARACTERS} characters.")
    return values
