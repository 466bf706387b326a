"""The Dockerfile, compose.yaml and hosting guide match the code. No image is built, which needs a container engine."""

import os
import re
import shlex
import shutil
import subprocess
import tomllib
from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import pytest
import yaml

from itwin_mcp.capability.documents import find_shipped_files
from itwin_mcp.capability.linker import link_files
from itwin_mcp.cli.serve import command as serve
from itwin_mcp.hosted_server import check_exposure
from itwin_mcp.hosting.caller_limits import SESSION_IDLE_SECONDS
from itwin_mcp.hosting.health import HealthRoutes, Readiness
from itwin_mcp.hosting.metrics import Metrics
from itwin_mcp.server import built_in_tools, dynamic_tools
from itwin_mcp.settings import ENVIRONMENT, HOSTED_SETTINGS, read_settings
from tests.hosting.replicas import haproxy, proxy_rules

ROOT = Path(__file__).parents[2]
SCALE = {"ms": 0.001, "s": 1, "m": 60}
ADDRESSES = {
    "ITWIN_MCP_AUTH_ISSUER": "https://login.example.com",
    "ITWIN_MCP_AUTH_AUDIENCE": "https://mcp.example.com/mcp",
    "ITWIN_MCP_ALLOWED_HOSTS": "mcp.example.com",
    "ITWIN_CLIENT_ID": "service-agents",
}


def read_dockerfile() -> Iterator[tuple[str, str]]:
    """Yield each instruction's name and arguments, with continued lines joined."""
    text = re.sub(r"^\s*#.*\n", "", (ROOT / "deploy/Dockerfile").read_text(), flags=re.MULTILINE)
    for line in re.sub(r"\\\n", " ", text).splitlines():
        if line.strip():
            word, _, arguments = line.strip().partition(" ")
            yield word, arguments.strip()


def last_instruction(word: str) -> str:
    return [arguments for name, arguments in read_dockerfile() if name == word][-1]


def read_compose() -> dict[str, Any]:
    return dict(yaml.safe_load((ROOT / "deploy/compose.yaml").read_text()))


def read_replicas() -> dict[str, Any]:
    return {name: service for name, service in read_compose()["services"].items() if name != "proxy"}


def list_copied_files() -> list[str]:
    """Return the project's files that are copied into the image."""
    lines = [
        shlex.split(arguments) for word, arguments in read_dockerfile() if word == "COPY" and "--from=" not in arguments
    ]
    return [source for line in lines for source in line[:-1]]


def parse_seconds(text: str) -> float:
    match = re.fullmatch(r"(\d+)(ms|s|m)", text)
    assert match is not None, text
    return int(match[1]) * SCALE[match[2]]


def find_rule(pattern: str) -> str:
    match = re.search(pattern, proxy_rules(), re.MULTILINE)
    assert match is not None, pattern
    return match[1]


# --- the image --------------------------------------------------------------------------------------------------


def test_image_copies_only_existing_files() -> None:
    ignored = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if line and not line.startswith("#")]
    assert ignored[0] == "*", "everything is ignored except the listed files"
    assert sorted(line[1:] for line in ignored if line.startswith("!")) == sorted(list_copied_files())
    for source in list_copied_files():
        assert (ROOT / source).exists(), source
        assert not any(fnmatch(source, line) for line in ignored[1:] if not line.startswith("!"))
    assert "ADD" not in [word for word, _ in read_dockerfile()]


def test_image_runs_without_root_and_has_certificates() -> None:
    stages = "\n".join(f"{word} {arguments}" for word, arguments in read_dockerfile()).split("FROM ")
    final = stages[-1]
    assert re.search(r"^USER [1-9]\d+:[1-9]\d+$", final, re.MULTILINE)
    assert final.index("USER ") < final.index("ENTRYPOINT ")
    assert "ca-certificates" in final.partition("USER ")[0]
    for base in stages[1:]:
        assert re.match(r"python:3\.\d+-slim-\w+( AS build)?\n", base), (
            "the image names the versions of Python and Debian"
        )
    build = next(arguments for word, arguments in read_dockerfile() if word == "RUN" and "uv sync" in arguments)
    assert "--locked" in build and "--no-dev" in build
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert set(re.findall(r"--extra (\S+)", build)) <= set(extras)
    retried_tools = re.findall(r"(ITWIN_MCP_\w+)=", last_instruction("ENV"))
    assert retried_tools and set(retried_tools) <= set(ENVIRONMENT)


