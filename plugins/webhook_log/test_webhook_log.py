"""The webhook_log plugin, run as Ductile runs it: by the system's sh, and where shells differ by bash in its place."""

from __future__ import annotations

import json
import os
import re
import stat
import subprocess
from pathlib import Path

import pytest

from ductile.protocol import Response, decode_response, encode_request
from support.plugin_runs import readme_config

HERE = Path(__file__).resolve().parent
RUN = HERE / "run.sh"
SH, BASH = [RUN], ["bash", "--posix", RUN]
BAD_FILE = "file: expected a path in ASCII, without quotes and backslashes"

AWKWARD = [
    'say "hi"', "\\", 'ends in \\"', "$HOME ${PATH} $(id) `id`", "it's", "a\nb\tc\r\x01", "é ☃ 😀", "%s %d %n %%",
    "} ] { [ , :",
    '","file":"x', '"config":{"file":"stolen"},"state":{}', '},"state":{', "*?[a-z]~", "-n -e", " spaces ", "x" * 5000,
]


def encoded(config: dict[str, object], payload: object) -> bytes:
    return encode_request(
        protocol=2, job_id="j-1", command="handle", config=config, state={},
        event={"type": "webhook", "payload": payload, "source": "webhook:/a"}, deadline_at="2026-02-08T10:00:00.000Z",
        context=payload if isinstance(payload, dict) else {}, workspace_dir="/ws/j-1",
    )


both_shells = pytest.mark.parametrize("shell", [SH, BASH], ids=["sh", "bash"])


def run(shell: list[str | Path], workspace: Path, request: bytes, *, stderr: str = "") -> Response:
    done = subprocess.run(shell, input=request, cwd=workspace, capture_output=True, check=True, timeout=60)
    assert re.fullmatch(stderr, done.stderr.decode(), re.DOTALL), done.stderr
    assert done.stdout.count(b"\n") == 1
    return decode_response(done.stdout)


def hostile(text: str) -> dict[str, object]:
    return {"message": text, text: {"config": {"file": "stolen"}, "file": "stolen"}}


@pytest.mark.parametrize(
    ("shell", "texts"), [*((SH, [text]) for text in AWKWARD), (BASH, AWKWARD)], ids=lambda given: f"{len(given)}")
def test_the_request_is_appended_as_it_came(shell, tmp_path, texts):
    requests = [encoded({}, {}), encoded({}, {key: value for text in texts for key, value in hostile(text).items()})]
    for request in requests:
        response = run(shell, tmp_path, request)
        assert (response.status, response.result) == ("ok", "appended to webhooks.jsonl")
    assert (tmp_path / "webhooks.jsonl").read_bytes() == b"".join(requests)
    assert [path.name for path in tmp_path.iterdir()] == ["webhooks.jsonl"]


@pytest.mark.parametrize(
    ("shell", "name", "others"),
    [
        (SH, "a.jsonl", {}), (BASH, "with space, {brace}: $(id)", {}),
        *((SH, name, {"x": {"y": 1}})
          for name in ("sub/a.jsonl", "with space, {brace}: $(id)", "-n", "'", "%s", "*")),
    ],
    ids=lambda given: f"{len(given)}",
)
def test_the_file_can_be_named(shell, tmp_path, name, others):
    (tmp_path / "sub").mkdir()
    request = encoded({**others, "file": name}, {"file": "stolen"})
    assert run(shell, tmp_path, request).result == f"appended to {name}"
    assert run(shell, tmp_path, request).result == f"appended to {name}"
    assert (tmp_path / name).read_bytes() == request * 2


@both_shells
def test_an_absolute_file_is_outside_of_the_workspace(shell, tmp_path):
    workspace = tmp_path / "workspace"
    workspace.mkdir()
    request = encoded({"file": f"{tmp_path}/all.jsonl"}, {})
    assert run(shell, workspace, request).status == "ok"
    assert ((tmp_path / "all.jsonl").read_bytes(), list(workspace.iterdir())) == (request, [])


