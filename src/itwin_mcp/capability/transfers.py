"""`x-transfer`: which step gives the storage link of a tool's local file, checked against the linked steps."""

from __future__ import annotations

from typing import Literal

from itwin_mcp.capability.expressions import Path, StepValue
from itwin_mcp.capability.extensions import Transfer
from itwin_mcp.capability.place import Place
from itwin_mcp.capability.plans import Action, CallStep, Condition, Steps, TransferPlan
from itwin_mcp.capability.suggestions import there_is

FILE = "file"
"""What the steps of a tool with `x-transfer` call its local file."""
FACTS = ("name", "path", "size")
"""What they can say of it."""


def link_transfer(transfer: Transfer, action: Action, place: Place) -> TransferPlan | None:
    """The compiled transfer; None, and the problems reported, where it cannot be."""
    if not isinstance(action, Steps):
        place.report("x-transfer", "a file moves between steps: write the `call` as a step")
        return None
    if any(isinstance(step, CallStep) and step.operation.file is not None for step in action.steps):
        place.report("x-transfer", "the tool sends its file with x-body already: remove x-transfer")
    direction: Literal["upload", "download"] = "upload" if transfer.upload is not None else "download"
    link = _value(transfer.upload or transfer.download or "", action, place.at(direction))
    size = None if transfer.size is None else _value(transfer.size, action, place.at("size"))
    if link is None or (size is None and transfer.size is not None):
        return None
    names = [step.name for step in action.steps]
    if size is not None and names.index(size.step) > names.index(link.step):
        place.at("size").report("x-transfer", f"the step {size.step!r} comes after the file has moved")
    if transfer.left is None and any(
        isinstance(step, CallStep) and step.operation.method != "GET" for step in action.steps
    ):
        place.report("x-transfer", "say with `left` what a failed transfer leaves on the platform, and the next step")
    return TransferPlan(direction, link, tuple(transfer.headers.items()), transfer.most, size, transfer.left)


def _value(text: str, action: Steps, place: Place) -> StepValue | None:
    path = place.path_of(text)
    if path is None:
        return None
    if path.many or not path.parts or not isinstance(path.parts[0], str):
        place.report("x-transfer", f"{text[:80]!r} must be `$.`, the name of a step, and plain keys and indexes")
        return None
    calls = {step.name: step for step in action.steps if isinstance(step, CallStep)}
    step = calls.get(path.parts[0])
    if step is None:
        place.report("x-transfer", f"there is no call step {path.parts[0]!r}: {there_is(calls, path.parts[0])}")
        return None
    if step.each is not None or step.repeat is not None or step.tolerate or step.condition != Condition():
        message = f"the step {step.name!r} may run not at all or many times: it needs to give one link"
        place.report("x-transfer", message)
    return StepValue(step.name, Path(text, path.parts[1:]))


def check_fact(path: Path, place: Place) -> None:
    """Report what the file cannot tell."""
    fact = path.parts[0] if len(path.parts) == 1 else None
    if fact not in FACTS:
        message = f"{FILE!r} says {', '.join(FACTS)}: write one of them, such as {{{{{FILE}.size}}}}"
        place.report("x-transfer", message)
