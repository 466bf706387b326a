"""Every exception of ours.

ItwinMcpError
├── ConfigurationError          start-up refuses and exits 2
│   ├── SettingsError           a flag or environment variable cannot be used
│   └── FileRefused             files broke rules: file, line, rule for each
│       ├── CapabilityError     capability files
│       └── PolicyError         the policy file
├── Unconfirmed                 a call waits for the person's word; its preview is the answer
└── CallError                   one call failed; it becomes the answer's `error`
    ├── InvalidArguments        refused here, nothing was sent
    ├── PolicyRefused           the policy does not let this caller do it, or not now
    ├── AuditFailed             a write cannot be written down, and so is not made
    ├── NotSignedIn             there is no credential, or the platform no longer takes it
    ├── PlatformError           the platform refused, in its own words
    ├── Unreachable             no whole answer came: network, deadline, half a body
    ├── UnexpectedAnswer        an answer came that the operation does not give
    ├── AnswerTooLarge          the answer exceeds the size limit, whatever is left out
    └── JobFailed               the platform's asynchronous work ended badly
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any


class ItwinMcpError(Exception):
    """The root of every error that this package raises on purpose."""


class ConfigurationError(ItwinMcpError):
    """Something we were started with cannot be used; nothing is served."""


class SettingsError(ConfigurationError):
    """A flag or environment variable has a value that cannot be used."""


@dataclass(frozen=True, slots=True, order=True)
class Problem:
    """One broken rule in a file; `line` counts from 1."""

    file: str
    line: int
    rule: str
    message: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {self.message} [{self.rule}]"


class FileRefused(ConfigurationError):
    """Files that we were started with broke rules; `problems` holds every one that was found."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems: tuple[Problem, ...] = tuple(sorted(problems))
        super().__init__("\n".join(str(problem) for problem in self.problems))


class CapabilityError(FileRefused):
    """Capability files broke rules."""


class PolicyError(FileRefused):
    """The policy file broke rules."""


class Unconfirmed(ItwinMcpError):
    """The call waits for the person's word: nothing was changed, and `preview` is the answer.

    `asked` says whether the question waits somewhere for them.
    """

    def __init__(self, preview: Mapping[str, Any], *, asked: bool = True) -> None:
        super().__init__("not confirmed")
        self.preview = dict(preview)
        self.asked = asked


