"""The engine on a bench: a small capability file, a raw server in the platform's place, and a clock that tests turn."""

from __future__ import annotations

import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

import anyio.lowlevel
from jsonschema import Draft202012Validator

from itwin_mcp.capability.catalog import Catalog
from itwin_mcp.capability.linker import link_files
from itwin_mcp.errors import CallError
from itwin_mcp.executor import saving
from itwin_mcp.executor.conversation import LOCAL, Answer, Caller, Confirmed, Later, Question
from itwin_mcp.executor.executor import Executor
from itwin_mcp.executor.local_files import LocalFiles
from itwin_mcp.executor.lookup import Names
from itwin_mcp.executor.seals import Seals
from itwin_mcp.upstream.auth.static import StaticToken
from itwin_mcp.upstream.client import UpstreamClient
from itwin_mcp.upstream.storage import Storage
from tests.conftest import shipped_catalog
from tests.upstream.loopback import Asked, Handler, Loopback, loopback

TOKEN = "canary-of-the-platform"
KEY = b"k" * 32
ITWIN = "11111111-1111-4111-8111-111111111111"
IMODEL = "22222222-2222-4222-8222-222222222222"
MADE = "33333333-3333-4333-8333-333333333333"

FOLDER = Path(__file__).parent / "files"


class Clock:
    """Time stands still until somebody sleeps."""

    def __init__(self) -> None:
        self.time = 1_000.0
        self.slept: list[float] = []

    def now(self) -> float:
        return self.time

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.time += seconds
        await anyio.lowlevel.checkpoint()


@dataclass
class Listener:
    """Who is told of progress, and agrees to everything."""

    told: list[tuple[float, float | None, str]] = field(default_factory=list)

    async def progress(self, done: float, total: float | None, text: str) -> None:
        self.told.append((done, total, text))

    async def ask(self, question: Question) -> Answer | Later:
        return Answer("accept", Confirmed("person", "terminal"), question.name)


@dataclass
class Bench:
    catalog: Catalog
    executor: Executor
    server: Loopback
    clock: Clock
    listener: Listener = field(default_factory=Listener)

    async def call(self, tool: str, caller: Caller = LOCAL, **arguments: Any) -> dict[str, Any]:
        """The answer of a tool, which always fits the schema that the tool publishes."""
        described = self.catalog.tools[tool]
        answer = await self.executor.call(described, arguments, self.listener, caller)
        Draft202012Validator(described.output_schema).validate(answer)
        return answer

    async def save(self, tool: str, path: str, **arguments: Any) -> dict[str, Any]:
        """The answer of `save-list` for a tool, which always fits the schema that it publishes."""
        given = {"tool": tool, "arguments": arguments, "path": path}
        answer = await self.executor.save_list(saving.TOOL, given, self.catalog.tools.__getitem__, self.listener)
        Draft202012Validator(saving.TOOL.output_schema).validate(answer)
        return answer

    async def refused(self, tool: str, caller: Caller = LOCAL, **arguments: Any) -> dict[str, Any]:
        """The error of a tool, as the agent reads it."""
        try:
            answer = await self.call(tool, caller, **arguments)
        except CallError as error:
            told = error.to_json(tool)
            Draft202012Validator(self.catalog.tools[tool].output_schema).validate({"error": told})
            return told
        raise AssertionError(f"{tool} answered {answer}")

    @property
    def asked(self) -> list[str]:
        return [f"{one.method} {one.target}" for one in self.server.requests]


@asynccontextmanager
async def bench(
    file: str,
    handler: Handler,
    *,
    environment: Mapping[str, str] | None = None,
    keys: Sequence[bytes] = (KEY,),
    replacing: Mapping[str, str] | None = None,
    clock: Clock | None = None,
    shipped_files: bool = False,
    roots: Sequence[Path] = (),
    storage_at: Sequence[str] = (),
    max_result_bytes: int = 1_000_000_000,
    itwin_id: str | None = None,
    **options: Any,
) -> AsyncIterator[Bench]:
    """Serve a capability file of `files/`, or those that are shipped, with `handler` as the platform.

    `replacing` changes texts of the file; `roots` are the folders for local files, `storage_at` where they may go.
    """
    clock = clock or Clock()
    async with (
        loopback(handler) as server,
        UpstreamClient.open(server.origin, StaticToken(TOKEN), user_agent="itwin-mcp/test", **options) as upstream,
        Storage.open(storage_at, user_agent="itwin-mcp/test") as storage,
    ):
        catalog = shipped_catalog() if shipped_files else linked(file, replacing)
        seals = Seals(lambda: keys, clock=clock.now)
        executor = Executor(
            upstream,
            seals,
            storage=storage,
            files=LocalFiles(roots),
            environment=environment,
            names=Names(catalog.operations, itwin_id),
            max_result_bytes=max_result_bytes,
            sleep=clock.sleep,
            now=clock.now,
            clock=clock.now,
        )
        yield Bench(catalog, executor, server, clock)


def linked(file: str, replacing: Mapping[str, str] | None = None) -> Catalog:
    """The catalog of one file of `files/`."""
    text = (FOLDER / file).read_text(encoding="utf-8")
    for old, new in (replacing or {}).items():
        text = text.replace(old, new)
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / file
        copy.write_text(text, encoding="utf-8")
        return link_files([copy])


def query_of(asked: Asked) -> dict[str, str]:
    return dict(parse_qsl(asked.target.partition("?")[2], keep_blank_values=True))


async def never(asked: Asked) -> None:
    raise AssertionError(f"{asked.method} {asked.target} was sent")


def in_turn(*answers: Callable[[Asked], Awaitable[None]]) -> Handler:
    """The answers one after another; the last one stays."""
    left = list(answers)

    async def handler(asked: Asked) -> None:
        await (left.pop(0) if len(left) > 1 else left[0])(asked)

    return handler


def saying(status: int, value: Any = None, headers: Mapping[str, str] | None = None) -> Handler:
    """One answer; nothing in its body when `value` is None."""

    async def answer(asked: Asked) -> None:
        if value is None:
            await asked.answer(status, b"", headers)
        else:
            await asked.json(status, value, headers)

    return answer


async def hang_up(asked: Asked) -> None:
    await asked.hang_up()
