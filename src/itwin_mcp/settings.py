"""Environment and flags become one frozen Settings; secrets are SecretStr, empty values mean unset."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from pydantic import SecretStr

from itwin_mcp import hosted_settings
from itwin_mcp.errors import SettingsError
from itwin_mcp.hosted_settings import LOOPBACK, Hosted, read_hosted, split_address
from itwin_mcp.upstream.naming import expand_home

PLATFORM = "https://api.bentley.com"
SIGN_IN_SERVER = "https://ims.bentley.com"
# Desktop hosts hand on the placeholder of an optional setting that nobody filled in, or one that was emptied as a word.
_UNFILLED = re.compile(r"\$\{user_config\.\w+\}")
_EMPTIED = ("null", "undefined")

ALIASES: Mapping[str, str] = {
    "ITP_API_URL": "ITWIN_API_URL",
    "ITP_ISSUER_URL": "ITWIN_ISSUER_URL",
    "ITP_SERVICE_CLIENT_ID": "ITWIN_CLIENT_ID",
    "ITP_SERVICE_CLIENT_SECRET": "ITWIN_CLIENT_SECRET",
    "ITP_ITWIN_ID": "ITWIN_ID",
}

ENVIRONMENT: Mapping[str, str] = {
    "ITWIN_ACCESS_TOKEN": "An access token for the iTwin Platform, with or without `Bearer `.",
    "ITWIN_ACCESS_TOKEN_FILE": "A file that holds one instead; it is read again when it changes.",
    "ITWIN_CLIENT_ID": "The application that signs in: a service application with its secret, or alone a native one.",
    "ITWIN_CLIENT_SECRET": "The secret of the service application.",
    "ITWIN_CLIENT_SECRET_FILE": "A file that holds it instead.",
    "ITWIN_REDIRECT_URI": "Where a login comes back to; `http://localhost:3301/signin-callback` when unset.",
    "ITWIN_PROFILE": "The name under which a login is kept, so that several accounts live side by side.",
    "ITWIN_API_URL": f"The platform to call, as an origin. {PLATFORM} when unset.",
    "ITWIN_ISSUER_URL": f"The sign-in server; the one that belongs to the platform when unset: {SIGN_IN_SERVER}.",
    "ITWIN_ID": "The id of the iTwin that a call means which names none; never a call that deletes.",
    "IMODEL_ID": "The same for an iModel.",
    "ITWIN_MCP_TOOLSETS": "Toolsets to serve, separated by commas; `all`; or `dynamic`, few tools that run all.",
    "ITWIN_MCP_TOOLS": "Tools to serve in addition, separated by commas.",
    "ITWIN_MCP_EXCLUDE_TOOLS": "Tools not to serve, separated by commas.",
    "ITWIN_MCP_READ_ONLY": "`true` serves only tools that change nothing.",
    "ITWIN_MCP_SANDBOX": "`true` works with the embedded sandbox instead of the platform; no account is needed.",
    "ITWIN_MCP_CAPABILITIES": "Capability files of your own, separated by the system's path separator.",
    "ITWIN_MCP_FILES_ROOT": "Folders with files to read and write, by the path separator; never hidden ones or ours.",
    "ITWIN_MCP_CONFIRM": "Who confirms what destroys: person when unset; `two-step` lets the model call twice instead.",
    "ITWIN_MCP_CONFIRM_MINUTES": "Minutes that a question waits for a person who is away, up to 1440; 30 when unset.",
    "ITWIN_MCP_POLICY": "A policy file: which tools and iTwins may be touched, and how often. None fences nothing.",
    "ITWIN_MCP_AUDIT_LOG": "A line for every decision on a write. `audit.jsonl` where keys are kept; `-` is stderr.",
    "ITWIN_MCP_RATE_PER_MINUTE": "Calls to the platform a minute; unset, pacing begins when it first says too many.",
    "ITWIN_MCP_DEADLINE_SECONDS": "How long one request may take, repeats included; 60 when unset.",
    "ITWIN_MCP_MAX_RESULT_BYTES": "Bytes of one answer, at least 2000; 50000 when unset.",
    "ITWIN_MCP_HTTP_TOKEN": "The bearer that `serve --http … --http-token` asks for; made anew when unset.",
    "ITWIN_MCP_STATELESS": "`true` keeps no sessions for clients before 2026-07-28, so that any replica answers.",
    **hosted_settings.ENVIRONMENT,
    "ITWIN_MCP_LOG_LEVEL": "debug, info, warning or error; warning when unset. Logs go to standard error.",
    "ITWIN_MCP_STATE_DIR": "Where sign-ins and keys are kept. The user's state folder when unset.",
    "ITWIN_MCP_CACHE_DIR": "Where parsed capability files are kept. The user's cache folder when unset.",
    "ITWIN_MCP_BUNDLE": "Set by the desktop extension, so that hints name its settings and no shell.",
    **{name: f"Bentley's command line's name for `{ours}`, which wins." for name, ours in ALIASES.items()},
}
"""Every variable that is read, and what it says."""


@dataclass(frozen=True, slots=True)
class Settings:
    """What we were started with."""

    access_token: SecretStr | None = None
    access_token_file: Path | None = None
    client_id: str | None = None
    client_secret: SecretStr | None = None
    client_secret_file: Path | None = None
    """Where `client_secret` was read from."""
    redirect_uri: str | None = None
    profile: str = "default"
    api_url: str = PLATFORM
    issuer_url: str = SIGN_IN_SERVER
    itwin_id: str | None = None
    imodel_id: str | None = None
    sandbox: bool = False
    sandbox_db: Path | None = None
    job_seconds: float = 1.0
    capabilities: tuple[Path, ...] = ()
    files_roots: tuple[Path, ...] = ()
    toolsets: tuple[str, ...] = ()
    tools: tuple[str, ...] = ()
    exclude_tools: tuple[str, ...] = ()
    read_only: bool = False
    two_step: bool = False
    confirm_minutes: int = 30
    policy: Path | None = None
    audit_log: Path | None = None
    """None for standard error."""
    rate_per_minute: int | None = None
    deadline: float = 60.0
    """Seconds."""
    max_result_bytes: int = 50_000
    log_level: str = "warning"
    state_dir: Path = field(default_factory=Path)
    cache_dir: Path = field(default_factory=Path)
    http_token: SecretStr | None = None
    stateless: bool = False
    hosted: Hosted | None = None
    """Set where callers sign in to this server."""
    bundle: bool = False
    origins: Mapping[str, str] = field(default_factory=dict)
    """Setting -> the variable or flag that it was read from; what has its default is not in it."""

    @property
    def secrets(self) -> tuple[str, ...]:
        """Values that must never be read in a log."""
        sealing = self.hosted.state_secrets if self.hosted is not None else ()
        held = (self.access_token, self.client_secret, self.http_token, *sealing)
        values = [secret.get_secret_value() for secret in held if secret is not None]
        return tuple(re.sub(r"^bearer\s+", "", value, flags=re.IGNORECASE) for value in values)

    @property
    def own_files(self) -> tuple[Path, ...]:
        """Files and folders of ours, which no tool may read or write: logins, keys, approvals, rules, secrets."""
        files = (self.access_token_file, self.client_secret_file, self.policy, self.audit_log, self.sandbox_db)
        return (self.state_dir, self.cache_dir, *self.capabilities, *(file for file in files if file is not None))

    @property
    def kept_sandbox(self) -> Path:
        """Where calls from the shell keep the sandbox's state, unless they name another file."""
        return self.state_dir / "sandbox.db"

    @property
    def environment(self) -> str:
        """Which platform this is, in a word, or by its address where there is none."""
        if self.sandbox:
            return "embedded sandbox"
        found = re.fullmatch(r"https://(?:(qa|dev)-)?api\.bentley\.com", self.api_url)
        return (found[1] or "production") if found else self.api_url


