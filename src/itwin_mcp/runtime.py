"""The composition root: builds a running server from settings. Only this module knows all the others."""

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

from itwin_mcp.capability.bound_values import read_values
from itwin_mcp.capability.catalog import Catalog, Skill, Tool
from itwin_mcp.capability.catalog_cache import load_catalog
from itwin_mcp.capability.documents import find_shipped_files
from itwin_mcp.capability.entities import Entities
from itwin_mcp.capability.parameters import Preset, add_confirmation_arguments, apply_presets
from itwin_mcp.capability.selection import DYNAMIC
from itwin_mcp.capability.vocabulary import read_vocabulary
from itwin_mcp.errors import ErrorCode, SettingsError, StateUnusable
from itwin_mcp.executor import names, save_list
from itwin_mcp.executor.confirmation.approvals import Approvals, approve_command
from itwin_mcp.executor.confirmation.confirm import HELD_SECONDS, Confirmer, Remedy
from itwin_mcp.executor.confirmation.seals import Seals, derive_keys, load_or_create_key
from itwin_mcp.executor.context import LOCAL, Caller
from itwin_mcp.executor.files import HOW_TO_ALLOW, LocalFiles
from itwin_mcp.executor.names import Names
from itwin_mcp.executor.pipeline import BuiltInTool, Executor
from itwin_mcp.executor.policy.audit import Audit
from itwin_mcp.executor.policy.gatekeeper import Gatekeeper
from itwin_mcp.executor.policy.rules import Policy
from itwin_mcp.server import built_in_tools, dynamic_tools
from itwin_mcp.server.built_in_tools import SessionTools
from itwin_mcp.settings import Settings
from itwin_mcp.upstream.client import UpstreamClient, Watch, unwatched
from itwin_mcp.upstream.hints import Noun
from itwin_mcp.upstream.sign_in.background_login import BackgroundLogin, open_background
from itwin_mcp.upstream.sign_in.credential_choice import (
    USER_AGENT,
    AuthMethod,
    Launcher,
    SignIn,
    choose_method,
    choose_sign_in,
)
from itwin_mcp.upstream.sign_in.identity import describe_actor, who_am_i
from itwin_mcp.upstream.storage import STORAGE_HOSTS, Storage

if TYPE_CHECKING:
    from itwin_mcp.capability.inbound_compiler import InboundCredential
    from itwin_mcp.capability.skill_compiler import DeclaredSkill
    from itwin_mcp.hosted_server import Exposure
    from itwin_mcp.sandbox import Sandbox
    from itwin_mcp.server.rest.rest_app import RestApp

logger = logging.getLogger(__name__)

NO_TERMINAL = Remedy(
    "Nothing was changed, because there is no terminal to ask on. Have the user run the command in a terminal, where "
    "it asks them. Only the user may pass --yes, in a script of their own."
)
"""The hint if a command must ask for confirmation but has no terminal."""
SANDBOX_SECONDS = 30 * 24 * 3600
"""Lifetime of the token that the embedded sandbox issues to itself: longer than any session."""


@dataclass(frozen=True, slots=True)
class Runtime:
    """The parts of a running server: the selected catalog, the executor, and what they use."""

    catalog: Catalog
    executor: Executor
    gatekeeper: Gatekeeper
    sign_in: SignIn
    upstream: UpstreamClient
    sandbox: Sandbox | None
    reload: Callable[[], Runtime]
    """Reads the capability files again, and returns a runtime that shares everything else with this one.

    Raises ConfigurationError.
    """


