"""What a server must have before callers other than its owner reach it, and how it is then put together."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from itwin_mcp.errors import SettingsError
from itwin_mcp.hosted_settings import LOOPBACK, Hosted
from itwin_mcp.settings import Settings
from itwin_mcp.sign_in import USER_AGENT, Way, way_of

if TYPE_CHECKING:
    from itwin_mcp.executor.conversation import Caller
    from itwin_mcp.hosting.gate import Demands, Refused
    from itwin_mcp.hosting.limits import Admission
    from itwin_mcp.hosting.watching import Meter
    from itwin_mcp.upstream.watching import Watch

PUBLIC_PATH = "/mcp"
_LOCAL_HOSTS = ("127.0.0.1", "localhost", "[::1]")


def check_exposure(settings: Settings, host: str) -> None:
    """Refuse to serve at this address what may not be served there. Raises SettingsError: it says what is missing."""
    hosted = settings.hosted
    policy = settings.policy
    if hosted is None:
        if host not in LOOPBACK:
            raise SettingsError(
                f"--http {host} is refused: anybody who reaches {host} could act as you on the iTwin Platform. "
                f"Listen on 127.0.0.1, or serve callers of their own. {_needs(missing(hosted, policy))}"
            )
        return
    if host not in LOOPBACK and (lacking := missing(hosted, policy)):
        raise SettingsError(f"--http {host} is refused: {host} is beyond this machine. {_needs(lacking)}")
    if way_of(settings) not in (Way.SERVICE_APPLICATION, Way.SANDBOX):
        raise SettingsError(
            "A hosted server acts as a service application: set ITWIN_CLIENT_ID and ITWIN_CLIENT_SECRET (or --sandbox "
            "to try). A person's token or login is not for others to act with, and a caller's is never passed on."
        )
    if settings.files_roots:
        raise SettingsError(
            f"{settings.origins.get('files_roots', '--files-root')} is refused on a hosted server: callers would "
            "read each other's files there."
        )
    if settings.http_token is not None:
        raise SettingsError("ITWIN_MCP_HTTP_TOKEN is for a server of one's own: callers of a hosted one have tokens.")
    check_replicas(hosted, two_step=settings.two_step)
    _check_algorithms(hosted)


def missing(hosted: Hosted | None, policy: Path | None) -> list[str]:
    """What a server beyond loopback still needs, each with the setting that says it."""
    needs = {
        "who signs callers in (ITWIN_MCP_AUTH_ISSUER)": hosted is not None,
        "its public address (ITWIN_MCP_AUTH_AUDIENCE)": hosted is not None,
        "the names it is called by (ITWIN_MCP_ALLOWED_HOSTS)": bool(hosted and hosted.allowed_hosts),
        "the web pages that may call it, or none (ITWIN_MCP_ALLOWED_ORIGINS)": hosted is not None
        and hosted.allowed_origins is not None,
        "what each caller may do (ITWIN_MCP_POLICY)": policy is not None,
        "a secret that seals cursors (ITWIN_MCP_STATE_SECRET or _FILE)": bool(hosted and hosted.state_secrets),
    }
    return [need for need, there in needs.items() if not there]


def check_replicas(hosted: Hosted, *, two_step: bool) -> None:
    """Refuse what several servers that share nothing but a secret cannot promise. Raises SettingsError.

    A token of `two_step` confirmation is good once, and no replica knows what another took.
    """
    if hosted.replicas == 1:
        return
    if not hosted.state_secrets:
        raise SettingsError(
            f"ITWIN_MCP_REPLICAS is {hosted.replicas} without ITWIN_MCP_STATE_SECRET: a cursor of one replica would "
            "mean nothing to the others. Give all the same secret."
        )
    if two_step:
        raise SettingsError(
            f"ITWIN_MCP_REPLICAS is {hosted.replicas}, and two-step confirmation is refused with more than one: a "
            "token could be used once on each. Choose another way to confirm, or serve from one replica."
        )


def _needs(lacking: list[str]) -> str:
    return f"Missing for that: {'; '.join(lacking)}."


def _check_algorithms(hosted: Hosted) -> None:
    from itwin_mcp.hosting.tokens import ALGORITHMS

    unknown = sorted(set(hosted.algorithms) - set(ALGORITHMS))
    if unknown:
        raise SettingsError(
            f"ITWIN_MCP_AUTH_ALGORITHMS names {unknown[0]!r}; these are taken: {', '.join(ALGORITHMS)}."
        )


@dataclass(frozen=True, slots=True)
class Exposure:
    """The hosted server's parts that the composition root puts around the rest."""

    hosted: Hosted
    meter: Meter
    watch: Watch
    caller: Callable[[], Caller]
    end: Callable[[], Awaitable[None]]
    guard: Callable[[Demands, Refused], Callable[[Any, int], Any]]
    """Given what calls need, and who notes those that lack it, gives what goes around the protocol's app."""

    def counted(self, tools: Collection[str]) -> Any:
        """The SDK's middleware that counts calls of these tools."""
        from itwin_mcp.hosting.watching import watch_calls

        return watch_calls(self.meter, tools)

    def traced(self, environment: Mapping[str, str], names: Collection[str]) -> AbstractContextManager[None]:
        """Spans are sent while this is entered, if the environment says where to; `names` are our tools and prompts."""
        from itwin_mcp.hosting.traces import exported

        return exported(environment, names)


