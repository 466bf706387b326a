"""The settings of a hosted server, which has callers of its own: read when `ITWIN_MCP_AUTH_ISSUER` is set."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network, ip_network
from pathlib import Path
from typing import Protocol
from urllib.parse import SplitResult, urlsplit

from pydantic import SecretStr

from itwin_mcp.errors import SettingsError
from itwin_mcp.upstream.naming import expand_home

LEAST_SECRET = 32
"""Bytes."""
NO_ORIGINS = "none"
LOOPBACK = ("localhost", "127.0.0.1", "::1")

ENVIRONMENT: Mapping[str, str] = {
    "ITWIN_MCP_AUTH_ISSUER": "The sign-in server of a hosted server's callers, exactly as its tokens name it.",
    "ITWIN_MCP_AUTH_AUDIENCE": "The public address of this server, `https://…/mcp`; tokens must be issued for it.",
    "ITWIN_MCP_AUTH_JWKS_URL": "Where the issuer's keys are; its discovery document says so when unset.",
    "ITWIN_MCP_AUTH_ALGORITHMS": "Signatures that are taken, separated by commas; RS256, PS256 and ES256 when unset.",
    "ITWIN_MCP_AUTH_SCOPE": "What callers are first told to ask for: `read` (when unset), `write` or `delete`.",
    "ITWIN_MCP_ALLOWED_HOSTS": "Names by which a hosted server is called (`Host`), separated by commas.",
    "ITWIN_MCP_ALLOWED_ORIGINS": "Web pages that may call it (`https://…`), separated by commas; or `none`.",
    "ITWIN_MCP_STATE_SECRET": "What seals cursors and the like: 32 bytes or more, the same for all replicas; of "
    "several, separated by commas, the first seals and all open.",
    "ITWIN_MCP_STATE_SECRET_FILE": "A file that holds them instead, one a line.",
    "ITWIN_MCP_REPLICAS": "How many servers stand behind one address; 1 when unset. What only one can promise is "
    "refused when there are more.",
    "ITWIN_MCP_CALLER_RATE_PER_MINUTE": "Requests a minute of one caller, for each replica; 600 when unset.",
    "ITWIN_MCP_TOTAL_RATE_PER_MINUTE": "The same of all callers together; 6000 when unset.",
    "ITWIN_MCP_CALLER_CONCURRENCY": "Requests of one caller at once, for each replica; 8 when unset.",
    "ITWIN_MCP_TOTAL_CONCURRENCY": "The same of all callers together; 64 when unset.",
    "ITWIN_MCP_MAX_CONNECTIONS": "Connections at once, for each replica; 512 when unset.",
    "ITWIN_MCP_UNFINISHED_PER_ADDRESS": "Connections of one address that have not sent the headers of a request yet; "
    "32 when unset.",
    "ITWIN_MCP_PROXIES": "Addresses or networks of your proxies, separated by commas; they are bounded only by "
    "`ITWIN_MCP_MAX_CONNECTIONS`.",
    "ITWIN_MCP_NOTICE_SECONDS": "How long a server that is told to end says so at `/readyz` before it closes; 5 when "
    "unset.",
    "ITWIN_MCP_DRAIN_SECONDS": "How long requests under way may then take; 30 when unset.",
    "ITWIN_MCP_METRICS_PORT": "The port of `/metrics`, which needs the extra `metrics`; none when unset.",
}
"""Every variable that is read here, and what it says."""


@dataclass(frozen=True, slots=True)
class Hosted:
    """Who may call, and how much they get."""

    issuer: str
    audience: str
    jwks_url: str | None = None
    algorithms: tuple[str, ...] = ()
    """Empty for the usual ones."""
    first_scope: str = "read"
    allowed_hosts: tuple[str, ...] = ()
    allowed_origins: tuple[str, ...] | None = None
    """None when nothing was said; empty when there are none."""
    state_secrets: tuple[SecretStr, ...] = ()
    replicas: int = 1
    caller_rate: int = 600
    total_rate: int = 6000
    caller_concurrency: int = 8
    total_concurrency: int = 64
    max_connections: int = 512
    unfinished_per_address: int = 32
    proxies: tuple[IPv4Network | IPv6Network, ...] = ()
    notice_seconds: int = 5
    drain_seconds: int = 30
    metrics_port: int | None = None


_USUAL = Hosted("", "")


class Value(Protocol):
    """Reads a setting from its variable."""

    def __call__(self, setting: str, name: str, /) -> str | None:
        """What it is set to."""


def read_hosted(value: Value, read_file: Callable[[str, Path], SecretStr]) -> Hosted | None:
    """The settings of a hosted server, None for one of one's own. Raises SettingsError."""
    issuer = value("auth_issuer", "ITWIN_MCP_AUTH_ISSUER")
    audience = value("auth_audience", "ITWIN_MCP_AUTH_AUDIENCE")
    if issuer is None:
        if audience is not None:
            raise SettingsError("ITWIN_MCP_AUTH_AUDIENCE is set without ITWIN_MCP_AUTH_ISSUER: set both or neither.")
        return None
    if audience is None:
        raise SettingsError(
            "ITWIN_MCP_AUTH_ISSUER is set without ITWIN_MCP_AUTH_AUDIENCE: set it to the public address of this "
            "server, so that tokens for others are refused."
        )
    _check_address("ITWIN_MCP_AUTH_ISSUER", issuer)
    _check_address("ITWIN_MCP_AUTH_AUDIENCE", audience)
    jwks_url = value("auth_jwks_url", "ITWIN_MCP_AUTH_JWKS_URL")
    if jwks_url is not None:
        _check_address("ITWIN_MCP_AUTH_JWKS_URL", jwks_url)
    first = value("auth_scope", "ITWIN_MCP_AUTH_SCOPE") or "read"
    first = first.removeprefix("itwin:")
    if first not in ("read", "write", "delete"):
        raise SettingsError(f"ITWIN_MCP_AUTH_SCOPE is {first!r}: set it to read, write or delete.")
    origins = value("allowed_origins", "ITWIN_MCP_ALLOWED_ORIGINS")

    def number(setting: str, name: str, least: int = 1, most: int = 1_000_000) -> int:
        text = value(setting, name)
        if text is None:
            usual: int = getattr(_USUAL, setting) or 0
            return usual
        if not re.fullmatch(r"[0-9]{1,7}", text) or not least <= int(text) <= most:
            raise SettingsError(f"{name} is {text!r}: set it to a whole number from {least} to {most}.")
        return int(text)

    port = number("metrics_port", "ITWIN_MCP_METRICS_PORT", most=65535)
    return Hosted(
        issuer=issuer,
        audience=audience,
        jwks_url=jwks_url,
        algorithms=_words(value("auth_algorithms", "ITWIN_MCP_AUTH_ALGORITHMS")),
        first_scope=first,
        allowed_hosts=_hosts(_words(value("allowed_hosts", "ITWIN_MCP_ALLOWED_HOSTS"))),
        allowed_origins=None if origins is None else _origins(origins),
        state_secrets=_secrets(value, read_file),
        replicas=number("replicas", "ITWIN_MCP_REPLICAS", most=1000),
        caller_rate=number("caller_rate", "ITWIN_MCP_CALLER_RATE_PER_MINUTE"),
        total_rate=number("total_rate", "ITWIN_MCP_TOTAL_RATE_PER_MINUTE"),
        caller_concurrency=number("caller_concurrency", "ITWIN_MCP_CALLER_CONCURRENCY", most=10_000),
        total_concurrency=number("total_concurrency", "ITWIN_MCP_TOTAL_CONCURRENCY", most=10_000),
        max_connections=number("max_connections", "ITWIN_MCP_MAX_CONNECTIONS", most=100_000),
        unfinished_per_address=number("unfinished_per_address", "ITWIN_MCP_UNFINISHED_PER_ADDRESS", most=100_000),
        proxies=_networks(_words(value("proxies", "ITWIN_MCP_PROXIES"))),
        notice_seconds=number("notice_seconds", "ITWIN_MCP_NOTICE_SECONDS", least=0, most=300),
        drain_seconds=number("drain_seconds", "ITWIN_MCP_DRAIN_SECONDS", most=3600),
        metrics_port=port or None,
    )


