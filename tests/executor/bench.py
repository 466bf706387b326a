"""Run the executor with a small capability file, a loopback server as the platform, and a clock that tests move."""

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
from itwin_mcp.capability.parameters import Preset
from itwin_mcp.errors import CallError
from itwin_mcp.executor import save_list
from itwin_mcp.executor.confirmation.seals import Seals
from itwin_mcp.executor.context import LOCAL, Caller, Confirmation, NoReply, NullConversation, Reply
from itwin_mcp.executor.files import LocalFiles
from itwin_mcp.executor.limits import to_compact_json
from itwin_mcp.executor.names import Names
from itwin_mcp.executor.outcome import Failure, JobPending, Outcome, Preview, Question, Result
from itwin_mcp.executor.pipeline import Executor
from itwin_mcp.runtime import name_entities
from itwin_mcp.upstream.client import UpstreamClient
from itwin_mcp.upstream.sign_in.static_token import StaticToken
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
    """A clock that moves only when somebody sleeps."""

    def __init__(self) -> None:
        self.time = 1_000.0
        self.slept: list[float] = []

    def now(self) -> float:
        return self.time

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.time += seconds
        await anyio.lowlevel.checkpoint()


def answer_of(outcome: Outcome) -> dict[str, Any]:
    """Return the answer of a call that ended well. Raises the error of one that failed."""
    if isinstance(outcome, Failure):
        raise outcome.error
    assert isinstance(outcome, Result | JobPending), outcome
    assert outcome.text == to_compact_json(outcome.answer)
    return dict(outcome.answer)


def preview_of(outcome: Outcome) -> dict[str, Any]:
    """Return what is shown of a call that waits for a confirmation."""
    assert isinstance(outcome, Preview), outcome
    preview: dict[str, Any] = outcome.answer["preview"]
    return preview


@dataclass
class Listener(NullConversation):
    """A user who records progress and agrees to everything."""

    told: list[tuple[float, float | None, str]] = field(default_factory=list)

    async def progress(self, done: float, total: float | None, text: str) -> None:
        self.told.append((done, total, text))

    async def ask(self, question: Question) -> Reply | NoReply:
        return Reply("accept", Confirmation("person", "terminal"), question.name)


@dataclass
class Bench:
    catalog: Catalog
    executor: Executor
    server: Loopback
    clock: Clock
    listener: Listener = field(default_factory=Listener)

    async def call(self, tool: str, caller: Caller = LOCAL, **arguments: Any) -> dict[str, Any]:
        """Return the answer of a tool, validated against its output schema."""
        described = self.catalog.tools[tool]
        answer = answer_of(await self.executor.call(described, arguments, self.listener, caller))
        Draft202012Validator(described.output_schema).validate(answer)
        return answer

    async def save(self, tool: str, path: str, **arguments: Any) -> dict[str, Any]:
        """Return the answer of `save-list` for a tool, validated against its output schema."""
        given = {"tool": tool, "arguments": arguments, "path": path}
        answer = answer_of(await self.executor.call(save_list.TOOL, given, self.listener))
        Draft202012Validator(save_list.TOOL.output_schema).validate(answer)
        return answer

    async def refused(self, tool: str, caller: Caller = LOCAL, **arguments: Any) -> dict[str, Any]:
        """Return the error of a tool, as the agent reads it."""
        try:
            answer = await self.call(tool, caller, **arguments)
        except CallError as error:
            report = error.to_json(tool)
            Draft202012Validator(self.catalog.tools[tool].output_schema).validate({"error": report})
            return report
        raise AssertionError(f"{tool} answered {answer}")

    @property
    def asked(self) -> list[str]:
        return [f"{request.method} {request.target}" for request in self.server.requests]


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
    """Serve a capability file of `files/`, or the shipped ones, with `handler` as the platform.

    `replacing` changes texts of the file. `roots` are the folders for local files, `storage_at` the allowed origins.
    """
    clock = clock or Clock()
    async with (
        loopback(handler) as server,
        UpstreamClient(
            server.origin,
            StaticToken(TOKEN),
            user_agent="itwin-mcp/test",
            nouns=name_entities(shipped_catalog().entities),
            **options,
        ) as upstream,
        Storage(storage_at, user_agent="itwin-mcp/test") as storage,
    ):
        catalog = shipped_catalog() if shipped_files else linked(file, replacing)
        seals, files = Seals(lambda: keys, clock=clock.now), LocalFiles(roots)
        executor = Executor(
            upstream,
            seals,
            storage=storage,
            files=files,
            built_in={save_list.SAVE_LIST: save_list.ListSaver(catalog, files, lambda _, __: True).save},
            environment=environment,
            names=Names(catalog.operations, {"iTwinId": Preset("ITWIN_ID", itwin_id)} if itwin_id is not None else {}),
            max_result_bytes=max_result_bytes,
            sleep=clock.sleep,
            now=clock.now,
            clock=clock.now,
        )
        yield Bench(catalog, executor, server, clock)


def linked(file: str, replacing: Mapping[str, str] | None = None) -> Catalog:
    """Link one file of `files/`."""
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
    """Give one answer after another, and repeat the last."""
    remaining = list(answers)

    async def handler(asked: Asked) -> None:
        await (remaining.pop(0) if len(remaining) > 1 else remaining[0])(asked)

    return handler


def saying(status: int, value: Any = None, headers: Mapping[str, str] | None = None) -> Handler:
    """Always give the same answer. Its body is empty if `value` is None."""

    async def answer(asked: Asked) -> None:
        if value is None:
            await asked.answer(status, b"", headers)
        else:
            await asked.json(status, value, headers)

    return answer


async def hang_up(asked: Asked) -> None:
    await asked.hang_up()
