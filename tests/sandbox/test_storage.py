"""The storage service: signed links, uploads, downloads and their errors."""

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
def anonymous(http_as: Connect) -> httpx2.AsyncClient:
    """Return a client without a token."""
    return http_as(None)


async def make_upload_link(http: httpx2.AsyncClient, size: int = 11, name: str = "Upload") -> str:
    body = {"iTwinId": ITWIN, "name": name, "creationMode": "fromBaseline", "baselineFile": {"size": size}}
    link = (await http.post("/imodels", json=body)).json()["iModel"]["_links"]["upload"]
    assert link["storageType"] == "azure"
    return link["href"]


async def make_download_link(
    http: httpx2.AsyncClient, anonymous: httpx2.AsyncClient, clock: Clock, content: bytes
) -> str:
    body = {"iTwinId": ITWIN, "name": "Down", "creationMode": "fromBaseline", "baselineFile": {"size": len(content)}}
    imodel = (await http.post("/imodels", json=body)).json()["iModel"]
    await anonymous.put(imodel["_links"]["upload"]["href"], content=content, headers=BLOCK)
    await http.post(imodel["_links"]["complete"]["href"], json={})
    clock.forward(10)
    answer = await http.get(imodel["_links"]["complete"]["href"])
    return answer.json()["baselineFile"]["_links"]["download"]["href"]


def read_error_code(answer: httpx2.Response) -> str:
    match = re.search("<Code>(.*?)</Code>", answer.text)
    assert match
    assert answer.headers["x-ms-error-code"] == match[1]
    assert answer.headers["content-type"].startswith("application/xml")
    return match[1]


async def test_link_is_a_signed_url_of_the_storage_service(http: httpx2.AsyncClient) -> None:
    parts = urlsplit(await make_upload_link(http))
    assert re.fullmatch(r"/storage/[a-z]+/[0-9a-f-]{36}", parts.path)
    query = parse_qs(parts.query)
    assert set(query) == {"sv", "se", "sr", "sp", "sig"}
    assert query["se"] == ["2026-11-20T09:00:00Z"]


async def test_put_blob_answers_like_azure(http: httpx2.AsyncClient, anonymous: httpx2.AsyncClient) -> None:
    answer = await anonymous.put(await make_upload_link(http), content=b"hello world", headers=BLOCK)
    assert (answer.status_code, answer.content) == (201, b"")
    assert {"etag", "last-modified", "x-ms-request-id", "x-ms-version"} <= set(answer.headers)
    assert answer.headers["content-md5"] == base64.b64encode(hashlib.md5(b"hello world").digest()).decode()


async def test_get_blob_returns_content_and_headers_of_the_upload(
    http: httpx2.AsyncClient, anonymous: httpx2.AsyncClient, clock: Clock
) -> None:
    content = bytes(range(256)) * 10_000  # more than two pieces
    url = await make_download_link(http, anonymous, clock, content)
    answer = await anonymous.get(url)
    assert (answer.status_code, answer.content) == (200, content)
    assert answer.headers["content-length"] == str(len(content))
    assert answer.headers["accept-ranges"] == "bytes"
    head = await anonymous.head(url)
    assert (head.status_code, head.content) == (200, b"")
    for name in ("etag", "content-length", "last-modified", "content-md5", "content-type"):
        assert head.headers[name] == answer.headers[name]


@pytest.mark.parametrize("header", ["Range", "x-ms-range"])
async def test_get_blob_serves_a_range_with_206(
    http: httpx2.AsyncClient, anonymous: httpx2.AsyncClient, clock: Clock, header: str
) -> None:
    content = bytes(range(256)) * 8_193
    url = await make_download_link(http, anonymous, clock, content)
    middle = await anonymous.get(url, headers={header: "bytes=1048570-1048589"})
    assert (middle.status_code, middle.content) == (206, content[1_048_570:1_048_590])
    assert middle.headers["content-range"] == f"bytes 1048570-1048589/{len(content)}"
    assert (await anonymous.get(url, headers={header: f"bytes={len(content) - 3}-"})).content == content[-3:]
    beyond = await anonymous.get(url, headers={header: f"bytes={len(content)}-"})
    assert (beyond.status_code, read_error_code(beyond)) == (416, "InvalidRange")


