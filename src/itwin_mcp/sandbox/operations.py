"""The 90 documented operations of the iTwins and iModels APIs, from which coverage is computed.

Paths and methods come from the reference tables 1A and 1B.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class Operation:
    """A documented operation. `slug` is the name of its documentation page."""

    slug: str
    method: str
    path: str


ITWINS: Final = (
    Operation("get-my-itwins", "GET", "/itwins"),
    Operation("create-itwin", "POST", "/itwins"),
    Operation("get-itwin", "GET", "/itwins/{iTwinId}"),
    Operation("update-itwin", "PATCH", "/itwins/{iTwinId}"),
    Operation("delete-itwin", "DELETE", "/itwins/{iTwinId}"),
    Operation("get-my-primary-account", "GET", "/itwins/myprimaryaccount"),
    Operation("get-itwin-account", "GET", "/itwins/{iTwinId}/account"),
    Operation("get-itwin-image", "GET", "/itwins/{iTwinId}/image"),
    Operation("upload-itwin-image", "PUT", "/itwins/{iTwinId}/image"),
    Operation("delete-itwin-image", "DELETE", "/itwins/{iTwinId}/image"),
    Operation("get-my-favorite-itwins", "GET", "/itwins/favorites"),
    Operation("add-itwin-to-my-favorites", "POST", "/itwins/favorites/{iTwinId}"),
    Operation("remove-itwin-from-my-favorites", "DELETE", "/itwins/favorites/{iTwinId}"),
    Operation("get-my-recents", "GET", "/itwins/recents"),
    Operation("add-itwin-to-my-recents", "POST", "/itwins/recents/{iTwinId}"),
    Operation("create-export", "POST", "/itwins/exports"),
    Operation("get-export", "GET", "/itwins/exports/{exportId}"),
    Operation("get-my-exports", "GET", "/itwins/exports"),
    Operation("get-repositories-by-itwin-id", "GET", "/itwins/{iTwinId}/repositories"),
    Operation("create-repository", "POST", "/itwins/{iTwinId}/repositories"),
    Operation("get-repository", "GET", "/itwins/{iTwinId}/repositories/{repositoryId}"),
    Operation("update-itwin-repository", "PATCH", "/itwins/{iTwinId}/repositories/{repositoryId}"),
    Operation("delete-repository", "DELETE", "/itwins/{iTwinId}/repositories/{repositoryId}"),
    Operation("get-repository-resources", "GET", "/itwins/{iTwinId}/repositories/{repositoryId}/resources"),
    Operation("create-repository-resource", "POST", "/itwins/{iTwinId}/repositories/{repositoryId}/resources"),
    Operation("get-repository-resource", "GET", "/itwins/{iTwinId}/repositories/{repositoryId}/resources/{resourceId}"),
    Operation(
        "delete-repository-resource", "DELETE", "/itwins/{iTwinId}/repositories/{repositoryId}/resources/{resourceId}"
    ),
    Operation(
        "get-resource-graphics", "GET", "/itwins/{iTwinId}/repositories/{repositoryId}/resources/{resourceId}/graphics"
    ),
    Operation("get-global-repositories", "GET", "/itwins/repositories"),
    Operation("get-global-repository", "GET", "/itwins/repositories/{repositoryId}"),
    Operation("get-global-repository-resources", "GET", "/itwins/repositories/{repositoryId}/resources"),
    Operation("get-global-repository-resource", "GET", "/itwins/repositories/{repositoryId}/resources/{resourceId}"),
    Operation(
        "get-global-resource-graphics", "GET", "/itwins/repositories/{repositoryId}/resources/{resourceId}/graphics"
    ),
)
IMODELS: Final = (
    Operation("get-itwin-imodels", "GET", "/imodels"),
    Operation("create-imodel", "POST", "/imodels"),
    Operation("get-imodel-details", "GET", "/imodels/{iModelId}"),
    Operation("update-imodel", "PATCH", "/imodels/{iModelId}"),
    Operation("delete-imodel", "DELETE", "/imodels/{iModelId}"),
    Operation("clone-imodel", "POST", "/imodels/{iModelId}/clone"),
    Operation("fork-imodel", "POST", "/imodels/{iModelId}/fork"),
    Operation("get-create-imodel-operation-details", "GET", "/imodels/{iModelId}/operations/create"),
    Operation("get-imodel-baseline-file-details", "GET", "/imodels/{iModelId}/baselinefile"),
    Operation("complete-imodel-baseline-file-upload", "POST", "/imodels/{iModelId}/baselinefile"),
    Operation("get-imodel-briefcases", "GET", "/imodels/{iModelId}/briefcases"),
    Operation("acquire-imodel-briefcase", "POST", "/imodels/{iModelId}/briefcases"),
    Operation("get-imodel-briefcase-details", "GET", "/imodels/{iModelId}/briefcases/{briefcaseId}"),
    Operation("release-imodel-briefcase", "DELETE", "/imodels/{iModelId}/briefcases/{briefcaseId}"),
    Operation("get-briefcase-checkpoint", "GET", "/imodels/{iModelId}/briefcases/checkpoint"),
    Operation("get-imodel-changesets", "GET", "/imodels/{iModelId}/changesets"),
    Operation("get-imodel-changeset-details", "GET", "/imodels/{iModelId}/changesets/{changesetIdOrIndex}"),
    Operation("create-imodel-changeset", "POST", "/imodels/{iModelId}/changesets"),
    Operation("update-imodel-changeset", "PATCH", "/imodels/{iModelId}/changesets/{changesetIdOrIndex}"),
    Operation("get-changeset-checkpoint", "GET", "/imodels/{iModelId}/changesets/{changesetIdOrIndex}/checkpoint"),
    Operation("get-imodel-changesets-extended-data", "GET", "/imodels/{iModelId}/changesets/extendeddata"),
    Operation("get-changeset-extended-data", "GET", "/imodels/{iModelId}/changesets/{changesetIdOrIndex}/extendeddata"),
    Operation(
        "create-imodel-changeset-extended-data",
        "POST",
        "/imodels/{iModelId}/changesets/{changesetIdOrIndex}/extendeddata",
    ),
    Operation("get-imodel-changeset-groups", "GET", "/imodels/{iModelId}/changesetgroups"),
    Operation("get-imodel-changeset-group", "GET", "/imodels/{iModelId}/changesetgroups/{changesetGroupId}"),
    Operation("create-imodel-changeset-group", "POST", "/imodels/{iModelId}/changesetgroups"),
    Operation("update-imodel-changeset-group", "PATCH", "/imodels/{iModelId}/changesetgroups/{changesetGroupId}"),
    Operation("get-imodel-named-versions", "GET", "/imodels/{iModelId}/namedversions"),
    Operation("get-imodel-named-version-details", "GET", "/imodels/{iModelId}/namedversions/{namedVersionId}"),
    Operation("create-imodel-named-version", "POST", "/imodels/{iModelId}/namedversions"),
    Operation("update-imodel-named-version", "PATCH", "/imodels/{iModelId}/namedversions/{namedVersionId}"),
    Operation("get-named-version-checkpoint", "GET", "/imodels/{iModelId}/namedversions/{namedVersionId}/checkpoint"),
    Operation(
        "update-named-version-checkpoint", "PUT", "/imodels/{iModelId}/namedversions/{namedVersionId}/checkpoint"
    ),
    Operation("get-imodel-locks", "GET", "/imodels/{iModelId}/locks"),
    Operation("update-imodel-locks", "PATCH", "/imodels/{iModelId}/locks"),
    Operation("release-imodel-locks-chunk", "POST", "/imodels/{iModelId}/locks/release-chunk"),
    Operation("get-imodel-released-locks", "GET", "/imodels/{iModelId}/locks/released-locks"),
    Operation("get-imodel-users", "GET", "/imodels/{iModelId}/users"),
    Operation("get-imodel-user-details", "GET", "/imodels/{iModelId}/users/{userId}"),
    Operation("get-imodel-permissions", "GET", "/imodels/{iModelId}/permissions"),
    Operation("get-imodel-user-permissions", "GET", "/imodels/{iModelId}/userpermissions"),
    Operation("update-imodel-user-permissions", "PATCH", "/imodels/{iModelId}/userpermissions"),
    Operation("get-imodel-role-permissions", "GET", "/imodels/{iModelId}/rolepermissions"),
    Operation("update-imodel-role-permissions", "PATCH", "/imodels/{iModelId}/rolepermissions"),
    Operation("get-imodel-thumbnail", "GET", "/imodels/{iModelId}/thumbnail"),
    Operation("upload-imodel-thumbnail", "PUT", "/imodels/{iModelId}/thumbnail"),
    Operation("get-my-favorite-imodels", "GET", "/imodels/favorites"),
    Operation("add-imodel-to-my-favorites", "PUT", "/imodels/favorites/{iModelId}"),
    Operation("remove-imodel-from-my-favorites", "DELETE", "/imodels/favorites/{iModelId}"),
    Operation("get-my-recently-used-imodels", "GET", "/imodels/recents"),
    Operation("add-imodel-to-my-recents", "POST", "/imodels/recents/{iModelId}"),
    Operation("remove-imodel-from-my-recents", "DELETE", "/imodels/recents/{iModelId}"),
    Operation("create-imodel-share", "POST", "/imodels/{iModelId}/shares"),
    Operation("get-imodel-shares", "GET", "/imodels/{iModelId}/shares"),
    Operation("get-imodel-share", "GET", "/imodels/{iModelId}/shares/{shareId}"),
    Operation("update-imodel-share", "PATCH", "/imodels/{iModelId}/shares/{shareId}"),
    Operation("revoke-imodel-share", "DELETE", "/imodels/{iModelId}/shares/{shareId}"),
)
OPERATIONS: Final = ITWINS + IMODELS