def read_settings(
    environment: Mapping[str, str],
    *,
    profile: str | None = None,
    sandbox: bool = False,
    sandbox_db: Path | None = None,
    job_seconds: float | None = None,
    capabilities: Sequence[Path] = (),
    files_root: Sequence[Path] = (),
    toolsets: str | None = None,
    tools: str | None = None,
    exclude_tools: str | None = None,
    read_only: bool = False,
    stateless: bool = False,
    confirm: str | None = None,
    policy: Path | None = None,
    max_result_bytes: int | None = None,
    log_level: str | None = None,
) -> Settings:
    """Settings from the environment, where a flag that was given wins. Raises SettingsError."""
    origins: dict[str, str] = {}
    flags = {
        "profile": profile,
        "toolsets": toolsets,
        "tools": tools,
        "exclude_tools": exclude_tools,
        "confirm": confirm,
        "policy": None if policy is None else str(policy),
        "max_result_bytes": None if max_result_bytes is None else str(max_result_bytes),
        "log_level": log_level,
    }
    switches = {"sandbox": sandbox, "read_only": read_only, "stateless": stateless}
    in_bundle = environment.get("ITWIN_MCP_BUNDLE") == "true"

    def value(setting: str, *names: str) -> str | None:
        """The first that is set, and from where."""
        if flags.get(setting):
            origins[setting] = f"--{setting.replace('_', '-')}"
            return flags[setting]
        for name in names:
            text = environment.get(name, "").strip()
            if text and not _UNFILLED.fullmatch(text) and not (in_bundle and text in _EMPTIED):
                origins[setting] = name
                return text
        return None

    def switch(setting: str, name: str) -> bool:
        if switches.get(setting):
            origins[setting] = f"--{setting.replace('_', '-')}"
            return True
        return _flag(name, value(setting, name))

    def secret(setting: str, *names: str) -> SecretStr | None:
        text = value(setting, *names)
        return SecretStr(text) if text else None

    api_url = _origin(origins, value("api_url", "ITWIN_API_URL", "ITP_API_URL"))
    issuer_url = _address(origins, "issuer_url", value("issuer_url", "ITWIN_ISSUER_URL", "ITP_ISSUER_URL"))
    token = secret("access_token", "ITWIN_ACCESS_TOKEN")
    token_file = value("access_token_file", "ITWIN_ACCESS_TOKEN_FILE")
    client_id = value("client_id", "ITWIN_CLIENT_ID", "ITP_SERVICE_CLIENT_ID")
    secret_file: str | None = None
    # An id and a secret of different names belong to different applications.
    if origins.get("client_id") == "ITP_SERVICE_CLIENT_ID":
        client_secret = secret("client_secret", "ITP_SERVICE_CLIENT_SECRET")
        if client_secret is None:
            raise SettingsError("ITP_SERVICE_CLIENT_ID is set without ITP_SERVICE_CLIENT_SECRET: set both or neither.")
    else:
        client_secret = secret("client_secret", "ITWIN_CLIENT_SECRET")
        secret_file = value("client_secret_file", "ITWIN_CLIENT_SECRET_FILE")
        if client_secret is None and secret_file is not None:
            client_secret = _read_secret("ITWIN_CLIENT_SECRET_FILE", expand_home(secret_file))
            origins["client_secret"] = origins.pop("client_secret_file")
        if client_secret is not None and client_id is None:
            raise SettingsError(f"{origins['client_secret']} is set without ITWIN_CLIENT_ID: set both or neither.")
    own = value("capabilities", "ITWIN_MCP_CAPABILITIES") or ""
    if capabilities:
        origins["capabilities"] = "--capabilities"
    policy_file = value("policy", "ITWIN_MCP_POLICY")
    state_dir = _folder(value("state_dir", "ITWIN_MCP_STATE_DIR"), "user_state_path")
    audit_log = value("audit_log", "ITWIN_MCP_AUDIT_LOG") or str(state_dir / "audit.jsonl")
    roots = value("files_roots", "ITWIN_MCP_FILES_ROOT") or ""
    if files_root:
        origins["files_roots"] = "--files-root"
    return Settings(
        access_token=token,
        access_token_file=expand_home(token_file) if token_file else None,
        client_id=client_id,
        client_secret=client_secret,
        client_secret_file=expand_home(secret_file) if secret_file else None,
        redirect_uri=_redirect(value("redirect_uri", "ITWIN_REDIRECT_URI")),
        profile=_profile(value("profile", "ITWIN_PROFILE") or "default"),
        api_url=api_url,
        issuer_url=issuer_url or issuer_of(api_url),
        itwin_id=value("itwin_id", "ITWIN_ID", "ITP_ITWIN_ID"),
        imodel_id=value("imodel_id", "IMODEL_ID"),
        sandbox=switch("sandbox", "ITWIN_MCP_SANDBOX"),
        sandbox_db=None if sandbox_db is None else expand_home(sandbox_db),
        job_seconds=1.0 if job_seconds is None else job_seconds,
        capabilities=_paths(own, capabilities),
        files_roots=_existing(_paths(roots, files_root)),
        toolsets=_names(value("toolsets", "ITWIN_MCP_TOOLSETS")),
        tools=_names(value("tools", "ITWIN_MCP_TOOLS")),
        exclude_tools=_names(value("exclude_tools", "ITWIN_MCP_EXCLUDE_TOOLS")),
        read_only=switch("read_only", "ITWIN_MCP_READ_ONLY"),
        two_step=_two_step(value("confirm", "ITWIN_MCP_CONFIRM") or "person"),
        confirm_minutes=_minutes(value("confirm_minutes", "ITWIN_MCP_CONFIRM_MINUTES")),
        policy=expand_home(policy_file) if policy_file else None,
        audit_log=expand_home(audit_log) if audit_log != "-" else None,
        rate_per_minute=_rate(value("rate_per_minute", "ITWIN_MCP_RATE_PER_MINUTE")),
        deadline=_seconds(value("deadline", "ITWIN_MCP_DEADLINE_SECONDS")),
        max_result_bytes=_bytes(value("max_result_bytes", "ITWIN_MCP_MAX_RESULT_BYTES")),
        http_token=secret("http_token", "ITWIN_MCP_HTTP_TOKEN"),
        stateless=switch("stateless", "ITWIN_MCP_STATELESS"),
        hosted=read_hosted(value, _read_secret),
        log_level=_level(value("log_level", "ITWIN_MCP_LOG_LEVEL") or "warning"),
        state_dir=state_dir,
        cache_dir=_folder(value("cache_dir", "ITWIN_MCP_CACHE_DIR"), "user_cache_path"),
        bundle=switch("bundle", "ITWIN_MCP_BUNDLE"),
        origins=origins,
    )