def read_all(settings: Settings) -> Catalog:
    """Return the whole catalog: our capability files, the user's files and the built-in tools.

    Raises CapabilityError, SettingsError.
    """
    catalog = load_catalog((*find_shipped_files(), *settings.capabilities), cache=settings.cache_dir)
    built_in = {
        tool.name: tool
        for tool in (
            *built_in_tools.TOOLS,
            *built_in_tools.build_guide_tools(catalog.statics),
            save_list.TOOL,
            *dynamic_tools.TOOLS,
        )
    }
    for name in built_in.keys() & catalog.tools.keys():
        raise SettingsError(f"{catalog.tools[name].file}: the name {name!r} is already used by a built-in tool.")
    tools = {**catalog.tools, **built_in}
    folder = find_shipped_files()[0].parent
    whole = replace(
        catalog,
        tools=tools,
        skills=cache(partial(_read_skills, folder, tools, catalog.declared_skills)),
        vocabulary=cache(partial(read_vocabulary, folder, settings.cache_dir, catalog.entities)),
    )
    whole = apply_presets(whole, _read_presets(settings, catalog.entities))
    return add_confirmation_arguments(whole) if settings.two_step else whole


def read_catalog(settings: Settings, launcher: Launcher = Launcher.STDIO) -> Catalog:
    """Return the catalog with the tools that are served. Raises ConfigurationError."""
    whole = read_all(settings)
    return _select_tools(settings, launcher, whole, _read_policy(settings, whole))


def _read_policy(settings: Settings, whole: Catalog) -> Policy | None:
    if settings.policy is None:
        return None
    from itwin_mcp.executor.policy.file import read_policy  # imports YAML and its models only if there is a policy

    return read_policy(settings.policy, whole, settings.hosted.issuer if settings.hosted else None)


def _select_tools(settings: Settings, launcher: Launcher, whole: Catalog, policy: Policy | None) -> Catalog:
    """Select the tools that the settings ask for and, if there is only one caller, that the policy allows.

    A hosted server has many callers, so it filters the tools by policy when a caller lists them. In a shell the policy
    hides nothing, because its refusal explains more than a missing tool.
    """
    hidden: set[str] = set()
    if policy is not None and launcher is not Launcher.SHELL and settings.hosted is None:
        hidden = whole.every_tool.keys() - policy.allowed_tools(LOCAL, whole.every_tool.values())
        whole = replace(whole, resources=policy.allowed_resources(LOCAL, whole.resources, whole.tools.values()))
    selected = whole.select(
        toolsets=settings.toolsets,
        tools=settings.tools,
        exclude=settings.exclude_tools,
        read_only=settings.read_only,
        hidden=hidden,
    )
    tools, elsewhere = dict(selected.tools), dict(selected.elsewhere)
    if save_list.SAVE_LIST in tools and not settings.files_roots and launcher is not Launcher.SHELL:
        del tools[save_list.SAVE_LIST]
        elsewhere[save_list.SAVE_LIST] = "no folder for files is allowed (--files-root)"
    if launcher is not Launcher.STDIO or choose_method(settings) is not AuthMethod.LOGIN:
        tools.pop(built_in_tools.SIGN_IN, None)
    return replace(selected, tools=tools, elsewhere=elsewhere)


def _read_skills(folder: Path, tools: Mapping[str, Tool], declared: Sequence[DeclaredSkill]) -> tuple[Skill, ...]:
    """Return our own skills and those of the user's files. Raises SettingsError if two have the same name."""
    from itwin_mcp.skills.declared import build_skill
    from itwin_mcp.skills.reader import read_skills  # imports YAML only when skills are listed or read

    ours = read_skills(folder, tools)
    for skill in declared:
        if skill.name in {own.name for own in ours}:
            raise SettingsError(f"{skill.file}: the name {skill.name!r} is already used by a skill of ours: rename it.")
    return (*ours, *map(build_skill, declared))


