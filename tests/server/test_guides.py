"""Guides as resources and in `read-guide`, and thumbnails as images."""

import base64
import tomllib
from pathlib import Path

import pytest
from mcp import Client, MCPError
from mcp.types import BlobResourceContents, ImageContent, TextContent, TextResourceContents

from itwin_mcp.capability.documents import find_shipped_files
from itwin_mcp.capability.export import export_files
from itwin_mcp.capability.linker import link_files
from itwin_mcp.errors import CapabilityError
from tests.capability.files import Folder, edit
from tests.conftest import connect

pytestmark = pytest.mark.anyio

ROOT = Path(__file__).parents[2]
GUIDES = {"classes", "errors", "hierarchy", "imodels", "limits", "lists", "permissions", "repositories"}
STATIC = """\
    resources:
      notes:
        display: "Notes"
        uri: "parts://notes"
        description: "Notes."
        mimeType: text/markdown
        location: "LOCATION"
      part:
"""


@pytest.fixture
def folder(tmp_path_factory: pytest.TempPathFactory) -> Folder:
    return Folder(tmp_path_factory.mktemp("capabilities"))


@pytest.mark.parametrize("mode", ["auto", "legacy"])
async def test_guides_are_listed_and_read_as_markdown(mode: str) -> None:
    async with connect(mode, toolsets="users") as client:
        resources = (await client.list_resources()).resources
        listed = {resource.name: resource for resource in resources if str(resource.uri).startswith("itwin://guides/")}
        assert listed.keys() == GUIDES
        for guide in listed.values():
            assert guide.mime_type == "text/markdown"
            assert guide.title
            assert guide.description
            (content,) = (await client.read_resource(str(guide.uri))).contents
            assert isinstance(content, TextResourceContents)
            assert content.mime_type == "text/markdown"
            assert content.text.startswith(f"# {guide.title}\n\n{guide.description}\n")
        assert "WorkPackage" in (await read_text(client, "itwin://guides/classes"))
        assert "Changed Elements" in (await read_text(client, "itwin://guides/limits"))
        for uri in ("itwin://guides/", "itwin://guides/classes.md", "itwin://guides/../itwins"):
            with pytest.raises(MCPError) as caught:
                await client.read_resource(uri)
            assert caught.value.error.code == -32602


async def read_text(client: Client, uri: str) -> str:
    (content,) = (await client.read_resource(uri)).contents
    assert isinstance(content, TextResourceContents)
    return content.text


def test_wheel_contains_the_guides() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    assert project["tool"]["hatch"]["build"]["targets"]["wheel"]["force-include"] == {
        "capabilities": "itwin_mcp/capabilities"
    }
    assert {file.stem for file in (ROOT / "capabilities" / "guides").glob("*.md")} == GUIDES


def test_capability_export_includes_the_guides(tmp_path: Path) -> None:
    export_files(find_shipped_files(), tmp_path)
    assert {file.stem for file in (tmp_path / "guides").glob("*.md")} == GUIDES


def write_static(folder: Folder, location: str) -> Path:
    """Write a capability file that serves the guides at a location."""
    before, after = "    resources:\n      part:\n", STATIC.replace("LOCATION", location)
    text = edit((before + "        display", after + "        display"))
    return folder.write(text, "static.yaml")


def test_users_file_serves_guides_next_to_it(folder: Folder) -> None:
    file = write_static(folder, "file:///./notes")
    notes = file.parent / "notes"
    notes.mkdir()
    (notes / "bolts.md").write_text("# Bolts\n\nHow bolts are counted.\n\nOne by one.\n", encoding="utf-8")
    (notes / "ignored.txt").write_text("x", encoding="utf-8")
    (guide,) = link_files([file]).statics
    assert (guide.name, guide.title, guide.uri) == ("bolts", "Bolts", "parts://notes/bolts")
    assert guide.description == "How bolts are counted."


@pytest.mark.parametrize(
    "location", ["file:///etc", "file:///./../notes", "file:///./missing", "file:///./link", "https://x.example/notes"]
)
def test_guide_outside_the_folder_is_refused(folder: Folder, location: str, tmp_path: Path) -> None:
    file = write_static(folder, location)
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "secret.md").write_text("# Secret\n\nNobody reads this.\n", encoding="utf-8")
    (file.parent / "link").symlink_to(outside)
    with pytest.raises(CapabilityError) as caught:
        link_files([file])
    assert "[static]" in str(caught.value)


def test_guide_without_title_or_paragraph_is_refused(folder: Folder) -> None:
    file = write_static(folder, "file:///./notes")
    (file.parent / "notes").mkdir()
    (file.parent / "notes" / "bolts.md").write_text("Bolts\n", encoding="utf-8")
    with pytest.raises(CapabilityError) as caught:
        link_files([file])
    assert "bolts.md must begin with `# Title`" in str(caught.value)


