"""Storage links: signed, expiring addresses with the storage service's own behaviour."""

import base64
import hashlib
import re
from collections.abc import Callable
from urllib.parse import parse_qs, urlsplit

import httpx2
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from itwin_mcp.sandbox.seed import seeded_id
from tests.sandbox.conftest import Clock

pytestmark = pytest.mark.anyio
Connect = Callable[[str | None], httpx2.AsyncClient]
ITWIN = seeded_id("itwin", "interchange")
ROADS = seeded_id("imodel", "roads")
BLOCK = {"x-ms-blob-type": "BlockBlob"}


@pytest.fixture
def anyone(http_as: Connect) -> httpx2.AsyncClient:
    """A client without a token: links need none."""
    return http_as(None)


async def upload_link(http: httpx2.AsyncClient, size: int = 11, name: str = "Upload") -> str:
    body = {"iTwinId": ITWIN, "name": name, "creationMode": "fromBaseline", "baselineFile": {"size": size}}
    link = (await http.post("/imodels", json=body)).json()["iModel"]["_links"]["upload"]
    assert link["storageType"] == "azure"
    return link["href"]


async def download_link(http: httpx2.AsyncClient, anyone: httpx2.AsyncClient, clock: Clock, content: bytes) -> str:
    body = {"iTwinId": ITWIN, "name": "Down", "creationMode": "fromBaseline", "baselineFile": {"size": len(content)}}
    imodel = (await http.post("/imodels", json=body)).json()["iModel"]
    await anyone.put(imodel["_links"]["upload"]["href"], content=content, headers=BLOCK)
    await http.post(imodel["_links"]["complete"]["href"], json={})
    clock.forward(10)
    answer = await http.get(imodel["_links"]["complete"]["href"])
    return answer.json()["baselineFile"]["_links"]["download"]["href"]


def code(answer: httpx2.Response) -> str:
    found = re.search("<Code>(.*?)</Code>", answer.text)
    assert found
    assert answer.headers["x-ms-error-code"] == found[1]
    assert answer.headers["content-type"].startswith("application/xml")
    return found[1]


async def test_a_link_looks_like_a_signed_url_of_the_storage_service(http: httpx2.AsyncClient) -> None:
    parts = urlsplit(await upload_link(http))
    assert re.fullmatch(r"/storage/[a-z]+/[0-9a-f-]{36}", parts.path)
    query = parse_qs(parts.query)
    assert set(query) == {"sv", "se", "sr", "sp", "sig"}
    assert query["se"] == ["2026-11-20T09:00:00Z"]


async def test_an_upload_is_acknowledged_as_the_storage_service_does(
    http: httpx2.AsyncClient, anyone: httpx2.AsyncClient
) -> None:
    answer = await anyone.put(await upload_link(http), content=b"hello world", headers=BLOCK)
    assert (answer.status_code, answer.content) == (201, b"")
    assert {"etag", "last-modified", "x-ms-request-id", "x-ms-version"} <= set(answer.headers)
    assert answer.headers["content-md5"] == base64.b64encode(hashlib.md5(b"hello world").digest()).decode()


async def test_what_was_uploaded_comes_back_with_its_headers(
    http: httpx2.AsyncClient, anyone: httpx2.AsyncClient, clock: Clock
) -> None:
    content = bytes(range(256)) * 10_000  # more than two pieces
    url = await download_link(http, anyone, clock, content)
    answer = await anyone.get(url)
    assert (answer.status_code, answer.content) == (200, content)
    assert answer.headers["content-length"] == str(len(content))
    assert answer.headers["accept-ranges"] == "bytes"
    head = await anyone.head(url)
    assert (head.status_code, head.content) == (200, b"")
    for name in ("etag", "content-length", "last-modified", "content-md5", "content-type"):
        assert head.headers[name] == answer.headers[name]


@pytest.mark.parametrize("header", ["Range", "x-ms-range"])
async def test_a_range_is_served_with_206(
    http: httpx2.AsyncClient, anyone: httpx2.AsyncClient, clock: Clock, header: str
) -> None:
    content = bytes(range(256)) * 8_193
    url = await download_link(http, anyone, clock, content)
    middle = await anyone.get(url, headers={header: "bytes=1048570-1048589"})
    assert (middle.status_code, middle.content) == (206, content[1_048_570:1_048_590])
    assert middle.headers["content-range"] == f"bytes 1048570-1048589/{len(content)}"
    assert (await anyone.get(url, headers={header: f"bytes={len(content) - 3}-"})).content == content[-3:]
    beyond = await anyone.get(url, headers={header: f"bytes={len(content)}-"})
    assert (beyond.status_code, code(beyond)) == (416, "InvalidRange")


