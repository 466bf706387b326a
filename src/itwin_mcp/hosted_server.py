"""A hosted server: checks its settings before other people may reach it, and builds its middleware."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from itwin_mcp.errors import SettingsError
from itwin_mcp.setting_parsers import LOOPBACK
from itwin_mcp.settings import HostedSettings, Settings
from itwin_mcp.upstream.sign_in.credential_choice import USER_AGENT, AuthMethod, choose_method

if TYPE_CHECKING:
    from itwin_mcp.executor.context import Caller
    from itwin_mcp.hosting.authentication import AccessOfCall, NoteRefused, RestAccess
    from itwin_mcp.hosting.caller_limits import Admission
    from itwin_mcp.hosting.telemetry import Meter
    from itwin_mcp.upstream.client import Watch

PUBLIC_PATH = "/mcp"
REST_PATH = "/rest/"
_LOCAL_HOSTS = ("127.0.0.1", "localhost", "[::1]")


def check_exposure(settings: Settings, host: str) -> None:
    """Check that the settings allow serving at this address. Raises SettingsError, which lists what is missing."""
    hosted = settings.hosted
    missing = find_missing(hosted, settings.policy) if host not in LOOPBACK else []
    if missing:
        reason = f"{host} is not loopback."
        if hosted is None:
            reason = (
                f"anyone who reaches {host} could act as you on the iTwin Platform. "
                "Listen on 127.0.0.1, or have callers sign in."
            )
        raise SettingsError(f"--http {host} is refused: {reason} Missing for that: {'; '.join(missing)}.")
    if hosted is None:
        return
    if choose_method(settings) not in (AuthMethod.SERVICE_APPLICATION, AuthMethod.SANDBOX):
        raise SettingsError(
            "A hosted server acts as a service application: set ITWIN_CLIENT_ID and ITWIN_CLIENT_SECRET (or --sandbox "
            "to try it). It never acts with a person's token or login, and never passes on a caller's token."
        )
    if settings.files_roots:
        raise SettingsError(
            f"{settings.origins.get('files_roots', '--files-root')} is refused on a hosted server: callers would "
            "read each other's files."
        )
    if settings.http_token is not None:
        raise SettingsError(
            "ITWIN_MCP_HTTP_TOKEN is only for your own server: callers of a hosted server send their own tokens."
        )
    check_replicas(hosted, two_step=settings.two_step)
    from itwin_mcp.hosting.tokens import ALGORITHMS

    unknown = sorted(set(hosted.algorithms) - set(ALGORITHMS))
    if unknown:
        raise SettingsError(f"ITWIN_MCP_AUTH_ALGORITHMS contains {unknown[0]!r}; allowed are: {', '.join(ALGORITHMS)}.")


def find_missing(hosted: HostedSettings | None, policy: Path | None) -> list[str]:
    """Return the requirements of a server beyond loopback that are not met, each with its setting."""
    needs = {
        "the server that signs callers in (ITWIN_MCP_AUTH_ISSUER)": hosted is not None,
        "its public address (ITWIN_MCP_AUTH_AUDIENCE)": hosted is not None,
        "its host names (ITWIN_MCP_ALLOWED_HOSTS)": bool(hosted and hosted.allowed_hosts),
        "the web pages that may call it, or `none` (ITWIN_MCP_ALLOWED_ORIGINS)": hosted is not None
        and hosted.allowed_origins is not None,
        "a policy for its callers (ITWIN_MCP_POLICY)": policy is not None,
        "a secret that seals cursors (ITWIN_MCP_STATE_SECRET or _FILE)": bool(hosted and hosted.state_secrets),
    }
    return [need for need, is_met in needs.items() if not is_met]


def check_replicas(hosted: HostedSettings, *, two_step: bool) -> None:
    """Check that the settings work with several replicas, which share only a secret. Raises SettingsError.

    Two-step confirmation does not: its tokens are valid once, but replicas do not know which tokens others accepted.
    """
    if hosted.replicas == 1:
        return
    if not hosted.state_secrets:
        raise SettingsError(
            f"ITWIN_MCP_REPLICAS is {hosted.replicas}, but ITWIN_MCP_STATE_SECRET is not set: other replicas could "
            "not read a cursor. Set the same secret for all replicas."
        )
    if two_step:
        raise SettingsError(
            f"ITWIN_MCP_REPLICAS is {hosted.replicas}, but two-step confirmation needs a single replica: a token "
            "could be used once on each. Choose another way to confirm, or run one replica."
        )


@dataclass(frozen=True, slots=True)
class Exposure:
    """The parts of a hosted server around the MCP server."""

    hosted: HostedSettings
    meter: Meter
    watch: Watch
    get_caller: Callable[[], Caller]
    end: Callable[[], Awaitable[None]]
    surround: Callable[[Any, int, AccessOfCall, NoteRefused, RestAccess | None], Any]
    """Returns the app, wrapped in all middleware for a server on this port."""


@contextmanager
def open_exposure(settings: Settings, host: str) -> Iterator[Exposure | None]:
    """Yield the parts of a hosted server during the block, or None for a user's own server. Raises SettingsError."""
    check_exposure(settings, host)
    hosted = settings.hosted
    if hosted is None:
        yield None
        return
    from starlette.middleware.cors import CORSMiddleware

    from itwin_mcp.capability.tool_actions import Access
    from itwin_mcp.hosting.authentication import Authentication, get_caller
    from itwin_mcp.hosting.caller_limits import Admission, CallerLimits, CallerSessions
    from itwin_mcp.hosting.health import HealthRoutes, Readiness
    from itwin_mcp.hosting.protected_resource import ProtectedResource, ResourceRoutes
    from itwin_mcp.hosting.signing_keys import SigningKeys
    from itwin_mcp.hosting.telemetry import watch_requests
    from itwin_mcp.hosting.tokens import DEFAULT_ALGORITHMS, TokenVerifier
    from itwin_mcp.server.transports.origin_check import check_hosted
    from itwin_mcp.upstream.plain_requests import fetch_document

    limits = CallerLimits(
        caller_rate=hosted.caller_rate,
        total_rate=hosted.total_rate,
        caller_at_once=hosted.caller_concurrency,
        total_at_once=hosted.total_concurrency,
    )
    admission, sessions = Admission(limits), CallerSessions(limits.caller_sessions)
    readiness = Readiness(hosted.notice_seconds)
    resource = ProtectedResource(hosted.audience, hosted.issuer, Access[hosted.first_scope.upper()])
    keys = SigningKeys(partial(fetch_document, user_agent=USER_AGENT), hosted.issuer, hosted.jwks_url)
    verifier = TokenVerifier(keys, hosted.issuer, hosted.audience, algorithms=hosted.algorithms or DEFAULT_ALGORITHMS)
    with ExitStack() as stack:
        meter = _open_meter(hosted, host, admission, stack)

        def surround(
            app: Any, port: int, access_of_call: AccessOfCall, note_refused: NoteRefused, rest: RestAccess | None
        ) -> Any:
            # From the inside out: each layer answers what it refuses, so that less reaches the next one.
            app = Authentication(
                app, resource, verifier, access_of_call, note_refused, admission, sessions, meter, rest
            )
            app = ResourceRoutes(app, PUBLIC_PATH, resource, () if rest is None else (REST_PATH,))
            if hosted.allowed_origins:
                app = CORSMiddleware(  # lets browsers show responses to these pages
                    app,
                    allow_origins=hosted.allowed_origins,
                    allow_methods=("GET", "POST", "PUT", "PATCH", "DELETE"),
                    allow_headers=("*",),
                    expose_headers=("WWW-Authenticate", "Mcp-Session-Id", "Retry-After"),
                )
            local_hosts = [f"{name}:{port}" for name in _LOCAL_HOSTS] if host in LOOPBACK else []
            app = check_hosted(app, [*hosted.allowed_hosts, *local_hosts], hosted.allowed_origins or ())
            return HealthRoutes(app, readiness)

        yield Exposure(hosted, meter, watch_requests(meter), get_caller, readiness.end, surround)


def _open_meter(hosted: HostedSettings, host: str, admission: Admission, stack: ExitStack) -> Meter:
    from itwin_mcp.hosting.telemetry import Meter

    if hosted.metrics_port is None:
        return Meter()
    try:
        from itwin_mcp.hosting.metrics import Metrics
    except ImportError:
        raise SettingsError(
            "ITWIN_MCP_METRICS_PORT needs the extra `metrics`: pip install 'itwin-mcp[metrics]'."
        ) from None
    metrics = Metrics(lambda: admission.in_progress)
    try:
        stack.enter_context(metrics.serve(host, hosted.metrics_port))
    except OSError as error:
        raise SettingsError(f"ITWIN_MCP_METRICS_PORT {hosted.metrics_port} cannot be used: {error.strerror}.") from None
    return metrics
