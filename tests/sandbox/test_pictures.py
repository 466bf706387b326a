"""Images of iTwins and thumbnails of iModels, small and large."""

import io
import sys
from collections.abc import Callable

import httpx2
import pytest
from PIL import Image

from itwin_mcp.sandbox.seed import seeded_id

pytestmark = pytest.mark.anyio
Connect = Callable[[str | None], httpx2.AsyncClient]
ITWIN = seeded_id("itwin", "interchange")
PLAIN = seeded_id("itwin", "drainage")
ROADS = seeded_id("imodel", "roads")
PNG = {"Content-Type": "image/png"}


def make_picture(width: int, height: int, kind: str = "png") -> bytes:
    content = io.BytesIO()
    Image.new("RGB", (width, height), "#3366aa").save(content, kind)
    return content.getvalue()


def open_picture(answer: httpx2.Response) -> Image.Image:
    assert answer.status_code == 200
    return Image.open(io.BytesIO(answer.content))


async def test_seeded_itwin_has_a_small_and_a_large_image(http: httpx2.AsyncClient, http_as: Connect) -> None:
    image = (await http.get(f"/itwins/{ITWIN}/image")).json()["image"]
    assert set(image) == {"id", "smallImageName", "smallImageUrl", "largeImageName", "largeImageUrl"}
    assert image["smallImageName"] == f"small_{image['id']}.png"
    small, large = [await http_as(None).get(image[f"{size}ImageUrl"]) for size in ("small", "large")]
    assert (open_picture(small).size, open_picture(large).size) == ((400, 250), (800, 500))
    assert small.headers["content-type"] == "image/png"
    itwin = (await http.get(f"/itwins/{ITWIN}")).json()["iTwin"]
    assert itwin["imageName"] == image["smallImageName"]
    assert (await http_as(None).get(itwin["image"])).content == small.content


async def test_missing_itwin_image_is_image_not_found(http: httpx2.AsyncClient) -> None:
    for method in ("GET", "DELETE"):
        answer = await http.request(method, f"/itwins/{PLAIN}/image")
        assert (answer.status_code, answer.json()["error"]["code"]) == (404, "ImageNotFound")


