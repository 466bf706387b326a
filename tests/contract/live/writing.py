"""Checks that write: each in an iTwin of its own, which is deleted in the end with all that is in it."""

import hashlib
import uuid
from io import BytesIO
from typing import Any

from PIL import Image

from tests.contract.live.checks import check
from tests.contract.live.wire import NAME, UNKNOWN, Answer, Wire

ITWIN = {"class": "Endeavor", "subClass": "Project"}
CHANGESETS = "/imodels/{iModelId}/changesets"
CONTENT = b"changeset" * 100
WMS = {"class": "GeographicInformationSystem", "subClass": "WebMapService", "uri": "https://maps.invalid/wms"}


@check("An iTwin is created with little, changed and deleted", writes=True)
async def itwin_life(wire: Wire) -> None:
    async with wire.own_itwin() as itwin:
        whole = (await wire.get("/itwins/{iTwinId}", iTwinId=itwin)).body["iTwin"]
        assert whole["number"] == itwin
        assert whole["parentId"] == whole["iTwinAccountId"]
        assert whole["image"] is None
        changed = await wire.patch("/itwins/{iTwinId}", {"geographicLocation": "Bunnik"}, iTwinId=itwin)
        assert (changed.status, changed.body["iTwin"]["geographicLocation"]) == (200, "Bunnik")
        missing = await wire.post("/itwins/", {"subClass": "Project", "displayName": NAME})
        assert (missing.status, missing.code) == (422, "InvalidiTwinsRequest")
        assert missing.details[0] == ("MissingRequiredProperty", "class")
        taken = await wire.post("/itwins/", ITWIN | {"displayName": NAME, "number": itwin})
        assert (taken.status, taken.code, taken.details[0]) == (409, "iTwinExists", ("InvalidValue", "number"))
        for body in ({"subClass": "Asset"}, {"latitude": 91}, {"status": "Sleeping"}, {"displayName": "x" * 256}, {}):
            await wire.patch("/itwins/{iTwinId}", body, iTwinId=itwin)
    gone = await wire.get("/itwins/{iTwinId}", iTwinId=itwin)
    assert (gone.status, gone.code) == (404, "iTwinNotFound")


@check("The image of an iTwin is uploaded, read and deleted", writes=True)
async def image(wire: Wire) -> None:
    async with wire.own_itwin() as itwin:
        path, slots = "/itwins/{iTwinId}/image", {"iTwinId": itwin}
        assert (await wire.get(path, **slots)).status == 404
        png = {"Content-Type": "image/png"}
        made = await wire.send("PUT", path, body=picture(600, 400), headers=png, **slots)
        assert (made.status, set(made.body)) == (201, {"image"})
        assert (await wire.get(path, **slots)).body["image"]["id"] == made.body["image"]["id"]
        wide = await wire.send("PUT", path, body=picture(600, 100), headers=png, **slots)
        assert wide.status == 422
        assert (await wire.delete(path, **slots)).status == 204
        assert (await wire.get(path, **slots)).status == 404


@check("Favorites and recents take an iTwin and an iModel in and out", writes=True)
async def lists(wire: Wire) -> None:
    async with wire.own_itwin() as itwin:
        imodel = await wire.own_imodel(itwin)
        for _ in range(2):
            assert (await wire.post("/itwins/favorites/{iTwinId}", iTwinId=itwin)).status == 204
            assert (await wire.post("/itwins/recents/{iTwinId}", iTwinId=itwin)).status == 204
            assert (await wire.send("PUT", "/imodels/favorites/{iModelId}", iModelId=imodel)).status == 204
            assert (await wire.post("/imodels/recents/{iModelId}", {}, iModelId=imodel)).status == 204
        recents = (await wire.get("/itwins/recents")).body["iTwins"]
        assert recents[0]["id"] == itwin
        for path in ("/imodels/favorites?iTwinId={iTwinId}", "/imodels/recents?iTwinId={iTwinId}"):
            assert [one["id"] for one in (await wire.get(path, iTwinId=itwin)).body["iModels"]] == [imodel]
        assert (await wire.delete("/itwins/favorites/{iTwinId}", iTwinId=itwin)).status == 204
        for path in ("/imodels/favorites/{iModelId}", "/imodels/recents/{iModelId}"):
            assert (await wire.delete(path, iModelId=imodel)).status == 204
        assert (await wire.post("/itwins/favorites/{iTwinId}", iTwinId=UNKNOWN)).code == "iTwinNotFound"


