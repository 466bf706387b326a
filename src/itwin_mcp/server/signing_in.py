"""The tool `sign-in`: a link for the person, asked for by the client itself where it can show one."""

from __future__ import annotations

import uuid
from typing import Any

import anyio
import mcp.types as t
from mcp.server.context import ServerRequestContext
from mcp.shared.exceptions import MCPError
from mcp.types.version import MODERN_PROTOCOL_VERSIONS

from itwin_mcp.capability.catalog import Tool
from itwin_mcp.errors import CallError
from itwin_mcp.server.conversation import can_be_asked
from itwin_mcp.server.results import outcome, wire_result
from itwin_mcp.server.session import SIGN_IN, Login, Pending, check

QUESTION = "Sign in to the iTwin Platform in your browser."
WAIT_SECONDS = 40.0
"""For a person who agreed to open the link; below the minute after which clients give a call up."""


async def sign_in(
    tool: Tool, login: Login, context: ServerRequestContext[Any], params: t.CallToolRequestParams
) -> t.CallToolResult | t.InputRequiredResult:
    """Begin, continue or end a sign-in; the answer says what the person and the agent do next."""
    question: list[t.InputRequiredResult] = []

    async def perform() -> dict[str, Any]:
        check(tool, params.arguments or {})
        answered = (params.input_responses or {}).get(SIGN_IN)
        if isinstance(answered, t.ElicitResult) and login.last is not None:
            return {"signIn": await _continue(login, login.last, answered.action)}
        ended = await _ended(login)
        if ended is not None and ended.failure is None:
            return {"signIn": _signed_in()}
        pending = await login.begin()
        if can_be_asked(context, "url"):
            if context.protocol_version in MODERN_PROTOCOL_VERSIONS:
                question.append(_question(pending))
                return {}
            action = await _ask(context, pending)
            if action is not None:
                return {"signIn": await _continue(login, pending, action)}
        return {"signIn": await _link(login, pending, ended.failure if ended is not None else None)}

    structured, is_error = await outcome(SIGN_IN, perform)
    if question:
        return question[0]
    return t.CallToolResult.model_validate(wire_result(structured, is_error))


def _question(pending: Pending) -> t.InputRequiredResult:
    """2026-07-28: the client asks, then calls again with the answer."""
    asked = t.ElicitRequest(params=t.ElicitRequestURLParams(message=QUESTION, url=pending.url))
    return t.InputRequiredResult(input_requests={SIGN_IN: asked})


async def _ask(context: ServerRequestContext[Any], pending: Pending) -> str | None:
    """Older revisions: a question while the call is under way. None when the client cannot be asked after all."""
    elicitation = uuid.uuid4().hex
    try:
        answer = await context.session.elicit_url(
            QUESTION, pending.url, elicitation, related_request_id=context.request_id
        )
    except MCPError:
        return None
    return answer.action


async def _continue(login: Login, pending: Pending, action: str) -> dict[str, Any]:
    """After the person was asked: `accept` means that they opened the link, not that they have signed in."""
    if action == "decline":
        await login.give_up()
        return _said("declined", None, "The person does not want to sign in. Ask them before you try again.")
    if action == "accept":
        with anyio.move_on_after(min(WAIT_SECONDS, pending.seconds_left)):
            await pending.done.wait()
    if not pending.done.is_set():
        return await _link(login, pending, None)
    await login.give_up()
    if pending.failure is not None:
        raise pending.failure
    return _signed_in()


async def _ended(login: Login) -> Pending | None:
    """The last attempt if it has ended, told once; None when there was none or it is still under way."""
    last = login.last
    if last is None or not last.done.is_set():
        return None
    await login.give_up()
    return last


async def _link(login: Login, pending: Pending, failure: CallError | None) -> dict[str, Any]:
    message = (
        "Show the person this link as it is and ask them to open it on this computer. "
        "When they have signed in, repeat the call that failed."
    )
    if failure is not None:
        message = f"{failure.message} This is a new link. {message}"
    elif await login.exists():
        message = f"Somebody is signed in already; the link is for signing in anew or as somebody else. {message}"
    return _said("waiting", pending, message)


def _signed_in() -> dict[str, Any]:
    return _said("signed-in", None, "The person has signed in. Repeat the call that failed.")


def _said(state: str, pending: Pending | None, message: str) -> dict[str, Any]:
    return {
        "state": state,
        "url": pending.url if pending is not None else None,
        "secondsLeft": round(pending.seconds_left) if pending is not None else None,
        "message": message,
    }
