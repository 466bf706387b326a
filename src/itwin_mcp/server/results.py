"""Converts the outcome of a call into an MCP result."""

from __future__ import annotations

import base64
from typing import Any

import mcp.types as t

from itwin_mcp.executor.outcome import Failure, Outcome, Preview, Question, Result

CONFIRM = "confirm"
"""The key of a form in a result that asks for input, and of the reply in the next call."""
LINK = "sign-in"
"""The key of a link that the user opens, and of the reply."""
NAME = "name"
"""The only field of the form."""


def to_result(outcome: Outcome) -> dict[str, Any]:
    """Return a CallToolResult as JSON: the answer as structured content and again as text, then pictures as images.

    A question becomes a result that asks for input (2026-07-28): the client asks the user, then calls again.
    """
    if isinstance(outcome, Question):
        key = CONFIRM if outcome.url is None else LINK
        params = (
            to_form(outcome)
            if outcome.url is None
            else t.ElicitRequestURLParams(message=outcome.message, url=outcome.url)
        )
        request = t.ElicitRequest(params=params).model_dump(by_alias=True, mode="json", exclude_none=True)
        state = {"requestState": outcome.state} if outcome.state else {}
        return {"resultType": "input_required", "inputRequests": {key: request}, **state}
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
