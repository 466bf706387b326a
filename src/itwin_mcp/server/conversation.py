"""Asking the person behind an MCP client, in the way of its protocol era, and telling how far a call has come."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import anyio
import mcp.types as t
from mcp.server.context import ServerRequestContext
from mcp.shared.exceptions import MCPError
from mcp.types.version import MODERN_PROTOCOL_VERSIONS
from pydantic import ValidationError

from itwin_mcp.executor.conversation import Answer, Confirmed, Later, Question

CONFIRM = "confirm"
"""What the question is called among those of a result, and its answer among those of the next call."""
NAME = "name"
"""The one field of the form."""

_MULTI_ROUND = Confirmed("person", "multi-round")
_ELICITATION = Confirmed("person", "elicitation")


class McpConversation:
    """The client of one request. Progress goes out on the request's own stream, if the client asked for it."""

    def __init__(
        self,
        context: ServerRequestContext[Any],
        answers: Mapping[str, Any] | None = None,
        state: str | None = None,
    ) -> None:
        """`answers` and `state` are what a 2026-07-28 client brings back from the question of an earlier call."""
        self._context = context
        self._session = context.session
        self._last = -1.0
        self._answers = dict(answers or {})
        self._state = state
        self._question: Question | None = None

    async def ask(self, question: Question) -> Answer | Later:
        """The answer that came with the call, or in it; Later where the question goes out with the result."""
        if not can_be_asked(self._context, "form"):
            return Later()
        if self._context.protocol_version not in MODERN_PROTOCOL_VERSIONS:
            return await self._ask_now(question)
        answered, self._question = self._answers.pop(CONFIRM, None), question
        if isinstance(answered, t.ElicitResult) and self._state is not None:
            self._question = None
            return Answer(answered.action, _MULTI_ROUND, _typed(answered), self._state)
        return Later(asked=True)

    def asks(self) -> dict[str, Any] | None:
        """The result that carries the question; None where none is open. The client asks, then calls again."""
        if self._question is None:
            return None
        asked = t.ElicitRequest(params=_form(self._question))
        return {
            "resultType": "input_required",
            "inputRequests": {CONFIRM: asked.model_dump(by_alias=True, mode="json", exclude_none=True)},
            "requestState": self._question.state,
        }

    async def _ask_now(self, question: Question) -> Answer | Later:
        """Older revisions: a question while the call is under way."""
        form = _form(question)
        try:
            with anyio.move_on_after(question.seconds):
                given = await self._session.elicit_form(
                    form.message, form.requested_schema, related_request_id=self._context.request_id
                )
                return Answer(given.action, _ELICITATION, _typed(given))
        except MCPError:  # it said that it can be asked, but cannot
            return Later()
        except ValidationError:
            return Answer("cancel", _ELICITATION)
        return Answer("expire", _ELICITATION)

    async def progress(self, done: float, total: float | None, text: str) -> None:
        """Send a progress notification; its value always grows, as the protocol demands."""
        done = max(done, self._last + 0.001)
        self._last = done
        if total is not None and total < done:  # another part of the call counts in other units
            total = None
        await self._session.report_progress(done, total, text)


def can_be_asked(context: ServerRequestContext[Any], mode: Literal["form", "url"]) -> bool:
    """Whether the client said that it shows such questions; before 2025-11-25 all that it could say was forms."""
    capabilities = context.session.client_capabilities
    elicitation = capabilities.elicitation if capabilities is not None else None
    if elicitation is None:
        return False
    if mode == "url":
        return elicitation.url is not None
    return elicitation.form is not None or elicitation.url is None


def _form(question: Question) -> t.ElicitRequestFormParams:
    field = {"type": "string", "title": "Name", "description": f"Type it to confirm: {question.name}"}
    schema = {"type": "object", "properties": {NAME: field}, "required": [NAME]}
    return t.ElicitRequestFormParams(message=question.message, requested_schema=schema)


def _typed(given: t.ElicitResult) -> str:
    typed = (given.content or {}).get(NAME)
    return typed if isinstance(typed, str) else ""