@contextmanager
def open_exposure(settings: Settings, host: str) -> Iterator[Exposure | None]:
    """A hosted server's parts, closed at the end; None for a server of one's own. Raises SettingsError."""
    check_exposure(settings, host)
    hosted = settings.hosted
    if hosted is None:
        yield None
        return
    from itwin_mcp.capability.access import Access
    from itwin_mcp.hosting.caller import present_caller
    from itwin_mcp.hosting.challenges import Resource
    from itwin_mcp.hosting.front import Front, Health
    from itwin_mcp.hosting.gate import Gate
    from itwin_mcp.hosting.keys import SigningKeys
    from itwin_mcp.hosting.life import Life
    from itwin_mcp.hosting.limits import Admission, Limits
    from itwin_mcp.hosting.sessions import Sessions
    from itwin_mcp.hosting.tokens import DEFAULT_ALGORITHMS, Verifier
    from itwin_mcp.hosting.watching import watch_upstream
    from itwin_mcp.server.guard import named_guard
    from itwin_mcp.upstream.documents import fetch_document

    limits = Limits(
        caller_rate=hosted.caller_rate,
        total_rate=hosted.total_rate,
        caller_at_once=hosted.caller_concurrency,
        total_at_once=hosted.total_concurrency,
    )
    admission, sessions = Admission(limits), Sessions(limits.caller_sessions)
    life = Life(hosted.notice_seconds)
    resource = Resource(hosted.audience, hosted.issuer, Access[hosted.first_scope.upper()])
    keys = SigningKeys(partial(fetch_document, user_agent=USER_AGENT), hosted.issuer, hosted.jwks_url)
    verifier = Verifier(keys, hosted.issuer, hosted.audience, algorithms=hosted.algorithms or DEFAULT_ALGORITHMS)
    with ExitStack() as stack:
        meter = _open_meter(hosted, host, admission, stack)

        def guard(demands: Demands, refused: Refused) -> Callable[[Any, int], Any]:
            def around(app: Any, port: int) -> Any:
                gate = Gate(app, resource, verifier, demands, refused, admission, sessions, meter)
                front = Front(gate, PUBLIC_PATH, resource)
                local = tuple(f"{name}:{port}" for name in _LOCAL_HOSTS) if host in LOOPBACK else ()
                origins = hosted.allowed_origins or ()
                return Health(named_guard(_with_cors(front, origins), (*hosted.allowed_hosts, *local), origins), life)

            return around

        yield Exposure(hosted, meter, watch_upstream(meter), present_caller, life.end, guard)


def _open_meter(hosted: Hosted, host: str, admission: Admission, stack: ExitStack) -> Meter:
    from itwin_mcp.hosting.watching import NoMeter

    if hosted.metrics_port is None:
        return NoMeter()
    try:
        from itwin_mcp.hosting.metrics import Metrics
    except ImportError:
        raise SettingsError(
            "ITWIN_MCP_METRICS_PORT needs the extra `metrics`: pip install 'itwin-mcp[metrics]'."
        ) from None
    metrics = Metrics()
    metrics.watch_under_way(lambda: admission.under_way)
    try:
        stack.enter_context(metrics.served(host, hosted.metrics_port))
    except OSError as error:
        raise SettingsError(f"ITWIN_MCP_METRICS_PORT {hosted.metrics_port} cannot be used: {error.strerror}.") from None
    return metrics


def _with_cors(app: Any, origins: tuple[str, ...]) -> Any:
    """Tell the browsers of the pages that were named that they may read the answers."""
    if not origins:
        return app
    from starlette.middleware.cors import CORSMiddleware

    return CORSMiddleware(
        app,
        allow_origins=origins,
        allow_methods=("GET", "POST", "DELETE"),
        allow_headers=("*",),
        expose_headers=("WWW-Authenticate", "Mcp-Session-Id", "Retry-After"),
    )
