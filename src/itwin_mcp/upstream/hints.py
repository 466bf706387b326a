"""What to do next after the platform refused: one text for each kind of refusal, written to the agent."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from itertools import islice
from typing import Any

DEFAULT_REMEDY = (
    "Set ITWIN_ACCESS_TOKEN to a valid access token, or sign in with `itwin-mcp auth login`, then call again."
)

MAX_FIELDS = 10
MAX_FIELD = 100
"""Characters of a field's name that a hint repeats."""

GATEWAY_NOT_FOUND = "ResourceNotFound"
"""The code of the platform's gateway for an operation that it does not know."""

_LISTINGS = {
    "itwin": ("iTwin", "list-itwins"),
    "account": ("account", "get-my-account"),
    "imodel": ("iModel", "list-imodels"),
    "changeset": ("changeset", "list-changesets"),
    "changesetgroup": ("changeset group", "list-changeset-groups"),
    "namedversion": ("named version", "list-named-versions"),
    "briefcase": ("briefcase", "list-briefcases"),
    "lock": ("lock", "list-locks"),
    "checkpoint": ("checkpoint", "get-latest-checkpoint"),
    "user": ("user", "list-imodel-users"),
    "teammember": ("member", "list-itwin-members"),
    "role": ("role", "list-itwin-roles"),
    "share": ("share", "list-shares"),
    "changesetextendeddata": ("extended data", "list-extended-data"),
    "export": ("export", "list-exports"),
    "repository": ("repository", "list-repositories"),
    "resource": ("repository resource", "list-repository-resources"),
    "globalrepository": ("repository", "list-global-repositories"),
    "globalresource": ("repository resource", "list-global-repository-resources"),
}
_COLLECTIONS = {
    "itwins": "itwin",
    "imodels": "imodel",
    "changesets": "changeset",
    "changesetgroups": "changesetgroup",
    "namedversions": "namedversion",
    "briefcases": "briefcase",
    "locks": "lock",
    "checkpoint": "checkpoint",
    "users": "user",
    "exports": "export",
    "repositories": "repository",
    "resources": "resource",
    "roles": "role",
    "members": "teammember",
    "shares": "share",
    "extendeddata": "changesetextendeddata",
}
_PLACES = (
    (re.compile(r"/accesscontrol/.*/members(?:/|$)", re.IGNORECASE), {"user": "teammember"}),
    (
        re.compile(r"/itwins/repositories(?:/|$)", re.IGNORECASE),
        {"repository": "globalrepository", "resource": "globalresource"},
    ),
)
"""Paths in which a noun means another list: people of an iTwin, and repositories that are in no iTwin."""


def noun_of(path: str, code: str = "") -> str | None:
    """Which kind of thing a refusal is about: the platform's code says it (`iModelNotFound`), else the path does."""
    named = re.fullmatch(r"(?:iTwin(?=Repo))?(?:Repository(?=Res))?(\w+?)(?:NotFound|Exists)", code)
    noun = named[1].lower() if named is not None and named[1].lower() in _LISTINGS else None
    if noun is None:
        segments = (segment.lower() for segment in reversed(path.split("/")))
        noun = next((_COLLECTIONS[segment] for segment in segments if segment in _COLLECTIONS), None)
    others = next((others for place, others in _PLACES if place.match(path)), {})
    return others.get(noun or "", noun)


def listing_for(path: str, code: str = "") -> str:
    """`the right id with list-imodels`: which listing shows the ids that exist."""
    noun = noun_of(path, code)
    if noun is None:
        return "the right id with the matching list tool"
    name, listing = _LISTINGS[noun]
    return f"the {name}'s right id with `{listing}`"


def for_not_signed_in(remedy: str, *, expires_at: float | None, issuer: str | None, platform: str, now: float) -> str:
    """401: the token is over, from another environment, or simply not accepted."""
    if expires_at is not None and expires_at <= now:
        when = datetime.fromtimestamp(expires_at, UTC).strftime("%Y-%m-%d %H:%M UTC")
        return f"The access token expired at {when}. {remedy}"
    if issuer is not None and environment_of(issuer) != environment_of(platform):
        return (
            f"The token was issued by {issuer}, which is another environment than {platform}. "
            f"Use a token of that environment, or set ITWIN_API_URL to the token's own. {remedy}"
        )
    return f"The token may be revoked, damaged, or lack the scope `itwin-platform`. {remedy}"


def for_unknown_client(remedy: str) -> str:
    """401 because the platform does not know the application that the token was issued to."""
    return (
        "The platform does not know the application (client id) that signed in. Register it at "
        "https://developer.bentley.com/register/, or sign in with the client id of an application that is registered "
        f"for this environment. {remedy}"
    )


