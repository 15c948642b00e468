"""The rules of the house, read from the source with `ast` alone. Each test lists every offender."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

PACKAGE = Path(__file__).parents[1] / "ductile"

# From the ground up: a package may import those before it. Modules at the top level have no order of their own, but no
# circle may lead through them either.
PACKAGES = ("config", "plugin", "queue", "pipeline", "routing", "state", "workspace", "scheduler", "dispatch",
            "webhook",
            "ctl")

# Functions of values: these import none of WORLDLY and each other alone.
PURE = set("""
    config.handshakes config.misnamed config.model config.presets config.read config.schedules config.signing
    config.values config.variables config.webhooks ctl.markup ctl.monitor.render ctl.monitor.state ctl.monitor.tree
    ctl.protocol_report ctl.report_charts ctl.report_facts ctl.report_page ctl.report_style ctl.table ctl.text_width
    ctl.times dispatch.conclude dispatch.followups dispatch.outcome dispatch.result_record errors injected log_line
    pipeline.compiler pipeline.graph pipeline.spec pipeline.templates plugin.manifest protocol queue.job queue.retry
    routing.baggage routing.portable_paths routing.router scheduler.breaker scheduler.schedule scheduler.silence
    state.merge strictjson text units validation webhook.handshake webhook.http_head webhook.places webhook.request
    webhook.signature workspace.artifact yamlfault yamlfile
