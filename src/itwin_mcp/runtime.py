"""The composition root: Settings become a running server; the only module that knows everything."""

from __future__ import annotations

import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from itwin_mcp.capability.catalog import Catalog, Skill, Tool, shipped
from itwin_mcp.capability.confirming import with_confirmations
from itwin_mcp.capability.linker import link_files
from itwin_mcp.capability.presets import Preset, with_presets
from itwin_mcp.capability.vocabulary import read_vocabulary
from itwin_mcp.errors import SettingsError, StateUnusable
from itwin_mcp.executor import names, saving
from itwin_mcp.executor.approvals import Approvals, approve_command
from itwin_mcp.executor.audit import Audit
from itwin_mcp.executor.confirm import HELD_SECONDS, Confirming, Remedy
from itwin_mcp.executor.conversation import LOCAL, Caller
from itwin_mcp.executor.executor import Executor
from itwin_mcp.executor.gate import Gatekeeper
from itwin_mcp.executor.local_files import HOW_TO_ALLOW, LocalFiles
from itwin_mcp.executor.lookup import Names
from itwin_mcp.executor.policy import Policy
from itwin_mcp.executor.seals import Seals, derived_keys, kept_key
from itwin_mcp.server import dynamic, session
from itwin_mcp.server.session import Session
from itwin_mcp.settings import Settings
from itwin_mcp.sign_in import (
    USER_AGENT,
    BackgroundLogin,
    SignIn,
    Started,
    Way,
    background,
    choose,
    introduce,
    way_of,
    who_am_i,
)
from itwin_mcp.upstream.client import UpstreamClient
from itwin_mcp.upstream.storage import STORAGE_HOSTS, Storage
from itwin_mcp.upstream.watching import Watch, unwatched

if TYPE_CHECKING:
    from itwin_mcp.exposure import Exposure
    from itwin_mcp.sandbox import Sandbox

logger = logging.getLogger(__name__)

NO_TERMINAL = Remedy(
    "Nothing was changed: nobody could be asked. The person runs the command in a terminal, where it asks them; --yes "
    "is their word in a script of theirs, and nobody else's."
)
"""What a command is told that nobody can answer."""
SANDBOX_SECONDS = 30 * 24 * 3600
"""How long the embedded sandbox takes its own token: longer than any session."""


@dataclass(frozen=True, slots=True)
class Runtime:
    """What serves: the selected catalog, the executor over it, and the session behind both."""

    catalog: Catalog
    executor: Executor
    gatekeeper: Gatekeeper
    session: Session
    sign_in: SignIn
    upstream: UpstreamClient
    sandbox: Sandbox | None


def read_all(settings: Settings) -> Catalog:
    """Our capability files and the user's own, and the tools about the session; linked, and nothing left out.

    Raises CapabilityError, SettingsError.
    """
    catalog = link_files((*shipped(), *settings.capabilities), cache=settings.cache_dir)
    own = {
        tool.name: tool for tool in (*session.TOOLS, *session.guide_tools(catalog.statics), saving.TOOL, *dynamic.TOOLS)
    }
    for name in own.keys() & catalog.tools.keys():
        raise SettingsError(f"{catalog.tools[name].file}: the name {name!r} is taken by a tool of itwin-mcp itself.")
    whole = replace(catalog, tools={**catalog.tools, **own})
    vocabulary = cache(lambda: read_vocabulary(shipped()[0].parent, settings.cache_dir))
    read_late = replace(whole, skills=cache(lambda: _skills(whole)), vocabulary=vocabulary)
    every = with_presets(read_late, _presets(settings))
    if settings.two_step:
        every = with_confirmations(every)
    return every


def read_catalog(settings: Settings, started: Started = Started.STDIO) -> Catalog:
    """What is served: all that there is, selected. Raises ConfigurationError."""
    every = read_all(settings)
    return _select(settings, started, every, _policy(settings, every))


def _policy(settings: Settings, every: Catalog) -> Policy | None:
    if settings.policy is None:
        return None
    from itwin_mcp.executor.policy_file import read_policy  # YAML and its models, only where there is one

    return read_policy(settings.policy, every.tools, settings.hosted.issuer if settings.hosted else None)


