"""Recognizes operations that start a job, and the operation that shows its state."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from itwin_mcp.capability.openapi_import.definition import as_list, as_map
from itwin_mcp.capability.openapi_import.page_patterns import normalize
from itwin_mcp.capability.openapi_import.schemas import SchemaReader, Shape, write_path

_STATE_NAMES = frozenset({"state", "status", "jobstate", "jobstatus", "runstate", "runstatus", "operationstate"})
_HANDLE_HEADERS = ("Location", "Operation-Location", "Azure-AsyncOperation")
_PENDING = frozenset(
    [
        "accepted",
        "active",
        "cancelling",
        "canceling",
        "executing",
        "initializing",
        "inprogress",
        "notstarted",
        "pending",
        "processing",
        "queued",
        "running",
        "scheduled",
        "started",
        "starting",
        "submitted",
        "validating",
        "waiting",
        "working",
    ]
)
_DONE = frozenset(["complete", "completed", "done", "finished", "ok", "ready", "succeeded", "success", "successful"])
_FAILED = frozenset(
    [
        "aborted",
        "canceled",
        "cancelled",
        "error",
        "errored",
        "expired",
        "failed",
        "failure",
        "rejected",
        "terminated",
        "timedout",
        "timeout",
    ]
)


@dataclass(frozen=True, slots=True)
class JobStates:
    """Where an answer shows the state of a job, and what the states mean."""

    path: tuple[str, ...]
    pending: Sequence[str]
    done: Sequence[str]
    failed: Sequence[str]
    unknown: Sequence[str]


def find_states(reader: SchemaReader, answer: Shape) -> JobStates | None:
    """Return the states in an answer: a member such as `status` whose values begin, run and end a job."""
    for names, shape in reader.walk_members(answer, 2):
        if normalize(names[-1]) not in _STATE_NAMES or shape.type != "string":
            continue
        words = [word for word in as_list(shape.schema.get("enum")) if isinstance(word, str)]
        sorted_words = {
            kind: [word for word in words if normalize(word) in kind] for kind in (_PENDING, _DONE, _FAILED)
        }
        pending, done, failed = sorted_words[_PENDING], sorted_words[_DONE], sorted_words[_FAILED]
        if pending and done and write_path(*names) is not None:
            unknown = [word for word in words if word not in (*pending, *done, *failed)]
            return JobStates(names, pending, done, failed, unknown)
    return None


def find_handle_header(response: Mapping[str, Any]) -> str | None:
    """Return the header of an answer that links the job."""
    headers = {name.lower() for name in as_map(response.get("headers"))}
    return next((name for name in _HANDLE_HEADERS if name.lower() in headers), None)


def find_id(reader: SchemaReader, answer: Shape, beside: tuple[str, ...] | None) -> tuple[str, ...] | None:
    """Return where an answer has the id of the job: next to its state, or at its top."""
    wrapper = beside[:-1] if beside is not None else ()
    members = dict(reader.walk_members(answer, 2))
    for names in ((*wrapper, "id"), ("id",)):
        if names in members and members[names].type in ("string", "integer"):
            return names
    return None


def write_wait(states: JobStates, handle: Mapping[str, str], poll: str, check: str, subject: str) -> dict[str, Any]:
    """Return `x-wait`."""
    wait: dict[str, Any] = {
        "handle": dict(handle),
        "poll": poll,
        "state": write_path(*states.path),
        "pending": list(states.pending),
        "done": list(states.done),
    }
    return wait | ({"failed": list(states.failed)} if states.failed else {}) | {"subject": subject, "check": check}
