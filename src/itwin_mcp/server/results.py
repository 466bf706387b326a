"""Converts the outcome of a call into an MCP result."""

from __future__ import annotations

import base64
from typing import Any

import mcp.types as t

from itwin_mcp.executor.outcome import Failure, Outcome, Preview, Question, Result

CONFIRM = "confirm"
"""The key of a form in a result that asks for input, and of its reply in the next call."""
LINK = "sign-in"
"""The key of a link that the user opens, likewise."""
NAME = "name"
"""The only field of the form."""


def to_result(outcome: Outcome) -> dict[str, Any]:
    """Return a CallToolResult as JSON: the answer as structured content, and the same as text.

    Pictures follow as images that the client can show. A question becomes a result that asks for input (2026-07-28):
    the client asks the user, then calls again.
    """
    if isinstance(outcome, Question):
        return {
            "resultType": "input_required",
            "inputRequests": {
                LINK if outcome.url is not None else CONFIRM: t.ElicitRequest(
                    params=to_link(outcome) if outcome.url is not None else to_form(outcome)
                ).model_dump(by_alias=True, mode="json", exclude_none=True)
            },
            **({"requestState": outcome.state} if outcome.state else {}),
        }
    blobs = outcome.blobs if isinstance(outcome, Result) else ()
    pictures = [
        {"type": "image", "data": base64.b64encode(blob.content).decode(), "mimeType": blob.media_type}
        for blob in blobs
        if blob.is_picture
    ]
    return {
        "content": [{"type": "text", "text": outcome.text}, *pictures],
        "structuredContent": outcome.answer,
        "isError": isinstance(outcome, Failure | Preview),
    }


def to_form(question: Question) -> t.ElicitRequestFormParams:
    """Return the form in which the user types a name to confirm."""
    field = {"type": "string", "title": "Name", "description": f"Type it to confirm: {question.name}"}
    schema = {"type": "object", "properties": {NAME: field}, "required": [NAME]}
    return t.ElicitRequestFormParams(message=question.message, requested_schema=schema)


def to_link(question: Question) -> t.ElicitRequestURLParams:
    """Return the request to open a link."""
    return t.ElicitRequestURLParams(message=question.message, url=question.url or "")