@asynccontextmanager
async def open_runtime(
    settings: Settings,
    environment: Mapping[str, str],
    launcher: Launcher = Launcher.SHELL,
    watch: Watch = unwatched,
) -> AsyncIterator[Runtime]:
    """Open everything that a server or a single call needs, and close it at the end. Raises ConfigurationError.

    `watch` observes every request to the platform.
    """
    whole = read_all(settings)
    policy = _read_policy(settings, whole)
    catalog = _select_tools(settings, launcher, whole, policy)
    async with AsyncExitStack() as stack:
        sandbox = (
            stack.enter_context(open_sandbox(settings.sandbox_db, settings.job_seconds)) if settings.sandbox else None
        )
        sign_in = choose_sign_in(
            settings,
            launcher,
            sandbox_token=sandbox.token(seconds=SANDBOX_SECONDS) if sandbox is not None else None,
            has_tool=built_in_tools.SIGN_IN in catalog.tools,
        )
        upstream = await stack.enter_async_context(
            UpstreamClient(
                settings.api_url,
                sign_in.tokens,
                sandbox=sandbox.app if sandbox is not None else None,
                user_agent=USER_AGENT,
                deadline=settings.deadline,
                rate_per_minute=settings.rate_per_minute,
                remedy=sign_in.remedy,
                nouns=name_entities(whole.entities),
                watch=watch,
            )
        )
        storage = await stack.enter_async_context(
            Storage([*STORAGE_HOSTS, *_list_local_storage(settings)], user_agent=USER_AGENT)
            if sandbox is None
            else Storage(
                [*STORAGE_HOSTS, sandbox.storage_url],
                user_agent=USER_AGENT,
                platform=sandbox.storage_url,
                sandbox=sandbox.app,
            )
        )
        seals = Seals(lambda: _read_keys(settings))
        gatekeeper = Gatekeeper(
            upstream,
            whole.tools,
            policy,
            Audit(settings.audit_log, time.time),
            place=settings.environment if settings.sandbox else None,
        )
        login: BackgroundLogin | None = None
        if built_in_tools.SIGN_IN in catalog.tools and sign_in.login is not None:
            login = BackgroundLogin(sign_in.login, await stack.enter_async_context(open_background()))
        session = SessionTools(lambda: who_am_i(settings, sign_in, upstream), login, catalog.statics)
        files = _open_files(settings, launcher)
        confirming = _build_confirmer(
            settings, launcher, bool(catalog.routes), seals, partial(_describe_actor, settings, sign_in)
        )

        def assemble(catalog: Catalog) -> Runtime:
            executor = Executor(
                upstream,
                seals,
                storage=storage,
                files=files,
                environment=_select_variables(catalog, environment),
                names=Names(catalog.operations, _read_presets(settings, catalog.entities)),
                confirming=confirming,
                gatekeeper=gatekeeper,
                built_in=_collect_built_in(catalog, launcher, session, files, gatekeeper),
                elsewhere=catalog.elsewhere,
                max_result_bytes=settings.max_result_bytes,
            )
            return Runtime(catalog, executor, gatekeeper, sign_in, upstream, sandbox, reload)

        def reload() -> Runtime:
            whole = read_all(settings)
            gatekeeper.tools = whole.tools  # its budgets and counters continue
            return assemble(_select_tools(settings, launcher, whole, policy))

        yield assemble(catalog)


def _collect_built_in(
    catalog: Catalog, launcher: Launcher, session: SessionTools, files: LocalFiles, gatekeeper: Gatekeeper
) -> Mapping[str, BuiltInTool]:
    """Return the handlers of the tools that no capability file declares."""
    # In a shell every tool is shown, because the policy's refusal explains more than a missing tool.
    shows: Callable[[Caller, Tool], bool] = gatekeeper.shows if launcher is not Launcher.SHELL else lambda *_: True
    handlers = {**session.handlers, save_list.SAVE_LIST: save_list.ListSaver(catalog, files, shows).save}
    return {**handlers, **dynamic_tools.DynamicTools(catalog, shows).handlers} if catalog.dynamic else handlers


async def serve_stdio(
    settings: Settings, environment: Mapping[str, str], ready: Callable[[], None], watches_files: bool = False
) -> None:
    """Serve one MCP client over standard input and output until input ends. Call `ready` once it can connect.

    With `watches_files`, serve changed capability files without a restart.
    """
    from itwin_mcp.server.app import build_server
    from itwin_mcp.server.transports import stdio

    async with open_runtime(settings, environment, Launcher.STDIO) as runtime:
        server = build_server(runtime.catalog, runtime.executor)
        warn_of_http_only(runtime.catalog)
        ready()
        async with reload_on_change(server, runtime, settings, watches_files):
            await stdio.serve_stdio(server)


