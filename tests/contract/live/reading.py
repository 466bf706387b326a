"""Checks that only read: they may be run against any account."""

from typing import Any

from tests.contract.live.checks import check
from tests.contract.live.wire import UNKNOWN, V2, WHOLE, Wire

ITWIN_FIELDS = {
    "id", "class", "subClass", "type", "number", "displayName", "geographicLocation", "latitude", "longitude",
    "ianaTimeZone", "dataCenterLocation", "status", "parentId", "iTwinAccountId", "imageName", "image",
    "createdDateTime", "createdBy", "lastModifiedDateTime", "lastModifiedBy",
}  # fmt: skip
OF_AN_IMODEL = (
    "", "/operations/create", "/baselinefile", "/briefcases", "/briefcases/2", "/briefcases/checkpoint", "/changesets",
    "/changesets/1", "/changesets/1/checkpoint", "/changesets/extendeddata", "/changesets/1/extendeddata",
    "/changesetgroups", "/namedversions", "/locks", "/locks/released-locks?afterChangesetIndex=0", "/users",
    "/permissions", "/userpermissions", "/rolepermissions", "/thumbnail", "/shares",
)  # fmt: skip
LISTS_OF_AN_IMODEL = (
    "users", "briefcases", "changesets", "namedversions", "locks", "changesetgroups", "changesets/extendeddata",
)  # fmt: skip


@check("Without a token, with another scheme and with a bad token nobody is let in")
async def unauthorized(wire: Wire) -> None:
    for path in ("/itwins/", "/imodels?iTwinId={iTwinId}"):
        answer = await wire.get(path, iTwinId=UNKNOWN, headers={"Authorization": ""})
        assert (answer.status, answer.code) == (401, "HeaderNotFound")
        answer = await wire.get(path, iTwinId=UNKNOWN, headers={"Authorization": "invalid-token"})
        assert (answer.status, answer.code) == (401, "InvalidAuthorizationScheme")
        answer = await wire.get(path, iTwinId=UNKNOWN, headers={"Authorization": "Bearer invalid-token"})
        assert (answer.status, answer.code) == (401, "Unauthorized")


@check("iTwins are listed in a wrapper with links, under any case of the path and with or without a slash")
async def list_itwins(wire: Wire) -> None:
    for path in ("/itwins/?$top=2", "/itwins?$top=2", "/iTwins/?$top=2", "/itwins?&$top=2", "/itwins/?$skip=1&$top=1"):
        answer = await wire.get(path)
        assert answer.status == 200
        assert set(answer.body) == {"iTwins", "_links"}
        assert "self" in answer.body["_links"]
        assert set(answer.body["_links"]) <= {"self", "prev", "next"}
        assert "x-max-return" in answer.headers


@check("An iTwin is minimal in lists unless the whole of it is preferred")
async def representation(wire: Wire) -> None:
    minimal = (await wire.get("/itwins/?$top=5")).body["iTwins"]
    assert all({"id", "class", "subClass", "displayName"} <= set(one) for one in minimal)
    whole = (await wire.get("/itwins/?$top=5", headers=WHOLE)).body["iTwins"]
    assert all(set(one) == ITWIN_FIELDS for one in whole)


@check("One iTwin is whole, nulls included")
async def one_itwin(wire: Wire) -> None:
    answer = await wire.get("/itwins/{iTwinId}", iTwinId=await wire.itwin())
    assert answer.status == 200
    assert set(answer.body["iTwin"]) == ITWIN_FIELDS


@check("What Prefer does to one iTwin", unknown=5)
async def prefer(wire: Wire) -> None:
    for wanted in ("minimal", "representation"):
        headers = {"Prefer": f"return={wanted}"}
        answer = await wire.get("/itwins/{iTwinId}", iTwinId=await wire.itwin(), headers=headers)
        wire.note(f"one iTwin with return={wanted}", f"{len(answer.body['iTwin'])} properties")


@check("The default order of iTwins and of iModels", unknown=5)
async def default_order(wire: Wire) -> None:
    itwins = (await wire.get("/itwins/?$top=100", headers=WHOLE)).body["iTwins"]
    wire.note("default order of iTwins", order_of(itwins, ("createdDateTime", "displayName", "lastModifiedDateTime")))
    await wire.imodel()
    path = "/imodels?iTwinId={iTwinId}"
    slots = {"iTwinId": wire.subjects["iModel"]["iTwinId"]}
    imodels = (await wire.get(path, **slots, headers=V2 | WHOLE)).body["iModels"]
    wire.note("default order of iModels", order_of(imodels, ("createdDateTime", "name")))


