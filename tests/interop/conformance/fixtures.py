"""Conformance fixtures that a capability file cannot express: other content, questions and log messages.

capability.yaml declares the tools and prompts, so that they are read, linked, listed and checked like ours. This
middleware only makes their answers.
"""

from __future__ import annotations

import base64
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import mcp.types as t
from mcp.server.context import CallNext, HandlerResult, ServerRequestContext
from mcp.shared.exceptions import MCPError
from mcp.types.jsonrpc import MISSING_REQUIRED_CLIENT_CAPABILITY
from mcp.types.version import MODERN_PROTOCOL_VERSIONS

from itwin_mcp.capability.catalog import Catalog, Tool
from itwin_mcp.executor.arguments import compile_check
from itwin_mcp.executor.confirmation.seals import SealError, Seals
from itwin_mcp.executor.context import LOCAL
from tests.interop.conformance.upstream import PICTURE

Context = ServerRequestContext[Any]
Answer = t.CallToolResult | t.InputRequiredResult | t.GetPromptResult
Fixture = Callable[["Fixtures", Context, Mapping[str, Any], "Given"], Awaitable[Answer]]

_SOUND = b"RIFF$\0\0\0WAVEfmt \x10\0\0\0\1\0\1\0@\x1f\0\0@\x1f\0\0\1\0\x08\0data\0\0\0\0"
_PURPOSE = "conformance"
_NAME = {"type": "object", "properties": {"name": {"type": "string"}}, "required": ["name"]}
_OK = {"type": "object", "properties": {"ok": {"type": "boolean"}}, "required": ["ok"]}


class Given:
    """Answers that a client returns to the questions of an earlier call."""

    def __init__(self, params: t.CallToolRequestParams | t.GetPromptRequestParams) -> None:
        self.answers: Mapping[str, Any] = params.input_responses or {}
        self.state = params.request_state

    def accepted(self, key: str) -> Mapping[str, Any] | None:
        """Return what the user typed, or None."""
        answer = self.answers.get(key)
        return answer.content or {} if isinstance(answer, t.ElicitResult) and answer.action == "accept" else None


class Fixtures:
    """Middleware that answers the fixtures' names and forwards all other calls."""

    def __init__(self, catalog: Catalog, seals: Seals) -> None:
        self._catalog = catalog
        self._seals = seals

    async def answer(self, ctx: Context, call_next: CallNext) -> HandlerResult:
        """Handle a request as a middleware of the SDK."""
        name = (ctx.params or {}).get("name")
        if ctx.method == "tools/call" and name in _TOOLS:
            called = t.CallToolRequestParams.model_validate(ctx.params, by_name=False)
            arguments = _checked(self._catalog.tools[called.name], called.arguments or {})
            return _dumped(ctx, await _TOOLS[called.name](self, ctx, arguments, Given(called)))
        if ctx.method == "prompts/get" and name in _PROMPTS:
            got = t.GetPromptRequestParams.model_validate(ctx.params, by_name=False)
            return _dumped(ctx, await _PROMPTS[got.name](self, ctx, got.arguments or {}, Given(got)))
        return await call_next(ctx)

    def seal(self, value: Mapping[str, Any]) -> str:
        """Seal a state like our own confirmations and cursors."""
        return self._seals.seal(_PURPOSE, LOCAL, value)

    def opened(self, state: str) -> Mapping[str, Any]:
        """Open a sealed state. Raises MCPError if it is not ours."""
        try:
            return self._seals.open(state, _PURPOSE, LOCAL, seconds=600)
        except SealError as error:
            raise MCPError(t.INVALID_PARAMS, f"Invalid requestState: {error.flaw}") from None


def _checked(tool: Tool, arguments: Mapping[str, Any]) -> Mapping[str, Any]:
    return compile_check(tool)(arguments)


