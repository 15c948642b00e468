"""`check`: the same as `ductiled -t`, and the whole database if asked."""

from __future__ import annotations

import pytest

from ctl.desk import Desk, Said, job_id
from ductile import main as ductiled
from support.ledger import put_ended, put_job


def daemon_says(desk: Desk, capsys: pytest.CaptureFixture[str]) -> Said:
    code = ductiled.main(["-t", "-c", str(desk.home)], {})
    out, err = capsys.readouterr()
    return Said(code=code, out=out, err=err)


@pytest.mark.parametrize(("sections", "code"), [
    ({}, 0),
    ({"plugins": {"gone": {}}}, 78),
    ({"plugins": {"echo": {"config": {"a": "${NOT_SET}"}}}, "what": 1}, 78),
    ({"webhooks": {"listen": "127.0.0.1:1", "endpoints": [
        {"path": "/a", "plugin": "echo", "secret": "${SHORT}", "signature_format": "slack"}]}}, 78),
])
def test_it_says_what_the_daemon_says(desk: Desk, capsys: pytest.CaptureFixture[str], sections: dict,
                                      code: int) -> None:
    desk.plugin("echo")
    desk.configure(**sections)
    said = desk.process("check")
    assert said == daemon_says(desk, capsys)
    assert (said.code, bool(said.err)) == (code, code != 0)


def test_the_document_has_the_same_lines(desk: Desk) -> None:
    desk.configure(plugins={"gone": {}}, what=1)
    said = desk.process("check", "--json")
    found = said.json
    assert (said.code, said.err, found["database"], found["warnings"]) == (78, "", None, [])
    assert found["problems"] + found["faults"] == desk.process("check").err.splitlines()


def test_a_good_database_is_good(desk: Desk) -> None:
    desk.plugin("echo")
    with desk.ledger() as conn:
        put_job(conn, job_id(1))
    said = desk.call("check", "--database")
    assert said == Said(code=0, err="", out=(
        f"{desk.home}/config.yaml: ok, 1 plugin configured\n{desk.database}: ok\n"))
    assert desk.call("check", "--database", "--json").json["database"] == []


def test_without_a_database_it_says_so(desk: Desk) -> None:
    said = desk.call("check", "--database")
    assert (said.code, said.out.splitlines()[1]) == (
        0, f"ductiled has not run yet: there is no database at {desk.database}")
    assert not desk.database.exists()


def test_damage_that_a_start_does_not_see_is_found(desk: Desk) -> None:
    desk.plugin("echo")
    with desk.ledger() as conn:
        put_ended(conn, range(500), at="2026-02-08T10:00:00.000Z")
        conn.execute("PRAGMA foreign_keys = OFF")
        conn.execute("DELETE FROM job_queue WHERE seq = 7")
        conn.execute("PRAGMA ignore_check_constraints = ON")
        conn.execute("UPDATE job_queue SET attempt = 0 WHERE seq = 9")
    said = desk.call("check", "--database")
    assert (said.code, said.out) == (65, f"{desk.home}/config.yaml: ok, 1 plugin configured\n")
    assert said.err.splitlines() == [
        f"{desk.database}: CHECK constraint failed in job_queue",
        f"{desk.database}: job_log row 7 refers to a missing row of job_queue"]
    assert desk.call("check", "--database", "--json").code == 65
