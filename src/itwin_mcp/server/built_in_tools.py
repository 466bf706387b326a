"""The built-in tools about the session: `who-am-i`, `sign-in` and `read-guide`."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import anyio

from itwin_mcp.capability.answer_schema import build_output_schema
from itwin_mcp.capability.catalog import Annotations, StaticResource, Tool, ToolArgument
from itwin_mcp.capability.expressions import ABSENT
from itwin_mcp.capability.parameters import build_input_schema
from itwin_mcp.capability.selection import SESSION
from itwin_mcp.capability.tool_actions import BuiltIn, Output
from itwin_mcp.errors import CallError
from itwin_mcp.executor.context import CallContext
from itwin_mcp.executor.outcome import Outcome, Question, Result
from itwin_mcp.executor.pipeline import BuiltInTool

if TYPE_CHECKING:
    from itwin_mcp.upstream.sign_in.background_login import BackgroundLogin, PendingLogin

WHO_AM_I = "who-am-i"
SIGN_IN = "sign-in"
READ_GUIDE = "read-guide"

QUESTION = "Sign in to the iTwin Platform in your browser."
WAIT_SECONDS = 40.0
"""How long a call waits for a user who opened the link. Many clients time out after a minute."""


def _nullable(kind: str, description: str) -> dict[str, Any]:
    return {"type": [kind, "null"], "description": description}


def _build_tool(
    name: str,
    title: str,
    description: str,
    subject: str,
    properties: Mapping[str, Any],
    arguments: tuple[ToolArgument, ...] = (),
    *,
    open_world: bool = True,
) -> Tool:
    """Return a read-only tool whose answer has the member `subject` with these properties."""
    output = Output("object", properties=((subject, Output("object")),))
    schema = {"properties": {subject: {"type": "object", "properties": dict(properties)}}}
    return Tool(
        name=name,
        title=title,
        description=description,
        toolset=SESSION,
        annotations=Annotations(read_only=True, destructive=False, idempotent=True, open_world=open_world),
        arguments=arguments,
        input_schema=build_input_schema(arguments),
        output_schema=build_output_schema(output, schema, paged=False, cut=False, waits=False, resolves=False),
        action=BuiltIn(),
    )


TOOLS: tuple[Tool, ...] = (
    _build_tool(
        WHO_AM_I,
        "Who am I",
        "Show who is signed in to the iTwin Platform: user or service application, account, environment, scopes, "
        "expiry. Use it when a permission is missing, or when the user asks as whom or where they work.",
        "session",
        {
            "kind": _nullable("string", "user or application."),
            "name": _nullable("string", "The user's name."),
            "email": _nullable("string", "The address under which iTwins list this user as a member."),
            "userId": _nullable("string", "Their id in other answers: creatorId, ownerId, createdBy."),
            "organization": _nullable("string", "The organization that they belong to."),
            "application": _nullable("string", "The client id that signed in."),
            "account": {
                "type": ["object", "null"],
                "description": "The account (an iTwin of class Account) of the user.",
                "properties": {
                    "id": {"type": "string"},
                    "displayName": {"type": ["string", "null"]},
                    "number": {"type": ["string", "null"]},
                },
                "required": ["id"],
            },
            "environment": _nullable("string", "production, qa, dev, embedded sandbox, or the address of another."),
            "platform": _nullable("string", "The address of the platform; null in the sandbox."),
            "signInServer": _nullable("string", "The address of the sign-in server."),
            "signedInWith": _nullable("string", "login, service-application, access-token …"),
            "profile": _nullable("string", "The name of the saved login."),
            "scopes": {"type": ["array", "null"], "items": {"type": "string"}},
            "expiresAt": _nullable("string", "When the current token expires, in UTC."),
            "renewed": _nullable("boolean", "Whether the token is renewed automatically."),
        },
    ),
    _build_tool(
        SIGN_IN,
        "Sign in",
        "Start signing the user in to the iTwin Platform. Returns a link to open in a browser. Use it when an answer "
        "says NotSignedIn, or when the user wants to sign in as somebody else. Show the link unchanged; after the user "
        "has signed in, repeat the call that failed. Calling again returns the same link until it expires.",
        "signIn",
        {
            "state": _nullable("string", "waiting for the person, signed-in, or declined."),
            "url": _nullable("string", "The link for the user; null if there is nothing to open."),
            "secondsLeft": _nullable("number", "Seconds until the link expires."),
            "message": _nullable("string", "What to do next."),
        },
    ),
)


def build_guide_tools(guides: Sequence[StaticResource]) -> tuple[Tool, ...]:
    """Return `read-guide`, for clients that do not pass resources to their model; `()` if there are no guides."""
    if not guides:
        return ()
    schema = {"type": "string", "enum": list(_name_guides(guides)), "description": "Name of the guide."}
    tool = _build_tool(
        READ_GUIDE,
        "Read guide",
        "Read a guide to how the iTwin Platform works. Use it before creating an iTwin, when an error is unclear, or "
        "when the user asks what a term, state or permission means.",
        "guide",
        {"name": {"type": "string"}, "title": {"type": "string"}, "text": {"type": "string"}},
        (ToolArgument("guide", schema, True, None, ABSENT),),
        open_world=False,
    )
    return (tool,)


def _name_guides(guides: Sequence[StaticResource]) -> dict[str, StaticResource]:
    """Return the guides by name, or by URI if the name is already taken."""
    guides_by_name: dict[str, StaticResource] = {}
    for guide in guides:
        guides_by_name[guide.name if guide.name not in guides_by_name else guide.uri] = guide
    return guides_by_name


class SessionTools:
    """Handles calls of the tools about the session."""

    def __init__(
        self,
        who_am_i: Callable[[], Awaitable[dict[str, Any]]],
        login: BackgroundLogin | None,
        guides: Sequence[StaticResource] = (),
    ) -> None:
        """`login` is None if nobody can sign in: over HTTP, from the shell, or without a native application."""
        self._who_am_i = who_am_i
        self._login = login
        self._guides = _name_guides(guides)

    @property
    def handlers(self) -> Mapping[str, BuiltInTool]:
        """The handler of each tool, by name."""
        return {WHO_AM_I: self._describe, READ_GUIDE: self._read_guide, SIGN_IN: self._sign_in}

    async def _describe(self, _: CallContext) -> Result:
        return Result({"session": await self._who_am_i()})

    async def _read_guide(self, context: CallContext) -> Result:
        guide = self._guides[context.arguments["guide"]]
        return Result({"guide": {"name": guide.name, "title": guide.title, "text": guide.text}})

    async def _sign_in(self, context: CallContext) -> Outcome:
        """Start, continue or end a sign-in. The answer says what to do next."""
        login, conversation = self._login, context.conversation
        assert login is not None  # otherwise `sign-in` is not served
        action = conversation.link_reply()
        if action is not None and login.last is not None:
            return await _continue(login, login.last, action)
        ended = await _take_ended(login)
        if ended is not None and ended.failure is None:
            return _report_signed_in()
        pending = await login.begin()
        question = Question(QUESTION, url=pending.url)
        reply = await conversation.open_link(question)
        if isinstance(reply, str):
            return await _continue(login, pending, reply)
        if reply.asked:
            return question
        return await _offer_link(login, pending, ended.failure if ended is not None else None)


async def _continue(login: BackgroundLogin, pending: PendingLogin, action: str) -> Result:
    """Continue after the user's reply to the link. `accept` means that they opened it, not that they signed in."""
    if action == "decline":
        await login.give_up()
        return _build_answer("declined", None, "The user does not want to sign in. Ask them before you try again.")
    if action == "accept":
        with anyio.move_on_after(min(WAIT_SECONDS, pending.seconds_left)):
            await pending.done.wait()
    if not pending.done.is_set():
        return await _offer_link(login, pending, None)
    await login.give_up()
    if pending.failure is not None:
        raise pending.failure
    return _report_signed_in()


