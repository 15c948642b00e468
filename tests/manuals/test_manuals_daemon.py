"""The manual of the daemon has every option, exit code, signal, variable, table, column and field of the log."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import get_args, get_type_hints

import pytest

from ductile import errors, log, main
from ductile.config import find
from ductile.dispatch.outcome import log_status
from ductile.queue.job import Status, Submitter
from ductile.scheduler import breaker
from support import logs
from support.ledger import opened
from support.manuals import Entry, nodes, parts, section
from support.pages import options

PAGE = "ductiled.8"
CODES = {name: value for name, value in vars(errors).items() if name.startswith("EXIT_")}
LOGS = re.compile(r"\b_?(?:plugin_)?log$")


def codes(page: str) -> set[int]:
    return {int(entry.tag) for entry in section(page, "EXIT CODES").entries}


def test_every_option_is_explained_and_no_other() -> None:
    known = {spelling for action in main._parser()._actions for spelling in action.option_strings}
    assert options(section(PAGE, "OPTIONS").entries) == known


def test_the_two_programs_have_every_exit_code_there_is() -> None:
    assert codes(PAGE) | codes("ductilectl.1") == set(CODES.values())


def test_the_daemon_has_the_codes_that_its_modules_end_with() -> None:
    others = ("errors.py", "shipped.py", "embed.py")
    used = {node.id for name, found in nodes() if not name.startswith("ctl/") and name not in others
            for node in found if isinstance(node, ast.Name) and node.id in CODES}
    # What only an operator meets: a database that is not his, or older than the program.
    assert codes(PAGE) == {CODES[name] for name in used} - {errors.EXIT_PERMISSION, errors.EXIT_UNAVAILABLE}


def test_every_signal_is_explained() -> None:
    told = {name for entry in section(PAGE, "SIGNALS").entries for name in entry.names}
    assert told == {number.name for number in main._HANDLED}


@pytest.mark.parametrize("page", [PAGE, "ductilectl.1"])
def test_every_variable_of_the_environment_is_explained(page: str) -> None:
    read = {find.VARIABLE, "HOME"}
    for name, found in nodes():
        # The configuration is read by both programs.
        if name.startswith("config/") or name.startswith("ctl/") == (page != PAGE):
            read |= {node.args[0].value for node in found
                     if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "get"
                     and ast.unparse(node.func).endswith("environ.get")
                     and isinstance(node.args[0], ast.Constant)}
    assert {name for entry in section(page, "ENVIRONMENT").entries for name in entry.names} == read


def test_every_table_and_column_is_explained_in_its_order(tmp_path: Path) -> None:
    with opened(tmp_path) as conn:
        tables = [row[0] for row in conn.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        columns = {table: [row[1] for row in conn.execute(f"PRAGMA table_info({table})")] for table in tables}
    assert {part: [entry.tag for entry in found.entries] for part, found in parts(PAGE, "TABLES").items()} == columns


def column(table: str, name: str) -> Entry:
    [found] = [entry for entry in section(PAGE, "TABLES", table).entries if entry.tag == name]
    return found


@pytest.mark.parametrize(("table", "name", "values"), [
    ("job_queue", "status", set(Status)),
    ("job_queue", "submitted_by", set(Submitter)),
    ("job_log", "status", set(get_args(get_type_hints(log_status)["return"]))),
    ("circuit_breakers", "state", set(get_args(breaker.State))),
])
def test_every_value_of_a_column_is_named_and_no_other(table: str, name: str, values: set[str]) -> None:
    columns = {entry.tag for entry in section(PAGE, "TABLES", table).entries}
    assert set(column(table, name).bold) - columns == values


# The log

def calls(found: Sequence[ast.AST]) -> Iterator[ast.Call]:
    """Yield every call of a module that writes a line of the log."""
    for node in found:
        if (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)
                and node.func.attr in ("debug", "info", "warn", "error", "at")
                and isinstance(node.func.value, ast.Name) and LOGS.search(node.func.value.id)):
            yield node


def fields() -> set[str]:
    """Return the names of all fields: keywords of such calls, and keys of the mappings that a module hands to them."""
    found = set()
    for name, there in nodes():
        if name.startswith("ctl/"):
            continue
        found |= {keyword.arg for call in calls(there) for keyword in call.keywords if keyword.arg is not None}
        for node in there:
            handed = isinstance(node, ast.Assign) and getattr(node.targets[0], "id", None) in ("names", "fields")
            if handed or (isinstance(node, ast.keyword) and node.arg == "fields"):
                found |= {key.value for each in ast.walk(node.value) if isinstance(each, ast.Dict)
                          for key in each.keys if isinstance(key, ast.Constant)}
    return found


def test_every_field_of_the_log_is_explained_and_no_other() -> None:
    told = {name for entry in section(PAGE, "LOG", "Where they apply").entries for name in entry.names}
    assert told == fields()


def test_what_is_on_every_line_of_the_log_is_explained(tmp_path: Path) -> None:
    with logs.as_it_was():
        log.set_up(tmp_path / "log", "info")
        log.Component("daemon").info("said")
    told = [entry.tag for entry in section(PAGE, "LOG", "On every line").entries]
    assert told == list(json.loads((tmp_path / "log").read_text()))


def test_every_component_of_the_log_is_named() -> None:
    components = {node.args[0].value for _, found in nodes() for node in found if isinstance(node, ast.Call)
                  and "Component" in (getattr(node.func, "id", ""), getattr(node.func, "attr", ""))}
    [told] = [entry for entry in section(PAGE, "LOG", "On every line").entries if entry.tag == "component"]
    assert set(told.bold) == components


def test_the_messages_that_are_named_are_written() -> None:
    written = {node.value for _, found in nodes() for call in calls(found) for node in ast.walk(call)
               if isinstance(node, ast.Constant)}
    named = {word for word in section(PAGE, "LOG").bold if word.startswith("job ")}
    assert len(named) == 2 and named <= written
