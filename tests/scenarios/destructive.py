"""A target for every destructive tool."""

from __future__ import annotations

import io
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from PIL import Image

from itwin_mcp.capability.catalog import Tool
from itwin_mcp.capability.documents import find_shipped_files
from itwin_mcp.capability.linker import link_files
from itwin_mcp.sandbox.seed import seeded_id
from tests.scenarios.test_area_tools import Desk

PROJECT = "NL-A12-0042"
STRUCTURES = "A12 Interchange - Structures"
OLD = b"what was there"
DESTRUCTIVE: dict[str, Tool] = {
    name: tool for name, tool in link_files(find_shipped_files()).tools.items() if tool.annotations.destructive
}

Arguments = dict[str, Any]
Setup = Callable[[Desk, Path], Awaitable[tuple[Arguments, Arguments]]]
"""Creates what a call destroys. Returns the arguments of the call, and arguments for another existing target."""


async def _itwin(desk: Desk, _: Path) -> tuple[Arguments, Arguments]:
    kind = {"class": "Endeavor", "subClass": "Project"}
    itwin = (await desk.ask("create-itwin", displayName="Quay 7", number="Q-7", **kind))["iTwin"]
    await desk.ask("create-imodel", iTwinId=itwin["id"], name="Wall")
    return {"iTwinId": itwin["id"]}, {"iTwinId": await desk.itwin(PROJECT)}


async def _imodel(desk: Desk, _: Path) -> tuple[Arguments, Arguments]:
    return {"iModelId": await desk.roads()}, {"iModelId": await desk.imodel(PROJECT, STRUCTURES)}


async def _briefcase(desk: Desk, _: Path) -> tuple[Arguments, Arguments]:
    imodel = await desk.roads()
    number = (await desk.ask("acquire-briefcase", iModelId=imodel, deviceName="Laptop"))["briefcase"]["briefcaseId"]
    await desk.ask("acquire-locks", iModelId=imodel, briefcaseId=number, objectIds=["0x100", "0x101"])
    ids = {"iModelId": imodel, "briefcaseId": number}
    return ids, ids | {"briefcaseId": 2}


async def _briefcase_of_another(desk: Desk, _: Path) -> tuple[Arguments, Arguments]:
    ids = {"iModelId": await desk.roads(), "briefcaseId": 2}
    return ids, ids | {"briefcaseId": 3}


async def _locks_of_another(desk: Desk, root: Path) -> tuple[Arguments, Arguments]:
    arguments, _ = await _briefcase_of_another(desk, root)
    held = (await desk.ask("list-locks", **arguments))["locks"][0]["lockedObjects"]
    elements = [element for locked in held for element in locked["objectIds"]]
    return arguments | {"objectIds": elements[:1]}, arguments | {"objectIds": elements[1:2]}


async def _publication(desk: Desk, _: Path) -> tuple[Arguments, Arguments]:
    ends = (datetime.now(UTC) + timedelta(days=20)).isoformat()
    ids = {"iModelId": await desk.roads(), "name": "Council", "expiration": ends}
    return ids, ids | {"iModelId": await desk.imodel(PROJECT, STRUCTURES)}


async def _share(desk: Desk, _: Path) -> tuple[Arguments, Arguments]:
    imodel = await desk.roads()
    ends = (datetime.now(UTC) + timedelta(days=20)).isoformat()
    ids = [
        (await desk.ask("create-share", iModelId=imodel, name=name, expiration=ends))["share"]["id"]
        for name in ("Council", "Press")
    ]
    return {"iModelId": imodel, "shareId": ids[0]}, {"iModelId": imodel, "shareId": ids[1]}


async def _share_end(desk: Desk, root: Path) -> tuple[Arguments, Arguments]:
    arguments, other = await _share(desk, root)
    sooner = {"expiration": (datetime.now(UTC) + timedelta(days=1)).isoformat()}
    return arguments | sooner, other | sooner


async def _repository(desk: Desk, _: Path) -> tuple[Arguments, Arguments]:
    itwin = await desk.itwin(PROJECT)
    gis = {"class": "GeographicInformationSystem", "subClass": "WebMapService", "uri": "https://maps.example.org/wms"}
    repository = (await desk.ask("create-repository", iTwinId=itwin, displayName="Soil", **gis))["repository"]
    ids = {"iTwinId": itwin, "repositoryId": repository["id"]}
    for layer in ("soil", "water"):
        await desk.ask("create-repository-resource", **ids, resourceId=layer, displayName=f"The layer {layer}")
    return ids, ids | {"repositoryId": "iModels"}


async def _address(desk: Desk, root: Path) -> tuple[Arguments, Arguments]:
    arguments, _ = await _repository(desk, root)
    return arguments | {"uri": "https://maps.example.org/new"}, arguments | {"uri": "https://maps.example.org/newer"}


async def _layer(desk: Desk, root: Path) -> tuple[Arguments, Arguments]:
    arguments, _ = await _repository(desk, root)
    return arguments | {"resourceId": "soil"}, arguments | {"resourceId": "water"}


