"""Images of iTwins and thumbnails of iModels: real pictures, small and large."""

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


def picture(width: int, height: int, kind: str = "png") -> bytes:
    into = io.BytesIO()
    Image.new("RGB", (width, height), "#3366aa").save(into, kind)
    return into.getvalue()


def opened(answer: httpx2.Response) -> Image.Image:
    assert answer.status_code == 200
    return Image.open(io.BytesIO(answer.content))


async def test_a_seeded_itwin_has_a_small_and_a_large_picture(http: httpx2.AsyncClient, http_as: Connect) -> None:
    image = (await http.get(f"/itwins/{ITWIN}/image")).json()["image"]
    assert set(image) == {"id", "smallImageName", "smallImageUrl", "largeImageName", "largeImageUrl"}
    assert image["smallImageName"] == f"small_{image['id']}.png"
    small, large = [await http_as(None).get(image[f"{size}ImageUrl"]) for size in ("small", "large")]
    assert (opened(small).size, opened(large).size) == ((400, 250), (800, 500))
    assert small.headers["content-type"] == "image/png"
    itwin = (await http.get(f"/itwins/{ITWIN}")).json()["iTwin"]
    assert itwin["imageName"] == image["smallImageName"]
    assert (await http_as(None).get(itwin["image"])).content == small.content


async def test_an_itwin_without_an_image_says_so(http: httpx2.AsyncClient) -> None:
    for method in ("GET", "DELETE"):
        answer = await http.request(method, f"/itwins/{PLAIN}/image")
        assert (answer.status_code, answer.json()["error"]["code"]) == (404, "ImageNotFound")