async def test_conditions_on_the_entity_tag_are_kept(
    http: httpx2.AsyncClient, anyone: httpx2.AsyncClient, clock: Clock
) -> None:
    url = await download_link(http, anyone, clock, b"content")
    etag = (await anyone.head(url)).headers["etag"]
    assert (await anyone.get(url, headers={"If-None-Match": etag})).status_code == 304
    assert (await anyone.get(url, headers={"If-Match": etag})).status_code == 200
    assert code(await anyone.get(url, headers={"If-Match": '"0x1"'})) == "ConditionNotMet"


async def test_blocks_become_a_blob_in_the_order_of_the_list(
    http: httpx2.AsyncClient, anyone: httpx2.AsyncClient
) -> None:
    url = await upload_link(http)
    ids = [base64.b64encode(f"block-{i}".encode()).decode() for i in range(3)]
    for block_id, content in zip(ids, (b"world", b"hello ", b"unused"), strict=True):
        answer = await anyone.put(f"{url}&comp=block&blockid={block_id.replace('=', '%3D')}", content=content)
        assert answer.status_code == 201
    listed = f'<?xml version="1.0"?><BlockList><Latest>{ids[1]}</Latest><Latest>{ids[0]}</Latest></BlockList>'
    answer = await anyone.put(f"{url}&comp=blocklist", content=listed.encode())
    assert (answer.status_code, "etag" in answer.headers) == (201, True)
    again = await anyone.put(f"{url}&comp=blocklist", content=listed.encode())
    assert (again.status_code, code(again)) == (400, "InvalidBlockList")


async def test_an_upload_without_its_blob_type_is_refused(http: httpx2.AsyncClient, anyone: httpx2.AsyncClient) -> None:
    answer = await anyone.put(await upload_link(http), content=b"x")
    assert (answer.status_code, code(answer)) == (400, "MissingRequiredHeader")
    assert "<HeaderName>x-ms-blob-type</HeaderName>" in answer.text


async def test_an_upload_of_unknown_length_is_refused(http: httpx2.AsyncClient, anyone: httpx2.AsyncClient) -> None:
    async def chunks():  # type: ignore[no-untyped-def]
        yield b"hello"

    answer = await anyone.put(await upload_link(http), content=chunks(), headers=BLOCK)
    assert (answer.status_code, code(answer)) == (411, "MissingContentLengthHeader")


async def test_a_wrong_digest_is_found_out(http: httpx2.AsyncClient, anyone: httpx2.AsyncClient) -> None:
    headers = BLOCK | {"Content-MD5": base64.b64encode(b"0" * 16).decode()}
    url = await upload_link(http)
    assert code(await anyone.put(url, content=b"hello", headers=headers)) == "Md5Mismatch"
    assert (await anyone.put(url, content=b"hello", headers=BLOCK | {"Content-MD5": "no"})).status_code == 400


async def test_nothing_is_there_before_the_upload(
    http: httpx2.AsyncClient, anyone: httpx2.AsyncClient, clock: Clock
) -> None:
    url = await download_link(http, anyone, clock, b"content")
    await http.delete(f"/imodels/{(await find(http, 'Down'))}")
    answer = await anyone.get(url)
    assert (answer.status_code, code(answer)) == (404, "BlobNotFound")


async def find(http: httpx2.AsyncClient, name: str) -> str:
    found = (await http.get(f"/imodels?iTwinId={ITWIN}&name={name}")).json()["iModels"]
    return found[0]["id"]


@pytest.mark.parametrize("change", ["sig=A", "se=2030-01-01T00:00:00Z", "sp=r"])
async def test_a_link_that_was_tampered_with_is_refused(
    http: httpx2.AsyncClient, anyone: httpx2.AsyncClient, change: str
) -> None:
    name = change.partition("=")[0]
    url = re.sub(rf"(?<=[?&]){name}=[^&]*", change, await upload_link(http))
    answer = await anyone.put(url, content=b"x", headers=BLOCK)
    assert (answer.status_code, code(answer)) == (403, "AuthenticationFailed")