@pytest.mark.anyio
async def test_image_command_exists_and_its_probe_answers() -> None:
    entry, flags = yaml.safe_load(last_instruction("ENTRYPOINT")), yaml.safe_load(last_instruction("CMD"))
    assert entry == ["itwin-mcp"] and flags[0] == "serve"
    options = {flag for parameter in serve.params for flag in parameter.opts}
    assert {flag for flag in flags if flag.startswith("--")} <= options
    address = flags[flags.index("--http") + 1]
    host, _, port = address.rpartition(":")
    assert (host, last_instruction("EXPOSE")) == ("0.0.0.0", port)
    probe = re.search(r"http://127\.0\.0\.1:(\d+)(/\w+)", last_instruction("HEALTHCHECK"))
    assert probe is not None and probe[1] == port
    assert {probe[2], find_rule(r"http-check send meth GET uri (\S+)")} == {"/readyz"}
    messages: list[Any] = []

    async def fail(*_: Any) -> None:
        raise AssertionError("the probe did not answer")

    async def send(message: Any) -> None:
        messages.append(message)

    await HealthRoutes(fail, Readiness(0))({"type": "http", "path": probe[2]}, fail, send)
    assert messages[0]["status"] == 200


@pytest.mark.slow
def test_build_stage_builds_a_server_from_the_lock_file(tmp_path: Path) -> None:
    uv = shutil.which("uv") or pytest.skip("uv is not installed")
    for source in list_copied_files():
        copy = shutil.copytree if (ROOT / source).is_dir() else shutil.copy
        copy(ROOT / source, tmp_path / source)
    build = next(arguments for word, arguments in read_dockerfile() if word == "RUN" and "uv sync" in arguments)
    assert shlex.split(build)[0] == "uv"
    environment = os.environ | {"UV_PROJECT_ENVIRONMENT": str(tmp_path / "made"), "UV_PYTHON_DOWNLOADS": "never"}
    command = [uv, *shlex.split(build)[1:]]
    completed = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300)
    assert completed.returncode == 0, completed.stderr
    for source in list_copied_files():
        path = tmp_path / source
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    program = str(tmp_path / "made" / "bin" / "itwin-mcp")
    listing = subprocess.run([program, "tools"], capture_output=True, text=True, timeout=60, cwd=tmp_path)
    assert listing.returncode == 0 and "list-itwins" in listing.stdout, listing.stderr


# --- the guide --------------------------------------------------------------------------------------------------


def test_hosting_guide_names_every_hosted_setting_and_metric() -> None:
    guide = (ROOT / "docs/hosting.md").read_text()
    assert [row.variable for row in HOSTED_SETTINGS.values() if f"`{row.variable}`" not in guide] == []
    metrics = {
        f"{metric.name}_total" if metric.type == "counter" else metric.name for metric in Metrics().registry.collect()
    }
    assert set(re.findall(r"`(itwin_mcp_\w+)`", guide)) == metrics


# --- two replicas behind a proxy --------------------------------------------------------------------------------


def test_compose_replicas_are_equal_and_fully_configured(tmp_path: Path) -> None:
    first, *others = read_replicas().values()
    assert others == [first]
    environment = {
        name: re.sub(r"\$\{(\w+):[?-](\w*).*\}", _substitute, value) for name, value in first["environment"].items()
    }
    assert set(environment) <= set(ENVIRONMENT)
    assert environment["ITWIN_MCP_REPLICAS"] == str(len(read_replicas()))
    secret = tmp_path / "secret"
    secret.write_text("a secret that is longer than 32 bytes")
    for name in [name for name in environment if name.endswith("_SECRET_FILE")]:
        assert environment[name].removeprefix("/run/secrets/") in first["secrets"]
        environment[name] = str(secret)
    assert environment["ITWIN_MCP_POLICY"] in [config["target"] for config in first["configs"]]
    settings = read_settings(
        {**environment, "ITWIN_MCP_STATE_DIR": str(tmp_path), "ITWIN_MCP_CACHE_DIR": str(tmp_path)}
    )
    check_exposure(settings, "0.0.0.0")
    assert settings.hosted is not None
    ending = settings.hosted.notice_seconds + settings.hosted.drain_seconds
    assert parse_seconds(first["stop_grace_period"]) > ending
    assert parse_seconds(find_rule(r"timeout server (\w+)")) > settings.deadline
    notice_seconds = parse_seconds(find_rule(r"check inter (\w+)")) + parse_seconds(
        find_rule(r"fastinter (\w+)")
    ) * int(find_rule(r"fall (\d+)"))
    assert notice_seconds < settings.hosted.notice_seconds, "the proxy notices before the replica closes"
    assert settings.hosted.proxies, "the proxy must not be limited like a single client"
    assert int(find_rule(r"rise 1 maxconn (\d+)")) < settings.hosted.max_connections