def _dumped(ctx: Context, answer: Answer) -> dict[str, Any]:
    dumped = answer.model_dump(by_alias=True, mode="json", exclude_none=True)
    if ctx.protocol_version in MODERN_PROTOCOL_VERSIONS:
        return {"resultType": "complete"} | dumped
    return {name: value for name, value in dumped.items() if name != "resultType"}


def _said(text: str, *more: Any) -> t.CallToolResult:
    content = [t.TextContent(type="text", text=text), *more]
    return t.CallToolResult(content=content, structured_content={"text": text})


def _can(ctx: Context, capability: str) -> bool:
    capabilities = ctx.session.client_capabilities
    return capabilities is not None and getattr(capabilities, capability) is not None


# --- content ----------------------------------------------------------------------------------------------------


def _picture() -> t.ImageContent:
    return t.ImageContent(type="image", data=base64.b64encode(PICTURE).decode(), mime_type="image/png")


def _resource(uri: str, text: str, media_type: str = "text/plain") -> t.EmbeddedResource:
    inside = t.TextResourceContents(uri=uri, mime_type=media_type, text=text)
    return t.EmbeddedResource(type="resource", resource=inside)


async def _audio(_: Fixtures, __: Context, ___: Mapping[str, Any], ____: Given) -> Answer:
    sound = t.AudioContent(type="audio", data=base64.b64encode(_SOUND).decode(), mime_type="audio/wav")
    return _said("A sound.", sound)


async def _embedded(_: Fixtures, __: Context, ___: Mapping[str, Any], ____: Given) -> Answer:
    return _said("A resource.", _resource("test://embedded-resource", "This is an embedded resource content."))


async def _mixed(_: Fixtures, __: Context, ___: Mapping[str, Any], ____: Given) -> Answer:
    resource = _resource("test://mixed-content-resource", '{"test":"data","value":123}', "application/json")
    return _said("Multiple content types test:", _picture(), resource)


async def _prompt_with_picture(_: Fixtures, __: Context, ___: Mapping[str, Any], ____: Given) -> Answer:
    text = t.TextContent(type="text", text="Please analyze the image above.")
    return t.GetPromptResult(messages=[t.PromptMessage(role="user", content=item) for item in (_picture(), text)])


async def _prompt_with_resource(_: Fixtures, __: Context, arguments: Mapping[str, Any], ____: Given) -> Answer:
    resource = _resource(arguments["resourceUri"], "Embedded resource content for testing.")
    text = t.TextContent(type="text", text="Please process the embedded resource above.")
    return t.GetPromptResult(messages=[t.PromptMessage(role="user", content=item) for item in (resource, text)])


# --- questions while the call is under way (until 2025-11-25) -----------------------------------------------------


async def _sampling(_: Fixtures, ctx: Context, arguments: Mapping[str, Any], __: Given) -> Answer:
    message = t.SamplingMessage(role="user", content=t.TextContent(type="text", text=arguments["prompt"]))
    got = await ctx.session.create_message([message], max_tokens=100, related_request_id=ctx.request_id)
    return _said(f"LLM response: {got.content}")


async def _ask(ctx: Context, message: str, properties: Mapping[str, Any], required: list[str]) -> Answer:
    schema = {"type": "object", "properties": dict(properties), "required": required}
    got = await ctx.session.elicit_form(message, schema, related_request_id=ctx.request_id)
    return _said(f"Elicitation completed: action={got.action}, content={got.content}")


async def _elicitation(_: Fixtures, ctx: Context, arguments: Mapping[str, Any], __: Given) -> Answer:
    fields = {"username": {"type": "string"}, "email": {"type": "string"}}
    return await _ask(ctx, arguments["message"], fields, list(fields))


async def _defaults(_: Fixtures, ctx: Context, __: Mapping[str, Any], ___: Given) -> Answer:
    fields = {
        "name": {"type": "string", "default": "John Doe"},
        "age": {"type": "integer", "default": 30},
        "score": {"type": "number", "default": 95.5},
        "status": {"type": "string", "enum": ["active", "inactive", "pending"], "default": "active"},
        "verified": {"type": "boolean", "default": True},
    }
    return await _ask(ctx, "Please check", fields, [])


