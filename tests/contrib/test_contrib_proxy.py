"""The configurations of proxies in contrib/proxy, each run in front of a daemon."""

from __future__ import annotations

import shutil
import signal
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from support import hooks
from support.daemon import RealDaemon
from support.wire import SECRET, Answer, Wire, head, signature, signed

PROXY = Path(__file__).resolve().parents[2] / "contrib" / "proxy"
ENDPOINT = "/webhooks/a"
# Clients and proxy are both on this machine: the client has an address of its own.
CLIENT = "127.0.0.2"
_SECONDS = 20.0


def changed(name: str, replacements: dict[str, str], without: tuple[str, ...] = ()) -> str:
    """Return a configuration with some texts replaced, each of which is there, and without lines that begin so."""
    text = (PROXY / name).read_text(encoding="utf-8")
    for old, new in replacements.items():
        assert old in text, old
        text = text.replace(old, new)
    return "".join(line for line in text.splitlines(keepends=True) if not line.strip().startswith(without or ("\0",)))


def nginx(home: Path, port: int, upstream: int) -> list[str]:
    server = changed("nginx.conf", {"127.0.0.1:8081 max_fails": f"127.0.0.1:{upstream} max_fails",
                                    "listen 443 ssl;": f"listen 127.0.0.1:{port};"}, ("listen [::]", "ssl_"))
    paths = "".join(f"{kind}_temp_path {home}/{kind};\n"
                    for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"))
    (home / "nginx.conf").write_text(
        f"daemon off; master_process off; pid {home}/pid; error_log stderr;\nevents {{}}\n"
        f"http {{ access_log off;\n{paths}{server}}}\n")
    return ["nginx", "-c", f"{home}/nginx.conf", "-p", str(home), "-e", "stderr"]


def caddy(home: Path, port: int, upstream: int) -> list[str]:
    version = subprocess.run(["caddy", "version"], capture_output=True, text=True, check=True, timeout=_SECONDS).stdout
    buffering = "buffer_requests" if version.lstrip("v").startswith("2.6.") else "request_buffers 1MB"
    text = changed("Caddyfile", {"request_buffers 1MB": buffering, "hooks.example.org {": f"http://:{port} {{",
                                 "reverse_proxy 127.0.0.1:8081": f"reverse_proxy 127.0.0.1:{upstream}"})
    (home / "Caddyfile").write_text("{\n\tadmin off\n}\n" + text)
    return ["caddy", "run", "--adapter", "caddyfile", "--config", f"{home}/Caddyfile"]


def haproxy(home: Path, port: int, upstream: int) -> list[str]:
    text = changed("haproxy.cfg", {"bind :443 ssl crt /etc/haproxy/hooks.example.org.pem": f"bind 127.0.0.1:{port}",
                                   "server ductiled 127.0.0.1:8081": f"server ductiled 127.0.0.1:{upstream}"})
    (home / "haproxy.cfg").write_text(text)
    return ["haproxy", "-db", "-f", f"{home}/haproxy.cfg"]


@contextmanager
def running(command: list[str], home: Path, port: int) -> Iterator[None]:
    """Run a proxy until the block ends."""
    with subprocess.Popen(command, cwd=home, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, env={"HOME": str(home), "PATH": "/usr/sbin:/usr/bin:/sbin:/bin"}
                          ) as process:
        try:
            while True:
                assert process.poll() is None, process.stdout.read().decode()
                with socket.socket() as probe:
                    if probe.connect_ex(("127.0.0.1", port)) == 0:
                        break
            yield
        finally:
            process.terminate()
            process.communicate(timeout=_SECONDS)


def ask(port: int, request: bytes) -> Answer:
    with Wire(("127.0.0.1", port), source=CLIENT) as wire:
        wire.send(request)
        return wire.answer()


def post(body: bytes, path: str = ENDPOINT) -> bytes:
    return signed(body, "Connection: close", path=path)


def chunked(body: bytes) -> bytes:
    return head("POST", ENDPOINT, "Transfer-Encoding: chunked", f"X-Sig: {signature(body)}", "Connection: close") + (
        b"%x\r\n%s\r\n0\r\n\r\n" % (len(body), body))


@pytest.mark.parametrize(("proxy", "waits"), [(nginx, False), (caddy, True), (haproxy, True)])
def test_a_proxy_forwards_the_endpoints_alone_and_names_the_client(
        daemon: RealDaemon, tmp_path: Path, proxy: Callable[[Path, int, int], list[str]], waits: bool) -> None:
    name = proxy.__name__
    if shutil.which(name, path="/usr/sbin:/usr/bin:/sbin:/bin") is None:
        pytest.skip(f"{name} is not installed")
    home = tmp_path / name
    home.mkdir(mode=0o777)
    hooks.install_waiting_hook(daemon)
    port, upstream = hooks.free_port(), hooks.free_port()
    daemon.environ["HOOK_SECRET"] = SECRET
    daemon.configure(webhooks={
        "listen": f"127.0.0.1:{upstream}", "trusted_proxies": ["127.0.0.1", "::1"],
        "endpoints": [{"path": ENDPOINT, "plugin": "hook", "secret": "${HOOK_SECRET}", "signature_header": "X-Sig"}]})
    daemon.start()
    with running(proxy(home, port, upstream), home, port):
        body = b'{"a": "' + b"x" * 100_000 + b'"}'
        assert [ask(port, request).status for request in (post(body), chunked(body), post(b"{}", "/healthz"))] == [
            202, 202, 404]
        assert ask(port, head("GET", "/healthz", "Connection: close")).status == 404
        assert ask(port, head("POST", ENDPOINT, "Content-Length: 2", "X-Sig: 0", "X-Forwarded-For: 192.0.2.9",
                              "Connection: close") + b"{}").status == 403
        daemon.await_log("webhook refused", address=CLIENT, status=403)
        if waits:
            daemon.send(signal.SIGTERM)
            daemon.ends(0)
            statuses: list[int] = []
            sender = threading.Thread(target=lambda: statuses.append(ask(port, post(b"{}")).status))
            sender.start()
            daemon.start()
            sender.join(_SECONDS)
            assert statuses == [202]
    daemon.stop()
