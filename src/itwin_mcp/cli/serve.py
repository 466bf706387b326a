"""`itwin-mcp serve`: serve MCP clients over stdio or HTTP."""

from __future__ import annotations

import gc
import os
from importlib.util import find_spec
from typing import Any

import click
from pydantic import SecretStr

from itwin_mcp.cli.options import make_settings, setting_option, settings_options
from itwin_mcp.errors import SettingsError
from itwin_mcp.settings import Settings

_WAITING = """\
This server waits for an MCP client on standard input. Usually a client starts it.
  Add it to a client:       itwin-mcp install claude-desktop{sandbox}
  Serve clients over HTTP:  itwin-mcp serve{sandbox} --http 127.0.0.1:8000
  Call a tool from here:    itwin-mcp call list-recent-itwins{sandbox}
Ctrl-C stops it."""
"""Printed if `serve` is started on a terminal."""


@click.command("serve")
@settings_options
@click.option(
    "--http",
    metavar="HOST:PORT",
    help="Serve streamable HTTP at /mcp on this address. Beyond this computer, callers must sign in.",
)
@click.option(
    "--http-token", is_flag=True, help="Require a bearer token over HTTP: ITWIN_MCP_HTTP_TOKEN, or a new one."
)
@setting_option("stateless")
@setting_option("rest")
@click.option("--watch", is_flag=True, help="Serve changed --capabilities files without a restart, for their authors.")
def command(http: str | None, http_token: bool, watch: bool, **flags: Any) -> None:
    """Serve one MCP client over standard input and output, or many over HTTP.

    \b
    Examples:
      itwin-mcp serve --sandbox
      ITWIN_ACCESS_TOKEN=… itwin-mcp serve --toolsets itwins,imodels --read-only
      itwin-mcp serve --sandbox --http 127.0.0.1:8000 --http-token
      itwin-mcp serve --sandbox --http 127.0.0.1:8000 --rest
      itwin-mcp serve --capabilities my-api.yaml --watch
    """
    settings = make_settings(**flags)
    address = _parse_address(http) if http is not None else None
    for option, is_set in (
        ("--http-token", http_token),
        ("--stateless", settings.stateless),
        ("--rest", settings.rest),
    ):
        if address is None and is_set:
            raise SettingsError(f"{option} needs --http.")
    if http_token and settings.hosted is not None:
        raise SettingsError("--http-token is only for your own server: hosted callers send their own tokens.")
    if watch and not settings.capabilities:
        raise SettingsError("--watch needs --capabilities: our own files do not change.")
    if watch and settings.hosted is not None:
        raise SettingsError("--watch is only for your own server: restart a hosted server to change its tools.")
    try:
        _serve(settings, address, _choose_token(settings.http_token) if http_token else None, watch)
    except KeyboardInterrupt:
        # Ctrl-C is the usual way to stop a server; nothing is lost.
        raise SystemExit(0) from None
    except OSError as error:
        problem = f"Cannot listen on {http}" if http is not None else "Cannot use standard input or output"
        raise SettingsError(f"{problem}: {error.strerror or error}.") from None


def _serve(settings: Settings, address: tuple[str, int] | None, token: str | None, watch: bool) -> None:
    # Starting creates many objects and no garbage. Collecting garbage meanwhile would take a fifth of the start time.
    gc.disable()
    import anyio

    from itwin_mcp import runtime

    environment = dict(os.environ)
    if address is None:

        def explain_waiting() -> None:
            _collect_garbage()
            if os.isatty(0):
                click.echo(_WAITING.format(sandbox=" --sandbox" if settings.sandbox else ""), err=True)

        # The message invites Ctrl-C, which during an import can end Python by the signal itself: show it afterwards.
        anyio.run(runtime.serve_stdio, settings, environment, explain_waiting, watch)
    else:
        options = {"use_uvloop": find_spec("uvloop") is not None}  # installed by the extra `fast`
        anyio.run(
            runtime.serve_http, settings, environment, *address, token, _print_url, watch, backend_options=options
        )


def _parse_address(text: str) -> tuple[str, int]:
    """Return the host and port of `--http`."""
    host, _, port = text.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not host or not port.isascii() or not port.isdigit() or int(port) > 65535:
        raise SettingsError(f"--http {text!r} is not HOST:PORT, such as 127.0.0.1:8000.")
    return host, int(port)


def _choose_token(configured: SecretStr | None) -> str:
    """Return the configured token, or make a new one and print it once on standard error."""
    import secrets

    if configured is not None:
        return configured.get_secret_value()
    token = secrets.token_urlsafe(32)
    click.echo(f"Clients must send: Authorization: Bearer {token}", err=True)
    return token


def _collect_garbage() -> None:
    """Collect garbage from now on, except among the objects of the start, which live as long as the process."""
    gc.freeze()
    gc.enable()


def _print_url(url: str) -> None:
    _collect_garbage()
    click.echo(f"Serving MCP at {url} (Ctrl-C stops it).", err=True)
