"""The platform's error codes with their HTTP status and message, and its error envelope.

A handler raises `ApiError("iModelNotFound")`, or collects several findings in `Problems` and calls `raise_if_any()`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, NoReturn

# Code -> (HTTP status, default message). Statuses marked I are inferred, see reference section 11, item 1.
ERRORS: Final[Mapping[str, tuple[int, str]]] = {
    "HeaderNotFound": (401, "Header Authorization was not found in the request. Access denied."),
    "InvalidAuthorizationScheme": (401, "Authorization scheme is not valid."),
    "Unauthorized": (
        401,
        "Access denied due to invalid access_token. Make sure that issuer is correct, "
        "the token is not expired and is not corrupted.",
    ),
    "InsufficientPermissions": (403, "The user has insufficient permissions for the requested operation."),
    # The gateway's answer to an unknown path, method or API version.
    "ResourceNotFound": (404, "The requested resource was not found. Verify the API URL and the Accept header."),
    "iTwinNotFound": (404, "Requested iTwin is not available."),
    "ImageNotFound": (404, "Requested image is not available."),
    "iTwinExportNotFound": (404, "Requested export job is not available."),
    "iTwinRepositoryNotFound": (404, "Requested iTwin Repository is not available."),
    "iTwinRepositoryResourceNotFound": (404, "Requested iTwin Repository Resource is not available."),
    "iModelNotFound": (404, "Requested iModel is not available."),
    "BriefcaseNotFound": (404, "Requested Briefcase is not available."),
    "ChangesetNotFound": (404, "Requested Changeset is not available."),
    "NamedVersionNotFound": (404, "Requested Named Version is not available."),
    "ChangesetGroupNotFound": (404, "Requested Changeset Group is not available."),
    "ChangesetExtendedDataNotFound": (404, "Requested Changeset Extended Data is not available."),
    "LockNotFound": (404, "Requested Lock(s) is not available."),
    "CheckpointNotFound": (404, "Requested Checkpoint is not available."),
    "UserNotFound": (404, "Requested User is not available."),
    "BaselineFileNotFound": (404, "Requested Baseline File is not available."),
    "FileNotFound": (404, "Requested File is not available."),
    "ShareNotFound": (404, "Requested Share is not available."),  # I
    # The Access Control API spells its own codes (get-iTwin-permissions, integration tests of its client).
    "ItwinNotFound": (404, "Requested iTwin is not available."),
    "TeamMemberNotFound": (404, "Requested team member is not available."),
    "RoleNotFound": (404, "Requested role is not available."),  # I
    "iTwinExists": (409, "An iTwin with the specified number or displayName already exists."),
    "iTwinRepositoryExists": (409, "The specified iTwin Repository already exists."),
    "iTwinRepositoryResourceExists": (409, "The specified iTwin Repository Resource already exists."),
    "iModelExists": (409, "iModel with the same name already exists in the iTwin."),  # I
    "iModelNotInitialized": (409, "iModel is not initialized."),  # I
    "NamedVersionExists": (409, "Named Version with the same name already exists."),  # I
    "NamedVersionOnChangesetExists": (409, "Named Version on the same Changeset already exists."),  # I
    "ChangesetExists": (409, "Changeset already exists."),  # I
    "ChangesetExtendedDataExists": (409, "Changeset Extended Data already exists."),  # I
    "ConflictWithAnotherUser": (409, "Lock(s) is owned by another Briefcase."),  # I
    "NewerChangesExist": (409, "One or more objects have been locked in a newer Changeset."),  # I
    "DataConflict": (409, "File size provided during iModel creation does not match actual file size."),
    "MethodNotAllowed": (405, "The method is not allowed."),
    "RequestTooLarge": (413, "The request is too large."),
    "InvalidThumbnailFormat": (415, "Thumbnail must be a png or jpeg image."),  # I
    "InvalidiTwinsRequest": (422, "Cannot query iTwins."),
    "InvalidiTwinsMemberRequest": (422, "Cannot add iTwin members."),  # I
    "InvalidiModelsRequest": (422, "Cannot query iModels."),
    "InvalidUsersRequest": (422, "Cannot query users."),
    "RateLimitExceeded": (
        429,
        "The client sent more requests than allowed by this API for the current tier of the client.",
    ),
    "NotEmulated": (501, "This operation is not emulated."),  # ours, never the platform's
}


@dataclass(frozen=True, slots=True)
class Detail:
    """One entry in the `details` of an error."""

    code: str
    message: str
    target: str | None = None
    inner_code: str | None = None

    def as_json(self) -> dict[str, Any]:
        """Return the entry as JSON. Like the platform's, it has no null members."""
        body: dict[str, Any] = {"code": self.code, "message": self.message}
        if self.target is not None:
            body["target"] = self.target
        if self.inner_code is not None:
            body["innerError"] = {"code": self.inner_code}
        return body


