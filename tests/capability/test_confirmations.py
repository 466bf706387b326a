"""`x-confirm`: compiled plans, reported problems, and the default confirmation of tools without it."""

# ruff: noqa: E501  (a table of cases reads best with one on a line)

import pytest

from itwin_mcp.capability import tool_compiler
from tests.capability.files import Folder, edit, find_line, list_rules

TOOL = """\
      get-part:
        description: "Read a part."
"""
DELETES = """\
      drop-part:
        description: "Delete a part for good."
        inputParameters:
          partId: {type: string, description: "Part.", x-entity: imodel}
        x-confirm:
          target: {call: parts-api.get-part, with: {id: parts.partId}}
          reads:
            others: {call: parts-api.list-parts}
          question: "Delete {{target.name}}?"
          name: "{{target.name}}"
          loses:
            others: {value: "$.others.parts[*].id"}
          when: "$.target.name"
          gravity: person
        call: parts-api.delete-part
        with: {id: parts.partId}
        outputParameters:
        - {type: object, properties: {deleted: {type: boolean, value: "true"}}}
"""
GOOD = edit((TOOL, DELETES + TOOL))
WITHOUT_CONFIRM = GOOD[: GOOD.index("        x-confirm:")] + GOOD[GOOD.index("        call: parts-api.delete-part") :]


def test_x_confirm_makes_a_tool_destructive(folder: Folder) -> None:
    tool = folder.link(edit(("call: parts-api.delete-part", "call: parts-api.change-part"), text=GOOD)).tools[
        "drop-part"
    ]
    assert tool.annotations.destructive
    assert tool.confirm is not None and tool.confirm.person
    assert {operation.name for operation in tool.operations} == {"change-part", "get-part", "list-parts"}
    assert "preview" in tool.output_schema["properties"]


@pytest.mark.parametrize(
    ("change", "part", "rule"),
    [
        (("call: parts-api.get-part, with: {id: parts.partId}}\n          reads", "call: parts-api.replace-part, with: {id: parts.partId}}\n          reads"), "parts-api.replace-part", "x-confirm"),
        (("others: {call: parts-api.list-parts}", "target: {call: parts-api.list-parts}"), "target: {call: parts-api.list-parts}", "unique-name"),
        (("$.others.parts[*].id", "$.nobody.parts"), "$.nobody.parts", "unresolved-step"),
        (('when: "$.target.name"', 'when: "$"'), 'when: "$"', "unresolved-step"),
        (('question: "Delete {{target.name}}?"', 'question: "Delete {{other.name}}?"'), "{{other.name}}", "expression"),
        (('parts[*].id"}', 'parts[*].id", match: id}'), "match: id", "x-confirm"),
        (('parts[*].id"}', 'parts[*].id", replacedBy: partNumber}'), "replacedBy: partNumber", "unresolved-input"),
        (('when: "$.target.name"', 'unless: {value: "$.nobody.parts"}'), "$.nobody.parts", "unresolved-step"),
        (('name: "{{target.name}}"\n', 'name: "{{target.name}}"\n          about: {made: "$.nobody.made"}\n'), "$.nobody.made", "unresolved-step"),
        (('name: "{{target.name}}"\n', 'name: "{{target.name}}"\n          lookups: {old: {type: lookup, index: parts, match: id, lookupValue: "$.partId", outputParameters: [id]}}\n'), "lookups:", "unresolved-step"),
        (('name: "{{target.name}}"\n', 'name: "{{target.name}}"\n          lookups: {others: {type: lookup, index: others, match: id, lookupValue: "$.partId", outputParameters: [id]}}\n'), "lookups:", "unique-name"),
        (('name: "{{target.name}}"\n', 'name: "{{target.name}}"\n          lookups: {old: {type: lookup, index: others, match: id, lookupValue: "$.partId", outputParameters: [id], x-when: "$.partId"}}\n'), "lookups:", "x-confirm"),
        (("          gravity: person", "          alike: [drop-parts]\n          gravity: person"), "alike: [drop-parts]", "x-confirm"),
        (("gravity: person", "gravity: grave"), "gravity: grave", "known-word"),
        (("call: parts-api.delete-part\n", "hints: {destructive: false}\n        call: parts-api.delete-part\n"), "hints: {destructive: false}", "hints"),
    ],
)  # fmt: skip
def test_broken_x_confirm_is_reported_with_its_line(
    folder: Folder, change: tuple[str, str], part: str, rule: str
) -> None:
    text = edit(change, text=GOOD)
    problems = list_rules(folder.find_problems(text))
    assert (find_line(text, part), rule) in problems
    assert len(problems) <= 2


def test_shipped_destructive_tool_without_x_confirm_is_a_problem(
    folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = folder.link(WITHOUT_CONFIRM).tools["drop-part"].confirm
    assert plan is not None and plan.reads == () and not plan.person
    monkeypatch.setattr(tool_compiler, "find_shipped_files", lambda: (folder.path.resolve() / "file0.yaml",))
    (problem,) = folder.find_problems(WITHOUT_CONFIRM)
    assert (problem.rule, problem.line) == ("x-confirm", find_line(WITHOUT_CONFIRM, "drop-part:"))


TO_PLATFORM = ("https://parts.example.org/v1", "https://api.bentley.com")


@pytest.mark.parametrize(
    ("origin", "path", "person"),
    [
        ("https://api.bentley.com", "/imodels/{{id}}", True),
        ("https://api.bentley.com/itwins", "/{{id}}/", True),
        ("https://qa-api.bentley.com", "/iTwins/{{id}}", True),
        ("https://api.bentley.com", "/imodels/p{{id}}", True),
        ("https://api.bentley.com", "/imodels/{{id}}/briefcases", False),
        ("https://parts.example.org", "/imodels/{{id}}", False),
    ],
)
def test_delete_of_an_itwin_or_imodel_needs_a_person(folder: Folder, origin: str, path: str, person: bool) -> None:
    for text in (WITHOUT_CONFIRM, edit(("          gravity: person\n", ""), text=GOOD)):
        moved = edit((TO_PLATFORM[0], origin), ('path: "/parts/{{id}}"', f'path: "{path}"'), text=text)
        plan = folder.link(moved).tools["drop-part"].confirm
        assert plan is not None and plan.person is person


@pytest.mark.parametrize(
    ("path", "is_problem"),
    [
        ("/imodels/{{id}}", True),
        ("/imodels/x/shares/{{id}}", True),
        ("/favorites/{{id}}", True),
        ("/imodels/favorites/{{id}}", False),
        ("/itwins/recents/{{id}}", False),
    ],
)
def test_destructive_false_on_a_platform_delete_is_a_problem(folder: Folder, path: str, is_problem: bool) -> None:
    delete = "        call: parts-api.delete-part"
    text = edit(
        TO_PLATFORM,
        ('path: "/parts/{{id}}"', f'path: "{path}"'),
        (delete, f"        hints: {{destructive: false}}\n{delete}"),
        text=WITHOUT_CONFIRM,
    )
    if is_problem:
        (problem,) = folder.find_problems(text)
        assert (problem.rule, problem.line) == ("hints", find_line(text, "destructive: false"))
        assert "contradicts the DELETE operation 'parts-api.delete-part'" in problem.message
    else:
        assert not folder.link(text).tools["drop-part"].confirms