@check("What becomes of the children and iModels of an iTwin that is deleted", writes=True, unknown=5)
async def delete_with_contents(wire: Wire) -> None:
    async with wire.own_itwin() as outer:
        properties = ITWIN | {"displayName": f"{NAME} {uuid.uuid4()}", "parentId": outer}
        parent = (await wire.post("/itwins/", properties)).body["iTwin"]["id"]
        child = (await wire.post("/itwins/", properties | {"parentId": parent})).body["iTwin"]["id"]
        imodel = await wire.own_imodel(parent)
        try:
            deleted = await wire.delete("/itwins/{parentId}", parentId=parent)
            wire.note("deleting an iTwin with a child and an iModel", str(deleted.status))
            left = await wire.get("/itwins/{childId}", childId=child)
            if left.status == 200:
                up = left.body["iTwin"]["parentId"]
                wire.note(
                    "the parent of its child",
                    "its own parent" if up == outer else "itself" if up == parent else "other",
                )
            wire.note("its iModel", str((await wire.get("/imodels/{iModelId}", iModelId=imodel)).status))
        finally:
            await wire.http.delete(f"/imodels/{imodel}")
            for one in (child, parent):
                await wire.http.delete(f"/itwins/{one}")


@check("What makes a repository a duplicate", writes=True, unknown=8)
async def duplicates(wire: Wire) -> None:
    async with wire.own_itwin() as itwin:
        path, slots = "/itwins/{iTwinId}/repositories", {"iTwinId": itwin}
        made = await wire.post(path, WMS | {"displayName": "one"}, **slots)
        assert made.status == 201
        for words, other in (
            ("the same", {}),
            ("another name", {"displayName": "two"}),
            ("another subclass", {"subClass": "WebFeatureService"}),
            ("another case of the uri", {"uri": WMS["uri"].upper()}),
            ("another authentication", {"authentication": {"type": "Header", "key": "k", "value": "v"}}),
        ):
            again = await wire.post(path, WMS | {"displayName": "one"} | other, **slots)
            wire.note(f"a repository again, with {words}", str(again.status))
        assert (await wire.post(path, WMS | {"displayName": "one"}, **slots)).code == "iTwinRepositoryExists"


@check("A repository and its resources are created, changed and deleted", writes=True)
async def repository_life(wire: Wire) -> None:
    async with wire.own_itwin() as itwin:
        path, slots = "/itwins/{iTwinId}/repositories", {"iTwinId": itwin}
        empty = await wire.post(path, WMS | {"uri": ""}, **slots)
        assert (empty.status, empty.details) == (422, [("MissingRequiredProperty", "uri")])
        slots["id"] = (await wire.post(path, WMS, **slots)).body["repository"]["id"]
        one = path + "/{id}"
        assert [row["class"] for row in (await wire.get(path, **slots)).body["repositories"]][1:] == [WMS["class"]]
        assert (await wire.get(one, **slots)).status == 200
        assert (await wire.patch(one, WMS | {"displayName": "changed"}, **slots)).body["repository"][
            "displayName"
        ] == "changed"
        assert (await wire.patch(one, {"uri": ""}, **slots)).status == 422
        resource = {"id": "flood_zones", "displayName": "Flood Zones"}
        made = await wire.post(one + "/resources", resource, **slots)
        assert (made.status, made.body["resource"]["subClass"]) == (201, "WebMapService")
        assert (await wire.post(one + "/resources", resource, **slots)).code == "iTwinRepositoryResourceExists"
        assert (await wire.post(one + "/resources", {"displayName": "x"}, **slots)).status == 422
        listed = await wire.get(one + "/resources?$top=2&$skip=0", **slots)
        assert "top=2" in listed.body["_links"]["self"]["href"].replace("%24", "$")
        for more in ("", "/graphics"):
            assert (await wire.get(one + "/resources/flood_zones" + more, **slots)).status == 200
        assert (await wire.delete(one + "/resources/flood_zones", **slots)).status == 204
        assert (await wire.delete(one, **slots)).status == 204
        assert (await wire.get(one, **slots)).code == "iTwinRepositoryNotFound"


