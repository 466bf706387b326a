"""Signs in a user in a background task of the server, so that the tool `sign-in` need not wait for the browser."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio
import anyio.abc

from itwin_mcp.errors import CallError, NotSignedIn
from itwin_mcp.upstream.sign_in.browser_login import LOGIN_SECONDS, BrowserLogin
from itwin_mcp.upstream.sign_in.credential_choice import NativeLogin


class PendingLogin:
    """An attempt to sign in that waits for the user."""

    def __init__(self, attempt: BrowserLogin) -> None:
        self.url = attempt.url
        self._attempt = attempt
        self.ends = anyio.current_time() + LOGIN_SECONDS
        self.done = anyio.Event()
        self.failure: CallError | None = None
        self.scope = anyio.CancelScope()

    @property
    def is_answered(self) -> bool:
        """True if the user has signed in or declined. The link cannot be used again."""
        return self._attempt.is_answered

    @property
    def seconds_left(self) -> float:
        """Seconds until the link expires."""
        return max(0.0, self.ends - anyio.current_time())


class BackgroundLogin:
    """Signs in a user while the server runs, with one attempt at a time in a background task."""

    def __init__(self, login: NativeLogin, tasks: anyio.abc.TaskGroup) -> None:
        self._login = login
        self._tasks = tasks
        self._lock = anyio.Lock()
        self.last: PendingLogin | None = None
        """The attempt under way, or the last one if it has not been reported."""

    async def begin(self) -> PendingLogin:
        """Return the attempt under way, or start one. Raises CallError."""
        async with self._lock:
            if self.last is not None and self.last.is_answered:
                await self.last.done.wait()  # the last page is being sent; after that the port is free
            if self.last is None or self.last.done.is_set():
                self.last = await self._tasks.start(self._run)
            return self.last

    async def exists(self) -> bool:
        """Return whether a usable login is saved."""
        try:
            return await self._login.tokens.has_login()
        except NotSignedIn:
            return False

    async def give_up(self) -> None:
        """Cancel the attempt under way."""
        pending, self.last = self.last, None
        if pending is not None:
            pending.scope.cancel()
            await pending.done.wait()

    async def _run(self, *, task_status: anyio.abc.TaskStatus[PendingLogin]) -> None:
        pending: PendingLogin | None = None
        try:
            async with self._login.attempt() as attempt:
                pending = PendingLogin(attempt)
                task_status.started(pending)
                with pending.scope:
                    await attempt.wait()
        except CallError as error:
            if pending is None:
                raise  # to the caller of `begin`
            pending.failure = error
        finally:
            if pending is not None:
                pending.done.set()  # after the port was closed, so that another attempt can use it


@asynccontextmanager
async def open_background() -> AsyncIterator[anyio.abc.TaskGroup]:
    """Open a task group that is cancelled at the end of the block.

    Unlike with `async with create_task_group()`, an exception of the block is not wrapped in an ExceptionGroup.
    """
    tasks = anyio.create_task_group()
    await tasks.__aenter__()
    try:
        yield tasks
    finally:
        tasks.cancel_scope.cancel()
        await tasks.__aexit__(None, None, None)
