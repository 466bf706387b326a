"""An OpenAPI definition: read, its references resolved, and its operations listed."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from itwin_mcp.errors import SettingsError

MAX_BYTES = 16 * 1024 * 1024
_METHODS = ("get", "post", "put", "patch", "delete")
_OTHER_METHODS = ("head", "options", "trace")
_HTTP = re.compile(r"https?://[^/{}\s?#@\\]+(/[^{}\s?#\\]*)?")

Schema = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Parameter:
    """A parameter of an operation. `content` is set if it is described by a media type instead of a schema."""

    name: str
    place: str
    required: bool
    description: str
    schema: Schema
    style: str
    explode: bool
    content: bool


@dataclass(frozen=True, slots=True)
class ApiOperation:
    """One operation of the definition. `node` is its object, with the parts that have no field of their own."""

    id: str
    method: str
    path: str
    summary: str
    description: str
    tags: Sequence[str]
    deprecated: bool
    parameters: Sequence[Parameter]
    node: Mapping[str, Any] = field(repr=False)

    @property
    def label(self) -> str:
        """Return the method and path, as error messages and lists show them."""
        return f"{self.method.upper()} {self.path}"


class Definition:
    """A whole definition. Lookups are lenient: a part of another type than expected counts as missing."""

    def __init__(self, root: Mapping[str, Any], name: str) -> None:
        self.name = name
        self._root = root
        info = as_map(root.get("info"))
        self.title = as_text(info.get("title")) or "API"
        self.version = as_text(info.get("version"))
        self.description = as_text(info.get("description"))
        self.schemes = as_map(as_map(root.get("components")).get("securitySchemes"))
        self.security: Any = root.get("security")
        self.has_webhooks = bool(root.get("webhooks"))
        self.unserved: list[str] = []
        """The operations whose method no capability file can declare."""
        self.operations = tuple(self._list_operations())

    def find_server(self) -> str | None:
        """Return the URL of the first server, with the defaults of its variables; None if it is not an HTTP URL."""
        for server in as_list(self._root.get("servers"))[:1]:
            url = as_text(as_map(server).get("url"))
            for name, variable in as_map(as_map(server).get("variables")).items():
                url = url.replace(f"{{{name}}}", as_text(as_map(variable).get("default")))
            url = url.rstrip("/")
            return url if _HTTP.fullmatch(url) else None
        return None

    def resolve(self, node: Any) -> Mapping[str, Any]:
        """Return an object of the definition, after its references. Members next to a `$ref` win over the target's."""
        own: dict[str, Any] = {}
        for _ in range(20):  # a reference can lead to itself
            found = as_map(node)
            reference = found.get("$ref")
            own = {**{key: value for key, value in found.items() if key != "$ref"}, **own}
            if not isinstance(reference, str):
                return own
            node = self._follow(reference)
        return own

    def is_external(self, node: Any) -> bool:
        """Return whether an object is a reference out of this file, which is not followed."""
        reference = as_map(node).get("$ref")
        return isinstance(reference, str) and not reference.startswith("#")

    def _follow(self, reference: str) -> Any:
        if not reference.startswith("#/"):
            return None
        node: Any = self._root
        for part in reference[2:].split("/"):
            key = unquote(part).replace("~1", "/").replace("~0", "~")
            if isinstance(node, list) and key.isdecimal() and int(key) < len(node):
                node = node[int(key)]
            else:
                node = as_map(node).get(key)
        return node

    def _list_operations(self) -> Iterator[ApiOperation]:
        for path, item in as_map(self._root.get("paths")).items():
            shared = self.resolve(item)
            self.unserved += [f"{method.upper()} {path}" for method in _OTHER_METHODS if method in shared]
            for method in _METHODS:
                if method in shared:
                    yield self._read_operation(path, method, as_map(shared[method]), shared)

    def _read_operation(
        self, path: str, method: str, node: Mapping[str, Any], shared: Mapping[str, Any]
    ) -> ApiOperation:
        parameters: dict[tuple[str, str], Parameter] = {}
        for each in (*as_list(shared.get("parameters")), *as_list(node.get("parameters"))):
            parameter = self._read_parameter(self.resolve(each))
            parameters[parameter.name, parameter.place] = parameter
        return ApiOperation(
            id=as_text(node.get("operationId")),
            method=method,
            path=path if path.startswith("/") else f"/{path}",
            summary=as_text(node.get("summary")) or as_text(shared.get("summary")),
            description=as_text(node.get("description")) or as_text(shared.get("description")),
            tags=[tag for tag in as_list(node.get("tags")) if isinstance(tag, str)],
            deprecated=node.get("deprecated") is True,
            parameters=tuple(parameter for parameter in parameters.values() if parameter.name),
            node={**node, "servers": node.get("servers") or shared.get("servers")},
        )

    def _read_parameter(self, node: Mapping[str, Any]) -> Parameter:
        place = as_text(node.get("in"))
        style = as_text(node.get("style")) or ("form" if place in ("query", "cookie") else "simple")
        contents = list(as_map(node.get("content")).values())
        schema = as_map(contents[0]).get("schema") if contents else node.get("schema")
        example = {key: node[key] for key in ("example",) if key in node}
        return Parameter(
            name=as_text(node.get("name")),
            place=place,
            required=node.get("required") is True or place == "path",
            description=as_text(node.get("description")),
            schema={**example, **as_map(schema)},
            style=style,
            explode=bool(node.get("explode", style == "form")),
            content=bool(contents),
        )


