"""The youtube_transcript plugin where YouTube refuses, misbehaves or leads elsewhere: what it says, and when again."""

from __future__ import annotations

import json
import re
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.transcripts import ID, LINK, Site, body, encoded, failure, page, player, raw, read, run, run_process, track

JSON3 = json.dumps({"events": [{"tStartMs": 0, "segs": [{"utf8": "words"}]}]})
GONE = "broke off in mid-answer, or its answer is not HTTP"


@pytest.fixture
def site() -> Iterator[Site]:
    running = Site()
    yield running
    running.close()


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    made = tmp_path / "workspace"
    made.mkdir()
    return made


@pytest.mark.parametrize(
    ("status", "reason", "error", "retry"),
    [
        ("LOGIN_REQUIRED", "This video is private", "is private or wants a login: This video is private", False),
        ("LOGIN_REQUIRED", None, "is private or wants a login: LOGIN_REQUIRED", False),
        ("LOGIN_REQUIRED", "Sign in to confirm your age",
         "is private or wants a login: Sign in to confirm your age", False),
        ("ERROR", "This is a private video.", "is private or wants a login: This is a private video.", False),
        ("LOGIN_REQUIRED", "Sign in to confirm you\u2019re not a bot",
         "is private or wants a login: Sign in to confirm you\u2019re not a bot", True),
        ("ERROR", "Video unavailable", "is not available: Video unavailable", False),
        ("ERROR", "Removed\nby\0 the uploader", "is not available: Removed by the uploader", False),
        ("UNPLAYABLE", "Join this channel", "is not available: Join this channel", False),
        ("LIVE_STREAM_OFFLINE", "Premieres in 2 hours", "is not available: Premieres in 2 hours", False),
        (5, None, "is not available: no reason given", False),
    ],
)
def test_what_youtube_refuses_is_said_with_its_reason(site, workspace, status, reason, error, retry):
    site.answers["/watch"] = body(page(player(track(), status=status, reason=reason)))
    assert failure(read(site, workspace)) == (f"video {ID} {error}", retry)
    assert (len(site.requests), list(workspace.iterdir())) == (1, [])


PHRASES = [(429, "429 Too Many Requests"), (500, "500 Internal Server Error"), (503, "503 Service Unavailable")]


@pytest.mark.parametrize(("status", "phrase"), PHRASES)
@pytest.mark.parametrize("path", ["/watch", "/api/timedtext"])
def test_what_may_pass_is_tried_again(site, workspace, path, status, phrase):
    site.has(track())
    site.answers[path] = body("", status=status)
    assert failure(read(site, workspace)) == (f"{site.url} answered {phrase}", True)
    assert list(workspace.iterdir()) == []


@pytest.mark.parametrize(("status", "phrase"), [(404, "404 Not Found"), (410, "410 Gone"), (403, "403 Forbidden")])
def test_what_is_not_there_is_given_up(site, workspace, status, phrase):
    site.answers["/watch"] = body("", status=status)
    assert failure(read(site, workspace)) == (f"video {ID} is not available: {site.url} answered {phrase}", False)
    site.has(track())
    site.answers["/api/timedtext"] = body("", status=status)
    assert failure(read(site, workspace)) == (
        f"the captions of video {ID} cannot be had: {site.url} answered {phrase}", False)


@pytest.mark.parametrize("path", ["/watch", "/api/timedtext"])
def test_a_site_that_takes_too_long_is_left_alone(site, workspace, path):
    site.has(track())
    site.answers[path] = site.trickle
    error, retry = failure(read(site, workspace, timeout=0.3))
    assert re.fullmatch(rf"{site.url} gave no whole answer within 0\.[123]\d* s", error) and retry


