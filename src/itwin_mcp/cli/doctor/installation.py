"""Checks of this computer that send nothing: Python and packages, settings, proxies and certificates."""

from __future__ import annotations

import platform
import re
import ssl
from collections.abc import Mapping
from importlib import metadata

from itwin_mcp import __version__
from itwin_mcp.cli.doctor.check import FAILED, OK, Check
from itwin_mcp.settings import ENVIRONMENT, HOSTED_SETTINGS, SETTINGS, Settings
from itwin_mcp.text import find_similar


def check_python() -> Check:
    """Check that every dependency is installed, and report the versions."""
    versions, missing = [], []
    for requirement in metadata.requires("itwin-mcp") or ():
        if "extra ==" in requirement:
            continue
        name = re.split(r"[ <>=!~;\[]", requirement)[0]
        try:
            versions.append(f"{name} {metadata.version(name)}")
        except metadata.PackageNotFoundError:
            missing.append(name)
    finding = f"{platform.python_version()} on {platform.system()}, itwin-mcp {__version__}, {', '.join(versions)}"
    if missing:
        fix = "Reinstall itwin-mcp, into an environment of its own."
        return Check("Python", FAILED, f"{finding}; missing: {', '.join(missing)}", fix)
    return Check("Python", OK, finding)


def report_configuration(settings: Settings) -> Check:
    """Report the settings that differ from their defaults, and where each comes from."""
    descriptions = []
    for name, origin in sorted(settings.origins.items()):
        is_hosted = name in HOSTED_SETTINGS
        row = HOSTED_SETTINGS[name] if is_hosted else SETTINGS[name]
        value = getattr(settings.hosted if is_hosted else settings, name)
        text = "set" if row.is_secret else ",".join(map(str, value)) if isinstance(value, tuple) else str(value)
        descriptions.append(f"{name.replace('_', ' ')} = {text} ({origin})")
    descriptions.append(
        f"platform {settings.api_url}, sign-in server {settings.issuer_url}, state in {settings.state_dir}"
    )
    return Check("configuration", OK, "; ".join(descriptions))


def find_misspelled(environment: Mapping[str, str]) -> str:
    """Report variables that look like settings but are not, with suggestions; return an empty text if none do."""
    sentences = []
    for name in sorted(environment.keys() - ENVIRONMENT.keys()):
        if name.startswith(("ITWIN", "IMODEL", "ITP_")):
            similar = find_similar(name, ENVIRONMENT, likeness=0.85)
            if similar or name.startswith("ITWIN_MCP_"):
                sentences.append(f"{name} is not a setting" + (f": did you mean {similar[0]}?" if similar else ""))
    return "; ".join(sentences)


def check_proxy(environment: Mapping[str, str]) -> Check:
    """Check the variables that set a proxy."""
    from itwin_mcp.upstream.network_settings import find_proxy_problem
    from itwin_mcp.upstream.redaction import hide_secrets

    problem = find_proxy_problem(environment)
    if problem is not None:
        return Check("proxy", FAILED, str(problem), problem.fix)
    names = [name for name in environment if name.lower() in ("http_proxy", "https_proxy", "all_proxy", "no_proxy")]
    if not names:
        return Check("proxy", OK, "none is set")
    return Check("proxy", OK, ", ".join(f"{name}={hide_secrets(environment[name])}" for name in sorted(names)))


def check_certificates(environment: Mapping[str, str]) -> Check:
    """Check the certificate store that TLS uses."""
    from itwin_mcp.upstream.network_settings import find_certificate_problem

    problem = find_certificate_problem(environment)
    if problem is not None:
        return Check("certificates", FAILED, str(problem), problem.fix)
    names = [name for name in ("SSL_CERT_FILE", "SSL_CERT_DIR") if environment.get(name)]
    store = f"{names[0]}={environment[names[0]]}" if names else "the system's"
    return Check("certificates", OK, f"{store}, {ssl.OPENSSL_VERSION}")
