"""Compiler of `x-transfer`: uploads and downloads of local files through a storage link that a step returns."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from itwin_mcp.capability.expressions import JsonPath, StepValue
from itwin_mcp.capability.tool_actions import Action, CallStep, Condition, Steps, TransferPlan

if TYPE_CHECKING:
    from itwin_mcp.capability.documents import Place
    from itwin_mcp.capability.extensions import Transfer

FILE = "file"
"""The name by which the steps of a tool with `x-transfer` refer to its local file."""
FACTS = ("name", "path", "size")
"""The members of the local file that steps can refer to."""


def compile_transfer(transfer: Transfer, action: Action, place: Place) -> TransferPlan | None:
    """Compile a transfer. If it cannot be compiled, report problems and return None."""
    if not isinstance(action, Steps):
        place.report("x-transfer", "needs `steps`, between which the file moves: write the `call` as a step")
        return None
    if any(isinstance(step, CallStep) and step.operation.file is not None for step in action.steps):
        place.report("x-transfer", "the tool already sends its file with x-body: remove x-transfer")
    direction: Literal["upload", "download"] = "upload" if transfer.upload is not None else "download"
    link = _compile_step_value(transfer.upload or transfer.download or "", action, place.at(direction))
    size = None if transfer.size is None else _compile_step_value(transfer.size, action, place.at("size"))
    if link is None or (size is None and transfer.size is not None):
        return None
    names = [step.name for step in action.steps]
    if size is not None and names.index(size.step) > names.index(link.step):
        place.at("size").report("x-transfer", f"the step {size.step!r} runs after the transfer: use an earlier one")
    if transfer.left is None and any(
        isinstance(step, CallStep) and step.operation.method != "GET" for step in action.steps
    ):
        place.report(
            "x-transfer", "describe with `left` what a failed transfer leaves on the platform, and what to do next"
        )
    return TransferPlan(direction, link, tuple(transfer.headers.items()), transfer.most, size, transfer.left)


def _compile_step_value(text: str, action: Steps, place: Place) -> StepValue | None:
    path = place.compile_path(text)
    if path is None:
        return None
    if path.many or not path.parts or not isinstance(path.parts[0], str):
        place.report("x-transfer", f"{text[:80]!r} must be `$.`, the name of a step, and plain keys and indexes")
        return None
    calls = {step.name: step for step in action.steps if isinstance(step, CallStep)}
    if not place.check_known(path.parts[0], calls, "x-transfer", "there is no call step"):
        return None
    step = calls[path.parts[0]]
    if step.each is not None or step.repeat is not None or step.tolerate or step.condition != Condition():
        place.report("x-transfer", f"the step {step.name!r} may be skipped or repeated: it must return one link")
    return StepValue(step.name, JsonPath(text, path.parts[1:]))


def check_file_fact(path: JsonPath, place: Place) -> None:
    """Report a path that is not one of FACTS."""
    fact = path.parts[0] if len(path.parts) == 1 else None
    if fact not in FACTS:
        message = f"{FILE!r} has {', '.join(FACTS)}: write one of them, such as {{{{{FILE}.size}}}}"
        place.report("x-transfer", message)