@check("What an export may not ask for", writes=True)
async def export_errors(wire: Wire) -> None:
    plain = {"outputFormat": "JsonGZip", "queryScope": "MemberOfiTwin", "subClass": "Asset"}
    for name in ("outputFormat", "queryScope", "subClass"):
        answer = await wire.post("/itwins/exports", plain | {name: "Invalid"})
        assert (answer.status, answer.code) == (422, "InvalidiTwinsRequest")
        assert ("InvalidValue", name) in answer.details
    bad = await wire.post("/itwins/exports", plain | {"filter": "invalid filter syntax without proper operators"})
    wanted = "Syntax error at position 14 in 'invalid filter syntax without proper operators'."
    assert (bad.status, bad.message) == (422, wanted)
    unknown = await wire.post("/itwins/exports", plain | {"select": "id,invalidFieldName"})
    assert (unknown.message, unknown.details) == ("Cannot query iTwins.", [("InvalidValue", "$select")])


@check("An iModel is created in its own time, changed and deleted", writes=True)
async def imodel_life(wire: Wire) -> None:
    async with wire.own_itwin() as itwin:
        properties = {"iTwinId": itwin, "name": "Quay", "creationMode": "empty", "extent": None}
        made = await wire.post("/imodels", properties)
        assert (made.status, made.body["iModel"]["state"]) == (201, "notInitialized")
        slots = {"iModelId": made.body["iModel"]["id"]}
        assert await finished(wire, slots["iModelId"]) == "successful"
        whole = (await wire.get("/imodels/{iModelId}", **slots)).body["iModel"]
        assert (whole["state"], whole["description"], whole["extent"]) == ("initialized", None, None)
        changed = await wire.patch("/imodels/{iModelId}", {"name": "Quay 2"}, **slots)
        assert (changed.status, changed.body["iModel"]["displayName"]) == (200, "Quay 2")
        listed = (await wire.get("/imodels?iTwinId={iTwinId}&name=Quay%202", iTwinId=itwin)).body["iModels"]
        assert [one["id"] for one in listed] == [slots["iModelId"]]
        assert (await wire.delete("/imodels/{iModelId}", **slots)).status == 204
        assert (await wire.get("/imodels/{iModelId}", **slots)).code == "iModelNotFound"


@check("An iModel is created from a baseline file", writes=True)
async def baseline(wire: Wire) -> None:
    async with wire.own_itwin() as itwin:
        content = b"SQLite format 3\0" + bytes(4080)
        properties = {"iTwinId": itwin, "name": "Baseline", "baselineFile": {"size": len(content)}}
        made = await wire.post("/imodels", properties)
        links = made.body["iModel"]["_links"]
        assert (made.status, made.body["iModel"]["state"]) == (201, "notInitialized")
        slots = {"iModelId": made.body["iModel"]["id"]}
        path = "/imodels/{iModelId}/baselinefile"
        assert (await wire.get(path, **slots)).body["baselineFile"]["state"] == "waitingForFile"
        assert (await wire.upload(links["upload"], content)).status == 201
        done = await wire.post(path, {}, **slots)
        assert (done.status, done.body["baselineFile"]["state"]) == (200, "initializationScheduled")
        again = await wire.post(path, {}, **slots)
        assert (again.status, again.code) == (422, "InvalidiModelsRequest")
        # A made-up file is no baseline to the real platform: its final state is reported, not asserted.
        ended = await wire.until(
            lambda: wire.get(path, **slots),
            lambda answer: answer.body["baselineFile"]["state"] != "initializationScheduled",
        )
        wire.note("the end of a made-up baseline file", ended.body["baselineFile"]["state"])


