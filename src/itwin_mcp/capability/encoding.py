"""Encoding of compiled objects as JSON, and decoding, for the cache of linked catalogs.

The encoding follows from the classes, so a new field or dataclass needs no change here. It is data only: decoding
creates instances of the classes in MODULES, but calls nothing else.

    {"classes": [["expressions.JsonPath", ["text", "parts", "query"]], …],
     "objects": [[0, "$.a", [1, "a"], null], …],
     "root": …}

`classes` are the classes with their fields. Each element of `objects` is the index of its class and the values of the
fields. A value that is a JSON array is a tag and its content: `[1, …]` is a tuple, and `[0, 7]` is the object 7. An
object only refers to earlier ones. A value that is a JSON object is plain data.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields, is_dataclass
from enum import Enum
from importlib import import_module
from typing import Any

from itwin_mcp.capability.expressions import ABSENT, JsonPath, compile_path

MODULES = {
    name: f"itwin_mcp.{'' if name == 'errors' else 'capability.'}{name}"
    for name in ("catalog", "entities", "entity_declarations", "errors", "expressions", "operations", "tool_actions")
}
"""The modules whose classes can be encoded, by their names in the encoding."""

_REFERENCE, _TUPLE, _LIST, _FROZENSET, _MAPPING, _ABSENT, _PATTERN, _ENUM, _QUERY = range(9)
"""The tags: the index of an object; the elements of a sequence; keys and values in turn; nothing; the text and flags of
a regular expression; the class and name of a constant; and the text of a JSONPath that a library evaluates."""

_SCALARS = (str, int, float, bool, type(None))


class DecodingError(ValueError):
    """The data is not an encoding of objects by this version of the package."""


def _list_fields(cls: Any) -> tuple[str, ...]:
    """Return the names of the fields of a dataclass or of a pydantic model."""
    return tuple(item.name for item in fields(cls)) if is_dataclass(cls) else tuple(cls.model_fields)


# --- encoding ---------------------------------------------------------------------------------------------------


def encode(root: Any) -> str:
    """Return the JSON text of a value and everything that it refers to.

    Raises:
        TypeError: A value has a type that cannot be encoded.
    """
    encoder = _Encoder()
    data = {"root": encoder.encode(root), "classes": list(encoder.classes.values()), "objects": encoder.objects}
    return json.dumps(data, ensure_ascii=False, allow_nan=False, separators=(",", ":"))


class _Encoder:
    def __init__(self) -> None:
        self.classes: dict[type, tuple[str, tuple[str, ...]]] = {}
        self.objects: list[list[Any]] = []
        self._indexes: dict[int, int] = {}
        """The index of each encoded object, by its `id`."""
        self._equal: dict[str, int] = {}
        """The index of each object that is compared by value, by its encoding, so that equal ones are shared."""
        self._alive: list[Any] = []
        """Keeps encoded objects alive, because an `id` may be used again afterwards."""

    def encode(self, value: Any) -> Any:
        kind = type(value)
        if kind in _SCALARS or (kind is dict and _is_json(value)):
            return value
        if kind in (tuple, list):
            return [_TUPLE if kind is tuple else _LIST, *map(self.encode, value)]
        if kind is frozenset:
            return [_FROZENSET, *map(self.encode, sorted(value))]  # sorted: equal catalogs have equal encodings
        if kind is dict:
            return [_MAPPING, *(self.encode(part) for item in value.items() for part in item)]
        if value is ABSENT:
            return [_ABSENT]
        if kind is re.Pattern:
            return [_PATTERN, value.pattern, value.flags]
        if isinstance(value, Enum):
            return [_ENUM, self._name(kind), value.name]
        if isinstance(value, JsonPath) and value.query is not None:
            return [_QUERY, value.text]
        return [_REFERENCE, self._encode_object(value)]

    def _encode_object(self, value: Any) -> int:
        if id(value) in self._indexes:
            return self._indexes[id(value)]
        kind = type(value)
        name = self._name(kind)
        names = _list_fields(kind)
        values = [self.encode(getattr(value, field)) for field in names]
        self.classes.setdefault(kind, (name, names))
        row = [list(self.classes).index(kind), *values]
        index = len(self.objects)
        if "__eq__" in kind.__dict__:
            index = self._equal.setdefault(json.dumps(row), index)
        if index == len(self.objects):
            self.objects.append(row)
        self._indexes[id(value)] = index
        self._alive.append(value)
        return index

    def _name(self, cls: type) -> str:
        module = cls.__module__.rpartition(".")[2]
        if MODULES.get(module) != cls.__module__:
            raise TypeError(f"{cls.__module__}.{cls.__qualname__} cannot be encoded")
        return f"{module}.{cls.__qualname__}"


def _is_json(value: Any) -> bool:
    """Return whether a value consists of JSON data only, so that it can be stored as it is."""
    if type(value) is dict:
        return all(type(key) is str and _is_json(child) for key, child in value.items())
    return all(map(_is_json, value)) if type(value) is list else type(value) in _SCALARS


# --- decoding ---------------------------------------------------------------------------------------------------


def decode(text: str | bytes) -> Any:
    """Return the value that `encode` encoded.

    Raises:
        DecodingError: The text is not such an encoding.
    """
    try:
        data = json.loads(text)
        return _Decoder(data["classes"], data["objects"]).decode(data["root"])
    except DecodingError:
        raise
    except (ValueError, TypeError, LookupError, AttributeError, RecursionError, re.error) as error:
        raise DecodingError(f"{type(error).__name__}: {error}") from error


class _Decoder:
    def __init__(self, classes: Sequence[tuple[str, Sequence[str]]], rows: Sequence[list[Any]]) -> None:
        self._objects: list[Any] = []
        builders = [_make_builder(_find_class(name), tuple(names)) for name, names in classes]
        decode = self.decode
        for row in rows:
            values = [value if value.__class__ is not list else decode(value) for value in row]
            self._objects.append(builders[values[0]](values))

    def decode(self, value: Any) -> Any:
        if value.__class__ is not list:
            return value
        tag = value[0]
        if tag == _REFERENCE:
            return self._objects[value[1]]
        if tag > _MAPPING:
            return _decode_rare(tag, *value[1:])
        decode = self.decode
        parts = [part if part.__class__ is not list else decode(part) for part in value]
        del parts[0]
        if tag == _TUPLE:
            return tuple(parts)
        if tag == _LIST:
            return parts
        if tag == _FROZENSET:
            return frozenset(parts)
        return dict(zip(parts[::2], parts[1::2], strict=True))


def _decode_rare(tag: int, *content: Any) -> Any:
    if tag == _ABSENT:
        return ABSENT
    if tag == _PATTERN:
        return re.compile(*content)
    if tag == _QUERY:
        return compile_path(*content)
    if tag == _ENUM:
        name, constant = content
        return _find_class(name)[constant]
    raise DecodingError(f"there is no tag {tag}")


def _find_class(name: str) -> Any:
    """Return a class of MODULES that is a dataclass, a pydantic model or an enumeration."""
    module, _, qualified = name.partition(".")
    cls = getattr(import_module(MODULES[module]), qualified)
    if not isinstance(cls, type) or not (is_dataclass(cls) or hasattr(cls, "model_fields") or issubclass(cls, Enum)):
        raise DecodingError(f"{name} is not a class of data")
    return cls


def _make_builder(cls: Any, names: tuple[str, ...]) -> Callable[[list[Any]], Any]:
    """Return a function that builds an instance from a row: the index of the class, and the values of the fields.

    It does not call `__init__`, which sets the fields of a frozen dataclass slowly. Computed fields are stored too.
    """
    label = cls.__qualname__
    if names != _list_fields(cls):
        raise DecodingError(f"{label} has other fields")
    width = len(names) + 1
    new = cls.__new__
    if not is_dataclass(cls):
        return lambda row: _construct_model(cls, dict(zip(("", *names), row, strict=True)))
    if "__slots__" not in cls.__dict__:

        def build_plain(row: list[Any]) -> Any:
            instance = new(cls)
            instance.__dict__.update(zip(names, row[1:], strict=True))
            return instance

        return build_plain
    setters = [cls.__dict__[name].__set__ for name in names]

    def build_slotted(row: list[Any]) -> Any:
        if len(row) != width:
            raise DecodingError(f"{label} has {width - 1} fields")
        instance = new(cls)
        del row[0]
        for setter, value in zip(setters, row, strict=True):
            setter(instance, value)
        return instance

    return build_slotted


def _construct_model(cls: Any, values: Mapping[str, Any]) -> Any:
    """Build a pydantic model without validating it: it was validated when the file was loaded."""
    aliases = {name: field.alias or name for name, field in cls.model_fields.items()}
    return cls.model_construct(**{aliases[name]: value for name, value in values.items() if name})
