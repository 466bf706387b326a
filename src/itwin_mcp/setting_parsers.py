"""Parsers of the settings' values. Their errors name the variable or option that has the value."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from ipaddress import IPv4Network, IPv6Network, ip_network
from pathlib import Path
from typing import Any, TypeAlias
from urllib.parse import SplitResult, urlsplit

from pydantic import SecretStr

from itwin_mcp.errors import SettingsError

Parser: TypeAlias = Callable[[str, str], Any]
"""A function that gets the name of the variable or option, and its text. Raises SettingsError."""
Network: TypeAlias = IPv4Network | IPv6Network

LOOPBACK = ("localhost", "127.0.0.1", "::1")
MIN_STATE_SECRET = 32
"""Bytes."""
_BOOLEANS = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}
_AUTHORITY = r"(?:[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(?::[0-9]{1,5})?"
_EXAMPLE = "https://mcp.example.com/mcp"


def parse_text(_source: str, text: str) -> str:
    return text


def parse_secret(_source: str, text: str) -> SecretStr:
    return SecretStr(text)


def parse_boolean(source: str, text: str) -> bool:
    if text.lower() not in _BOOLEANS:
        raise SettingsError(f"{source} is {text!r}: set it to true or false.")
    return _BOOLEANS[text.lower()]


def parse_names(_source: str, text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(",") if part.strip())


def choice_of(*words: str) -> Parser:
    """Return a parser that accepts one of these words, in any case."""

    def parse(source: str, text: str) -> str:
        if text.lower() not in words:
            raise SettingsError(f"{source} is {text!r}: set it to {', '.join(words[:-1])} or {words[-1]}.")
        return text.lower()

    return parse


def whole_number(least: int, most: int) -> Parser:
    """Return a parser that accepts a whole number within these bounds."""

    def parse(source: str, text: str) -> int:
        if not re.fullmatch(r"[0-9]{1,9}", text) or not least <= int(text) <= most:
            raise SettingsError(f"{source} is {text!r}: set it to a whole number from {least} to {most}.")
        return int(text)

    return parse


def seconds(least: int, most: int) -> Parser:
    """Return a parser that accepts seconds within these bounds, with or without decimals."""

    def parse(source: str, text: str) -> float:
        if not re.fullmatch(r"[0-9]{1,6}(\.[0-9]+)?", text) or not least <= float(text) <= most:
            raise SettingsError(f"{source} is {text!r}: set it to seconds between {least} and {most}.")
        return float(text)

    return parse


def parse_profile(source: str, text: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9._-]{1,64}", text):
        raise SettingsError(f"The profile {text!r} ({source}) may have up to 64 letters, digits, dots, dashes and _.")
    return text


# --- files and folders ------------------------------------------------------------------------------------------


def parse_path(_source: str, text: str) -> Path:
    return expand_home(text)


def parse_log_file(_source: str, text: str) -> Path | None:
    """Return the file, or None for `-`, which is standard error."""
    return None if text == "-" else expand_home(text)


def parse_folder(source: str, text: str) -> Path:
    folder = expand_home(text)
    if not folder.is_dir():
        raise SettingsError(f"{source} {folder} is not a folder: create it, or name another one.")
    return folder.absolute()


def read_secret_file(source: str, file: Path) -> str:
    """Return the text of a file that holds a secret."""
    try:
        text = file.read_text(encoding="utf-8").strip()
    except OSError as error:
        raise SettingsError(f"{source}: {file} cannot be read: {error.strerror}.") from None
    except ValueError:
        raise SettingsError(f"{source}: {file} does not hold text.") from None
    if not text:
        raise SettingsError(f"{source}: {file} is empty.")
    return text


def expand_home(path: str | Path) -> Path:
    """Return the path with a leading `~` replaced by the user's home folder, which not every shell does.

    `~name` is not changed, because it may be the name of a file: some editors name copies so.
    """
    path = Path(path)
    if path.parts[:1] != ("~",):
        return path
    try:
        return path.expanduser()
    except RuntimeError:  # the system does not know the home folder
        return path


# --- addresses --------------------------------------------------------------------------------------------------


def parse_url(source: str, text: str) -> str:
    """Return an https URL, or an http URL on this machine, without a slash at its end."""
    parts = _split_url(source, text, "https://api.example.com")
    assert parts.hostname is not None
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    return f"{parts.scheme}://{host}" + (f":{parts.port}" if parts.port is not None else "") + parts.path.rstrip("/")


def parse_origin_url(source: str, text: str) -> str:
    """Return a URL that has no path."""
    url = parse_url(source, text)
    if urlsplit(url).path:
        raise SettingsError(f"{source} must be an origin such as https://api.example.com, without a path.")
    return url


def parse_exact_url(source: str, text: str) -> str:
    """Return a URL unchanged, because it is compared with others as text."""
    _split_url(source, text, _EXAMPLE)
    if '"' in text or not text.isascii():
        raise SettingsError(f"{source} must be a plain URL such as {_EXAMPLE}.")
    return text


def parse_redirect(source: str, text: str) -> str:
    """Return a URL on this machine, exactly as the application has it registered."""
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError:
        parts, port = urlsplit(""), None
    plain = parts.scheme == "http" and not (parts.query or parts.fragment or parts.username)
    if not plain or parts.hostname not in ("localhost", "127.0.0.1") or not port or not parts.path:
        raise SettingsError(f"{source} is {text!r}: it must be http://localhost:PORT/PATH.")
    return text


def parse_hosts(source: str, text: str) -> tuple[str, ...]:
    hosts = parse_names(source, text)
    for host in hosts:
        if not re.fullmatch(_AUTHORITY, host):
            raise SettingsError(f"{source} names {host!r}: write a name, or name:port; no `*`.")
    return hosts


def parse_web_origins(source: str, text: str) -> tuple[str, ...]:
    """Return the origins of web pages, or an empty tuple for the word `none`."""
    origins = parse_names(source, text)
    if origins == ("none",):
        return ()
    for origin in origins:
        if not re.fullmatch(rf"https?://{_AUTHORITY}", origin):
            raise SettingsError(f"{source} names {origin!r}: write https://name or https://name:port, or `none` alone.")
    return origins


def parse_networks(source: str, text: str) -> tuple[Network, ...]:
    try:
        return tuple(ip_network(part, strict=False) for part in parse_names(source, text))
    except ValueError:
        raise SettingsError(
            f"{source} is {text!r}: write addresses or networks, such as 10.0.0.2 or 10.0.0.0/24."
        ) from None


def _split_url(source: str, text: str, example: str) -> SplitResult:
    try:
        parts = urlsplit(text)
        _ = parts.port
    except ValueError:
        raise SettingsError(f"{source} is {text!r}, which is not a URL.") from None
    if parts.scheme != "https" and not (parts.scheme == "http" and parts.hostname in LOOPBACK):
        raise SettingsError(f"{source} must be https (http is for an address of this machine).")
    if not parts.hostname or parts.query or parts.fragment or parts.username:
        raise SettingsError(f"{source} must be a plain URL such as {example}.")
    return parts


# --- a hosted server --------------------------------------------------------------------------------------------


def parse_scope(source: str, text: str) -> str:
    """Return `read`, `write` or `delete`. The text may have the prefix `itwin:`."""
    return str(choice_of("read", "write", "delete")(source, text.removeprefix("itwin:")))


def parse_state_secrets(source: str, text: str) -> Sequence[SecretStr]:
    secrets = tuple(part.strip() for part in re.split(r"[,\n]", text) if part.strip())
    if any(len(secret.encode()) < MIN_STATE_SECRET for secret in secrets):
        raise SettingsError(f"{source} holds a secret of less than {MIN_STATE_SECRET} bytes: make it longer.")
    return tuple(SecretStr(secret) for secret in secrets)