@check("Details of errors in a new iModel", writes=True)
async def imodel_errors(wire: Wire) -> None:
    async with wire.own_itwin() as itwin:
        missing = await wire.post("/imodels", {"iTwinId": itwin})
        assert (missing.status, missing.code, missing.message) == (
            422,
            "InvalidiModelsRequest",
            "Cannot create iModel.",
        )
        assert missing.details == [("MissingRequiredProperty", "name")]
        long = await wire.post("/imodels", {"iTwinId": itwin, "name": "x", "description": "x" * 256})
        assert long.details == [("InvalidValue", "description")]
        for more in (
            {"name": ""},
            {"extent": {"southWest": {"latitude": 91, "longitude": 0}, "northEast": {"latitude": 0, "longitude": 0}}},
            {"creationMode": "unknown"},
            {"containersEnabled": 64},
            {"baselineFile": {}},
            {"template": {}},
            {"template": {"iModelId": UNKNOWN}},
        ):
            assert (await wire.post("/imodels", {"iTwinId": itwin, "name": "x"} | more)).status in (404, 422)
        assert (await wire.post("/imodels", {"iTwinId": UNKNOWN, "name": "x"})).code == "iTwinNotFound"


@check("What a body that is no JSON, has another type or is missing gives", writes=True, unknown=4)
async def bodies(wire: Wire) -> None:
    async with wire.own_itwin() as itwin:
        for media_type, body in (("application/json", b"{"), ("text/plain", b"{}"), ("application/json", b"")):
            for path in ("/imodels", "/itwins/"):
                answer = await wire.send("POST", path, body=body, headers={"Content-Type": media_type})
                wire.note(f"POST {path} with {media_type} {body.decode() or 'nothing'}", str(answer.status))
        slots = {"iModelId": await wire.own_imodel(itwin)}
        headers = {"Content-Type": "image/gif"}
        gif = await wire.send(
            "PUT", "/imodels/{iModelId}/thumbnail", body=picture(40, 25, "gif"), headers=headers, **slots
        )
        wire.note("a thumbnail that is a GIF", str(gif.status))
        headers = {"Content-Type": "image/png"}
        png = await wire.send("PUT", "/imodels/{iModelId}/thumbnail", body=picture(800, 500), headers=headers, **slots)
        assert png.status == 201


@check("Errors of clones and forks", writes=True, unknown=3)
async def copy_errors(wire: Wire) -> None:
    async with wire.own_itwin() as itwin:
        slots = {"iModelId": await wire.own_imodel(itwin)}
        for kind in ("clone", "fork"):
            path = "/imodels/{iModelId}/" + kind
            assert (await wire.post(path, {}, **slots)).details == [("MissingRequiredProperty", "iTwinId")]
            for more in (
                {"name": "x" * 256},
                {"name": ""},
                {"changesetId": "a" * 40},
                {"changesetIndex": 5},
                {"changesetIndex": -1},
                {"changesetId": "", "changesetIndex": 0},
                {"containersEnabled": 64},
            ):
                assert (await wire.post(path, {"iTwinId": itwin, "name": "copy"} | more, **slots)).status in (404, 422)
            assert (await wire.post(path, {"iTwinId": UNKNOWN}, **slots)).code == "iTwinNotFound"


