"""The youtube_transcript plugin, in this process and in one of its own, and a stand-in for YouTube that misbehaves."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from ductile.protocol import Response, decode_response, encode_request
from ductile.units import utc_text
from support import in_process

RUN = Path(__file__).resolve().parents[2] / "plugins" / "youtube_transcript" / "run.py"
# This Python first: one behind a wrapper starts slowly.
ENVIRON = {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
ID = "dQw4w9WgXcQ"
LINK = f"https://www.youtube.com/watch?v={ID}"
DETAILS = {"videoId": ID, "title": "Talk: \"Steel\" & more", "lengthSeconds": "212", "author": "The Forge",
           "channelId": "UCuAXFkgsw1L7xaCfnd5JJOw", "isLiveContent": False}

Answer = Callable[[BaseHTTPRequestHandler], None]


class Site:
    """An HTTP server with an answer for each path, or else 404, that records the requested paths with their queries."""

    def __init__(self) -> None:
        self.answers: dict[str, Answer] = {}
        self.requests: list[str] = []
        self.headers: list[dict[str, str]] = []
        self._over = threading.Event()
        site = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                site.requests.append(self.path)
                site.headers.append({key.lower(): text for key, text in self.headers.items()})
                path, _, query = self.path.partition("?")
                form = next((part for part in query.split("&") if part.startswith("fmt=")), "")
                site.answers.get(f"{path}?{form}", site.answers.get(path, body("not here", status=404)))(self)

            def log_message(self, *_: object) -> None:
                """Keep quiet."""

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._http.daemon_threads = False
        self._thread = threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.005})
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._http.server_address[1]}"

    def close(self) -> None:
        """Release every request and stop."""
        self._over.set()
        self._http.shutdown()
        self._http.server_close()
        self._thread.join()

    def has(self, *tracks: dict[str, object], **json3_or_vtt: str) -> None:
        """Serve a video with these tracks; the documents are given by format."""
        self.answers["/watch"] = body(page(player(*tracks)))
        for form, document in json3_or_vtt.items():
            self.answers[f"/api/timedtext?fmt={form}"] = body(document)

    def stall(self, _: BaseHTTPRequestHandler) -> None:
        """Send nothing."""
        self._over.wait(30)

    def trickle(self, handler: BaseHTTPRequestHandler) -> None:
        """Send one byte now and then."""
        handler.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 9999\r\n\r\n")
        try:
            while not self._over.wait(0.02):
                handler.wfile.write(b"x")
        except ConnectionError:
            return


def body(text: str, *, status: int = 200, location: str | None = None) -> Answer:
    """Return an answer with this text."""
    def give(handler: BaseHTTPRequestHandler) -> None:
        data = text.encode("utf-8", "surrogatepass")
        handler.send_response(status)
        handler.send_header("Content-Length", str(len(data)))
        if location is not None:
            handler.send_header("Location", location)
        handler.end_headers()
        try:
            handler.wfile.write(data)
        except ConnectionError:
            return

    return give


def raw(data: bytes) -> Answer:
    """Return an answer that sends these bytes and closes the connection."""
    return lambda handler: handler.wfile.write(data) and None


def track(language: str = "en", *, automatic: bool = False, url: str | None = None) -> dict[str, object]:
    """Return a caption track as a watch page lists it."""
    kind = "&kind=asr" if automatic else ""
    return {
        "baseUrl": f"/api/timedtext?v={ID}&ei=x%2Cy&signature=A.B&lang={language}{kind}" if url is None else url,
        "name": {"simpleText": f"{language}{' (auto-generated)' * automatic}"}, "vssId": f".{language}",
        "languageCode": language, "isTranslatable": True, "trackName": "", **({"kind": "asr"} if automatic else {}),
    }


def player(*tracks: dict[str, object], status: str = "OK", reason: str | None = None,
           details: dict[str, object] | None = None) -> dict[str, object]:
    """Return the player data of a watch page."""
    playability = {"status": status, "playableInEmbed": True} | ({"reason": reason} if reason else {})
    captions = {"playerCaptionsTracklistRenderer": {"captionTracks": list(tracks), "audioTracks": [{}]}}
    return {"responseContext": {"serviceTrackingParams": []}, "playabilityStatus": playability,
            "videoDetails": DETAILS if details is None else details} | ({"captions": captions} if tracks else {})


def page(given: object) -> str:
    """Return a watch page as YouTube writes it."""
    # A brace and a semicolon within a text are not the end of the object.
    data = {**given, "x": "};var b = {"} if isinstance(given, dict) else given
    return (
        '<!DOCTYPE html><html lang="en"><head><title>Talk - YouTube</title><script nonce="a1">var ytcfg={};'
        "window.ytplayer={};ytInitialPlayerResponse = null;</script></head><body><div id=\"player\"></div>"
        f'<script nonce="a1">var ytInitialPlayerResponse = {json.dumps(data)};'
        'var meta = document.createElement("meta");'
        "</script><script>var ytInitialData = {\"contents\": {}};</script></body></html>")


def encoded(workspace: Path, url: object, config: object, *, command: str = "handle",
            seconds_left: float = 60) -> bytes:
    """Return a request as Ductile writes it."""
    return encode_request(
        protocol=2, job_id="j-1", command=command, config=config, state={},
        event={"type": "discord.link", "payload": {"url": url}, "source": "discord"},
        deadline_at=utc_text(datetime.now(UTC) + timedelta(seconds=seconds_left)), context={},
        workspace_dir=os.fspath(workspace))


def run(request: bytes, workspace: Path, *, environ: dict[str, str] = ENVIRON) -> Response:
    """Run the plugin in this process, in a workspace."""
    return in_process.answer(RUN.parent, request, workspace, environ)


def run_process(request: bytes, workspace: Path, *, environ: dict[str, str] = ENVIRON, code: int = 0) -> Response:
    """Run the plugin as a process, kill leftover processes as Ductile does, and return its response."""
    with subprocess.Popen([RUN], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environ,
                          cwd=workspace, start_new_session=True) as process:
        try:
            printed, complaints = process.communicate(request, timeout=60)
        finally:
            end_group(process.pid)
    assert (process.returncode, complaints) == (code, b"")
    return decode_response(printed)


def end_group(pid: int) -> None:
    try:
        os.killpg(pid, signal.SIGKILL)
    except ProcessLookupError:
        return


def read(site: Site, workspace: Path, *, link: object = LINK, **config: object) -> Response:
    """Run the plugin on a video of the site."""
    return run(encoded(workspace, link, {"base_url": site.url, "ytdlp": False, **config}), workspace)


def failure(response: Response) -> tuple[str | None, bool]:
    """Return the error of a failed response and whether it is retried."""
    assert (response.status, response.events) == ("error", ())
    return response.error, response.retry