async def _user(desk: Desk, _: Path) -> tuple[Arguments, Arguments]:
    imodel = {"iModelId": await desk.imodel(PROJECT, STRUCTURES)}
    return await _entries(desk, "update-imodel-user-permissions", imodel, {"userId": seeded_id("user", "priya")})


async def _role(desk: Desk, _: Path) -> tuple[Arguments, Arguments]:
    imodel = {"iModelId": await desk.imodel("NL-MAAS-0017", "Maas Crossing - Deck Renewal")}
    return await _entries(desk, "update-imodel-role-permissions", imodel, {"roleId": seeded_id("role", "Viewer")})


async def _entries(desk: Desk, tool: str, imodel: Arguments, who: Arguments) -> tuple[Arguments, Arguments]:
    def given(*permissions: str) -> Arguments:
        return imodel | {"entries": [who | {"permissions": list(permissions)}]}

    await desk.ask(tool, **given("imodels_webview", "imodels_read"))
    return given("imodels_webview"), given()


async def _image(desk: Desk, _: Path) -> tuple[Arguments, Arguments]:
    return {"iTwinId": await desk.itwin(PROJECT)}, {"iTwinId": await desk.itwin("NL-MAAS-0017")}


async def _new_image(desk: Desk, root: Path) -> tuple[Arguments, Arguments]:
    arguments, other = await _image(desk, root)
    return arguments | _picture(root), other | _picture(root)


async def _new_thumbnail(desk: Desk, root: Path) -> tuple[Arguments, Arguments]:
    arguments, other = await _imodel(desk, root)
    return arguments | _picture(root), other | _picture(root)


def _picture(root: Path) -> Arguments:
    drawn = io.BytesIO()
    Image.new("RGB", (60, 40), "teal").save(drawn, "png")
    (root / "look.png").write_bytes(drawn.getvalue())
    return {"filePath": "look.png"}


def _files(root: Path, more: Arguments) -> tuple[Arguments, Arguments]:
    """Write two files; return the arguments that replace each."""
    for name in ("old", "other"):
        (root / name).write_bytes(OLD)
    ids = more | {"filePath": "old", "overwrite": True}
    return ids, ids | {"filePath": "other"}


async def _changeset(desk: Desk, root: Path) -> tuple[Arguments, Arguments]:
    return _files(root, {"iModelId": await desk.roads(), "changeset": "1"})


async def _checkpoint(desk: Desk, root: Path) -> tuple[Arguments, Arguments]:
    made = (await desk.ask("create-imodel", iTwinId=await desk.itwin(PROJECT), name="With a checkpoint"))["iModel"]
    return _files(root, {"iModelId": made["id"], "changeset": "0"})


async def _baseline(desk: Desk, root: Path) -> tuple[Arguments, Arguments]:
    (root / "pier.bim").write_bytes(b"pier")
    arguments = {"iTwinId": await desk.itwin(PROJECT), "name": "From a file", "filePath": "pier.bim"}
    return _files(root, {"iModelId": (await desk.ask("create-imodel-from-file", **arguments))["iModel"]["id"]})


async def _export(desk: Desk, root: Path) -> tuple[Arguments, Arguments]:
    export = (await desk.ask("create-export", outputFormat="Csv"))["export"]
    return _files(root, {"exportId": export["id"]})


TARGETS: dict[str, Setup] = {
    "delete-itwin": _itwin,
    "delete-imodel": _imodel,
    "delete-itwin-image": _image,
    "upload-itwin-image": _new_image,
    "upload-imodel-thumbnail": _new_thumbnail,
    "delete-repository": _repository,
    "update-repository": _address,
    "delete-repository-resource": _layer,
    "create-share": _publication,
    "revoke-share": _share,
    "update-share": _share_end,
    "release-briefcase": _briefcase,
    "end-authoring-session": _briefcase,
    "release-locks": _locks_of_another,
    "release-all-locks": _briefcase_of_another,
    "update-imodel-user-permissions": _user,
    "update-imodel-role-permissions": _role,
    "download-baseline-file": _baseline,
    "download-changeset": _changeset,
    "download-checkpoint": _checkpoint,
    "download-export": _export,
}
"""How each destructive tool gets a target. A tool that is missing here fails the tests of all destructive tools."""


async def two_targets(tool: str, desk: Desk, root: Path) -> tuple[Arguments, Arguments, list[str]]:
    """Return the arguments of two calls that destroy something, and the iTwins of their targets."""
    arguments, other_arguments = await TARGETS[tool](desk, root)
    if tool == "delete-repository":  # the other_arguments repository belongs to the platform and cannot be deleted
        kind = {"class": "GeographicInformationSystem", "subClass": "WebMapService"}
        answer = {"displayName": "Water", "uri": "https://maps.example.org/water"}
        made = await desk.ask("create-repository", iTwinId=arguments["iTwinId"], **kind, **answer)
        other_arguments = arguments | {"repositoryId": made["repository"]["id"]}
    itwins = set()
    for target in (arguments, other_arguments):
        if "iModelId" in target:
            itwins.add((await desk.ask("get-imodel", iModelId=target["iModelId"]))["iModel"]["iTwinId"])
        elif "iTwinId" in target:  # an export is in no iTwin
            itwins.add(target["iTwinId"])
    return arguments, other_arguments, sorted(itwins)
