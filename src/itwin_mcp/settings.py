"""Every setting, in one table from which the commands' options and the documentation are derived."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from pydantic import SecretStr

from itwin_mcp import setting_parsers as parsers
from itwin_mcp.errors import SettingsError
from itwin_mcp.setting_parsers import LOOPBACK, Network, Parser

PLATFORM_ORIGIN = "https://api.bentley.com"
SIGN_IN_SERVER = "https://ims.bentley.com"
DEFAULT_REDIRECT_URI = "http://localhost:3301/signin-callback"
"""The redirect URI to register for an application. The sign-in server compares it exactly, so its port is fixed."""
DEFAULT_DEADLINE = 60.0
DEFAULT_MAX_RESULT_BYTES = 50_000
DEFAULT_CONFIRM_MINUTES = 30

# --- the table --------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Setting:
    """A row of the table. It is metadata of a dataclass field, which has the name, the type and the default."""

    help: str
    """Sentences that describe the setting, without its default."""
    variable: str | None = None
    """The environment variable."""
    flag: str | None = None
    """The option of commands, which takes precedence over the variable."""
    aliases: tuple[str, ...] = ()
    """Names of the variable in Bentley's own command line. `variable` takes precedence over them."""
    parse: Parser = parsers.parse_text
    choices: tuple[str, ...] = ()
    metavar: str | None = None
    default: str = ""
    """The default as documented."""
    is_list: bool = False
    """Whether the option may be repeated. The variable holds several values, separated like the system's paths."""

    @property
    def is_switch(self) -> bool:
        return self.parse is parsers.parse_boolean

    @property
    def is_secret(self) -> bool:
        return self.parse in (parsers.parse_secret, parsers.parse_state_secrets)

    @property
    def is_path(self) -> bool:
        return self.parse in (parsers.parse_path, parsers.parse_folder, parsers.parse_log_file)

    @property
    def variables(self) -> tuple[str, ...]:
        """The variable and its aliases, in the order in which they are read."""
        return (self.variable, *self.aliases) if self.variable is not None else ()

    @property
    def parameter(self) -> str:
        """The name under which commands pass the option."""
        return (self.flag or "").removeprefix("--").replace("-", "_")

    def describe(self, *, for_variable: bool) -> str:
        """Return the help text of the variable or the option."""
        text = self.help
        if self.is_switch and for_variable:
            text = f"{text.removesuffix('.')} (`true` or `false`)."
        if self.is_list:
            many = "Separate several by the system's path separator." if for_variable else "May be given several times."
            text = f"{text} {many}"
        if self.default:
            text += f" Default: {self.default}."
        return text if for_variable else text.replace("`", "")


def setting(help: str, variable: str | None = None, *, default: Any = None, shown: str = "", **row: Any) -> Any:
    """Return a dataclass field that carries a row of the table; `shown` is the default as documented."""
    if not shown and isinstance(default, str | int | float) and not isinstance(default, bool):
        shown = f"`{default:g}`" if isinstance(default, float) else f"`{default}`"
    return field(default=default, metadata={"row": Setting(help, variable, default=shown, **row)})


