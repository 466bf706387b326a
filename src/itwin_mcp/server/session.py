"""The tools that no capability file could say: `who-am-i`, `sign-in`, and `read-guide`."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Protocol

import anyio

from itwin_mcp.capability.catalog import Annotations, StaticResource, Tool, ToolArgument
from itwin_mcp.capability.expressions import ABSENT
from itwin_mcp.capability.parameters import output_schema, published_schema
from itwin_mcp.capability.plans import Output, Steps
from itwin_mcp.capability.selection import SESSION
from itwin_mcp.errors import CallError
from itwin_mcp.executor.conversion import convert_arguments
from itwin_mcp.executor.validate import compile_check

WHO_AM_I = "who-am-i"
SIGN_IN = "sign-in"
READ_GUIDE = "read-guide"


def _scalar(kind: str, description: str) -> dict[str, Any]:
    return {"type": [kind, "null"], "description": description}


def _tool(
    name: str,
    title: str,
    description: str,
    subject: str,
    properties: Mapping[str, Any],
    arguments: tuple[ToolArgument, ...] = (),
    *,
    open_world: bool = True,
) -> Tool:
    """Return a tool that changes nothing on the platform, so a read-only server has it too."""
    output = Output("object", properties=((subject, Output("object")),))
    schema = {"properties": {subject: {"type": "object", "properties": dict(properties)}}}
    return Tool(
        name=name,
        title=title,
        description=description,
        toolset=SESSION,
        annotations=Annotations(read_only=True, destructive=False, idempotent=True, open_world=open_world),
        arguments=arguments,
        input_schema=published_schema(arguments),
        output_schema=output_schema(output, schema, paged=False, cut=False, waits=False, resolves=False),
        action=Steps((), (), output),
        file="",
    )


TOOLS: tuple[Tool, ...] = (
    _tool(
        WHO_AM_I,
        "Who am I",
        "Tell who acts on the iTwin Platform: user or service application, account, environment, scopes, expiry. Use "
        "it when a call was refused for want of permission, or when the person asks as whom or where they work.",
        "session",
        {
            "kind": _scalar("string", "user or application."),
            "name": _scalar("string", "The user's name."),
            "email": _scalar("string", "The address by which an iTwin has them as a member."),
            "application": _scalar("string", "The client id that signed in."),
            "account": {
                "type": ["object", "null"],
                "description": "The account (an iTwin of class Account) that they belong to.",
                "properties": {
                    "id": {"type": "string"},
                    "displayName": {"type": ["string", "null"]},
                    "number": {"type": ["string", "null"]},
                },
                "required": ["id"],
            },
            "environment": _scalar("string", "production, qa, dev, embedded sandbox, or the address of another."),
            "platform": _scalar("string", "The address of the platform; null in the sandbox."),
            "signInServer": _scalar("string", "The address of the sign-in server."),
            "signedInWith": _scalar("string", "login, service-application, access-token …"),
            "profile": _scalar("string", "The name under which the login is kept."),
            "scopes": {"type": ["array", "null"], "items": {"type": "string"}},
            "expiresAt": _scalar("string", "When the present token ends, in UTC."),
            "renewed": _scalar("boolean", "Whether it is renewed by itself; if not, a new one must be given."),
        },
    ),
    _tool(
        SIGN_IN,
        "Sign in",
        "Begin signing the person in to the iTwin Platform: gives a link that they open in their browser. Use it when "
        "an answer says NotSignedIn, or when they want to sign in as somebody else. Show them the link as it is; when "
        "they have signed in, repeat the call that failed. Calling again gives the same link while it is good.",
        "signIn",
        {
            "state": _scalar("string", "waiting for the person, signed-in, or declined."),
            "url": _scalar("string", "The link for the person; null when there is nothing to open."),
            "secondsLeft": _scalar("number", "How long the link is good."),
            "message": _scalar("string", "What to do next."),
        },
    ),
)


def guide_tools(guides: Sequence[StaticResource]) -> tuple[Tool, ...]:
    """Return `read-guide` for clients that do not pass resources to their model; nothing if there are no guides."""
    if not guides:
        return ()
    schema = {"type": "string", "enum": list(_by_name(guides)), "description": "Name of the guide."}
    tool = _tool(
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


def _by_name(guides: Sequence[StaticResource]) -> dict[str, StaticResource]:
    """Return the guides by name. A user's own guide that has the name of another is listed by its URI."""
    named: dict[str, StaticResource] = {}
    for guide in guides:
        named[guide.name if guide.name not in named else guide.uri] = guide
    return named


class Pending(Protocol):
    """A sign-in that waits for the person."""

    url: str
    done: anyio.Event
    failure: CallError | None

    @property
    def seconds_left(self) -> float:
        """How long the link is good."""


class Login(Protocol):
    """Signing in while the server serves."""

    @property
    def last(self) -> Pending | None:
        """The attempt under way, or one that ended and that nobody has been told of."""

    async def begin(self) -> Pending:
        """The attempt under way, or a new one. Raises an error of the CallError family."""

    async def give_up(self) -> None:
        """End the attempt under way, and forget the last one."""

    async def exists(self) -> bool:
        """Whether somebody signed in before."""


class Session:
    """Who acts, how they sign in, and the guides that they can read."""

    def __init__(
        self,
        who_am_i: Callable[[], Awaitable[dict[str, Any]]],
        login: Login | None,
        guides: Sequence[StaticResource] = (),
    ) -> None:
        """`login` is None where nobody can sign in: over HTTP, from the shell, or without a native application."""
        self._who_am_i = who_am_i
        self._guides = _by_name(guides)
        self.login = login

    async def answer(self, tool: Tool, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """Return the answer of `who-am-i` or `read-guide`. Raises an error of the CallError family."""
        checked = check(tool, arguments)
        if tool.name == READ_GUIDE:
            guide = self._guides[checked["guide"]]
            return {"guide": {"name": guide.name, "title": guide.title, "text": guide.text}}
        return {"session": await self._who_am_i()}


def check(tool: Tool, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments, converted. Raises InvalidArguments unless the tool's published schema allows them."""
    return compile_check(tool)(convert_arguments(tool, arguments))