async def test_without_pillow_pictures_are_drawn_and_an_upload_says_what_is_missing(
    http: httpx2.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = picture(400, 250)
    monkeypatch.setitem(sys.modules, "PIL", None)
    assert (await http.get(f"/imodels/{ROADS}/thumbnail")).content.startswith(b"\x89PNG")
    for path in (f"/itwins/{ITWIN}/image", f"/imodels/{ROADS}/thumbnail"):
        answer = await http.put(path, content=content, headers=PNG)
        assert (answer.status_code, answer.json()["error"]["code"]) == (501, "NotEmulated")
        assert "pip install pillow" in answer.json()["error"]["message"]
    assert (await http.get(f"/itwins/{ITWIN}/image")).status_code == 200, "the one that was there stays"


@pytest.mark.parametrize("kind", ["png", "jpeg"])
async def test_an_uploaded_image_is_kept_and_reduced(http: httpx2.AsyncClient, http_as: Connect, kind: str) -> None:
    content = picture(1000, 500, kind)
    answer = await http.put(f"/itwins/{PLAIN}/image", content=content, headers={"Content-Type": f"image/{kind}"})
    image = answer.json()["image"]
    assert (answer.status_code, image["largeImageName"]) == (201, f"large_{image['id']}.{kind}")
    assert (await http_as(None).get(image["largeImageUrl"])).content == content
    small = opened(await http_as(None).get(image["smallImageUrl"]))
    assert (small.size, small.format) == ((400, 200), kind.upper())
    again = await http.put(f"/itwins/{PLAIN}/image", content=content, headers={"Content-Type": f"image/{kind}"})
    assert again.json()["image"]["id"] != image["id"]
    assert (await http_as(None).get(image["largeImageUrl"])).status_code == 404


async def test_an_image_is_deleted_with_its_files(http: httpx2.AsyncClient, http_as: Connect) -> None:
    image = (await http.get(f"/itwins/{ITWIN}/image")).json()["image"]
    assert (await http.delete(f"/itwins/{ITWIN}/image")).status_code == 204
    assert (await http.get(f"/itwins/{ITWIN}")).json()["iTwin"]["image"] is None
    assert (await http_as(None).get(image["smallImageUrl"])).status_code == 404


@pytest.mark.parametrize(
    ("content", "headers", "status", "detail"),
    [
        (picture(501, 100), PNG, 422, "InvalidValue"),
        (b"no picture", PNG, 422, "InvalidRequestBody"),
        (picture(200, 200)[:50], PNG, 422, "InvalidRequestBody"),
        (b"", PNG, 422, "MissingRequestBody"),
        (picture(10, 10), {"Content-Type": "image/gif"}, 422, "InvalidHeaderValue"),
        (picture(10, 10), {}, 422, "MissingRequiredHeader"),
        (b"\x89PNG" * (5 << 18) + b"x", PNG, 413, None),
    ],
    ids=["too wide", "no picture", "cut off", "nothing", "a gif", "without a type", "too large"],
)
async def test_what_is_no_fitting_image_is_refused(
    http: httpx2.AsyncClient, content: bytes, headers: dict[str, str], status: int, detail: str | None
) -> None:
    answer = await http.put(f"/itwins/{PLAIN}/image", content=content, headers=headers)
    assert answer.status_code == status
    error = answer.json()["error"]
    if detail is None:
        assert error["code"] == "RequestTooLarge"
    else:
        assert [one["code"] for one in error["details"]] == [detail]


async def test_a_ratio_of_five_to_one_is_still_an_image(http: httpx2.AsyncClient) -> None:
    answer = await http.put(f"/itwins/{PLAIN}/image", content=picture(500, 100), headers=PNG)
    assert answer.status_code == 201


async def test_members_see_an_image_and_only_those_who_may_modify_change_it(http_as: Connect) -> None:
    assert (await http_as("priya").get(f"/itwins/{ITWIN}/image")).status_code == 200
    assert (await http_as("priya").delete(f"/itwins/{ITWIN}/image")).status_code == 403
    assert (await http_as("luca").get(f"/itwins/{ITWIN}/image")).json()["error"]["code"] == "iTwinNotFound"
    put = await http_as("priya").put(f"/itwins/{ITWIN}/image", content=picture(9, 9), headers=PNG)
    assert put.status_code == 403


@pytest.mark.parametrize(
    ("query", "size"), [("", (400, 250)), ("?size=small", (400, 250)), ("?size=large", (800, 500))]
)
async def test_every_imodel_has_a_thumbnail_of_each_size(
    http: httpx2.AsyncClient, query: str, size: tuple[int, int]
) -> None:
    answer = await http.get(f"/imodels/{ROADS}/thumbnail{query}")
    image = opened(answer)
    assert (image.size, image.format, answer.headers["content-type"]) == (size, "PNG", "image/png")
    assert (await http.get(f"/imodels/{ROADS}/thumbnail{query}")).content == answer.content


async def test_different_imodels_have_different_thumbnails(http: httpx2.AsyncClient) -> None:
    keys = ("roads", "structures", "bridge", "plant")
    seen = {(await http.get(f"/imodels/{seeded_id('imodel', key)}/thumbnail")).content for key in keys}
    assert len(seen) == len(keys)


async def test_an_uploaded_thumbnail_becomes_png_in_both_sizes(http: httpx2.AsyncClient) -> None:
    answer = await http.put(
        f"/imodels/{ROADS}/thumbnail", content=picture(640, 640, "jpeg"), headers={"Content-Type": "image/jpeg"}
    )
    assert (answer.status_code, answer.content) == (201, b"")
    for query, size in (("", (400, 250)), ("?size=large", (800, 500))):
        image = opened(await http.get(f"/imodels/{ROADS}/thumbnail{query}"))
        assert (image.size, image.format) == (size, "PNG")
        pixel = image.convert("RGB").getpixel((9, 9))
        assert isinstance(pixel, tuple)
        assert abs(pixel[0] - 0x33) < 5


async def test_what_is_no_thumbnail_is_refused_in_the_platforms_words(http: httpx2.AsyncClient) -> None:
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


async def test_a_thumbnail_is_changed_by_those_who_manage_the_imodel(http_as: Connect) -> None:
    for user, status in (("priya", 403), ("luca", 404), ("tomasz", 201)):
        answer = await http_as(user).put(f"/imodels/{ROADS}/thumbnail", content=picture(9, 9), headers=PNG)
        assert answer.status_code == status