# --- thumbnails -------------------------------------------------------------------------------------------------


async def find_imodel(client: Client) -> str:
    recent = (await client.call_tool("list-recent-itwins", {"limit": 1})).structured_content
    assert recent is not None
    listed = (await client.call_tool("list-imodels", {"iTwinId": recent["iTwins"][0]["id"]})).structured_content
    assert listed is not None
    return str(listed["iModels"][0]["id"])


@pytest.mark.parametrize("mode", ["auto", "legacy"])
async def test_thumbnail_result_is_an_image(mode: str) -> None:
    async with connect(mode) as client:
        imodel = await find_imodel(client)
        result = await client.call_tool("get-imodel-thumbnail", {"iModelId": imodel, "size": "large"})
        assert not result.is_error
        text, picture = result.content
        assert isinstance(text, TextContent)
        assert isinstance(picture, ImageContent)
        content = base64.b64decode(picture.data)
        assert content.startswith(b"\x89PNG")
        assert picture.mime_type == "image/png"
        assert result.structured_content is not None
        assert result.structured_content["content"] == {"mediaType": "image/png", "bytes": len(content)}


@pytest.mark.parametrize("mode", ["auto", "legacy"])
async def test_thumbnail_resource_is_a_blob_with_its_media_type(mode: str) -> None:
    async with connect(mode) as client:
        imodel = await find_imodel(client)
        for uri in (f"itwin://imodels/{imodel}/thumbnail", f"itwin://imodels/{imodel}/thumbnail/large"):
            (content,) = (await client.read_resource(uri)).contents
            assert isinstance(content, BlobResourceContents)
            assert content.mime_type == "image/png"
            assert base64.b64decode(content.blob).startswith(b"\x89PNG")


async def test_missing_thumbnail_is_an_error_without_image() -> None:
    async with connect() as client:
        missing = "00000000-0000-4000-8000-000000000000"
        result = await client.call_tool("get-imodel-thumbnail", {"iModelId": missing})
        assert result.is_error
        assert len(result.content) == 1


# --- read-guide ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("toolsets", [None, "dynamic"])
async def test_read_guide_returns_the_text_of_each_resource(toolsets: str | None) -> None:
    async with connect(toolsets=toolsets) as client:
        (tool,) = [tool for tool in (await client.list_tools()).tools if tool.name == "read-guide"]
        assert set(tool.input_schema["properties"]["guide"]["enum"]) == GUIDES
        for name in sorted(GUIDES):
            answer = (await client.call_tool("read-guide", {"guide": name})).structured_content
            assert answer is not None
            assert answer["guide"]["text"] == await read_text(client, f"itwin://guides/{name}")
            assert answer["guide"]["text"].startswith(f"# {answer['guide']['title']}\n")


@pytest.mark.parametrize("arguments", [{}, {"guide": "weather"}, {"guide": "../errors"}])
async def test_read_guide_refuses_unknown_names_and_lists_the_others(arguments: dict[str, str]) -> None:
    async with connect() as client:
        answer = await client.call_tool("read-guide", arguments)
        assert answer.is_error
        assert answer.structured_content is not None
        assert answer.structured_content["error"]["code"] == "InvalidArguments"
        assert "permissions" in str(answer.structured_content["error"]) or not arguments


async def test_read_guide_reads_a_users_own_guides_too(folder: Folder) -> None:
    file = write_static(folder, "file:///./notes")
    notes = file.parent / "notes"
    notes.mkdir()
    (notes / "bolts.md").write_text("# Bolts\n\nHow bolts are counted.\n\nOne by one.\n", encoding="utf-8")
    (notes / "errors.md").write_text("# My errors\n\nWhat goes wrong here.\n", encoding="utf-8")
    async with connect(capabilities=[file]) as client:
        for name, title in (("bolts", "Bolts"), ("errors", "Errors and what to do about them")):
            answer = (await client.call_tool("read-guide", {"guide": name})).structured_content
            assert answer is not None
            assert answer["guide"]["title"] == title
        answer = (await client.call_tool("read-guide", {"guide": "parts://notes/errors"})).structured_content
        assert answer is not None
        assert answer["guide"]["title"] == "My errors"


async def test_guides_name_the_data_centers_and_both_codes_of_a_429() -> None:
    async with connect() as client:
        classes, errors = (
            await read_text(client, "itwin://guides/classes"),
            await read_text(client, "itwin://guides/errors"),
        )
        listed = {tool.name: tool for tool in (await client.list_tools()).tools}
        locations = listed["create-itwin"].input_schema["properties"]["dataCenterLocation"]["enum"]
        assert [location for location in locations if location not in " ".join(classes.split())] == []
        assert {"`TooManyRequests`", "RateLimitExceeded"} <= set(errors.split())
