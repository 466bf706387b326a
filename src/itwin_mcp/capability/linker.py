"""Linking of capability files: resolve imports, check that names are unique, and build one catalog."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from itwin_mcp.capability import schema
from itwin_mcp.capability.action_compiler import ActionCompiler
from itwin_mcp.capability.bound_values import locate_values
from itwin_mcp.capability.cache import digest_input, digest_text
from itwin_mcp.capability.catalog import Catalog, Prompt, Resource, StaticResource, Tool
from itwin_mcp.capability.documents import Document, Place, find_shipped_files, load_document
from itwin_mcp.capability.entities import Entity
from itwin_mcp.capability.entity_linker import PLATFORM_ENTITIES, DeclaredEntity, check_entities, link_entities
from itwin_mcp.capability.expressions import Argument, StepValue
from itwin_mcp.capability.inbound_compiler import MCP_PATH, REST_PATH, InboundCredential, compile_inbound
from itwin_mcp.capability.not_served import warn_of_unserved
from itwin_mcp.capability.operation_compiler import ApiCompiler
from itwin_mcp.capability.operations import Operation
from itwin_mcp.capability.parameters import compile_argument
from itwin_mcp.capability.references import Scope
from itwin_mcp.capability.rest_compiler import RestCompiler
from itwin_mcp.capability.rest_schema import ExposesRest
from itwin_mcp.capability.routes import Route
from itwin_mcp.capability.skill_compiler import DeclaredSkill, Source, compile_skills
from itwin_mcp.capability.skill_schema import ExposesSkill
from itwin_mcp.capability.static_resources import find_static_files
from itwin_mcp.capability.tool_actions import RESULT, Call, CallStep, LookupStep, Steps, list_called_operations
from itwin_mcp.capability.tool_compiler import ExposesCompiler, PlacedFlow, TakenNames
from itwin_mcp.errors import CapabilityError, Problem
from itwin_mcp.settings import PLATFORM_ORIGIN


def link_files(files: Iterable[Path], *, cache: Path | None = None) -> Catalog:
    """Load, check and link capability files into one catalog, and save their parses to the `cache` folder.

    Raises:
        CapabilityError: A file breaks rules. The error lists every problem.
    """
    return link_with_inputs(files, cache=cache)[0]


def link_with_inputs(files: Iterable[Path], *, cache: Path | None = None) -> tuple[Catalog, Mapping[Path, str]]:
    """Link files like `link_files`. Also return every file and folder that was read, with its digest."""
    linker = _Linker(cache)
    for file in files:
        linker.add(file)
    catalog = linker.build_catalog()
    linker.save_to_cache()
    return catalog, linker.digest_inputs()


def check_files(files: Iterable[Path]) -> tuple[Path, ...]:
    """Check files, and return them and the files that they import, in the order of reading.

    Unlike `link_files`, this accepts files of one section.

    Raises:
        CapabilityError: A file breaks rules. The error lists every problem.
    """
    linker = _Linker(None)
    for file in files:
        linker.add(file, sections=True)
    linker.build_catalog()
    return tuple(linker.documents)


@dataclass(frozen=True, slots=True)
class Examination:
    """Everything that linking found. The catalog is None if there are problems."""

    catalog: Catalog | None
    problems: tuple[Problem, ...]
    warnings: tuple[Problem, ...]
    documents: Mapping[Path, Document]


def examine_files(files: Iterable[Path], load: Callable[..., Document]) -> Examination:
    """Link files like `link_files`, and return the problems instead of raising them.

    `load` reads a file like `load_document`.
    """
    linker = _Linker(None, load)
    for file in files:
        linker.add(file)
    catalog: Catalog | None = None
    problems: tuple[Problem, ...] = ()
    try:
        catalog = linker.build_catalog()
    except CapabilityError as error:
        problems = error.problems
    return Examination(catalog, problems, tuple(linker.warnings), linker.documents)


class _Linker:
    def __init__(self, cache: Path | None, load: Callable[..., Document] = load_document) -> None:
        self._load_file = load
        self.documents: dict[Path, Document] = {}
        self._cache = cache
        self._entities: dict[str, Entity] = {}
        self._declared: list[DeclaredEntity] = []
        self._with_entities: set[Path] = set()
        """The files whose entities are linked."""
        self._added: set[Path] = set()
        """The files that were passed to `add`; others are only imported."""
        self._broken: set[Path] = set()
        """The files that cannot be read or break the schema. Their problems are reported already."""
        self._problems: list[Problem] = []
        self.warnings: list[Problem] = []
        self._begun: set[Path] = set()
        """The files whose unserved parts were reported."""
        self._namespaces: dict[str, Path] = {}
        """The file that consumes each namespace. Namespaces must be unique, as in `namespace.operation` of policies."""
        self._operations: dict[str, Operation] = {}
        self._linked: dict[Any, Mapping[str, Operation]] = {}
        """The operations of each `consumes` entry, by file, namespace and binds: a shared import is compiled once."""
        self._taken = TakenNames()
        self._tools: dict[str, Tool] = {}
        self._resources: list[Resource] = []
        self._prompts: dict[str, Prompt] = {}
        self._statics: list[StaticResource] = []
        self._static_files: list[Path] = []
        """The files in the folders of static resources."""
        self._routes: list[Route] = []
        self._rest_namespaces: dict[str, Path] = {}
        self._inbound: list[InboundCredential] = []
        self._skills: dict[str, DeclaredSkill] = {}
        self._read_platform_entities()

    def add(self, file: Path, *, sections: bool = False) -> None:
        """Link one file, unless it was added before. With `sections`, it may be a file of one section."""
        document = self._load(file)
        if document is None or document.file in self._added or document.file == self._platform_entities.file:
            return
        self._added.add(document.file)
        capability = document.model.capability
        place = self._begin(document)
        if capability is None:
            if sections:
                self._check_section(document, place)
            else:
                place.report("capability", "has no `capability`: a file of one section can only be imported")
            return
        binds = self._read_binds(document, place)
        operations = self._read_consumed(document, capability, binds, place.at("capability", "consumes"))
        consumed = [operation for imported in operations.values() for operation in (imported or {}).values()]
        self._link_entities(document, place, {operation.origin for operation in consumed})
        servers = {entry.namespace: entry for entry in capability.consumes if isinstance(entry, schema.ConsumesMcp)}
        actions = ActionCompiler(operations, servers)
        flows = self._read_flows(capability, place.at("capability", "aggregates"))
        namespaces = set(operations)
        sources: dict[str, Mapping[str, Source]] = {}
        skills: list[tuple[ExposesSkill, Place]] = []
        for index, exposes in enumerate(capability.exposes):
            here = place.at("capability", "exposes", index)
            if isinstance(exposes, schema.Import):
                here.report("import", "cannot be imported: write `exposes` in this file")
                continue
            if isinstance(exposes, schema.UnservedExposes):
                continue
            if exposes.namespace in namespaces:
                message = f"the namespace {exposes.namespace!r} is used twice in this file: rename one"
                here.at("namespace").report("unique-namespace", message)
            namespaces.add(exposes.namespace)
            if exposes.authentication is not None:
                # Skills are resources of MCP, so what protects them protects its path.
                path = f"{REST_PATH}{exposes.namespace}" if isinstance(exposes, ExposesRest) else MCP_PATH
                where = here.at("authentication")
                self._inbound.append(compile_inbound(exposes.authentication, path, binds, where))
            if isinstance(exposes, ExposesRest | ExposesSkill):
                self._warn_of_own_address(exposes, here)
            if isinstance(exposes, ExposesRest):
                sources[exposes.namespace] = self._add_rest(exposes, actions, flows, here)
                continue
            if isinstance(exposes, ExposesSkill):
                skills.append((exposes, here))
                continue
            compiler = ExposesCompiler(exposes, actions, flows, self._entities, here)
            tools = {tool.name: tool for tool in compiler.compile_tools(self._taken)}
            self._tools.update(tools)
            sources[exposes.namespace] = tools
            self._resources.extend(compiler.compile_resources(self._taken))
            self._statics.extend(compiler.compile_static_resources(self._taken))
            locations = (resource.location for resource in exposes.resources.values() if resource.location is not None)
            self._static_files.extend(
                file for location in locations for file in find_static_files(location, document.file)
            )
            self._prompts.update((prompt.name, prompt) for prompt in compiler.compile_prompts(self._taken))
            self.warnings.extend(compiler.warnings)
        for entry, here in skills:
            self._add_skills(entry, sources, here)
        self._check_unused_flows(capability, flows, actions)

    def _warn_of_own_address(self, exposes: ExposesRest | ExposesSkill, place: Place) -> None:
        """Warn that one listener serves everything, whatever address and port a file declares."""
        for key in ("address", "port"):
            if key in exposes.model_fields_set and place.document.is_fresh:
                message = f"{key!r} is not used: `serve --http HOST:PORT` serves everything on one listener"
                self.warnings.append(place.document.make_problem((*place.path, key), "not-served", message))

    def _add_rest(
        self, exposes: ExposesRest, actions: ActionCompiler, flows: Mapping[str, PlacedFlow], place: Place
    ) -> Mapping[str, Route]:
        owner = self._rest_namespaces.setdefault(exposes.namespace, place.document.file)
        if owner != place.document.file:
            message = f"the namespace {exposes.namespace!r} is already served over REST by {owner}: rename one"
            place.at("namespace").report("unique-namespace", message)
        compiler = RestCompiler(exposes, actions, flows, self._entities, place)
        routes = tuple(compiler.compile_routes())
        self._routes.extend(routes)
        self.warnings.extend(compiler.warnings)
        return {route.name: route for route in routes}

    def _add_skills(self, exposes: ExposesSkill, sources: Mapping[str, Mapping[str, Source]], place: Place) -> None:
        for skill in compile_skills(exposes, sources, place):
            if skill.name in self._skills:
                message = f"the skill {skill.name!r} is already defined in {self._skills[skill.name].file}: rename one"
                place.at("skills", skill.name).report("unique-skill", message)
            self._skills[skill.name] = skill

    def build_catalog(self) -> Catalog:
        """Return everything that was linked.

        Raises:
            CapabilityError: A file breaks rules. The error lists every problem.
        """
        self._check_tool_references()
        self._check_entities()
        if self._problems:
            raise CapabilityError(list(dict.fromkeys(self._problems)))
        listers: dict[str, Tool] = {}
        for tool in self._tools.values():
            if isinstance(tool.action, Call):
                listers.setdefault(tool.action.operation.key, tool)
        tools = {name: replace(tool, lists=find_full_lists(tool, listers)) for name, tool in self._tools.items()}
        return Catalog(
            tools,
            tuple(self._resources),
            self._prompts,
            self._operations,
            self._entities,
            tuple(self._statics),
            warnings=tuple(self.warnings),
            routes=tuple(self._routes),
            inbound=tuple(self._inbound),
            declared_skills=tuple(self._skills.values()),
        )

    def save_to_cache(self) -> None:
        """Write every fresh parse to the cache."""
        for document in (self._platform_entities, *self.documents.values()):
            document.save_to_cache()

    def digest_inputs(self) -> dict[Path, str]:
        """Return every file and folder that was read, with its digest."""
        documents = (self._platform_entities, *self.documents.values())
        folders = {file.parent for file in self._static_files}
        # The digest of a document is that of the text that was linked. The file may have changed since.
        return {document.file: digest_text(document.text) for document in documents} | {
            path: digest_input(path) for path in (*self._static_files, *folders)
        }

    # --- files --------------------------------------------------------------------------------------------------

    def _load(self, file: Path) -> Document | None:
        # A path with a null character or a loop of links cannot be resolved. Reading it then reports the problem.
        with suppress(OSError, ValueError, RuntimeError):
            file = file.resolve()
        if file not in self.documents and file not in self._broken:
            try:
                self.documents[file] = self._load_file(file, cache=self._cache)
            except CapabilityError as error:
                self._broken.add(file)
                self._problems.extend(error.problems)
        return self.documents.get(file)

    def _begin(self, document: Document) -> Place:
        """Return the root of a file. The first time, report what is not served."""
        place = Place(document, (), self._problems, self.warnings)
        if document.file not in self._begun:
            self._begun.add(document.file)
            warn_of_unserved(document.model, place)
        return place

    def _check_section(self, document: Document, place: Place) -> None:
        binds = self._read_binds(document, place) or None  # the importing file may bind the rest
        for index, consumes in enumerate(document.model.consumes):
            if isinstance(consumes, schema.Consumes):
                ApiCompiler(consumes, binds, place.at("consumes", index)).compile_operations()
        for section in ("consumes", "aggregates", "exposes", "binds"):
            _report_imports(getattr(document.model, section), place.at(section))

    # --- sections -----------------------------------------------------------------------------------------------

    def _read_consumed(
        self, document: Document, capability: schema.Capability, binds: Mapping[str, str], place: Place
    ) -> dict[str, Mapping[str, Operation] | None]:
        """Return the operations that a file may call, by namespace; None for a namespace whose import failed."""
        by_namespace: dict[str, Mapping[str, Operation] | None] = {}
        for index, consumes in enumerate(capability.consumes):
            here = place.at(index)
            operations: Mapping[str, Operation] | None
            if isinstance(consumes, schema.ConsumesMcp):
                namespace, operations = consumes.namespace, None
            elif isinstance(consumes, schema.Import):
                namespace = consumes.as_ or consumes.import_
                operations = self._import_operations(document, consumes, binds, here)
            else:
                namespace = consumes.namespace
                operations = self._compile_api(consumes, binds, here)
            if namespace in by_namespace:
                here.report("unique-namespace", f"the namespace {namespace!r} is used twice in this file: rename one")
            by_namespace[namespace] = operations
        return by_namespace

    def _import_operations(
        self, document: Document, entry: schema.Import, binds: Mapping[str, str], place: Place
    ) -> Mapping[str, Operation] | None:
        """Return the operations of an imported namespace. If the import fails, report it and return None."""
        path = document.file.parent / entry.from_
        if not os.path.isfile(path):  # noqa: PTH113  (Path.is_file() raises an error if the name is too long)
            message = f"there is no file {entry.from_!r}: the path must be relative to the importing file"
            place.at("from").report("import", message)
            return None
        source = self._load(path)
        if source is None:
            return None
        if source.model.capability is not None:
            message = f"{entry.from_!r} is a whole capability: only a file of one section can be imported"
            place.at("from").report("import", message)
            return None
        root = self._begin(source)
        offered = {
            consumes.namespace: (index, consumes)
            for index, consumes in enumerate(source.model.consumes)
            if isinstance(consumes, schema.Consumes)
        }
        _report_imports(source.model.consumes, root.at("consumes"))
        missing = f"{entry.from_!r} does not consume the namespace"
        if not place.at("import").check_known(entry.import_, offered, "import", missing):
            return None
        index, consumes = offered[entry.import_]
        operations = self._compile_api(
            consumes, {**binds, **self._read_binds(source, root)}, root.at("consumes", index)
        )
        self._link_entities(source, root, {operation.origin for operation in operations.values()})
        return operations

    def _compile_api(
        self, consumes: schema.Consumes, binds: Mapping[str, str], place: Place
    ) -> Mapping[str, Operation]:
        owner = self._namespaces.setdefault(consumes.namespace, place.document.file)
        if owner != place.document.file:
            message = f"the namespace {consumes.namespace!r} is already consumed in {owner}: rename one, or import it"
            place.at("namespace").report("unique-namespace", message)
        key = (place.document.file, consumes.namespace, frozenset(binds.items()))
        if key not in self._linked:
            self._linked[key] = ApiCompiler(consumes, binds, place).compile_operations()
            self._operations.update((operation.key, operation) for operation in self._linked[key].values())
        return self._linked[key]

    def _read_platform_entities(self) -> None:
        """Link the entities of the platform, before any other file can declare one.

        Raises:
            CapabilityError: The file, which is part of the installation, is damaged.
        """
        file = (find_shipped_files()[0].parent / PLATFORM_ENTITIES).resolve()
        self._platform_entities = document = load_document(file, cache=self._cache)
        self._link_entities(document, Place(document, (), self._problems, self.warnings), {PLATFORM_ORIGIN})

    def _link_entities(self, document: Document, place: Place, origins: Collection[str]) -> None:
        """Link the entities of a file once. `origins` are the origins of the APIs that it consumes."""
        if document.file in self._with_entities:
            return
        self._with_entities.add(document.file)
        here = place.at("x-entities")
        entities = link_entities(document.model.entities, self._entities, origins, here)
        self._entities |= entities
        for kind in entities:
            self._declared.append(DeclaredEntity(document.model.entities[kind], here.at(kind)))

    def _read_flows(self, capability: schema.Capability, place: Place) -> dict[str, PlacedFlow]:
        """Return the flows of a file, by `namespace.flow`."""
        flows: dict[str, PlacedFlow] = {}
        namespaces: set[str] = set()
        for index, aggregate in enumerate(capability.aggregates):
            here = place.at(index)
            if isinstance(aggregate, schema.Import):
                here.report("import", "cannot be imported: write flows in the file that uses them")
                continue
            if aggregate.namespace in namespaces:
                message = f"the namespace {aggregate.namespace!r} is used twice in this file: rename one"
                here.at("namespace").report("unique-namespace", message)
            namespaces.add(aggregate.namespace)
            for name, flow in aggregate.flows.items():
                flows[f"{aggregate.namespace}.{name}"] = PlacedFlow(flow, aggregate.namespace, here.at("flows", name))
        return flows

    def _read_binds(self, document: Document, place: Place) -> dict[str, str]:
        """Return what each variable of the file is bound to: an environment variable, or a key in a file."""
        capability = document.model.capability
        variables: dict[str, str] = {}
        for here, section in (
            (place.at("binds"), document.model.binds),
            (place.at("capability", "binds"), capability.binds if capability is not None else []),
        ):
            for index, bind in enumerate(section):
                if isinstance(bind, schema.Import):
                    here.at(index).report("import", "cannot be imported: write binds in this file")
                    continue
                before = "" if bind.location is None else locate_values(bind.location, here.at(index, "location"))
                if before is None:
                    continue
                for name, key in bind.keys.items():
                    variable = before + key
                    if variables.setdefault(name, variable) != variable:
                        here.at(index, "keys", name).report(
                            "unique-namespace", f"the variable {name!r} is bound twice: rename one"
                        )
        return variables

    # --- references between tools -------------------------------------------------------------------------------

    def _check_unused_flows(
        self, capability: schema.Capability, flows: Mapping[str, PlacedFlow], actions: ActionCompiler
    ) -> None:
        """Warn of the flows that no tool refers to, and compile them to report their problems too."""
        referred = {
            tool.ref for exposes in capability.exposes for tool in _list_exposed(exposes) if tool.ref is not None
        }
        for name, placed in flows.items():
            if name not in referred and actions.find_unserved(placed.flow) is None:
                inputs = {
                    key: compile_argument(
                        key, parameter, self._entities, placed.place.at("inputParameters", key)
                    ).required
                    for key, parameter in placed.flow.inputParameters.items()
                }
                actions.compile(placed.flow, Scope(placed.namespace, inputs), placed.place)
                if referred <= flows.keys():  # otherwise a misspelled reference may mean this flow
                    message = f"no tool refers to the flow {name!r}: add `ref: {name}` to one, or remove the flow"
                    placed.place.warn("unused-flow", message)

    def _check_entities(self) -> None:
        """Check the operations and tools that entities refer to."""
        if self._broken:  # the operation or tool may be in a file that could not be read
            return
        declared = self._declared
        # The entities of the platform refer to our own tools, which are linked only with all of our files.
        if not self._added.issuperset(file.resolve() for file in find_shipped_files()):
            platform = self._platform_entities
            declared = [entity for entity in declared if entity.place.document is not platform]
        check_entities(declared, self._operations, self._tools)

    def _check_tool_references(self) -> None:
        """Check that the tools exist that `check` of x-wait and `alike` of x-confirm name."""
        if self._broken:  # the tool may be in a file that could not be read
            return
        places = self._taken.tools
        for tool in self._tools.values():
            for operation in list_called_operations(tool.action):
                if operation.wait is not None and operation.wait.check is not None:
                    missing = f"`check` of {operation.key!r} names a tool that does not exist,"
                    places[tool.name].check_known(operation.wait.check, places, "x-wait", missing)
            for name in tool.confirm.alike if tool.confirm is not None else ():
                place = places[tool.name].at("x-confirm", "alike")
                place.check_known(name, self._tools, "x-confirm", "there is no tool")


def _list_exposed(exposes: schema.ExposesOrImport) -> Iterable[Any]:
    """Return the tools, or the operations, of an entry."""
    if isinstance(exposes, schema.Exposes):
        return exposes.tools.values()
    if isinstance(exposes, ExposesRest):
        return [operation for resource in exposes.resources.values() for operation in resource.operations.values()]
    return ()


def _report_imports(entries: Sequence[Any], place: Place) -> None:
    """Report the imports in a section of a file that other files import."""
    for index, entry in enumerate(entries):
        if isinstance(entry, schema.Import):
            place.at(index).report("import", "a file of one section must not import: import where it is used")


def find_full_lists(tool: Tool, listers: Mapping[str, Tool]) -> Mapping[str, str]:
    """Return the outputs of a flow that are parts of paged lists, each with the tool that lists everything.

    `listers` are the tools that only call one operation, by the key of the operation. Outputs are paths such as
    `$.a.b`. A tool is followed by the arguments that it needs: `list-locks (with iModelId)`.
    """
    action = tool.action
    if not isinstance(action, Steps):
        return {}
    steps = {step.name: step for step in action.steps}
    full_lists: dict[str, str] = {}
    for mapping in action.mappings:
        step = steps.get(mapping.value.step) if isinstance(mapping.value, StepValue) else None
        while isinstance(step, LookupStep):
            step = steps.get(step.index)
        if isinstance(step, CallStep) and step.operation.page is not None and step.operation.key in listers:
            target = (RESULT, *mapping.target) if action.output.wraps else mapping.target
            full_lists["$." + ".".join(target)] = _describe_lister(listers[step.operation.key], step)
    return full_lists


def _describe_lister(lister: Tool, step: CallStep) -> str:
    assert isinstance(lister.action, Call)
    bindings = {key: value.name for key, value in lister.action.bindings.items() if isinstance(value, Argument)}
    names = [name for key, name in bindings.items() if key in step.bindings]
    return f"{lister.name} (with {', '.join(names)})" if names else lister.name
