"""How many connections clients may hold, and how long they may take to send the headers of a request."""

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
"""In which the headers of a request must have come."""
MAX_HEADER_BYTES = 64 * 1024
MAX_REMAINDER = 8 * 1024 * 1024
"""Bytes that may follow an answer before the next request: a client still sends a body that was answered unread."""
RESERVED_DESCRIPTORS = 256
"""Open files that are not clients' connections: the listener's queue, the platform, storage, local files."""
LOG_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class ConnectionLimits:
    """Bounds on the connections of one server."""

    total: int = 512
    unfinished_per_address: int = 32
    """Connections of one address on which the headers of the first request have not come yet."""
    proxies: tuple[Network, ...] = ()
    """Proxies speak for many clients: their connections count towards `total` alone."""


def limit_connections(limits: ConnectionLimits) -> type[asyncio.Protocol]:
    """Return the protocol for uvicorn that keeps to `limits`, around the one that uvicorn would choose.

    Without it uvicorn waits for headers for ever and accepts connections until the process has no descriptors left.
    Then every further one is a traceback in the log, and no call gets through.
    """
    from uvicorn.protocols.http import auto

    for name in (__name__, "uvicorn.error", "asyncio"):
        logging.getLogger(name).addFilter(_ONCE_A_MINUTE)
    held = _Held(replace(limits, total=_fit_descriptors(limits.total)))

    class Limited(_Limited):
        def __init__(self, **options: object) -> None:
            super().__init__(held, auto.AutoHTTPProtocol(**options))

    return Limited


class _Held:
    """The connections that are open."""

    def __init__(self, limits: ConnectionLimits) -> None:
        self.limits = limits
        self.total = 0
        self.unfinished: Counter[str] = Counter()

    def refuses(self, address: str) -> bool:
        """Return whether there is no room for another connection of this address."""
        if self.total >= self.limits.total:
            logger.warning("Refused a connection: %d are open (ITWIN_MCP_MAX_CONNECTIONS).", self.total)
            return True
        if self.unfinished[_key(address)] < self.limits.unfinished_per_address or self._is_proxy(address):
            return False
        logger.warning(
            "Refused a connection from %s: the headers of %d others have not come (ITWIN_MCP_UNFINISHED_PER_ADDRESS; "
            "ITWIN_MCP_PROXIES if it is your proxy).",
            address,
            self.limits.unfinished_per_address,
        )
        return True

    def _is_proxy(self, address: str) -> bool:
        return bool(self.limits.proxies) and _in(address, self.limits.proxies)


class _Limited(asyncio.Protocol):
    """One connection: uvicorn's own protocol, and the time and bytes that its headers have left."""

    def __init__(self, held: _Held, inner: asyncio.Protocol) -> None:
        self._held = held
        self._inner = inner
        self._address = ""
        self._counted = self._unfinished = False
        self._timer: asyncio.TimerHandle | None = None
        self._bytes = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._address = str((transport.get_extra_info("peername") or ("",))[0])
        if self._held.refuses(self._address):
            self._transport.write(_UNAVAILABLE)
            self._transport.close()
            return
        self._counted = self._unfinished = True
        self._held.total += 1
        self._held.unfinished[_key(self._address)] += 1
        self._inner.connection_made(transport)
        self._expect_headers()

    def data_received(self, data: bytes) -> None:
        if not self._counted:
            return
        cycle = getattr(self._inner, "cycle", None)  # of the last request whose headers have come
        if self._timer is None and (cycle is None or cycle.response_complete):
            self._expect_headers()
        self._inner.data_received(data)
        if self._timer is None:
            return
        if getattr(self._inner, "cycle", None) is not cycle:
            self._end_headers()
            return
        self._bytes += len(data)
        if self._bytes > (MAX_HEADER_BYTES if cycle is None else MAX_REMAINDER):
            self._transport.close()

    def connection_lost(self, error: Exception | None) -> None:
        if self._counted:
            self._end_headers()
            self._counted = False
            self._held.total -= 1
            self._inner.connection_lost(error)

    def eof_received(self) -> bool | None:
        return self._inner.eof_received()

    def pause_writing(self) -> None:
        self._inner.pause_writing()

    def resume_writing(self) -> None:
        self._inner.resume_writing()

    def _expect_headers(self) -> None:
        self._bytes = 0
        self._timer = asyncio.get_running_loop().call_later(HEADER_SECONDS, self._give_up)

    def _end_headers(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._unfinished:
            self._unfinished = False
            self._held.unfinished[_key(self._address)] -= 1
            if not self._held.unfinished[_key(self._address)]:
                del self._held.unfinished[_key(self._address)]

    def _give_up(self) -> None:
        logger.warning(
            "Closed a connection from %s: its headers did not come within %g s.", self._address, HEADER_SECONDS
        )
        self._transport.abort()


_BODY = b"Too many connections: try again.\n"
_UNAVAILABLE = (
    b"HTTP/1.1 503 Service Unavailable\r\nConnection: close\r\nRetry-After: 1\r\n"
    b"Content-Type: text/plain; charset=utf-8\r\nContent-Length: %d\r\n\r\n%s" % (len(_BODY), _BODY)
)


def _key(address: str) -> str:
    """Who is counted together: an IPv4 address, or the /64 of an IPv6 address, which is one customer's."""
    if ":" not in address:
        return address
    parsed = IPv6Address(address.partition("%")[0])
    return str(parsed.ipv4_mapped or parsed.exploded[:19])


def _in(address: str, networks: Collection[Network]) -> bool:
    parsed = ip_address(address.partition("%")[0])
    mapped = parsed.ipv4_mapped if isinstance(parsed, IPv6Address) else None
    return any((mapped or parsed) in network for network in networks)


class _OnceAMinute(logging.Filter):
    """Let a kind of line through once a minute, and say how many were left out: clients must not fill the disk."""

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
            record.msg = f"{record.msg} ({omitted} more such lines were left out.)"
        return True


_ONCE_A_MINUTE = _OnceAMinute()


def _fit_descriptors(wanted: int) -> int:
    """Allow this process as many open files as so many connections need; return how many are possible."""
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
            "Only %d connections at once are possible instead of %d: raise the limit of open files.", possible, wanted
        )
    return possible