@check("Parameters out of range are refused in the words of the documentation")
async def bad_parameters(wire: Wire) -> None:
    for query, code, target in (
        ("$top=0", "InvalidValue", "$top"),
        ("$top=1001", "InvalidValue", "$top"),
        ("$skip=-1", "InvalidValue", "$skip"),
        ("subClass=Invalid", "InvalidValue", "subClass"),
        ("status=Invalid", "InvalidValue", "status"),
        ("status=Active&includeInactive=true", "InvalidParameter", "includeInactive"),
        ("$select=id,unknownProperty", "InvalidValue", "$select"),
    ):
        answer = await wire.get("/itwins/?" + query)
        assert (answer.status, answer.code) == (422, "InvalidiTwinsRequest")
        assert (code, target) in answer.details


@check("An iTwin that is not there is not found")
async def no_itwin(wire: Wire) -> None:
    for path in ("", "/account", "/repositories", "/image"):
        answer = await wire.get("/itwins/{iTwinId}" + path, iTwinId=UNKNOWN)
        assert (answer.status, answer.code) == (404, "iTwinNotFound")


@check("A malformed iTwin id", unknown=4)
async def malformed_itwin(wire: Wire) -> None:
    for path in ("", "/account", "/repositories", "/image"):
        answer = await wire.get("/itwins/{iTwinId}" + path, iTwinId="not-an-id")
        assert answer.status in (404, 422)


@check("Accounts: one's own, and that of an iTwin")
async def accounts(wire: Wire) -> None:
    mine = await wire.get("/itwins/myprimaryaccount")
    assert mine.body["iTwin"]["class"] == mine.body["iTwin"]["subClass"] == "Account"
    for headers in ({}, WHOLE):
        answer = await wire.get("/itwins/{iTwinId}/account", iTwinId=await wire.itwin(), headers=headers)
        assert answer.body["iTwin"]["subClass"] == "Account"
    assert (await wire.get("/itwins/?subClass=Account")).status == 200


@check("Recents and favorites of iTwins")
async def lists(wire: Wire) -> None:
    for path in ("/itwins/recents", "/itwins/favorites"):
        for query in ("", "?$top=2", "?subClass=Project,Asset"):
            assert (await wire.get(path + query, headers=WHOLE)).status == 200
    assert len((await wire.get("/itwins/recents")).body["iTwins"]) <= 25


@check("The documented OData, with the arguments of its functions in both orders")
async def odata(wire: Wire) -> None:
    for query in (
        "$filter=status eq 'Active'",
        "$filter=contains('a',displayName)",
        "$filter=contains(displayName,'a')",
        "$filter=startswith('A',number)",
        "$filter=subClass in ['Project','Asset'] and (status eq 'Active' or status eq 'Trial')",
        "$filter=createdDateTime ge 2020-01-01",
        "$orderby=displayName desc",
        "$select=id,displayName,status",
        "$search=a",
    ):
        assert (await wire.get("/itwins/?$top=3&" + query.replace(" ", "%20"))).status == 200


@check("A filter that cannot be read is refused", unknown=3)
async def odata_errors(wire: Wire) -> None:
    for query in (
        "$filter=status eq",
        "$filter=unknown eq 'a'",
        "$filter=status eq 'Active'&status=Active",
        "$orderby=x",
    ):
        assert (await wire.get("/itwins/?" + query.replace(" ", "%20"))).status == 422


@check("X-Max-Return caps what a list returns and is echoed")
async def max_return(wire: Wire) -> None:
    answer = await wire.get("/itwins/", headers={"X-Max-Return": "1"})
    assert (answer.headers["x-max-return"], len(answer.body["iTwins"])) == ("1", 1)
    assert (await wire.get("/itwins/", headers={"X-Max-Return": "10001"})).status == 422
    for scope in ("memberOfItwin", "all"):
        assert (await wire.get("/itwins/?$top=1", headers={"X-iTwin-Query-Scope": scope})).status == 200


@check("Repositories of an iTwin, and those that everybody shares")
async def repositories(wire: Wire) -> None:
    itwin = await wire.itwin()
    path = "/itwins/{iTwinId}/repositories"
    assert set((await wire.get(path, iTwinId=itwin)).body) == {"repositories"}
    for query in ("?class=Invalid", "?class=Storage&subClass=UrlTemplate", "?subClass=UrlTemplate"):
        assert (await wire.get(path + query, iTwinId=itwin)).status == 422
    missing = await wire.get(path + "/{repositoryId}", iTwinId=itwin, repositoryId=UNKNOWN)
    assert (missing.status, missing.code) == (404, "iTwinRepositoryNotFound")
    shared = await wire.get("/itwins/repositories")
    assert any(one["id"] == "cesium" for one in shared.body["repositories"])
    assert (await wire.get("/itwins/repositories/cesium")).status == 200
    assert (await wire.get("/itwins/repositories/none")).code == "iTwinRepositoryNotFound"
    found = await wire.get("/itwins/repositories/cesium/resources?$top=2")
    assert "self" in found.body["_links"]
    slots = {"resourceId": found.body["resources"][0]["id"]}
    assert (await wire.get("/itwins/repositories/cesium/resources/{resourceId}", **slots)).status == 200
    assert (await wire.get("/itwins/repositories/cesium/resources/{resourceId}/graphics", **slots)).status == 200


