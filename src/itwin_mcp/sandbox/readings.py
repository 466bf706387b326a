"""Readings: our assumptions about the platform where its documentation is silent or ambiguous.

List only assumptions that users would notice if the real platform behaves differently. `itwin-mcp sandbox coverage`
prints this table, and the live contract tests check these points first.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class Reading:
    """One assumption: the undocumented point `unknown`, and how we read it.

    `slugs` names the operations that it concerns; it is empty if it concerns the whole platform or another API.
    """

    slugs: tuple[str, ...]
    unknown: str
    reading: str


_RESOURCES: Final = ("get-repository-resources", "get-repository-resource", "get-resource-graphics")

READINGS: Final = (
    # Lists and filters
    Reading(("get-my-itwins",), "The default order.", "The order of creation."),
    Reading(
        ("get-my-itwins", "create-export"),
        "The errors of a malformed $filter, except the one proven syntax error.",
        "The position of every syntax error is the end of the unexpected token. Syntax errors come before unknown "
        "properties, which are reported as \"Could not find a property named 'x' on type 'iTwin'.\"",
    ),
    Reading(
        ("get-my-itwins", "create-export"),
        "Whether comparisons are case-sensitive.",
        "Text comparison ignores case everywhere, as create-export documents for its filter.",
    ),
    Reading(("get-itwin",), "Whether Prefer has an effect.", "The iTwin is returned in full, whatever Prefer says."),
    Reading(
        ("delete-itwin",),
        "What happens to children and iModels.",
        "Children move to the parent of the deleted iTwin; its iModels are deleted.",
    ),
    Reading(
        ("update-itwin",),
        "The error for a number that another iTwin has: the definition has no 409 here.",
        "422 InvalidiTwinsRequest with the detail InvalidValue, target number.",
    ),
    Reading(
        ("update-itwin",),
        "How read-only properties outside the definition are treated, and an unchanged id, class or subClass.",
        "All properties that only the platform writes are rejected as ReadOnlyProperty, also parentId. An unchanged "
        "id, class or subClass is accepted.",
    ),
    # Exports
    Reading(
        ("create-export",),
        "The format of the file.",
        'JSON is {"iTwins": [...]}, in the archive as iTwins.json. CSV begins with the property names; null is empty.',
    ),
    Reading(("create-export",), "The message of the error.", '"Cannot query iTwins.", as proven for select.'),
    Reading(
        ("create-export", "get-export"),
        "Which optional properties `request` in the answer has.",
        "Those in the request, because the definition has no null; queryScope and includeInactive with their defaults.",
    ),
    Reading(
        ("get-export", "get-my-exports"),
        "What remains after four hours, and when they begin.",
        "They begin with the creation. Neither the file nor the export remains: 404 iTwinExportNotFound.",
    ),
    # Repositories
    Reading(
        ("create-repository", "update-itwin-repository"),
        "When two repositories are duplicates.",
        "If class, subClass and uri are equal. An update may not create a duplicate either.",
    ),
    Reading(
        ("update-itwin-repository",),
        "Whether null removes authentication and options. The documentation says so; the definition has no null.",
        "It removes each as a whole.",
    ),
    Reading(
        ("clone-imodel", "fork-imodel"),
        "Whether null as description gives the copy no description, or the source's.",
        "No description. The source's is copied only if the property is absent.",
    ),
    Reading(
        ("create-repository",),
        "The displayName of a repository that was registered without one.",
        "Its subClass, or its class.",
    ),
    Reading(
        ("get-repositories-by-itwin-id",),
        "The uri and displayName of generated repositories other than Forms.",
        "The base address of the API that has the data, with the iTwin's id. The name is the class.",
    ),
    Reading(
        ("get-repositories-by-itwin-id", "get-repository"),
        "Which registered repositories have capabilities.resources.",
        "Every GeographicInformationSystem. Absent members are omitted, not null.",
    ),
    Reading(
        ("get-repositories-by-itwin-id",),
        "When CesiumCuratedContent is listed.",
        "Always, as for the new iTwin in Bentley's tests; other generated repositories while they have data.",
    ),
    Reading(
        ("update-itwin-repository", "delete-repository"),
        "The error for changing a generated repository, or class and subClass.",
        "422 InvalidiTwinsRequest with the detail InvalidChange. Repeating the same class is accepted.",
    ),
    Reading(
        ("create-repository", "update-itwin-repository"),
        "The error for options of another form than the two documented ones.",
        "422 InvalidValue, target options.",
    ),
    Reading(
        ("get-resource-graphics",),
        "The graphics of a missing repository or resource in an existing iTwin.",
        "An empty list in both cases.",
    ),
    Reading(
        _RESOURCES,
        "The answer of a repository that has no resources.",
        "422 InvalidiTwinsRequest with the detail InvalidValue, target repositoryId.",
    ),
    Reading(
        ("create-repository-resource", "delete-repository-resource"),
        "To which repositories resources can be added.",
        "Registered ones of class GeographicInformationSystem; others 422 InvalidChange.",
    ),
    Reading(
        _RESOURCES,
        "Which repositories are federated, and the target of the 302.",
        "Only GeospatialFeatures; to the same path under /geospatial-features on the same host.",
    ),
    Reading(
        ("get-resource-graphics",),
        "The graphics of each class beyond iModels.",
        "Map services: their uri and authentication, with a type that depends on subClass. Reality data: 3D tiles. "
        "Features: OAPIF+GEOJSON. Tilesets are valid and empty; an iModel that is not initialized has none.",
    ),
    Reading(
        ("get-global-resource-graphics", "get-global-repository-resources"),
        "Cesium's catalog, and the token for it.",
        "Five assets. The token is made up and gives no access at Cesium.",
    ),
    # The gateway
    Reading(
        (),
        "Which Accept headers the gateway accepts.",
        "The versions are v1 of iTwins and Users, v2 of iModels and Access Control. A header that names only others is "
        "404 ResourceNotFound; a header without a version is accepted.",
    ),
    Reading(
        (),
        "The headers of a 429, and how requests are counted.",
        "With --rate-limit: per application, in minutes that begin with its first request. The tier is Community; the "
        "API is the first segment of the path, the operation its slug, the application its client id.",
    ),
    # Access Control (outside of the 90)
    Reading((), "The types of roles.", "Custom, for every role that get-iTwin-roles lists."),
    Reading(
        (),
        "What adding members does with users of other organizations, and its errors.",
        "They are invited, and nobody accepts the invitation. After 422 InvalidiTwinsMemberRequest nobody is added.",
    ),
    Reading(
        (),
        "Whether user members include owners.",
        "Only if they have another role too: /members/owners lists owners, /members/users everyone with a role.",
    ),
    # Users (outside of the 90)
    Reading(
        (),
        "How POST /users/getbyidlist treats ids that are not UUIDs, and unknown ids.",
        'The former are 422 InvalidUsersRequest, "Invalid request body." The latter are omitted, as are users of other '
        "organizations and duplicates. An empty list gets an empty answer.",
    ),
    Reading(
        (),
        "What GET /users/me returns for an application, and for properties that the sandbox does not have.",
        "The application's own user, as for a person. alternateEmail, phone, city and country are null. "
        "createdDateTime is that of the organization.",
    ),
    # Sign-in
    Reading(
        (),
        "What the sign-in server does with the resource parameter (RFC 8707).",
        "It is rejected with invalid_target, by the authorization and the token endpoint.",
    ),
    Reading(
        (),
        "Whether refresh tokens rotate, and the effect of a second use.",
        "Each can be used once. A second use revokes all tokens of the same sign-in.",
    ),
    Reading(
        (),
        "Discovery: PKCE methods, revocation, iss in the answer, client authentication methods.",
        "S256; revocation of access and refresh tokens; iss always (RFC 9207); Basic, post, none.",
    ),
    Reading((), "The form of scope in the token endpoint's answer.", "A string (RFC 6749); in the JWT it is an array."),
    Reading(
        (),
        "Which applications are registered: the sandbox has no page to register one.",
        "Those used before, and ids that begin with native-, spa-, webapp- or service-. Any other that presents a "
        "secret is rejected with invalid_client.",
    ),
    Reading((), "prompt=none.", "login_required always: the sandbox keeps no session in the browser."),
    Reading(
        (),
        "The organization of a service application on its first use.",
        "The first one in the sandbox. It is a member of no iTwin until a user adds it.",
    ),
    # Files, pictures, shares, permissions
    Reading(
        ("complete-imodel-baseline-file-upload",), "The error for completing without an upload.", "404 FileNotFound."
    ),
    Reading(
        ("complete-imodel-baseline-file-upload",),
        "How to rehearse initializationFailed and fileIsBriefcase.",
        "Upload a file that begins with sandbox:broken or sandbox:briefcase. The create operation ends as failed.",
    ),
    Reading(
        ("get-imodel-details",),
        "Whether details repeat the upload and complete links before the upload.",
        "Only the answer of create-imodel has them; they are null afterwards.",
    ),
    Reading(
        ("create-imodel",),
        "The effect of a template or baselineFile with another creationMode.",
        "422 InvalidValue for that property. Without creationMode it implies its own mode.",
    ),
    Reading(
        ("get-imodel-baseline-file-details",), "How long the download link is valid.", "20 minutes, as in the example."
    ),
    Reading(
        ("upload-itwin-image",),
        "The codes of its errors.",
        "422 'Cannot create iTwin Image.' with InvalidRequestBody, InvalidHeaderValue, MissingRequiredHeader or "
        "MissingRequestBody, if the definition does not name a code.",
    ),
    Reading(
        ("upload-itwin-image",),
        "The size of the small image.",
        "At most 400x250, with its own aspect ratio and format.",
    ),
    Reading(
        ("upload-imodel-thumbnail",),
        "How another aspect ratio is fitted, and the code above 5 MB.",
        "Cropped to 400x250 and 800x500; 413 RequestTooLarge.",
    ),
    Reading(
        ("get-my-favorite-imodels", "get-my-recently-used-imodels"),
        "How page links work, and the answer for an iTwin that the caller is not a member of.",
        "By $continuationToken; $skip is ignored. The answer is 404.",
    ),
    Reading(
        ("create-imodel-share", "get-imodel-shares", "get-imodel-share", "update-imodel-share"),
        "The bodies.",
        "{share} / {shares, _links} of id, displayName, name, shareKey, permission, createdDateTime, expiration, "
        "_links.creator; name, permission (imodels_webview or imodels_read) and expiration are required.",
    ),
    Reading(
        ("get-imodel-share", "update-imodel-share", "revoke-imodel-share"),
        "The key in the path.",
        "The id; the shareKey is accepted too.",
    ),
    Reading(
        ("create-imodel-share",),
        "What a share key allows.",
        "GET on that iModel alone; other iModels 404, other methods 403, the iTwins API 401 "
        "InvalidAuthorizationScheme, an expired or revoked key 401 Unauthorized.",
    ),
    Reading(
        (
            "get-imodel-user-permissions",
            "update-imodel-user-permissions",
            "get-imodel-role-permissions",
            "update-imodel-role-permissions",
        ),
        "The bodies.",
        "PATCH {userId|roleId, permissions} for one user or role replaces its permissions, and [] removes them. GET "
        "and PATCH return the whole configuration {userPermissions|rolePermissions: [{userId|roleId, permissions}]}.",
    ),
    Reading(
        ("update-imodel-user-permissions", "update-imodel-role-permissions"),
        "The errors.",
        "The other kind is configured: 422 InvalidChange. It is not a member or role of the iTwin: 422 InvalidValue.",
    ),
    Reading(
        (),
        "What storage does with an Authorization header sent with a signed link.",
        "401 InvalidAuthenticationInfo, so that a leaked bearer token is noticed.",
    ),
    # Authoring
    Reading(
        ("create-imodel-changeset", "update-imodel-changeset"),
        "The full content of their answers.",
        "synchronizationInfo, namedVersion, currentOrPrecedingCheckpoint and download are null; application is set.",
    ),
    Reading(
        ("create-imodel-changeset",),
        "The effect of a push that is not completed.",
        "Lists omit it, details show it. The same briefcase may start again; another gets 409 "
        "ConflictWithAnotherUser. It is deleted after an hour, when its upload link expires.",
    ),
    Reading(
        ("create-imodel-changeset",),
        "The error for a parent that is not the latest changeset.",
        "409 NewerChangesExist if it is older, 404 ChangesetNotFound if it is unknown.",
    ),
    Reading(
        ("create-imodel-changeset", "update-imodel-changeset"),
        "Pushing from another user's briefcase.",
        "403. Completing from another briefcase of the same user is 422 for briefcaseId.",
    ),
    Reading(
        ("update-imodel-changeset",),
        "Completing without a file, with a wrong size, twice.",
        "404 FileNotFound, 409 DataConflict, 422 InvalidChange.",
    ),
    Reading(
        ("create-imodel-changeset-extended-data",),
        "What data may contain, and the error of a second time.",
        "A JSON object or array of at most 204800 bytes, else 422. A second time is 409 ChangesetExtendedDataExists.",
    ),
    Reading(
        ("create-imodel-changeset-group", "update-imodel-changeset-group"),
        "When a group times out, and the errors of a closed one.",
        "24 hours after its last changeset. Pushing into a closed one is 422 for groupId, closing it InvalidChange.",
    ),
    Reading(
        ("acquire-imodel-briefcase",),
        "The errors of the quotas.",
        "100 held per user and iModel: 422 InvalidiModelsRequest with the detail ResourceQuotaExceeded and the inner "
        "error MaximumNumberOfBriefcasesPerUser; 100 per minute over all iModels: 429. Numbers are never reused.",
    ),
    Reading(("release-imodel-briefcase",), "What happens to its locks.", "They are abandoned."),
    Reading(
        ("update-imodel-locks",),
        "The answer, and the effect of changesetId.",
        "The answer lists the requested objects that are now held. Newer changesets are not checked without "
        "changesetId or for shared locks.",
    ),
    Reading(
        ("update-imodel-named-version",),
        "The effect of an update without state on a hidden named version.",
        "It becomes visible again.",
    ),
    Reading(("release-imodel-locks-chunk",), "The size of a chunk.", "1000 objects."),
    Reading(
        ("get-imodel-released-locks",),
        "What is listed.",
        "Objects that nobody holds now, grouped by the released level.",
    ),
    Reading(
        ("get-changeset-checkpoint", "get-named-version-checkpoint"),
        "The answer for a checkpoint that was never generated.",
        "404 CheckpointNotFound for a changeset, notGenerated for a named version; the baseline is always successful.",
    ),
    Reading(
        ("update-named-version-checkpoint",),
        "How a checkpoint fails.",
        "After a changeset file that begins with sandbox:broken; PUT schedules it again.",
    ),
)


def find_readings(slug: str) -> tuple[Reading, ...]:
    """Return the readings about one operation."""
    return tuple(reading for reading in READINGS if slug in reading.slugs)