@check("A clone and a fork are accepted, and lead to the operation that makes them", writes=True)
async def copies(wire: Wire) -> None:
    async with wire.own_itwin() as itwin:
        source = await wire.own_imodel(itwin)
        for kind in ("clone", "fork"):
            body = {"iTwinId": itwin, "name": f"A {kind}"}
            made = await wire.post("/imodels/{iModelId}/" + kind, body, iModelId=source)
            assert (made.status, made.body) == (202, None)
            assert made.headers["create-imodel-operation"].endswith("/operations/create")
            new = made.headers["location"].rpartition("/")[2]
            assert await finished(wire, new) == "successful"
            told = (await wire.get("/imodels/{iModelId}/operations/create", iModelId=new)).body["createOperation"]
            assert told["clonedFrom" if kind == "clone" else "forkedFrom"]["iModelId"] == source
            assert (await wire.get("/imodels/{iModelId}", iModelId=new)).body["iModel"]["state"] == "initialized"


@check("The statuses of names that are taken", writes=True, unknown=1)
async def names_taken(wire: Wire) -> None:
    async with wire.own_itwin() as itwin:
        slots = {"iModelId": await wire.own_imodel(itwin, name="Taken")}
        again = await wire.post("/imodels", {"iTwinId": itwin, "name": "Taken"})
        assert (again.status, again.code) == (409, "iModelExists")
        path = "/imodels/{iModelId}/namedversions"
        made = await wire.post(path, {"name": "As received"}, **slots)
        assert (made.status, made.body["namedVersion"]["changesetId"]) == (201, None)
        same = await wire.post(path, {"name": "As received"}, **slots)
        other = await wire.post(path, {"name": "Another"}, **slots)
        assert {same.status, other.status} == {409}
        assert other.code == "NamedVersionOnChangesetExists"


@check("What is wrong with versions, changesets, briefcases, groups and locks", writes=True, unknown=3)
async def detail_lists(wire: Wire) -> None:
    async with wire.own_itwin() as itwin:
        slots: dict[str, Any] = {"iModelId": await wire.own_imodel(itwin)}
        for path, bodies_of_it in (
            ("/namedversions", ({}, {"name": ""}, {"name": "x" * 256}, {"name": "x", "changesetId": "a" * 40})),
            ("/changesets", ({}, {"id": "short", "briefcaseId": 0, "fileSize": 0}, {"id": "a" * 40})),
            ("/changesetgroups", ({}, {"description": ""}, {"description": "x" * 256})),
            ("/locks/release-chunk", ({}, {"briefcaseId": 4711})),
        ):
            for body in bodies_of_it:
                answer = await wire.post("/imodels/{iModelId}" + path, body, **slots)
                assert answer.status in (404, 422)
        for body in ({}, {"briefcaseId": 2, "lockedObjects": [{"lockLevel": "sideways", "objectIds": ["1"]}]}):
            assert (await wire.patch("/imodels/{iModelId}/locks", body, **slots)).status in (404, 422)
        assert (await wire.patch("/imodels/{iModelId}", {}, **slots)).status == 422
        await wire.post("/imodels/{iModelId}/briefcases", {"deviceName": "x" * 256}, **slots)


@check("Locks conflict, and one that is not held cannot be released", writes=True, unknown=1)
async def locks(wire: Wire) -> None:
    async with wire.own_itwin() as itwin:
        slots = {"iModelId": await wire.own_imodel(itwin)}
        first, second = [await briefcase(wire, slots["iModelId"]) for _ in range(2)]

        async def lock(holder: int, level: str, *objects: str) -> Answer:
            body = {"briefcaseId": holder, "lockedObjects": [{"lockLevel": level, "objectIds": list(objects)}]}
            return await wire.patch("/imodels/{iModelId}/locks", body, **slots)

        assert (await lock(first, "shared", "0x5", "0x6")).body["lock"]["briefcaseId"] == first
        assert (await lock(second, "shared", "0x5")).status == 200
        refused = await lock(second, "exclusive", "0x6")
        assert (refused.status, refused.code) == (409, "ConflictWithAnotherUser")
        assert refused.body["error"]["conflictingLocks"][0]["briefcaseIds"] == [first]
        assert (await lock(second, "none", "0x7")).code == "LockNotFound"
        assert (await lock(4711, "shared", "0x7")).code == "BriefcaseNotFound"
        assert (await wire.get("/imodels/{iModelId}/locks", **slots)).status == 200
        many = [hex(number) for number in range(1001)]
        wire.note("1001 objects locked at once", str((await lock(first, "shared", *many)).status))
        released = await wire.post("/imodels/{iModelId}/locks/release-chunk", {"briefcaseId": first}, **slots)
        assert (released.status, released.body) == (200, {"isLastChunk": True})
        for holder in (first, second):
            assert (
                await wire.delete("/imodels/{iModelId}/briefcases/{briefcaseId}", **slots, briefcaseId=holder)
            ).status == 204