class ApiError(Exception):
    """An error answer in the platform's envelope.

    `retry_after` is the `Retry-After` header in seconds, `headers` are further headers of the answer, and `members` are
    further members of `error`, such as `conflictingLocks`.
    """

    def __init__(
        self,
        code: str,
        message: str | None = None,
        *,
        target: str | None = None,
        details: tuple[Detail, ...] = (),
        retry_after: int | None = None,
        headers: Mapping[str, str] | None = None,
        **members: object,
    ) -> None:
        self.code = code
        self.status, default = ERRORS[code]
        self.message = default if message is None else message
        self.target = target
        self.details = details
        self.members = members
        self.headers: dict[str, str] = dict(headers or {})
        if retry_after is not None:
            self.headers["Retry-After"] = str(retry_after)
        super().__init__(f"{self.status} {code}: {self.message}")

    def as_json(self) -> dict[str, Any]:
        """Return the body of the answer."""
        error: dict[str, Any] = {"code": self.code, "message": self.message}
        if self.target is not None:
            error["target"] = self.target
        if self.details:
            error["details"] = [detail.as_json() for detail in self.details]
        return {"error": error | self.members}


def make_resource_not_found() -> ApiError:
    """Return the gateway's 404 for a path, method or API version that it does not know."""
    detail = Detail("OperationNotFound", "Unable to match incoming request to an operation.")
    return ApiError("ResourceNotFound", details=(detail,))


class Problems:
    """The problems of one request, collected and then raised together as one 422."""

    def __init__(self, code: str, message: str) -> None:
        self.code = code
        self.message = message
        self._details: list[Detail] = []

    def add(self, code: str, message: str, target: str | None = None, inner_code: str | None = None) -> None:
        """Add a finding, unless the same one has been added before."""
        detail = Detail(code, message, target, inner_code)
        if detail not in self._details:
            self._details.append(detail)

    def add_invalid(self, name: str, why: str) -> None:
        """Add an invalid value, with the message of the iModels API (reference section 3)."""
        self.add("InvalidValue", f"Provided '{name}' value is not valid. {why}", name)

    def add_missing(self, name: str) -> None:
        """Add a required property that the body lacks."""
        self.add("MissingRequiredProperty", "Required property is missing.", name)

    def fail(self, code: str, message: str, target: str | None = None, inner_code: str | None = None) -> NoReturn:
        """Add a finding and raise an `ApiError` with all findings."""
        self.add(code, message, target, inner_code)
        raise ApiError(self.code, self.message, details=tuple(self._details))

    def raise_if_any(self) -> None:
        """Raise an `ApiError` with all findings. Do nothing if there are none."""
        if self._details:
            raise ApiError(self.code, self.message, details=tuple(self._details))


def make_itwins_problems(message: str) -> Problems:
    """Return an empty collection for the iTwins API. `message` is the error's, such as "Cannot create iTwin."."""
    return Problems("InvalidiTwinsRequest", message)


def make_imodels_problems(message: str) -> Problems:
    """Return an empty collection for the iModels API. `message` is the error's, such as "Cannot create iModel."."""
    return Problems("InvalidiModelsRequest", message)
