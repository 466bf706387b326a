"""`exposes: skill`: a user's own file as skills, exported and served as resources."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from skills_ref import validate

from itwin_mcp.capability.catalog import Skill
from itwin_mcp.errors import CapabilityError
from itwin_mcp.skills.declared import build_skill
from itwin_mcp.skills.exporter import export_skills
from itwin_mcp.skills.reader import read_front_matter
from tests.capability.files import link_files
from tests.conftest import connect
from tests.skills.test_export import run_skills

FILE = """
ikanos: "1.0.0-beta5"
capability:
  consumes:
  - type: http
    namespace: api
    baseUri: "https://lighthouse.example"
    resources:
      lamps: {path: "/lamps", operations: {list-lamps: {inputParameters: {colour: {in: query}}}}}
  exposes:
  - type: skill
    port: 9125
    namespace: skills
    description: "Skills of the lighthouse."
    skills:
      keep-the-light:
        description: 'Keep the light: "always" # on'
        license: MIT
        metadata: {author: "the keeper"}
        allowed-tools: "list-lamps"
        location: "file:///./keeping"
        tools:
          list-lamps:
            description: "List the | lamps."
            from: {sourceNamespace: lighthouse, action: list-lamps}
          lamps-over-http:
            description: "The same over HTTP."
            from: {sourceNamespace: lighthouse-api, action: read-lamps}
          clean:
            description: "Clean the lens."
            instruction: clean.md
      read-only-skill:
        description: "A skill without tools."
  - type: mcp
    transport: stdio
    namespace: lighthouse
    tools:
      list-lamps:
        description: "List the lamps."
        inputParameters: {colour: {type: string, description: "The colour of the light."}}
        call: api.list-lamps
        with: {colour: lighthouse.colour}
        outputParameters: [{type: object, properties: {lamps: {type: string, mapping: "$.lamps"}}}]
  - type: rest
    port: 9126
    namespace: lighthouse-api
    resources:
      lamps:
        path: "/lamps"
        operations:
          read-lamps:
            method: GET
            call: api.list-lamps
            outputParameters: [{type: object, properties: {lamps: {type: string, mapping: "$.lamps"}}}]
"""
GUIDE = "---\nname: another\ndescription: replaced\n---\n# Keep the light\n\nSee [clean](clean.md).\n"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    folder = tmp_path / "keeping"
    folder.mkdir()
    (folder / "SKILL.md").write_text(GUIDE)
    (folder / "clean.md").write_text("# Clean\n\nUse a cloth.\n")
    (tmp_path / "lighthouse.yaml").write_text(FILE)
    return tmp_path / "lighthouse.yaml"


def read_declared(file: Path) -> list[Skill]:
    return [build_skill(declared) for declared in link_files([file]).declared_skills]


def find_problems(file: Path, old: str, new: str) -> Iterator[str]:
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new))
    with pytest.raises(CapabilityError) as refused:
        link_files([file])
    return (problem.message for problem in refused.value.problems)


def test_skills_of_a_file_are_exported_and_valid(file: Path, tmp_path: Path) -> None:
    keep, plain = read_declared(file)
    guide = keep.files[0].text
    assert read_front_matter(guide) == keep.front
    assert keep.front["description"] == 'Keep the light: "always" # on'
    assert keep.front["metadata"]["author"] == "the keeper"
    assert "# Keep the light\n\nSee [clean](clean.md).\n" in guide
    assert r"| `list-lamps` | List the \| lamps. | call the MCP tool `list-lamps` |" in guide
    assert "| `lamps-over-http` | The same over HTTP. | send `GET /rest/lighthouse-api/lamps` |" in guide
    assert "| `clean` | Clean the lens. | follow [clean](clean.md) |" in guide
    assert [resource.uri for resource in keep.files[1:]] == [
        "skill://keep-the-light/clean.md",
        "skill://keep-the-light/references/tools.md",
    ]
    assert "The colour of the light." in keep.files[2].text
    assert plain.files[0].text.endswith("# read-only-skill\n\nA skill without tools.\n")
    folder = tmp_path / "out"
    export_skills([keep, plain], folder)
    export_skills([keep, plain], folder)
    assert (folder / "keep-the-light/clean.md").read_text() == "# Clean\n\nUse a cloth.\n"
    for skill in (keep, plain):
        assert validate(folder / skill.name) == []


def test_the_command_exports_the_skills_of_a_file(file: Path, tmp_path: Path) -> None:
    run_skills("export", str(tmp_path / "out"), "--capabilities", str(file))
    assert (tmp_path / "out/keep-the-light/SKILL.md").is_file()
    assert (tmp_path / "out/read-only-skill/SKILL.md").is_file()


@pytest.mark.anyio
async def test_skills_of_a_file_are_served_as_resources(file: Path) -> None:
    async with connect(capabilities=[file]) as client:
        read = await client.read_resource("skill://keep-the-light/SKILL.md")
        assert "call the MCP tool `list-lamps`" in read.contents[0].text  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        ("file:///./keeping", "file:///etc", "must be file:///./FOLDER"),
        ("file:///./keeping", "file:///./../keeping", "must be file:///./FOLDER"),
        ("instruction: clean.md", "instruction: ../lighthouse.yaml", "there is no file '../lighthouse.yaml'"),
        ("action: list-lamps", "action: list-lamp", "has no tool or operation 'list-lamp'"),
        ("sourceNamespace: lighthouse,", "sourceNamespace: lighthous,", "has the namespace 'lighthous'"),
        ("      keep-the-light:", "      Keep--light:", "lower-case letters"),
    ],
)
def test_what_a_skill_names_must_exist(file: Path, old: str, new: str, problem: str) -> None:
    assert any(problem in message for message in find_problems(file, old, new))


def test_a_file_that_leads_out_of_the_folder_is_refused(file: Path, tmp_path: Path) -> None:
    outside = tmp_path / "secret.md"
    outside.write_text("# Secret\n")
    (tmp_path / "keeping/link.md").symlink_to(outside)
    assert any("leads out of the folder" in message for message in find_problems(file, "MIT", "MIT"))
