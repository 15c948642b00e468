"""Holds the code to the plan of the house: who may know whom, who may touch the world, how large a room may be."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "ductile"

# Kinds. P: pure, no clock, chance, input or output, threads, logging. S: SQL, takes a connection, never commits.
# F: files, processes, sockets. C: composition. After the kind, the modules of this package it may import.
ROOMS = """
    __init__               P
    arguments              F  errors text
    chance                 P
    check                  P
    checking               F  disk errors streams world
    clock                  F
    config                 P
    config.collisions      F  check config.defaults config.schema config.variables lock
    config.defaults        P
    config.envfile         F  disk
    config.load            F  check config.collisions config.envfile config.localzone config.place config.read config.schema config.variables disk errors yamlfile
    config.localzone       F
    config.place           F  config.defaults disk errors
    config.read            P  check config.defaults config.schedules config.schema config.values config.variables config.webhooks plugin.manifest units
    config.rows            S  units
    config.schedules       P  check config.values plugin.manifest scheduler.schedule
    config.schema          P  check scheduler.schedule units
    config.values          P  check protocol units
    config.variables       P  check
    config.webhooks        P  check config.schema config.values config.variables plugin.manifest text webhook.secret
    context                P
    context.baggage        P  strictjson text
    context.portable       P
    context.row            P
    context.rows           S  context.row strictjson units
    ctl                    P
    ctl.attempts           C  ctl.table history
    ctl.backup             C  ctl.document ctl.ending ctl.progress db errors text units
    ctl.candidates         C  ctl.glance errors queue.rows
    ctl.cells              P
    ctl.chain              C  context.rows ctl.attempts ctl.outline ctl.table history queue.job queue.rows text units workspace.rows
    ctl.check              C  checking ctl.document ctl.progress db errors text world
    ctl.commandline        F  __init__ arguments
    ctl.configured         C  check errors plugin.configured text world
    ctl.document           P
    ctl.emit               C  chance config.rows ctl.configured ctl.document ctl.event ctl.wake db errors intake queue.job world
    ctl.ending             F
    ctl.event              C  chance ctl.configured errors intake protocol strictjson
    ctl.faults             P  check protocol text
    ctl.fitting            P  ctl.cells ctl.table units
    ctl.given              F  check errors strictjson text
    ctl.glance             S  ctl.snapshot
    ctl.health             C  chance clock ctl.configured ctl.document ctl.progress ctl.scratch ctl.table dispatch.outcome errors plugin.configured plugin.manifest plugin.rows state.rows text world
    ctl.inspect            C  ctl.attempts ctl.chain ctl.document ctl.job ctl.table errors history queue.job units
    ctl.job                C  ctl.configured ctl.document ctl.table ctl.wake db errors history intake queue.job queue.rows units world
    ctl.logs               C  check ctl.attempts ctl.configured ctl.document ctl.glance errors history
    ctl.main               C  config.place ctl.commandline db errors streams
    ctl.monitor            C  config.schema ctl.glance ctl.screen ctl.status ctl.terminal ctl.view db errors lock
    ctl.outline            P  ctl.table units
    ctl.page               F  ctl.fitting
    ctl.pipelines          C  check ctl.configured ctl.document ctl.table errors pipeline.graph world
    ctl.plugin             C  chance ctl.configured ctl.document ctl.table ctl.wake db errors events intake pipeline.rows plugin.configured plugin.discovery plugin.manifest plugin.rows queue.job queue.rows scheduler.breaker scheduler.rows world
    ctl.progress           F
    ctl.reload             C  clock config.rows ctl.document ctl.progress ctl.table ctl.wake errors lock world
    ctl.replay             C  chance ctl.configured ctl.document ctl.job ctl.wake db errors intake queue.job queue.rows workspace.artifact workspace.directories workspace.rows world
    ctl.run                C  chance check ctl.attempts ctl.configured ctl.document ctl.event ctl.table ctl.wake db errors history intake plugin.configured plugin.rows queue.job queue.rows world
    ctl.scratch            C  clock context.portable ctl.ending dispatch.lifecycle dispatch.outcome dispatch.runner dispatch.strays plugin.configured protocol units workspace.tree
    ctl.screen             P  ctl.cells ctl.outline ctl.table ctl.view units
    ctl.skeleton           F  ctl.configured ctl.document ctl.skeleton_texts errors plugin.manifest protocol text workspace.tree
    ctl.skeleton_texts     P
    ctl.snapshot           S  units
    ctl.starter            F  config.place ctl.document errors shipped text
    ctl.state              C  check ctl.configured ctl.document ctl.given db errors state.merge state.rows
    ctl.status             C  ctl.snapshot ctl.table errors lock units
    ctl.table              P  text
    ctl.terminal           F  ctl.cells ctl.screen errors
    ctl.told               C  chance ctl.event ctl.given ctl.run ctl.scratch ctl.state errors intake plugin.manifest
    ctl.trial              C  chance check clock config.load config.schema config.variables ctl.configured ctl.document ctl.faults ctl.progress ctl.scratch ctl.table ctl.told dispatch.outcome errors plugin.configured plugin.discovery plugin.manifest protocol state.merge text units
    ctl.view               P  ctl.outline ctl.table
    ctl.wake               F  lock
    daemon                 C  chance clock config.rows db dispatch.dispatcher dispatch.leftover dispatch.recovery errors intake log notify pipeline.rows plugin.rows queue.rows scheduler.heartbeat scheduler.sweep source vitals webhook.front workspace.directories world
    db                     F  errors mounts schema
    detach                 F  errors
    disk                   F  text
    dispatch               P
    dispatch.conclude      P  chance config.schema context.row dispatch.onward dispatch.outcome dispatch.record dispatch.retry events plugin.manifest protocol queue.job router scheduler.breaker state.merge workspace.artifact
    dispatch.dispatcher    C  chance clock db dispatch.conclude dispatch.handover dispatch.leftover dispatch.lifecycle dispatch.outcome dispatch.recovery dispatch.runner dispatch.waiter log plugin.configured queue.job text units workspace.directories workspace.operations world
    dispatch.handover      C  context.portable db dispatch.outcome pipeline.rows queue.job router text workspace.artifact workspace.directories workspace.operations workspace.rows
    dispatch.leftover      F  dispatch.processes
    dispatch.lifecycle     C  chance context.baggage context.portable context.rows db dispatch.conclude dispatch.handover dispatch.leftover dispatch.onward dispatch.outcome dispatch.record dispatch.runner history intake pipeline.rows plugin.configured plugin.rows protocol queue.job queue.rows scheduler.breaker scheduler.rows state.rows text units workspace.directories workspace.rows
    dispatch.onward        P  chance context.baggage context.row events protocol queue.job router strictjson units
    dispatch.outcome       P  context.portable protocol text workspace.artifact
    dispatch.processes     F
    dispatch.record        P  protocol strictjson text
    dispatch.recovery      C  chance config.schema db dispatch.conclude dispatch.leftover dispatch.lifecycle dispatch.onward dispatch.outcome log queue.job queue.rows workspace.directories world
    dispatch.retry         P  chance
    dispatch.runner        F  dispatch.leftover dispatch.outcome dispatch.strays
    dispatch.strays        F  dispatch.processes
    dispatch.waiter        F
    errors                 P
    events                 P
    group                  C  db
    history                S  dispatch.conclude queue.job units
    intake                 C  chance context.baggage context.row context.rows db errors events plugin.configured plugin.manifest plugin.rows queue.job queue.rows router strictjson units world
    lock                   F  errors
    log                    F  disk errors units
    main                   C  __init__ arguments checking clock config.defaults config.place daemon db dispatch.leftover dispatch.runner dispatch.strays errors lock log notify source streams workspace.directories world
    migrations             P
    mounts                 F
    notify                 F
    pipeline               P
    pipeline.compiler      P  check pipeline.graph pipeline.spec plugin.manifest
    pipeline.files         F  disk errors pipeline.spec yamlfile
    pipeline.graph         P  check strictjson
    pipeline.rows          S  pipeline.graph queue.job router units
    pipeline.spec          P  check config.values events protocol yamlfile
    plugin                 P
    plugin.configured      C  config.schema plugin.discovery plugin.manifest strictjson text
    plugin.discovery       F  disk errors plugin.manifest yamlfile
    plugin.manifest        P  check config.values
    plugin.rows            S  units
    protocol               P  check strictjson text
    queue                  P
    queue.job              P
    queue.rows             S  queue.job units
    router                 P  config.schema pipeline.graph plugin.manifest queue.job
    scheduler              P
    scheduler.breaker      P  events
    scheduler.heartbeat    C  chance clock log scheduler.janitor scheduler.sweep scheduler.ticker workspace.directories world
    scheduler.janitor      C  clock db log queue.rows text workspace.directories workspace.operations
    scheduler.rows         S  scheduler.breaker scheduler.schedule units
    scheduler.schedule     P  chance check units
    scheduler.sweep        C  context.rows db history queue.job queue.rows workspace.rows world
    scheduler.ticker       C  chance db dispatch.retry intake plugin.configured plugin.rows queue.job queue.rows scheduler.breaker scheduler.rows scheduler.schedule units world
    schema                 S
    shipped                F  errors
    source                 C  config.schema errors log world
    state                  P
    state.merge            P  strictjson
    state.rows             S  strictjson units
    streams                F  text
    strictjson             P  text
    text                   P
    units                  P
    vitals                 P
    webhook                P
    webhook.front          C  chance clock db errors group vitals world
    webhook.head           P
    webhook.reception      C  chance clock config.schema db errors group intake log plugin.manifest queue.job queue.rows scheduler.rows strictjson vitals webhook.head webhook.request webhook.server webhook.signature world
    webhook.request        P  strictjson webhook.head
    webhook.secret         P
    webhook.server         F  errors log webhook.head
    webhook.signature      P  webhook.secret
    workspace              P
    workspace.artifact     P  text
    workspace.clone        F  workspace.artifact workspace.content workspace.inputs workspace.seal workspace.tree
    workspace.content      F  workspace.artifact
    workspace.directories  F  errors workspace.artifact workspace.clone workspace.inputs workspace.operations workspace.seal workspace.tree
    workspace.inputs       F  workspace.artifact workspace.content workspace.tree
    workspace.operations   P  workspace.artifact
    workspace.rows         S  workspace.artifact
    workspace.seal         F  workspace.artifact workspace.content workspace.inputs workspace.tree
    workspace.tree         F
    world                  C  check config.load config.schema config.variables errors pipeline.compiler pipeline.files pipeline.spec plugin.configured plugin.discovery router
    yamlfile               P  check errors