async def _enums(_: Fixtures, ctx: Context, __: Mapping[str, Any], ___: Given) -> Answer:
    plain = ["option1", "option2", "option3"]
    titled = [{"const": f"value{index}", "title": f"Choice {index}"} for index in (1, 2, 3)]
    fields = {
        "untitledSingle": {"type": "string", "enum": plain},
        "titledSingle": {"type": "string", "oneOf": titled},
        "legacyEnum": {"type": "string", "enum": ["opt1", "opt2", "opt3"], "enumNames": ["One", "Two", "Three"]},
        "untitledMulti": {"type": "array", "items": {"type": "string", "enum": plain}},
        "titledMulti": {"type": "array", "items": {"anyOf": titled}},
    }
    return await _ask(ctx, "Please choose", fields, [])


# --- questions in a result (2026-07-28) ---------------------------------------------------------------------------


def _form(message: str, schema: Mapping[str, Any] = _NAME) -> t.ElicitRequest:
    return t.ElicitRequest(params=t.ElicitRequestFormParams(message=message, requested_schema=dict(schema)))


def _model(text: str) -> t.CreateMessageRequest:
    message = t.SamplingMessage(role="user", content=t.TextContent(type="text", text=text))
    return t.CreateMessageRequest(params=t.CreateMessageRequestParams(messages=[message], max_tokens=100))


async def _asks_person(_: Fixtures, __: Context, ___: Mapping[str, Any], arguments: Given) -> Answer:
    typed = arguments.accepted("user_name")
    if typed is None or not isinstance(typed.get("name"), str):
        return t.InputRequiredResult(input_requests={"user_name": _form("What is your name?")})
    return _said(f"Hello, {typed['name']}!")


async def _asks_model(_: Fixtures, __: Context, ___: Mapping[str, Any], arguments: Given) -> Answer:
    answer = arguments.answers.get("capital_question")
    if not isinstance(answer, t.CreateMessageResult):
        return t.InputRequiredResult(input_requests={"capital_question": _model("What is the capital of France?")})
    return _said(f"The model says: {answer.content}")


async def _asks_roots(_: Fixtures, __: Context, ___: Mapping[str, Any], arguments: Given) -> Answer:
    answer = arguments.answers.get("client_roots")
    if not isinstance(answer, t.ListRootsResult):
        return t.InputRequiredResult(input_requests={"client_roots": t.ListRootsRequest()})
    return _said(f"Roots: {', '.join(str(root.uri) for root in answer.roots)}")


async def _asks_with_state(fixtures: Fixtures, _: Context, __: Mapping[str, Any], arguments: Given) -> Answer:
    if (
        arguments.state is not None
        and fixtures.opened(arguments.state) == {"round": 1}
        and arguments.accepted("confirm")
    ):
        return _said("state-ok")
    state = fixtures.seal({"round": 1})
    return t.InputRequiredResult(input_requests={"confirm": _form("Please confirm", _OK)}, request_state=state)


async def _asks_three(fixtures: Fixtures, _: Context, __: Mapping[str, Any], arguments: Given) -> Answer:
    wanted = {
        "user_name": _form("What is your name?"),
        "greeting": _model("Generate a greeting"),
        "client_roots": t.ListRootsRequest(),
    }
    if arguments.state is not None and fixtures.opened(arguments.state) and wanted.keys() <= arguments.answers.keys():
        return _said("All three are answered.")
    return t.InputRequiredResult(input_requests=wanted, request_state=fixtures.seal({"asked": 3}))


