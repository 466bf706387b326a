"""Checks the credential that a capability file requires of requests over HTTP (`exposes.authentication`)."""

from __future__ import annotations

import base64
import hmac
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from urllib.parse import parse_qsl, urlencode

from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from itwin_mcp.capability.inbound_compiler import InboundCredential
from itwin_mcp.errors import SettingsError

_REALM = "itwin-mcp"


@dataclass(frozen=True, slots=True)
class Required:
    """The credential that requests to a path must present: the exact value of a header or of a query parameter."""

    path: str
    placement: str
    name: str
    value: bytes
    challenge: str


class InboundCheck:
    """ASGI middleware that answers 401 to a request without the credential of its path."""

    def __init__(self, app: ASGIApp, required: Iterable[Required]) -> None:
        self._app = app
        self._required = tuple(required)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            for required in self._required:
                if not _covers(required.path, scope["path"]):
                    continue
                if not _presents(scope, required):
                    await _refuse(required)(scope, receive, send)
                    return
                if required.placement == "query":
                    scope = {**scope, "query_string": _drop_parameter(scope["query_string"], required.name)}
        await self._app(scope, receive, send)


def require(credentials: Iterable[InboundCredential], environment: Mapping[str, str]) -> tuple[Required, ...]:
    """Return what each path requires.

    Raises:
        SettingsError: A credential has no value, or needs a sign-in server, or two entries at one path differ.
    """
    by_path: dict[str, Required] = {}
    for credential in credentials:
        required = _require(credential, environment)
        # One of two credentials at the same path would also open what the other protects.
        if by_path.setdefault(required.path, required) != required:
            raise SettingsError(
                f"Two entries at {required.path} require different credentials, one of them in {credential.file}: "
                "serve them as separate servers, or give both the same `authentication`."
            )
    return tuple(by_path.values())


def _require(credential: InboundCredential, environment: Mapping[str, str]) -> Required:
    if credential.kind == "oauth2":
        raise SettingsError(
            f"{credential.file} has callers sign in at {credential.server}: set ITWIN_MCP_AUTH_ISSUER to it, and "
            "ITWIN_MCP_AUTH_AUDIENCE to the public address of this server."
        )
    if credential.kind == "digest":
        raise SettingsError(
            f"{credential.file} requires digest authentication of callers, which is not served: use bearer, basic or "
            "apikey."
        )
    parts = credential.evaluate(environment)
    if credential.kind == "bearer":
        value = b"Bearer " + parts["token"].encode()
        return Required(credential.path, "header", "authorization", value, "Bearer")
    if credential.kind == "basic":
        pair = base64.b64encode(f"{parts['username']}:{parts['password']}".encode())
        challenge = f'Basic realm="{_REALM}", charset="UTF-8"'
        return Required(credential.path, "header", "authorization", b"Basic " + pair, challenge)
    name = parts["key"].lower() if credential.placement == "header" else parts["key"]
    return Required(credential.path, credential.placement, name, parts["value"].encode(), f'ApiKey realm="{_REALM}"')


def _covers(protected: str, path: str) -> bool:
    """Return whether a path is the protected one or below it. Paths are compared as the app decodes them."""
    return path == protected or path.startswith(f"{protected}/")


def _presents(scope: Scope, required: Required) -> bool:
    if required.placement == "query":
        pairs = parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True)
        values = [value.encode() for name, value in pairs if name == required.name]
    else:
        name = required.name.encode()
        values = [_fold_scheme(value, required) for key, value in scope["headers"] if key == name]
    # A proxy may read the other one of two credentials, so exactly one is accepted.
    return len(values) == 1 and hmac.compare_digest(values[0], required.value)


def _fold_scheme(value: bytes, required: Required) -> bytes:
    """Return an Authorization header with its scheme, whose case does not matter, as we write it."""
    scheme, space, rest = value.partition(b" ")
    wanted = required.value.partition(b" ")[0]
    is_scheme = required.name == "authorization" and scheme.lower() == wanted.lower()
    return wanted + space + rest.strip(b" ") if is_scheme else value


def _drop_parameter(query: bytes, name: str) -> bytes:
    """Return the query without the credential, so that nothing behind the check sees it."""
    pairs = parse_qsl(query.decode("latin-1"), keep_blank_values=True)
    return urlencode([pair for pair in pairs if pair[0] != name]).encode()


def _refuse(required: Required) -> JSONResponse:
    where = "query parameter" if required.placement == "query" else "header"
    message = f"Send the credential of this server in the {where} {required.name}."
    return JSONResponse(
        {"error": {"code": "Unauthorized", "message": message}}, 401, {"www-authenticate": required.challenge}
    )
