"""Paths and handlers of the iTwins API. The slug names the documentation page of an operation."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from itwin_mcp.sandbox.itwins import (
    exports,
    global_repositories,
    images,
    itwins,
    lists,
    repositories,
    repository_resources,
)
from itwin_mcp.sandbox.store import JobHandler
from itwin_mcp.sandbox.wire import Route

ROUTES: Final = (
    Route("POST", "/itwins", itwins.create_itwin, slug="create-itwin"),
    Route("GET", "/itwins/myprimaryaccount", itwins.get_my_primary_account, slug="get-my-primary-account"),
    Route("GET", "/itwins/{iTwinId}", itwins.get_itwin, slug="get-itwin"),
    Route("PATCH", "/itwins/{iTwinId}", itwins.update_itwin, slug="update-itwin"),
    Route("DELETE", "/itwins/{iTwinId}", itwins.delete_itwin, slug="delete-itwin"),
    Route("GET", "/itwins/{iTwinId}/account", itwins.get_itwin_account, slug="get-itwin-account"),
    Route("GET", "/itwins", lists.list_my_itwins, slug="get-my-itwins"),
    Route("GET", "/itwins/favorites", lists.list_favorites, slug="get-my-favorite-itwins"),
    Route("POST", "/itwins/favorites/{iTwinId}", lists.add_favorite, slug="add-itwin-to-my-favorites"),
    Route("DELETE", "/itwins/favorites/{iTwinId}", lists.remove_favorite, slug="remove-itwin-from-my-favorites"),
    Route("GET", "/itwins/recents", lists.list_recents, slug="get-my-recents"),
    Route("POST", "/itwins/recents/{iTwinId}", lists.add_recent, slug="add-itwin-to-my-recents"),
    Route("POST", "/itwins/exports", exports.create_export, slug="create-export"),
    Route("GET", "/itwins/exports", exports.list_my_exports, slug="get-my-exports"),
    Route("GET", "/itwins/exports/{exportId}", exports.get_export, slug="get-export"),
    Route("GET", "/itwins/{iTwinId}/repositories", repositories.list_repositories, slug="get-repositories-by-itwin-id"),
    Route("POST", "/itwins/{iTwinId}/repositories", repositories.create_repository, slug="create-repository"),
    Route("GET", "/itwins/{iTwinId}/repositories/{repositoryId}", repositories.get_repository, slug="get-repository"),
    Route(
        "PATCH",
        "/itwins/{iTwinId}/repositories/{repositoryId}",
        repositories.update_repository,
        slug="update-itwin-repository",
    ),
    Route(
        "DELETE",
        "/itwins/{iTwinId}/repositories/{repositoryId}",
        repositories.delete_repository,
        slug="delete-repository",
    ),
    Route(
        "GET",
        "/itwins/{iTwinId}/repositories/{repositoryId}/resources",
        repository_resources.list_resources,
        slug="get-repository-resources",
    ),
    Route(
        "POST",
        "/itwins/{iTwinId}/repositories/{repositoryId}/resources",
        repository_resources.create_resource,
        slug="create-repository-resource",
    ),
    Route(
        "GET",
        "/itwins/{iTwinId}/repositories/{repositoryId}/resources/{resourceId}",
        repository_resources.get_resource,
        slug="get-repository-resource",
    ),
    Route(
        "DELETE",
        "/itwins/{iTwinId}/repositories/{repositoryId}/resources/{resourceId}",
        repository_resources.delete_resource,
        slug="delete-repository-resource",
    ),
    Route(
        "GET",
        "/itwins/{iTwinId}/repositories/{repositoryId}/resources/{resourceId}/graphics",
        repository_resources.get_graphics,
        slug="get-resource-graphics",
        writes=True,
    ),
    Route(
        "GET",
        "/geospatial-features/itwins/{iTwinId}/repositories/{repositoryId}/resources",
        repository_resources.list_resources,
    ),
    Route(
        "GET",
        "/geospatial-features/itwins/{iTwinId}/repositories/{repositoryId}/resources/{resourceId}",
        repository_resources.get_resource,
    ),
    Route(
        "GET",
        "/geospatial-features/itwins/{iTwinId}/repositories/{repositoryId}/resources/{resourceId}/graphics",
        repository_resources.get_graphics,
        writes=True,
    ),
    Route("GET", "/itwins/repositories", global_repositories.list_global_repositories, slug="get-global-repositories"),
    Route(
        "GET",
        "/itwins/repositories/{repositoryId}",
        global_repositories.get_global_repository,
        slug="get-global-repository",
    ),
    Route(
        "GET",
        "/itwins/repositories/{repositoryId}/resources",
        global_repositories.list_global_resources,
        slug="get-global-repository-resources",
    ),
    Route(
        "GET",
        "/itwins/repositories/{repositoryId}/resources/{resourceId}",
        global_repositories.get_global_resource,
        slug="get-global-repository-resource",
    ),
    Route(
        "GET",
        "/itwins/repositories/{repositoryId}/resources/{resourceId}/graphics",
        global_repositories.get_global_graphics,
        slug="get-global-resource-graphics",
    ),
    Route("GET", "/itwins/{iTwinId}/image", images.get_image, slug="get-itwin-image"),
    Route("PUT", "/itwins/{iTwinId}/image", images.upload_image, slug="upload-itwin-image"),
    Route("DELETE", "/itwins/{iTwinId}/image", images.delete_image, slug="delete-itwin-image"),
)

JOBS: Final[Mapping[str, JobHandler]] = {
    "export-started": exports.start_export,
    "export-completed": exports.complete_export,
    "export-expired": exports.expire_export,
}
"""Handlers of due jobs, by kind of job."""