def _select(settings: Settings, started: Started, every: Catalog, policy: Policy | None) -> Catalog:
    """What was asked for, and what the policy shows the one caller; those of a hosted server are shown each their own.

    Who calls from a shell is told by the policy itself what it refuses.
    """
    hidden: set[str] = set()
    if policy is not None and started is not Started.SHELL and settings.hosted is None:
        hidden = every.tools.keys() - policy.allowed_tools(LOCAL, every.tools.values())
        every = replace(every, resources=policy.allowed_resources(LOCAL, every.resources, every.tools.values()))
    selected = every.select(
        toolsets=settings.toolsets,
        tools=settings.tools,
        exclude=settings.exclude_tools,
        read_only=settings.read_only,
        hidden=hidden,
    )
    absent: dict[str, str] = {}
    if not (settings.files_roots or started is Started.SHELL) and saving.SAVE_LIST in selected.tools:
        absent[saving.SAVE_LIST] = "no folder for files is allowed (--files-root)"
    kept = {name: tool for name, tool in selected.tools.items() if name not in absent}
    if started is not Started.STDIO or way_of(settings) is not Way.LOGIN:
        kept.pop(session.SIGN_IN, None)
    return replace(selected, tools=kept, elsewhere={**selected.elsewhere, **absent})


def _skills(catalog: Catalog) -> tuple[Skill, ...]:
    from itwin_mcp.skills.guides import read_skills  # reads YAML: only who asks for skills pays for it

    return read_skills(shipped()[0].parent, catalog.tools)


@asynccontextmanager
async def open_runtime(
    settings: Settings,
    environment: Mapping[str, str],
    started: Started = Started.SHELL,
    watch: Watch = unwatched,
) -> AsyncIterator[Runtime]:
    """Everything that a server or a single call needs, closed at the end. Raises ConfigurationError.

    `watch` sees every request that goes out.
    """
    every = read_all(settings)
    policy = _policy(settings, every)
    catalog = _select(settings, started, every, policy)
    async with AsyncExitStack() as stack:
        sandbox = (
            stack.enter_context(open_sandbox(settings.sandbox_db, settings.job_seconds)) if settings.sandbox else None
        )
        sign_in = choose(
            settings,
            started,
            sandbox_token=sandbox.token(seconds=SANDBOX_SECONDS) if sandbox is not None else None,
            has_tool=session.SIGN_IN in catalog.tools,
        )
        upstream = await stack.enter_async_context(
            UpstreamClient.open(
                settings.api_url,
                sign_in.tokens,
                sandbox=sandbox.app if sandbox is not None else None,
                user_agent=USER_AGENT,
                deadline=settings.deadline,
                rate_per_minute=settings.rate_per_minute,
                remedy=sign_in.remedy,
                watch=watch,
            )
        )
        storage = await stack.enter_async_context(
            Storage.open([*STORAGE_HOSTS, *_local_storage(settings)], user_agent=USER_AGENT)
            if sandbox is None
            else Storage.open(
                [*STORAGE_HOSTS, sandbox.storage_url],
                user_agent=USER_AGENT,
                platform=sandbox.storage_url,
                sandbox=sandbox.app,
            )
        )
        seals = Seals(lambda: _keys(settings))
        gatekeeper = Gatekeeper(
            upstream,
            every.operations,
            every.tools,
            policy,
            Audit(settings.audit_log, time.time),
            place=settings.environment if settings.sandbox else None,
        )
        executor = Executor(
            upstream,
            seals,
            storage=storage,
            files=_local_files(settings, started),
            environment=_bound(catalog, environment),
            names=Names(catalog.operations, settings.itwin_id and _preset_id(settings, "itwin")),
            confirming=_confirming(settings, started, seals, partial(introduce, settings, sign_in)),
            gatekeeper=gatekeeper,
            max_result_bytes=settings.max_result_bytes,
        )
        login: BackgroundLogin | None = None
        if session.SIGN_IN in catalog.tools and sign_in.login is not None:
            login = BackgroundLogin(sign_in.login, await stack.enter_async_context(background()))
        about = Session(lambda: who_am_i(settings, sign_in, upstream), login, catalog.statics)
        yield Runtime(catalog, executor, gatekeeper, about, sign_in, upstream, sandbox)


