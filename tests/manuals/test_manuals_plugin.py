"""The manual for authors of plugins has every field, every variable and every limit that the program knows."""

from __future__ import annotations

import ast
import json
import re
from inspect import signature
from pathlib import Path
from types import ModuleType

import pytest

from ductile import submit
from ductile.config.model import PluginConfig
from ductile.ctl.protocol_report import ignored
from ductile.dispatch import outcome, result_record, runner
from ductile.dispatch.attempt import plugin_environment
from ductile.dispatch.outcome import Facts
from ductile.plugin import discovery
from ductile.plugin.discovery import ConfiguredPlugin
from ductile.plugin.manifest import parse_manifest
from ductile.protocol import HANDLE, HEALTH, INIT, POLL, ProtocolError, decode_response, encode_request
from ductile.routing import baggage
from ductile.state import merge
from ductile.strictjson import MOST_DIGITS, MOST_NESTING
from support import in_process
from support.clock import START
from support.ledger import ids
from support.manuals import section
from support.recording import Recorder

ROOT = Path(__file__).resolve().parents[2]
PAGE = "ductile-plugin.7"
MIB = 1024 * 1024


def tags(title: str, part: str = "") -> set[str]:
    return {name for entry in section(PAGE, title, part).entries for name in entry.names[:1]}


def words_of(module: str) -> set[str]:
    """Return every text that stands in a module's code: whatever key it knows is among them."""
    tree = ast.parse((ROOT / "ductile" / module).read_text())
    return {node.value for node in ast.walk(tree) if isinstance(node, ast.Constant) and isinstance(node.value, str)}


def request(protocol: int) -> dict:
    return json.loads(encode_request(
        protocol=protocol, job_id="1", command="poll", config={}, state={}, event={"payload": {}}, deadline_at="",
        context={}, workspace_dir=""))


def test_every_key_of_a_manifest_is_explained() -> None:
    manifest = Recorder.of({"config_keys": {}, "commands": [{"name": "poll"}]})
    parse_manifest(manifest)
    assert tags("THE MANIFEST") == manifest.asked
    assert tags("THE MANIFEST", "A command") == manifest["commands"][0].asked
    assert tags("THE MANIFEST", "config_keys") == manifest["config_keys"].asked


def test_what_a_manifest_must_have_is_marked_so() -> None:
    _, problems = parse_manifest({})
    missing = {re.search("the key '(.+)' is missing", problem.text)[1] for problem in problems}
    assert {entry.names[0] for entry in section(PAGE, "THE MANIFEST").entries
            if entry.text.startswith("Required")} == missing


def test_every_command_that_means_something_is_explained() -> None:
    assert tags("COMMANDS") == {POLL, HANDLE, HEALTH, INIT}


def test_every_field_of_a_request_is_explained() -> None:
    assert tags("THE REQUEST") == set(request(2))
    alone = {entry.names[0] for entry in section(PAGE, "THE REQUEST").entries if "Protocol 2 only" in entry.text}
    assert alone == set(request(2)) - set(request(1))


def test_every_field_of_an_event_is_explained() -> None:
    event = submit.new_event("x", {}, "cli", new_id=ids(), now=START)
    assert tags("THE REQUEST", "The event") == {*event, "dedupe_key", "http"}


@pytest.mark.parametrize(("part", "around"), [
    ("", lambda key: {key: None}), ("An event", lambda key: {"events": [{key: None}]}),
    ("A log line", lambda key: {"logs": [{key: None}]}),
])
def test_every_key_of_a_response_is_explained(part: str, around) -> None:
    words = words_of("protocol.py") | words_of("ctl/protocol_report.py") | tags("THE RESPONSE", part)
    assert tags("THE RESPONSE", part) == {word for word in words if not ignored(around(word))}


def accepts(**answer: object) -> bool:
    try:
        decode_response(json.dumps({"status": "ok", **answer}).encode())
    except ProtocolError:
        return False
    return True


def test_every_status_and_level_is_named() -> None:
    [status] = [entry for entry in section(PAGE, "THE RESPONSE").entries if entry.tag == "status"]
    [level] = [entry for entry in section(PAGE, "THE RESPONSE", "A log line").entries if entry.tag == "level"]
    words = words_of("protocol.py")
    assert set(status.bold) == {word for word in words if accepts(status=word)}
    assert set(level.bold) == {word for word in words if accepts(logs=[{"level": word, "message": "x"}])}


def test_every_variable_of_a_plugins_environment_is_explained() -> None:
    everything = {name: "x" for name in section(PAGE, "THE PROCESS", "Environment").bold for name in name.split()}
    plugin = ConfiguredPlugin(settings=PluginConfig(name="echo", uses="echo"), plugin=None)
    sent = {**everything, "LC_TIME": "x", "SECRET": "x"} | dict.fromkeys(words_of("dispatch/transactions.py"), "x")
    given = plugin_environment(sent, plugin, job_id="1", attempt=1, workspace=Path("/ws"))
    told = {name for entry in section(PAGE, "THE PROCESS", "Environment").entries for name in entry.names}
    assert told == {"LC_*" if name.startswith("LC_") else name for name in given}


