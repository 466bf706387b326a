"""Compiler of `authentication` of `exposes` entries: what a request over HTTP must present, and where."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from itwin_mcp.capability.documents import Place
from itwin_mcp.capability.expressions import ABSENT, Expression, evaluate, find_slots
from itwin_mcp.capability.inbound_schema import InboundAuthentication, InboundKey, InboundOAuth
from itwin_mcp.errors import SettingsError
from itwin_mcp.text import suggest

MCP_PATH = "/mcp"
REST_PATH = "/rest/"


@dataclass(frozen=True, slots=True)
class InboundCredential:
    """The credential that requests to a path must present. `parts` are expressions over bound variables."""

    path: str
    file: str
    kind: Literal["basic", "digest", "bearer", "apikey", "oauth2"]
    parts: Mapping[str, Expression]
    variables: Mapping[str, str]
    """Name in the file -> name in the process environment."""
    placement: Literal["header", "query"] = "header"
    server: str = ""
    """For `oauth2` the server that signs callers in."""

    def evaluate(self, environment: Mapping[str, str]) -> dict[str, str]:
        """Return the parts with their values.

        Raises:
            SettingsError: A variable is not set. The entry is then not served without protection.
        """
        known = {name: environment[variable] for name, variable in self.variables.items() if environment.get(variable)}
        parts = {key: evaluate(expression, known, {}) for key, expression in self.parts.items()}
        missing = sorted(key for key, value in parts.items() if value is ABSENT or value == "")
        if missing:
            unset = sorted(variable for name, variable in self.variables.items() if name not in known)
            raise SettingsError(
                f"{self.file} protects {self.path} with {self.kind} authentication, but its {missing[0]} has no value. "
                f"Set {' and '.join(unset) or 'it'} in the environment that starts itwin-mcp."
            )
        return {key: str(value) for key, value in parts.items()}


def compile_inbound(
    authentication: InboundAuthentication, path: str, binds: Mapping[str, str], place: Place
) -> InboundCredential:
    """Compile the authentication of an entry that is served at a path; problems are reported at its place."""
    file = str(place.document.file)
    if isinstance(authentication, InboundOAuth):
        return InboundCredential(path, file, "oauth2", {}, {}, server=authentication.authorizationServerUri)
    parts: dict[str, Expression] = {}
    variables: dict[str, str] = {}
    for key, text in authentication.model_dump(exclude={"type", "placement"}).items():
        for name in find_slots(text):
            if name not in binds:
                place.at(key).report("slot-without-value", f"{{{{{name}}}}} is not bound: {suggest(binds, name)}")
            else:
                variables[name] = binds[name]
        expression = place.at(key).compile_slots(text)
        if expression is not None:
            parts[key] = expression
    placement = authentication.placement if isinstance(authentication, InboundKey) else "header"
    return InboundCredential(path, file, authentication.type, parts, variables, placement)