@check("A changeset is pushed, conflicts while it is pending, and exists once", writes=True, unknown=1)
async def push(wire: Wire) -> None:
    async with wire.own_itwin() as itwin:
        slots: dict[str, Any] = {"iModelId": await wire.own_imodel(itwin)}
        holder, other = [await briefcase(wire, slots["iModelId"]) for _ in range(2)]
        first, second = changeset("one", holder), changeset("two", holder, parent="one")
        made = await wire.post(CHANGESETS, first, **slots)
        assert (made.status, made.body["changeset"]["state"]) == (201, "waitingForFile")
        pending = await wire.post(CHANGESETS, changeset("other", other), **slots)
        assert (pending.status, pending.code) == (409, "ConflictWithAnotherUser")
        await complete(wire, made, first, **slots)
        again = await wire.post(CHANGESETS, first | {"parentId": first["id"]}, **slots)
        assert (again.status, again.code) == (409, "ChangesetExists")
        assert (await wire.post(CHANGESETS, changeset("no parent", holder), **slots)).status in (409, 422)
        await complete(wire, await wire.post(CHANGESETS, second, **slots), second, **slots)
        assert (await wire.get(CHANGESETS + "/2", **slots)).body["changeset"]["parentId"] == first["id"]
        data = {"data": "eyJydW4iOjF9"}
        extended = CHANGESETS + "/1/extendeddata"
        assert (await wire.post(extended, data, **slots)).status == 201
        assert (await wire.post(extended, data, **slots)).status == 409
        assert (await wire.post(CHANGESETS + "/2/extendeddata", {"data": "no base64"}, **slots)).status == 422
        assert (await wire.get(extended, **slots)).body["extendedData"]["data"] == data["data"]


@check("An object that a newer changeset has changed cannot be locked", writes=True, unknown=1)
async def newer(wire: Wire) -> None:
    async with wire.own_itwin() as itwin:
        slots: dict[str, Any] = {"iModelId": await wire.own_imodel(itwin)}
        holder, other = [await briefcase(wire, slots["iModelId"]) for _ in range(2)]
        first, second = changeset("one", holder), changeset("two", holder, parent="one")
        for one in (first, second):
            await complete(wire, await wire.post(CHANGESETS, one, **slots), one, **slots)

        async def lock(who: int, level: str, **at: str) -> Answer:
            body = {"briefcaseId": who, "lockedObjects": [{"lockLevel": level, "objectIds": ["0x5"]}], **at}
            return await wire.patch("/imodels/{iModelId}/locks", body, **slots)

        for level in ("exclusive", "none"):
            assert (await lock(holder, level, changesetId=second["id"])).status == 200
        refused = await lock(other, "exclusive", changesetId=first["id"])
        assert (refused.status, refused.code) == (409, "NewerChangesExist")
        assert refused.body["error"]["objectIds"] == ["0x5"]
        path = "/imodels/{iModelId}/locks/released-locks?afterChangesetIndex=1"
        assert (await wire.get(path, **slots)).body["releasedLocks"][0]["objectIds"] == ["0x5"]
        wire.note("the same without a changesetId", str((await lock(other, "exclusive")).status))