async def test_get_blob_honours_etag_conditions(
    http: httpx2.AsyncClient, anonymous: httpx2.AsyncClient, clock: Clock
) -> None:
    url = await make_download_link(http, anonymous, clock, b"content")
    etag = (await anonymous.head(url)).headers["etag"]
    assert (await anonymous.get(url, headers={"If-None-Match": etag})).status_code == 304
    assert (await anonymous.get(url, headers={"If-Match": etag})).status_code == 200
    assert read_error_code(await anonymous.get(url, headers={"If-Match": '"0x1"'})) == "ConditionNotMet"


async def test_put_block_list_joins_blocks_in_the_order_of_the_list(
    http: httpx2.AsyncClient, anonymous: httpx2.AsyncClient
) -> None:
    url = await make_upload_link(http)
    ids = [base64.b64encode(f"block-{i}".encode()).decode() for i in range(3)]
    for block_id, content in zip(ids, (b"world", b"hello ", b"unused"), strict=True):
        answer = await anonymous.put(f"{url}&comp=block&blockid={block_id.replace('=', '%3D')}", content=content)
        assert answer.status_code == 201
    listed = f'<?xml version="1.0"?><BlockList><Latest>{ids[1]}</Latest><Latest>{ids[0]}</Latest></BlockList>'
    answer = await anonymous.put(f"{url}&comp=blocklist", content=listed.encode())
    assert (answer.status_code, "etag" in answer.headers) == (201, True)
    again = await anonymous.put(f"{url}&comp=blocklist", content=listed.encode())
    assert (again.status_code, read_error_code(again)) == (400, "InvalidBlockList")


async def test_put_blob_requires_the_blob_type_header(http: httpx2.AsyncClient, anonymous: httpx2.AsyncClient) -> None:
    answer = await anonymous.put(await make_upload_link(http), content=b"x")
    assert (answer.status_code, read_error_code(answer)) == (400, "MissingRequiredHeader")
    assert "<HeaderName>x-ms-blob-type</HeaderName>" in answer.text


async def test_put_blob_requires_content_length(http: httpx2.AsyncClient, anonymous: httpx2.AsyncClient) -> None:
    async def chunks():  # type: ignore[no-untyped-def]
        yield b"hello"

    answer = await anonymous.put(await make_upload_link(http), content=chunks(), headers=BLOCK)
    assert (answer.status_code, read_error_code(answer)) == (411, "MissingContentLengthHeader")


async def test_put_blob_rejects_a_wrong_md5(http: httpx2.AsyncClient, anonymous: httpx2.AsyncClient) -> None:
    headers = BLOCK | {"Content-MD5": base64.b64encode(b"0" * 16).decode()}
    url = await make_upload_link(http)
    assert read_error_code(await anonymous.put(url, content=b"hello", headers=headers)) == "Md5Mismatch"
    assert (await anonymous.put(url, content=b"hello", headers=BLOCK | {"Content-MD5": "no"})).status_code == 400


async def test_get_blob_before_the_upload_is_blob_not_found(
    http: httpx2.AsyncClient, anonymous: httpx2.AsyncClient, clock: Clock
) -> None:
    url = await make_download_link(http, anonymous, clock, b"content")
    await http.delete(f"/imodels/{(await find_imodel(http, 'Down'))}")
    answer = await anonymous.get(url)
    assert (answer.status_code, read_error_code(answer)) == (404, "BlobNotFound")


async def find_imodel(http: httpx2.AsyncClient, name: str) -> str:
    imodels = (await http.get(f"/imodels?iTwinId={ITWIN}&name={name}")).json()["iModels"]
    return imodels[0]["id"]