def issuer_of(api_url: str) -> str:
    """The sign-in server that belongs to a platform: QA's also for development, a local platform's own."""
    parts = urlsplit(api_url)
    if parts.hostname in LOOPBACK:
        return api_url
    prefix = "qa-" if re.match(r"(qa|dev)-", parts.hostname or "") else ""
    return SIGN_IN_SERVER.replace("//", f"//{prefix}")


def _folder(given: str | None, kind: str) -> Path:
    if given is not None:
        return expand_home(given)
    import platformdirs

    path: Path = getattr(platformdirs, kind)("itwin-mcp", appauthor=False)
    return path


def _paths(text: str, more: Sequence[Path]) -> tuple[Path, ...]:
    """The paths of a variable, and those of flags after them."""
    parts: list[str | Path] = [*(part for part in text.split(os.pathsep) if part), *more]
    return tuple(expand_home(part) for part in parts)


def _existing(folders: Sequence[Path]) -> tuple[Path, ...]:
    for folder in folders:
        if not folder.is_dir():
            raise SettingsError(f"--files-root {folder} is no folder: create it, or name another.")
    return tuple(folder.absolute() for folder in folders)


def _names(text: str | None) -> tuple[str, ...]:
    return tuple(part.strip() for part in (text or "").split(",") if part.strip())


