"""`itwin-mcp capability new`: write a starter file for an API."""

from __future__ import annotations

import re
from pathlib import Path

import click

from itwin_mcp.cli.capability_import import list_used_names
from itwin_mcp.cli.options import LocalPath
from itwin_mcp.errors import SettingsError

STARTER = """\
# A capability file: which operations of an HTTP API are called, and which tools agents get from them.
#   itwin-mcp capability check {file}        report every mistake, with its line
#   itwin-mcp call {name}-list-items --capabilities {file} --dry-run
#   itwin-mcp serve --capabilities {file}    serve it together with our tools
# `itwin-mcp capability words` explains the keys that begin with `x-`.
ikanos: "1.0.0-beta5"
info:
  display: "{title}"
  description: "Items of the {title} API."
  version: "0.1.0"
# The key comes from the environment variable {variable}_TOKEN when a tool is called. It is never written here.
binds:
- {{namespace: {name}-environment, keys: {{{variable}_TOKEN: {variable}_TOKEN}}}}
capability:
  # How the API is called.
  consumes:
  - type: http
    namespace: {name}-api
    description: "The {title} API."
    # Change this to the address of the API.
    baseUri: "https://{name}.invalid/v1"
    # Other types: basic (username, password), and apikey (key, value, placement: header or query).
    # If the API is public, remove this line and `binds`.
    authentication: {{type: bearer, token: "{{{{{variable}_TOKEN}}}}"}}
    resources:
      items:
        path: "/items"
        operations:
          list-items:
            method: GET
            # Names that the format cannot spell are written with x-wire: top: {{in: query, x-wire: "$top"}}
            inputParameters: {{search: {{in: query}}, skip: {{in: query}}}}
            # How the list continues: the tool follows the pages, and takes `limit` and `cursor`. The other styles are
            # `link` (to the next page) and `token`. Remove this line if the API returns the whole list.
            x-page: {{style: skip, items: "$.items", skip: skip, most: 100}}
          create-item:
            method: POST
            # An argument that was not given leaves its key out.
            body: {{type: json, data: {{name: "{{{{name}}}}", note: "{{{{note}}}}"}}}}
      item:
        # A slot takes one id. Values that would change the path are rejected.
        path: "/items/{{{{id}}}}"
        operations:
          get-item: {{method: GET, inputParameters: {{id: {{in: path}}}}}}
  # What agents see.
  exposes:
  - type: mcp
    transport: stdio
    namespace: {name}
    description: "Items of the {title} API."
    x-toolset: {name}
    tools:
      {name}-list-items:
        display: "List items"
        # Say what the tool does and when to use it. An agent reads this before it chooses a tool.
        description: "List the items, all or those that contain a text."
        inputParameters:
          search: {{type: string, required: false, description: "Text that the items contain."}}
        call: {name}-api.list-items
        with: {{search: {name}.search}}
        # Agents read only what is declared here, which keeps their context small.
        outputParameters:
        - type: object
          properties:
            items:
              type: array
              mapping: "$.items"
              items:
                type: object
                properties:
                  id: {{type: string, mapping: "$.id"}}
                  name: {{type: string, mapping: "$.name"}}
      {name}-get-item:
        display: "Get item"
        description: "Read one item with everything that is known about it."
        inputParameters:
          itemId: {{type: string, description: "Item: its id."}}
        call: {name}-api.get-item
        with: {{id: {name}.itemId}}
        outputParameters:
        - type: object
          properties:
            id: {{type: string, mapping: "$.id"}}
            name: {{type: string, mapping: "$.name"}}
            note: {{type: string, mapping: "$.note"}}
      {name}-create-item:
        display: "Create item"
        description: "Create an item. It can be read right afterwards."
        # For tools that change something. The user confirms a call with `destructive: true`.
        hints: {{readOnly: false, destructive: false, idempotent: false}}
        inputParameters:
          # x-schema narrows the values of an argument. It is enforced before anything is sent.
          name: {{type: string, description: "Name of the item.", x-schema: {{minLength: 1, maxLength: 100}}}}
          note: {{type: string, required: false, description: "A note."}}
        call: {name}-api.create-item
        with: {{name: {name}.name, note: {name}.note}}
        outputParameters:
        - type: object
          properties:
            id: {{type: string, mapping: "$.id"}}
"""


@click.command("new")
@click.argument("name")
@click.option("-o", "--output", type=LocalPath(dir_okay=False), help="Write to this file. Default: NAME.yaml.")
@click.option("--force", is_flag=True, help="Replace the file if it exists.")
def new(name: str, output: Path | None, force: bool) -> None:
    """Write a starter capability file for the API called NAME, with comments, to change step by step.

    \b
    Examples:
      itwin-mcp capability new weather
      itwin-mcp capability new weather -o ./capabilities/weather.yaml
    """
    if not re.fullmatch(r"[a-z][a-z0-9]*(-[a-z0-9]+)*", name) or len(name) > 40:
        raise SettingsError(
            f"{name!r} cannot be a name: use small letters and digits with dashes between, such as my-api."
        )
    if {name, f"{name}-api"} & {*list_used_names().namespaces}:
        raise SettingsError(f"The name {name!r} is used by our own files: choose another one, such as my-{name}.")
    file = output or Path(f"{name}.yaml")
    if file.exists() and not force:
        raise SettingsError(f"{file} exists: choose another file with --output, or replace it with --force.")
    try:
        file.write_text(make_starter(name, file), encoding="utf-8", newline="\n")
    except OSError as error:
        raise SettingsError(f"{file} cannot be written: {error.strerror}.") from None
    click.echo(f"Wrote {file}. Change the address and the operations, then run: itwin-mcp capability check {file}")


def make_starter(name: str, file: Path) -> str:
    """Return the text of a starter file."""
    # Variables that begin with ITWIN_ hold credentials for the platform, which no other API receives.
    variable = name.upper().replace("-", "_")
    variable = f"API_{variable}" if variable.startswith(("ITWIN", "ITP")) else variable
    return STARTER.format(name=name, title=name.replace("-", " ").capitalize(), variable=variable, file=file)
