"""Chooses how to authenticate, from the security schemes of a definition."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from itwin_mcp.capability.openapi_import.definition import ApiOperation, Definition, as_list, as_map, as_text

_PREFERRED = ("bearer", "header key", "basic", "token", "query key")


def choose_authentication(
    definition: Definition,
    operations: Sequence[ApiOperation],
    namespace: str,
    *,
    is_platform: bool,
    has_authorization_header: bool,
    report: Callable[[str, str], None],
) -> tuple[dict[str, str] | None, dict[str, str]]:
    """Return `authentication` and the keys of its bind, or `(None, {})` if the API is public.

    The API of the platform gets the platform's token. Otherwise the first scheme that a file can express is used, with
    a variable of its own; what else the operations need is reported.
    """
    variable = namespace.upper().replace("-", "_")
    # Variables that begin with ITWIN_ are credentials for the platform, which no other API receives.
    variable = f"API_{variable}" if variable.startswith(("ITWIN", "ITP_")) or variable[0].isdigit() else variable
    if is_platform:
        return {"type": "bearer", "token": "{{ITWIN_ACCESS_TOKEN}}"}, {"ITWIN_ACCESS_TOKEN": "ITWIN_ACCESS_TOKEN"}
    kinds: dict[str, str] = {}
    for operation in operations:
        security = operation.node.get("security", definition.security)
        for requirement in as_list(security):
            names = list(as_map(requirement))
            if len(names) > 1:
                report(operation.label, f"needs {' and '.join(names)} together: only one of them is sent")
            for name in names:
                kinds.setdefault(name, _describe_kind(as_map(definition.resolve(definition.schemes.get(name)))))
    for name, kind in kinds.items():
        if kind not in _PREFERRED:
            report(f"the security scheme {name}", f"is {kind}, which is not supported")
    usable = sorted(
        (name for name in kinds if kinds[name] in _PREFERRED), key=lambda name: _PREFERRED.index(kinds[name])
    )
    if not usable and not has_authorization_header:
        return None, {}
    if has_authorization_header or kinds[usable[0]] in ("bearer", "token"):
        if not has_authorization_header and kinds[usable[0]] == "token":
            report(f"the security scheme {usable[0]}", f"is a sign-in: get a token yourself, and set {variable}_TOKEN")
        return {"type": "bearer", "token": f"{{{{{variable}_TOKEN}}}}"}, _bind(f"{variable}_TOKEN")
    if kinds[usable[0]] == "basic":
        login = {"username": f"{{{{{variable}_USERNAME}}}}", "password": f"{{{{{variable}_PASSWORD}}}}"}
        return {"type": "basic", **login}, _bind(f"{variable}_USERNAME", f"{variable}_PASSWORD")
    scheme = definition.resolve(definition.schemes.get(usable[0]))
    key = {"key": as_text(scheme.get("name")), "value": f"{{{{{variable}_KEY}}}}"}
    return {"type": "apikey", **key, "placement": as_text(scheme.get("in"))}, _bind(f"{variable}_KEY")


def _bind(*variables: str) -> dict[str, str]:
    return {variable: variable for variable in variables}


def _describe_kind(scheme: Mapping[str, Any]) -> str:
    kind = as_text(scheme.get("type"))
    if kind == "http":
        method = as_text(scheme.get("scheme")).lower()
        return method if method in ("bearer", "basic") else f"HTTP {method or 'authentication'}"
    if kind == "apiKey":
        name = as_text(scheme.get("name"))
        return f"{as_text(scheme.get('in'))} key" if re.fullmatch(r"[\w.$-]+", name, re.ASCII) else f"the key {name!r}"
    if kind in ("oauth2", "openIdConnect"):
        return "token"
    return kind or "not described"