async def test_uploads_without_pillow_fail_and_placeholders_still_work(
    http: httpx2.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = make_picture(400, 250)
    monkeypatch.setitem(sys.modules, "PIL", None)
    assert (await http.get(f"/imodels/{ROADS}/thumbnail")).content.startswith(b"\x89PNG")
    for path in (f"/itwins/{ITWIN}/image", f"/imodels/{ROADS}/thumbnail"):
        answer = await http.put(path, content=content, headers=PNG)
        assert (answer.status_code, answer.json()["error"]["code"]) == (501, "NotEmulated")
        assert "pip install pillow" in answer.json()["error"]["message"]
    assert (await http.get(f"/itwins/{ITWIN}/image")).status_code == 200, "the previous image stays"


@pytest.mark.parametrize("kind", ["png", "jpeg"])
async def test_upload_image_stores_the_original_and_a_small_copy(
    http: httpx2.AsyncClient, http_as: Connect, kind: str
) -> None:
    content = make_picture(1000, 500, kind)
    answer = await http.put(f"/itwins/{PLAIN}/image", content=content, headers={"Content-Type": f"image/{kind}"})
    image = answer.json()["image"]
    assert (answer.status_code, image["largeImageName"]) == (201, f"large_{image['id']}.{kind}")
    assert (await http_as(None).get(image["largeImageUrl"])).content == content
    small = open_picture(await http_as(None).get(image["smallImageUrl"]))
    assert (small.size, small.format) == ((400, 200), kind.upper())
    again = await http.put(f"/itwins/{PLAIN}/image", content=content, headers={"Content-Type": f"image/{kind}"})
    assert again.json()["image"]["id"] != image["id"]
    assert (await http_as(None).get(image["largeImageUrl"])).status_code == 404


async def test_delete_image_deletes_its_files(http: httpx2.AsyncClient, http_as: Connect) -> None:
    image = (await http.get(f"/itwins/{ITWIN}/image")).json()["image"]
    assert (await http.delete(f"/itwins/{ITWIN}/image")).status_code == 204
    assert (await http.get(f"/itwins/{ITWIN}")).json()["iTwin"]["image"] is None
    assert (await http_as(None).get(image["smallImageUrl"])).status_code == 404


@pytest.mark.parametrize(
    ("content", "headers", "status", "detail"),
    [
        (make_picture(501, 100), PNG, 422, "InvalidValue"),
        (b"no picture", PNG, 422, "InvalidRequestBody"),
        (make_picture(200, 200)[:50], PNG, 422, "InvalidRequestBody"),
        (b"", PNG, 422, "MissingRequestBody"),
        (make_picture(10, 10), {"Content-Type": "image/gif"}, 422, "InvalidHeaderValue"),
        (make_picture(10, 10), {}, 422, "MissingRequiredHeader"),
        (b"\x89PNG" * (5 << 18) + b"x", PNG, 413, None),
    ],
    ids=["too wide", "not a picture", "truncated", "empty", "gif", "no content type", "too large"],
)
async def test_upload_image_rejects_invalid_images(
    http: httpx2.AsyncClient, content: bytes, headers: dict[str, str], status: int, detail: str | None
) -> None:
    answer = await http.put(f"/itwins/{PLAIN}/image", content=content, headers=headers)
    assert answer.status_code == status
    error = answer.json()["error"]
    if detail is None:
        assert error["code"] == "RequestTooLarge"
    else:
        assert [detail["code"] for detail in error["details"]] == [detail]


async def test_upload_image_accepts_a_ratio_of_five_to_one(http: httpx2.AsyncClient) -> None:
    answer = await http.put(f"/itwins/{PLAIN}/image", content=make_picture(500, 100), headers=PNG)
    assert answer.status_code == 201


async def test_image_is_readable_for_members_and_writable_with_itwins_modify(http_as: Connect) -> None:
    assert (await http_as("priya").get(f"/itwins/{ITWIN}/image")).status_code == 200
    assert (await http_as("priya").delete(f"/itwins/{ITWIN}/image")).status_code == 403
    assert (await http_as("luca").get(f"/itwins/{ITWIN}/image")).json()["error"]["code"] == "iTwinNotFound"
    put = await http_as("priya").put(f"/itwins/{ITWIN}/image", content=make_picture(9, 9), headers=PNG)
    assert put.status_code == 403


@pytest.mark.parametrize(
    ("query", "size"), [("", (400, 250)), ("?size=small", (400, 250)), ("?size=large", (800, 500))]
)
async def test_imodel_thumbnail_has_two_sizes(http: httpx2.AsyncClient, query: str, size: tuple[int, int]) -> None:
    answer = await http.get(f"/imodels/{ROADS}/thumbnail{query}")
    image = open_picture(answer)
    assert (image.size, image.format, answer.headers["content-type"]) == (size, "PNG", "image/png")
    assert (await http.get(f"/imodels/{ROADS}/thumbnail{query}")).content == answer.content


@pytest.mark.parametrize("name", ["Tunnel", "Bridge", "Water Plant", "Metro Station", "Ring Road", "Office"])
async def test_new_imodel_has_a_placeholder_thumbnail(http: httpx2.AsyncClient, name: str) -> None:
    body = {"iTwinId": ITWIN, "name": name}
    imodel_id = (await http.post("/imodels", json=body)).json()["iModel"]["id"]
    for size, pixels in (("small", (400, 250)), ("large", (800, 500))):
        assert open_picture(await http.get(f"/imodels/{imodel_id}/thumbnail?size={size}")).size == pixels


async def test_placeholder_thumbnails_differ_between_imodels(http: httpx2.AsyncClient) -> None:
    keys = ("roads", "structures", "bridge", "plant")
    thumbnails = {(await http.get(f"/imodels/{seeded_id('imodel', key)}/thumbnail")).content for key in keys}
    assert len(thumbnails) == len(keys)


async def test_upload_thumbnail_stores_png_in_both_sizes(http: httpx2.AsyncClient) -> None:
    answer = await http.put(
        f"/imodels/{ROADS}/thumbnail", content=make_picture(640, 640, "jpeg"), headers={"Content-Type": "image/jpeg"}
    )
    assert (answer.status_code, answer.content) == (201, b"")
    for query, size in (("", (400, 250)), ("?size=large", (800, 500))):
        image = open_picture(await http.get(f"/imodels/{ROADS}/thumbnail{query}"))
        assert (image.size, image.format) == (size, "PNG")
        pixel = image.convert("RGB").getpixel((9, 9))
        assert isinstance(pixel, tuple)
        assert abs(pixel[0] - 0x33) < 5


async def test_upload_thumbnail_rejects_invalid_pictures(http: httpx2.AsyncClient) -> None:
    answer = await http.put(f"/imodels/{ROADS}/thumbnail", content=b"x", headers=PNG)
    assert answer.status_code == 422
    assert answer.json()["error"] == {
        "code": "InvalidiModelsRequest",
        "message": "Cannot upload Thumbnail.",
        "details": [
            {
                "code": "InvalidRequestBody",
                "message": "Invalid Thumbnail format. Please use one of the supported media formats: "
                "'image/jpeg', 'image/png'.",
                "innerError": {"code": "InvalidThumbnailFormat"},
            }
        ],
    }
    gif = await http.put(f"/imodels/{ROADS}/thumbnail", content=b"x", headers={"Content-Type": "image/gif"})
    assert gif.json()["error"]["details"][0]["target"] == "content-type"
    large = await http.put(f"/imodels/{ROADS}/thumbnail", content=b"x" * (5 * 2**20 + 1), headers=PNG)
    assert large.status_code == 413
    assert (await http.get(f"/imodels/{ROADS}/thumbnail?size=huge")).status_code == 422


async def test_upload_thumbnail_requires_imodels_manage(http_as: Connect) -> None:
    for user, status in (("priya", 403), ("luca", 404), ("tomasz", 201)):
        answer = await http_as(user).put(f"/imodels/{ROADS}/thumbnail", content=make_picture(9, 9), headers=PNG)
        assert answer.status_code == status
