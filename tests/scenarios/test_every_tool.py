"""Every tool through MCP against the sandbox: one success, one error, and a limit on its requests."""

# ruff: noqa: E501  (a table reads best with one on a line)

import hashlib
import io
import json
import re
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from mcp import MCPError
from PIL import Image

from itwin_mcp.capability.documents import find_shipped_files
from itwin_mcp.capability.linker import link_files
from itwin_mcp.errors import Unreachable
from itwin_mcp.executor.flow_steps import MAX_READS
from itwin_mcp.sandbox.seed import seeded_id
from itwin_mcp.upstream.client import UpstreamClient
from itwin_mcp.upstream.messages import Request
from itwin_mcp.upstream.storage import Storage
from tests.conftest import connect
from tests.scenarios.test_area_tools import Desk

pytestmark = pytest.mark.anyio

NOBODY = "1c4b1d5e-0000-4000-8000-000000000000"
CHANGES = b"changes" * 1_000
CHANGESET = hashlib.sha1(CHANGES).hexdigest()
LATER = (datetime.now(UTC) + timedelta(days=20)).isoformat()


@dataclass(frozen=True)
class Row:
    """One tool: arguments that succeed, changes that make the call fail, the error code, and values for later rows.

    A text `$name` is the value that an earlier row stored under this name, found by a path in its answer.
    """

    tool: str
    given: Mapping[str, Any]
    refused: Mapping[str, Any]
    code: str
    keep: Mapping[str, str] = field(default_factory=dict)


ITWIN, IMODEL = {"iTwinId": "$itwin"}, {"iModelId": "$imodel"}
ROADS = {"iModelId": "$roads"}
NO_ITWIN, NO_IMODEL = {"iTwinId": NOBODY}, {"iModelId": NOBODY}
WRONG = {"limit": 0}
"""Invalid arguments for a list tool whose arguments are all optional."""
UNKNOWN = {"nothing": 1}
BRIEFCASE = {"iModelId": "$imodel", "briefcaseId": "$briefcase"}
VERSION = {"iModelId": "$roads", "namedVersionId": "$version"}
MADE = {"iTwinId": "$made"}
REPOSITORY = {"iTwinId": "$itwin", "repositoryId": "$repository"}
RESOURCE = {**REPOSITORY, "resourceId": "soil"}
GLOBAL = {"repositoryId": "cesium", "resourceId": "$sentinel"}
SHARE = {"iModelId": "$roads", "shareId": "$share"}
MEMBER = {"iTwinId": "$itwin", "memberId": "$member"}