def _flag(name: str, text: str | None) -> bool:
    words = {None: False, "true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}
    lowered = text.lower() if text else None
    if lowered not in words:
        raise SettingsError(f"{name} is {text!r}: set it to true or false.")
    return words[lowered]


def _level(text: str) -> str:
    if text.lower() not in ("debug", "info", "warning", "error"):
        raise SettingsError(f"The log level {text!r} is none of debug, info, warning, error.")
    return text.lower()


def _two_step(text: str) -> bool:
    if text not in ("person", "two-step"):
        raise SettingsError(f"--confirm is {text!r}: it must be person or two-step.")
    return text == "two-step"


def _minutes(text: str | None) -> int:
    if text is not None and (not re.fullmatch(r"[0-9]{1,4}", text) or not 1 <= int(text) <= 1440):
        raise SettingsError(f"ITWIN_MCP_CONFIRM_MINUTES is {text!r}: set it to whole minutes from 1 to 1440.")
    return int(text) if text is not None else 30


def _profile(text: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9._-]{1,64}", text):
        raise SettingsError(f"The profile {text!r} must be up to 64 letters, digits, dots, dashes and underscores.")
    return text


def _rate(text: str | None) -> int | None:
    if text is not None and (not re.fullmatch(r"[0-9]{1,6}", text) or int(text) == 0):
        raise SettingsError(f"ITWIN_MCP_RATE_PER_MINUTE is {text!r}: set it to a whole number above 0, or not at all.")
    return int(text) if text is not None else None


def _bytes(text: str | None) -> int:
    if text is not None and (not re.fullmatch(r"[0-9]{1,9}", text) or int(text) < 2_000):
        raise SettingsError(f"--max-result-bytes is {text!r}: set it to a whole number from 2000, or not at all.")
    return int(text) if text is not None else 50_000


def _seconds(text: str | None) -> float:
    if text is not None and (not re.fullmatch(r"[0-9]{1,4}(\.[0-9]+)?", text) or not 1 <= float(text) <= 3600):
        raise SettingsError(f"ITWIN_MCP_DEADLINE_SECONDS is {text!r}: set it to seconds between 1 and 3600.")
    return float(text) if text is not None else 60.0


def _read_secret(name: str, file: Path) -> SecretStr:
    try:
        text = file.read_text(encoding="utf-8").strip()
    except OSError as error:
        raise SettingsError(f"{name}: {file} cannot be read: {error.strerror}.") from None
    except ValueError:
        raise SettingsError(f"{name}: {file} does not hold text.") from None
    if not text:
        raise SettingsError(f"{name}: {file} is empty.")
    return SecretStr(text)


def _redirect(text: str | None) -> str | None:
    """An address on this machine, as the application has it registered; None for the usual one."""
    if text is None:
        return None
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError:
        parts, port = urlsplit(""), None
    plain = parts.scheme == "http" and not (parts.query or parts.fragment or parts.username)
    if not plain or parts.hostname not in ("localhost", "127.0.0.1") or not port or not parts.path:
        raise SettingsError(f"ITWIN_REDIRECT_URI is {text!r}: it must be http://localhost:PORT/PATH.")
    return text


def _origin(origins: Mapping[str, str], text: str | None) -> str:
    """An address without a path; the platform's own when there is none."""
    address = _address(origins, "api_url", text)
    if address is None:
        return PLATFORM
    if urlsplit(address).path:
        raise SettingsError(f"{origins['api_url']} must be an origin such as {PLATFORM}, without a path.")
    return address


def _address(origins: Mapping[str, str], setting: str, text: str | None) -> str | None:
    """An https address, or http on this machine, without a slash at the end."""
    if text is None:
        return None
    parts = split_address(origins[setting], text, PLATFORM)
    assert parts.hostname is not None
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    return f"{parts.scheme}://{host}" + (f":{parts.port}" if parts.port is not None else "") + parts.path.rstrip("/")
