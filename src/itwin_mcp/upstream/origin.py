"""Where a request goes, compared as parsed scheme, host and port and never as text."""

from __future__ import annotations

import re
from dataclasses import dataclass

DEFAULT_PORTS = {"https": 443, "http": 80}
_LOOPBACK = frozenset({"localhost", "127.0.0.1", "[::1]"})

_ORIGIN = re.compile(
    r"(?P<scheme>https?)://(?P<host>\[[0-9a-f:.]+\]|[a-z0-9](?:[a-z0-9._-]*[a-z0-9])?)(?::(?P<port>[0-9]{1,5}))?/?",
    re.ASCII | re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class Origin:
    """Scheme, host in lower case and port, always spelled out."""

    scheme: str
    host: str
    port: int

    @property
    def is_private(self) -> bool:
        """Whether nobody on the way reads what is sent there: https, or this machine."""
        return self.scheme == "https" or self.host in _LOOPBACK

    def __str__(self) -> str:
        if DEFAULT_PORTS[self.scheme] == self.port:
            return f"{self.scheme}://{self.host}"
        return f"{self.scheme}://{self.host}:{self.port}"


def parse_origin(text: str) -> Origin:
    """Read `https://host[:port]`; a user name, path, query, backslash or non-ASCII host raises ValueError.

    What a URL parser would silently repair is refused here, because the answer decides who gets the token.
    """
    found = _ORIGIN.fullmatch(text)
    if found is None:
        raise ValueError(f"{text[:200]!r} is not an origin; write it as https://host or https://host:port")
    scheme = found["scheme"].lower()
    port = int(found["port"]) if found["port"] else DEFAULT_PORTS[scheme]
    if not 0 < port < 65536:
        raise ValueError(f"{text[:200]!r} has a port that does not exist")
    return Origin(scheme, found["host"].lower(), port)


def split_url(url: str) -> tuple[Origin, str]:
    """Split an absolute URL into its origin and `/path?query`, without the fragment; ValueError if it is not one."""
    without_fragment = url.partition("#")[0]
    found = re.fullmatch(r"(https?://[^/?]+)(.*)", without_fragment, re.IGNORECASE)
    if found is None:
        raise ValueError("not an absolute http or https URL")
    rest = found[2] if found[2].startswith("/") else f"/{found[2]}"
    return parse_origin(found[1]), rest