@pytest.mark.parametrize("path", ["/watch", "/api/timedtext"])
def test_an_answer_that_is_cut_short_is_tried_again(site, workspace, path):
    site.has(track())
    site.answers[path] = raw(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nWEBVTT")
    assert failure(read(site, workspace)) == (f"{site.url} {GONE}", True)
    assert list(workspace.iterdir()) == []


def test_a_refused_connection_is_tried_again(workspace):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        base = f"http://127.0.0.1:{taken.getsockname()[1]}"
        response = run(encoded(workspace, LINK, {"base_url": base, "ytdlp": False}), workspace)
    assert failure(response) == (f"{base}: Connection refused", True)


@pytest.mark.parametrize("framing", ["Transfer-Encoding: chunked"])
def test_an_answer_without_end_is_refused(site, workspace, framing):
    def flood(handler: object) -> None:
        handler.wfile.write(f"HTTP/1.1 200 OK\r\n{framing}\r\n\r\n".encode())
        block = b"x" * 0x100000
        try:
            for _ in range(30):
                handler.wfile.write(b"100000\r\n" + block + b"\r\n" if "chunked" in framing else block)
        except ConnectionError:
            return

    site.answers["/watch"] = flood
    assert failure(read(site, workspace)) == (f"{site.url} answered with more than 20 MiB", False)


# Whatever the page says, nobody else is asked

ELSEWHERE = [
    "http://127.0.0.1:9/x", "http://10.0.0.1/x", "http://localhost/x", "file:///etc/passwd", "ftp://www.youtube.com/x",
    "https://example.org/x", "//example.org/x", "https://youtube.com.example.org/x", "https://notyoutube.com/x",
    "http://www.youtube.com/x", "https://www.youtube.com:22/x", "https://www.youtube.com@example.org/x",
    "https://user@www.youtube.com/x", "https://example.org\\@www.youtube.com/x", "data:text/vtt,WEBVTT",
    "http://[::1/x", f"https://{'a' * 64}.youtube.com/x",
]


@pytest.mark.parametrize("place", ELSEWHERE)
def test_a_track_elsewhere_is_refused(site, workspace, place):
    site.has(track(url=place))
    error, retry = failure(read(site, workspace))
    assert error.startswith(f"{site.url} leads to another site, which is not followed: ")
    assert (retry, len(site.requests)) == (False, 1)


@pytest.mark.parametrize("place", ELSEWHERE)
def test_a_redirect_elsewhere_is_not_followed(site, workspace, place):
    site.answers["/watch"] = body("", status=302, location=place)
    error, retry = failure(read(site, workspace))
    assert error.startswith(f"{site.url} leads to another site, which is not followed: ")
    assert (retry, len(site.requests)) == (False, 1)


def test_a_redirect_to_nowhere_is_given_up(site, workspace):
    site.answers["/watch"] = body("", status=302)
    assert failure(read(site, workspace)) == (f"video {ID} is not available: {site.url} answered 302 Found", False)


def test_redirects_without_end_are_refused(site, workspace):
    site.answers["/watch"] = body("", status=302, location="/watch?again")
    assert failure(read(site, workspace)) == (f"{site.url} redirects again and again", False)
    assert len(site.requests) == 4


# Pages and captions of another form

NO_DATA = f"the watch page of video {ID} has no data for a player: YouTube may have changed it, install yt-dlp"


@pytest.mark.parametrize(
    "text", ["", "<html>consent</html>", "var ytInitialPlayerResponse = null;", "ytInitialPlayerResponse = {'a': 1};",
             'ytInitialPlayerResponse = {"a": ', 'ytInitialPlayerResponse = {"a":' + "[" * 99_999])
def test_a_page_without_data_is_tried_again(site, workspace, text):
    site.answers["/watch"] = body(text)
    assert failure(read(site, workspace)) == (NO_DATA, True)


@pytest.mark.parametrize(
    "given",
    [
        {}, {"playabilityStatus": 5, "captions": []}, {"captions": {"playerCaptionsTracklistRenderer": "x"}},
        {"captions": {"playerCaptionsTracklistRenderer": {"captionTracks": {"a": 1}}}, "videoDetails": [1]},
        {"captions": {"playerCaptionsTracklistRenderer": {"captionTracks": [5, None, {}, {"languageCode": "en"},
                                                                           {"languageCode": 5, "baseUrl": "/x"}]}}},
    ],
)
def test_a_page_of_another_form_has_no_captions(site, workspace, given):
    site.answers["/watch"] = body(page(given))
    assert failure(read(site, workspace)) == (f"video {ID} has no captions", False)


def test_the_data_for_the_player_is_found_in_its_other_places(site, workspace):
    site.has(track(), json3=JSON3)
    data = json.dumps(player(track()))
    site.answers["/watch"] = body(
        f'if (window.ytInitialPlayerResponse={{}}x) window["ytInitialPlayerResponse"] = {data};')
    # The first that is JSON counts.
    assert failure(read(site, workspace)) == (f"video {ID} has no captions", False)
    site.answers["/watch"] = body(f'window["ytInitialPlayerResponse"]={data};')
    assert read(site, workspace).status == "ok"


@pytest.mark.parametrize(
    "document",
    ["", " ", "<html></html>", "{}", '{"events": 5}', '{"events": [{"segs": "words"}]}', '{"events": [{"segs": [5]}]}',
     '{"events": [{"tStartMs": "soon", "segs": [{"utf8": "a"}]}]}', '{"events": [{"segs": [{"utf8": 5}]}]}',
     '{"events": [{"tStartMs": Infinity, "segs": [{"utf8": "a"}]}]}'])
def test_captions_of_another_form_are_tried_again(site, workspace, document):
    site.has(track(), json3=document, vtt=document)
    assert failure(read(site, workspace)) == (
        f"the captions of video {ID} came empty or in an unknown form: install yt-dlp if they go on so", True)
    assert list(workspace.iterdir()) == []


# As a process of its own

def test_a_process_leaves_a_stalled_site_before_its_deadline(site, workspace):
    site.answers["/watch"] = site.stall
    given = encoded(workspace, LINK, {"base_url": site.url, "ytdlp": False}, seconds_left=2)
    error, retry = failure(run_process(given, workspace))
    assert re.fullmatch(rf"{site.url} gave no whole answer within [01](\.\d+)? s", error) and retry
    assert list(workspace.iterdir()) == []


def test_a_process_says_why_its_workspace_cannot_be_used(site, workspace):
    site.has(track(), json3=JSON3)
    (workspace / "video.json").mkdir()
    given = encoded(workspace, LINK, {"base_url": site.url, "ytdlp": False})
    assert failure(run_process(given, workspace)) == ("the workspace cannot be used: Is a directory", True)


def test_a_wrong_configuration_exits_with_78(workspace):
    given = encoded(workspace, LINK, {"timeout": 0})
    assert failure(run_process(given, workspace, code=78)) == (
        "timeout: expected seconds, over 0, at most 3600", False)


def test_a_process_refuses_what_is_no_request(workspace):
    assert failure(run_process(b'{"config": ', workspace)) == ("the request is not a JSON object", False)