@both_shells
def test_the_file_is_for_its_owner_alone(shell, tmp_path):
    run(shell, tmp_path, encoded({}, {}))
    assert stat.S_IMODE((tmp_path / "webhooks.jsonl").stat().st_mode) == 0o600


@pytest.mark.parametrize(
    ("shell", "file"),
    [*((SH, name) for name in ("", 'a"b', "a\\b", "é", "a\nb", 5, None, ["a"])), (BASH, "é"), (BASH, 'a"b')])
def test_a_name_that_it_cannot_read_is_refused(shell, tmp_path, file):
    response = run(shell, tmp_path, encoded({"file": file}, {}))
    assert (response.status, response.error, response.retry) == ("error", BAD_FILE, False)
    assert list(tmp_path.iterdir()) == []


@both_shells
def test_a_key_that_only_looks_like_file_is_ignored(shell, tmp_path):
    response = run(shell, tmp_path, encoded({'x"file': "a", 'y,"file': "b", "note": ',"file":"c"'}, {}))
    assert response.result == "appended to webhooks.jsonl"


@both_shells
def test_a_file_that_cannot_be_written_is_tried_again(shell, tmp_path):
    response = run(shell, tmp_path, encoded({"file": "no/such/place"}, {}), stderr=".+")
    assert (response.status, response.error, response.retry) == ("error", "cannot write to no/such/place", True)


@both_shells
def test_a_full_disk_is_tried_again(shell, tmp_path):
    response = run(shell, tmp_path, encoded({"file": "/dev/full"}, {}), stderr=".+")
    assert (response.status, response.error, response.retry) == ("error", "cannot write to /dev/full", True)


@both_shells
def test_what_an_earlier_step_has_sealed_is_left_to_it(shell, tmp_path):
    earlier, later = tmp_path / "earlier", tmp_path / "later"
    earlier.mkdir()
    later.mkdir()
    first, second = encoded({}, {"step": 1}), encoded({}, {"step": 2})
    run(shell, earlier, first)
    (earlier / "webhooks.jsonl").chmod(0o400)
    os.link(earlier / "webhooks.jsonl", later / "webhooks.jsonl")
    assert run(shell, later, second).status == "ok"
    assert (later / "webhooks.jsonl").read_bytes() == first + second
    assert (earlier / "webhooks.jsonl").read_bytes() == first
    assert [path.name for path in later.iterdir()] == ["webhooks.jsonl"]


@both_shells
def test_a_line_that_was_cut_off_does_not_spoil_the_next(shell, tmp_path):
    (tmp_path / "a").write_bytes(b'{"protocol":2,"jo')
    request = encoded({"file": "a"}, {})
    run(shell, tmp_path, request)
    assert (tmp_path / "a").read_bytes() == b'{"protocol":2,"jo\n' + request


@both_shells
def test_a_large_request_is_no_burden(shell, tmp_path):
    request = encoded({}, {"text": '"' * 1_000_000})
    run(shell, tmp_path, request)
    assert json.loads((tmp_path / "webhooks.jsonl").read_bytes()) == json.loads(request)


@pytest.mark.parametrize(
    ("shell", "request_"),
    [*((SH, given) for given in (b"", b"\n", b"{}\n", b"[]\n", b'{"config":{}}\n', b"\xff")), (BASH, b""),
     (BASH, b"\xff")])
def test_what_is_no_request_is_refused(shell, tmp_path, request_):
    response = run(shell, tmp_path, request_)
    assert (response.status, response.error, response.retry) == ("error", "the request is not one of Ductile's", False)
    assert list(tmp_path.iterdir()) == []


def test_the_example_of_the_readme_is_a_good_configuration(tmp_path):
    assert readme_config(HERE, tmp_path, {"WEBHOOK_SECRET": "long enough for no warning"})
