"""Selection of toolsets and tools from a catalog."""

import pytest

from itwin_mcp.capability.catalog import Catalog
from itwin_mcp.capability.documents import find_shipped_files
from itwin_mcp.errors import SettingsError
from tests.capability.files import SECTION, TOOL, Folder, edit

WRITES = """\
      delete-part:
        description: "Delete a part."
        x-toolset: writing
        inputParameters: {partId: {type: string, description: "Part."}}
        call: parts-api.delete-part
        with: {id: parts.partId}
        outputParameters: [{type: object, properties: {name: {type: string, mapping: "$.name"}}}]
    resources:
      part:
"""


@pytest.fixture
def catalog(folder: Folder) -> Catalog:
    folder.write(SECTION, "bolts.yaml")
    return folder.link(edit(("    resources:\n      part:\n", WRITES)), TOOL)


ALL = ["list-parts", "get-part", "find-part", "delete-part", "list-bolts"]


@pytest.mark.parametrize(
    ("options", "served"),
    [
        ({}, ALL),
        ({"toolsets": ["all"]}, ALL),
        ({"toolsets": ["parts"]}, ALL[:3]),
        ({"toolsets": ["bolts", "writing"]}, ["delete-part", "list-bolts"]),
        ({"tools": ["get-part"]}, ["get-part"]),
        ({"toolsets": ["bolts"], "tools": ["get-part"]}, ["get-part", "list-bolts"]),
        ({"exclude": ["get-part", "list-bolts"]}, ["list-parts", "find-part", "delete-part"]),
        ({"tools": ["get-part"], "exclude": ["get-part"]}, []),
        ({"read_only": True}, ["list-parts", "get-part", "find-part", "list-bolts"]),
        ({"toolsets": ["writing"], "read_only": True}, []),
    ],
)
def test_select_returns_tools_in_the_order_of_the_files(
    catalog: Catalog, options: dict[str, list[str]], served: list[str]
) -> None:
    assert list(catalog.select(**options).tools) == served  # type: ignore[arg-type]
    assert list(catalog.tools) == ALL  # the original catalog is unchanged


def test_select_filters_resources_and_prompts_by_toolset(catalog: Catalog) -> None:
    for toolsets, count in ([], 1), (["parts"], 1), (["bolts"], 0):
        selected = catalog.select(toolsets=toolsets)
        assert (len(selected.resources), len(selected.prompts)) == (count, count)
    assert catalog.select(read_only=True).resources


def test_toolsets_returns_the_order_of_the_files(catalog: Catalog) -> None:
    assert catalog.toolsets == ("parts", "writing", "bolts")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"toolsets": ["nuts"]}, "There is no toolset 'nuts': there are: all, bolts, parts, writing."),
        ({"tools": ["get-bolt"]}, "There is no tool 'get-bolt': did you mean 'list-bolts'?"),
        ({"exclude": ["Get-Part"]}, "There is no tool 'Get-Part': did you mean 'get-part'?"),
    ],
)
def test_select_suggests_names_for_an_unknown_name(
    catalog: Catalog, options: dict[str, list[str]], message: str
) -> None:
    with pytest.raises(SettingsError) as caught:
        catalog.select(**options)  # type: ignore[arg-type]
    assert str(caught.value).startswith(message)


def test_find_shipped_files_returns_whole_capabilities_in_order() -> None:
    files = find_shipped_files()
    assert files == tuple(sorted(files))
    assert all(file.suffix == ".yaml" and file.parent.name == "capabilities" for file in files)
