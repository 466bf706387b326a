"""Check that the command lines in documents are valid commands of itwin-mcp."""

import itertools
import re
import shlex
from collections.abc import Iterator

import click

from itwin_mcp.cli import group
from tests.house.documents import Block, blocks, read_prose, shell_lines

OURS = re.compile(r"(?:\S*[/\\])?itwin-mcp(?:\.exe)?")
OPTION = re.compile(r"--[a-z][a-z-]*")


def walk_commands() -> Iterator[tuple[str, click.Command]]:
    """Yield every command and group of itwin-mcp with its name, such as `auth login`."""
    context = click.Context(group)
    pending: list[tuple[str, click.Command]] = [("", group)]
    while pending:
        name, command = pending.pop()
        yield name.strip(), command
        if isinstance(command, click.Group):
            for word in command.list_commands(context):
                subcommand = command.get_command(context, word)
                assert subcommand is not None
                pending.append((f"{name} {word}", subcommand))


def get_options(command: click.Command) -> dict[str, click.Parameter]:
    parameters = command.get_params(click.Context(command))
    return {name: parameter for parameter in parameters for name in [*parameter.opts, *parameter.secondary_opts]}


def find_command_fault(line: str) -> str | None:
    """Return the error in a shell line that calls itwin-mcp, or None if it is valid or calls another program."""
    words = shlex.split(line.replace("\\", "/"), comments=True)
    while words and re.match(r"[A-Z_]+=", words[0]):
        words.pop(0)
    if not words or not OURS.fullmatch(words[0]):
        return None
    command: click.Command = group
    arguments = itertools.takewhile(lambda word: word not in ("&", ">", "2>", "|"), words[1:])
    for word in arguments:
        name, _, value = word.partition("=")
        if word.startswith("-"):
            option = get_options(command).get(name)
            if option is None:
                return f"{command.name} has no option {name}"
            if not getattr(option, "is_flag", False):
                value = value or next(arguments, "")
            if isinstance(option.type, click.Choice) and value not in option.type.choices:
                return f"{name} cannot be {value}"
        elif isinstance(command, click.Group):
            subcommand = command.get_command(click.Context(command), word)
            if subcommand is None:
                return f"{command.name} has no command {word}"
            command = subcommand
        else:
            types = [parameter.type for parameter in command.params if isinstance(parameter, click.Argument)]
            if not types:
                return f"{command.name} has no argument {word}"
            if isinstance(types[0], click.Choice) and word not in types[0].choices:
                return f"{command.name} does not accept {word}"
    return None


def find_command_lines(document: str) -> Iterator[tuple[int, str]]:
    """Yield the lines of shell blocks and the code spans of running text, with their line numbers."""
    for block in blocks(document):
        if block.language in ("sh", "powershell"):
            yield from _numbered(block)
    for number, line in enumerate(read_prose(document).splitlines(), 1):
        for span in re.findall(r"`([^`]+)`", line):
            yield number, span


def _numbered(block: Block) -> Iterator[tuple[int, str]]:
    for line in shell_lines(block):
        for part in re.split(r" && ", line):
            yield block.line, part