async def test_a_link_expires(http: httpx2.AsyncClient, anyone: httpx2.AsyncClient, clock: Clock) -> None:
    url = await upload_link(http)
    clock.forward(3599)
    assert (await anyone.put(url, content=b"x", headers=BLOCK)).status_code == 201
    clock.forward(1)
    answer = await anyone.put(url, content=b"x", headers=BLOCK)
    assert (answer.status_code, code(answer)) == (403, "AuthenticationFailed")
    assert "Signature not valid in the specified time frame" in answer.text


async def test_a_link_is_for_reading_or_for_writing(
    http: httpx2.AsyncClient, anyone: httpx2.AsyncClient, clock: Clock
) -> None:
    answer = await anyone.get(await upload_link(http))
    assert (answer.status_code, code(answer)) == (403, "AuthorizationPermissionMismatch")
    url = await download_link(http, anyone, clock, b"content")
    assert code(await anyone.put(url, content=b"x", headers=BLOCK)) == "AuthorizationPermissionMismatch"


async def test_who_sends_the_platforms_token_to_storage_is_refused(http: httpx2.AsyncClient) -> None:
    answer = await http.put(await upload_link(http), content=b"x", headers=BLOCK)
    assert (answer.status_code, code(answer)) == (401, "InvalidAuthenticationInfo")


async def test_an_upload_that_replaces_another_gets_a_new_tag(
    http: httpx2.AsyncClient, anyone: httpx2.AsyncClient
) -> None:
    url = await upload_link(http)
    first = await anyone.put(url, content=b"one", headers=BLOCK)
    second = await anyone.put(url, content=b"two", headers=BLOCK)
    assert first.headers["etag"] != second.headers["etag"]
    once = await anyone.put(url, content=b"three", headers=BLOCK | {"If-None-Match": "*"})
    assert (once.status_code, code(once)) == (409, "BlobAlreadyExists")


async def test_seeded_files_can_be_downloaded_and_have_the_size_that_is_told(
    http: httpx2.AsyncClient, anyone: httpx2.AsyncClient
) -> None:
    baseline = (await http.get(f"/imodels/{ROADS}/baselinefile")).json()["baselineFile"]
    answer = await anyone.get(baseline["_links"]["download"]["href"])
    assert len(answer.content) == baseline["fileSize"]
    part = await anyone.get(baseline["_links"]["download"]["href"], headers={"Range": "bytes=1000-1099"})
    assert part.content == answer.content[1000:1100]


async def test_a_request_too_large_for_memory_is_refused(http: httpx2.AsyncClient) -> None:
    answer = await http.post("/imodels", content=b" " * (17 << 20))
    assert (answer.status_code, answer.json()["error"]["code"]) == (413, "RequestTooLarge")


_TEXT = st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=30)


@settings(max_examples=60)
@given(
    method=st.sampled_from(["GET", "HEAD", "PUT"]),
    query=st.dictionaries(st.sampled_from(["comp", "blockid", "sp", "se", "sig"]), st.text(max_size=20), max_size=2),
    headers=st.dictionaries(
        st.sampled_from(
            [
                "Range",
                "x-ms-range",
                "If-Match",
                "Content-MD5",
                "x-ms-blob-type",
                "x-ms-blob-content-md5",
                "x-ms-version",
            ]
        ),
        st.sampled_from(["BlockBlob", "bytes=0-", "bytes=5-2", "*"]) | _TEXT.map(str.strip),
        max_size=3,
    ),
    content=st.sampled_from([b"", b"hello", b"<BlockList>", b"<BlockList><Latest>YQ==</Latest></BlockList>"]),
)
async def test_no_request_makes_the_storage_service_fail(
    http: httpx2.AsyncClient,
    anyone: httpx2.AsyncClient,
    method: str,
    query: dict[str, str],
    headers: dict[str, str],
    content: bytes,
) -> None:
    if method == "PUT":
        found = (await http.get(f"/imodels?iTwinId={ITWIN}&name=Fuzz")).json()["iModels"]
        if found:
            await http.delete(f"/imodels/{found[0]['id']}")
        url = httpx2.URL(await upload_link(http, name="Fuzz"))
    else:
        baseline = (await http.get(f"/imodels/{ROADS}/baselinefile")).json()["baselineFile"]
        url = httpx2.URL(baseline["_links"]["download"]["href"])
    answer = await anyone.request(method, url.copy_merge_params(query), headers=headers, content=content)
    assert answer.status_code < 500 or answer.headers["x-ms-error-code"] == "NotImplemented"
