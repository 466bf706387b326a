"""Talks to the sign-in server (Bentley's IMS) through authlib: discovery, tokens, login links, revocation."""

from __future__ import annotations

import base64
import math
import re
import secrets
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

import httpx2

from itwin_mcp.errors import CallError, ErrorCode, NotSignedIn, Unreachable
from itwin_mcp.text import clean_text
from itwin_mcp.upstream.hints import DEFAULT_REMEDY
from itwin_mcp.upstream.origin import Origin, split_url
from itwin_mcp.upstream.redaction import redact
from itwin_mcp.upstream.sign_in.token import Token, read_claims, read_issuer
from itwin_mcp.upstream.transport import build_oauth
from itwin_mcp.upstream.wire_format import read_retry_after

PLATFORM_SCOPE = "itwin-platform"
"""The platform's one scope: https://developer.bentley.com/apis/overview/authorization/."""
OFFLINE_SCOPE = "offline_access"
ASSUMED_LIFE = 300.0
"""The life of a token in seconds if the server does not say."""
MAX_LIFE = 86400.0


@dataclass(frozen=True, slots=True)
class Endpoints:
    """The verified content of the discovery document."""

    issuer: str
    authorization: str
    token: str
    revocation: str | None
    token_auth_methods: frozenset[str]
    challenge_methods: frozenset[str] | None
    """The PKCE methods; None if the document does not say."""
    names_issuer: bool
    """True if every authorization answer has the parameter `iss` (RFC 9207)."""


@dataclass(frozen=True, slots=True)
class Grant:
    """The tokens in an answer of the token endpoint."""

    token: Token
    refresh_token: str | None = field(repr=False)


@dataclass(frozen=True, slots=True)
class PreparedLogin:
    """An authorization request: the URL for the user, and the secrets that the callback is verified with."""

    url: str
    state: str = field(repr=False)
    verifier: str = field(repr=False)
    redirect_uri: str