async def _asks_twice(fixtures: Fixtures, _: Context, __: Mapping[str, Any], arguments: Given) -> Answer:
    state = dict(fixtures.opened(arguments.state)) if arguments.state is not None else {}
    if "name" not in state:
        typed = arguments.accepted("step1")
        if not state or typed is None:
            first = {"step1": _form("Step 1: What is your name?")}
            return t.InputRequiredResult(input_requests=first, request_state=fixtures.seal({"round": 1}))
        state = {"round": 2, "name": typed.get("name")}
    if arguments.accepted("step2") is None:
        second = {"step2": _form("Step 2: What is your favorite color?", _NAME)}
        return t.InputRequiredResult(input_requests=second, request_state=fixtures.seal(state))
    return _said(f"{state['name']} answered twice.")


async def _asks_what_the_client_has(_: Fixtures, ctx: Context, __: Mapping[str, Any], arguments: Given) -> Answer:
    wanted: dict[str, Any] = {}
    if _can(ctx, "elicitation"):
        wanted["user_name"] = _form("What is your name?")
    if _can(ctx, "sampling"):
        wanted["greeting"] = _model("Generate a greeting")
    if arguments.answers or not wanted:
        return _said("Asked.")
    return t.InputRequiredResult(input_requests=wanted)


async def _prompt_that_asks(_: Fixtures, __: Context, ___: Mapping[str, Any], arguments: Given) -> Answer:
    if not arguments.answers:
        return t.InputRequiredResult(input_requests={"user_context": _form("What context should be used?")})
    text = t.TextContent(type="text", text=f"Use this context: {arguments.answers}")
    return t.GetPromptResult(messages=[t.PromptMessage(role="user", content=text)])


# --- the diagnostic tools of `server-stateless` -------------------------------------------------------------------


async def _logs(_: Fixtures, ctx: Context, __: Mapping[str, Any], ___: Given) -> Answer:
    await ctx.session.send_log_message("info", "a log message", related_request_id=ctx.request_id)
    return _said("Logged, to whom asked for it.")


async def _needs_sampling(_: Fixtures, ctx: Context, __: Mapping[str, Any], ___: Given) -> Answer:
    if not _can(ctx, "sampling"):
        needed = {"requiredCapabilities": {"sampling": {}}}
        raise MCPError(MISSING_REQUIRED_CLIENT_CAPABILITY, "This tool needs sampling", needed)
    return _said("The client has sampling.")


async def _asks_on_the_stream(_: Fixtures, ctx: Context, __: Mapping[str, Any], arguments: Given) -> Answer:
    await ctx.session.report_progress(1, 2, "about to ask")
    if arguments.accepted("user_name") is None:
        return t.InputRequiredResult(input_requests={"user_name": _form("What is your name?")})
    return _said("Answered.")


_TOOLS: Mapping[str, Fixture] = {
    "test_audio_content": _audio,
    "test_embedded_resource": _embedded,
    "test_multiple_content_types": _mixed,
    "test_sampling": _sampling,
    "test_elicitation": _elicitation,
    "test_elicitation_sep1034_defaults": _defaults,
    "test_elicitation_sep1330_enums": _enums,
    "test_logging_tool": _logs,
    "test_missing_capability": _needs_sampling,
    "test_streaming_elicitation": _asks_on_the_stream,
    "test_input_required_result_elicitation": _asks_person,
    "test_input_required_result_sampling": _asks_model,
    "test_input_required_result_list_roots": _asks_roots,
    "test_input_required_result_request_state": _asks_with_state,
    "test_input_required_result_multiple_inputs": _asks_three,
    "test_input_required_result_multi_round": _asks_twice,
    "test_input_required_result_tampered_state": _asks_with_state,
    "test_input_required_result_capabilities": _asks_what_the_client_has,
}
_PROMPTS: Mapping[str, Fixture] = {
    "test_prompt_with_embedded_resource": _prompt_with_resource,
    "test_prompt_with_image": _prompt_with_picture,
    "test_input_required_result_prompt": _prompt_that_asks,
}