@asynccontextmanager
async def reload_on_change(
    server: Any, runtime: Runtime, settings: Settings, watches_files: bool
) -> AsyncIterator[Callable[[], Catalog]]:
    """Replace the server's catalog whenever a capability file changes. Yield a function that returns the catalog."""
    current = runtime
    if not watches_files:
        yield lambda: runtime.catalog
        return
    import anyio

    from itwin_mcp.capability.file_watch import FileWatch
    from itwin_mcp.server.app import build_server
    from itwin_mcp.server.live_server import LiveServer

    live, watch = LiveServer(server), FileWatch(settings.capabilities)

    async def reload() -> None:
        nonlocal current
        current = await anyio.to_thread.run_sync(runtime.reload)
        await live.replace(build_server(current.catalog, current.executor))

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(watch.run, reload)
        yield lambda: current.catalog
        tasks.cancel_scope.cancel()


def warn_of_http_only(catalog: Catalog) -> None:
    """Warn of what files declare for HTTP and stdio cannot have."""
    if catalog.inbound:
        files = _name_files(catalog.inbound)
        logger.warning("Over stdio the authentication in %s does not apply: only the client can call.", files)
    if catalog.routes:
        namespaces = ", ".join(sorted({route.namespace for route in catalog.routes}))
        logger.warning("Over stdio no REST API is served (%s): serve with --http HOST:PORT.", namespaces)


async def serve_http(
    settings: Settings,
    environment: Mapping[str, str],
    host: str,
    port: int,
    token: str | None,
    ready: Callable[[str], None],
    watches_files: bool = False,
) -> None:
    """Serve MCP clients over streamable HTTP until a signal ends it. Raises OSError if the port is taken.

    The clients are the user's own, which need `token` if it is set. If the settings are those of a hosted server, they
    are callers who sign in.
    """
    from itwin_mcp.hosted_server import open_exposure
    from itwin_mcp.server import tools
    from itwin_mcp.server.app import build_server
    from itwin_mcp.server.transports import http
    from itwin_mcp.server.transports.connection_limits import ConnectionLimits

    with open_exposure(settings, host) as exposure:
        if exposure is None:
            async with open_runtime(settings, environment, Launcher.HTTP) as runtime:
                server = build_server(runtime.catalog, runtime.executor)
                async with reload_on_change(server, runtime, settings, watches_files) as get_catalog:
                    await http.serve_http(
                        server,
                        host,
                        port,
                        surround=surround_own(runtime, environment, token),
                        ready=ready,
                        rest=build_rest(runtime, settings),
                        stateless=settings.stateless,
                        is_quick=lambda name: tools.is_quick(get_catalog(), name),
                    )
            return
        from itwin_mcp.hosting.telemetry import export_spans

        async with open_runtime(settings, environment, Launcher.HTTP, exposure.watch) as runtime:
            server = build_hosted_server(runtime, exposure)
            rest = build_rest(runtime, settings, exposure.get_caller)
            names = {*runtime.catalog.tools, *runtime.catalog.prompts}
            with export_spans(environment, names):
                await http.serve_http(
                    server,
                    host,
                    port,
                    surround=surround_hosted(runtime, exposure, rest),
                    ready=ready,
                    rest=rest,
                    stateless=settings.stateless,
                    is_quick=partial(tools.is_quick, runtime.catalog),
                    ending=exposure.end,
                    drain=exposure.hosted.drain_seconds,
                    limits=ConnectionLimits(
                        exposure.hosted.max_connections,
                        exposure.hosted.unfinished_per_address,
                        exposure.hosted.proxies,
                    ),
                )


def build_hosted_server(runtime: Runtime, exposure: Exposure) -> Any:
    """Return the MCP server for callers who sign in. It lists what the policy allows each, and counts every call."""
    from itwin_mcp.hosting.telemetry import watch_calls
    from itwin_mcp.server.app import build_server

    if runtime.gatekeeper.policy is None:
        logger.warning("There is no policy (ITWIN_MCP_POLICY), so callers see no tools and may do nothing.")
    server = build_server(runtime.catalog, runtime.executor, exposure.get_caller)
    server.middleware.insert(1, watch_calls(exposure.meter, runtime.catalog.tools))
    return server


