"""`x-entities`: declarations are linked, and broken references are reported with their lines."""

from pathlib import Path

import pytest

from itwin_mcp.capability.documents import find_shipped_files
from itwin_mcp.capability.linker import link_files
from itwin_mcp.errors import CapabilityError
from tests.capability.files import Folder, edit

ENTITY = """\
x-entities:
  part:
    id: {pattern: "P-[0-9]{1,6}"}
    link: parts
    find:
    - {call: parts-api.list-parts, items: parts, match: name, by: kind, with: {top: 5}}
    complete:
    - {tool: list-parts, items: parts, search: kind}
    list: list-parts
"""
WITH_ARGUMENT = edit(("partId: {type: string,", "partId: {type: string, x-entity: part,"))
WITH_ENTITY = WITH_ARGUMENT.replace("capability:\n", ENTITY + "capability:\n")
FIND = "call: parts-api.list-parts, items: parts, match: name, by: kind, with: {top: 5}"


def test_entity_is_linked_to_the_arguments_that_name_it(folder: Folder) -> None:
    catalog = folder.link(WITH_ENTITY)
    part = catalog.entities["part"]
    assert catalog.tools["get-part"].arguments[0].entity is part
    assert (part.noun, part.hint, part.segment) == ("part", "Look for it with list-parts.", "parts")
    assert part.origins == {"https://parts.example.org"}


def test_entity_is_available_in_later_files(folder: Folder) -> None:
    nuts = WITH_ARGUMENT
    for old, new in (("part", "nut"), ("x-entity: nut,", "x-entity: part,"), ("describe:", "describe-nut:")):
        nuts = nuts.replace(old, new)
    catalog = link_files([folder.write(WITH_ENTITY), folder.write(nuts, "nuts.yaml")])
    assert catalog.tools["get-nut"].arguments[0].entity is catalog.entities["part"]


def test_redeclared_entity_is_a_problem(folder: Folder) -> None:
    (problem,) = folder.find_problems(edit(("capability:\n", "x-entities: {imodel: {id: word}}\ncapability:\n")))
    assert (problem.rule, "'imodel' is declared already" in problem.message) == ("unique-entity", True)
    again = "ikanos: '1.0.0-beta5'\nx-entities: {part: {}}\ncapability: {}\n"
    (problem,) = folder.find_problems(WITH_ENTITY, again)
    assert problem.rule == "unique-entity"


def test_capability_files_cannot_declare_policy_paths(folder: Folder) -> None:
    for word in ("x-policy-paths: []", "x-policy: {}", "policy-paths: []"):
        (problem,) = folder.find_problems(edit(("capability:\n", f"{word}\ncapability:\n")))
        assert problem.rule == "known-key"
    (problem,) = folder.find_problems(WITH_ENTITY.replace("    link: parts\n", "    link: parts\n    within: itwin\n"))
    assert problem.rule == "known-key"


@pytest.mark.parametrize(
    ("change", "rule", "message"),
    [
        (('"P-[0-9]{1,6}"', '"P-[0-9"'), "x-entities", "is not a regular expression"),
        (("    link: parts\n", "    in: machine\n"), "known-word", "there is no earlier entity 'machine'"),
        (("by: kind,", "within: kind,"), "x-entities", "`within` needs `in`"),
        (("call: parts-api.list-parts, items", "call: parts-api.list-part, items"), "unresolved-call", "did you mean"),
        (("call: parts-api.list-parts, items", "call: parts-api.create-part, items"), "x-entities", "is a POST"),
        (("by: kind", "by: kid"), "unresolved-input", "has no input 'kid'"),
        ((FIND, "call: parts-api.get-part, items: parts, match: name"), "unresolved-input", "needs the input 'id'"),
        (("    list: list-parts", "    list: list-part"), "unresolved-tool", "did you mean 'list-parts'?"),
        (("tool: list-parts", "tool: list-part"), "unresolved-tool", "did you mean 'list-parts'?"),
        (("search: kind", "search: kid"), "unresolved-input", "has no argument 'kid'"),
        (("search: kind", "within: [kind]"), "x-entities", "names no entity"),
        (("    link: parts\n", "    paths: [parts]\n"), "name", "does not have the form"),
        (("    link: parts\n", "    sequence: {}\n"), "required-key", "is missing"),
    ],
)  # fmt: skip
def test_broken_reference_of_an_entity_is_reported(
    folder: Folder, change: tuple[str, str], rule: str, message: str
) -> None:
    text = WITH_ENTITY.replace(*change)
    assert text != WITH_ENTITY
    problems = folder.find_problems(text)
    assert any(problem.rule == rule and message in problem.message for problem in problems), problems
    assert all(problem.line > 1 for problem in problems)


def test_shipped_files_link_the_entities_of_the_platform() -> None:
    assert {"itwin", "imodel", "changeset"} <= link_files(find_shipped_files()).entities.keys()


def test_broken_reference_of_a_platform_entity_is_reported(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    platform = find_shipped_files()[0].parent / "platform" / "entities.yaml"
    copy = tmp_path / "entities.yaml"
    copy.write_text(
        platform.read_text(encoding="utf-8").replace("list: list-locks", "list: list-lock"), encoding="utf-8"
    )
    monkeypatch.setattr("itwin_mcp.capability.linker.PLATFORM_ENTITIES", copy)
    with pytest.raises(CapabilityError, match="there is no tool 'list-lock': did you mean 'list-locks'"):
        link_files(find_shipped_files())
    assert link_files([]).tools == {}
