"""Our readings: where the documentation leaves a shape or a rule open, what the sandbox does, said in one table.

Only what somebody could find to be otherwise on the real platform stands here. `itwin-mcp sandbox coverage` prints it,
and the live contract tests look at these first.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class Reading:
    """One thing that is not documented, and what we take it to be; `slugs` is empty for what concerns no operation."""

    slugs: tuple[str, ...]
    unknown: str
    reading: str


_RESOURCES: Final = ("get-repository-resources", "get-repository-resource", "get-resource-graphics")

READINGS: Final = (
    # Lists and filters
    Reading(("get-my-itwins",), "The default order.", "The order of creation."),
    Reading(
        ("get-my-itwins", "create-export"),
        "Which errors a malformed $filter gives, besides the one proven syntax error.",
        "The position of every syntax error is the end of the token that was not expected; an unknown property is told "
        "after the syntax, as \"Could not find a property named 'x' on type 'iTwin'.\"",
    ),
    Reading(
        ("get-my-itwins", "create-export"),
        "Whether comparisons regard case.",
        "Text is compared without regard to case everywhere, as create-export says of its own filter.",
    ),
    Reading(("get-itwin",), "Whether Prefer is honoured.", "The whole iTwin is answered, whatever Prefer says."),
    Reading(
        ("delete-itwin",),
        "What becomes of children and iModels.",
        "Children move up to the parent of the deleted iTwin; its iModels are deleted with it.",
    ),
    Reading(
        ("update-itwin",),
        "What a number that another iTwin has answers: the definition has no 409 here.",
        "422 InvalidiTwinsRequest with the detail InvalidValue, target number.",
    ),
    Reading(
        ("update-itwin",),
        "What read-only properties do that the definition does not name, and the present id, class and subClass.",
        "All that only the platform writes is refused as ReadOnlyProperty, parentId too; the present id, class and "
        "subClass are no change.",
    ),
    # Exports
    Reading(
        ("create-export",),
        "What the file looks like inside.",
        'JSON is {"iTwins": [...]}, in the archive as iTwins.json; CSV has a line of property names, null is empty.',
    ),
    Reading(("create-export",), "The message above the findings.", '"Cannot query iTwins.", as proven for select.'),
    Reading(
        ("create-export", "get-export"),
        "Which optional properties the request repeats.",
        "Those that were given, as the definition has no null; queryScope and includeInactive with their defaults.",
    ),
    Reading(
        ("get-export", "get-my-exports"),
        "What is left after four hours, and counted from when.",
        "Counted from creation; neither the file nor the export is left: 404 iTwinExportNotFound.",
    ),
    # Repositories
    Reading(
        ("create-repository", "update-itwin-repository"),
        "What makes two repositories the same.",
        "Class, subClass and uri together; a change may not make them the same either.",
    ),
    Reading(
        ("update-itwin-repository",),
        "Whether null removes authentication and options: OpenAPI has no null, the documentation does.",
        "It does, each as a whole.",
    ),
    Reading(
        ("clone-imodel", "fork-imodel"),
        "Whether null as the description of a copy leaves it without one, or with the source's.",
        "Without one; the source's is only taken where the property is absent.",
    ),
    Reading(
        ("create-repository",),
        "The displayName of a repository that was given none.",
        "Its subClass, or its class.",
    ),
    Reading(
        ("get-repositories-by-itwin-id",),
        "The uri and displayName of generated repositories other than Forms.",
        "The base of the API that holds the data, with the iTwin's id; the class is the name.",
    ),
    Reading(
        ("get-repositories-by-itwin-id", "get-repository"),
        "Which registered repositories have capabilities.resources.",
        "Every GeographicInformationSystem; what a repository does not have is left out, not null.",
    ),
    Reading(
        ("get-repositories-by-itwin-id",),
        "When CesiumCuratedContent is there.",
        "Always, as on the new iTwin of Bentley's own tests; other generated ones while they have data.",
    ),
    Reading(
        ("update-itwin-repository", "delete-repository"),
        "How a generated repository refuses to be changed, and how class and subClass do.",
        "422 InvalidiTwinsRequest with the detail InvalidChange; the same class again is no change.",
    ),
    Reading(
        ("create-repository", "update-itwin-repository"),
        "How options of neither documented shape are refused.",
        "422 InvalidValue, target options.",
    ),
    Reading(
        ("get-resource-graphics",),
        "Which graphics something that does not exist has in an iTwin that does.",
        "An empty list, whether the repository or the resource does not exist.",
    ),
    Reading(
        _RESOURCES,
        "What a repository without a list of resources answers.",
        "422 InvalidiTwinsRequest with the detail InvalidValue, target repositoryId.",
    ),
    Reading(
        ("create-repository-resource", "delete-repository-resource"),
        "Which repositories let resources be added.",
        "Registered ones of class GeographicInformationSystem; others 422 InvalidChange.",
    ),
    Reading(
        _RESOURCES,
        "Which repositories are federated, and where 302 leads.",
        "GeospatialFeatures only; to the same path under /geospatial-features on the same host.",
    ),
    Reading(
        ("get-resource-graphics",),
        "The graphics of each class beyond iModels.",
        "Map services: their uri and authentication with a type by subClass; reality data: 3D tiles; features: "
        "OAPIF+GEOJSON. Tilesets are valid and empty; an iModel that is not initialized has none.",
    ),
    Reading(
        ("get-global-resource-graphics", "get-global-repository-resources"),
        "Cesium's catalogue, and the token for it.",
        "Five of its assets; the token is made up and opens nothing at Cesium.",
    ),
    # The gateway
    Reading(
        (),
        "Which Accept headers the gateway knows.",
        "One that names only other versions than v1 of iTwins, v2 of iModels and v2 of Access Control is 404 "
        "ResourceNotFound; one without a version gets these.",
    ),
    Reading(
        (),
        "What the headers of a 429 hold, and how requests are counted.",
        "With --rate-limit: per application, in minutes that begin with its first request. The tier is Community; the "
        "API is the first segment of the path, the operation its slug, the application its client id.",
    ),
    # Access Control (outside of the 90)
    Reading((), "The types of roles.", "Custom, for every role that get-iTwin-roles lists."),
    Reading(
        (),
        "What adding members does with people of other organizations, and how it refuses.",
        "They are invited, and nobody accepts; 422 InvalidiTwinsMemberRequest adds nobody.",
    ),
    Reading(
        (),
        "Whether owners are among the user members.",
        "Only when they hold another role too: /members/owners lists owners, /members/users everyone with a role.",
    ),
    # Sign-in
    Reading(
        (),
        "What the sign-in server does with the resource parameter (RFC 8707).",
        "It is refused with invalid_target, at the authorization page and at the token endpoint.",
    ),
    Reading(
        (),
        "Whether refresh tokens rotate, and what a second use does.",
        "Each is used once; a second use revokes all that came of the same sign-in.",
    ),
    Reading(
        (),
        "Discovery: PKCE methods, revocation, iss in the answer, ways for a client to authenticate.",
        "S256; revocation of access and refresh tokens; iss always (RFC 9207); Basic, post, none.",
    ),
    Reading((), "The scope in the answer of the token endpoint.", "A string (RFC 6749); in the JWT an array."),
    Reading(
        (),
        "Which applications are known: there is no place to register one.",
        "Those that were used before, and ids that begin with native-, spa-, webapp- or service-. Any other one that "
        "presents a secret is refused with invalid_client.",
    ),
    Reading((), "prompt=none.", "login_required always: the sandbox keeps no session in the browser."),
    Reading(
        (),
        "The organization of a service application on its first use.",
        "The first one of the sandbox; it is a member of no iTwin until somebody adds it.",
    ),
    # Files, pictures, shares, permissions
    Reading(
        ("complete-imodel-baseline-file-upload",), "What completing without an upload answers.", "404 FileNotFound."
    ),
    Reading(
        ("complete-imodel-baseline-file-upload",),
        "How to reach initializationFailed and fileIsBriefcase.",
        "A file beginning with sandbox:broken or sandbox:briefcase; the create operation ends as failed.",
    ),
    Reading(
        ("get-imodel-details",),
        "Whether upload and complete links are repeated while the file is awaited.",
        "Only create-imodel answers them; null afterwards.",
    ),
    Reading(
        ("create-imodel",),
        "What a template or baselineFile does beside another creationMode.",
        "422 InvalidValue on that property; without creationMode it implies its own.",
    ),
    Reading(
        ("get-imodel-baseline-file-details",), "How long the download link lives.", "20 minutes, as in the example."
    ),
    Reading(
        ("upload-itwin-image",),
        "Codes of its refusals.",
        "422 'Cannot create iTwin Image.' with InvalidRequestBody, InvalidHeaderValue, MissingRequiredHeader or "
        "MissingRequestBody, where the definition does not name them.",
    ),
    Reading(("upload-itwin-image",), "The size of the small image.", "Within 400x250, in its own shape and format."),
    Reading(
        ("upload-imodel-thumbnail",),
        "How another shape is fitted, and the code above 5 MB.",
        "Cut at the edges to 400x250 and 800x500; 413 RequestTooLarge.",
    ),
    Reading(
        ("get-my-favorite-imodels", "get-my-recently-used-imodels"),
        "How links page.",
        "By $continuationToken; $skip is ignored. An iTwin one is no member of is 404.",
    ),
    Reading(
        ("create-imodel-share", "get-imodel-shares", "get-imodel-share", "update-imodel-share"),
        "The bodies.",
        "{share} / {shares, _links} of id, displayName, name, shareKey, permission, createdDateTime, expiration, "
        "_links.creator; name, permission (imodels_webview or imodels_read) and expiration are required.",
    ),
    Reading(
        ("get-imodel-share", "update-imodel-share", "revoke-imodel-share"),
        "The route key.",
        "The id; the shareKey is taken too.",
    ),
    Reading(
        ("create-imodel-share",),
        "What a share key may do.",
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
        "PATCH {userId|roleId, permissions} for one holder, replaced whole, [] removes; both verbs answer the whole "
        "configuration {userPermissions|rolePermissions: [{userId|roleId, permissions}]}.",
    ),
    Reading(
        ("update-imodel-user-permissions", "update-imodel-role-permissions"),
        "The refusals.",
        "The other kind is configured: 422 InvalidChange; not a member or role of the iTwin: 422 InvalidValue.",
    ),
    Reading(
        (),
        "What storage does with an Authorization header beside a signed link.",
        "401 InvalidAuthenticationInfo, so that a leaked bearer is noticed.",
    ),
    # Authoring
    Reading(
        ("create-imodel-changeset", "update-imodel-changeset"),
        "The whole of their answers.",
        "synchronizationInfo, namedVersion, currentOrPrecedingCheckpoint and download are null; application is filled.",
    ),
    Reading(
        ("create-imodel-changeset",),
        "What a push that is not completed does.",
        "It is not in lists, details show it; the same briefcase may begin again, another gets 409 "
        "ConflictWithAnotherUser; it is forgotten after an hour, with its upload link.",
    ),
    Reading(
        ("create-imodel-changeset",),
        "What a parent that is not the latest changeset answers.",
        "409 NewerChangesExist where it is known but older, 404 ChangesetNotFound where it is unknown.",
    ),
    Reading(
        ("create-imodel-changeset", "update-imodel-changeset"),
        "Pushing from a briefcase that is not one's own.",
        "403; completing from another briefcase of one's own is 422 on briefcaseId.",
    ),
    Reading(
        ("update-imodel-changeset",),
        "Completing without a file, with a wrong size, twice.",
        "404 FileNotFound, 409 DataConflict, 422 InvalidChange.",
    ),
    Reading(
        ("create-imodel-changeset-extended-data",),
        "What data may be, and a second time.",
        "A JSON object or array; above 204800 bytes 422; a second time 409 ChangesetExtendedDataExists.",
    ),
    Reading(
        ("create-imodel-changeset-group", "update-imodel-changeset-group"),
        "When a group times out, and what a closed one refuses.",
        "24 hours after its last changeset; a push into a closed one is 422 on groupId, closing twice InvalidChange.",
    ),
    Reading(
        ("acquire-imodel-briefcase",),
        "The quotas' refusals.",
        "100 held per user and iModel: 422 InvalidiModelsRequest with the detail ResourceQuotaExceeded and the inner "
        "error MaximumNumberOfBriefcasesPerUser; 100 a minute over all iModels: 429. Numbers are never given again.",
    ),
    Reading(("release-imodel-briefcase",), "What becomes of its locks.", "They are abandoned."),
    Reading(
        ("update-imodel-locks",),
        "The answer, and what changesetId does.",
        "Only the requested objects that are held now; without changesetId newer changesets are not looked for, nor "
        "for shared locks.",
    ),
    Reading(
        ("update-imodel-named-version",),
        "What a change without state does to a hidden named version.",
        "It becomes visible again.",
    ),
    Reading(("release-imodel-locks-chunk",), "The size of a chunk.", "1000 objects."),
    Reading(
        ("get-imodel-released-locks",),
        "What is listed.",
        "Objects that nobody holds now, grouped by the level that was released.",
    ),
    Reading(
        ("get-changeset-checkpoint", "get-named-version-checkpoint"),
        "What a checkpoint that was never made answers.",
        "404 CheckpointNotFound for a changeset, notGenerated for a named version; the baseline is always successful.",
    ),
    Reading(
        ("update-named-version-checkpoint",),
        "How a checkpoint fails.",
        "After a changeset file that begins with sandbox:broken; PUT schedules it again.",
    ),
)


def readings_of(slug: str) -> tuple[Reading, ...]:
    """What was read into one operation."""
    return tuple(reading for reading in READINGS if slug in reading.slugs)
