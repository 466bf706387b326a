"""A small valid capability file, and helpers to edit it, link it and collect its problems."""

from pathlib import Path

import pytest

from itwin_mcp.capability.catalog import Catalog
from itwin_mcp.capability.linker import link_files
from itwin_mcp.errors import CapabilityError, Problem

GOOD = """\
ikanos: "1.0.0-beta5"
info: {display: "Parts", description: "Parts of a machine."}
binds:
- {namespace: parts-env, keys: {PARTS_TOKEN: PARTS_TOKEN}}
capability:
  consumes:
  - type: http
    namespace: parts-api
    baseUri: "https://parts.example.org/v1"
    authentication: {type: bearer, token: "{{PARTS_TOKEN}}"}
    inputParameters:
      Accept: {in: header, value: "application/json"}
    resources:
      parts:
        path: "/parts"
        operations:
          list-parts:
            method: GET
            inputParameters:
              kind: {in: query}
              top: {in: query, x-wire: "$top"}
            x-page: {style: link, items: "$.parts", next: "$._links.next.href", size: top, most: 100}
          create-part:
            method: POST
            body:
              type: json
              data: {name: "{{name}}", label: "Part {{label}}", sizes: ["{{size}}"], made: true}
            x-wait:
              handle: {header: Location, as: partId}
              poll: parts-api.get-part
              state: "$.state"
              pending: [running]
              done: [ready]
              result: parts-api.get-part
      part:
        path: "/parts/{{id}}"
        operations:
          get-part: {method: GET, inputParameters: {id: {in: path}}}
          replace-part: {method: PUT, inputParameters: {id: {in: path}}}
          change-part: {method: PATCH, inputParameters: {id: {in: path}}}
          delete-part: {method: DELETE, inputParameters: {id: {in: path}}}
  aggregates:
  - display: "Flows"
    namespace: flows
    flows:
      find-part:
        description: "Find the parts of a kind."
        semantics: {safe: true}
        inputParameters:
          kind: {type: string, description: "Kind."}
        steps:
          all: {type: call, call: parts-api.list-parts, with: {kind: flows.kind}}
          one: {type: lookup, index: all, match: kind, lookupValue: "$.kind", outputParameters: [id, name]}
          whole: {type: call, call: parts-api.get-part, x-each: "$.one", with: {id: "{{each.id}}"}}
        mappings:
        - {target: found.parts, value: "$.whole"}
        outputParameters:
          found:
            type: object
            properties:
              parts: {type: array, items: {id: {type: string}, name: {type: string}}}
  exposes:
  - type: mcp
    transport: stdio
    namespace: parts
    tools:
      list-parts:
        description: "List parts."
        inputParameters:
          kind: {type: string, required: false, description: "Kind.", x-schema: {enum: [bolt, nut], default: bolt}}
        call: parts-api.list-parts
        with: {kind: parts.kind}
        outputParameters:
        - type: object
          properties:
            parts:
              type: array
              mapping: "$.parts"
              items:
                type: object
                properties:
                  id: {type: string, mapping: "$.id"}
                  size: {type: number, mapping: "$.size"}
      get-part:
        description: "Read a part."
        inputParameters:
          partId: {type: string, description: "Part."}
        call: parts-api.get-part
        with: {id: parts.partId}
        outputParameters:
        - {type: object, properties: {name: {type: string, mapping: "$.name"}}}
      find-part: {display: "Find part", ref: flows.find-part}
    resources:
      part:
        display: "Part"
        uri: "parts://parts/{partId}"
        description: "A part."
        call: parts-api.get-part
        with: {id: parts.partId}
        outputParameters:
        - {type: object, properties: {name: {type: string, mapping: "$.name"}}}
    prompts:
      describe:
        display: "Describe"
        description: "Describe a part."
        arguments: {part: {description: "Part."}}
        template:
        - {role: user, content: "Describe {{part}}."}
"""

SECTION = """\
ikanos: "1.0.0-beta5"
consumes:
- type: http
  namespace: bolts-api
  baseUri: "https://bolts.example.org"
  resources:
    bolts:
      path: "/bolts"
      operations:
        list-bolts: {}
"""

TOOL = """\
ikanos: "1.0.0-beta5"
capability:
  consumes:
  - {from: "./bolts.yaml", import: bolts-api}
  exposes:
  - type: mcp
    namespace: bolts
    tools:
      list-bolts:
        description: "List bolts."
        call: bolts-api.list-bolts
        outputParameters:
        - {type: object, properties: {bolts: {type: array, mapping: "$.bolts", items: {type: object, properties: {}}}}}
"""


class Folder:
    """A folder of capability files to link."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def write(self, text: str | bytes, name: str = "parts.yaml") -> Path:
        file = self.path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(text.encode() if isinstance(text, str) else text)
        return file

    def link(self, *texts: str, cache: Path | None = None) -> Catalog:
        files = [self.write(text, f"file{index}.yaml") for index, text in enumerate(texts)]
        return link_files(files, cache=cache)

    def find_problems(self, *texts: str | bytes) -> list[Problem]:
        """Link files that break rules, and return their problems."""
        files = [self.write(text, f"file{index}.yaml") for index, text in enumerate(texts)]
        with pytest.raises(CapabilityError) as caught:
            link_files(files)
        return list(caught.value.problems)


def edit(*changes: tuple[str, str], text: str = GOOD) -> str:
    """Return the text with parts replaced. Each part must occur exactly once."""
    for old, new in changes:
        assert text.count(old) == 1, f"{old!r} occurs {text.count(old)} times"
        text = text.replace(old, new)
    return text


def find_line(text: str, part: str) -> int:
    """Return the line of a part, which must occur exactly once in the text. Lines count from 1.

    In a part of several lines, `¶` marks the line to return; by default it is the first.
    """
    before, _, after = part.rpartition("¶")
    part = before + after
    assert text.count(part) == 1, f"{part!r} occurs {text.count(part)} times"
    return text[: text.index(part)].count("\n") + before.count("\n") + 1


def list_rules(problems: list[Problem]) -> list[tuple[int, str]]:
    """Return the line and rule of each problem."""
    return [(problem.line, problem.rule) for problem in problems]