@check("Exports are listed without links, and one that is not there is not found")
async def exports(wire: Wire) -> None:
    assert set((await wire.get("/itwins/exports")).body) == {"exports"}
    assert (await wire.get("/itwins/exports/{exportId}", exportId=UNKNOWN)).status == 404


@check("iModels are listed for an iTwin, which must be named")
async def list_imodels(wire: Wire) -> None:
    await wire.imodel()
    itwin = wire.subjects["iModel"]["iTwinId"]
    missing = await wire.get("/imodels", headers=V2)
    assert (missing.status, missing.code) == (422, "InvalidiModelsRequest")
    assert ("MissingRequiredParameter", "iTwinId") in missing.details
    for headers in (V2, V2 | WHOLE):
        answer = await wire.get("/imodels?iTwinId={iTwinId}&$top=2", iTwinId=itwin, headers=headers)
        assert set(answer.body) == {"iModels", "_links"}
    for query in ("&$orderBy=name desc", "&state=initialized", "&$search=a", "&name=No such name"):
        path = "/imodels?iTwinId={iTwinId}" + query.replace(" ", "%20")
        assert (await wire.get(path, iTwinId=itwin, headers=V2)).status == 200
    for query in ("&$top=0", "&$top=1001", "&$orderBy=unknown", "&state=unknown"):
        assert (await wire.get("/imodels?iTwinId={iTwinId}" + query, iTwinId=itwin, headers=V2)).status == 422
    for path in ("/imodels/recents", "/imodels/favorites"):
        assert (await wire.get(path + "?iTwinId={iTwinId}", iTwinId=itwin, headers=V2)).status == 200
        assert (await wire.get(path, headers=V2)).status == 422


@check("How lists page on: by $skip, by an empty token and by the token of a link", unknown=6)
async def paging(wire: Wire) -> None:
    imodel = await wire.imodel()
    path = "/imodels/{iModelId}/changesets?$top=1"
    for query in ("", "&$skip=0", "&$continuationToken="):
        answer = await wire.get(path + query, iModelId=imodel, headers=V2)
        following = answer.body["_links"]["next"]
        if following is None:
            wire.note(f"next after one changeset{query}", "null")
            continue
        names = sorted(pair.partition("=")[0] for pair in following["href"].partition("?")[2].split("&"))
        wire.note(f"next after one changeset{query}", ", ".join(names).replace("%24", "$"))
        await wire.follow(following["href"], f"next{query}")
    assert (await wire.get(path + "&$skip=0&$continuationToken=", iModelId=imodel, headers=V2)).status in (200, 422)
    assert (await wire.get(path + "&$continuationToken=nonsense", iModelId=imodel, headers=V2)).status in (
        200,
        400,
        422,
    )


@check("All that there is to read of one iModel")
async def one_imodel(wire: Wire) -> None:
    imodel = await wire.imodel()
    for path in ("", "/operations/create", "/baselinefile", "/permissions", "/thumbnail", "/thumbnail?size=large"):
        assert (await wire.get("/imodels/{iModelId}" + path, iModelId=imodel, headers=V2)).status == 200
    for path in (
        "users",
        "briefcases",
        "changesets",
        "namedversions",
        "locks",
        "changesetgroups",
        "changesets/extendeddata",
    ):
        for headers in (V2, V2 | WHOLE):
            answer = await wire.get(f"/imodels/{{iModelId}}/{path}?$top=3", iModelId=imodel, headers=headers)
            assert answer.status == 200
            assert "_links" in answer.body
    slots = {"iModelId": imodel}
    assert (
        await wire.get("/imodels/{iModelId}/locks/released-locks?afterChangesetIndex=0", **slots, headers=V2)
    ).status == 200
    assert (await wire.get("/imodels/{iModelId}/locks/released-locks", **slots, headers=V2)).status == 422
    assert (await wire.get("/imodels/{iModelId}/briefcases?ownerId=me", **slots, headers=V2)).status == 200


