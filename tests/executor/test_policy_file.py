"""Policy files: problems are reported with their lines, and entries allow what they say."""

import textwrap
from pathlib import Path

import pytest

from itwin_mcp.capability.catalog import Catalog
from itwin_mcp.errors import PolicyError
from itwin_mcp.executor.context import LOCAL, Caller
from itwin_mcp.executor.policy.file import read_policy
from itwin_mcp.executor.policy.rules import Policy
from tests.conftest import shipped_catalog

ITWIN = "11111111-1111-4111-8111-111111111111"
OTHER = "22222222-2222-4222-8222-222222222222"
ISSUER = "https://login.example.com"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path


def read(folder: Path, text: str, issuer: str | None = None) -> Policy:
    file = folder / "policy.yaml"
    file.write_text(textwrap.dedent(text).lstrip("\n"), encoding="utf-8")
    return read_policy(file, shipped_catalog(), issuer)


def problems(folder: Path, text: str, issuer: str | None = None) -> list[tuple[int, str]]:
    with pytest.raises(PolicyError) as refused:
        read(folder, text, issuer)
    assert all(problem.file.endswith("policy.yaml") for problem in refused.value.problems)
    return [(problem.line, problem.message) for problem in refused.value.problems]


def test_read_policy_reports_every_problem_with_its_line(folder: Path) -> None:
    found = problems(
        folder,
        f"""
        itwin-mcp-policy: 1
        default:
          itwins: some
          tools: {{allow: [toolset:imodel, get-itwins], deny: [delete-imodell]}}
        callers:
        - issuer: {ISSUER}
          itwins:
          - bridge
          - 7
          tools: {{allow: [all]}}
        - issuer: {ISSUER}
          subject: abc
          groups: [modellers]
          itwins: [{ITWIN}]
          tools: {{allow: [all], deny: [delete-itwin]}}
          pre-approved:
          - tools: [all, get-imodel, delete-itwin, nothing]
            itwins: [{OTHER}]
            per-hour: 1
        """,
    )
    assert [(line, message.split(":")[0]) for line, message in found] == [
        (3, "must be 'all', or a list of ids"),
        (4, "there is no tool 'delete-imodell'"),
        (4, "there is no tool 'get-itwins'"),
        (4, "there is no toolset 'imodel'"),
        (6, "an entry names its callers by either 'subject' or 'groups'"),
        (8, "'bridge' is neither the id of an iTwin nor a link to one"),
        (9, "this is neither the id of an iTwin nor a link to one"),
        (11, "an entry names its callers by either 'subject' or 'groups'"),
        (17, "'all' is no tool"),
        (17, "'delete-itwin' is not allowed in this entry (policy.yaml"),
        (17, "'get-imodel' changes nothing"),
        (17, "there is no tool 'nothing'"),
        (18, f"{OTHER} is none of the iTwins of this entry"),
    ]


@pytest.mark.parametrize(
    ("text", "line", "message"),
    [
        ("", 1, "is empty"),
        ("default: {itwins: all, tools: {allow: [all]}}", 1, "the key 'itwin-mcp-policy' is missing"),
        ("itwin-mcp-policy: 2", 1, "is not one of 1"),
        ("itwin-mcp-policy: 1\ndefault:\n  tools: {allow: [all]}", 2, "the key 'itwins' is missing"),
        ("itwin-mcp-policy: 1\ndefault:\n  itwins: all", 2, "the key 'tools' is missing"),
        ("itwin-mcp-policy: 1\ndefault:\n  itwins: all\n  tools: {alow: []}", 4, "did you mean 'allow'?"),
        ("itwin-mcp-policy: 1\nsubject: anna", 2, "the key 'subject' does not belong here"),
        ("itwin-mcp-policy: 1\ncallers:\n- subject: 12\n", 3, "put it in quotes"),
        ("itwin-mcp-policy: 1\ndefault: &a {itwins: all}", 2, "has the anchor"),
        ("itwin-mcp-policy: 1\nitwin-mcp-policy: 1", 2, "is there twice"),
        (
            "itwin-mcp-policy: 1\ndefault:\n  itwins: all\n  tools: {allow: []}\n  writes-per-hour: -1",
            5,
            "greater than",
        ),
    ],
)
def test_read_policy_rejects_a_broken_file_with_its_line(folder: Path, text: str, line: int, message: str) -> None:
    assert any(at == line and message in said for at, said in problems(folder, text))


def test_read_policy_rejects_a_missing_file(folder: Path) -> None:
    with pytest.raises(PolicyError, match=r"nowhere\.yaml:1: cannot be read"):
        read_policy(folder / "nowhere.yaml", Catalog({}))


def test_find_rule_returns_the_first_entry_of_a_caller(folder: Path) -> None:
    policy = read(
        folder,
        f"""
        itwin-mcp-policy: 1
        callers:
        - issuer: {ISSUER}
          groups: [modellers]
          itwins: all
          tools: {{allow: [all]}}
        - issuer: {ISSUER}
          subject: anna
          itwins: []
          tools: {{allow: []}}
        """,
    )

    def line(caller: Caller) -> str | None:
        rule = policy.find_rule(caller)
        return rule.place("entry") if rule is not None else None

    assert line(Caller("1", ISSUER, "anna", ("modellers",))) == "policy.yaml:3"
    assert line(Caller("2", ISSUER, "anna", ("visitors",))) == "policy.yaml:7"
    assert line(Caller("3", ISSUER, "bert")) is None
    assert line(Caller("4", "https://login.example.org", "anna", ("modellers",))) is None
    assert line(Caller("5", None, "anna", ("modellers",))) is None
    assert line(LOCAL) is None