def build_rest(
    runtime: Runtime, settings: Settings, get_caller: Callable[[], Caller] = lambda: LOCAL
) -> RestApp | None:
    """Return the app that serves what files expose over REST and, with `--rest`, every tool; None for nothing.

    Raises SettingsError if a file's namespace is also the name of a toolset.
    """
    from itwin_mcp.capability.routes import derive_routes

    routes = runtime.catalog.routes
    if settings.rest:
        # The dynamic tools serve models: over HTTP every tool has a path of its own.
        derived = derive_routes(tool for tool in runtime.catalog.tools.values() if tool.toolset != DYNAMIC)
        clashing = {route.namespace for route in routes} & {route.namespace for route in derived}
        if clashing:
            raise SettingsError(
                f"--rest: a capability file exposes the REST namespace {min(clashing)!r}, which is also a toolset. "
                "Rename it in the file."
            )
        routes = (*routes, *derived)
    if not routes:
        return None
    from itwin_mcp.server.rest.rest_app import RestApp

    return RestApp(routes, runtime.executor, get_caller)


def surround_own(runtime: Runtime, environment: Mapping[str, str], token: str | None) -> Callable[[Any, int], Any]:
    """Return the middleware around the apps of the user's own server.

    Raises SettingsError if the credential that a file requires has no value.
    """
    from itwin_mcp.server.transports.inbound_check import InboundCheck, require
    from itwin_mcp.server.transports.origin_check import check_loopback

    inbound = runtime.catalog.inbound
    if token is not None and inbound:
        logger.warning("--http-token takes the place of the authentication in %s.", _name_files(inbound))
        inbound = ()
    references = {name for credential in inbound for name in credential.variables.values()}
    values = read_values(references, environment)
    required = require(inbound, values)
    return lambda app, port: check_loopback(InboundCheck(app, required) if required else app, port, token=token)


def _name_files(inbound: Sequence[InboundCredential]) -> str:
    return ", ".join(dict.fromkeys(credential.file for credential in inbound))


def surround_hosted(runtime: Runtime, exposure: Exposure, rest: RestApp | None = None) -> Callable[[Any, int], Any]:
    """Return a function that wraps the app in middleware, given the app and the port.

    The middleware refuses and audits calls that need more than the caller's scopes.
    """
    if runtime.catalog.inbound:
        files = _name_files(runtime.catalog.inbound)
        logger.warning("Callers sign in (ITWIN_MCP_AUTH_ISSUER), so the authentication in %s does not apply.", files)
    from itwin_mcp.server import tools

    find_access = partial(tools.find_access, runtime.catalog)
    note_refused = partial(tools.note_refused, runtime.catalog, runtime.executor, ErrorCode.INSUFFICIENT_SCOPE)
    return lambda app, port: exposure.surround(app, port, find_access, note_refused, rest)


def open_sandbox(database: Path | None, job_seconds: float = 1.0, rate_limit: int | None = None) -> Sandbox:
    """Open the sandbox with its state in a file or in memory. Raises SettingsError if the file cannot be used."""
    import sqlite3

    from itwin_mcp.sandbox import Sandbox  # only commands that use the sandbox import it
    from itwin_mcp.sandbox.store import UnknownDatabase

    try:
        return Sandbox.open(database, job_seconds=job_seconds, rate_limit=rate_limit)
    except (sqlite3.Error, OSError, UnknownDatabase) as error:
        raise SettingsError(f"--sandbox-db {database} cannot be opened: {str(error).rstrip('.')}.") from None


def _list_local_storage(settings: Settings) -> Sequence[str]:
    """Return the origins on this machine at which the platform stores files if it is emulated here."""
    parts = urlsplit(settings.api_url)
    if parts.hostname not in ("127.0.0.1", "localhost") or not parts.port:
        return ()
    return [f"{parts.scheme}://{name}:{parts.port}" for name in ("127.0.0.1", "localhost")]