@dataclass(frozen=True, slots=True)
class HostedSettings:
    """The settings of a hosted server, whose callers sign in to it. Read if `ITWIN_MCP_AUTH_ISSUER` is set."""

    issuer: str = setting(
        "The sign-in server of a hosted server's callers, exactly as its tokens name it.",
        "ITWIN_MCP_AUTH_ISSUER",
        parse=parsers.parse_exact_url,
    )
    audience: str = setting(
        "The public URL of this server, `https://…/mcp`. Tokens must be issued for it.",
        "ITWIN_MCP_AUTH_AUDIENCE",
        parse=parsers.parse_exact_url,
    )
    jwks_url: str | None = setting(
        "The URL of the issuer's signing keys.",
        "ITWIN_MCP_AUTH_JWKS_URL",
        parse=parsers.parse_exact_url,
        shown="as its discovery document says",
    )
    algorithms: tuple[str, ...] = setting(
        "Accepted signature algorithms, separated by commas.",
        "ITWIN_MCP_AUTH_ALGORITHMS",
        parse=parsers.parse_names,
        default=(),
        shown="RS256, PS256 and ES256",
    )
    first_scope: str = setting(
        "The scope that callers are asked to request first: `read`, `write` or `delete`.",
        "ITWIN_MCP_AUTH_SCOPE",
        parse=parsers.parse_scope,
        default="read",
    )
    allowed_hosts: tuple[str, ...] = setting(
        "Host names under which a hosted server is called (the `Host` header), separated by commas.",
        "ITWIN_MCP_ALLOWED_HOSTS",
        parse=parsers.parse_hosts,
        default=(),
    )
    allowed_origins: tuple[str, ...] | None = setting(
        "Web pages that may call it (`https://…`), separated by commas; or `none`.",
        "ITWIN_MCP_ALLOWED_ORIGINS",
        parse=parsers.parse_web_origins,
    )
    """None if it is not set, empty for `none`."""
    state_secrets: tuple[SecretStr, ...] = setting(
        "The secret that seals cursors and confirmations: 32 bytes or more, the same for all replicas. Of several, "
        "separated by commas, the first seals and all open.",
        "ITWIN_MCP_STATE_SECRET",
        parse=parsers.parse_state_secrets,
        default=(),
    )
    state_secret_file: Path | None = setting(
        "A file that holds these secrets instead, one a line.", "ITWIN_MCP_STATE_SECRET_FILE", parse=parsers.parse_path
    )
    replicas: int = setting(
        "The number of servers behind one address. With more than one, settings that only a single server can honour "
        "are refused.",
        "ITWIN_MCP_REPLICAS",
        parse=parsers.whole_number(1, 1000),
        default=1,
    )
    caller_rate: int = setting(
        "Requests a minute of one caller, for each replica.",
        "ITWIN_MCP_CALLER_RATE_PER_MINUTE",
        parse=parsers.whole_number(1, 1_000_000),
        default=600,
    )
    total_rate: int = setting(
        "Requests a minute of all callers together, for each replica.",
        "ITWIN_MCP_TOTAL_RATE_PER_MINUTE",
        parse=parsers.whole_number(1, 1_000_000),
        default=6000,
    )
    caller_concurrency: int = setting(
        "Requests of one caller at once, for each replica.",
        "ITWIN_MCP_CALLER_CONCURRENCY",
        parse=parsers.whole_number(1, 10_000),
        default=8,
    )
    total_concurrency: int = setting(
        "Requests of all callers at once, for each replica.",
        "ITWIN_MCP_TOTAL_CONCURRENCY",
        parse=parsers.whole_number(1, 10_000),
        default=64,
    )
    max_connections: int = setting(
        "Connections at once, for each replica.",
        "ITWIN_MCP_MAX_CONNECTIONS",
        parse=parsers.whole_number(1, 100_000),
        default=512,
    )
    unfinished_per_address: int = setting(
        "Connections of one address that have not sent the headers of a request yet.",
        "ITWIN_MCP_UNFINISHED_PER_ADDRESS",
        parse=parsers.whole_number(1, 100_000),
        default=32,
    )
    proxies: tuple[Network, ...] = setting(
        "Addresses or networks of your proxies, separated by commas. Only `ITWIN_MCP_MAX_CONNECTIONS` limits them.",
        "ITWIN_MCP_PROXIES",
        parse=parsers.parse_networks,
        default=(),
    )
    notice_seconds: int = setting(
        "Seconds between `/readyz` failing and the server closing during a shutdown.",
        "ITWIN_MCP_NOTICE_SECONDS",
        parse=parsers.whole_number(0, 300),
        default=5,
    )
    drain_seconds: int = setting(
        "Seconds that requests under way may then take.",
        "ITWIN_MCP_DRAIN_SECONDS",
        parse=parsers.whole_number(1, 3600),
        default=30,
    )
    metrics_port: int | None = setting(
        "The port of `/metrics`, which needs the extra `metrics`. Without it there are no metrics.",
        "ITWIN_MCP_METRICS_PORT",
        parse=parsers.whole_number(1, 65535),
    )


