"""Every example of the manuals is loaded, compiled, run or parsed."""

from __future__ import annotations

import base64
import itertools
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest

from ctl import desk
from ductile import main
from ductile.config.load import load, read_env_file
from ductile.config.signing import read_scheme
from ductile.ctl import commandline
from ductile.pipeline.compiler import compile_all
from ductile.pipeline.files import read_pipelines
from ductile.plugin.discovery import discover
from ductile.protocol import decode_response, encode_request
from ductile.runtime_config import read
from ductile.strictjson import decode
from ductile.validation import Section
from ductile.webhook.http_head import Head
from ductile.webhook.signature import verify
from support import in_process
from support.ledger import opened
from support.manuals import PAGES, Example, examples
from support.transcripts import Site, body

ROOT = Path(__file__).resolve().parents[2]
SHIPPED = ROOT / "plugins"
PATIENCE_SECONDS = 60
SECRET = "correct horse battery staple"
VARIABLE = re.compile(r"(?<!\$)\$\{([A-Z_]+)\}")
FIELDS = {"timestamp", "level", "component", "message"}
# What stands for curl: it keeps its arguments, a line each.
CURL = "#!/bin/sh\nprintf '%s\\n' \"$@\" >curl.txt\n"


def of_kind(*kinds: str) -> list[pytest.param]:
    """Return the examples of these kinds, each with its place as its name."""
    return [pytest.param(each, id=f"{each.page}:{each.line}") for page in PAGES for each in examples(page)
            if each.kind in kinds]


def environment(home: Path, **variables: str) -> dict[str, str]:
    path = f"{home / 'bin'}:{Path(sys.executable).parent}:{os.defpath}"
    return {"PATH": path, "HOME": str(home), "LANG": "C.UTF-8", "TZ": "UTC", "TMPDIR": str(home), **variables}