class CallError(ItwinMcpError):
    """One call failed: what happened, and what the agent can do next.

    `to_json` is the `error` member of an answer; its shape is the same for every error.
    """

    def __init__(
        self,
        code: str,
        message: str,
        *,
        hint: str,
        status: int | None = None,
        target: str | None = None,
        details: Sequence[Mapping[str, Any]] = (),
        retryable: bool = False,
        retry_after: float | None = None,
        correlation_id: str | None = None,
        members: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.hint = hint
        self.status = status
        self.target = target
        self.details = tuple(dict(detail) for detail in details)
        self.retryable = retryable
        self.retry_after = retry_after
        """Seconds."""
        self.correlation_id = correlation_id
        self.members = dict(members or {})
        """Further members of the platform's error object, such as `conflictingLocks`."""
        self.completed: tuple[Mapping[str, Any], ...] = ()
        """What earlier steps of a flow wrote before this one failed: `{step, ids}`."""

    def to_json(self, operation: str) -> dict[str, Any]:
        """The error as an agent reads it; `operation` names the tool or resource that was called."""
        body: dict[str, Any] = {"code": self.code, "message": self.message}
        if self.status is not None:
            body["status"] = self.status
        if self.target is not None:
            body["target"] = self.target
        body["details"] = [dict(detail) for detail in self.details]
        body.update(self.members)
        body["operation"] = operation
        body["retryable"] = self.retryable
        if self.retry_after is not None:
            body["retryAfterSeconds"] = self.retry_after
        if self.correlation_id is not None:
            body["correlationId"] = self.correlation_id
        body["hint"] = self.hint
        if self.completed:
            body["completed"] = [dict(step) for step in self.completed]
        return body


class InvalidArguments(CallError):
    """Arguments that the published schema or an entity's reading rules refuse; no request was sent."""

    def __init__(self, message: str, *, hint: str, details: Sequence[Mapping[str, Any]] = ()) -> None:
        super().__init__("InvalidArguments", message, hint=hint, details=details)


class PolicyRefused(CallError):
    """The policy does not let this caller do it; the request was not sent.

    With `retry_after` an hourly budget is spent (code BudgetSpent), and may be tried again after so many seconds.
    """

    def __init__(self, message: str, *, hint: str, retry_after: float | None = None) -> None:
        code = "PolicyRefused" if retry_after is None else "BudgetSpent"
        super().__init__(code, message, hint=hint, retryable=retry_after is not None, retry_after=retry_after)


class AuditFailed(CallError):
    """The audit log cannot be written, and without its line no write is sent."""

    def __init__(self) -> None:
        super().__init__(
            "AuditFailed",
            "The audit log cannot be written, and without it nothing is changed; nothing was sent.",
            hint="Whoever runs this server must make the file of ITWIN_MCP_AUDIT_LOG writable; its log names it.",
        )


class StateUnusable(CallError):
    """The state folder cannot be read or written: no cursor can be sealed, and no question kept."""

    def __init__(self) -> None:
        super().__init__(
            "StateUnusable",
            "The folder where this server keeps its keys and questions cannot be used; nothing was sent.",
            hint="Whoever runs this server must make the folder of ITWIN_MCP_STATE_DIR writable; its log names it.",
        )


class NotSignedIn(CallError):
    """No credential is configured, or the platform answered 401 to the one we have."""

    def __init__(
        self,
        message: str,
        *,
        hint: str,
        status: int | None = None,
        details: Sequence[Mapping[str, Any]] = (),
        correlation_id: str | None = None,
    ) -> None:
        super().__init__(
            "NotSignedIn", message, hint=hint, status=status, details=details, correlation_id=correlation_id
        )


class PlatformError(CallError):
    """The platform refused; code, message, target and details are its own."""


class Unreachable(CallError):
    """No whole answer came. `outcome_unknown` when a write may have been carried out all the same."""

    def __init__(
        self, code: str, message: str, *, hint: str, retryable: bool = True, outcome_unknown: bool = False
    ) -> None:
        super().__init__(
            code,
            message,
            hint=hint,
            retryable=retryable and not outcome_unknown,
            members={"outcomeUnknown": True} if outcome_unknown else None,
        )
        self.outcome_unknown = outcome_unknown


class UnexpectedAnswer(CallError):
    """An answer that is not what the operation gives: HTML, no JSON, a field of the wrong type."""

    def __init__(
        self, message: str, *, hint: str, status: int | None = None, correlation_id: str | None = None
    ) -> None:
        super().__init__("UnexpectedAnswer", message, hint=hint, status=status, correlation_id=correlation_id)


class JobFailed(CallError):
    """The platform's asynchronous work ended in a state that is not success."""

    def __init__(self, message: str, *, hint: str, members: Mapping[str, Any] | None = None) -> None:
        super().__init__("JobFailed", message, hint=hint, members=members)


class AnswerTooLarge(CallError):
    """The answer exceeds the size limit and nothing more can be left out of it.

    `wrote` says that the call changed something, so that it must not be repeated for the answer's sake.
    """

    def __init__(self, size: int, limit: int, *, wrote: bool = False) -> None:
        done = "The change was made; read what it concerns instead of repeating the call. " if wrote else ""
        super().__init__(
            "AnswerTooLarge",
            f"The answer has {size} bytes, more than the limit of {limit}, even without what can be left out.",
            hint=f"{done}Ask for less where an argument lets you. Whoever runs this server can raise the limit with "
            "ITWIN_MCP_MAX_RESULT_BYTES.",
        )