@pytest.mark.parametrize("change", ["sig=A", "se=2030-01-01T00:00:00Z", "sp=r"])
async def test_tampered_link_is_refused(http: httpx2.AsyncClient, anonymous: httpx2.AsyncClient, change: str) -> None:
    name = change.partition("=")[0]
    url = re.sub(rf"(?<=[?&]){name}=[^&]*", change, await make_upload_link(http))
    answer = await anonymous.put(url, content=b"x", headers=BLOCK)
    assert (answer.status_code, read_error_code(answer)) == (403, "AuthenticationFailed")


async def test_expired_link_is_refused(http: httpx2.AsyncClient, anonymous: httpx2.AsyncClient, clock: Clock) -> None:
    url = await make_upload_link(http)
    clock.forward(3599)
    assert (await anonymous.put(url, content=b"x", headers=BLOCK)).status_code == 201
    clock.forward(1)
    answer = await anonymous.put(url, content=b"x", headers=BLOCK)
    assert (answer.status_code, read_error_code(answer)) == (403, "AuthenticationFailed")
    assert "Signature not valid in the specified time frame" in answer.text


async def test_link_grants_either_reading_or_writing(
    http: httpx2.AsyncClient, anonymous: httpx2.AsyncClient, clock: Clock
) -> None:
    answer = await anonymous.get(await make_upload_link(http))
    assert (answer.status_code, read_error_code(answer)) == (403, "AuthorizationPermissionMismatch")
    url = await make_download_link(http, anonymous, clock, b"content")
    assert read_error_code(await anonymous.put(url, content=b"x", headers=BLOCK)) == "AuthorizationPermissionMismatch"


async def test_storage_refuses_requests_with_a_bearer_token(http: httpx2.AsyncClient) -> None:
    answer = await http.put(await make_upload_link(http), content=b"x", headers=BLOCK)
    assert (answer.status_code, read_error_code(answer)) == (401, "InvalidAuthenticationInfo")


async def test_replacing_upload_changes_the_etag(http: httpx2.AsyncClient, anonymous: httpx2.AsyncClient) -> None:
    url = await make_upload_link(http)
    first = await anonymous.put(url, content=b"one", headers=BLOCK)
    second = await anonymous.put(url, content=b"two", headers=BLOCK)
    assert first.headers["etag"] != second.headers["etag"]
    once = await anonymous.put(url, content=b"three", headers=BLOCK | {"If-None-Match": "*"})
    assert (once.status_code, read_error_code(once)) == (409, "BlobAlreadyExists")


async def test_seeded_file_has_its_announced_size(http: httpx2.AsyncClient, anonymous: httpx2.AsyncClient) -> None:
    baseline = (await http.get(f"/imodels/{ROADS}/baselinefile")).json()["baselineFile"]
    answer = await anonymous.get(baseline["_links"]["download"]["href"])
    assert len(answer.content) == baseline["fileSize"]
    part = await anonymous.get(baseline["_links"]["download"]["href"], headers={"Range": "bytes=1000-1099"})
    assert part.content == answer.content[1000:1100]


async def test_request_body_over_16_mib_is_refused(http: httpx2.AsyncClient) -> None:
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
async def test_storage_service_never_answers_500(
    http: httpx2.AsyncClient,
    anonymous: httpx2.AsyncClient,
    method: str,
    query: dict[str, str],
    headers: dict[str, str],
    content: bytes,
) -> None:
    if method == "PUT":
        imodels = (await http.get(f"/imodels?iTwinId={ITWIN}&name=Fuzz")).json()["iModels"]
        if imodels:
            await http.delete(f"/imodels/{imodels[0]['id']}")
        url = httpx2.URL(await make_upload_link(http, name="Fuzz"))
    else:
        baseline = (await http.get(f"/imodels/{ROADS}/baselinefile")).json()["baselineFile"]
        url = httpx2.URL(baseline["_links"]["download"]["href"])
    answer = await anonymous.request(method, url.copy_merge_params(query), headers=headers, content=content)
    assert answer.status_code < 500 or answer.headers["x-ms-error-code"] == "NotImplemented"
