"""Limits on connections: how many may be open, and how long the headers of a request may take to arrive.

uvicorn has no such limits. A client that opens connections and sends nothing would otherwise exhaust the process's
file descriptors, and with them every other client's calls.
"""

from __future__ import annotations

import asyncio
import logging
import sys
import time
from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass, replace
from ipaddress import IPv4Network, IPv6Address, IPv6Network, ip_address
from typing import TypeAlias, cast

logger = logging.getLogger(__name__)

Network: TypeAlias = IPv4Network | IPv6Network

HEADER_SECONDS = 10.0
"""Time within which the headers of a request must arrive."""
MAX_HEADER_BYTES = 64 * 1024
MAX_UNREAD_BYTES = 8 * 1024 * 1024
"""Bytes that may arrive after a response before the next request: the unread remainder of a refused body."""
RESERVED_DESCRIPTORS = 256
"""File descriptors for everything except clients: the listener's queue, the platform, storage, local files."""
LOG_SECONDS = 60.0
"""The least time between two log lines of the same kind."""


@dataclass(frozen=True, slots=True)
class ConnectionLimits:
    """Limits on the connections of one server."""

    total: int = 512
    unfinished_per_address: int = 32
    """Connections of one address on which the headers of the first request have not arrived yet."""
    proxies: tuple[Network, ...] = ()
    """Proxies whose connections count only towards `total`, because each carries many clients."""


def limit_connections(limits: ConnectionLimits) -> type[asyncio.Protocol]:
    """Return an asyncio protocol for uvicorn that enforces `limits` and delegates to uvicorn's own protocol.

    uvicorn itself waits forever for headers, and accepts connections until the process has no descriptors left. Then
    every further connection logs a traceback, and no call succeeds.
    """
    from uvicorn.protocols.http import auto

    for name in (__name__, "uvicorn.error", "asyncio"):
        logging.getLogger(name).addFilter(_ONCE_PER_MINUTE)
    open_connections = _OpenConnections(replace(limits, total=_raise_descriptor_limit(limits.total)))

    def create_connection(**options: object) -> asyncio.Protocol:
        return _LimitedConnection(open_connections, auto.AutoHTTPProtocol(**options))

    return cast(type[asyncio.Protocol], create_connection)


class _OpenConnections:
    """Counts the open connections of one server."""

    def __init__(self, limits: ConnectionLimits) -> None:
        self.limits = limits
        self.total = 0
        self.unfinished: Counter[str] = Counter()

    def is_full(self, address: str) -> bool:
        """Return whether another connection from this address must be refused, and log it."""
        if self.total >= self.limits.total:
            logger.warning("Refused a connection: %d are open (ITWIN_MCP_MAX_CONNECTIONS).", self.total)
            return True
        has_room = self.unfinished[_group_address(address)] < self.limits.unfinished_per_address
        # A client that is already gone has no address.
        if has_room or (address and _is_in(address, self.limits.proxies)):
            return False
        logger.warning(
            "Refused a connection from %s: %d others have not sent their headers (ITWIN_MCP_UNFINISHED_PER_ADDRESS; "
            "ITWIN_MCP_PROXIES if it is your proxy).",
            address,
            self.limits.unfinished_per_address,
        )
        return True