async def serve_stdio(settings: Settings, environment: Mapping[str, str]) -> None:
    """Serve one MCP client over standard input and output until input ends."""
    from itwin_mcp.server import stdio
    from itwin_mcp.server.app import build_server

    async with open_runtime(settings, environment, Started.STDIO) as runtime:
        await stdio.serve_stdio(build_server(runtime.catalog, runtime.executor, runtime.session))


async def serve_http(
    settings: Settings,
    environment: Mapping[str, str],
    host: str,
    port: int,
    token: str | None,
    ready: Callable[[str], None],
) -> None:
    """Serve MCP clients over streamable HTTP until a signal ends it.

    They are its owner, who may be asked for `token`, or callers who sign in, as the settings say. Raises OSError for a
    taken port.
    """
    from itwin_mcp.exposure import open_exposure
    from itwin_mcp.server import transports
    from itwin_mcp.server.app import build_server
    from itwin_mcp.server.connections import ConnectionLimits
    from itwin_mcp.server.guard import loopback_guard

    with open_exposure(settings, host) as exposure:
        if exposure is None:
            async with open_runtime(settings, environment, Started.HTTP) as runtime:
                server = build_server(runtime.catalog, runtime.executor, runtime.session)
                guard = partial(loopback_guard, token=token)
                await transports.serve_http(server, host, port, guard=guard, ready=ready, stateless=settings.stateless)
            return
        async with open_runtime(settings, environment, Started.HTTP, exposure.watch) as runtime:
            server = hosted_server(runtime, exposure)
            names = {*runtime.catalog.tools, *runtime.catalog.prompts}
            with exposure.traced(environment, names):
                await transports.serve_http(
                    server,
                    host,
                    port,
                    guard=hosted_guard(runtime, exposure),
                    ready=ready,
                    stateless=settings.stateless,
                    ending=exposure.end,
                    drain=exposure.hosted.drain_seconds,
                    limits=ConnectionLimits(
                        exposure.hosted.max_connections,
                        exposure.hosted.unfinished_per_address,
                        exposure.hosted.proxies,
                    ),
                )


def hosted_server(runtime: Runtime, exposure: Exposure) -> Any:
    """The MCP server for callers who sign in: each is shown what the policy allows them, and every call is counted."""
    from itwin_mcp.server.app import build_server

    policy = runtime.gatekeeper.policy
    if policy is None:
        logger.warning("There is no policy (ITWIN_MCP_POLICY): callers are shown no tools and may do nothing.")
    visible = policy.shows if policy is not None else _nothing
    server = build_server(runtime.catalog, runtime.executor, runtime.session, exposure.caller, visible)
    server.middleware.insert(1, exposure.counted(runtime.catalog.tools))
    return server


def hosted_guard(runtime: Runtime, exposure: Exposure) -> Any:
    """What goes around the protocol's app: a call that needs more than its caller may is refused there, and noted."""
    from itwin_mcp.server import demands

    refused = partial(demands.note_refused, runtime.catalog, runtime.executor, "InsufficientScope")
    return exposure.guard(partial(demands.to_call, runtime.catalog), refused)


def _nothing(_: Caller, __: Tool) -> bool:
    """Callers who sign in are allowed nothing without a policy, and so are shown nothing."""
    return False


def open_sandbox(database: Path | None, job_seconds: float = 1.0, rate_limit: int | None = None) -> Sandbox:
    """Open the sandbox, its state in a file or in memory. Raises SettingsError when the file cannot be used."""
    import sqlite3

    from itwin_mcp.sandbox import Sandbox  # imported only where it is used
    from itwin_mcp.sandbox.store import UnknownDatabase

    try:
        return Sandbox.open(database, job_seconds=job_seconds, rate_limit=rate_limit)
    except (sqlite3.Error, OSError, UnknownDatabase) as error:
        raise SettingsError(f"--sandbox-db {database} cannot be opened: {str(error).rstrip('.')}.") from None


