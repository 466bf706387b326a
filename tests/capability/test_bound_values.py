"""Values of `binds`: from a file next to the capability file, as credentials, headers and query parameters."""

# ruff: noqa: E501  (parts of a capability file)

from pathlib import Path

import pytest

from itwin_mcp.capability.bound_values import read_values
from itwin_mcp.capability.checker import SentKeys, list_sent_keys
from itwin_mcp.errors import NotSignedIn
from itwin_mcp.executor.requests import build_request
from itwin_mcp.executor.sending import sign
from tests.capability.files import GOOD, Folder, edit, find_line, list_rules

BIND = "- {namespace: parts-env, keys: {PARTS_TOKEN: PARTS_TOKEN}}"


def bind(location: str, keys: str = "PARTS_TOKEN: parts-token, VERSION: version, TEAM: team") -> str:
    """Return the capability file with a location, and with bound values as a header and a query parameter."""
    return edit(
        (BIND, f'- {{namespace: parts-env, location: "{location}", keys: {{{keys}}}}}'),
        ('Accept: {in: header, value: "application/json"}', 'Version: {in: header, value: "v{{VERSION}}"}\n      team: {in: query, value: "{{TEAM}}"}'),
    )  # fmt: skip


def test_values_of_a_file_are_sent_as_credential_header_and_query(folder: Folder) -> None:
    folder.write("parts-token: secret-of-parts\nversion: 2\nteam: hull\nother: 1\n", "shared/secrets.yaml")
    catalog = folder.link(bind("file:///./shared/secrets.yaml"))
    operation = catalog.operations["parts-api.get-part"]
    assert not catalog.warnings
    assert (operation.inputs, operation.required) == ({"id"}, {"id"})
    request = build_request(operation, {"id": "7"})
    assert (request.headers, request.query) == ((), ())  # a dry run shows no bound value
    signed = sign(request, operation, read_values(operation.list_references(), {}))
    assert signed.query == (("team", "hull"),)
    assert signed.headers == (("Version", "v2"), ("Authorization", "Bearer secret-of-parts"))
    assert list_sent_keys([operation]) == (SentKeys("https://parts.example.org", ("parts-token", "team", "version")),)


def test_missing_value_is_named_and_nothing_is_sent(folder: Folder) -> None:
    folder.write("parts-token: secret-of-parts\nversion: [2]\n", "secrets.yaml")
    operation = folder.link(bind("file:///./secrets.yaml")).operations["parts-api.get-part"]
    with pytest.raises(NotSignedIn) as caught:
        sign(build_request(operation, {"id": "7"}), operation, read_values(operation.list_references(), {}))
    assert "Set team in " in (caught.value.hint or "")
    assert "version in " in (caught.value.hint or "")


@pytest.mark.parametrize("location", ["file:///./../secrets.yaml", "file:///etc/passwd", "file:///./%2e%2e/secrets.yaml", "file:///./link.yaml"])  # fmt: skip
def test_location_outside_of_the_folder_is_a_problem(folder: Folder, location: str) -> None:
    folder.path.mkdir()
    outside = folder.path.parent / "secrets.yaml"
    outside.write_text("parts-token: a\n")
    (folder.path / "link.yaml").symlink_to(outside)
    text = bind(location)
    assert (find_line(text, "location:"), "bind-location") in list_rules(folder.find_problems(text))


def test_file_that_became_a_symbolic_link_is_not_read(folder: Folder) -> None:
    file = folder.write("parts-token: secret-of-parts\n", "secrets.yaml")
    operation = folder.link(bind("file:///./secrets.yaml")).operations["parts-api.get-part"]
    outside = folder.write("parts-token: other\n", "../elsewhere.yaml")
    assert len(read_values(operation.list_references(), {})) == 1
    file.unlink()
    Path(file).symlink_to(outside)
    assert read_values(operation.list_references(), {}) == {}


def test_binding_with_an_unsupported_scheme_warns_and_reads_the_environment(folder: Folder) -> None:
    catalog = folder.link(bind("vault://team/data"))
    assert [warning.rule for warning in catalog.warnings] == ["not-served"]
    references = catalog.operations["parts-api.get-part"].list_references()
    assert read_values(references, {"team": "hull", "HOME": "/"}) == {"team": "hull"}


def test_bound_value_next_to_an_input_is_a_problem(folder: Folder) -> None:
    text = edit(('value: "application/json"', 'value: "{{PARTS_TOKEN}} {{kind}}"'), text=GOOD)
    assert (find_line(text, "{{PARTS_TOKEN}} {{kind}}"), "expression") in list_rules(folder.find_problems(text))


def test_platform_token_is_not_sent_in_a_header_to_another_origin(folder: Folder) -> None:
    text = edit((BIND, BIND.replace("PARTS_TOKEN: PARTS_TOKEN", "PARTS_TOKEN: PARTS_TOKEN, MINE: ITWIN_ACCESS_TOKEN")), ('value: "application/json"', 'value: "{{MINE}}"'))  # fmt: skip
    assert (find_line(text, 'value: "{{MINE}}"'), "platform-token") in list_rules(folder.find_problems(text))