def test_unreachable_policy_entry_is_reported(folder: Path) -> None:
    def entries(*who: str) -> str:
        lines = [f"- {{issuer: {ISSUER}, {one}, itwins: all, tools: {{allow: [all]}}}}" for one in who]
        return "\n".join(["itwin-mcp-policy: 1", "callers:", *lines])

    shadowed = entries("groups: [a]", "groups: [a, b]", "subject: ada", "groups: [b, a]", "subject: ada")
    never = "never counts, for the first entry does: all its callers are named before"
    assert problems(folder, shadowed) == [
        (6, f"{never} (policy.yaml:3 and policy.yaml:4)"),
        (7, f"{never} (policy.yaml:5)"),
    ]
    read(folder, entries("subject: a", "groups: [a]", "groups: [a, b]", "subject: b"))
    read(folder, entries("groups: [a]") + f"\n- {{issuer: {ISSUER}/, groups: [a], itwins: all, tools: {{allow: []}}}}")


def test_policy_entry_of_another_issuer_is_reported(folder: Path) -> None:
    text = f"""
        itwin-mcp-policy: 1
        default: {{itwins: all, tools: {{allow: [all]}}}}
        callers:
        - issuer: {ISSUER}/
          subject: ada
          itwins: all
          tools: {{allow: [read-only]}}
        """
    ((line, message),) = problems(folder, text, ISSUER)
    assert line == 4
    assert f"'{ISSUER}/'" in message and f"'{ISSUER}' alone" in message
    read(folder, text, f"{ISSUER}/")
    read(folder, text)


def test_pre_approved_accepts_only_tools_that_ask(folder: Path) -> None:
    def approving(tools: list[str]) -> str:
        approved = f"{{tools: {tools}, itwins: [{ITWIN}], per-hour: 1}}"
        default = f"{{itwins: all, tools: {{allow: [all]}}, pre-approved: [{approved}]}}"
        return f"itwin-mcp-policy: 1\ndefault: {default}"

    tools = shipped_catalog().tools
    asking = sorted(one.name for one in tools.values() if one.confirm is not None)
    assert problems(folder, approving(["create-imodel", "download-changeset", "get-imodel", *asking])) == [
        (
            2,
            "'create-imodel' asks nobody, so that there is nothing to approve: leave it out; writes-per-hour bounds it",
        ),
        (
            2,
            "'download-changeset' changes nothing on the platform, and a policy approves nothing on this machine: "
            "leave it out",
        ),
        (2, "'get-imodel' changes nothing: it needs no approval, leave it out"),
    ]
    assert {"delete-imodel", "delete-itwin", "release-all-locks"} <= set(asking)
    read(folder, approving(asking))


def test_deny_covers_flows_that_send_the_same_writes(folder: Path) -> None:
    tools = shipped_catalog().tools

    def denied(deny: str, allow: str = "all") -> set[str]:
        policy = read(
            folder, f"itwin-mcp-policy: 1\ndefault: {{itwins: all, tools: {{allow: [{allow}], deny: [{deny}]}}}}"
        )
        return set(tools) - policy.allowed_tools(LOCAL, tools.values())

    assert denied("create-itwin") == {"create-itwin", "provision-project"}
    assert denied("create-itwin", "all, provision-project") == {"create-itwin"}
    assert denied("release-briefcase, list-locks") == {"release-briefcase", "end-authoring-session", "list-locks"}
    assert denied("provision-project, end-authoring-session") == {"provision-project", "end-authoring-session"}


def test_policy_itwins_accept_links_and_capital_letters(folder: Path) -> None:
    policy = read(
        folder,
        f"""
        itwin-mcp-policy: 1
        default: {{itwins: [{ITWIN.upper()}, "https://api.bentley.com/iTwins/{OTHER}"], tools: {{allow: [all]}}}}
        """,
    )
    assert policy.default is not None
    assert policy.default.itwins == {ITWIN, OTHER}
    assert not policy.default.create_itwins


def test_deny_takes_precedence_over_allow(folder: Path) -> None:
    policy = read(
        folder,
        """
        itwin-mcp-policy: 1
        default:
          itwins: all
          tools: {allow: [read-only, toolset:imodels, create-itwin], deny: [get-imodel, toolset:locks]}
        """,
    )
    tools = shipped_catalog().tools
    allowed = policy.allowed_tools(LOCAL, tools.values())
    assert {"create-itwin", "delete-imodel", "get-itwin"} <= allowed
    assert not {"get-imodel", "list-locks", "release-locks", "delete-itwin"} & allowed
    assert policy.default is not None
    assert policy.default.create_itwins
    resources = shipped_catalog().resources
    kept = {one.name for one in policy.allowed_resources(LOCAL, resources, tools.values())}
    assert "itwin" in kept
    reads_imodels = {one.name for one in resources if any(op.name == "get-imodel-details" for op in one.operations)}
    assert reads_imodels
    assert not kept & reads_imodels, "a resource is no way round a tool that is denied"