def read_definition(file: Path) -> Definition:
    """Read a definition in JSON or YAML.

    Raises:
        SettingsError: The file cannot be read, or is not an OpenAPI 3 definition.
    """
    try:
        content = file.read_bytes()
    except OSError as error:
        raise SettingsError(f"{file} cannot be read: {error.strerror}.") from None
    if len(content) > MAX_BYTES:
        raise SettingsError(f"{file} is larger than {MAX_BYTES // 1024 // 1024} MiB.")
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise SettingsError(f"{file} is not UTF-8 text.") from None
    root = _parse(file, text)
    if not isinstance(root, dict) or not isinstance(root.get("openapi"), str):
        hint = "convert Swagger 2.0 to OpenAPI 3 first" if isinstance(root, dict) and "swagger" in root else ""
        raise SettingsError(f"{file} is not an OpenAPI 3 definition: {hint or 'it has no text `openapi`'}.")
    if not re.match(r"3\.[01](\.|$)", root["openapi"]):
        raise SettingsError(f"{file} is OpenAPI {root['openapi'][:20]}: only 3.0 and 3.1 are supported.")
    return Definition(root, file.name)


def _parse(file: Path, text: str) -> Any:
    try:
        return json.loads(text)
    except RecursionError:
        raise SettingsError(f"{file} is nested too deep.") from None
    except ValueError as error:
        if text.lstrip().startswith("{"):
            raise SettingsError(f"{file} is not JSON: {error}.") from None
    return _parse_yaml(file, text)


def _parse_yaml(file: Path, text: str) -> Any:
    """Return the data of YAML in which dates are text and only `true` and `false` are booleans, as in JSON."""
    import yaml

    base: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

    class Loader(base):  # type: ignore[misc]  # the C loader is there only if libyaml is
        """Reads text, numbers and null like YAML 1.2."""

    Loader.yaml_implicit_resolvers = {
        first: [(tag, pattern) for tag, pattern in resolvers if not tag.endswith((":timestamp", ":bool", ":merge"))]
        for first, resolvers in base.yaml_implicit_resolvers.items()
    }
    Loader.add_implicit_resolver("tag:yaml.org,2002:bool", re.compile(r"(?:true|false)\Z"), list("tf"))
    try:
        # An alias can expand to gigabytes, and no generator of definitions writes one.
        if any(isinstance(event, yaml.AliasEvent) for event in yaml.parse(text, Loader=base)):
            raise SettingsError(f"{file} has YAML aliases (*name): write the values out, or convert it to JSON.")
        return _with_text_keys(yaml.load(text, Loader=Loader))  # noqa: S506  (a safe loader)
    except yaml.YAMLError as error:
        raise SettingsError(f"{file} is neither JSON nor YAML: {str(error).splitlines()[0]}.") from None
    except RecursionError:
        raise SettingsError(f"{file} is nested too deep.") from None


def _with_text_keys(value: Any) -> Any:
    """Return the data with text as keys: YAML reads the status 200 as a number."""
    if isinstance(value, dict):
        return {str(key): _with_text_keys(child) for key, child in value.items()}
    return [_with_text_keys(child) for child in value] if isinstance(value, list) else value


def as_map(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def as_list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def as_text(value: Any) -> str:
    return value if isinstance(value, str) else ""