def _words(text: str | None) -> tuple[str, ...]:
    return tuple(part.strip() for part in (text or "").split(",") if part.strip())


def split_address(name: str, text: str, example: str) -> SplitResult:
    """The parts of a plain https address, or http on this machine. Raises SettingsError, which shows the example."""
    try:
        parts = urlsplit(text)
        _ = parts.port
    except ValueError:
        raise SettingsError(f"{name} is {text!r}, which is no address.") from None
    if parts.scheme != "https" and not (parts.scheme == "http" and parts.hostname in LOOPBACK):
        raise SettingsError(f"{name} must be https (http is for an address of this machine).")
    if not parts.hostname or parts.query or parts.fragment or parts.username:
        raise SettingsError(f"{name} must be a plain address such as {example}.")
    return parts


def _check_address(name: str, text: str) -> None:
    """An address that is compared as it is, so that nothing in it is changed."""
    example = "https://mcp.example.com/mcp"
    split_address(name, text, example)
    if '"' in text or not text.isascii():
        raise SettingsError(f"{name} must be a plain address such as {example}.")


def _hosts(named: tuple[str, ...]) -> tuple[str, ...]:
    for one in named:
        if not re.fullmatch(r"(?:[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(?::[0-9]{1,5})?", one):
            raise SettingsError(f"ITWIN_MCP_ALLOWED_HOSTS names {one!r}: write a name, or name:port; no `*`.")
    return named


def _networks(named: tuple[str, ...]) -> tuple[IPv4Network | IPv6Network, ...]:
    try:
        return tuple(ip_network(text, strict=False) for text in named)
    except ValueError:
        raise SettingsError(
            f"ITWIN_MCP_PROXIES is {', '.join(named)!r}: write addresses or networks, such as 10.0.0.2 or 10.0.0.0/24."
        ) from None


def _origins(text: str) -> tuple[str, ...]:
    named = _words(text)
    if named == (NO_ORIGINS,):
        return ()
    for one in named:
        if not re.fullmatch(r"https?://(?:[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(?::[0-9]{1,5})?", one):
            raise SettingsError(
                f"ITWIN_MCP_ALLOWED_ORIGINS names {one!r}: write https://name, or https://name:port, or `none` alone."
            )
    return named


def _secrets(value: Value, read_file: Callable[[str, Path], SecretStr]) -> tuple[SecretStr, ...]:
    name, text = "ITWIN_MCP_STATE_SECRET", value("state_secret", "ITWIN_MCP_STATE_SECRET")
    file = value("state_secret_file", "ITWIN_MCP_STATE_SECRET_FILE")
    if text is None and file is not None:
        name = "ITWIN_MCP_STATE_SECRET_FILE"
        text = read_file(name, expand_home(file)).get_secret_value()
    secrets = tuple(part.strip() for part in re.split(r"[,\n]", text or "") if part.strip())
    if any(len(one.encode()) < LEAST_SECRET for one in secrets):
        raise SettingsError(f"{name} holds a secret of less than {LEAST_SECRET} bytes: make it with more.")
    return tuple(SecretStr(one) for one in secrets)
