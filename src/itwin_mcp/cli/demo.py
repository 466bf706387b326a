"""`itwin-mcp demo`: an agent's day against the embedded sandbox, through the real protocol."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import click

from itwin_mcp.cli.install import QUESTION

JSON = dict[str, Any]


class DemoFailed(Exception):
    """A step did not give what it should; the message says which and what came."""


@dataclass(frozen=True, slots=True)
class Step:
    """One call of the day.

    `arguments` are made from what earlier steps gave; `expect` is the member that the answer must have; `tell` turns
    it into a few lines; `keep` is the name under which later steps find it.
    """

    asks: str
    tool: str
    arguments: Callable[[Mapping[str, Any]], JSON]
    expect: str
    tell: Callable[[Any], list[str]]
    keep: str


@click.command("demo")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object a step instead of prose.")
def command(as_json: bool) -> None:
    """Watch an agent's day: the official MCP client works with the embedded sandbox over stdio.

    Nothing leaves this machine and no account is needed. Exits with 1 if a step did not give what it should.

    \b
    Examples:
      itwin-mcp demo
      itwin-mcp demo --json
    """
    import anyio
    from mcp import MCPError

    try:
        anyio.run(_day, as_json)
    except* (DemoFailed, MCPError) as failed:
        click.echo(f"\nThe demo failed: {failed.exceptions[0]}", err=True)
        sys.exit(1)


async def _day(as_json: bool) -> None:
    from mcp import Client, StdioServerParameters, stdio_client

    command = [sys.executable, "-m", "itwin_mcp", "serve", "--sandbox"]
    show = _Json() if as_json else _Prose()
    server = StdioServerParameters(command=command[0], args=command[1:])
    async with Client(stdio_client(server)) as client:
        listed = await client.list_tools()
        show.welcome(client.protocol_version, len(listed.tools))
        kept: dict[str, Any] = {}
        for number, step in enumerate(STEPS, 1):
            arguments = step.arguments(kept)
            show.ask(number, step, arguments)
            result = await client.call_tool(step.tool, arguments, progress_callback=show.progress)
            answer: JSON = result.structured_content or {}
            if step.expect not in answer or bool(result.is_error) != (step.expect == "error"):
                raise DemoFailed(f"{step.tool} gave {answer} instead of {step.expect!r}.")
            kept[step.keep] = answer[step.expect]
            show.answer(step, answer)
    show.farewell()


class _Prose:
    """For people: colour and progress on a terminal, plain text elsewhere."""

    def __init__(self) -> None:
        self._live = sys.stdout.isatty()

    def welcome(self, protocol: str, tools: int) -> None:
        click.secho("An agent's day on the iTwin Platform", bold=True)
        click.echo("The official MCP client talks over stdio to `itwin-mcp serve --sandbox`, an emulated platform.")
        click.echo(f"Protocol {protocol}, {tools} tools. Nothing leaves this machine.")

    def ask(self, number: int, step: Step, arguments: JSON) -> None:
        click.echo()
        click.secho(f"{number}. {step.asks}", bold=True)
        given = ", ".join(f"{name}={value!r}" for name, value in arguments.items())
        click.echo("   " + click.style("→ ", fg="cyan") + click.style(step.tool, fg="cyan") + f"({given})")

    async def progress(self, progress: float, total: float | None, message: str | None) -> None:
        if self._live and message:
            click.echo("\r\x1b[K   " + click.style(f"… {message}", dim=True), nl=False)

    def answer(self, step: Step, answer: JSON) -> None:
        if self._live:
            click.echo("\r\x1b[K", nl=False)
        for line in step.tell(answer[step.expect]):
            click.echo("   " + click.style("← ", fg="red" if step.expect == "error" else "green") + line)

    def farewell(self) -> None:
        click.echo()
        click.secho("Every step gave what it should.", fg="green", bold=True)
        click.echo("Next, give these tools to your own assistant. Type here:")
        click.echo("  itwin-mcp install claude-desktop --sandbox    (or claude-code, vscode, cursor)")
        click.echo("Then ask it:")
        click.echo(f"  {QUESTION}")


class _Json:
    """For programs: one JSON object a line."""

    def welcome(self, protocol: str, tools: int) -> None:
        self._print({"protocol": protocol, "tools": tools})

    def ask(self, number: int, step: Step, arguments: JSON) -> None:
        self._asked = {"step": number, "asks": step.asks, "tool": step.tool, "arguments": arguments}

    async def progress(self, progress: float, total: float | None, message: str | None) -> None:
        """Programs are told what came of a step, not how far it is."""

    def answer(self, _: Step, answer: JSON) -> None:
        self._print({**self._asked, "answer": answer})

    def farewell(self) -> None:
        self._print({"ok": True})

    def _print(self, value: JSON) -> None:
        import json

        click.echo(json.dumps(value, ensure_ascii=False))


def _itwins(found: list[JSON]) -> list[str]:
    return [f"{one['displayName']}  ({one['subClass']} {one['number']})" for one in found]


def _itwin(found: JSON) -> list[str]:
    place = found["geographicLocation"] or "no place"
    return [f"{found['displayName']}: {found['status']}, {place}", f"data kept in {found['dataCenterLocation']}"]


def _imodel(found: JSON) -> list[str]:
    return [f"{found['name']} is {found['state']}", f"id {found['id']}"]


def _version(found: JSON) -> list[str]:
    return [f"{found['name']!r} marks changeset index {found['changesetIndex']:.0f}, {found['state']}"]


def _error(found: JSON) -> list[str]:
    return [
        f"{found['code']} (HTTP {found['status']}): {found['message']}",
        f"retryable: {str(found['retryable']).lower()}",
        f"hint: {found['hint']}",
    ]


NAME = "Pier 7 condition model"

STEPS = (
    Step(
        "Which projects did I work on lately?",
        "list-recent-itwins",
        lambda _: {"limit": 5},
        "iTwins",
        _itwins,
        "recent",
    ),
    Step(
        "Tell me about the first one.",
        "get-itwin",
        lambda kept: {"iTwinId": kept["recent"][0]["id"]},
        "iTwin",
        _itwin,
        "itwin",
    ),
    Step(
        "Make an iModel in it, and wait until it is initialized.",
        "create-imodel",
        lambda kept: {"iTwinId": kept["itwin"]["id"], "name": NAME, "description": "Cracks and corrosion, 2026"},
        "iModel",
        _imodel,
        "imodel",
    ),
    Step(
        "Fork it, so that the contractor can work on it.",
        "fork-imodel",
        lambda kept: {
            "iModelId": kept["imodel"]["id"],
            "iTwinId": kept["itwin"]["id"],
            "name": f"{NAME} (contractor)",
        },
        "iModel",
        _imodel,
        "fork",
    ),
    Step(
        "Tag the fork's beginning as a version.",
        "create-named-version",
        lambda kept: {"iModelId": kept["fork"]["id"], "name": "Handed over", "description": "As received"},
        "namedVersion",
        _version,
        "version",
    ),
    Step(
        "Make another iModel of the same name. (The platform refuses; this is what an agent reads.)",
        "create-imodel",
        lambda kept: {"iTwinId": kept["itwin"]["id"], "name": NAME},
        "error",
        _error,
        "error",
    ),
)