async def _take_ended(login: BackgroundLogin) -> PendingLogin | None:
    """Return the last attempt if it has ended, and forget it, so that it is reported once."""
    last = login.last
    if last is None or not (last.is_answered or last.done.is_set()):
        return None
    await last.done.wait()  # an answered attempt ends soon; a new one in its place would hide why it failed
    await login.give_up()
    return last


async def _offer_link(login: BackgroundLogin, pending: PendingLogin, failure: CallError | None) -> Result:
    message = (
        "Show the user this link unchanged, and ask them to open it on this computer. "
        "After they have signed in, repeat the call that failed."
    )
    if failure is not None:
        message = f"{failure.message} This is a new link. {message}"
    elif await login.exists():
        message = f"A user is already signed in; this link is for signing in again or as somebody else. {message}"
    return _build_answer("waiting", pending, message)


def _report_signed_in() -> Result:
    return _build_answer("signed-in", None, "The user has signed in. Repeat the call that failed.")


def _build_answer(state: str, pending: PendingLogin | None, message: str) -> Result:
    """Return the answer of `sign-in`, with the link of a sign-in that is pending."""
    url = pending.url if pending is not None else None
    seconds_left = round(pending.seconds_left) if pending is not None else None
    return Result({"signIn": {"state": state, "url": url, "secondsLeft": seconds_left, "message": message}})