@dataclass(frozen=True, slots=True)
class Settings:
    """The settings of this process. A setting without a variable can only be set by its option."""

    access_token: SecretStr | None = setting(
        "An access token for the iTwin Platform, with or without `Bearer `.",
        "ITWIN_ACCESS_TOKEN",
        parse=parsers.parse_secret,
    )
    access_token_file: Path | None = setting(
        "A file that holds the access token instead. It is read again when it changes.",
        "ITWIN_ACCESS_TOKEN_FILE",
        parse=parsers.parse_path,
    )
    client_id: str | None = setting(
        "The client id of the application that signs in: a service application with its secret, or a native "
        "application without one.",
        "ITWIN_CLIENT_ID",
        aliases=("ITP_SERVICE_CLIENT_ID",),
    )
    client_secret: SecretStr | None = setting(
        "The secret of the service application.",
        "ITWIN_CLIENT_SECRET",
        aliases=("ITP_SERVICE_CLIENT_SECRET",),
        parse=parsers.parse_secret,
    )
    client_secret_file: Path | None = setting(
        "A file that holds the secret of the service application instead.",
        "ITWIN_CLIENT_SECRET_FILE",
        parse=parsers.parse_path,
    )
    redirect_uri: str = setting(
        "The redirect URI of the native application.",
        "ITWIN_REDIRECT_URI",
        parse=parsers.parse_redirect,
        default=DEFAULT_REDIRECT_URI,
    )
    profile: str = setting(
        "The name of a saved login, so that you can use several accounts.",
        "ITWIN_PROFILE",
        flag="--profile",
        parse=parsers.parse_profile,
        metavar="NAME",
        default="default",
    )
    api_url: str = setting(
        "The origin of the platform.",
        "ITWIN_API_URL",
        aliases=("ITP_API_URL",),
        parse=parsers.parse_origin_url,
        default=PLATFORM_ORIGIN,
    )
    issuer_url: str = setting(
        "The sign-in server.",
        "ITWIN_ISSUER_URL",
        aliases=("ITP_ISSUER_URL",),
        parse=parsers.parse_url,
        default=SIGN_IN_SERVER,
        shown=f"the one that belongs to the platform, `{SIGN_IN_SERVER}`",
    )
    itwin_id: str | None = setting(
        "The iTwin of calls that name none: its id or a link to it. Calls that delete ignore it.",
        "ITWIN_ID",
        aliases=("ITP_ITWIN_ID",),
    )
    imodel_id: str | None = setting("The same for the iModel.", "IMODEL_ID")
    toolsets: tuple[str, ...] = setting(
        "Toolsets to serve, separated by commas; `all`; or `dynamic`, a few tools that find and run all others.",
        "ITWIN_MCP_TOOLSETS",
        flag="--toolsets",
        parse=parsers.parse_names,
        metavar="NAMES",
        default=(),
    )
    tools: tuple[str, ...] = setting(
        "Tools to serve in addition, separated by commas.",
        "ITWIN_MCP_TOOLS",
        flag="--tools",
        parse=parsers.parse_names,
        metavar="NAMES",
        default=(),
    )
    exclude_tools: tuple[str, ...] = setting(
        "Tools not to serve, separated by commas.",
        "ITWIN_MCP_EXCLUDE_TOOLS",
        flag="--exclude-tools",
        parse=parsers.parse_names,
        metavar="NAMES",
        default=(),
    )
    read_only: bool = setting(
        "Serve only tools that change nothing.",
        "ITWIN_MCP_READ_ONLY",
        flag="--read-only",
        parse=parsers.parse_boolean,
        default=False,
    )
    sandbox: bool = setting(
        "Use the embedded sandbox instead of the platform, without an account.",
        "ITWIN_MCP_SANDBOX",
        flag="--sandbox",
        parse=parsers.parse_boolean,
        default=False,
    )
    sandbox_db: Path | None = setting(
        "Keep the sandbox's state in this file.", flag="--sandbox-db", parse=parsers.parse_path, metavar="FILE"
    )
    job_seconds: float = setting(
        "Seconds that the sandbox's jobs take.",
        flag="--job-seconds",
        parse=parsers.seconds(0, 3600),
        metavar="N",
        default=1.0,
    )
    capabilities: tuple[Path, ...] = setting(
        "A capability file of your own.",
        "ITWIN_MCP_CAPABILITIES",
        flag="--capabilities",
        parse=parsers.parse_path,
        metavar="FILE",
        default=(),
        is_list=True,
    )
    files_roots: tuple[Path, ...] = setting(
        "A folder in which tools may read and write local files, except hidden ones and our own.",
        "ITWIN_MCP_FILES_ROOT",
        flag="--files-root",
        parse=parsers.parse_folder,
        metavar="FOLDER",
        default=(),
        is_list=True,
    )
    confirm: str = setting(
        "Who confirms destructive calls: `person`, the user; or `two-step`, the model by calling twice, which is no "
        "consent.",
        "ITWIN_MCP_CONFIRM",
        flag="--confirm",
        parse=parsers.choice_of("person", "two-step"),
        choices=("person", "two-step"),
        default="person",
    )
    confirm_minutes: int = setting(
        "Minutes that a question waits for a user who is away, at most 1440.",
        "ITWIN_MCP_CONFIRM_MINUTES",
        parse=parsers.whole_number(1, 1440),
        default=DEFAULT_CONFIRM_MINUTES,
    )
    policy: Path | None = setting(
        "A policy file: which tools and iTwins may be used, and how often. Without one your own server limits nothing, "
        "and callers of a hosted one may use nothing.",
        "ITWIN_MCP_POLICY",
        flag="--policy",
        parse=parsers.parse_path,
        metavar="FILE",
    )
    audit_log: Path | None = setting(
        "The file that gets a line for every decision on a write; `-` is standard error.",
        "ITWIN_MCP_AUDIT_LOG",
        parse=parsers.parse_log_file,
        shown="`audit.jsonl` in the state folder",
    )
    """None for standard error."""
    rate_per_minute: int | None = setting(
        "Requests to the platform a minute. Without it, pacing begins when the platform first answers 429.",
        "ITWIN_MCP_RATE_PER_MINUTE",
        parse=parsers.whole_number(1, 999_999),
    )
    deadline: float = setting(
        "Seconds that one request may take, retries included.",
        "ITWIN_MCP_DEADLINE_SECONDS",
        parse=parsers.seconds(1, 3600),
        default=DEFAULT_DEADLINE,
    )
    max_result_bytes: int = setting(
        "Maximum bytes of one answer, at least 2000. A cursor gives the rest of a longer list.",
        "ITWIN_MCP_MAX_RESULT_BYTES",
        flag="--max-result-bytes",
        parse=parsers.whole_number(2000, 999_999_999),
        metavar="N",
        default=DEFAULT_MAX_RESULT_BYTES,
    )
    http_token: SecretStr | None = setting(
        "The bearer token that `serve --http … --http-token` requires.",
        "ITWIN_MCP_HTTP_TOKEN",
        parse=parsers.parse_secret,
        shown="a new one",
    )
    stateless: bool = setting(
        "Keep no sessions for HTTP clients older than protocol 2026-07-28, so that any replica can answer.",
        "ITWIN_MCP_STATELESS",
        flag="--stateless",
        parse=parsers.parse_boolean,
        default=False,
    )
    rest: bool = setting(
        "Serve every tool as a REST API, too, at `/rest/TOOLSET/TOOL`. Needs `serve --http`.",
        "ITWIN_MCP_REST",
        flag="--rest",
        parse=parsers.parse_boolean,
        default=False,
    )
    hosted: HostedSettings | None = None
    """Set if this is a hosted server."""
    log_level: str = setting(
        "How much is logged to standard error: `debug`, `info`, `warning` or `error`.",
        "ITWIN_MCP_LOG_LEVEL",
        flag="--log-level",
        parse=parsers.choice_of("debug", "info", "warning", "error"),
        choices=("debug", "info", "warning", "error"),
        default="warning",
    )
    state_dir: Path = setting(
        "The folder of saved logins, keys and waiting questions.",
        "ITWIN_MCP_STATE_DIR",
        parse=parsers.parse_path,
        default=Path(),
        shown="the user's state folder",
    )
    cache_dir: Path = setting(
        "The folder of parsed capability files.",
        "ITWIN_MCP_CACHE_DIR",
        parse=parsers.parse_path,
        default=Path(),
        shown="the user's cache folder",
    )
    bundle: bool = setting(
        "Set by the desktop extension, so that hints name its settings instead of a shell.",
        "ITWIN_MCP_BUNDLE",
        parse=parsers.parse_boolean,
        default=False,
    )
    origins: Mapping[str, str] = field(default_factory=dict)
    """The variable or option that each setting was read from, by field name. Settings with defaults are omitted."""

    @property
    def secrets(self) -> tuple[str, ...]:
        """Values that must never be logged."""
        sealing = self.hosted.state_secrets if self.hosted is not None else ()
        secrets = (self.access_token, self.client_secret, self.http_token, *sealing)
        values = [secret.get_secret_value() for secret in secrets if secret is not None]
        return tuple(re.sub(r"^bearer\s+", "", value, flags=re.IGNORECASE) for value in values)

    @property
    def two_step(self) -> bool:
        """Whether the model confirms by calling twice."""
        return self.confirm == "two-step"

    @property
    def own_files(self) -> tuple[Path, ...]:
        """Files and folders that no tool may read or write: they hold logins, keys, approvals, rules or secrets."""
        files = (self.access_token_file, self.client_secret_file, self.policy, self.audit_log, self.sandbox_db)
        return (self.state_dir, self.cache_dir, *self.capabilities, *(file for file in files if file is not None))

    @property
    def kept_sandbox(self) -> Path:
        """The default file for the sandbox's state between calls from the shell."""
        return self.state_dir / "sandbox.db"

    @property
    def environment(self) -> str:
        """The environment: `production`, `qa`, `dev`, `embedded sandbox`, or the URL of another platform."""
        if self.sandbox:
            return "embedded sandbox"
        bentley = re.fullmatch(r"https://(?:(qa|dev)-)?api\.bentley\.com", self.api_url)
        return (bentley[1] or "production") if bentley else self.api_url