@check("One changeset by index and by id, one user and one named version")
async def details(wire: Wire) -> None:
    imodel = await wire.imodel()
    first = await wire.get("/imodels/{iModelId}/changesets/1", iModelId=imodel, headers=V2)
    assert first.body["changeset"]["index"] == 1
    assert first.body["changeset"]["parentId"] == ""
    slots = {"iModelId": imodel, "changesetId": first.body["changeset"]["id"]}
    assert (await wire.get("/imodels/{iModelId}/changesets/{changesetId}", **slots, headers=V2)).status == 200
    slots["userId"] = first.body["changeset"]["creatorId"]
    user = await wire.get("/imodels/{iModelId}/users/{userId}", **slots, headers=V2)
    assert {"pushedChangesetsCount", "briefcasesCount"} <= set(user.body["user"]["statistics"])
    versions = await wire.get("/imodels/{iModelId}/namedversions?$top=1", **slots, headers=V2)
    for version in versions.body["namedVersions"]:
        slots["versionId"] = version["id"]
        assert (await wire.get("/imodels/{iModelId}/namedversions/{versionId}", **slots, headers=V2)).status == 200
        path = "/imodels/{iModelId}/namedversions/{versionId}/checkpoint"
        assert (await wire.get(path, **slots, headers=V2)).status == 200


@check("What is not there in an iModel has its own code")
async def not_found(wire: Wire) -> None:
    imodel = await wire.imodel()
    for path, code in (
        ("/changesets/100000", "ChangesetNotFound"),
        ("/changesets/" + "a" * 40, "ChangesetNotFound"),
        ("/changesets/100000/checkpoint", "ChangesetNotFound"),
        (f"/namedversions/{UNKNOWN}", "NamedVersionNotFound"),
        (f"/namedversions/{UNKNOWN}/checkpoint", "NamedVersionNotFound"),
        ("/briefcases/16000000", "BriefcaseNotFound"),
        (f"/changesetgroups/{UNKNOWN}", "ChangesetGroupNotFound"),
        (f"/users/{UNKNOWN}", "UserNotFound"),
    ):
        answer = await wire.get("/imodels/{iModelId}" + path, iModelId=imodel, headers=V2)
        assert (answer.status, answer.code) == (404, code)


@check("An iModel that is not there is not found on any route")
async def no_imodel(wire: Wire) -> None:
    for path in OF_AN_IMODEL:
        answer = await wire.get("/imodels/{iModelId}" + path, iModelId=UNKNOWN, headers=V2)
        assert (answer.status, answer.code) == (404, "iModelNotFound")


@check("A malformed iModel id, route by route", unknown=4)
async def malformed_imodel(wire: Wire) -> None:
    for path in OF_AN_IMODEL:
        answer = await wire.get("/imodels/{iModelId}" + path, iModelId="not-an-id", headers=V2)
        assert (answer.status, answer.code) == (404, "iModelNotFound")


@check("What versions in Accept do, known, unknown, old and none", unknown=4)
async def versions(wire: Wire) -> None:
    imodel = await wire.imodel()
    for accept in ("*/*", "application/json", "text/html", *(media_type(number) for number in (1, 2, 9))):
        wire.note(
            f"iTwins with Accept {accept}", str((await wire.get("/itwins/?$top=1", headers={"Accept": accept})).status)
        )
        answer = await wire.get("/imodels/{iModelId}", iModelId=imodel, headers={"Accept": accept})
        wire.note(f"an iModel with Accept {accept}", str(answer.status))
    answer = await wire.get("/imodels/{iModelId}", iModelId=imodel)
    assert answer.status == 200


@check("What permissions of users and roles, and shares, look like", unknown=2)
async def undocumented(wire: Wire) -> None:
    imodel = await wire.imodel()
    for path in ("/userpermissions", "/rolepermissions", "/shares"):
        assert (await wire.get("/imodels/{iModelId}" + path, iModelId=imodel, headers=V2)).status == 200
    assert (
        await wire.get("/imodels/{iModelId}/shares/{shareId}", iModelId=imodel, shareId=UNKNOWN, headers=V2)
    ).status == 404


def media_type(number: int) -> str:
    return f"application/vnd.bentley.itwin-platform.v{number}+json"


def order_of(rows: list[dict[str, Any]], names: tuple[str, ...]) -> str:
    """By which property these rows are in order."""
    for name in names:
        values = [str(row[name]).lower() for row in rows]
        if len(set(values)) > 2 and values == sorted(values):
            return f"{name} ascending"
        if len(set(values)) > 2 and values == sorted(values, reverse=True):
            return f"{name} descending"
    return "by nothing of " + ", ".join(names)