@check("A named version is created, hidden and has a checkpoint coming", writes=True)
async def named_version(wire: Wire) -> None:
    async with wire.own_itwin() as itwin:
        slots = {"iModelId": await wire.own_imodel(itwin)}
        path = "/imodels/{iModelId}/namedversions"
        made = await wire.post(path, {"name": "As received", "description": "why"}, **slots)
        assert (made.status, made.body["namedVersion"]["changesetIndex"]) == (201, 0)
        slots["versionId"] = made.body["namedVersion"]["id"]
        hidden = await wire.patch(path + "/{versionId}", {"state": "hidden"}, **slots)
        assert hidden.body["namedVersion"]["state"] == "hidden"
        assert (await wire.patch(path + "/{versionId}", {}, **slots)).status == 422
        checkpoint = await wire.get(path + "/{versionId}/checkpoint", **slots)
        assert checkpoint.body["checkpoint"]["state"] in ("scheduled", "successful")
        group = await wire.post("/imodels/{iModelId}/changesetgroups", {"description": "Run 1"}, **slots)
        slots["groupId"] = group.body["changesetGroup"]["id"]
        closed = await wire.patch("/imodels/{iModelId}/changesetgroups/{groupId}", {"state": "completed"}, **slots)
        assert closed.body["changesetGroup"]["state"] == "completed"


@check("What shares take, what they look like, and by which key they are found", writes=True, unknown=2)
async def shares(wire: Wire) -> None:
    async with wire.own_itwin() as itwin:
        slots: dict[str, Any] = {"iModelId": await wire.own_imodel(itwin)}
        path = "/imodels/{iModelId}/shares"
        assert (await wire.post(path, {}, **slots)).status in (403, 422)
        for body in (
            {"name": "Check", "expiration": "2020-01-01T00:00:00Z", "permission": "imodels_webview"},
            {"name": "Check", "expirationDateTime": "2020-01-01T00:00:00Z", "permission": "imodels_webview"},
            {"name": "Check", "permission": "imodels_write"},
        ):
            assert (await wire.post(path, body, **slots)).status in (403, 422)
        assert (await wire.get(path, **slots)).status == 200
        for kind in ("userpermissions", "rolepermissions"):
            assert (await wire.patch("/imodels/{iModelId}/" + kind, {}, **slots)).status == 422
            assert (await wire.get("/imodels/{iModelId}/" + kind, **slots)).status == 200


async def finished(wire: Wire, imodel: str) -> str:
    answer = await wire.until(
        lambda: wire.get("/imodels/{iModelId}/operations/create", iModelId=imodel),
        lambda found: found.body["createOperation"]["state"] not in ("scheduled", "waitingForFile"),
    )
    return str(answer.body["createOperation"]["state"])


def changeset(name: str, holder: int, *, parent: str | None = None) -> dict[str, Any]:
    made = {"id": sha1(name), "briefcaseId": holder, "fileSize": len(CONTENT), "description": name}
    return made | ({"parentId": sha1(parent)} if parent else {})


async def complete(wire: Wire, made: Answer, pushed: dict[str, Any], **slots: Any) -> None:
    """The file of a changeset that was announced, and the end of its push."""
    assert made.status == 201
    assert (await wire.upload(made.body["changeset"]["_links"]["upload"], CONTENT)).status == 201
    body = {"state": "fileUploaded", "briefcaseId": pushed["briefcaseId"]}
    done = await wire.patch(CHANGESETS + "/{changesetId}", body, **slots, changesetId=pushed["id"])
    assert (done.status, done.body["changeset"]["state"]) == (200, "fileUploaded")


async def briefcase(wire: Wire, imodel: str) -> int:
    made = await wire.post("/imodels/{iModelId}/briefcases", {"deviceName": "check"}, iModelId=imodel)
    assert made.status == 201
    return int(made.body["briefcase"]["briefcaseId"])


def picture(width: int, height: int, kind: str = "png") -> bytes:
    content = BytesIO()
    Image.linear_gradient("L").resize((width, height)).convert("RGB").save(content, kind)
    return content.getvalue()


def sha1(text: str) -> str:
    return hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()
