"""The origin of a URL: its scheme, host and port. Origins are parsed before they are compared."""

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
    """The scheme, the host in lower case, and the port, which is set even if it is the default."""

    scheme: str
    host: str
    port: int
    text: str = field(compare=False, repr=False)
    """The origin as the beginning of a URL, without a default port."""

    @property
    def is_private(self) -> bool:
        """True if nobody on the way can read what is sent: the scheme is https, or the host is this machine."""
        return self.scheme == "https" or self.host in _LOOPBACK

    def __str__(self) -> str:
        return self.text


@lru_cache(maxsize=1_000)
def parse_origin(text: str) -> Origin:
    """Parse `https://host[:port]`.

    A URL parser silently repairs a backslash, a user name or a non-ASCII host. Here they are refused, because the
    origin decides whether the token is sent.

    Raises: ValueError if the text is not exactly an origin.
    """
    match = _ORIGIN.fullmatch(text)
    if match is None:
        raise ValueError(f"{text[:200]!r} is not an origin; write it as https://host or https://host:port")
    scheme = match["scheme"].lower()
    port = int(match["port"]) if match["port"] else DEFAULT_PORTS[scheme]
    if not 0 < port < 65536:
        raise ValueError(f"{text[:200]!r} has a port that does not exist")
    host = match["host"].lower()
    suffix = "" if port == DEFAULT_PORTS[scheme] else f":{port}"
    return Origin(scheme, host, port, f"{scheme}://{host}{suffix}")


def split_url(url: str) -> tuple[Origin, str]:
    """Split an absolute URL into its origin and `/path?query`, without the fragment. Raises ValueError."""
    without_fragment = url.partition("#")[0]
    match = re.fullmatch(r"(https?://[^/?]+)(.*)", without_fragment, re.IGNORECASE)
    if match is None:
        raise ValueError("not an absolute http or https URL")
    target = match[2] if match[2].startswith("/") else f"/{match[2]}"
    return parse_origin(match[1]), target