def for_gateway(platform: str) -> str:
    """A refusal that is a web page: something on the way refused, and not the platform's API."""
    return (
        "This page does not come from the API: a proxy, firewall or gateway on the way refused the request. Ask the "
        f"people who run your network to let requests to {platform} through, and check HTTPS_PROXY, NO_PROXY and "
        "ITWIN_API_URL. No permission on the platform changes this."
    )


def environment_of(url: str) -> str | None:
    """`prod`, `qa` or `dev` for Bentley's hosts; development APIs take the tokens of the QA sign-in server."""
    found = re.match(r"https://(?:(qa|dev)-)?(?:ims|imsoidc|api)\.bentley\.com(?:[:/]|$)", url)
    if found is None:
        return None
    return {"qa": "qa", "dev": "qa"}.get(found[1] or "", "prod")


def for_forbidden(permission: str | None, member: str | None) -> str:
    """403: the permission that is missing, or the membership, and who can give it."""
    needs = f"This needs the permission `{permission}`. " if permission else ""
    if member is not None:
        return (
            f"{needs}The application is known to an iTwin as {member}: ask one of its administrators to invite that "
            "address with a role that allows this."
        )
    role = "that has it" if permission else "that allows this"
    return f"{needs}Ask an administrator of the iTwin for a role {role}; calling again will not help before."


def for_quota(path: str) -> str:
    """403 or 422 because a limit is reached, which no permission changes: what to free, or to wait for."""
    noun = noun_of(path)
    listing = f" (`{_LISTINGS[noun][1]}` shows what there is)" if noun else ""
    return (
        "A limit of the platform is reached, as the message says; no permission changes that. "
        f"Release what is not needed any more{listing}, or where the limit is for an hour or until a job ends, "
        "call again after that."
    )


def for_not_found(path: str, code: str) -> str:
    """404: which listing shows what is there, or that the platform does not know the operation."""
    if code == GATEWAY_NOT_FOUND:
        return (
            "The platform does not know this operation, or not in this version; this says nothing about the thing "
            "itself. Check ITWIN_API_URL, and update itwin-mcp. Calling again unchanged will not help."
        )
    return f"It does not exist, or this sign-in may not see it. Find {listing_for(path, code)}, then call again."


def for_conflict(path: str, code: str, target: str | None, details: Sequence[Mapping[str, Any]]) -> str:
    """409: which field collides, or that somebody else was faster."""
    if code == "ConflictWithAnotherUser":
        listing = " (`list-lock-holders` names them)" if noun_of(path) == "lock" else ""
        return f"Somebody else holds it{listing}. Wait until it is released, or ask its owner, then call again."
    if code == "NewerChangesExist":
        return "Somebody changed it since. Take the newer changesets first (`list-changesets`), then call again."
    if code == "NamedVersionOnChangesetExists":
        return (
            "That changeset has its named version already: mark another one with changeset, or change the one that "
            "exists with `update-named-version`."
        )
    fields = named_fields(target, details)
    if not fields and code.endswith("Exists"):
        noun = noun_of(path, code)
        fields = "name" if noun in {"imodel", "namedversion"} else ""
    if fields:
        return (
            f"Taken: {fields}. Use the one that exists (find {listing_for(path, code)}), or ask the user for another "
            "value; never make one up."
        )
    return "It contradicts the present state. Read the present state first, then decide again."


def for_refused_values(target: str | None, details: Sequence[Mapping[str, Any]]) -> str:
    """400 and 422: which values to correct."""
    fields = named_fields(target, details)
    if fields:
        return f"Correct {fields} as the details say, then call again."
    return "Correct the arguments as the message says, then call again."


def named_fields(target: str | None, details: Sequence[Mapping[str, Any]]) -> str:
    """The first targets that an error names, each once, as text."""
    names = [target, *(detail.get("target") for detail in details)]
    distinct = dict.fromkeys(f"`{name}`" for name in names if isinstance(name, str) and 0 < len(name) <= MAX_FIELD)
    return ", ".join(islice(distinct, MAX_FIELDS))


def for_too_many(retry_after: float | None, tier: str | None) -> str:
    """429: when to call again."""
    subscription = f" of the {tier} subscription" if tier else ""
    when = "in a minute" if retry_after is None else f"in {retry_after:.0f} seconds"
    return f"The rate limit{subscription} is used up. Call again {when}, with fewer calls at once."


def for_unknown_outcome(path: str) -> str:
    """A write without a clear answer: how to find out before it is done twice."""
    noun = noun_of(path)
    listing = f" (`{_LISTINGS[noun][1]}`)" if noun else ""
    return f"The change may have been made or not. Read or list what it concerns{listing} before you try again."


def for_server_fault(retry_after: float | None) -> str:
    """500 and the like after a read, or a write that was not carried out."""
    when = "in a while" if retry_after is None else f"in {retry_after:.0f} seconds"
    return f"The fault is on the platform's side. Call again {when}; tell support the correlation id if it stays."