"""

# What a pure module may not import: each of these touches the world.
WORLDLY = {"os", "sqlite3", "subprocess", "socket", "threading", "signal", "logging", "time", "random", "queue"}

# Who alone names a table in SQL.
OWNERS = {
    "job_queue": "queue.rows", "job_log": "history", "plugin_state": "state.rows",
    "schedule_entries": "scheduler.rows", "circuit_breakers": "scheduler.rows",
    "event_context": "context.rows", "plugin_inits": "plugin.rows", "plugin_loads": "plugin.rows", "config_loads": "config.rows", "pipeline_versions": "pipeline.rows",
    "artifacts": "workspace.rows",
}

# Who reads the tables of all rooms, and writes none: the rooms' own modules cost more to import than `status` may take.
READS_ALL = {"ctl.glance", "ctl.snapshot"}

# Who may import a module by name while it runs: ductilectl loads the one command that was asked for, the daemon its
# listener where there is one, and what detaches it where that is asked for.
LOADS_ON_DEMAND = {"ctl.main", "main", "webhook.front"}

MOST_LINES_OF_A_FILE = 400
MOST_LINES_OF_A_FUNCTION = 60


def _name(path: Path) -> str:
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" and len(parts) > 1 else parts)


FILES = {_name(path): path for path in sorted(PACKAGE.rglob("*.py"))}
TREES = {name: ast.parse(path.read_text(encoding="utf-8")) for name, path in FILES.items()}
KINDS = {fields[0]: fields[1] for fields in map(str.split, ROOMS.strip().splitlines())}
MAY_IMPORT = {fields[0]: set(fields[2:]) for fields in map(str.split, ROOMS.strip().splitlines())}

every_module = pytest.mark.parametrize("name", FILES)


def _imports(name: str) -> tuple[set[str], set[str]]:
    """Return the modules of this package and the top-level names of others that a module imports."""
    ours: set[str] = set()
    others: set[str] = set()
    for node in ast.walk(TREES[name]):
        if isinstance(node, ast.Import):
            modules = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name} imports relatively"
            modules = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        for module in modules:
            first, _, rest = module.partition(".")
            if first != "ductile":
                others.add(first)
            else:
                ours.add(rest if rest in FILES else rest.rpartition(".")[0] or "__init__")
    return ours, others


@every_module
def test_every_module_has_its_room(name: str) -> None:
    assert name in KINDS, f"ductile/{name} is not in the plan: give it a kind and say what it may import"


def test_every_room_is_taken() -> None:
    assert set(KINDS) - set(FILES) == set()


@every_module
def test_a_module_imports_what_the_plan_says_and_nothing_more(name: str) -> None:
    assert _imports(name)[0] == MAY_IMPORT[name]


@every_module
def test_a_pure_module_knows_pure_modules_alone(name: str) -> None:
    if KINDS[name] == "P":
        ours, others = _imports(name)
        assert {module for module in ours if KINDS[module] != "P"} == set()
        assert others & WORLDLY == set()


@every_module
def test_a_module_of_rows_never_commits(name: str) -> None:
    if KINDS[name] == "S":
        source = FILES[name].read_text(encoding="utf-8")
        assert "db" not in _imports(name)[0]
        assert re.search(r"\b(BEGIN|COMMIT|ROLLBACK|commit|rollback)\b", source) is None


def test_no_import_goes_round_in_a_circle() -> None:
    finished: set[str] = set()

    def visit(name: str, above: tuple[str, ...]) -> None:
        assert name not in above, " -> ".join((*above, name))
        if name not in finished:
            for other in sorted(_imports(name)[0] - {"__init__"}):
                visit(other, (*above, name))
            finished.add(name)

    for name in FILES:
        visit(name, ())
    assert finished == set(FILES)


@every_module
def test_no_import_stands_inside_a_function(name: str) -> None:
    inside = [node.lineno for function in ast.walk(TREES[name])
              if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
              for node in ast.walk(function) if isinstance(node, ast.Import | ast.ImportFrom)]
    assert inside == []


@every_module
def test_only_named_places_load_on_demand(name: str) -> None:
    if "importlib" in _imports(name)[1] or "__import__" in FILES[name].read_text(encoding="utf-8"):
        assert name in LOADS_ON_DEMAND


@every_module
def test_a_table_is_named_by_its_owner_alone(name: str) -> None:
    for node in ast.walk(TREES[name]):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            for table, owner in OWNERS.items():
                if re.search(rf"\b(FROM|INTO|UPDATE|JOIN|TABLE)\s+{table}\b", node.value):
                    assert name == owner or name in READS_ALL, f"{name}:{node.lineno} names {table} in SQL"


def test_who_reads_all_tables_writes_none() -> None:
    for name in READS_ALL:
        assert re.search(r"\b(INSERT|UPDATE|DELETE|REPLACE)\b", FILES[name].read_text(encoding="utf-8")) is None


def test_every_table_of_the_schema_has_an_owner_or_is_not_used_yet() -> None:
    schema = "".join(path.read_text(encoding="utf-8") for path in PACKAGE.rglob("*.sql"))
    later = {"paused_plugins", "daemon_run"}
    assert set(re.findall(r"CREATE TABLE (\w+)", schema)) == set(OWNERS) | later


def test_the_two_programs_know_nothing_of_each_other() -> None:
    daemon = {"daemon", "main", "detach", "notify", "dispatch.dispatcher", "dispatch.recovery", "scheduler.heartbeat", "webhook.front"}
    for name in FILES:
        known = _reachable(name)
        if name.split(".")[0] == "ctl":
            assert known & daemon == set(), name
        elif name in daemon:
            assert {module for module in known if module.split(".")[0] == "ctl"} == set(), name


def _reachable(name: str) -> set[str]:
    found: set[str] = set()
    left = [name]
    while left:
        for other in _imports(left.pop())[0] - found:
            found.add(other)
            left.append(other)
    return found


@every_module
def test_no_file_is_too_long(name: str) -> None:
    assert len(FILES[name].read_text(encoding="utf-8").splitlines()) <= MOST_LINES_OF_A_FILE


@every_module
def test_no_function_is_too_long(name: str) -> None:
    long = [f"{node.name} ({node.end_lineno - node.lineno + 1} lines)" for node in ast.walk(TREES[name])
            if isinstance(node, ast.FunctionDef) and node.end_lineno - node.lineno + 1 > MOST_LINES_OF_A_FUNCTION]
    assert long == []


@every_module
def test_a_module_says_what_it_is_for(name: str) -> None:
    assert ast.get_docstring(TREES[name])
