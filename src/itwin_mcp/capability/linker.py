"""Across files: imports resolve, names are unique, and what is exposed becomes one catalog, whole or not at all."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path as FilePath
from typing import Any

from itwin_mcp.capability import model
from itwin_mcp.capability.actions import ActionLinker, Scope, called_operations
from itwin_mcp.capability.catalog import Catalog, Prompt, Resource, StaticResource, Tool
from itwin_mcp.capability.consumed import ConsumedApi
from itwin_mcp.capability.continuing import lists_behind
from itwin_mcp.capability.loader import Document, load
from itwin_mcp.capability.parameters import argument
from itwin_mcp.capability.place import Place
from itwin_mcp.capability.plans import Operation
from itwin_mcp.capability.suggestions import there_is
from itwin_mcp.capability.surface import PlacedFlow, Surface, Taken
from itwin_mcp.errors import CapabilityError, Problem


def link_files(files: Iterable[FilePath], *, cache: FilePath | None = None) -> Catalog:
    """Load, check and link capability files into one catalog.

    Nothing is returned unless everything holds. Raises CapabilityError with every problem found; files that passed
    are kept in `cache` for the next start.
    """
    linker = _Linker(cache)
    for file in files:
        linker.add(file)
    catalog = linker.catalog()
    for document in linker.documents.values():
        document.keep()
    return catalog


def checked_files(files: Iterable[FilePath]) -> tuple[FilePath, ...]:
    """The files and every file that they import, in the order of reading. Raises CapabilityError.

    Unlike `link_files` it takes files of one section too: they are checked for themselves.
    """
    linker = _Linker(None)
    for file in files:
        linker.add(file, sections=True)
    linker.catalog()
    return tuple(linker.documents)


class _Linker:
    def __init__(self, cache: FilePath | None) -> None:
        self.documents: dict[FilePath, Document] = {}
        self._cache = cache
        self._added: set[FilePath] = set()
        self._broken: set[FilePath] = set()
        self._problems: list[Problem] = []
        self._warnings: list[Problem] = []
        self._namespaces: dict[str, FilePath] = {}
        """Whose operations a consumed namespace holds: errors and policies name them `namespace.operation`."""
        self._operations: dict[str, Operation] = {}
        self._linked: dict[Any, Mapping[str, Operation]] = {}
        """What an entry consumes under given binds: a file that many import is linked once."""
        self._taken = Taken()
        self._tools: dict[str, Tool] = {}
        self._resources: list[Resource] = []
        self._prompts: dict[str, Prompt] = {}
        self._statics: list[StaticResource] = []

    def add(self, file: FilePath, *, sections: bool = False) -> None:
        """Link one file; the same file a second time is nothing new."""
        document = self._load(file)
        if document is None or document.file in self._added:
            return
        self._added.add(document.file)
        capability = document.model.capability
        place = Place(document, (), self._problems)
        if capability is None:
            if sections:
                self._section(document, place)
            else:
                message = "has no `capability`: a file of one section is only imported by others"
                place.report("capability", message)
            return
        binds = self._binds(document, place)
        operations = self._consumed(document, binds, place.at("capability", "consumes"))
        actions = ActionLinker(operations)
        flows = self._flows(capability, place.at("capability", "aggregates"))
        namespaces: set[str] = set()
        for index, exposes in enumerate(capability.exposes):
            here = place.at("capability", "exposes", index)
            if isinstance(exposes, model.Import):
                here.report("import", "an exposition is written in its own file, not imported")
                continue
            if exposes.namespace in namespaces or exposes.namespace in operations:
                message = f"the namespace {exposes.namespace!r} stands twice in this file: rename one"
                here.at("namespace").report("unique-namespace", message)
            namespaces.add(exposes.namespace)
            surface = Surface(exposes, actions, flows, here)
            self._tools.update((tool.name, tool) for tool in surface.tools(self._taken))
            self._resources.extend(surface.resources(self._taken))
            self._statics.extend(surface.statics(self._taken))
            self._prompts.update((prompt.name, prompt) for prompt in surface.prompts(self._taken))
            self._warnings.extend(surface.warnings)
        self._check_unused(capability, flows, actions)

    def catalog(self) -> Catalog:
        """Everything linked. Raises CapabilityError if anything is wrong."""
        self._check_followers()
        if self._problems:
            raise CapabilityError(list(dict.fromkeys(self._problems)))
        every = self._tools.values()
        tools = {tool.name: replace(tool, lists=lists_behind(tool, every)) for tool in every}
        return Catalog(
            tools,
            tuple(self._resources),
            self._prompts,
            self._operations,
            tuple(self._statics),
            warnings=tuple(self._warnings),
        )

    # --- files --------------------------------------------------------------------------------------------------

    def _load(self, file: FilePath) -> Document | None:
        with suppress(OSError, ValueError, RuntimeError):  # a null character, or links that go round: not readable
            file = file.resolve()
        if file in self._broken:
            return None
        if file not in self.documents:
            try:
                self.documents[file] = load(file, cache=self._cache)
            except CapabilityError as error:
                self._broken.add(file)
                self._problems.extend(error.problems)
                return None
        return self.documents[file]

    def _section(self, document: Document, place: Place) -> None:
        binds = self._binds(document, place) or None  # whoever imports it may bind the rest
        for index, consumes in enumerate(document.model.consumes):
            if isinstance(consumes, model.Consumes):
                ConsumedApi(consumes, binds, place.at("consumes", index)).operations()
        for section, entries in _sections(document.model):
            for index, entry in enumerate(entries):
                if isinstance(entry, model.Import):
                    _refuse_nested_import(place.at(section, index))

    # --- sections -----------------------------------------------------------------------------------------------

    def _consumed(
        self, document: Document, binds: Mapping[str, str], place: Place
    ) -> dict[str, Mapping[str, Operation] | None]:
        """The operations that a file may call; None for a namespace whose import failed."""
        capability = document.model.capability
        found: dict[str, Mapping[str, Operation] | None] = {}
        for index, consumes in enumerate(capability.consumes if capability is not None else ()):
            here = place.at(index)
            if isinstance(consumes, model.Import):
                namespace = consumes.as_ or consumes.import_
                operations = self._imported(document, consumes, binds, here)
            else:
                namespace = consumes.namespace
                operations = self._api(consumes, binds, here)
            if namespace in found:
                here.report("unique-namespace", f"the namespace {namespace!r} stands twice in this file: rename one")
            found[namespace] = operations
        return found

    def _imported(
        self, document: Document, entry: model.Import, binds: Mapping[str, str], place: Place
    ) -> Mapping[str, Operation] | None:
        path = document.file.parent / entry.from_
        try:
            is_there = path.is_file()
        except (OSError, ValueError):
            is_there = False
        if not is_there:
            message = f"there is no file {entry.from_!r} beside this one: the path is relative to the importing file"
            place.at("from").report("import", message)
            return None
        source = self._load(path)
        if source is None:
            return None
        if source.model.capability is not None:
            message = f"{entry.from_!r} is a whole capability: only a file of one section is imported"
            place.at("from").report("import", message)
            return None
        root = Place(source, (), self._problems)
        offered = {
            consumes.namespace: (index, consumes)
            for index, consumes in enumerate(source.model.consumes)
            if isinstance(consumes, model.Consumes)
        }
        for index, consumes in enumerate(source.model.consumes):
            if isinstance(consumes, model.Import):
                _refuse_nested_import(root.at("consumes", index))
        if entry.import_ not in offered:
            message = f"{entry.from_!r} consumes no namespace {entry.import_!r}: {there_is(offered, entry.import_)}"
            place.at("import").report("import", message)
            return None
        index, consumes = offered[entry.import_]
        return self._api(consumes, {**binds, **self._binds(source, root)}, root.at("consumes", index))

    def _api(self, consumes: model.Consumes, binds: Mapping[str, str], place: Place) -> Mapping[str, Operation]:
        owner = self._namespaces.setdefault(consumes.namespace, place.document.file)
        if owner != place.document.file:
            message = f"the namespace {consumes.namespace!r} is consumed in {owner} already: rename one, or import it"
            place.at("namespace").report("unique-namespace", message)
        key = (place.document.file, consumes.namespace, frozenset(binds.items()))
        if key not in self._linked:
            self._linked[key] = ConsumedApi(consumes, binds, place).operations()
            self._operations.update((operation.key, operation) for operation in self._linked[key].values())
        return self._linked[key]

    def _flows(self, capability: model.Capability, place: Place) -> dict[str, PlacedFlow]:
        """The flows of a file, by `namespace.flow`."""
        found: dict[str, PlacedFlow] = {}
        namespaces: set[str] = set()
        for index, aggregate in enumerate(capability.aggregates):
            here = place.at(index)
            if isinstance(aggregate, model.Import):
                here.report("import", "flows are written in the file that uses them, not imported")
                continue
            if aggregate.namespace in namespaces:
                message = f"the namespace {aggregate.namespace!r} stands twice in this file: rename one"
                here.at("namespace").report("unique-namespace", message)
            namespaces.add(aggregate.namespace)
            for name, flow in aggregate.flows.items():
                found[f"{aggregate.namespace}.{name}"] = PlacedFlow(flow, aggregate.namespace, here.at("flows", name))
        return found

    def _binds(self, document: Document, place: Place) -> dict[str, str]:
        """Variable in the file -> variable of the process environment."""
        capability = document.model.capability
        variables: dict[str, str] = {}
        for here, section in (
            (place.at("binds"), document.model.binds),
            (place.at("capability", "binds"), capability.binds if capability is not None else []),
        ):
            for index, bind in enumerate(section):
                if isinstance(bind, model.Import):
                    here.at(index).report("import", "binds are written in the file itself, not imported")
                    continue
                for name, variable in bind.keys.items():
                    if variables.setdefault(name, variable) != variable:
                        message = f"the variable {name!r} is bound twice: rename one"
                        here.at(index, "keys", name).report("unique-namespace", message)
        return variables

    # --- what only the whole shows ------------------------------------------------------------------------------

    def _check_unused(
        self, capability: model.Capability, flows: Mapping[str, PlacedFlow], actions: ActionLinker
    ) -> None:
        """A flow that no tool refers to is checked all the same, for itself."""
        referred = {
            tool.ref
            for exposes in capability.exposes
            if isinstance(exposes, model.Exposes)
            for tool in exposes.tools.values()
            if tool.ref is not None
        }
        for name, placed in flows.items():
            if name not in referred:
                inputs = {
                    key: argument(key, one, placed.place.at("inputParameters", key)).required
                    for key, one in placed.flow.inputParameters.items()
                }
                actions.link(placed.flow, Scope(placed.namespace, inputs), placed.place)
                if referred <= flows.keys():  # else a reference to it may be misspelt
                    message = f"no tool refers to the flow {name!r}: add `ref: {name}` to one, or remove the flow"
                    placed.place.report("unused-flow", message)

    def _check_followers(self) -> None:
        """The tool that an answer sends the agent to, to look at a job later, exists."""
        if self._broken:  # it may stand in a file that could not be read
            return
        for tool in self._tools.values():
            for operation in called_operations(tool.action):
                check = operation.wait.check if operation.wait is not None else None
                if check is not None and check not in self._taken.tools:
                    message = f"{operation.key!r} says `check: {check}`, but no tool is called so"
                    suggestion = there_is(self._taken.tools, check)
                    self._taken.tools[tool.name].report("x-wait", f"{message}: {suggestion}")


def _sections(file: model.CapabilityFile) -> Sequence[tuple[str, Sequence[Any]]]:
    return (
        ("consumes", file.consumes),
        ("aggregates", file.aggregates),
        ("exposes", file.exposes),
        ("binds", file.binds),
    )


def _refuse_nested_import(place: Place) -> None:
    place.report("import", "a file of one section imports nothing itself: import it where it is used")
