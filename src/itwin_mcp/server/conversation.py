"""Asks the user of an MCP client, as its protocol revision allows, and reports progress."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import anyio
import mcp.types as t
from mcp.server.context import ServerRequestContext
from mcp.shared.exceptions import MCPError
from mcp.types.version import MODERN_PROTOCOL_VERSIONS
from pydantic import ValidationError

from itwin_mcp.executor.context import Confirmation, NoReply, Reply
from itwin_mcp.executor.outcome import Question
from itwin_mcp.server.results import CONFIRM, LINK, NAME, to_form

_MULTI_ROUND = Confirmation("person", "multi-round")
_ELICITATION = Confirmation("person", "elicitation")


@dataclass(slots=True)
class McpConversation:
    """The conversation with the client during one request.

    After the question of an earlier call, a 2026-07-28 client sends `replies` and the question's `state` back.
    """

    context: ServerRequestContext[Any]
    replies: Mapping[str, Any] = field(default_factory=dict)
    state: str | None = None
    _last_progress: float = -1.0
    _is_reply_used: bool = False

    async def ask(self, question: Question) -> Reply | NoReply:
        """Return the user's reply, or NoReply if the client cannot ask or must ask after this call's result.

        Revisions before 2026-07-28 ask during the call. Since then the question is the result of a call, and the reply
        comes with the next call.
        """
        if not self._can_ask("form"):
            return NoReply()
        if not self._is_modern:
            return await self._ask_now(question)
        reply = None if self._is_reply_used else self.replies.get(CONFIRM)
        self._is_reply_used = True  # a reply answers one question, and a second question is asked again
        if isinstance(reply, t.ElicitResult) and self.state is not None:
            return Reply(reply.action, _MULTI_ROUND, _read_name(reply), self.state)
        return NoReply(asked=True)

    async def _ask_now(self, question: Question) -> Reply | NoReply:
        """Ask during the call, as revisions before 2026-07-28 do."""
        form = to_form(question)
        try:
            with anyio.move_on_after(question.seconds):
                reply = await self.context.session.elicit_form(
                    form.message, form.requested_schema, related_request_id=self.context.request_id
                )
                return Reply(reply.action, _ELICITATION, _read_name(reply))
        except MCPError:  # the client declared elicitation but does not support it
            return NoReply()
        except ValidationError:
            return Reply("cancel", _ELICITATION)
        return Reply("expire", _ELICITATION)

    async def open_link(self, question: Question) -> str | NoReply:
        """Ask the user to open a link: after this call's result, or in older revisions during the call."""
        if not self._can_ask("url"):
            return NoReply()
        if self._is_modern:
            return NoReply(asked=True)
        try:
            reply = await self.context.session.elicit_url(
                question.message, question.url or "", uuid.uuid4().hex, related_request_id=self.context.request_id
            )
        except MCPError:
            return NoReply()
        return reply.action

    def link_reply(self) -> str | None:
        """Return the user's action on the link of an earlier call (accept, decline or cancel), or None."""
        reply = self.replies.get(LINK)
        return reply.action if isinstance(reply, t.ElicitResult) else None

    async def progress(self, done: float, total: float | None, text: str) -> None:
        """Send a progress notification if the client asked for them. The value always grows, as MCP requires."""
        done = max(done, self._last_progress + 0.001)
        self._last_progress = done
        if total is not None and total < done:  # the next step of the call counts in other units
            total = None
        await self.context.session.report_progress(done, total, text)

    @property
    def _is_modern(self) -> bool:
        return self.context.protocol_version in MODERN_PROTOCOL_VERSIONS

    def _can_ask(self, mode: Literal["form", "url"]) -> bool:
        """Return whether the client declared this mode of elicitation. Before 2025-11-25 the only mode was forms."""
        capabilities = self.context.session.client_capabilities
        elicitation = capabilities.elicitation if capabilities is not None else None
        if elicitation is None:
            return False
        if mode == "url":
            return elicitation.url is not None
        return elicitation.form is not None or elicitation.url is None


def _read_name(reply: t.ElicitResult) -> str:
    typed = (reply.content or {}).get(NAME)
    return typed if isinstance(typed, str) else ""
