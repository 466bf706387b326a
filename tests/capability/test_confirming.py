"""`x-confirm` in capability files: what is linked, what is refused, and what is asked where a file says nothing."""

# ruff: noqa: E501  (a table of cases reads best with one on a line)

import pytest

from itwin_mcp.capability import surface
from tests.capability.files import Folder, bent, line_of, said

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
GOOD = bent((TOOL, DELETES + TOOL))


def test_the_plan_is_linked_and_makes_the_tool_destructive(folder: Folder) -> None:
    tool = folder.link(bent(("call: parts-api.delete-part", "call: parts-api.change-part"), text=GOOD)).tools[
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
        (("          gravity: person", "          alike: [drop-parts]\n          gravity: person"), "alike: [drop-parts]", "x-confirm"),
        (("gravity: person", "gravity: grave"), "gravity: grave", "known-word"),
        (("call: parts-api.delete-part\n", "hints: {destructive: false}\n        call: parts-api.delete-part\n"), "hints: {destructive: false}", "hints"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_refused_with_its_line(folder: Folder, change: tuple[str, str], part: str, rule: str) -> None:
    text = bent(change, text=GOOD)
    problems = said(folder.broken(text))
    assert (line_of(text, part), rule) in problems
    assert len(problems) <= 2


def test_our_own_files_must_say_what_a_destructive_tool_shows(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    start, end = GOOD.index("        x-confirm:"), GOOD.index("        call: parts-api.delete-part")
    silent = GOOD[:start] + GOOD[end:]
    plan = folder.link(silent).tools["drop-part"].confirm
    assert plan is not None and plan.reads == () and not plan.person
    monkeypatch.setattr(surface, "shipped", lambda: (folder.path.resolve() / "file0.yaml",))
    (problem,) = folder.broken(silent)
    assert (problem.rule, problem.line) == ("x-confirm", line_of(silent, "drop-part:"))


SILENT = GOOD[: GOOD.index("        x-confirm:")] + GOOD[GOOD.index("        call: parts-api.delete-part") :]
PLATFORM = ("https://parts.example.org/v1", "https://api.bentley.com")


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
def test_what_deletes_an_itwin_or_an_imodel_needs_a_person_whatever_its_file_says(
    folder: Folder, origin: str, path: str, person: bool
) -> None:
    for text in (SILENT, bent(("          gravity: person\n", ""), text=GOOD)):
        moved = bent((PLATFORM[0], origin), ('path: "/parts/{{id}}"', f'path: "{path}"'), text=text)
        plan = folder.link(moved).tools["drop-part"].confirm
        assert plan is not None and plan.person is person


@pytest.mark.parametrize(
    ("path", "refused"),
    [
        ("/imodels/{{id}}", True),
        ("/imodels/x/shares/{{id}}", True),
        ("/favorites/{{id}}", True),
        ("/imodels/favorites/{{id}}", False),
        ("/itwins/recents/{{id}}", False),
    ],
)
def test_what_deletes_on_the_platform_may_not_be_said_to_destroy_nothing(
    folder: Folder, path: str, refused: bool
) -> None:
    delete = "        call: parts-api.delete-part"
    text = bent(
        PLATFORM,
        ('path: "/parts/{{id}}"', f'path: "{path}"'),
        (delete, f"        hints: {{destructive: false}}\n{delete}"),
        text=SILENT,
    )
    if refused:
        (problem,) = folder.broken(text)
        assert (problem.rule, problem.line) == ("hints", line_of(text, "destructive: false"))
        assert "'parts-api.delete-part' deletes something of the platform" in problem.message
    else:
        assert not folder.link(text).tools["drop-part"].confirms
