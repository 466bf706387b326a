"""Checks the environment variables for proxies and certificate authorities before an HTTP client uses them."""

from __future__ import annotations

import os
import re
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import urlsplit

import httpx2

from itwin_mcp.errors import ErrorCode, Unreachable

_HOST = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?|[0-9a-f:.]+", re.ASCII | re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class VariableProblem:
    """An environment variable that cannot be used. Its value is not shown if it may contain a password."""

    variable: str
    why: str
    fix: str

    def __str__(self) -> str:
        return f"{self.variable} {self.why}"


def read_certificates() -> ssl.SSLContext:
    """Check the proxy variables, and return the certificate authorities of the environment.

    Raises: Unreachable, which names the variable that cannot be used.
    """
    problem = find_proxy_problem(os.environ) or _find_folder_problem(os.environ)
    if problem is None:
        try:
            return httpx2.create_ssl_context()
        except (OSError, ValueError):
            problem = find_certificate_problem(os.environ)
            if problem is None:
                raise
    raise Unreachable(
        ErrorCode.CONNECTION_FAILED, f"{problem}.", hint=f"Nothing was sent. {problem.fix}", retryable=False
    )


def find_proxy_problem(environment: Mapping[str, str]) -> VariableProblem | None:
    """Return the problem of the first proxy variable that cannot be used, or None."""
    names = {name.lower(): name for name in sorted(environment) if environment[name]}  # lower case wins, as in curl
    if environment.get(names.get("no_proxy", ""), "").strip() == "*":
        return None
    for name in ("https_proxy", "http_proxy", "all_proxy"):
        if name in names:
            problem = _explain_proxy(names[name], environment[names[name]])
            if problem is not None:
                return problem
    return None


def _explain_proxy(variable: str, value: str) -> VariableProblem | None:
    fix = f"Write {variable} as http://host:port, or unset it."
    scheme, separator, address = value.partition("://")
    if not separator:
        scheme, address = "http", value
    scheme = scheme.lower()
    if scheme not in ("http", "https", "socks5", "socks5h"):
        why = f"has the scheme {scheme[:20]!r}, which is not one of http, https, socks5 and socks5h"
        return VariableProblem(variable, why, fix)
    try:
        parts = urlsplit(f"//{address}")
        host, _ = parts.hostname or "", parts.port  # an invalid port raises when it is read
    except ValueError:
        return VariableProblem(variable, "is not the address of a proxy: its host or port cannot be read", fix)
    # Without its colon, `https//proxy` would be taken for a proxy called `https`.
    if not _HOST.fullmatch(host) or (not separator and "/" in address.rstrip("/")):
        return VariableProblem(variable, "is not the address of a proxy: it names no host", fix)
    if scheme.startswith("socks") and find_spec("socksio") is None:
        return VariableProblem(
            variable,
            "names a SOCKS proxy, for which the Python package socksio is missing",
            f"Install socksio next to itwin-mcp (`pip install socksio`, or `uvx --with socksio`), or set {variable} to "
            "an HTTP proxy.",
        )
    return None


def find_certificate_problem(environment: Mapping[str, str]) -> VariableProblem | None:
    """Return the problem of SSL_CERT_FILE, or of SSL_CERT_DIR if only that is set; None if there is no problem."""
    file = environment.get("SSL_CERT_FILE")
    if not file:
        return _find_folder_problem(environment)
    why = _explain_file(Path(file))
    if why is None:
        return None
    fix = "Set SSL_CERT_FILE to a PEM file with your certificate authorities, or unset it."
    return VariableProblem("SSL_CERT_FILE", f"cannot be used: {file} {why}", fix)


def _find_folder_problem(environment: Mapping[str, str]) -> VariableProblem | None:
    """Return the problem of SSL_CERT_DIR. With a missing folder the TLS library silently trusts no certificate."""
    folder = environment.get("SSL_CERT_DIR")
    if not folder or environment.get("SSL_CERT_FILE") or Path(folder).is_dir():
        return None
    fix = "Set SSL_CERT_DIR to a folder of certificate authorities, or unset it."
    return VariableProblem("SSL_CERT_DIR", f"cannot be used: {folder} is not a folder", fix)


def _explain_file(file: Path) -> str | None:
    try:
        if file.is_dir():
            return "is a folder"
        if not file.exists():
            return "does not exist"
        ssl.create_default_context(cafile=file)
    except ssl.SSLError:
        return "holds no certificate in PEM form"
    except (OSError, ValueError) as error:
        return f"cannot be read ({getattr(error, 'strerror', None) or error})"
    return None
