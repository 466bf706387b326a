"""`itwin-mcp demo`: watch an agent work in the embedded sandbox, over the real protocol."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import click

from itwin_mcp.cli.install import QUESTION
from itwin_mcp.cli.output import json_option

JSON = dict[str, Any]


class DemoFailed(Exception):
    """A step had an unexpected result; the message names the step and its answer."""


@dataclass(frozen=True, slots=True)
class Step:
    """One question and the tool call that answers it."""

    question: str
    tool: str
    build_arguments: Callable[[Mapping[str, Any]], JSON]
    """Builds the arguments from the results of earlier steps."""
    expected: str
    """The member that the answer must have."""
    describe: Callable[[Any], list[str]]
    """Describes that member in a few lines."""
    result_name: str
    """The key of that member in the results that later steps get."""


@click.command("demo")
@json_option("Print one JSON object per step instead of text.")
def command(as_json: bool) -> None:
    """Watch an agent work: the official MCP client calls the embedded sandbox over stdio.

    Nothing leaves this computer and no account is needed. Exits with 1 if a step has an unexpected result.

    \b
    Examples:
      itwin-mcp demo
      itwin-mcp demo --json
    """
    import anyio
    from mcp import MCPError

    try:
        anyio.run(_run_steps, as_json)
    except* (DemoFailed, MCPError) as errors:
        click.echo(f"\nThe demo failed: {errors.exceptions[0]}", err=True)
        sys.exit(1)


async def _run_steps(as_json: bool) -> None:
    from mcp import Client, StdioServerParameters, stdio_client

    output = _JsonOutput() if as_json else _TextOutput()
    server = StdioServerParameters(command=sys.executable, args=["-m", "itwin_mcp", "serve", "--sandbox"])
    async with Client(stdio_client(server)) as client:
        output.start(client.protocol_version, len((await client.list_tools()).tools))
        results: dict[str, Any] = {}
        for number, step in enumerate(STEPS, 1):
            arguments = step.build_arguments(results)
            output.show_call(number, step, arguments)
            result = await client.call_tool(step.tool, arguments, progress_callback=output.show_progress)
            answer: JSON = result.structured_content or {}
            if step.expected not in answer or bool(result.is_error) != (step.expected == "error"):
                raise DemoFailed(f"{step.tool} returned {answer} instead of {step.expected!r}.")
            results[step.result_name] = answer[step.expected]
            output.show_answer(step, answer)
    output.finish()


class _TextOutput:
    """Text for people, with color and progress on a terminal."""

    def __init__(self) -> None:
        self._is_terminal = sys.stdout.isatty()

    def start(self, protocol: str, tools: int) -> None:
        click.secho("An agent at work on the iTwin Platform", bold=True)
        click.echo("The official MCP client calls `itwin-mcp serve --sandbox`, an emulated platform, over stdio.")
        click.echo(f"Protocol {protocol}, {tools} tools. Nothing leaves this computer.")

    def show_call(self, number: int, step: Step, arguments: JSON) -> None:
        click.echo()
        click.secho(f"{number}. {step.question}", bold=True)
        values = ", ".join(f"{name}={value!r}" for name, value in arguments.items())
        click.echo("   " + click.style(f"→ {step.tool}", fg="cyan") + f"({values})")

    async def show_progress(self, progress: float, total: float | None, message: str | None) -> None:
        if self._is_terminal and message:
            click.echo("\r\x1b[K   " + click.style(f"… {message}", dim=True), nl=False)

    def show_answer(self, step: Step, answer: JSON) -> None:
        if self._is_terminal:
            click.echo("\r\x1b[K", nl=False)
        for line in step.describe(answer[step.expected]):
            click.echo("   " + click.style("← ", fg="red" if step.expected == "error" else "green") + line)

    def finish(self) -> None:
        click.echo()
        click.secho("Every step had the expected result.", fg="green", bold=True)
        click.echo("Next, connect your own assistant:")
        click.echo("  itwin-mcp install claude-desktop --sandbox    (or claude-code, vscode, cursor)")
        click.echo("Then ask it:")
        click.echo(f"  {QUESTION}")


class _JsonOutput:
    """One JSON object per line, for programs."""

    def start(self, protocol: str, tools: int) -> None:
        self._print({"protocol": protocol, "tools": tools})

    def show_call(self, number: int, step: Step, arguments: JSON) -> None:
        self._call = {"step": number, "asks": step.question, "tool": step.tool, "arguments": arguments}

    async def show_progress(self, progress: float, total: float | None, message: str | None) -> None:
        """Show nothing, because programs read only results."""

    def show_answer(self, _: Step, answer: JSON) -> None:
        self._print({**self._call, "answer": answer})

    def finish(self) -> None:
        self._print({"ok": True})

    def _print(self, value: JSON) -> None:
        click.echo(json.dumps(value, ensure_ascii=False))


def _describe_itwins(itwins: list[JSON]) -> list[str]:
    return [f"{itwin['displayName']}  ({itwin['subClass']} {itwin['number']})" for itwin in itwins]


def _describe_itwin(itwin: JSON) -> list[str]:
    place = itwin["geographicLocation"] or "no location"
    return [f"{itwin['displayName']}: {itwin['status']}, {place}", f"data stored in {itwin['dataCenterLocation']}"]


def _describe_imodel(imodel: JSON) -> list[str]:
    return [f"{imodel['name']} is {imodel['state']}", f"id {imodel['id']}"]


def _describe_version(version: JSON) -> list[str]:
    return [f"{version['name']!r} marks changeset index {version['changesetIndex']:.0f}, {version['state']}"]


def _describe_error(error: JSON) -> list[str]:
    return [
        f"{error['code']} (HTTP {error['status']}): {error['message']}",
        f"retryable: {str(error['retryable']).lower()}",
        f"hint: {error['hint']}",
    ]


NAME = "Pier 7 condition model"

STEPS = (
    Step(
        "Which projects did I work on recently?",
        "list-recent-itwins",
        lambda _: {"limit": 5},
        "iTwins",
        _describe_itwins,
        "recent",
    ),
    Step(
        "Show me the first one.",
        "get-itwin",
        lambda results: {"iTwinId": results["recent"][0]["id"]},
        "iTwin",
        _describe_itwin,
        "itwin",
    ),
    Step(
        "Create an iModel in it, and wait until it is initialized.",
        "create-imodel",
        lambda results: {"iTwinId": results["itwin"]["id"], "name": NAME, "description": "Cracks and corrosion, 2026"},
        "iModel",
        _describe_imodel,
        "imodel",
    ),
    Step(
        "Fork it, so that the contractor can work on it.",
        "fork-imodel",
        lambda results: {
            "iModelId": results["imodel"]["id"],
            "iTwinId": results["itwin"]["id"],
            "name": f"{NAME} (contractor)",
        },
        "iModel",
        _describe_imodel,
        "fork",
    ),
    Step(
        "Mark the start of the fork as a named version.",
        "create-named-version",
        lambda results: {"iModelId": results["fork"]["id"], "name": "Handed over", "description": "As received"},
        "namedVersion",
        _describe_version,
        "version",
    ),
    Step(
        "Create another iModel of the same name. (The platform refuses; this is the error that an agent gets.)",
        "create-imodel",
        lambda results: {"iTwinId": results["itwin"]["id"], "name": NAME},
        "error",
        _describe_error,
        "error",
    ),
)