class SignInServer:
    """An OpenID issuer. It keeps neither credentials nor connections between calls.

    Every method raises NotSignedIn if the server refuses, and Unreachable if it gives no usable answer. These errors
    contain no secrets, and are not chained to exceptions that do.
    """

    def __init__(
        self,
        issuer: str,
        *,
        user_agent: str,
        remedy: str = DEFAULT_REMEDY,
        now: Callable[[], float] = time.time,
    ) -> None:
        """Raises: ValueError if `issuer` is neither https nor http on this machine, or has a query."""
        origin, target = split_url(issuer)
        if not origin.is_private:
            raise ValueError("the sign-in server must be called by https")
        if "?" in target:
            raise ValueError("the sign-in server's address has no query")
        self.issuer = f"{origin}{target}".rstrip("/")
        self._origin = origin
        self._user_agent = user_agent
        self._remedy = remedy
        self._now = now
        self._endpoints: Endpoints | None = None

    async def discover(self) -> Endpoints:
        """Return the endpoints from the discovery document, which is read once."""
        if self._endpoints is None:
            async with self._client("") as client:
                answer = await self._ask(
                    lambda: client.request(
                        "GET",
                        f"{self.issuer}/.well-known/openid-configuration",
                        withhold_token=True,
                        headers={"Accept": "application/json"},
                    )
                )
            self._endpoints = self._read_discovery(answer)
        return self._endpoints

    def _read_discovery(self, answer: httpx2.Response) -> Endpoints:
        if answer.status_code != 200:
            raise self._build_unusable(f"answered {answer.status_code} to the discovery request")
        try:
            document = answer.json()
        except (ValueError, RecursionError):
            document = None
        if not isinstance(document, dict):
            raise self._build_unusable("has no discovery document (an OpenID issuer gives JSON)")
        issuer = document.get("issuer")
        if not isinstance(issuer, str) or issuer.rstrip("/") != self.issuer:
            raise self._build_unusable(f"calls itself {clean_text(str(issuer), 200)!r} in its discovery document")
        revocation = document.get("revocation_endpoint")
        return Endpoints(
            issuer=issuer,
            authorization=self._read_endpoint(document, "authorization_endpoint"),
            token=self._read_endpoint(document, "token_endpoint"),
            revocation=None if revocation is None else self._read_endpoint(document, "revocation_endpoint"),
            token_auth_methods=_read_words(document.get("token_endpoint_auth_methods_supported")) or frozenset(),
            challenge_methods=_read_words(document.get("code_challenge_methods_supported")),
            names_issuer=document.get("authorization_response_iss_parameter_supported") is True,
        )

    def _read_endpoint(self, document: Mapping[str, Any], name: str) -> str:
        """Return an endpoint. It must be in the issuer's own domain, because secrets and users are sent there."""
        url = document.get(name)
        try:
            origin, target = split_url(url if isinstance(url, str) else "")
        except ValueError:
            raise self._build_unusable(f"names no usable {name}") from None
        if origin != self._origin and not (origin.scheme == "https" and _share_domain(origin, self._origin)):
            raise self._build_unusable(f"names a {name} on {origin}, which is not its own")
        return f"{origin}{target}"

    async def sign_in_application(self, client_id: str, client_secret: str, scope: str) -> Grant:
        """Return a token for a service application."""
        endpoints = await self.discover()
        # Basic is our own, because authlib does not percent-encode (RFC 6749 §2.3.1): `%` in a secret would be misread.
        method: Any = "client_secret_post"
        if method not in endpoints.token_auth_methods:
            method = _encode_basic
        # The grant type is passed to the constructor, because authlib ignores that of fetch_token.
        async with self._client(
            client_id,
            client_secret,
            scope=scope,
            grant_type="client_credentials",
            token_endpoint=endpoints.token,
            token_endpoint_auth_method=method,
        ) as client:
            return self._read_grant(await self._ask(client.fetch_token))

    async def refresh(self, client_id: str, refresh_token: str, scope: str) -> Grant:
        """Return a new token for a saved login. If it has ended, the details of NotSignedIn have `invalid_grant`."""
        endpoints = await self.discover()
        async with self._client(client_id, scope=scope, token_endpoint=endpoints.token) as client:
            client.token = {"refresh_token": refresh_token, "token_type": "bearer"}
            return self._read_grant(await self._ask(client.refresh_token))

    async def prepare_login(self, client_id: str, redirect_uri: str, scope: str) -> PreparedLogin:
        """Return the URL that a user opens to sign in: authorization code with PKCE S256 and a new state."""
        endpoints = await self.discover()
        if endpoints.challenge_methods is not None and "S256" not in endpoints.challenge_methods:
            raise self._build_unusable("does not offer PKCE with S256")
        verifier, state = secrets.token_urlsafe(48), secrets.token_urlsafe(32)
        # Without code_challenge_method authlib silently omits PKCE.
        async with self._client(
            client_id, scope=scope, redirect_uri=redirect_uri, code_challenge_method="S256"
        ) as client:
            url, _ = client.create_authorization_url(
                endpoints.authorization, state=state, code_verifier=verifier, prompt="consent", access_type="offline"
            )
        return PreparedLogin(url, state, verifier, redirect_uri)

    async def exchange(self, client_id: str, login: PreparedLogin, callback: str, scope: str) -> Grant:
        """Exchange the code in `callback`, the URL to which the browser was redirected, for tokens."""
        endpoints = await self.discover()
        async with self._client(
            client_id,
            scope=scope,
            redirect_uri=login.redirect_uri,
            code_challenge_method="S256",
            token_endpoint=endpoints.token,
        ) as client:
            return self._read_grant(
                await self._ask(
                    lambda: client.fetch_token(
                        authorization_response=callback, state=login.state, code_verifier=login.verifier
                    )
                )
            )

    async def revoke(self, client_id: str, refresh_token: str) -> bool:
        """Revoke a login. Return whether the server confirmed."""
        endpoints = await self.discover()
        if endpoints.revocation is None:
            return False
        async with self._client(client_id) as client:
            answer: httpx2.Response = await self._ask(
                lambda: client.revoke_token(endpoints.revocation, token=refresh_token, token_type_hint="refresh_token")  # noqa: S106
            )
        return answer.status_code == 200

    def _client(self, client_id: str, client_secret: str | None = None, **options: Any) -> Any:
        return build_oauth(client_id, client_secret, user_agent=self._user_agent, **options)

    async def _ask(self, call: Callable[[], Awaitable[Any]]) -> Any:
        """Await one call of authlib and translate its exceptions.

        Ours are raised outside of the handlers, so they are not chained to authlib's, which contain secrets.
        """
        from authlib.common.errors import AuthlibBaseError  # type: ignore[import-untyped, unused-ignore]

        try:
            return await call()
        except AuthlibBaseError as error:
            failure = self._build_refusal(error.error, error.description)
        except httpx2.HTTPStatusError as error:
            failure = self._build_unusable(f"answered {error.response.status_code}")
            failure.retry_after = read_retry_after(error.response.headers, self._now())
        except httpx2.HTTPError as error:
            reason = redact(str(error) or type(error).__name__, 300).rstrip(".")
            failure = self._build_unusable(f"did not answer: {reason}")
        except (ValueError, TypeError, RecursionError):  # authlib does not check the types in an answer
            failure = self._build_unusable("gave an answer that is not a token")
        raise failure

    def _read_grant(self, answer: Mapping[str, Any]) -> Grant:
        value, kind = answer.get("access_token"), answer.get("token_type")
        if not isinstance(value, str) or not re.fullmatch(r"[!-~]+", value):
            raise self._build_unusable("gave no access token")
        if not isinstance(kind, str) or kind.lower() != "bearer":
            raise self._build_unusable("gave a token that is not a bearer token")
        refresh_token = answer.get("refresh_token")
        return Grant(
            Token(
                value,
                expires_at=self._now() + _read_life(answer.get("expires_in")),
                issuer=read_issuer(read_claims(value)) or self.issuer,
            ),
            refresh_token if isinstance(refresh_token, str) and refresh_token else None,
        )

    def _build_refusal(self, code: str | None, description: str | None) -> CallError:
        """Return the error for a refusal of the token endpoint."""
        name = clean_text(str(code), 100)
        if name in ("server_error", "temporarily_unavailable", "slow_down"):
            return self._build_unusable(f"is in trouble ({name})")
        reason = redact(str(description or ""), 300)
        hint = {
            "invalid_client": "Check the client id and the client secret against the application in the developer "
            "portal, and that it belongs to this environment.",
            "unauthorized_client": "The application is of another type: a service application for client credentials, "
            "a native application for a login.",
            "invalid_scope": f"Give the application the scope `{PLATFORM_SCOPE}` in the developer portal.",
        }.get(name, self._remedy)
        return NotSignedIn(
            f"The sign-in server {self.issuer} refused: {name}{f' ({reason})' if reason else ''}.",
            hint=hint,
            details=({"code": name, "message": reason},),
        )

    def _build_unusable(self, what: str) -> CallError:
        return Unreachable(
            ErrorCode.SIGN_IN_UNREACHABLE,
            f"The sign-in server {self.issuer} {what}.",
            hint="Nothing was sent to the platform. Check ITWIN_ISSUER_URL and the network, then call again later.",
        )


def _read_words(value: Any) -> frozenset[str] | None:
    return frozenset(word for word in value if isinstance(word, str)) if isinstance(value, list) else None


def _share_domain(origin: Origin, other: Origin) -> bool:
    """Return whether two hosts are below the same domain, such as ims.bentley.com and imsoidc.bentley.com."""
    parent = other.host.partition(".")[2]
    return "." in parent and not re.fullmatch(r"[\d.]+", other.host) and origin.host.endswith(f".{parent}")


def _read_life(expires_in: Any) -> float:
    try:
        seconds = float(expires_in)
    except (TypeError, ValueError, OverflowError):
        return ASSUMED_LIFE
    return ASSUMED_LIFE if math.isnan(seconds) else min(max(seconds, 1.0), MAX_LIFE)


def _encode_basic(auth: Any, _method: str, uri: str, headers: Any, body: Any) -> tuple[str, Any, Any]:
    """Add Basic authentication with percent-encoded parts. authlib calls it as an authentication method."""
    pair = f"{quote(auth.client_id, safe='')}:{quote(auth.client_secret, safe='')}"
    headers["Authorization"] = f"Basic {base64.b64encode(pair.encode('ascii')).decode('ascii')}"
    return uri, headers, body
