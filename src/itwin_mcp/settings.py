"""Environment and flags become one frozen Settings; secrets are SecretStr, empty values mean unset."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from pydantic import SecretStr

from itwin_mcp.errors import SettingsError

PLATFORM = "https://api.bentley.com"

ENVIRONMENT: Mapping[str, str] = {
    "ITWIN_ACCESS_TOKEN": "An access token for the iTwin Platform, with or without `Bearer `.",
    "ITWIN_API_URL": f"The platform to call, as an origin. {PLATFORM} when unset.",
    "ITWIN_MCP_TOOLSETS": "Toolsets to serve, separated by commas, or `all`.",
    "ITWIN_MCP_TOOLS": "Tools to serve in addition, separated by commas.",
    "ITWIN_MCP_EXCLUDE_TOOLS": "Tools not to serve, separated by commas.",
    "ITWIN_MCP_READ_ONLY": "`true` serves only tools that change nothing.",
    "ITWIN_MCP_SANDBOX": "`true` works with the embedded sandbox instead of the platform; no account is needed.",
    "ITWIN_MCP_CAPABILITIES": "Capability files of your own, separated by the system's path separator.",
    "ITWIN_MCP_HTTP_TOKEN": "The bearer that `serve --http … --http-token` asks for; made anew when unset.",
    "ITWIN_MCP_LOG_LEVEL": "debug, info, warning or error; warning when unset. Logs go to standard error.",
    "ITWIN_MCP_STATE_DIR": "Where sign-ins and keys are kept. The user's state folder when unset.",
    "ITWIN_MCP_CACHE_DIR": "Where parsed capability files are kept. The user's cache folder when unset.",
}
"""Every variable that is read, and what it says."""


@dataclass(frozen=True, slots=True)
class Settings:
    """What we were started with."""

    access_token: SecretStr | None = None
    api_url: str = PLATFORM
    sandbox: bool = False
    sandbox_db: Path | None = None
    job_seconds: float = 1.0
    capabilities: tuple[Path, ...] = ()
    toolsets: tuple[str, ...] = ()
    tools: tuple[str, ...] = ()
    exclude_tools: tuple[str, ...] = ()
    read_only: bool = False
    log_level: str = "warning"
    state_dir: Path = field(default_factory=Path)
    cache_dir: Path = field(default_factory=Path)
    http_token: SecretStr | None = None

    @property
    def secrets(self) -> tuple[str, ...]:
        """Values that must never be read in a log."""
        held = (self.access_token, self.http_token)
        return tuple(secret.get_secret_value() for secret in held if secret is not None)


def read_settings(
    environment: Mapping[str, str],
    *,
    sandbox: bool = False,
    sandbox_db: Path | None = None,
    job_seconds: float | None = None,
    capabilities: Sequence[Path] = (),
    toolsets: str | None = None,
    tools: str | None = None,
    exclude_tools: str | None = None,
    read_only: bool = False,
    log_level: str | None = None,
) -> Settings:
    """Settings from the environment, where a flag that was given wins. Raises SettingsError."""

    def value(name: str) -> str | None:
        return environment.get(name, "").strip() or None

    token, http_token = value("ITWIN_ACCESS_TOKEN"), value("ITWIN_MCP_HTTP_TOKEN")
    own = tuple(Path(part) for part in (value("ITWIN_MCP_CAPABILITIES") or "").split(os.pathsep) if part)
    return Settings(
        access_token=SecretStr(token) if token else None,
        api_url=_origin(value("ITWIN_API_URL") or PLATFORM),
        sandbox=sandbox or _flag("ITWIN_MCP_SANDBOX", value("ITWIN_MCP_SANDBOX")),
        sandbox_db=sandbox_db,
        job_seconds=1.0 if job_seconds is None else job_seconds,
        capabilities=(*own, *capabilities),
        toolsets=_names(toolsets or value("ITWIN_MCP_TOOLSETS")),
        tools=_names(tools or value("ITWIN_MCP_TOOLS")),
        exclude_tools=_names(exclude_tools or value("ITWIN_MCP_EXCLUDE_TOOLS")),
        read_only=read_only or _flag("ITWIN_MCP_READ_ONLY", value("ITWIN_MCP_READ_ONLY")),
        http_token=SecretStr(http_token) if http_token else None,
        log_level=_level(log_level or value("ITWIN_MCP_LOG_LEVEL") or "warning"),
        state_dir=_folder(value("ITWIN_MCP_STATE_DIR"), "user_state_path"),
        cache_dir=_folder(value("ITWIN_MCP_CACHE_DIR"), "user_cache_path"),
    )


def _folder(given: str | None, kind: str) -> Path:
    if given is not None:
        return Path(given)
    import platformdirs

    path: Path = getattr(platformdirs, kind)("itwin-mcp", appauthor=False)
    return path


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


def _origin(text: str) -> str:
    try:
        parts = urlsplit(text)
        loopback = parts.hostname in ("localhost", "127.0.0.1", "::1")
        port = parts.port
    except ValueError:
        raise SettingsError(f"ITWIN_API_URL is {text!r}, which is no address.") from None
    if parts.scheme != "https" and not (parts.scheme == "http" and loopback):
        raise SettingsError("ITWIN_API_URL must be https (http is for an address of this machine).")
    if not parts.hostname or parts.path.strip("/") or parts.query or parts.fragment or parts.username:
        raise SettingsError(f"ITWIN_API_URL must be an origin such as {PLATFORM}, without a path.")
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    return f"{parts.scheme}://{host}" + (f":{port}" if port is not None else "")
