"""`itwin-mcp doctor`: check everything between this computer and the platform, and say how to fix what fails."""

from __future__ import annotations

import os
import sys
from collections.abc import AsyncIterator, Mapping
from dataclasses import asdict
from typing import Any

import click

from itwin_mcp import __version__
from itwin_mcp.cli.doctor.account import check_account, check_network
from itwin_mcp.cli.doctor.check import FAILED, NOTED, OK, SKIPPED, Check
from itwin_mcp.cli.doctor.client_entries import check_clients
from itwin_mcp.cli.doctor.installation import (
    check_certificates,
    check_proxy,
    check_python,
    find_misspelled,
    report_configuration,
)
from itwin_mcp.cli.options import account_options, make_settings
from itwin_mcp.cli.output import json_option, print_json
from itwin_mcp.errors import SettingsError
from itwin_mcp.settings import Settings

_COLORS = {OK: "green", FAILED: "red", NOTED: "yellow", SKIPPED: "bright_black"}


@click.command("doctor")
@account_options
@json_option("Print JSON without secrets, to send to support.")
def command(as_json: bool, **flags: Any) -> None:
    """Check everything between this computer and the platform, and say how to fix what fails.

    Exits with 1 if a check failed. It changes nothing and prints no secrets.

    \b
    Examples:
      itwin-mcp doctor
      itwin-mcp doctor --profile qa
      itwin-mcp doctor --json
    """
    import anyio

    sys.exit(1 if anyio.run(_run_and_print, flags, as_json) else 0)


async def _run_and_print(flags: Mapping[str, Any], as_json: bool) -> bool:
    """Run the checks, print each result at once, and return whether a check failed."""
    checks = []
    async for check in _run_checks(flags):
        checks.append(check)
        if not as_json:
            click.echo(f"{click.style(check.status.ljust(8), fg=_COLORS[check.status])}{check.name}: {check.said}")
            if check.fix:
                click.echo(f"        → {check.fix}")
    failed = [check.name for check in checks if check.status == FAILED]
    if as_json:
        print_json({"ok": not failed, "version": __version__, "checks": [asdict(check) for check in checks]})
    else:
        click.echo(f"\nFailed: {', '.join(failed)}." if failed else "\nNo check failed.")
    return bool(failed)


async def _run_checks(flags: Mapping[str, Any]) -> AsyncIterator[Check]:
    from itwin_mcp.upstream.sign_in.credential_choice import AuthMethod, choose_method

    yield check_python()
    settings: Settings | None = None
    try:
        settings = make_settings(**flags)
    except SettingsError as error:
        yield Check("configuration", FAILED, str(error), "Correct the variable or the flag.")
    else:
        yield report_configuration(settings)
    misspelled = find_misspelled(os.environ)
    if misspelled:
        yield Check("settings", NOTED, misspelled, "Correct the names; as they are, they have no effect.")
    proxy, certificates = check_proxy(os.environ), check_certificates(os.environ)
    yield proxy
    yield certificates
    client_checks = [check async for check in check_clients(os.environ)]
    is_only_in_clients = (
        settings is not None
        and choose_method(settings) is AuthMethod.NONE
        and any(check.status == OK for check in client_checks)
    )
    if settings is None:
        yield Check("network", SKIPPED, "nothing is sent before the configuration is correct")
    elif is_only_in_clients:
        # Clients do not see this shell's variables, so that only their entries count.
        yield Check("network", SKIPPED, "nothing is configured in this shell")
        yield Check("sign-in", SKIPPED, "nothing is configured in this shell; the clients' entries are checked below")
    elif settings.sandbox:
        yield Check("network", SKIPPED, "the embedded sandbox needs none")
    elif FAILED in (proxy.status, certificates.status):
        yield Check("network", SKIPPED, "nothing is sent before the proxies and certificates are correct")
    else:
        async for check in check_network(settings):
            yield check
    if settings is not None and not is_only_in_clients:
        async for check in check_account(settings):
            yield check
    for check in client_checks:
        yield check
