"""Output that several commands share: JSON, lists of files, and problems in files."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from itwin_mcp.errors import Problem


def json_option(help: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Return the option `--json`, which a command receives as `as_json`."""
    return click.option("--json", "as_json", is_flag=True, help=help)


def print_json(value: Any) -> None:
    click.echo(json.dumps(value, indent=2, ensure_ascii=False))


def print_files(files: Iterable[Path], as_json: bool) -> None:
    """Print the paths of files that were written: one per line, or all as JSON."""
    paths = [str(file) for file in files]
    if as_json:
        print_json({"files": paths})
    else:
        click.echo("\n".join(paths))


def print_problems(problems: Sequence[Problem], as_json: bool) -> None:
    """Print problems in files: one per line, or all as JSON."""
    if as_json:
        print_json({"problems": [asdict(problem) for problem in problems]})
        return
    for problem in problems:
        click.echo(str(problem))
    click.echo(f"{len(problems)} problem{'s' if len(problems) != 1 else ''}.", err=True)