def test_everything_in_the_python_library_is_explained() -> None:
    library = in_process.library()
    public = {name for name, value in vars(library).items()
              if not name.startswith("_") and getattr(value, "__module__", library.__name__) == library.__name__
              and not isinstance(value, ModuleType) and name != "annotations"}
    told = [entry for part in ("Request and response", "Errors", "Programs", "Templates", "HTTP")
            for entry in section(PAGE, "THE PYTHON LIBRARY", part).entries]
    # Some constants have no entry of their own.
    constants = {"ARGV", "EXIT_CONFIG", "OAUTH", "SAFE", "URL", "ZONE"}
    assert {name for entry in told for name in entry.names} | constants == public
    for name in ("http", "text", "one_line", "seconds_left"):
        [text] = [entry.text for entry in told if entry.names[0] == name]
        told_names = set(re.findall(r"[a-z_]+", text[text.index("(") + 1:text.index(")")].replace("()", "")))
        assert set(signature(getattr(library, name)).parameters) <= told_names


def test_every_limit_is_the_one_that_is_told() -> None:
    limits = {entry.tag: entry.text for entry in section(PAGE, "THE PROCESS", "Limits").entries}
    assert limits["standard output"] == f"{outcome.STDOUT_LIMIT_BYTES // MIB} MiB."
    assert f"the first {outcome.STDERR_LIMIT_BYTES // 1024} KiB " in limits["standard error"]
    assert limits["events"] == f"{outcome.EVENTS_LIMIT} in one response."
    assert limits["state"] == f"{merge.LIMIT_BYTES // MIB} MiB of JSON."
    assert limits["baggage"].startswith(f"{baggage.LIMIT_BYTES // MIB} MiB of JSON ")
    assert f"over {result_record.RESULT_LIMIT_BYTES // 1024} KiB " in limits["result"]
    whole = " ".join(Path(ROOT, "contrib", "man", PAGE).read_text().split())
    assert f"no whole number of more than {MOST_DIGITS} digits" in whole
    assert f"at most {MOST_NESTING} levels" in whole
    assert f"up to {outcome.PRINTED_LIMIT_BYTES // 1024} KiB" in whole
    assert f"invalid or over {discovery.MANIFEST_LIMIT_BYTES // MIB} MiB" in whole


def test_every_name_of_a_credential_is_told_and_no_other() -> None:
    told = set(section(PAGE, "BAGGAGE").bold)
    names = {word for word in told if word.isascii() and re.fullmatch("[a-z_]+", word)}
    kept = {word for word in names if not baggage.without_credentials({f"x{word}" if word[0] == "_" else word: 1}, ())}
    known = {word for word in words_of("routing/baggage.py") if re.fullmatch("[a-z_]+", word)
             and not baggage.without_credentials({f"x{word}" if word[0] == "_" else word: 1}, ())}
    spelt_out = {ending[1:] for ending in known if ending.startswith("_")}
    assert kept >= known
    # The bare words of the endings are credentials too; those that are told are the usual ones.
    assert kept - known <= spelt_out


def test_the_keys_of_the_core_are_told() -> None:
    anchored = baggage.anchor(baggage.Origin(plugin="echo", event_type="x", job_id="1"))
    assert set(anchored) <= set(section(PAGE, "BAGGAGE").bold)


OK, ERROR = b'{"status": "ok"}', b'{"status": "error"}'
MANY = json.dumps({"status": "ok", "events": [{"type": "x"}] * (outcome.EVENTS_LIMIT + 1)}).encode()
ENDINGS: dict[str, tuple[Facts, ...]] = {
    "Ended by a stop of the daemon": (Facts(signal=15, ended_by="stop"), Facts(exit_code=78, ended_by="stop")),
    "Ended at the deadline": (Facts(signal=9, ended_by="deadline"), Facts(exit_code=78, ended_by="deadline")),
    "Exit code 78": (Facts(exit_code=78, stdout=OK), Facts(exit_code=78, stdout=ERROR)),
    "Cannot be started": (Facts(could_not_start="no such file"),),
    "Killed by a signal, more than 10 MiB printed, a protocol error": (
        Facts(signal=11, stdout=OK), Facts(exit_code=0, stdout_overflowed=True), Facts(exit_code=0, stdout=b"x")),
    "Status error": (Facts(exit_code=0, stdout=ERROR), Facts(exit_code=1, stdout=ERROR)),
    "Status ok, exit code not 0": (Facts(exit_code=1, stdout=OK), Facts(exit_code=1, stdout=MANY)),
    "Over 1000 events, or another limit of the response": (Facts(exit_code=0, stdout=MANY),),
    "Status ok, exit code 0": (Facts(exit_code=0, stdout=OK),),
}


def test_every_way_for_an_attempt_to_end_is_told_in_the_order_that_decides() -> None:
    entries = {entry.tag: entry for entry in section(PAGE, "OUTCOMES").entries}
    assert list(entries) == list(ENDINGS)
    for tag, facts in ENDINGS.items():
        for each in facts:
            ended = outcome.classify(each, timeout=60)
            assert outcome.log_status(ended) in entries[tag].bold, tag
            # What a stop has cut short is queued again too, and is told in other words.
            again = outcome.retryable(ended) and not isinstance(ended, outcome.Interrupted)
            assert again == bool(re.search("(?<!not )retried", entries[tag].text)), tag
    crash = outcome.Interrupted(by="crash", error="")
    assert outcome.log_status(crash) in section(PAGE, "OUTCOMES").bold


def test_the_times_in_which_a_run_is_ended_are_told() -> None:
    limits = {entry.tag: entry.text for entry in section(PAGE, "THE PROCESS", "Limits").entries}
    assert f"SIGTERM to the group, {runner._GRACE_SECONDS:g} s later SIGKILL" in limits["time"]
    assert f"reads its output for {runner._DRAIN_SECONDS:g} s more" in limits["children"]
    whole = runner._GRACE_SECONDS + max(runner._LAST_SECONDS, runner._DRAIN_SECONDS)
    assert f"ends within its time limit plus {whole:g} s" in limits["children"]
