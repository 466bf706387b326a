"""Checks the environment's proxies and certificate authorities before an HTTP client is built from them."""

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
    """An environment variable that cannot be used. Values that may hold a password are not shown."""

    variable: str
    why: str
    fix: str

    def __str__(self) -> str:
        return f"{self.variable} {self.why}"


def read_certificates() -> ssl.SSLContext:
    """Return the certificate authorities of the environment, once its proxies are known to be usable too.

    Raises: Unreachable, which names the variable that cannot be used.
    """
    problem = find_proxy_problem(os.environ) or _find_folder_problem(os.environ)
    if problem is not None:
        raise _refuse(problem)
    try:
        return httpx2.create_ssl_context()
    except (OSError, ValueError):
        problem = find_certificate_problem(os.environ)
        if problem is None:
            raise
    raise _refuse(problem)


def _refuse(problem: VariableProblem) -> Unreachable:
    return Unreachable(
        ErrorCode.CONNECTION_FAILED, f"{problem}.", hint=f"Nothing was sent. {problem.fix}", retryable=False
    )


def find_proxy_problem(environment: Mapping[str, str]) -> VariableProblem | None:
    """Return the first of the proxy variables that cannot be used."""
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
    scheme, separator, rest = value.partition("://")
    if not separator:
        scheme, rest = "http", value
    scheme = scheme.lower()
    if scheme not in ("http", "https", "socks5", "socks5h"):
        known = "http, https, socks5 and socks5h"
        return VariableProblem(variable, f"has the scheme {scheme[:20]!r}, which is not one of {known}", fix)
    try:
        address = urlsplit(f"//{rest}")
        host, _ = address.hostname or "", address.port
    except ValueError:
        return VariableProblem(variable, "is not the address of a proxy: its host or port cannot be read", fix)
    # `https//proxy` would be taken for a proxy called `https`.
    if not _HOST.fullmatch(host) or (not separator and "/" in rest.rstrip("/")):
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
    """Return the variable for certificate authorities that cannot be used; SSL_CERT_FILE comes before SSL_CERT_DIR."""
    file = environment.get("SSL_CERT_FILE")
    if not file:
        return _find_folder_problem(environment)
    why = _explain_file(Path(file))
    fix = "Set SSL_CERT_FILE to a PEM file with your certificate authorities, or unset it."
    return None if why is None else VariableProblem("SSL_CERT_FILE", f"cannot be used: {file} {why}", fix)


def _find_folder_problem(environment: Mapping[str, str]) -> VariableProblem | None:
    """Return the problem of a missing folder, with which the TLS library trusts nobody but reports no error."""
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