ROWS = [
    # iTwins
    Row("find-itwin", {"name": "NL-A12-0042"}, {"name": ""}, "InvalidArguments", {"itwin": "matches.byNumber.0.id"}),
    Row("list-itwins", {"search": "A12"}, {"filter": "displayName eq"}, "InvalidArguments"),
    Row("list-recent-itwins", {}, WRONG, "InvalidArguments"),
    Row("get-itwin", ITWIN, NO_ITWIN, "iTwinNotFound"),
    Row("add-itwin-to-recents", ITWIN, NO_ITWIN, "iTwinNotFound"),
    Row("create-itwin", {"displayName": "Lock 1", "class": "Endeavor", "subClass": "Project"}, {"displayName": "Lock 2", "number": "NL-A12-0042"}, "iTwinExists", {"made": "iTwin.id"}),
    Row("update-itwin", {**MADE, "displayName": "Lock 1a"}, {"number": "NL-A12-0042"}, "InvalidiTwinsRequest"),
    Row("provision-project", {"displayName": "Lock 3", "iModelName": "Gate"}, {"number": "NL-A12-0042"}, "iTwinExists"),
    # parts of an iTwin
    Row("get-my-account", {}, UNKNOWN, "InvalidArguments"),
    Row("get-itwin-account", ITWIN, NO_ITWIN, "iTwinNotFound"),
    Row("list-known-permissions", {}, UNKNOWN, "InvalidArguments"),
    Row("get-my-itwin-permissions", ITWIN, NO_ITWIN, "ItwinNotFound"),
    Row("list-itwin-roles", ITWIN, NO_ITWIN, "ItwinNotFound", {"role": "roles.0.id"}),
    Row("get-itwin-role", {**ITWIN, "roleId": "$role"}, {"roleId": NOBODY}, "RoleNotFound"),
    Row("list-itwin-members", ITWIN, NO_ITWIN, "ItwinNotFound", {"member": "members.0.id"}),
    Row("get-itwin-member", MEMBER, {"memberId": NOBODY}, "TeamMemberNotFound"),
    Row("list-itwin-owners", ITWIN, NO_ITWIN, "ItwinNotFound"),
    Row("list-itwin-groups", ITWIN, NO_ITWIN, "ItwinNotFound"),
    Row("list-favorite-itwins", {}, {"status": "Active", "includeInactive": True}, "InvalidArguments"),
    Row("add-itwin-to-favorites", ITWIN, NO_ITWIN, "iTwinNotFound"),
    Row("remove-itwin-from-favorites", ITWIN, NO_ITWIN, "iTwinNotFound"),
    Row("upload-itwin-image", {**ITWIN, "filePath": "look.png"}, {"filePath": "none.png"}, "InvalidArguments"),
    Row("get-itwin-image", ITWIN, MADE, "ImageNotFound"),
    Row("delete-itwin-image", ITWIN, MADE, "ImageNotFound"),
    Row("create-export", {"outputFormat": "Csv"}, {"outputFormat": "Xml"}, "InvalidArguments", {"export": "export.id"}),
    Row("list-exports", {}, UNKNOWN, "InvalidArguments"),
    Row("get-export", {"exportId": "$export"}, {"exportId": NOBODY}, "iTwinExportNotFound"),
    Row("wait-for-export", {"exportId": "$export"}, {"exportId": NOBODY}, "iTwinExportNotFound"),
    Row("download-export", {"exportId": "$export", "filePath": "itwins.csv"}, {"filePath": "itwins.csv"}, "InvalidArguments"),
    # repositories
    Row("list-repositories", ITWIN, {"subClass": "ArcGIS"}, "InvalidArguments"),
    Row("create-repository", {**ITWIN, "class": "GeographicInformationSystem", "subClass": "WebMapService", "uri": "https://maps.example.org/wms"}, {}, "iTwinRepositoryExists", {"repository": "repository.id"}),
    Row("create-repository-resource", {**RESOURCE, "displayName": "Soil layer"}, {}, "iTwinRepositoryResourceExists"),
    Row("get-repository", REPOSITORY, {"repositoryId": NOBODY}, "iTwinRepositoryNotFound"),
    Row("update-repository", {**REPOSITORY, "displayName": "Soil types"}, {"displayName": None}, "InvalidArguments"),
    Row("list-repository-resources", REPOSITORY, {"repositoryId": NOBODY}, "iTwinRepositoryNotFound"),
    Row("get-repository-resource", RESOURCE, {"resourceId": "none"}, "iTwinRepositoryResourceNotFound"),
    Row("get-resource-graphics", RESOURCE, NO_ITWIN, "iTwinNotFound"),
    Row("delete-repository-resource", RESOURCE, {}, "iTwinRepositoryResourceNotFound"),
    Row("delete-repository", REPOSITORY, {}, "iTwinRepositoryNotFound"),
    Row("list-global-repositories", {}, {"subClass": "x"}, "InvalidArguments"),
    Row("get-global-repository", {"repositoryId": "cesium"}, {"repositoryId": "none"}, "iTwinRepositoryNotFound"),
    Row("list-global-repository-resources", {"repositoryId": "cesium", "search": "Sentinel"}, {"repositoryId": "none"}, "iTwinRepositoryNotFound", {"sentinel": "resources.0.id"}),
    Row("get-global-repository-resource", GLOBAL, {"resourceId": "0"}, "iTwinRepositoryResourceNotFound"),
    Row("get-global-resource-graphics", GLOBAL, {"resourceId": "0"}, "iTwinRepositoryResourceNotFound"),
    # iModels
    Row("find-imodel", {"name": "A12 Interchange - Roads"}, NO_ITWIN, "iTwinNotFound", {"roads": "matches.byName.0.id"}),
    Row("list-imodels", ITWIN, NO_ITWIN, "iTwinNotFound"),
    Row("list-stale-imodels", {**ITWIN, "since": "2026-01-01"}, {"since": "2026-02-30"}, "InvalidArguments"),
    Row("get-imodel", ROADS, NO_IMODEL, "iModelNotFound"),
    Row("describe-imodel", ROADS, NO_IMODEL, "iModelNotFound"),
    Row("create-imodel", {**ITWIN, "name": "New"}, {}, "iModelExists", {"imodel": "iModel.id"}),
    Row("clone-imodel", {**ITWIN, **ROADS, "name": "Clone"}, {}, "iModelExists"),
    Row("fork-imodel", {**ITWIN, **ROADS, "name": "Fork"}, {}, "iModelExists", {"fork": "iModel.id"}),
    Row("create-imodel-from-template", {**ITWIN, "name": "Like roads", "templateIModelId": "$roads"}, {"name": "Other", "templateIModelId": NOBODY}, "iModelNotFound"),
    Row("create-imodel-from-file", {**ITWIN, "name": "From a file", "filePath": "pier.bim"}, {}, "iModelExists", {"filed": "iModel.id"}),
    Row("get-imodel-creation", IMODEL, NO_IMODEL, "iModelNotFound"),
    Row("wait-for-imodel", IMODEL, NO_IMODEL, "iModelNotFound"),
    Row("update-imodel", {**IMODEL, "name": "New 2"}, {"name": "Clone"}, "iModelExists"),
    Row("delete-imodel", {"iModelId": "$fork"}, {}, "iModelNotFound"),
    Row("get-baseline-file", {"iModelId": "$filed"}, NO_IMODEL, "iModelNotFound"),
    Row("wait-for-baseline-file", {"iModelId": "$filed"}, NO_IMODEL, "iModelNotFound"),
    Row("download-baseline-file", {"iModelId": "$filed", "filePath": "back.bim"}, {}, "InvalidArguments"),
    Row("upload-imodel-thumbnail", {**IMODEL, "filePath": "look.png"}, {"filePath": "pier.bim"}, "InvalidArguments"),
    Row("get-imodel-thumbnail", IMODEL, NO_IMODEL, "iModelNotFound"),
    Row("list-favorite-imodels", ITWIN, NO_ITWIN, "iTwinNotFound"),
    Row("add-imodel-to-favorites", ROADS, NO_IMODEL, "iModelNotFound"),
    Row("remove-imodel-from-favorites", ROADS, NO_IMODEL, "iModelNotFound"),
    Row("list-recent-imodels", ITWIN, NO_ITWIN, "iTwinNotFound"),
    Row("add-imodel-to-recents", ROADS, NO_IMODEL, "iModelNotFound"),
    Row("remove-imodel-from-recents", ROADS, NO_IMODEL, "iModelNotFound"),
    # authoring
    Row("acquire-briefcase", IMODEL, NO_IMODEL, "iModelNotFound", {"briefcase": "briefcase.briefcaseId"}),
    Row("get-briefcase", BRIEFCASE, {"briefcaseId": 999}, "BriefcaseNotFound"),
    Row("list-briefcases", IMODEL, NO_IMODEL, "iModelNotFound"),
    Row("acquire-locks", {**BRIEFCASE, "objectIds": ["0x100", "0x101", "0x102"]}, {"objectIds": ["100"]}, "InvalidArguments"),
    Row("list-locks", IMODEL, NO_IMODEL, "iModelNotFound"),
    Row("list-lock-holders", IMODEL, NO_IMODEL, "iModelNotFound"),
    Row("count-pushes", IMODEL, NO_IMODEL, "iModelNotFound"),
    Row("push-changeset", {**BRIEFCASE, "changesetId": CHANGESET, "filePath": "1.cs"}, {}, "ChangesetExists"),
    Row("release-locks", {**BRIEFCASE, "objectIds": ["0x100"], "changeset": CHANGESET}, {}, "LockNotFound"),
    Row("list-released-locks", {**IMODEL, "afterChangesetIndex": 0}, NO_IMODEL, "iModelNotFound"),
    Row("release-all-locks", BRIEFCASE, {"briefcaseId": 999}, "BriefcaseNotFound"),
    Row("release-briefcase", BRIEFCASE, {}, "BriefcaseNotFound"),
    Row("start-authoring-session", {**IMODEL, "objectIds": ["0x200"]}, NO_IMODEL, "iModelNotFound", {"session": "session.briefcase.briefcaseId"}),
    Row("end-authoring-session", {**IMODEL, "briefcaseId": "$session"}, {}, "BriefcaseNotFound"),
    # history
    Row("list-changesets", ROADS, NO_IMODEL, "iModelNotFound"),
    Row("get-changeset", {**ROADS, "changeset": "12"}, {"changeset": "99"}, "ChangesetNotFound"),
    Row("download-changeset", {**IMODEL, "changeset": "1", "filePath": "copy.cs"}, {}, "InvalidArguments"),
    Row("list-changeset-groups", ROADS, NO_IMODEL, "iModelNotFound"),
    Row("create-changeset-group", {**ROADS, "description": "Run 1"}, NO_IMODEL, "iModelNotFound", {"group": "changesetGroup.id"}),
    Row("get-changeset-group", {**ROADS, "changesetGroupId": "$group"}, {"changesetGroupId": NOBODY}, "ChangesetGroupNotFound"),
    Row("complete-changeset-group", {**ROADS, "changesetGroupId": "$group"}, {}, "InvalidiModelsRequest"),
    Row("list-extended-data", ROADS, NO_IMODEL, "iModelNotFound"),
    Row("get-extended-data", {**ROADS, "changeset": "5"}, {"changeset": "1"}, "ChangesetExtendedDataNotFound"),
    Row("create-extended-data", {**IMODEL, "changeset": "1", "data": {}}, {}, "ChangesetExtendedDataExists"),
    Row("list-named-versions", ROADS, NO_IMODEL, "iModelNotFound", {"version": "namedVersions.0.id", "older": "namedVersions.1.id"}),
    Row("get-named-version", VERSION, {"namedVersionId": NOBODY}, "NamedVersionNotFound"),
    Row("create-named-version", {**IMODEL, "name": "Pushed", "changeset": CHANGESET}, {"name": "Pushed 2"}, "NamedVersionOnChangesetExists"),
    Row("update-named-version", {**VERSION, "state": "visible"}, {"namedVersionId": NOBODY}, "NamedVersionNotFound"),
    Row("compare-named-versions", {**ROADS, "olderVersionId": "$older", "newerVersionId": "$version"}, {"olderVersionId": "$version"}, "NoChanges"),
    Row("get-latest-checkpoint", ROADS, NO_IMODEL, "iModelNotFound"),
    Row("get-changeset-checkpoint", {**ROADS, "changeset": "12"}, {"changeset": "1"}, "CheckpointNotFound"),
    Row("get-named-version-checkpoint", VERSION, {"namedVersionId": NOBODY}, "NamedVersionNotFound"),
    Row("update-named-version-checkpoint", VERSION, {"namedVersionId": NOBODY}, "NamedVersionNotFound"),
    Row("wait-for-checkpoint", VERSION, {"namedVersionId": NOBODY}, "NamedVersionNotFound"),
    Row("download-checkpoint", {**IMODEL, "changeset": "0", "filePath": "model.bim"}, {}, "InvalidArguments"),
    # people
    Row("list-imodel-users", ROADS, NO_IMODEL, "iModelNotFound", {"user": "users.0.id"}),
    Row("get-imodel-user", {**ROADS, "userId": "$user"}, {"userId": NOBODY}, "UserNotFound"),
    Row("get-imodel-permissions", ROADS, NO_IMODEL, "iModelNotFound"),
    Row("describe-access", ROADS, NO_IMODEL, "iModelNotFound"),
    Row("get-imodel-user-permissions", IMODEL, NO_IMODEL, "iModelNotFound"),
    Row("update-imodel-user-permissions", {**IMODEL, "entries": [{"userId": seeded_id("user", "priya"), "permissions": ["imodels_webview"]}]}, {"entries": [{"userId": NOBODY, "permissions": ["imodels_delete"]}]}, "InvalidArguments"),
    Row("get-imodel-role-permissions", ROADS, NO_IMODEL, "iModelNotFound"),
    Row("update-imodel-role-permissions", {"iModelId": "$filed", "entries": [{"roleId": "Viewer", "permissions": ["imodels_webview", "imodels_read"]}]}, NO_IMODEL, "iModelNotFound"),
    Row("list-shares", ROADS, NO_IMODEL, "iModelNotFound"),
    Row("create-share", {**ROADS, "name": "Council", "expiration": LATER}, {"expiration": "soon"}, "InvalidArguments", {"share": "share.id"}),
    Row("get-share", SHARE, {"shareId": NOBODY}, "ShareNotFound"),
    Row("update-share", {**SHARE, "expiration": LATER}, {"shareId": NOBODY}, "ShareNotFound"),
    Row("revoke-share", SHARE, {}, "ShareNotFound"),
    # the session, and deleting the iTwin
    Row("who-am-i", {}, UNKNOWN, "InvalidArguments"),
    Row("save-list", {"tool": "list-itwins", "path": "listed.csv"}, {"path": "../listed.csv"}, "InvalidArguments"),
    Row("read-guide", {"guide": "limits"}, {"guide": "weather"}, "InvalidArguments"),
    Row("delete-itwin", MADE, {}, "iTwinNotFound"),
]  # fmt: skip


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a folder with a baseline, a changeset and a picture."""
    write_files(tmp_path)
    return tmp_path


def write_files(folder: Path) -> None:
    """Write a baseline, a changeset and a picture into a folder."""
    picture = io.BytesIO()
    Image.new("RGB", (60, 40), "teal").save(picture, "png")
    for name, content in (("pier.bim", b"pier"), ("1.cs", CHANGES), ("look.png", picture.getvalue())):
        (folder / name).write_bytes(content)


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> list[Request]:
    """Record every request to the platform."""
    requests: list[Request] = []
    send = UpstreamClient.send

    async def counted(self: UpstreamClient, request: Request) -> Any:
        requests.append(request)
        return await send(self, request)

    monkeypatch.setattr(UpstreamClient, "send", counted)
    return requests


@pytest.fixture
async def desk(folder: Path) -> AsyncIterator[Desk]:
    async with connect(files_root=[folder]) as client:
        yield Desk(client)


def fill_values(arguments: Mapping[str, Any], stored: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name: stored[value[1:]] if isinstance(value, str) and value.startswith("$") else value
        for name, value in arguments.items()
    }


def read_path(answer: Any, path: str) -> Any:
    for part in path.split("."):
        answer = answer[int(part)] if isinstance(answer, list) else answer[part]
    return answer


async def test_every_tool_succeeds_and_fails_within_schema_and_request_limits(desk: Desk, sent: list[Request]) -> None:
    tools, stored, wrong = link_files(find_shipped_files()).tools, dict[str, Any](), list[str]()
    listed = [tool.name for tool in (await desk.client.list_tools()).tools]
    assert sorted(row.tool for row in ROWS) == sorted(name for name in listed if name != "complete-baseline-file")
    for row in ROWS:
        arguments = fill_values(row.given, stored)
        sent.clear()
        answer = await desk.ask(row.tool, **arguments)
        count = len(sent)
        stored |= {name: read_path(answer, path) for name, path in row.keep.items()}
        tool = tools.get(row.tool)
        if tool is not None and tool.annotations.read_only and count > MAX_READS:
            wrong.append(f"{row.tool}: {count} requests, more than {MAX_READS}")
        sent.clear()
        error = await desk.refused(row.tool, **arguments | fill_values(row.refused, stored))
        if error["code"] != row.code or not error["hint"]:
            wrong.append(f"{row.tool}: refused with {error['code']}, not {row.code}: {error['message']}")
        if error["code"] == "InvalidArguments" and sent:
            wrong.append(f"{row.tool}: an invalid call sent {len(sent)} requests")
    assert wrong == [], "\n".join(wrong)


async def test_complete_baseline_file_completes_an_interrupted_upload(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    upload = Storage.upload

    async def cut_off(self: Storage, *arguments: Any, **named: Any) -> int:
        await upload(self, *arguments, **named)
        raise Unreachable("ConnectionLost", "The connection was lost.", hint="Look.")

    monkeypatch.setattr(Storage, "upload", cut_off)
    new = {"iTwinId": await desk.itwin("NL-A12-0042"), "name": "Cut off", "filePath": "pier.bim"}
    unfinished = (await desk.refused("create-imodel-from-file", **new))["completed"][0]["ids"][0]
    completed = await desk.ask("complete-baseline-file", iModelId=unfinished)
    assert completed["baselineFile"]["state"] == "initialized"
    assert (await desk.refused("complete-baseline-file", iModelId=unfinished))["code"] == "InvalidiModelsRequest"


TEMPLATES = {
    "iTwinId": "$itwin", "iModelId": "$roads", "repositoryId": "$repository", "resourceId": "soil", "exportId": "$export",
    "namedVersionId": "$version", "changesetId": "12", "changesetGroupId": "$group", "userId": "$user", "shareId": "$share",
    "briefcaseId": "$theirs",
}  # fmt: skip
"""Values of the variables in the resource templates."""
OTHER_VALUES = {
    "itwin://repositories/{repositoryId}": {"repositoryId": "cesium"},
    "itwin://repositories/{repositoryId}/resources/{resourceId}": GLOBAL,
    "itwin://imodels/{iModelId}/changesets/{changesetId}/extendeddata": {"changesetId": "5"},
}
SIGNED_OR_KEY = re.compile(
    r"[?&](?:sig|signature|X-Amz-Signature)=|shareKey|sasToken|password|authorization", re.IGNORECASE
)
NEEDED = [
    "find-itwin", "create-repository", "create-repository-resource", "list-global-repository-resources", "create-export",
    "find-imodel", "create-changeset-group", "list-named-versions", "list-imodel-users", "create-share",
    "upload-itwin-image",
]  # fmt: skip


async def create_entities(desk: Desk) -> dict[str, Any]:
    """Run the rows of NEEDED, and return the values that they store."""
    stored: dict[str, Any] = {}
    for row in (next(row for row in ROWS if row.tool == name) for name in NEEDED):
        answer = await desk.ask(row.tool, **fill_values(row.given, stored))
        stored |= {name: read_path(answer, path) for name, path in row.keep.items()}
    return stored


async def test_every_resource_template_is_read_and_reports_missing_ids(desk: Desk) -> None:
    stored = await create_entities(desk)
    mine = await desk.ask("list-briefcases", iModelId=stored["roads"])
    stored["theirs"] = mine["briefcases"][0]["briefcaseId"]
    listed = (await desk.client.list_resource_templates()).resource_templates
    assert len(listed) >= 24
    for item in listed:
        values = fill_values(TEMPLATES | OTHER_VALUES.get(item.uri_template, {}), stored)
        contents = (await desk.client.read_resource(item.uri_template.format(**values))).contents[0]
        assert contents.mime_type == item.mime_type, item.uri_template
        assert not SIGNED_OR_KEY.search(getattr(contents, "text", "")), item.uri_template
        assert getattr(contents, "text", "") or getattr(contents, "blob", ""), item.uri_template
        with pytest.raises(MCPError) as caught:
            await desk.client.read_resource(item.uri_template.format(**dict.fromkeys(values, NOBODY)))
        assert caught.value.error.code == -32602, item.uri_template


async def test_fields_all_of_every_list_contains_no_secret(desk: Desk) -> None:
    stored = await create_entities(desk)
    stored["imodel"] = stored["roads"]
    lists = {
        name
        for name, tool in link_files(find_shipped_files()).tools.items()
        if "fields" in tool.input_schema["properties"]
    }
    assert {"list-shares", "list-itwins", "list-changesets"} <= lists
    for row in (row for row in ROWS if row.tool in lists):
        answer = await desk.ask(row.tool, **fill_values(row.given, stored), fields="all")
        assert not SIGNED_OR_KEY.search(json.dumps(answer)), row.tool
