"""The origin of a URL: scheme, host and port, compared as parsed and never as text."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from functools import lru_cache

DEFAULT_PORTS = {"https": 443, "http": 80}
_LOOPBACK = frozenset({"localhost", "127.0.0.1", "[::1]"})

_ORIGIN = re.compile(
    r"(?P<scheme>https?)://(?P<host>\[[0-9a-f:.]+\]|[a-z0-9](?:[a-z0-9._-]*[a-z0-9])?)(?::(?P<port>[0-9]{1,5}))?/?",
    re.ASCII | re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class Origin:
    """Scheme, host in lower case, and port even if it is the default."""

    scheme: str
    host: str
    port: int
    text: str = field(init=False, compare=False, repr=False)
    """As a URL begins with it, without a usual port."""

    def __post_init__(self) -> None:
        port = "" if DEFAULT_PORTS[self.scheme] == self.port else f":{self.port}"
        object.__setattr__(self, "text", f"{self.scheme}://{self.host}{port}")

    @property
    def is_private(self) -> bool:
        """Whether nobody in between can read what is sent: https, or this machine."""
        return self.scheme == "https" or self.host in _LOOPBACK

    def __str__(self) -> str:
        return self.text


@lru_cache(maxsize=1_000)
def parse_origin(text: str) -> Origin:
    """Parse `https://host[:port]`.

    A URL parser silently repairs a backslash, a user name or a non-ASCII host. Here they are refused, because the
    result decides who gets the token.

    Raises: ValueError.
    """
    match = _ORIGIN.fullmatch(text)
    if match is None:
        raise ValueError(f"{text[:200]!r} is not an origin; write it as https://host or https://host:port")
    scheme = match["scheme"].lower()
    port = int(match["port"]) if match["port"] else DEFAULT_PORTS[scheme]
    if not 0 < port < 65536:
        raise ValueError(f"{text[:200]!r} has a port that does not exist")
    return Origin(scheme, match["host"].lower(), port)


def split_url(url: str) -> tuple[Origin, str]:
    """Split an absolute URL into its origin and `/path?query`, without the fragment. Raises ValueError."""
    without_fragment = url.partition("#")[0]
    match = re.fullmatch(r"(https?://[^/?]+)(.*)", without_fragment, re.IGNORECASE)
    if match is None:
        raise ValueError("not an absolute http or https URL")
    rest = match[2] if match[2].startswith("/") else f"/{match[2]}"
    return parse_origin(match[1]), rest