def _substitute(match: re.Match[str]) -> str:
    return ADDRESSES.get(match[1]) or match[2]


def test_replicas_are_built_from_the_project_with_the_dockerfile() -> None:
    for replica in read_replicas().values():
        context = (ROOT / "deploy" / replica["build"]["context"]).resolve()
        assert context == ROOT.resolve()
        assert (context / replica["build"]["dockerfile"]).samefile(ROOT / "deploy/Dockerfile")


def test_compose_replica_has_least_privileges() -> None:
    for replica in read_replicas().values():
        assert replica["read_only"] is True
        assert replica["cap_drop"] == ["ALL"]
        assert replica["security_opt"] == ["no-new-privileges:true"]
        assert "ports" not in replica and "privileged" not in replica, "only the proxy is reachable from outside"
        assert not any("SECRET" in name and not name.endswith("_FILE") for name in replica["environment"])


def test_proxy_names_the_replicas_and_keeps_sessions() -> None:
    proxy = read_compose()["services"]["proxy"]
    container_port = yaml.safe_load(last_instruction("CMD"))[-1].rpartition(":")[2]
    servers = {name: value for name, value in proxy["environment"].items() if name.startswith("MCP_REPLICA_")}
    assert sorted(servers.values()) == sorted(f"{name}:{container_port}" for name in read_replicas())
    assert {f'"${{{name}}}"' for name in servers} == set(
        re.findall(r"^\s*server \w+ (\S+)", proxy_rules(), re.MULTILINE)
    )
    assert parse_seconds(find_rule(r"stick-table .* expire (\w+)")) > SESSION_IDLE_SECONDS
    assert "*" not in str(proxy["ports"]) and all(str(port).startswith("127.0.0.1:") for port in proxy["ports"])


def test_proxy_never_retries_writes() -> None:
    retried_prefixes = tuple(find_rule(r"acl reading_tool req\.hdr\(mcp-name\) -m beg (.+)$").split())
    tools = {
        **link_files(find_shipped_files()).tools,
        **{tool.name: tool for tool in (*built_in_tools.TOOLS, *dynamic_tools.TOOLS)},
    }
    retried_tools = [tool for tool in tools.values() if tool.name.startswith(retried_prefixes)]
    assert [tool.name for tool in retried_tools if not tool.annotations.read_only] == []
    assert len(retried_tools) > 50
    acl_lines = re.findall(r"acl reads req\.hdr\(mcp-method\) -m str (.+)$", proxy_rules(), re.MULTILINE)
    writing = {"tools/call", "subscriptions/listen", "initialize"}
    assert not writing & {method for line in acl_lines for method in line.split()}
    assert "http-request disable-l7-retry unless modern reads or modern calls reading_tool" in proxy_rules()


@pytest.mark.slow
def test_haproxy_accepts_the_configuration(tmp_path: Path) -> None:
    rules = tmp_path / "haproxy.cfg"
    rules.write_text(proxy_rules())
    addresses = {"MCP_BIND": "127.0.0.1:1", "MCP_REPLICA_A": "127.0.0.1:2", "MCP_REPLICA_B": "127.0.0.1:3"}
    completed = subprocess.run(
        [haproxy(), "-c", "-f", str(rules)], env=addresses, capture_output=True, text=True, timeout=30
    )
    assert completed.returncode == 0, completed.stderr
    assert "WARNING" not in completed.stderr


def test_compose_services_limit_memory_and_processes() -> None:
    for name, service in read_compose()["services"].items():
        assert {"mem_limit", "memswap_limit", "pids_limit"} <= service.keys(), name
