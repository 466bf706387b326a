"""Warnings for the words of the format that are read and not served. The rest of the file is served."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from itwin_mcp.capability import flow_schema, schema
from itwin_mcp.capability.documents import Place

RULE = "not-served"

_EXPOSES = {
    "ttlMs": "the server decides how long clients may cache an answer",
    "cacheScope": "the server decides who may cache an answer",
    "address": "`serve` chooses the address",
    "port": "`serve` chooses the port",
}
"""Keys of an MCP entry that have no effect, and what happens instead."""


def warn_of_unserved(file: schema.CapabilityFile, place: Place) -> None:
    """Warn of each part of a file that is not served. A type that the file's version does not have is a problem."""
    for at, section in _list_sections(file, place):
        for index, entry in enumerate(section):
            here = at.at(index)
            if isinstance(entry, schema.ConsumesMcp):
                _warn_of_mcp_server(entry, file.ikanos, here)
            elif isinstance(entry, schema.Consumes):
                _warn_of_consumed(entry, here)
            elif isinstance(entry, schema.UnservedExposes):
                message = f"{entry.type!r} is not served yet: the other entries of this file are"
                here.at("type").warn(RULE, message)
            elif isinstance(entry, schema.Exposes):
                for key, instead in _EXPOSES.items():
                    if key in entry.model_fields_set:
                        here.at(key).warn(RULE, f"{key!r} has no effect: {instead}")


def find_unserved(body: flow_schema.ActionSpec, servers: Mapping[str, Any]) -> str | None:
    """Return why an action cannot be served: it runs a script, or calls an MCP server. None if it can be.

    `servers` has the namespaces of consumed MCP servers.
    """
    for name, step in body.steps.items():
        if isinstance(step, flow_schema.ScriptStepSpec):
            return f"the step {name!r} runs a script"
    calls = [body.call, *(step.call for step in body.steps.values() if isinstance(step, flow_schema.CallStepSpec))]
    for call in calls:
        if call is not None and call.partition(".")[0] in servers:
            return f"{call!r} calls an MCP server"
    return None


def _list_sections(file: schema.CapabilityFile, place: Place) -> Iterator[tuple[Place, list[Any]]]:
    yield place.at("consumes"), list(file.consumes)
    yield place.at("exposes"), list(file.exposes)
    if file.capability is not None:
        yield place.at("capability", "consumes"), list(file.capability.consumes)
        yield place.at("capability", "exposes"), list(file.capability.exposes)


def _warn_of_mcp_server(entry: schema.ConsumesMcp, version: str, place: Place) -> None:
    if version < schema.CONSUMES_MCP_SINCE:
        message = f"'mcp' is not a type of {version}: it came with a later version of the format, such as beta7"
        place.at("type").report("known-word", message)
        return
    message = f"the MCP server {entry.namespace!r} is not called: tools that need it are left out"
    place.at("type").warn(RULE, message)


def _warn_of_consumed(entry: schema.Consumes, place: Place) -> None:
    if entry.tunnel is not None:
        place.at("tunnel").warn(RULE, "the tunnel is not used: requests go to `baseUri` directly")
    for name, resource in entry.resources.items():
        for key, operation in resource.operations.items():
            if operation.outputSchema is not None and operation.outputRawFormat in ("json", "binary"):
                here = place.at("resources", name, "operations", key, "outputSchema")
                here.warn(RULE, f"'outputSchema' has no effect on {operation.outputRawFormat}")
