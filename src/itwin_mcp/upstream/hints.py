"""Hints for the agent: for each kind of refusal, one function returns what to do next."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import islice
from typing import Any

DEFAULT_REMEDY = (
    "Set ITWIN_ACCESS_TOKEN to a valid access token, or sign in with `itwin-mcp auth login`, then call again."
)

MAX_FIELDS = 10
MAX_FIELD = 100
"""Characters of a field's name. A hint leaves out longer names."""

GATEWAY_NOT_FOUND = "ResourceNotFound"
"""The code of the platform's gateway for an operation that it does not know."""

_CODE = re.compile(r"(\w+?)(?:NotFound|Exists)")


@dataclass(frozen=True, slots=True)
class Noun:
    """The name of a kind of thing for hints, such as iModel. Capability files declare it (`x-entities`)."""

    name: str
    listing: str
    """The tool that lists them."""
    origins: frozenset[str]
    """The origins of the servers that have such things."""
    codes: frozenset[str] = frozenset()
    """Its names in error codes, in lower case: `imodel` for `iModelNotFound`."""
    paths: tuple[tuple[str, ...], ...] = ()
    """Beginnings of the paths that are about it, as segments with `{}` for an id."""
    unique: str | None = None
    """The field whose value must be unique."""
    refusals: Mapping[str, str] = field(default_factory=dict)
    """Hints for certain error codes."""

    def match(self, segments: Sequence[str]) -> int:
        """Return the number of segments in the longest of `paths` that the given path begins with; 0 if none match."""
        return max((len(path) for path in self.paths if _begins_with(segments, path)), default=0)


def find_noun(nouns: Iterable[Noun], origin: str, path: str, code: str = "") -> Noun | None:
    """Return the kind of thing that a refusal is about: the one in the error code, or else in the path."""
    segments = path.lower().strip("/").split("/")
    candidates = [noun for noun in nouns if origin in noun.origins]
    match = _CODE.fullmatch(code)
    by_code = [noun for noun in candidates if match is not None and match[1].lower() in noun.codes]
    if by_code:
        return max(by_code, key=lambda noun: noun.match(segments))
    best = max(candidates, key=lambda noun: noun.match(segments), default=None)
    return best if best is not None and best.match(segments) else None


def _begins_with(segments: Sequence[str], path: Sequence[str]) -> bool:
    return len(segments) >= len(path) and all(
        expected in ("{}", segment) for expected, segment in zip(path, segments, strict=False)
    )


def name_listing(noun: Noun | None) -> str:
    """Return the tool that lists the ids, as part of a sentence: ``the iModel's right id with `list-imodels` ``."""
    if noun is None:
        return "the right id with the matching list tool"
    return f"the {noun.name}'s right id with `{noun.listing}`"


def explain_not_signed_in(
    remedy: str, *, expires_at: float | None, issuer: str | None, platform: str, now: float
) -> str:
    """Return the hint for a 401: the token has expired, is of another environment, or is refused for another reason.

    `expires_at` and `issuer` are the token's own; `now` and `expires_at` are seconds since 1970.
    """
    if expires_at is not None and expires_at <= now:
        when = datetime.fromtimestamp(expires_at, UTC).strftime("%Y-%m-%d %H:%M UTC")
        return f"The access token expired at {when}. {remedy}"
    if issuer is not None and read_environment(issuer) != read_environment(platform):
        return (
            f"The token was issued by {issuer}, which is another environment than {platform}. "
            f"Use a token of that environment, or set ITWIN_API_URL to the token's own. {remedy}"
        )
    return f"The token may be revoked, damaged, or lack the scope `itwin-platform`. {remedy}"


def explain_unknown_client(remedy: str) -> str:
    """Return the hint for a 401 because the application that the token was issued to is not registered."""
    return (
        "The platform does not know the application (client id) that signed in. Register it at "
        "https://developer.bentley.com/register/, or sign in with the client id of an application that is registered "
        f"for this environment. {remedy}"
    )


def explain_gateway(platform: str) -> str:
    """Return the hint for a web page, which comes from a proxy or gateway and not from the platform's API."""
    return (
        "This page does not come from the API: a proxy, firewall or gateway on the way refused the request. Ask the "
        f"people who run your network to let requests to {platform} through, and check HTTPS_PROXY, NO_PROXY and "
        "ITWIN_API_URL. No permission on the platform changes this."
    )