def rows_of(table: type[Settings | HostedSettings]) -> Mapping[str, Setting]:
    """Return the rows of a dataclass by the names of its fields."""
    return {field.name: field.metadata["row"] for field in fields(table) if "row" in field.metadata}


SETTINGS = rows_of(Settings)
HOSTED_SETTINGS = rows_of(HostedSettings)
ALL_SETTINGS = (*SETTINGS.values(), *HOSTED_SETTINGS.values())

ALIASES: Mapping[str, str] = {
    alias: row.variable for row in ALL_SETTINGS if row.variable is not None for alias in row.aliases
}
ENVIRONMENT: Mapping[str, str] = {
    **{row.variable: row.describe(for_variable=True) for row in ALL_SETTINGS if row.variable is not None},
    **{alias: f"The name of `{ours}` in Bentley's command line; `{ours}` wins." for alias, ours in ALIASES.items()},
}
"""Every variable that is read, with its description."""


def render_settings_tables() -> Mapping[str, str]:
    """Return the documentation of all settings: Markdown tables by their titles."""
    return {
        "Every server": _render_table(SETTINGS.values()),
        "A hosted server": _render_table(HOSTED_SETTINGS.values()),
        "Names of Bentley's command line": "\n".join(
            [
                "| variable | what it does |",
                "|---|---|",
                *(f"| `{name}` | {ENVIRONMENT[name]} |" for name in ALIASES),
                "",
            ]
        ),
    }


