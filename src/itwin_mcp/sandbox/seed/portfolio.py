"""The seeded portfolio as plain tables: users, iTwins, iModels and their history."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from itwin_mcp.sandbox import access
from itwin_mcp.sandbox.identity import clients

# Role -> permissions. The account defines the roles for all of its iTwins.
ROLES: Final[Mapping[str, tuple[str, ...]]] = {
    "Account Member": (),
    "Project Lead": (*access.IMODEL_PERMISSIONS, access.DELETE, access.ITWINS_MODIFY, access.ITWINS_CREATE),
    "Engineer": (access.WEBVIEW, access.READ, access.WRITE),
    "Viewer": (access.WEBVIEW,),
    "Integration": access.IMODEL_PERMISSIONS,
}
# key, given name, surname, e-mail, account, is an administrator, client id
USERS: Final = (
    ("anna", "Anna", "de Vries", "anna.devries@meridian-infra.example", "meridian", True, None),
    ("tomasz", "Tomasz", "Nowak", "tomasz.nowak@meridian-infra.example", "meridian", False, None),
    ("priya", "Priya", "Raman", "priya.raman@meridian-infra.example", "meridian", False, None),
    (
        "sync",
        "Design",
        "Sync",
        "service-meridian-design-sync@apps.imsoidc.bentley.com",
        "meridian",
        False,
        "service-meridian-design-sync",
    ),
    ("marit", "Marit", "Jansen", "marit.jansen@meridian-infra.example", "meridian", True, None),
    ("luca", "Luca", "Ferri", "luca.ferri@nordhaven.example", "nordhaven", True, None),
)
APPLICATIONS: Final = (
    (clients.DEFAULT_CLIENT, "native", "iTwin Sandbox"),
    ("native-openroads-designer", "native", "OpenRoads Designer"),
    ("native-openbridge-modeler", "native", "OpenBridge Modeler"),
    ("native-openplant-modeler", "native", "OpenPlant Modeler"),
    ("service-meridian-design-sync", "service", "Meridian Design Sync"),
)
_OPEN_ROADS, _OPEN_BRIDGE, _OPEN_PLANT = (name for name, _, _ in APPLICATIONS[1:4])
_WEST, _NORTH, _UK = "West Europe", "North Europe", "UK South"
_AMSTERDAM, _LONDON = "Europe/Amsterdam", "Europe/London"
# key, name, data centre, age in days
ACCOUNTS: Final = (
    ("meridian", "Meridian Infrastructure Group", _WEST, 900),
    ("nordhaven", "Nordhaven Engineering AS", _NORTH, 860),
)
# key, parent, subClass, type, number, name, place, latitude, longitude, time zone, data centre, status, age in days
ITWINS: Final = (
    ("corridor", "meridian", "Portfolio", "Transport Network", "MER-PF-001", "Low Countries Corridor",
     "Utrecht, Netherlands", 52.0907, 5.1214, _AMSTERDAM, _WEST, "Active", 820),
    ("a12", "corridor", "Asset", "Motorway", "NL-A12", "A12 Motorway Utrecht - Arnhem",
     "Veenendaal, Netherlands", 52.0286, 5.5589, _AMSTERDAM, _WEST, "Active", 790),
    ("bridge", "corridor", "Asset", "Bridge", "NL-MAAS-B07", "Maas Crossing Bridge",
     "Grave, Netherlands", 51.7593, 5.7385, _AMSTERDAM, _WEST, "Active", 760),
    ("harbour", "meridian", "Asset", "Water Treatment Works", "UK-HWTW", "Harbour Water Treatment Works",
     "Kingston upon Hull, United Kingdom", 53.7443, -0.3325, _LONDON, _UK, "Active", 610),
    ("renewal", "corridor", "Program", "Capital Program", "MER-PG-2026", "Corridor Renewal 2026-2030",
     "Utrecht, Netherlands", 52.0907, 5.1214, _AMSTERDAM, _WEST, "Active", 540),
    ("interchange", "a12", "Project", "Reconstruction", "NL-A12-0042", "A12 Interchange Reconstruction",
     "Bunnik, Netherlands", 52.0631, 5.1986, _AMSTERDAM, _WEST, "Active", 420),
    ("deck", "bridge", "Project", "Renewal", "NL-MAAS-0017", "Maas Crossing Deck Renewal",
     "Grave, Netherlands", 51.7593, 5.7385, _AMSTERDAM, _WEST, "Active", 380),
    ("expansion", "harbour", "Project", "Expansion", "UK-HWTW-0008", "Harbour WTW Expansion Phase 2",
     "Kingston upon Hull, United Kingdom", 53.7446, -0.3311, _LONDON, _UK, "Active", 300),
    ("noise", "renewal", "Project", "Feasibility Study", "NL-A12-0051", "A12 Noise Barrier Study",
     "Driebergen, Netherlands", 52.0534, 5.2808, _AMSTERDAM, _WEST, "Trial", 45),
    ("ramp", "a12", "Project", "Maintenance", "NL-A12-0029", "A12 Ramp Resurfacing 2024",
     "Maarn, Netherlands", 52.0636, 5.3706, _AMSTERDAM, _WEST, "Inactive", 760),
    ("drainage", "interchange", "WorkPackage", "Civil Works", "NL-A12-0042-WP03", "WP-03 Drainage and Earthworks",
     "Bunnik, Netherlands", 52.0628, 5.1991, _AMSTERDAM, _WEST, "Active", 260),
    ("viaduct", "interchange", "WorkPackage", "Structures", "NL-A12-0042-WP05", "WP-05 Viaduct and Retaining Walls",
     "Bunnik, Netherlands", 52.0640, 5.1969, _AMSTERDAM, _WEST, "Active", 240),
    ("tunnel", "nordhaven", "Project", "Tunnel", "NO-FJT-0003", "Fjord Tunnel Rehabilitation",
     "Bergen, Norway", 60.3913, 5.3221, "Europe/Oslo", _NORTH, "Active", 350),
)  # fmt: skip
# iTwin -> user -> role. An owner has all permissions.
OWNER: Final = "owner"
MEMBERS: Final[Mapping[str, Mapping[str, str]]] = {
    "corridor": {"anna": OWNER, "tomasz": "Viewer"},
    "a12": {"anna": OWNER, "tomasz": "Engineer"},
    "bridge": {"anna": OWNER, "tomasz": "Engineer"},
    "harbour": {"anna": OWNER},
    "renewal": {"anna": OWNER},
    "interchange": {"anna": OWNER, "tomasz": "Project Lead", "priya": "Viewer", "sync": "Integration"},
    "deck": {"anna": OWNER, "tomasz": "Engineer", "priya": "Viewer", "sync": "Integration"},
    "expansion": {"anna": OWNER, "sync": "Integration"},
    "noise": {"anna": OWNER},
    "ramp": {"anna": OWNER, "tomasz": "Engineer"},
    "drainage": {"anna": OWNER, "tomasz": "Engineer", "priya": "Viewer"},
    "viaduct": {"anna": OWNER, "tomasz": "Engineer"},
    "tunnel": {"luca": OWNER},
}


@dataclass(frozen=True, slots=True)
class Model:
    """A seeded iModel.

    `age` is in days. `pushes` has the author and description of each changeset. `versions` maps the index of a
    changeset to the name and description of its named version.
    """

    key: str
    itwin: str
    name: str
    description: str | None
    age: int
    creator: str
    application: str
    extent: tuple[float, float, float, float] | None
    pushes: tuple[tuple[str, str | None], ...]
    versions: Mapping[int, tuple[str, str | None]]
    legacy: bool = False  # its elements have no federation GUIDs, so it cannot be forked


MODELS: Final = (
    Model(
        "roads", "interchange", "A12 Interchange - Roads", "Alignments, corridors and signage of the new interchange.",
        400, "tomasz", _OPEN_ROADS, (52.0562, 5.1875, 52.0701, 5.2097),
        (("tomasz", "Import of schemas"), ("tomasz", "Survey control and existing terrain"),
         ("tomasz", "Horizontal alignment, option B"), ("tomasz", "Vertical profile of the main carriageway"),
         ("sync", "Nightly synchronization"), ("tomasz", "Slip road north-east"), ("sync", "Nightly synchronization"),
         ("anna", "Review comments of the 60% gate"), ("tomasz", "Noise barrier foundations"),
         ("tomasz", "Superelevation corrected at km 63.4"), ("sync", "Nightly synchronization"),
         ("tomasz", "Pavement layers and kerbs")),
        {3: ("30% Design", "Preferred option chosen"), 8: ("60% Design", "Issued for review"),
         12: ("Tender Draft", None)},
    ),
    Model(
        "structures", "interchange", "A12 Interchange - Structures", "Viaduct, abutments and retaining walls.", 330,
        "tomasz", _OPEN_BRIDGE, (52.0612, 5.1921, 52.0659, 5.2013),
        (("tomasz", "Grid and abutments"), ("tomasz", "Piers P1 to P4"), ("anna", "Deck box girder"),
         ("tomasz", "Bearings and expansion joints"), ("sync", "Nightly synchronization"),
         ("tomasz", "Retaining wall RW-2 raised by 0.4 m"), ("tomasz", None)),
        {4: ("60% Design", "Structural freeze"), 6: ("Clash Review 2026-09", "Input for the coordination meeting")},
    ),
    Model(
        "bridge", "deck", "Maas Crossing - Deck Renewal", "Orthotropic deck replacement, phased under traffic.", 310,
        "anna", _OPEN_BRIDGE, (51.7561, 5.7342, 51.7624, 5.7428),
        (("anna", "Baseline geometry from drawings"), ("tomasz", "Deck panels, phase 1"),
         ("tomasz", "Deck panels, phase 2"), ("sync", "Nightly synchronization"),
         ("tomasz", "Temporary supports"), ("tomasz", "Utilities diverted"),
         ("anna", "Phasing review"), ("sync", "Nightly synchronization"), ("tomasz", "Parapets")),
        {3: ("Concept", None), 7: ("Phasing Approved", "Approved by the river authority")},
    ),
    Model(
        "survey", "deck", "Maas Crossing - Existing Condition", "Laser scan of 2023 as modelled by the previous owner.",
        375, "anna", _OPEN_BRIDGE, None,
        (("anna", "Steelwork as surveyed"), ("anna", "Corrosion findings"), ("anna", "Bearings as surveyed")),
        {0: ("As received", "Handed over by the previous owner"), 3: ("Condition 2025", None)}, legacy=True,
    ),
    Model(
        "plant", "expansion", "Harbour WTW - Process Plant", "Filters, dosing and pipework of phase 2.", 280, "anna",
        _OPEN_PLANT, (53.7431, -0.3342, 53.7462, -0.3289),
        (("anna", "Equipment from the P&ID"), ("sync", "Nightly synchronization"), ("anna", "Filter gallery pipework"),
         ("anna", "Pipe supports"), ("sync", "Nightly synchronization"), ("anna", "HAZOP actions 1 to 14")),
        {4: ("HAZOP Issue", "Frozen for the HAZOP study")},
    ),
    Model("drains", "drainage", "WP-03 Drainage", None, 120, "tomasz", _OPEN_ROADS,
        (52.0598, 5.1932, 52.0655, 5.2051), (), {}),
    Model(
        "tunnel", "tunnel", "Fjord Tunnel - Lining", "Owned by another organization.", 330, "luca", _OPEN_ROADS,
        (60.3861, 5.3102, 60.3972, 5.3388),
        (("luca", "Lining segments"), ("luca", "Ventilation")), {2: ("Issue A", None)},
    ),
)  # fmt: skip
# iModel -> changeset index -> state of the checkpoint, if it is not `successful`. None means never generated.
CHECKPOINTS: Final[Mapping[str, Mapping[int, str | None]]] = {"survey": {3: "failed"}, "bridge": {3: None}}
# iModel -> changeset groups: creator, description, indexes of the changesets
GROUPS: Final[Mapping[str, tuple[tuple[str, str, tuple[int, ...]], ...]]] = {
    "roads": (("sync", "Design Sync, run 118", (5, 7)), ("sync", "Design Sync, run 131", (11,))),
}
# iModel -> changeset index -> extended data
EXTENDED_DATA: Final[Mapping[str, Mapping[int, object]]] = {
    "roads": {5: {"run": 118, "warnings": 2}, 11: {"run": 131, "warnings": 0}},
}
# iModel -> user -> level -> ids of the locked objects
LOCKS: Final[Mapping[str, Mapping[str, Mapping[str, tuple[str, ...]]]]] = {
    "roads": {
        "tomasz": {"exclusive": ("0x2000000001a", "0x20000000021"), "shared": ("0x1", "0x10")},
        "anna": {"shared": ("0x1",)},
    },
    "structures": {"tomasz": {"exclusive": ("0x20000000007",), "shared": ("0x1",)}},
}
# iTwin, key, class, subClass, name, uri, authentication, options
REPOSITORIES: Final = (
    ("interchange", "cadastre", "GeographicInformationSystem", "WebMapService", "Cadastral Parcels",
     "https://maps.meridian-infra.example/cadastre/wms", None, None),
    ("interchange", "basemap", "GeographicInformationSystem", "UrlTemplate", "Grey Base Map",
     "https://tiles.meridian-infra.example/grey/{z}/{x}/{y}.png",
     {"type": "Header", "key": "X-Api-Key", "value": "sandbox-only"},
     {"queryParameters": {"apiVersion": "1.5.1"}, "minimumLevel": 6, "maximumLevel": 19}),
)  # fmt: skip
# iTwin, key of a registered repository or class of a generated one, id, class, subClass, type, name, properties
RESOURCES: Final[tuple[tuple[Any, ...], ...]] = (
    ("interchange", "cadastre", "parcels", "GeographicInformationSystem", "WebMapService", None, "Parcels", {}),
    ("interchange", "cadastre", "easements", "GeographicInformationSystem", "WebMapService", None, "Easements", {}),
    ("interchange", "RealityData", "9f0c1d52-5e3a-4b55-8a4e-7c2b6f1d9a10", "RealityData", None, "Cesium3DTiles",
     "Drone survey 2026-05", {"classification": "Model", "rootDocument": "tileset.json"}),
    ("interchange", "GeospatialFeatures", "noise-contours", "GeospatialFeatures", None, "Collection", "Noise contours",
     {"itemType": "feature"}),
    ("interchange", "Forms", "site-inspections", "Forms", None, None, "Site inspections", {}),
    ("deck", "RealityData", "3b8e5f0a-0c4d-4a97-b0f5-52d3e7a1c6d4", "RealityData", None, "PointCloud",
     "Laser scan 2023", {"classification": "Terrain", "rootDocument": "ept.json"}),
)  # fmt: skip
RECENT_ITWINS: Final = {
    "anna": ("harbour", "a12", "expansion", "deck", "interchange"),
    "tomasz": ("deck", "interchange"),
}
FAVORITE_ITWINS: Final = {"anna": ("interchange", "corridor"), "tomasz": ("interchange",)}
RECENT_IMODELS: Final = {"anna": ("plant", "bridge", "roads"), "tomasz": ("structures", "roads")}
FAVORITE_IMODELS: Final = {"anna": ("roads",), "tomasz": ("structures", "roads")}
