"""Every exception that this package raises on purpose, and the codes that agents read.

ItwinMcpError
├── ConfigurationError          the process does not start and exits with 2
│   ├── SettingsError           a flag or environment variable cannot be used
│   └── FileRefused             files broke rules: each with file, line and rule
│       ├── CapabilityError     capability files
│       └── PolicyError         the policy file
└── CallError                   one call failed; it becomes the answer's `error`
    ├── InvalidArguments        the arguments do not fit; nothing was sent
    ├── PolicyRefused           the policy does not allow the call, or not now
    ├── AuditFailed             the audit log cannot be written, so the write was not made
    ├── Declined                the user said no
    ├── StateUnusable           the state folder cannot be read or written
    ├── NotSignedIn             there is no credential, or the platform refuses it
    ├── PlatformError           the platform refused, in its own words
    ├── Unreachable             no complete answer arrived: network, deadline, half a body
    ├── UnexpectedAnswer        the answer is not what the operation returns
    ├── AnswerTooLarge          the answer exceeds the size limit, even shortened
    └── JobFailed               the platform's asynchronous job failed
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Self


class ItwinMcpError(Exception):
    """The root of every error that this package raises on purpose."""


class ConfigurationError(ItwinMcpError):
    """A setting or file cannot be used, so nothing is served."""


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
    """Files broke rules. `problems` lists every broken rule, sorted by file and line."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems: tuple[Problem, ...] = tuple(sorted(problems))
        super().__init__("\n".join(str(problem) for problem in self.problems))


class CapabilityError(FileRefused):
    """Capability files broke rules."""


class PolicyError(FileRefused):
    """The policy file broke rules."""


class ErrorCode(StrEnum):
    """Our own error codes.

    The platform's codes are passed on unchanged, and a capability file may add codes (`x-require`).
    """

    INVALID_ARGUMENTS = "InvalidArguments"
    AMBIGUOUS_NAME = "AmbiguousName"
    NAME_NOT_FOUND = "NameNotFound"
    KEPT_ELSEWHERE = "KeptElsewhere"
    """The data is on a server that this server does not call."""
    NOT_SIGNED_IN = "NotSignedIn"
    SIGN_IN_UNREACHABLE = "SignInUnreachable"
    SIGN_IN_BUSY = "SignInBusy"
    """Another process has locked the saved login."""
    CONNECTION_FAILED = "ConnectionFailed"
    """Nothing was sent."""
    CONNECTION_LOST = "ConnectionLost"
    TIMED_OUT = "TimedOut"
    BUSY = "Busy"
    RATE_LIMITED = "RateLimited"
    TRANSFER_BROKEN = "TransferBroken"
    UNEXPECTED_ANSWER = "UnexpectedAnswer"
    ANSWER_TOO_LARGE = "AnswerTooLarge"
    JOB_FAILED = "JobFailed"
    RIGHTS_UNKNOWN = "RightsUnknown"
    """The users' permissions cannot be read, so they cannot be preserved."""
    POLICY_REFUSED = "PolicyRefused"
    BUDGET_SPENT = "BudgetSpent"
    AUDIT_FAILED = "AuditFailed"
    STATE_UNUSABLE = "StateUnusable"
    DECLINED = "Declined"
    CANCELLED = "Cancelled"
    NAME_MISMATCH = "NameMismatch"
    CONFIRMATION_EXPIRED = "ConfirmationExpired"
    CONFIRMATION_USED = "ConfirmationUsed"
    CONFIRMATION_INVALID = "ConfirmationInvalid"
    INSUFFICIENT_SCOPE = "InsufficientScope"
    NO_KEYS = "NoKeys"
    OFFLINE = "Offline"
    INTERNAL_ERROR = "InternalError"


class DetailCode(StrEnum):
    """Our own codes in the `details` of an error: what is wrong with one argument."""

    INVALID_ARGUMENT = "InvalidArgument"
    MISSING_ARGUMENT = "MissingArgument"
    UNKNOWN_ARGUMENT = "UnknownArgument"
    MUTUALLY_EXCLUSIVE = "MutuallyExclusive"


