"""A local file to or from a storage link that a step gave: streamed, told to the person, never in an answer."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from itwin_mcp.capability.expressions import evaluate
from itwin_mcp.capability.parameters import FILE_PATH, OVERWRITE
from itwin_mcp.capability.plans import TransferPlan
from itwin_mcp.capability.transfers import FILE
from itwin_mcp.errors import CallError, UnexpectedAnswer
from itwin_mcp.executor.sending import Run
from itwin_mcp.upstream.naming import Standing

_STEPS_TOLD = 40
_LEAST_TOLD = 1 << 20
"""Progress is told about so many times, and not for every little piece."""


def local_file(plan: TransferPlan, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """What the steps know of the local file before it moves. Raises InvalidArguments."""
    path = Path(arguments[FILE_PATH])
    known: dict[str, Any] = {"name": path.name, "path": str(path)}
    return known | {"size": path.stat().st_size} if plan.direction == "upload" else known


def replaceable(arguments: Mapping[str, Any]) -> Standing | None:
    """The local file that the person agreed to lose, as it stands now; None where they agreed to none."""
    return Standing.at(Path(arguments[FILE_PATH])) if arguments.get(OVERWRITE) else None


async def move_file(
    run: Run,
    plan: TransferPlan,
    arguments: Mapping[str, Any],
    results: Mapping[str, Any],
    replaces: Standing | None,
) -> dict[str, Any]:
    """Move the file; gives what the later steps know of it. A download may take the place of what it `replaces`.

    Raises an error of the CallError family, which says what stays on the platform.
    """
    assert run.storage is not None
    file = results[FILE]
    path, told = Path(file["path"]), _Told(run, plan.direction, file["name"])
    try:
        link = evaluate(plan.link, arguments, results)
        if not isinstance(link, str):
            raise _no_link(plan)
        if plan.direction == "upload":
            size = await run.storage.upload(link, path, headers=plan.headers, progress=told)
            if size != file["size"]:
                raise _changed(file["size"], size)
        else:
            expected = evaluate(plan.size, arguments, results) if plan.size is not None else None
            size = await run.storage.download(
                link,
                path,
                size=expected if type(expected) is int else None,
                replaces=replaces,
                progress=told,
            )
    except CallError as error:
        if plan.left is not None:
            error.hint = f"{plan.left} {error.hint}"
        raise
    return {**file, "size": size}


class _Told:
    """Progress in bytes, told in steps that a person can follow."""

    def __init__(self, run: Run, direction: str, name: str) -> None:
        self._run = run
        self._verb = "sent" if direction == "upload" else "received"
        self._name = name
        self._next = 0

    async def __call__(self, done: int, total: int | None) -> None:
        if done < self._next and done != total:
            return
        self._next = done + max((total or 0) // _STEPS_TOLD, _LEAST_TOLD)
        of = f" of {_megabytes(total)}" if total is not None else ""
        await self._run.conversation.progress(done, total, f"{self._name}: {_megabytes(done)}{of} MB {self._verb}")


def _megabytes(count: int) -> str:
    return f"{count / 1_000_000:.1f}"


def _no_link(plan: TransferPlan) -> UnexpectedAnswer:
    return UnexpectedAnswer(
        f"The platform's answer has no link to {plan.direction} the file: {plan.link.path.text} is not there.",
        hint="It may not be ready yet, or you may not have the permission for it (imodels_read for iModels).",
    )


def _changed(before: int, after: int) -> UnexpectedAnswer:
    return UnexpectedAnswer(
        f"The file changed while it was sent: it had {before} bytes and then {after}.",
        hint="Call again when nothing writes to it.",
    )