""".split())
WORLDLY = {"os", "sqlite3", "subprocess", "socket", "threading", "signal", "logging", "time", "random", "queue"}

# Who alone names a table in SQL. A module of tables takes a connection, and its caller commits.
OWNERS = {
    "artifacts": "workspace.artifact_table",
    "circuit_breakers": "scheduler.schedule_table",
    "config_loads": "config.load_table",
    "daemon_run": "daemon_run_table",
    "event_context": "routing.context_table",
    "job_log": "queue.attempt_table",
    "job_queue": "queue.job_table",
    "pipeline_versions": "pipeline.version_table",
    "paused_plugins": "plugin.plugin_table",
    "plugin_inits": "plugin.plugin_table",
    "plugin_loads": "plugin.plugin_table",
    "plugin_state": "state.state_table",
    "schedule_entries": "scheduler.schedule_table",
}
# Who reads the tables of all rooms, and writes none.
READS_ALL = {"ctl.queries"}

# Who may load a module while it runs: ductilectl the one command that was asked for, the daemon its listener.
IMPORTS_IN_FUNCTIONS = {"ctl.main"}
LOADS_ON_DEMAND = {"dispatch.runner", "webhook.server"}

# What only the daemon knows.
DAEMON = {"daemon", "detach", "dispatch.dispatcher", "dispatch.recovery", "main", "sdnotify", "reload",
          "scheduler.heartbeat", "webhook.server"}


def _name(path: Path) -> str:
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" and len(parts) > 1 else parts)


FILES = {_name(path): path for path in sorted(PACKAGE.rglob("*.py"))}
SOURCES = {name: path.read_text(encoding="utf-8") for name, path in FILES.items()}
TREES = {name: ast.parse(source) for name, source in SOURCES.items()}
# Walked once: it takes longer than all the rules.
NODES = {name: tuple(ast.walk(tree)) for name, tree in TREES.items()}


def _imported(name: str) -> tuple[set[str], set[str]]:
    """Return the modules of this package and the top-level names of others that a module imports."""
    ours: set[str] = set()
    others: set[str] = set()
    for node in NODES[name]:
        if isinstance(node, ast.Import):
            modules = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            modules = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        for module in modules:
            first, _, rest = module.partition(".")
            if first != "ductile":
                others.add(first)
            elif rest in FILES:
                ours.add(rest)
            else:
                ours.add(rest.rpartition(".")[0] or "__init__")
    return ours, others


IMPORTED = {name: _imported(name) for name in FILES}
OURS = {name: ours for name, (ours, _) in IMPORTED.items()}
OTHERS = {name: others for name, (_, others) in IMPORTED.items()}


def _package(name: str) -> str:
    return name.partition(".")[0]


def _strings(name: str) -> Iterator[ast.Constant]:
    for node in NODES[name]:
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node


def test_a_module_opens_with_a_sentence() -> None:
    assert [name for name in FILES if not ast.get_docstring(TREES[name])] == []


def test_nothing_is_imported_relatively() -> None:
    assert [f"{name}:{node.lineno}" for name in FILES for node in NODES[name]
            if isinstance(node, ast.ImportFrom) and node.level > 0] == []


def test_packages_import_downwards_only() -> None:
    order = {package: number for number, package in enumerate(PACKAGES)}
    assert {_package(name) for name in FILES if "." in name} == set(PACKAGES)
    assert [f"{name} imports {other}" for name in FILES for other in sorted(OURS[name])
            if _package(name) in order and order.get(_package(other), -1) > order[_package(name)]] == []


def test_no_circle_of_packages() -> None:
    # A module at the top level counts as a package.
    below = {_package(name): set() for name in FILES}
    for name in FILES:
        below[_package(name)] |= {_package(other) for other in OURS[name]} - {_package(name), "__init__"}
    while free := [package for package in below if not below[package]]:
        for package in free:
            del below[package]
        for others in below.values():
            others -= set(free)
    assert below == {}


def test_no_circle_of_modules() -> None:
    below = {name: OURS[name] - {name, "__init__"} for name in FILES}
    while free := [name for name in below if not below[name]]:
        for name in free:
            del below[name]
        for others in below.values():
            others -= set(free)
    assert below == {}


def test_a_pure_module_knows_pure_modules_alone() -> None:
    assert PURE - set(FILES) == set()
    assert [f"{name} imports {other}" for name in sorted(PURE)
            for other in sorted((OURS[name] - PURE - {"__init__"}) | (OTHERS[name] & WORLDLY))] == []


def test_a_module_of_tables_never_commits() -> None:
    words = re.compile(r"\b(BEGIN|COMMIT|ROLLBACK|commit|rollback)\b")
    assert [name for name in sorted(set(OWNERS.values()) | READS_ALL)
            if "db" in OURS[name] or words.search(SOURCES[name])] == []


def test_a_table_is_named_by_its_owner_alone() -> None:
    named = re.compile(rf"\b(?:FROM|INTO|UPDATE|JOIN|TABLE)\s+({'|'.join(OWNERS)})\b")
    assert [f"{name}:{node.lineno} names {table}" for name in FILES if name not in READS_ALL for node in _strings(name)
            for table in named.findall(node.value) if OWNERS[table] != name] == []


def test_who_reads_all_tables_writes_none() -> None:
    writes = re.compile(r"\b(INSERT|UPDATE|DELETE|REPLACE)\b")
    assert [name for name in sorted(READS_ALL) if writes.search(SOURCES[name])] == []


def test_every_table_has_an_owner() -> None:
    schema = "".join(path.read_text(encoding="utf-8") for path in PACKAGE.rglob("*.sql"))
    assert set(re.findall(r"CREATE TABLE (\w+)", schema)) == set(OWNERS)


def test_no_import_stands_inside_a_function() -> None:
    assert [f"{name}:{node.lineno}" for name in FILES if name not in IMPORTS_IN_FUNCTIONS
            for function in NODES[name]
            if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
            for node in ast.walk(function) if isinstance(node, ast.Import | ast.ImportFrom)] == []


def test_few_modules_load_another_on_demand() -> None:
    assert {name for name in FILES if "importlib" in OTHERS[name] or "__import__" in SOURCES[name]} <= LOADS_ON_DEMAND


def test_the_two_programs_know_nothing_of_each_other() -> None:
    assert [f"{name} reaches {other}" for name in FILES for other in sorted(_reachable(name))
            if (_package(name) == "ctl" and other in DAEMON) or (name in DAEMON and _package(other) == "ctl")] == []


def _reachable(name: str) -> set[str]:
    found: set[str] = set()
    left = [name]
    while left:
        new = OURS[left.pop()] - found
        found |= new
        left += new
    return found
