"""Check that a command line in a document exists, with its options."""

import itertools
import re
import shlex
from collections.abc import Iterator

import click

from itwin_mcp.cli import group
from tests.house.documents import Block, blocks, prose, shell_lines

OURS = re.compile(r"(?:\S*[/\\])?itwin-mcp(?:\.exe)?")
OPTION = re.compile(r"--[a-z][a-z-]*")


def every_command() -> Iterator[tuple[str, click.Command]]:
    """Yield all our commands, groups included, with their words."""
    context = click.Context(group)
    waiting: list[tuple[str, click.Command]] = [("", group)]
    while waiting:
        name, command = waiting.pop()
        yield name.strip(), command
        if isinstance(command, click.Group):
            for verb in command.list_commands(context):
                found = command.get_command(context, verb)
                assert found is not None
                waiting.append((f"{name} {verb}", found))


def options_of(command: click.Command) -> dict[str, click.Parameter]:
    return {
        name: one for one in command.get_params(click.Context(command)) for name in [*one.opts, *one.secondary_opts]
    }


def complaint(line: str) -> str | None:
    """Return what is wrong with a line that calls us. None if it is right, or if it does not call us."""
    words = shlex.split(line.replace("\\", "/"), comments=True)
    while words and re.match(r"[A-Z_]+=", words[0]):
        words.pop(0)
    if not words or not OURS.fullmatch(words[0]):
        return None
    command: click.Command = group
    rest = itertools.takewhile(lambda word: word not in ("&", ">", "2>", "|"), words[1:])
    for word in rest:
        option, _, value = word.partition("=")
        if word.startswith("-"):
            found = options_of(command).get(option)
            if found is None:
                return f"{command.name} has no option {option}"
            given = "" if getattr(found, "is_flag", False) else value or next(rest, "")
            if isinstance(found.type, click.Choice) and given not in found.type.choices:
                return f"{option} cannot be {given}"
        elif isinstance(command, click.Group):
            verb = command.get_command(click.Context(command), word)
            if verb is None:
                return f"{command.name} has no command {word}"
            command = verb
        else:
            (choices,) = [one.type for one in command.params if isinstance(one, click.Argument)] or [None]
            if choices is None:
                return f"{command.name} takes no {word}"
            if isinstance(choices, click.Choice) and word not in choices.choices:
                return f"{command.name} knows no {word}"
    return None


def lines_in(document: str) -> Iterator[tuple[int, str]]:
    """Yield every line of a document that could call us, in blocks and in running text, with its number."""
    for block in blocks(document):
        if block.language in ("sh", "powershell"):
            yield from _numbered(block)
    for number, line in enumerate(prose(document).splitlines(), 1):
        for span in re.findall(r"`([^`]+)`", line):
            yield number, span


def _numbered(block: Block) -> Iterator[tuple[int, str]]:
    for line in shell_lines(block):
        for part in re.split(r" && ", line):
            yield block.line, part