def _open_files(settings: Settings, launcher: Launcher) -> LocalFiles:
    """Return the local files that tools may use. In a shell the current folder is allowed by default."""
    roots, hint = settings.files_roots, HOW_TO_ALLOW
    if launcher is Launcher.SHELL:
        roots = roots or (Path.cwd(),)
    elif launcher is Launcher.HTTP:
        hint = f"The files are those of the server's machine. {HOW_TO_ALLOW}"
    elif settings.bundle:
        hint = "Ask the user to choose the folder for files in the extension's settings."
    return LocalFiles(roots, hint, own=settings.own_files)


def _build_confirmer(
    settings: Settings, launcher: Launcher, has_routes: bool, seals: Seals, where: Callable[[Tool], Awaitable[str]]
) -> Confirmer:
    """Return the confirmer of calls. If the client cannot ask the user, `itwin-mcp approve` confirms.

    Over HTTP that is so on the user's own server with REST, whose clients can never ask.
    """
    seconds = 60 * settings.confirm_minutes
    if settings.hosted is not None and settings.hosted.replicas > 1:  # a reply could be used once on each replica
        seconds = min(seconds, HELD_SECONDS)
    build = partial(Confirmer, seals, two_step=settings.two_step, seconds=seconds, where=where)
    if launcher is Launcher.SHELL:
        return build(remedy=NO_TERMINAL)
    serves_rest = (settings.rest or has_routes) and settings.hosted is None
    if launcher is Launcher.HTTP and not serves_rest:
        return build()
    command = approve_command(settings.origins.get("state_dir"), settings.state_dir)
    return build(approvals=open_approvals(settings), approve_with=lambda identifier: f"{command} {identifier}")


async def _describe_actor(settings: Settings, sign_in: SignIn, tool: Tool) -> str:
    """Describe the account as which a tool writes, or reads if it only reads."""
    writes = [operation for operation in tool.operations if operation.method != "GET"]
    return await describe_actor(settings, sign_in, {operation.origin for operation in writes or tool.operations})


def open_approvals(settings: Settings) -> Approvals:
    """Return the store of calls that wait for `itwin-mcp approve`."""
    return Approvals(settings.state_dir / "approvals")


def _read_presets(settings: Settings, entities: Entities) -> dict[str, Preset]:
    """Return the ids that the settings preset for arguments. Raises SettingsError if one is not an id or link."""
    presets: dict[str, Preset] = {}
    for kind, text in (("itwin", settings.itwin_id), ("imodel", settings.imodel_id)):
        if text is None:
            continue
        entity = entities[kind]
        setting = settings.origins.get(f"{kind}_id", entity.argument)
        identity = names.extract_id(text, entity)
        if identity is None:
            raise SettingsError(f"{setting} is {text[:80]!r}: it must be the id of an {kind}, or a link to it.")
        presets[entity.argument] = Preset(setting, identity)
    return presets


def name_entities(entities: Entities) -> tuple[Noun, ...]:
    """Return the nouns with which hints name the entities that can be listed."""
    return tuple(
        Noun(
            entity.noun,
            entity.listing,
            entity.origins,
            frozenset(code.lower() for code in entity.codes),
            tuple(tuple(path.strip("/").split("/")) for path in entity.paths),
            entity.unique,
            entity.refusals,
        )
        for entity in entities.values()
        if entity.listing is not None
    )


def _select_variables(catalog: Catalog, environment: Mapping[str, str]) -> dict[str, str]:
    """Return only the values that capability files use, from the environment or the files next to them."""
    references = {name for operation in catalog.operations.values() for name in operation.list_references()}
    return read_values(references, environment)


def _read_keys(settings: Settings) -> Sequence[bytes]:
    """Return the keys that seal cursors. They are derived from a hosted server's secrets if it has some.

    Otherwise one key is created and stored in a file that only the user can read, so that cursors survive a restart.
    """
    if settings.hosted is not None and settings.hosted.state_secrets:
        return derive_keys([secret.get_secret_value() for secret in settings.hosted.state_secrets])
    file = settings.state_dir / "seal.key"
    try:
        return (load_or_create_key(file),)
    except OSError as error:
        logger.error("The key %s cannot be stored: %s", file, error.strerror or error)
        raise StateUnusable from None