class CallError(ItwinMcpError):
    """One call failed: what happened, and what the agent can do next.

    An error is not changed after it was raised: to add to it, raise an `amended` copy.
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
        self.code = str(code)
        """An ErrorCode, a code of the platform, or one of a capability file."""
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
        """The writes of earlier steps of a flow, before this step failed: `{step, ids}`."""

    def amended(
        self,
        *,
        before: str = "",
        after: str = "",
        hint: str | None = None,
        details: Sequence[Mapping[str, Any]] | None = None,
        members: Mapping[str, Any] | None = None,
        completed: Sequence[Mapping[str, Any]] | None = None,
        correlation_id: str | None = None,
    ) -> Self:
        """Return a changed copy. This error is not changed, because several calls may share it.

        `hint` replaces the hint; `before` and `after` are put around it. `members` are added. `details` and `completed`
        replace the previous values. `correlation_id` is used if the error has none.
        """
        copy = self.__class__.__new__(self.__class__)
        copy.args, copy.__traceback__ = self.args, self.__traceback__
        copy.__dict__.update(self.__dict__)
        copy.hint = " ".join(part for part in (before, self.hint if hint is None else hint, after) if part)
        if details is not None:
            copy.details = tuple(dict(detail) for detail in details)
        copy.members = {**self.members, **(members or {})}
        if completed is not None:
            copy.completed = tuple(completed)
        copy.correlation_id = self.correlation_id or correlation_id
        return copy

    def to_json(self, operation: str) -> dict[str, Any]:
        """Return the `error` member of an answer. `operation` names the tool or resource that was called."""
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
    """The arguments do not match the published schema or an entity's pattern. No request was sent."""

    def __init__(self, message: str, *, hint: str, details: Sequence[Mapping[str, Any]] = ()) -> None:
        super().__init__(ErrorCode.INVALID_ARGUMENTS, message, hint=hint, details=details)


class PolicyRefused(CallError):
    """The policy does not allow this caller the request, which was not sent.

    With `retry_after` an hourly budget is used up (code BudgetSpent). The call may be retried after that many seconds.
    """

    def __init__(self, message: str, *, hint: str, retry_after: float | None = None) -> None:
        code = ErrorCode.POLICY_REFUSED if retry_after is None else ErrorCode.BUDGET_SPENT
        super().__init__(code, message, hint=hint, retryable=retry_after is not None, retry_after=retry_after)


class AuditFailed(CallError):
    """The audit log cannot be written, so the write was not sent."""

    def __init__(self) -> None:
        super().__init__(
            ErrorCode.AUDIT_FAILED,
            "The audit log cannot be written, and without it nothing is changed; nothing was sent.",
            hint="Whoever runs this server must make the file of ITWIN_MCP_AUDIT_LOG writable; its log names it.",
        )


class Declined(CallError):
    """The user did not confirm: they declined, closed the question, or typed another name."""


class StateUnusable(CallError):
    """The state folder cannot be read or written, so cursors cannot be sealed and questions cannot be saved."""

    def __init__(self) -> None:
        super().__init__(
            ErrorCode.STATE_UNUSABLE,
            "The folder where this server keeps its keys and questions cannot be used; nothing was sent.",
            hint="Whoever runs this server must make the folder of ITWIN_MCP_STATE_DIR writable; its log names it.",
        )


class NotSignedIn(CallError):
    """No credential is configured, or the platform answered 401 to the configured one."""

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
            ErrorCode.NOT_SIGNED_IN, message, hint=hint, status=status, details=details, correlation_id=correlation_id
        )


class PlatformError(CallError):
    """The platform refused; code, message, target and details are its own."""


class Unreachable(CallError):
    """No complete answer arrived. With `outcome_unknown`, a write may have been carried out nevertheless."""

    def __init__(
        self,
        code: str,
        message: str,
        *,
        hint: str,
        retryable: bool = True,
        retry_after: float | None = None,
        outcome_unknown: bool = False,
    ) -> None:
        super().__init__(
            code,
            message,
            hint=hint,
            retryable=retryable and not outcome_unknown,
            retry_after=retry_after,
            members={"outcomeUnknown": True} if outcome_unknown else None,
        )
        self.outcome_unknown = outcome_unknown


class UnexpectedAnswer(CallError):
    """The answer does not fit the operation: HTML, invalid JSON, or a field of the wrong type."""

    def __init__(
        self, message: str, *, hint: str, status: int | None = None, correlation_id: str | None = None
    ) -> None:
        super().__init__(ErrorCode.UNEXPECTED_ANSWER, message, hint=hint, status=status, correlation_id=correlation_id)


class JobFailed(CallError):
    """The platform's asynchronous job did not succeed."""

    def __init__(
        self,
        message: str,
        *,
        hint: str,
        details: Sequence[Mapping[str, Any]] = (),
        members: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(ErrorCode.JOB_FAILED, message, hint=hint, details=details, members=members)


class AnswerTooLarge(CallError):
    """The answer exceeds the size limit, even after everything that can be left out is gone.

    With `wrote`, the call changed something, and the hint warns against repeating it.
    """

    def __init__(self, size: int, limit: int, *, wrote: bool = False) -> None:
        done = "The change was made; read what it concerns instead of repeating the call. " if wrote else ""
        super().__init__(
            ErrorCode.ANSWER_TOO_LARGE,
            f"The answer has {size} bytes, more than the limit of {limit}, even without what can be left out.",
            hint=f"{done}Ask for less where an argument lets you. Whoever runs this server can raise the limit with "
            "ITWIN_MCP_MAX_RESULT_BYTES.",
        )
