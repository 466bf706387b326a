"""Paths and handlers of the iModels API (v2). The slug names the documentation page of an operation."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from itwin_mcp.sandbox.imodels import (
    baseline_files,
    briefcases,
    changeset_groups,
    changeset_push,
    changesets,
    checkpoints,
    creation,
    extended_data,
    imodels,
    lists,
    locks,
    named_versions,
    permissions,
    shares,
    thumbnails,
    users,
)
from itwin_mcp.sandbox.store import JobHandler
from itwin_mcp.sandbox.wire import Route

ROUTES: Final = (
    Route("GET", "/imodels", imodels.list_imodels, slug="get-itwin-imodels"),
    Route("GET", "/imodels/{iModelId}", imodels.get_imodel, slug="get-imodel-details"),
    Route("PATCH", "/imodels/{iModelId}", imodels.update_imodel, slug="update-imodel"),
    Route("DELETE", "/imodels/{iModelId}", imodels.delete_imodel, slug="delete-imodel"),
    Route("POST", "/imodels", creation.create_imodel, slug="create-imodel"),
    Route("POST", "/imodels/{iModelId}/clone", creation.clone_imodel, slug="clone-imodel"),
    Route("POST", "/imodels/{iModelId}/fork", creation.fork_imodel, slug="fork-imodel"),
    Route(
        "GET",
        "/imodels/{iModelId}/operations/create",
        creation.get_create_operation,
        slug="get-create-imodel-operation-details",
    ),
    Route("GET", "/imodels/{iModelId}/changesets", changesets.list_changesets, slug="get-imodel-changesets"),
    Route(
        "GET",
        "/imodels/{iModelId}/changesets/{changesetIdOrIndex}",
        changesets.get_changeset,
        slug="get-imodel-changeset-details",
    ),
    Route("POST", "/imodels/{iModelId}/changesets", changeset_push.start_push, slug="create-imodel-changeset"),
    Route(
        "PATCH",
        "/imodels/{iModelId}/changesets/{changesetIdOrIndex}",
        changeset_push.complete_push,
        slug="update-imodel-changeset",
    ),
    Route(
        "GET",
        "/imodels/{iModelId}/changesets/extendeddata",
        extended_data.list_extended_data,
        slug="get-imodel-changesets-extended-data",
    ),
    Route(
        "GET",
        "/imodels/{iModelId}/changesets/{changesetIdOrIndex}/extendeddata",
        extended_data.get_extended_data,
        slug="get-changeset-extended-data",
    ),
    Route(
        "POST",
        "/imodels/{iModelId}/changesets/{changesetIdOrIndex}/extendeddata",
        extended_data.create_extended_data,
        slug="create-imodel-changeset-extended-data",
    ),
    Route(
        "GET", "/imodels/{iModelId}/changesetgroups", changeset_groups.list_groups, slug="get-imodel-changeset-groups"
    ),
    Route(
        "POST",
        "/imodels/{iModelId}/changesetgroups",
        changeset_groups.create_group,
        slug="create-imodel-changeset-group",
    ),
    Route(
        "GET",
        "/imodels/{iModelId}/changesetgroups/{changesetGroupId}",
        changeset_groups.get_group,
        slug="get-imodel-changeset-group",
    ),
    Route(
        "PATCH",
        "/imodels/{iModelId}/changesetgroups/{changesetGroupId}",
        changeset_groups.complete_group,
        slug="update-imodel-changeset-group",
    ),
    Route("GET", "/imodels/{iModelId}/namedversions", named_versions.list_versions, slug="get-imodel-named-versions"),
    Route(
        "POST", "/imodels/{iModelId}/namedversions", named_versions.create_version, slug="create-imodel-named-version"
    ),
    Route(
        "GET",
        "/imodels/{iModelId}/namedversions/{namedVersionId}",
        named_versions.get_version,
        slug="get-imodel-named-version-details",
    ),
    Route(
        "PATCH",
        "/imodels/{iModelId}/namedversions/{namedVersionId}",
        named_versions.update_version,
        slug="update-imodel-named-version",
    ),
    Route(
        "GET",
        "/imodels/{iModelId}/briefcases/checkpoint",
        checkpoints.get_latest_checkpoint,
        slug="get-briefcase-checkpoint",
        writes=True,
    ),
    Route(
        "GET",
        "/imodels/{iModelId}/changesets/{changesetIdOrIndex}/checkpoint",
        checkpoints.get_changeset_checkpoint,
        slug="get-changeset-checkpoint",
        writes=True,
    ),
    Route(
        "GET",
        "/imodels/{iModelId}/namedversions/{namedVersionId}/checkpoint",
        checkpoints.get_version_checkpoint,
        slug="get-named-version-checkpoint",
        writes=True,
    ),
    Route(
        "PUT",
        "/imodels/{iModelId}/namedversions/{namedVersionId}/checkpoint",
        checkpoints.restart_version_checkpoint,
        slug="update-named-version-checkpoint",
    ),
    Route("GET", "/imodels/{iModelId}/briefcases", briefcases.list_briefcases, slug="get-imodel-briefcases"),
    Route("POST", "/imodels/{iModelId}/briefcases", briefcases.acquire_briefcase, slug="acquire-imodel-briefcase"),
    Route(
        "GET",
        "/imodels/{iModelId}/briefcases/{briefcaseId}",
        briefcases.get_briefcase,
        slug="get-imodel-briefcase-details",
    ),
    Route(
        "DELETE",
        "/imodels/{iModelId}/briefcases/{briefcaseId}",
        briefcases.release_briefcase,
        slug="release-imodel-briefcase",
    ),
    Route("GET", "/imodels/{iModelId}/locks", locks.list_locks, slug="get-imodel-locks"),
    Route("PATCH", "/imodels/{iModelId}/locks", locks.update_locks, slug="update-imodel-locks"),
    Route("POST", "/imodels/{iModelId}/locks/release-chunk", locks.release_chunk, slug="release-imodel-locks-chunk"),
    Route(
        "GET", "/imodels/{iModelId}/locks/released-locks", locks.list_released_locks, slug="get-imodel-released-locks"
    ),
    Route("GET", "/imodels/{iModelId}/users", users.list_users, slug="get-imodel-users"),
    Route("GET", "/imodels/{iModelId}/users/{userId}", users.get_user, slug="get-imodel-user-details"),
    Route("GET", "/imodels/{iModelId}/permissions", users.get_my_permissions, slug="get-imodel-permissions"),
    Route(
        "GET",
        "/imodels/{iModelId}/baselinefile",
        baseline_files.get_baseline_file,
        slug="get-imodel-baseline-file-details",
    ),
    Route(
        "POST",
        "/imodels/{iModelId}/baselinefile",
        baseline_files.complete_upload,
        slug="complete-imodel-baseline-file-upload",
    ),
    Route("GET", "/imodels/{iModelId}/thumbnail", thumbnails.get_thumbnail, slug="get-imodel-thumbnail"),
    Route("PUT", "/imodels/{iModelId}/thumbnail", thumbnails.upload_thumbnail, slug="upload-imodel-thumbnail"),
    Route("GET", "/imodels/favorites", lists.list_favorites, slug="get-my-favorite-imodels"),
    Route("PUT", "/imodels/favorites/{iModelId}", lists.add_favorite, slug="add-imodel-to-my-favorites"),
    Route("DELETE", "/imodels/favorites/{iModelId}", lists.remove_favorite, slug="remove-imodel-from-my-favorites"),
    Route("GET", "/imodels/recents", lists.list_recents, slug="get-my-recently-used-imodels"),
    Route("POST", "/imodels/recents/{iModelId}", lists.add_recent, slug="add-imodel-to-my-recents"),
    Route("DELETE", "/imodels/recents/{iModelId}", lists.remove_recent, slug="remove-imodel-from-my-recents"),
    Route("POST", "/imodels/{iModelId}/shares", shares.create_share, slug="create-imodel-share"),
    Route("GET", "/imodels/{iModelId}/shares", shares.list_my_shares, slug="get-imodel-shares"),
    Route("GET", "/imodels/{iModelId}/shares/{shareId}", shares.get_share, slug="get-imodel-share"),
    Route("PATCH", "/imodels/{iModelId}/shares/{shareId}", shares.update_share, slug="update-imodel-share"),
    Route("DELETE", "/imodels/{iModelId}/shares/{shareId}", shares.revoke_share, slug="revoke-imodel-share"),
    Route(
        "GET",
        "/imodels/{iModelId}/userpermissions",
        permissions.get_user_permissions,
        slug="get-imodel-user-permissions",
    ),
    Route(
        "PATCH",
        "/imodels/{iModelId}/userpermissions",
        permissions.update_user_permissions,
        slug="update-imodel-user-permissions",
    ),
    Route(
        "GET",
        "/imodels/{iModelId}/rolepermissions",
        permissions.get_role_permissions,
        slug="get-imodel-role-permissions",
    ),
    Route(
        "PATCH",
        "/imodels/{iModelId}/rolepermissions",
        permissions.update_role_permissions,
        slug="update-imodel-role-permissions",
    ),
)

JOBS: Final[Mapping[str, JobHandler]] = {
    "imodel-initialized": creation.initialize_imodel,
    "imodel-created": creation.finish_creation,
    "changeset-push-abandoned": changeset_push.abandon_push,
    "changeset-group-timed-out": changeset_groups.time_out_group,
    "checkpoint-generated": checkpoints.generate_checkpoint,
    "baseline-initialized": baseline_files.initialize_baseline,
}
"""Handlers of due jobs, by kind of job."""