def _render_table(rows: Iterable[Setting]) -> str:
    lines = ["| variable | option | what it does |", "|---|---|---|"]
    for row in rows:
        variable, flag = (f"`{name}`" if name else "" for name in (row.variable, row.flag))
        lines.append(f"| {variable} | {flag} | {row.describe(for_variable=row.variable is not None)} |")
    return "\n".join(lines) + "\n"


# --- reading ----------------------------------------------------------------------------------------------------

# For an optional setting without a value, desktop hosts pass the placeholder itself, or the word `null` or `undefined`.
_UNFILLED = re.compile(r"\$\{user_config\.\w+\}")
_EMPTIED = ("null", "undefined")


def is_set(flag: Any) -> bool:
    """Return whether an option was given: None, False and empty values are not."""
    return flag is not None and flag is not False and flag not in ((), [], "")


class _Reader:
    """Reads rows of the table and remembers where each value came from."""

    def __init__(self, environment: Mapping[str, str], flags: Mapping[str, Any]) -> None:
        unknown = flags.keys() - {row.parameter for row in ALL_SETTINGS if row.flag}
        if unknown:
            raise TypeError(f"no settings have the options {', '.join(sorted(unknown))}")
        self._environment = environment
        self._flags = flags
        self._in_bundle = environment.get("ITWIN_MCP_BUNDLE") == "true"
        self.origins: dict[str, str] = {}

    def read(self, name: str, row: Setting, *variables: str) -> Any:
        """Return the parsed value of the option or of the first variable that is set; None if none is."""
        flag = self._flags.get(row.parameter) if row.flag else None
        origin, text = self._find(variables or row.variables)
        if row.is_list:
            return self._read_list(name, row, flag if is_set(flag) else (), origin, text)
        if is_set(flag):
            assert row.flag is not None
            origin, text = row.flag, "true" if flag is True else str(flag)
        if not text:
            return None
        self.origins[name] = origin
        return row.parse(origin, text)

    def _read_list(self, name: str, row: Setting, flags: Any, origin: str, text: str) -> tuple[Any, ...] | None:
        """Return the values of the variable, followed by those of the options."""
        parts = [(origin, part) for part in text.split(os.pathsep) if part]
        parts += [(str(row.flag), str(part)) for part in flags]
        if not parts:
            return None
        self.origins[name] = parts[-1][0]
        return tuple(row.parse(source, part) for source, part in parts)

    def _find(self, variables: tuple[str, ...]) -> tuple[str, str]:
        for name in variables:
            text = self._environment.get(name, "").strip()
            if text and not _UNFILLED.fullmatch(text) and not (self._in_bundle and text in _EMPTIED):
                return name, text
        return "", ""

    def read_all(self, rows: Mapping[str, Setting]) -> dict[str, Any]:
        """Return the values that are set."""
        values = {name: self.read(name, row) for name, row in rows.items()}
        return {name: value for name, value in values.items() if name in self.origins}