class _LimitedConnection(asyncio.Protocol):
    """One connection: uvicorn's protocol, with limits on the time and bytes of headers.

    A timer runs while headers are expected: from the start, and again from the first byte after a response. Headers
    have arrived when uvicorn begins a new request, which shows as a new object in its attribute `cycle`.
    """

    def __init__(self, open_connections: _OpenConnections, inner: asyncio.Protocol) -> None:
        self._open = open_connections
        self._inner = inner
        self._address = self._group = ""
        self._is_counted = self._is_unfinished = False
        self._timer: asyncio.TimerHandle | None = None
        self._bytes = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._address = str((transport.get_extra_info("peername") or ("",))[0])
        if self._open.is_full(self._address):
            self._transport.write(_UNAVAILABLE)
            self._transport.close()
            return
        self._is_counted = self._is_unfinished = True
        self._open.total += 1
        self._group = _group_address(self._address)
        self._open.unfinished[self._group] += 1
        self._inner.connection_made(transport)
        self._expect_headers()

    def data_received(self, data: bytes) -> None:
        if not self._is_counted:
            return
        cycle = getattr(self._inner, "cycle", None)  # the last request whose headers have arrived
        if self._timer is None and (cycle is None or cycle.response_complete):
            self._expect_headers()
        self._inner.data_received(data)
        if self._timer is None:
            return
        if getattr(self._inner, "cycle", None) is not cycle:
            self._end_headers()
            return
        self._bytes += len(data)
        if self._bytes > (MAX_HEADER_BYTES if cycle is None else MAX_UNREAD_BYTES):
            self._transport.close()

    def connection_lost(self, error: Exception | None) -> None:
        if self._is_counted:
            self._end_headers()
            self._is_counted = False
            self._open.total -= 1
            self._inner.connection_lost(error)

    def eof_received(self) -> bool | None:
        return self._inner.eof_received()

    def pause_writing(self) -> None:
        self._inner.pause_writing()

    def resume_writing(self) -> None:
        self._inner.resume_writing()

    def _expect_headers(self) -> None:
        self._bytes = 0
        self._timer = asyncio.get_running_loop().call_later(HEADER_SECONDS, self._abort)

    def _end_headers(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._is_unfinished:
            self._is_unfinished = False
            self._open.unfinished[self._group] -= 1
            if not self._open.unfinished[self._group]:
                del self._open.unfinished[self._group]

    def _abort(self) -> None:
        logger.warning(
            "Closed a connection from %s: its headers did not arrive within %g s.", self._address, HEADER_SECONDS
        )
        self._transport.abort()


_BODY = b"Too many connections: try again.\n"
_UNAVAILABLE = (
    b"HTTP/1.1 503 Service Unavailable\r\nConnection: close\r\nRetry-After: 1\r\n"
    b"Content-Type: text/plain; charset=utf-8\r\nContent-Length: %d\r\n\r\n%s" % (len(_BODY), _BODY)
)


def _group_address(address: str) -> str:
    """Return the key under which connections are counted: an IPv4 address, or the /64 network of an IPv6 address.

    Providers assign at least a /64 to each customer.
    """
    if ":" not in address:
        return address
    parsed = IPv6Address(address.partition("%")[0])
    return str(parsed.ipv4_mapped or parsed.exploded[:19])


def _is_in(address: str, networks: Collection[Network]) -> bool:
    parsed = ip_address(address.partition("%")[0])
    mapped = parsed.ipv4_mapped if isinstance(parsed, IPv6Address) else None
    return any((mapped or parsed) in network for network in networks)


class _OncePerMinute(logging.Filter):
    """Pass one line of each kind a minute, with the number of omitted lines, so that clients cannot fill the disk."""

    def __init__(self) -> None:
        super().__init__()
        self._kinds: dict[str, tuple[float, int]] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        if record.levelno < logging.WARNING:
            return True
        kind = str(record.msg).partition("\n")[0]
        now = time.monotonic()
        due, omitted = self._kinds.get(kind, (now, 0))
        if now < due:
            self._kinds[kind] = (due, omitted + 1)
            return False
        self._kinds[kind] = (now + LOG_SECONDS, 0)
        if omitted:
            record.msg = f"{record.msg} ({omitted} more such lines were omitted.)"
        return True


_ONCE_PER_MINUTE = _OncePerMinute()


def _raise_descriptor_limit(wanted: int) -> int:
    """Raise the limit of open files for `wanted` connections; return how many connections are then possible."""
    if sys.platform == "win32":
        return wanted
    import resource

    needed = wanted + RESERVED_DESCRIPTORS
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= needed:
        return wanted
    soft = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    possible = max(1, min(wanted, soft - RESERVED_DESCRIPTORS))
    if possible < wanted:
        logger.warning(
            "Only %d connections are possible instead of %d: raise the limit of open files.", possible, wanted
        )
    return possible
