"""Skills as MCP resources, and the extension by which hosts find and verify them."""

import hashlib
from typing import Any

import pytest
from mcp import Client, MCPError
from mcp.types import PaginatedRequestParams, Request, RequestParams, TextResourceContents
from pydantic import TypeAdapter

from tests.conftest import connect
from tests.skills.bundles import bundles

pytestmark = pytest.mark.anyio
EXTENSION = "io.modelcontextprotocol/skills"
MODES = pytest.mark.parametrize("mode", ["auto", "legacy"])


class SkillRequest(RequestParams):
    uri: str


async def ask(client: Client, method: str, params: RequestParams) -> dict[str, Any]:
    request = Request[Any, str](method=method, params=params)
    return await client.session.send_request(request, TypeAdapter(dict[str, Any]))


async def read(client: Client, uri: str) -> str:
    (content,) = (await client.read_resource(uri)).contents
    assert isinstance(content, TextResourceContents)
    assert content.mime_type == "text/markdown"
    return content.text


async def test_skills_extension_is_declared() -> None:
    async with connect(toolsets="users") as client:
        assert client.server_capabilities is not None
        assert client.server_capabilities.extensions == {EXTENSION: {}}


@MODES
async def test_listed_skills_match_their_digests_and_front_matter(mode: str) -> None:
    async with connect(mode, toolsets="users") as client:
        listed = await ask(client, "skills/list", PaginatedRequestParams())
        assert (listed["ttlMs"], listed["cacheScope"]) == (300_000, "public")
        assert {entry["uri"] for entry in listed["skills"]} == {
            f"skill://{bundle.skill.name}/SKILL.md" for bundle in bundles()
        }
        for entry, bundle in zip(listed["skills"], bundles(), strict=True):
            assert entry["frontmatter"] == bundle.skill.front
            assert [file["uri"].rpartition(f"{bundle.skill.name}/")[2] for file in entry["resources"]] == [
                *bundle.files
            ]
            for file in entry["resources"]:
                content = (await read(client, file["uri"])).encode()
                assert file["size"] == len(content)
                assert file["digest"] == f"sha256:{hashlib.sha256(content).hexdigest()}"
            skill = await ask(client, "skills/get", SkillRequest(uri=entry["uri"]))
            assert skill["skill"] == entry


@MODES
async def test_skill_is_listed_as_a_resource_by_its_guide(mode: str) -> None:
    async with connect(mode) as client:
        listed = {str(resource.uri): resource for resource in (await client.list_resources()).resources}
        skills = {uri: resource for uri, resource in listed.items() if uri.startswith("skill://")}
        assert skills.keys() == {f"skill://{bundle.skill.name}/SKILL.md" for bundle in bundles()}
        for bundle in bundles():
            resource = skills[f"skill://{bundle.skill.name}/SKILL.md"]
            assert (resource.name, resource.description) == (bundle.skill.name, bundle.skill.front["description"])
            assert resource.mime_type == "text/markdown"


@MODES
async def test_unknown_skill_uri_and_cursor_are_refused(mode: str) -> None:
    async with connect(mode) as client:
        for uri in ("skill://version-history", "skill://version-history/references/tools.md", "skill://../SKILL.md"):
            with pytest.raises(MCPError) as caught:
                await ask(client, "skills/get", SkillRequest(uri=uri))
            assert caught.value.error.code == -32602
        for uri in ("skill://version-history/", "skill://version-history/SKILL", "skill://x/SKILL.md"):
            with pytest.raises(MCPError) as caught:
                await client.read_resource(uri)
            assert caught.value.error.code == -32602
        with pytest.raises(MCPError) as caught:
            await ask(client, "skills/list", PaginatedRequestParams(cursor="2"))
        assert caught.value.error.code == -32602