def _local_storage(settings: Settings) -> Sequence[str]:
    """Where on this machine an emulated platform keeps files."""
    parts = urlsplit(settings.api_url)
    names = ("127.0.0.1", "localhost") if parts.hostname in ("127.0.0.1", "localhost") else ()
    return (*(f"{parts.scheme}://{name}:{parts.port}" for name in names if parts.port),)


def _local_files(settings: Settings, started: Started) -> LocalFiles:
    """The folders that were allowed; whoever calls from a shell stands in theirs."""
    roots, how = settings.files_roots, HOW_TO_ALLOW
    if started is Started.SHELL:
        roots = roots or (Path.cwd(),)
    elif started is Started.HTTP:
        how = f"The files are those of the machine that serves. {HOW_TO_ALLOW}"
    elif settings.bundle:
        how = "Ask the person to choose the folder for files in the extension's settings."
    return LocalFiles(roots, how, own=settings.own_files)


def _confirming(
    settings: Settings, started: Started, seals: Seals, where: Callable[[Tool], Awaitable[str]]
) -> Confirming:
    """Who asks for a client that cannot: over stdio the terminal of the same person, from the shell nobody else."""
    seconds = 60 * settings.confirm_minutes
    if settings.hosted is not None and settings.hosted.replicas > 1:  # an answer could be sent to each of them once
        seconds = min(seconds, HELD_SECONDS)
    confirming = partial(Confirming, seals, two_step=settings.two_step, seconds=seconds, where=where)
    if started is Started.SHELL:
        return confirming(remedy=NO_TERMINAL)
    if started is Started.HTTP:
        return confirming()
    approve = approve_command(settings.origins.get("state_dir"), settings.state_dir)
    return confirming(
        approvals=approvals(settings),
        approve_with=lambda identifier: f"{approve} {identifier}",
    )


def approvals(settings: Settings) -> Approvals:
    """The questions that wait for the person's terminal."""
    return Approvals(settings.state_dir / "approvals")


def _presets(settings: Settings) -> dict[str, Preset]:
    """What arguments mean that a call leaves out. Raises SettingsError for what is neither an id nor a link."""
    given = {"iTwinId": ("itwin", settings.itwin_id), "iModelId": ("imodel", settings.imodel_id)}
    return {
        argument: Preset(settings.origins.get(f"{entity}_id", argument), _preset_id(settings, entity))
        for argument, (entity, text) in given.items()
        if text is not None
    }


def _preset_id(settings: Settings, entity: str) -> str:
    text = str(settings.itwin_id if entity == "itwin" else settings.imodel_id)
    found = names.known_id(text, entity)
    if found is None:
        setting = settings.origins.get(f"{entity}_id", entity)
        raise SettingsError(f"{setting} is {text[:80]!r}: it must be the id of an {entity}, or a link to it.")
    return found


def _bound(catalog: Catalog, environment: Mapping[str, str]) -> dict[str, str]:
    """The variables that capability files bind, and no others."""
    wanted = {
        variable
        for operation in catalog.operations.values()
        if operation.credential is not None
        for variable in operation.credential.variables.values()
    }
    return {name: environment[name] for name in wanted if environment.get(name)}


def _keys(settings: Settings) -> Sequence[bytes]:
    """The keys that seal cursors: from the secrets of a hosted server, or one that is made once.

    That is readable by the user alone, and kept so that cursors outlive the process.
    """
    if settings.hosted is not None and settings.hosted.state_secrets:
        return derived_keys([secret.get_secret_value() for secret in settings.hosted.state_secrets])
    file = settings.state_dir / "seal.key"
    try:
        return (kept_key(file),)
    except OSError as error:
        logger.error("The key %s cannot be kept: %s", file, error.strerror or error)
        raise StateUnusable from None
