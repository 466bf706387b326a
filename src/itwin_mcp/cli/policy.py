"""`itwin-mcp policy`: check a policy file, or test what it allows."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from itwin_mcp.cli.call import read_arguments
from itwin_mcp.cli.options import LocalPath, find_tool, make_settings, settings_options
from itwin_mcp.cli.output import json_option, print_json, print_problems
from itwin_mcp.errors import CallError, PolicyError, SettingsError
from itwin_mcp.executor.context import LOCAL, Caller
from itwin_mcp.settings import Settings


@click.group("policy")
def command() -> None:
    """Check a policy file, or test what it allows.

    \b
    Examples:
      itwin-mcp policy check policy.yaml
      itwin-mcp policy test policy.yaml --tool delete-imodel --arg iModelId=…
    """


@command.command("check")
@click.argument("file", type=LocalPath())
@settings_options
@json_option("Print the problems as JSON.")
def check(file: Path, as_json: bool, **flags: Any) -> None:
    """List every problem in FILE that `serve --policy` would report. Exits with 2 if there is one.

    \b
    Examples:
      itwin-mcp policy check policy.yaml
      itwin-mcp policy check policy.yaml --capabilities my-api.yaml --json
    """
    from itwin_mcp.executor.policy.file import read_policy
    from itwin_mcp.runtime import read_all

    settings = make_settings(**flags)
    catalog = read_all(settings)
    try:
        policy = read_policy(file, catalog, settings.hosted.issuer if settings.hosted else None)
    except PolicyError as error:
        print_problems(error.problems, as_json)
        sys.exit(2)
    local = len(policy.allowed_tools(LOCAL, catalog.tools.values())) if policy.default is not None else 0
    if as_json:
        figures = {"callers": len(policy.callers), "default": policy.default is not None, "localTools": local}
        print_json({"problems": [], **figures})
        return
    others = (
        f"other callers, and the user of a local server, have {local} tools"
        if local
        else "other callers may do nothing"
    )
    click.echo(f"No problems. Entries for callers: {len(policy.callers)}; {others}.")


@command.command("test")
@click.argument("file", required=False, type=LocalPath())
@click.option("--tool", "name", required=True, metavar="NAME", help="The tool to test.")
@click.option("--arg", "pairs", multiple=True, metavar="NAME=VALUE", help="One argument; repeat for more.")
@click.option("--issuer", metavar="URL", help="Issuer of the caller's token; default the user of a local server.")
@click.option("--subject", metavar="ID", help="The caller's subject at the issuer.")
@click.option("--group", "groups", multiple=True, metavar="NAME", help="A group of the caller; repeat for more.")
@click.option("--offline", is_flag=True, help="Send nothing; the verdict is unknown if a read would be needed.")
@settings_options
@json_option("Print the verdict as JSON.")
def test(
    file: Path | None,
    name: str,
    pairs: Sequence[str],
    issuer: str | None,
    subject: str | None,
    groups: Sequence[str],
    offline: bool,
    as_json: bool,
    **flags: Any,
) -> None:
    """Show whether the policy allows a call, and which line of FILE decides. The call is not made.

    Without FILE, the policy of ITWIN_MCP_POLICY is used. Arguments are ids or links; names are not looked up. The iTwin
    of an iModel is read from the platform. Exits with 0 if the call is allowed, and with 1 if it is refused or unknown.

    \b
    Examples:
      itwin-mcp policy test policy.yaml --tool delete-imodel --arg iModelId=…
      itwin-mcp policy test --tool create-itwin --issuer https://login.example.com --group modellers --offline
    """
    import anyio

    if issuer is None and (subject is not None or groups):
        raise SettingsError("--subject and --group need --issuer: an entry identifies its callers by both.")
    settings = make_settings(**flags)
    settings = replace(settings, policy=file or settings.policy)
    if settings.policy is None:
        raise SettingsError("There is no policy: name a file, or set ITWIN_MCP_POLICY.")
    caller = LOCAL if issuer is None else Caller("tested", issuer, subject, tuple(groups))
    verdict = anyio.run(_test, settings, name, pairs, caller, offline)
    if as_json:
        print_json(verdict)
    else:
        rule = f" Decided by the entry {verdict['rule']}." if verdict["rule"] else ""
        waived = " It needs no confirmation." if verdict["waived"] else ""
        click.echo(f"{verdict['verdict'].capitalize()}: {verdict['because']}{waived}{rule}")
    sys.exit(0 if verdict["verdict"] == "allowed" else 1)


async def _test(settings: Settings, name: str, pairs: Sequence[str], caller: Caller, offline: bool) -> dict[str, Any]:
    """Return the verdict of the policy on a call, as JSON."""
    from itwin_mcp.executor.arguments import convert_arguments
    from itwin_mcp.executor.policy.authorize import OfflineSender, Verdict, explain_verdict
    from itwin_mcp.executor.policy.gatekeeper import Gatekeeper
    from itwin_mcp.runtime import open_runtime

    async with open_runtime(replace(settings, toolsets=("all",), tools=(), read_only=False), os.environ) as runtime:
        keeper = runtime.gatekeeper
        tool = find_tool(replace(runtime.catalog, tools=keeper.tools), name)
        if not tool.operations:
            raise SettingsError(f"{name} is a built-in tool: it is allowed unless it is denied by name.")
        arguments = convert_arguments(tool, read_arguments(tool, pairs, None))
        sender = OfflineSender(keeper.upstream.platform) if offline else keeper.upstream
        try:
            request = runtime.executor.first_request(tool, arguments)
        except CallError as error:
            return Verdict("unknown", f"{error.message} {error.hint}").to_json()
        # This gatekeeper has no audit log, because a test is not a decision.
        tester = Gatekeeper(sender, keeper.tools, keeper.policy)
        return (await explain_verdict(tester, tool, arguments, request, caller)).to_json()