def shell(script: str, home: Path, *options: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run a script in a directory as `sh -e` does."""
    return subprocess.run(["sh", "-eu", *options], input=script, cwd=home, env=environment(home, **variables),
                          capture_output=True, text=True, check=False, timeout=PATIENCE_SECONDS)


# Configurations and pipelines

def write_config(home: Path, text: str) -> tuple[Path, Mapping[str, str]]:
    """Write a configuration beside an env_file and the shipped plugins. Return it, and an environment for it."""
    secrets = home / "secrets.env"
    secrets.touch(mode=0o600)
    (home / "plugins").symlink_to(SHIPPED)
    file = home / "config.yaml"
    file.write_text(text)
    # Each its own, and good as text and as base64.
    return file, {"TZ": "UTC", **{name: f"whsec_{base64.b64encode(name.ljust(24).encode()).decode()}"
                                  for name in VARIABLE.findall(text)}}


@pytest.mark.parametrize("example", of_kind("config", "config world"))
def test_a_configuration_is_loaded_without_a_word(example: Example, tmp_path: Path) -> None:
    file, environ = write_config(tmp_path, example.text)
    loaded = load(file, environ)
    assert ([loaded.locate(problem) for problem in loaded.problems], loaded.warnings) == ([], ())
    assert loaded.config.plugins


@pytest.mark.parametrize("example", of_kind("endpoint"))
def test_an_endpoint_is_loaded_without_a_word(example: Example, tmp_path: Path) -> None:
    items = "".join(f"    {line}\n" for line in example.text.splitlines())
    file, environ = write_config(
        tmp_path, f"webhooks:\n  listen: 127.0.0.1:8081\n  endpoints:\n{items}plugins:\n  webhook_log: {{}}\n")
    loaded = load(file, environ)
    assert ([loaded.locate(problem) for problem in loaded.problems], loaded.warnings) == ([], ())


@pytest.mark.parametrize("example", of_kind("config world"))
def test_a_configuration_that_runs_as_it_stands_does(example: Example, tmp_path: Path) -> None:
    file, environ = write_config(tmp_path, example.text)
    reading = read(file, environ)
    assert (reading.problems, reading.faults, reading.warnings) == ((), (), ())


def compiled(home: Path, texts: Mapping[str, str]) -> tuple[list[str], list[str]]:
    """Return the names of the pipelines and what is wrong with them, for whoever has all shipped plugins configured."""
    for name, text in texts.items():
        (home / name).write_text(text)
    commands = {each.name: each.plugin.manifest.commands for each in discover([SHIPPED]).found}
    authored = read_pipelines(home)
    found = compile_all(authored.specs, commands=commands, disabled=(), max_hops=20)
    problems = sorted([*authored.problems, *found.problems])
    return list(found.pipelines), [str(each).replace(f"{home}/", "") for each in problems]


@pytest.mark.parametrize("example", of_kind("pipeline"))
def test_a_pipeline_is_compiled_without_a_word(example: Example, tmp_path: Path) -> None:
    texts = {f"{number}.yaml": text for number, text in enumerate(example.text.split("---\n"))}
    pipelines, problems = compiled(tmp_path, texts)
    assert pipelines and problems == []


def with_answers(kind: str) -> list[pytest.param]:
    """Return the examples of a kind, each with the one behind it: what is said of it."""
    found = []
    for page in PAGES:
        every = list(examples(page))
        found += [pytest.param(each, after, id=f"{page}:{each.line}") for each, after in itertools.pairwise(every)
                  if each.kind == kind and after.kind == "problem says"]
    return found


@pytest.mark.parametrize(("example", "answer"), with_answers("problem"))
def test_a_wrong_configuration_is_answered_as_it_is_told(example: Example, answer: Example, tmp_path: Path) -> None:
    file, environ = write_config(tmp_path, example.text)
    loaded = load(file, environ)
    assert [loaded.locate(each).replace(f"{tmp_path}/", "") for each in loaded.problems] == answer.text.splitlines()


@pytest.mark.parametrize(("example", "answer"), with_answers("problem pipeline"))
def test_a_wrong_pipeline_is_answered_as_it_is_told(example: Example, answer: Example, tmp_path: Path) -> None:
    name = answer.text.partition(":")[0]
    assert compiled(tmp_path, {name: example.text})[1] == answer.text.splitlines()


def test_no_answer_stands_without_what_it_answers() -> None:
    answered = len(with_answers("problem")) + len(with_answers("problem pipeline"))
    assert len(of_kind("problem says")) == answered == len(of_kind("problem", "problem pipeline"))


@pytest.mark.parametrize("example", of_kind("env_file"))
def test_an_env_file_is_read_without_a_word(example: Example, tmp_path: Path) -> None:
    file = tmp_path / "secrets.env"
    file.touch(mode=0o600)
    file.write_text(example.text)
    variables, faults, _ = read_env_file(file)
    assert (faults, len(variables)) == ([], len(re.findall("^[^#].*=", example.text, re.MULTILINE)))


# What is said to a plugin and by it, and to the operator

@pytest.mark.parametrize("example", of_kind("request"))
def test_a_request_has_the_fields_of_a_real_one_in_their_order(example: Example) -> None:
    shown = decode(example.text)
    given = {key: shown[key] for key in shown}
    real = decode(encode_request(**given))
    assert list(shown) == list(real) and shown == real
    assert shown["event"]["payload"] == {**shown["event"]["payload"], **{
        key: value for key, value in shown["context"].items() if key in shown["event"]["payload"]}}


@pytest.mark.parametrize("example", of_kind("response"))
def test_a_response_is_one(example: Example) -> None:
    assert decode_response(example.text.encode()).raw == decode(example.text)


@pytest.mark.parametrize("example", of_kind("log"))
def test_a_line_of_the_log_is_json_with_the_usual_fields(example: Example) -> None:
    assert list(decode(example.text))[:4] == ["timestamp", "level", "component", "message"]
    assert set(decode(example.text)) > FIELDS


@pytest.mark.parametrize("example", of_kind("sql"))
def test_a_query_is_answered_by_a_database_of_the_daemon(example: Example, tmp_path: Path) -> None:
    with opened(tmp_path) as conn:
        cursor = conn.execute(example.text)
        assert cursor.description is not None and cursor.fetchall() == []


# Commands

def calls(script: str) -> Iterator[list[str]]:
    """Yield every simple command of a script that is one of the two programs."""
    for line in script.replace("\\\n", " ").splitlines():
        lexer = shlex.shlex(line, posix=True, punctuation_chars=True)
        lexer.whitespace_split = True
        words = []
        for word in [*lexer, ";"]:
            if word and set(word) <= set("();<>|&"):
                if words and words[0] in ("ductiled", "ductilectl"):
                    yield words
                words = []
            else:
                words.append(word)


PARSERS: Mapping[str, Callable[[list[str]], object]] = {
    "ductilectl": lambda arguments: commandline.parse(arguments, lambda name, known: ""),
    "ductiled": lambda arguments: main._parser().parse_args(arguments),
}


@pytest.mark.parametrize("example", of_kind("sh", "sh run", "sh signed"))
def test_a_command_is_one_that_the_shell_and_the_programs_understand(example: Example, tmp_path: Path) -> None:
    done = shell(example.text, tmp_path, "-n")
    assert (done.returncode, done.stderr) == (0, "")
    for program, *arguments in calls(example.text):
        assert PARSERS[program](arguments) is not None


def test_a_command_that_no_program_understands_would_be_noticed() -> None:
    assert list(calls("ductilectl --json queue | jq '.[].plugin'")) == [["ductilectl", "--json", "queue"]]
    with pytest.raises(SystemExit):
        PARSERS["ductilectl"](["queue", "--all"])


@pytest.mark.parametrize("page", [page for page in PAGES if any(each.kind == "sh run" for each in examples(page))])
def test_what_a_manual_has_one_write_and_run_works(page: str, tmp_path: Path) -> None:
    for each in examples(page):
        if each.kind.startswith("file "):
            file = tmp_path / each.argument
            file.parent.mkdir(parents=True, exist_ok=True, mode=0o755)
            file.write_text(each.text)
        elif each.kind == "sh run":
            done = shell(each.text, tmp_path)
            assert (done.returncode, done.stderr) == (0, ""), each.line
            assert done.stdout
    assert {path.name for path in tmp_path.iterdir()} == {"plugins", "config.yaml", "event.json"}


@pytest.fixture
def python_plugin(tmp_path: Path, forks_ductilectl: None) -> Path:
    """The plugin in Python of the manual, ready to run."""
    directory = tmp_path / "plugins" / "bookmarks"
    directory.mkdir(parents=True, mode=0o755)
    for each in examples("ductile-plugin.7"):
        if each.kind.startswith("file plugins/bookmarks/"):
            (tmp_path / each.argument).write_text(each.text)
    (directory / "run.py").chmod(0o755)
    return directory


def trial(home: Path, *arguments: str) -> tuple[int, dict]:
    (home / "config.yaml").write_text(json.dumps({"plugins": {"bookmarks": {"config": {"directory": str(home)}}}}))
    said = desk.run("--json", "test", "bookmarks", *arguments, home=home, env=environment(home))
    assert said.err == ""
    return said.code, said.json


def test_the_plugin_in_python_keeps_what_it_is_told_and_bears_to_run_again(python_plugin: Path, tmp_path: Path) -> None:
    [event] = [each.text for each in examples("ductile-plugin.7") if each.kind == "file event.json"]
    (tmp_path / "event.json").write_text(event)
    (tmp_path / "state.json").write_text('{"kept": 7}')
    what = ("handle", "--event", str(tmp_path / "event.json"), "--state", str(tmp_path / "state.json"))
    first, second = trial(tmp_path, *what), trial(tmp_path, *what)
    for code, told in (first, second):
        assert (code, told["faults"], told["ignored"], told["stderr"]) == (0, [], [], "")
        assert [each["path"] for each in told["files"]] == ["bookmark.txt"]
        assert told["response"]["state_updates"] == {"kept": 8}
    kept = first[1]["response"]["events"][0]["dedupe_key"]
    assert (tmp_path / f"{kept}.txt").read_text() == "https://example.org/\n"
    # The response that the manual shows is of this very url.
    assert any(kept in each.text for each in examples("ductile-plugin.7") if each.kind == "response")


@pytest.mark.parametrize(("event", "retried", "error"), [
    ('{"type": "x", "payload": {}}', False, "the event has no url"),
])
def test_the_plugin_in_python_gives_up_what_cannot_be_mended(python_plugin: Path, tmp_path: Path, event: str,
                                                             retried: bool, error: str) -> None:
    (tmp_path / "event.json").write_text(event)
    code, told = trial(tmp_path, "handle", "--event", str(tmp_path / "event.json"))
    assert (code, told["retried"], told["error"]) == (1, retried, error)


def test_the_plugin_in_python_is_misconfigured_without_its_directory(python_plugin: Path, tmp_path: Path) -> None:
    run = subprocess.run([python_plugin / "run.py"], input='{"command": "health", "config": {"directory": "/nowhere"}}',
                         capture_output=True, text=True, check=False, timeout=PATIENCE_SECONDS,
                         env=environment(tmp_path))
    assert (run.returncode, run.stdout, run.stderr) == (78, "", "no directory /nowhere\n")


@pytest.mark.parametrize("example", of_kind("library"))
@pytest.mark.parametrize(("status", "expected"), [
    (200, {"status": "ok", "result": "A title"}), (404, {"status": "error", "retry": False}),
    (503, {"status": "error", "retry": True}),
])
def test_the_plugin_that_uses_the_library_works_and_fails_as_it_should(example: Example, status: int,
                                                                       expected: dict) -> None:
    library, names = in_process.library(), {"__name__": "example"}
    exec(compile(example.text, "run.py", "exec"), names)
    site = Site()
    try:
        site.answers["/x"] = body('{"title": "A title"}', status=status)
        answer = library.answer(names["respond"], {"config": {"url": f"{site.url}/{{page}}"},
                                                   "event": {"payload": {"page": "x"}}})
    finally:
        site.close()
    assert {key: answer[key] for key in expected} == expected


@pytest.mark.parametrize(("config", "is_full"), [({"limit": 0}, True), ({"limit": 101}, False)])
def test_the_plugin_in_shell_tells_of_a_disk_over_its_limit(config: dict, is_full: bool, tmp_path: Path) -> None:
    [script] = [each.text for each in examples("ductile-plugin.7") if each.argument == "plugins/low_disk/run.sh"]
    program = tmp_path / "run.sh"
    program.write_text(script)
    program.chmod(0o755)
    hostile = {"x": '"config":{"limit":50},"state":{'}
    given = encode_request(protocol=2, job_id="1", command="poll", config=config, state=hostile, event=None,
                           deadline_at="", context={}, workspace_dir="")
    run = subprocess.run([program], input=given, capture_output=True, check=False, timeout=PATIENCE_SECONDS,
                         env=environment(tmp_path))
    assert (run.returncode, run.stderr) == (0, b"")
    assert [event.type for event in decode_response(run.stdout).events] == ["disk.full"] * is_full


@pytest.mark.skipif(shutil.which("openssl") is None, reason="there is no openssl here")
@pytest.mark.parametrize("example", of_kind("sh signed"))
def test_a_request_by_hand_is_signed_as_the_daemon_wants_it(example: Example, tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    curl = tmp_path / "bin" / "curl"
    curl.write_text(CURL)
    curl.chmod(0o755)
    done = shell(example.text, tmp_path, GITHUB_WEBHOOK_SECRET=SECRET)
    assert (done.returncode, done.stderr) == (0, "")
    option, header, data, body, _ = (tmp_path / "curl.txt").read_text().splitlines()
    name, _, signature = header.partition(": ")
    assert (option, data) == ("-H", "-d")
    head = Head(method="POST", path="/", query="", version="HTTP/1.1", headers=((name, signature),))
    scheme, _, _ = read_scheme(Section({"preset": "github"}, (), []))
    assert verify(body.encode(), head, scheme, [SECRET.encode()])