def read_environment(url: str) -> str | None:
    """Return `prod` or `qa` for a host of Bentley's, or None for any other host.

    Development hosts belong to `qa`, because they accept the tokens of the QA sign-in server.
    """
    match = re.match(r"https://(?:(qa|dev)-)?(?:ims|imsoidc|api)\.bentley\.com(?:[:/]|$)", url)
    if match is None:
        return None
    return "qa" if match[1] else "prod"


def explain_forbidden(permission: str | None, member: str | None) -> str:
    """Return the hint for a 403: which permission or membership is missing, and who can grant it.

    `member` is the address of a service application.
    """
    needs = f"This needs the permission `{permission}`. " if permission else ""
    if member is not None:
        return (
            f"{needs}The application is known to an iTwin as {member}: ask one of its administrators to invite that "
            "address with a role that allows this."
        )
    role = "that has it" if permission else "that allows this"
    return f"{needs}Ask an administrator of the iTwin for a role {role}; calling again will not help before."


def explain_quota(noun: Noun | None) -> str:
    """Return the hint for a 403 or 422 at a quota of the platform: what to release or wait for."""
    listing = f" (`{noun.listing}` shows what there is)" if noun is not None else ""
    return (
        "A limit of the platform is reached, as the message says; no permission changes that. "
        f"Release what is not needed any more{listing}, or where the limit is for an hour or until a job ends, "
        "call again after that."
    )


def explain_not_found(noun: Noun | None, code: str) -> str:
    """Return the hint for a 404: which tool lists the ids, or that the platform does not know the operation."""
    if code == GATEWAY_NOT_FOUND:
        return (
            "The platform does not know this operation, or not in this version; this says nothing about the thing "
            "itself. Check ITWIN_API_URL, and update itwin-mcp. Calling again unchanged will not help."
        )
    return f"It does not exist, or this sign-in may not see it. Find {name_listing(noun)}, then call again."


def explain_conflict(noun: Noun | None, code: str, target: str | None, details: Sequence[Mapping[str, Any]]) -> str:
    """Return the hint for a 409: which value is taken, or that another user holds the thing."""
    if code == "ConflictWithAnotherUser":
        return "Somebody else holds it. Wait until it is released, or ask its owner, then call again."
    fields = list_fields(target, details)
    if not fields and code.endswith("Exists") and noun is not None:
        fields = noun.unique or ""
    if fields:
        return (
            f"Taken: {fields}. Use the one that exists (find {name_listing(noun)}), or ask the user for another "
            "value; never make one up."
        )
    return "It contradicts the present state. Read the present state first, then decide again."


def explain_refused_values(target: str | None, details: Sequence[Mapping[str, Any]]) -> str:
    """Return the hint for a 400 or 422: which values to correct."""
    fields = list_fields(target, details)
    if fields:
        return f"Correct {fields} as the details say, then call again."
    return "Correct the arguments as the message says, then call again."


def list_fields(target: str | None, details: Sequence[Mapping[str, Any]]) -> str:
    """Return the names of the fields that an error and its details are about, such as `` `name`, `number` ``."""
    names = [target, *(detail.get("target") for detail in details)]
    distinct = dict.fromkeys(f"`{name}`" for name in names if isinstance(name, str) and 0 < len(name) <= MAX_FIELD)
    return ", ".join(islice(distinct, MAX_FIELDS))


def explain_too_many(retry_after: float | None, tier: str | None) -> str:
    """Return the hint for a 429: when to call again."""
    subscription = f" of the {tier} subscription" if tier else ""
    when = "in a minute" if retry_after is None else f"in {retry_after:.0f} seconds"
    return f"The rate limit{subscription} is used up. Call again {when}, with fewer calls at once."


def explain_unknown_outcome(noun: Noun | None) -> str:
    """Return the hint for a write without a clear answer: how to find out whether it was carried out."""
    listing = f" (`{noun.listing}`)" if noun is not None else ""
    return f"The change may have been made or not. Read or list what it concerns{listing} before you try again."


def explain_server_fault(retry_after: float | None) -> str:
    """Return the hint for a 5xx after a read, or after a write that was not carried out."""
    when = "in a while" if retry_after is None else f"in {retry_after:.0f} seconds"
    return f"The fault is on the platform's side. Call again {when}; tell support the correlation id if it stays."
