"""The transport of the extra `fast`: aiohttp beneath the same `httpx2.AsyncClient`.

Streamed bodies still take httpx2's own transport, because aiohttp has no timeout for writing.
"""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager

import aiohttp
import httpx2
from yarl import URL

MAX_HEADER_LINE = 100 * 1024
"""Bytes, as in httpx2: links to stored files are longer than aiohttp's default."""
_OWN_HEADERS = ("Accept", "Accept-Encoding", "Content-Type", "User-Agent")
"""Headers that aiohttp would add. httpx2 has added those that are wanted."""


class AiohttpTransport(httpx2.AsyncBaseTransport):
    """Sends requests over aiohttp, and raises httpx2's exceptions. It knows no proxies."""

    def __init__(self, certificates: ssl.SSLContext | bool, limits: httpx2.Limits) -> None:
        self._certificates = certificates
        self._limits = limits
        self._session: aiohttp.ClientSession | None = None
        self._plain = httpx2.AsyncHTTPTransport(verify=certificates, trust_env=False, limits=limits)

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        """Send one request and return its answer, whose body is still to be read."""
        if not isinstance(request.stream, httpx2.ByteStream):
            return await self._plain.handle_async_request(request)
        if self._session is None:
            self._session = self._open_session()
        seconds = request.extensions["timeout"]
        with _translated_errors():
            response = await self._session.request(
                request.method,
                URL(str(request.url), encoded=True),
                headers=request.headers.multi_items(),
                data=b"".join(request.stream) or None,
                skip_auto_headers=_OWN_HEADERS,
                allow_redirects=False,
                timeout=aiohttp.ClientTimeout(
                    total=None,
                    # The wait for a free connection and for the connection itself have one limit.
                    connect=seconds["pool"] + seconds["connect"],
                    sock_connect=seconds["connect"],
                    sock_read=seconds["read"],
                ),
            )
        return httpx2.Response(
            response.status,
            headers=response.raw_headers,
            stream=_Body(response),
            extensions={"http_version": b"HTTP/1.1", "reason_phrase": (response.reason or "").encode()},
        )

    def _open_session(self) -> aiohttp.ClientSession:
        session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(
                ssl=self._certificates,
                limit=self._limits.max_connections or 0,
                keepalive_timeout=self._limits.keepalive_expiry,
            ),
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,  # httpx2 does it, and bounds it
            max_line_size=MAX_HEADER_LINE,
            max_field_size=MAX_HEADER_LINE,
        )
        # Otherwise aiohttp repeats GET, PUT and DELETE by itself when the server hangs up; `retry` alone decides that.
        # There is no public switch. aiohttp's own test client uses this one, and our fault tests would notice its end.
        session._retry_connection = False
        return session

    async def aclose(self) -> None:
        """Close every connection."""
        if self._session is not None:
            await self._session.close()
        await self._plain.aclose()


class _Body(httpx2.AsyncByteStream):
    def __init__(self, response: aiohttp.ClientResponse) -> None:
        self._response = response

    async def __aiter__(self) -> AsyncIterator[bytes]:
        with _translated_errors():
            async for chunk in self._response.content.iter_any():
                yield chunk

    async def aclose(self) -> None:
        self._response.release()  # closes the connection if the body was not read to its end


@contextmanager
def _translated_errors() -> Iterator[None]:
    """Raise the exceptions of httpx2 in place of aiohttp's."""
    try:
        yield
    except aiohttp.ConnectionTimeoutError as error:
        raise httpx2.ConnectTimeout(str(error)) from error
    except TimeoutError as error:
        raise httpx2.ReadTimeout(str(error)) from error
    except aiohttp.ClientConnectorCertificateError as error:
        raise httpx2.ConnectError(str(error.certificate_error)) from error
    except aiohttp.ClientConnectorError as error:
        raise httpx2.ConnectError(str(error.os_error)) from error
    except (aiohttp.ServerDisconnectedError, aiohttp.ClientResponseError) as error:
        raise httpx2.RemoteProtocolError(str(error)) from error
    except aiohttp.ClientPayloadError as error:
        raise httpx2.RemoteProtocolError("peer closed connection without sending complete message body") from error
    except aiohttp.ClientError as error:
        raise httpx2.ReadError(str(error)) from error
    except ValueError as error:  # a header or an address that HTTP does not allow
        raise httpx2.LocalProtocolError(str(error)) from error
