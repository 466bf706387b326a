"""Every skill is well formed, names only existing things, and has commands that work."""

import json
import os
import re
from pathlib import Path
from typing import Any

import pytest
import skills_ref
from click.testing import CliRunner

from itwin_mcp.cli import call, group
from itwin_mcp.server.tools import describe
from itwin_mcp.skills.exporter import export_skills
from tests.conftest import connect
from tests.house.documents import list_error_codes
from tests.skills.bundles import Bundle, bundles, catalog

SOURCE = Path(__file__).parents[2] / "src" / "itwin_mcp"
SKILL_NAMES = {
    "find-and-read-itwins",
    "create-and-populate-imodels",
    "clone-and-fork-imodels",
    "version-history",
    "authoring-and-locks",
    "administer-itwins",
}
each_skill = pytest.mark.parametrize("bundle", bundles(), ids=lambda bundle: bundle.skill.name)


def test_catalog_has_every_skill() -> None:
    assert {bundle.skill.name for bundle in bundles()} >= SKILL_NAMES


@each_skill
def test_reference_validator_accepts_every_skill(bundle: Bundle, tmp_path: Path) -> None:
    export_skills([bundle.skill], tmp_path)
    assert skills_ref.validate(tmp_path / bundle.skill.name) == []
    properties = skills_ref.read_properties(tmp_path / bundle.skill.name)
    assert (properties.name, properties.description) == (bundle.skill.name, bundle.skill.front["description"])


@each_skill
def test_front_matter_says_when_to_use_the_skill(bundle: Bundle) -> None:
    front = bundle.skill.front
    assert front.keys() == {"name", "description", "license", "compatibility", "metadata"}
    assert front["name"] == bundle.skill.name
    assert re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", front["name"])
    assert 200 <= len(front["description"]) <= 1024
    assert "Use when " in front["description"]
    assert "<" not in front["description"]  # some hosts put it into a prompt as XML
    assert len(front["compatibility"]) <= 500


@each_skill
def test_guides_are_short_plain_text(bundle: Bundle) -> None:
    assert bundle.guide.count("\n") < 500
    assert len(bundle.guide) / 4 < 5000  # tokens that the format recommends at most
    for path, text in bundle.files.items():
        assert re.search("[\ufeff\t\r\x00]|<!-- |{{", text) is None, path
        assert text.endswith("\n"), path


@each_skill
def test_links_lead_to_existing_references(bundle: Bundle) -> None:
    assert bundle.links == bundle.files.keys() - {"SKILL.md"}
    for path, text in bundle.files.items():
        if path != "SKILL.md":
            assert re.fullmatch(r"references/[a-z-]+\.md", path)
            assert re.findall(r"\]\((?!https://)[^)]*\)", text) == [], path


@each_skill
def test_guides_name_existing_tools(bundle: Bundle) -> None:
    known = catalog().tools.keys() | {other.skill.name for other in bundles()}
    assert {word for word in bundle.quoted if re.match(r"\w+-", word)} - known == set()


@each_skill
def test_guides_quote_only_fields_values_and_codes(bundle: Bundle) -> None:
    surface = json.dumps([describe(tool) for tool in catalog().tools.values()])
    source = "".join(file.read_text(encoding="utf-8") for file in SOURCE.rglob("*.py"))
    known = set(re.findall(r"\w+", surface)) | set(re.findall(r'"(\w+)"', source))
    assert {word for word in bundle.quoted if "-" not in word} - known == set()


@each_skill
def test_guides_name_existing_error_codes(bundle: Bundle) -> None:
    assert len(bundle.codes) >= 5
    assert bundle.codes - list_error_codes() == set()


@each_skill
def test_tables_match_the_catalog(bundle: Bundle) -> None:
    named_tools = {word for word in bundle.quoted if word in catalog().tools} | {
        command[0] for command in bundle.commands
    }
    reference = bundle.files["references/tools.md"]
    assert set(re.findall(r"^## ([a-z-]+)$", reference, re.MULTILINE)) == named_tools
    for name in named_tools:
        tool = catalog().tools[name]
        (row,) = re.findall(rf"^\| `{name}` \| .*$", bundle.guide, re.MULTILINE)
        assert ("**may remove or overwrite**" in row) == tool.annotations.destructive
        assert row.endswith(f"| {tool.toolset} |")
        entry = reference.split(f"\n## {name}\n")[1].split("\n## ")[0]
        assert tool.description in entry
        own = set(re.findall(r"^\| `(\w+)` \|", entry, re.MULTILINE))
        paged = {"limit", "cursor", "fields"} if "takes the arguments of every list" in entry else set()
        assert own | paged == {argument.name for argument in tool.arguments}


@each_skill
def test_guides_leave_confirmations_to_the_user(bundle: Bundle) -> None:
    flat = " ".join(bundle.guide.split())
    assert "`preview` instead of an answer means that nothing was done" in flat
    assert "never confirm by yourself, never type a name or give `--yes` in their place" in flat
    for command in bundle.commands:
        assert "--yes" not in command
        assert not catalog().tools[command[0]].annotations.destructive, command


# --- the commands -----------------------------------------------------------------------------------------------


class Variables:
    """The variables in a guide's commands, as its text defines them: ids from earlier answers."""

    def __init__(self) -> None:
        self._known: dict[str, str] = {}

    def fill(self, command: list[str]) -> list[str]:
        return [re.sub(r"\$([A-Z_]+)", lambda found: self._known[found[1]], word) for word in command]

    def take(self, command: list[str], answer: Any) -> None:
        match answer:
            case {"changesets": [latest, *_]}:
                self._known["CHANGESET_ID"] = latest["id"]
            case {"namedVersions": [newer, older, *_]}:
                self._known |= {"NEWER_ID": newer["id"], "OLDER_ID": older["id"]}
            case {"session": {"briefcase": briefcase}} | {"briefcase": briefcase}:
                self._known["BRIEFCASE_ID"] = str(briefcase["briefcaseId"])
            case {"iModels": [first, *_]}:
                self._known["IMODEL_ID"] = first["id"]
            case {"iModel": copy} if command[0] in ("clone-imodel", "fork-imodel"):
                self._known["COPY_ID"] = copy["id"]


@each_skill
@pytest.mark.anyio
async def test_commands_of_guides_succeed_on_the_sandbox(bundle: Bundle, tmp_path: Path) -> None:
    variables = Variables()
    assert len(bundle.commands) >= 5
    async with connect(files_root=(tmp_path,)) as client:
        for command in bundle.commands:
            parsed = call.command.make_context("call", variables.fill(command)).params
            arguments = call.read_arguments(catalog().tools[parsed["tool"]], parsed["pairs"], None)
            result = await client.call_tool(parsed["tool"], arguments)
            assert not result.is_error, (command, result.structured_content)
            variables.take(command, result.structured_content)


@each_skill
@pytest.mark.slow
def test_commands_of_guides_succeed_in_a_shell(bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    variables = Variables()
    for command in bundle.commands:
        words = ["call", *variables.fill(command), "--sandbox", "--sandbox-db", "sandbox.db", "--job-seconds", "0"]
        done = CliRunner().invoke(group, words, env=dict(os.environ), catch_exceptions=False)
        assert done.exit_code == 0, f"{command}: {done.output}"
        variables.take(command, json.loads(done.stdout))