def read_settings(environment: Mapping[str, str], **flags: Any) -> Settings:
    """Read the settings from the environment and from options, which take precedence.

    `flags` are options by their names in commands, such as `files_root`. None, False and empty values are ignored.

    Raises: SettingsError.
    """
    reader = _Reader(environment, flags)
    secrets = ("client_secret", "client_secret_file")
    values = reader.read_all({name: row for name, row in SETTINGS.items() if name not in secrets})
    _read_application(reader, values)
    values.setdefault("issuer_url", issuer_of(values.get("api_url", PLATFORM_ORIGIN)))
    for name, kind in (("state_dir", "user_state_path"), ("cache_dir", "user_cache_path")):
        if name not in values:
            values[name] = _user_folder(kind)
    values.setdefault("audit_log", values["state_dir"] / "audit.jsonl")
    return Settings(**values, hosted=_read_hosted(reader), origins=reader.origins)


def _read_application(reader: _Reader, values: dict[str, Any]) -> None:
    """Read the secret of the client id. An id from one of Bentley's variables takes only the secret from the other."""
    row = SETTINGS["client_secret"]
    origins = reader.origins
    if origins.get("client_id") in SETTINGS["client_id"].aliases:
        secret = reader.read("client_secret", row, *row.aliases)
        if secret is None:
            raise SettingsError(f"{origins['client_id']} is set without {row.aliases[0]}: set both or neither.")
    else:
        assert row.variable is not None
        secret = reader.read("client_secret", row, row.variable)
        file = reader.read("client_secret_file", SETTINGS["client_secret_file"])
        if file is not None:
            values["client_secret_file"] = file
        if secret is None and file is not None:
            origins["client_secret"] = origins.pop("client_secret_file")
            secret = SecretStr(parsers.read_secret_file(origins["client_secret"], file))
        if secret is not None and "client_id" not in values:
            raise SettingsError(f"{origins['client_secret']} is set without ITWIN_CLIENT_ID: set both or neither.")
    values["client_secret"] = secret


def _read_hosted(reader: _Reader) -> HostedSettings | None:
    """Return the settings of a hosted server, or None if this is not a hosted server."""
    rows = HOSTED_SETTINGS
    issuer, audience = (reader.read(name, rows[name]) for name in ("issuer", "audience"))
    if issuer is None:
        if audience is not None:
            raise SettingsError("ITWIN_MCP_AUTH_AUDIENCE is set without ITWIN_MCP_AUTH_ISSUER: set both or neither.")
        return None
    if audience is None:
        raise SettingsError(
            "ITWIN_MCP_AUTH_ISSUER is set without ITWIN_MCP_AUTH_AUDIENCE: set it to the public URL of this server, so "
            "that tokens for others are refused."
        )
    values = reader.read_all(rows)
    if "state_secrets" not in values and "state_secret_file" in values:
        source = reader.origins["state_secret_file"]
        text = parsers.read_secret_file(source, values["state_secret_file"])
        values["state_secrets"] = parsers.parse_state_secrets(source, text)
    return HostedSettings(**values)


def issuer_of(api_url: str) -> str:
    """Return the sign-in server of a platform. Development uses that of QA, and a local platform is its own."""
    parts = urlsplit(api_url)
    if parts.hostname in LOOPBACK:
        return api_url
    prefix = "qa-" if re.match(r"(qa|dev)-", parts.hostname or "") else ""
    return SIGN_IN_SERVER.replace("//", f"//{prefix}")


def _user_folder(kind: str) -> Path:
    import platformdirs

    path: Path = getattr(platformdirs, kind)("itwin-mcp", appauthor=False)
    return path
