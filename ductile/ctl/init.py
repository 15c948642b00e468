"""`ductilectl init`: a starter configuration that runs as it is."""

from __future__ import annotations

import errno
import json
import os
import secrets
import shlex
import socket
from pathlib import Path

from ductile import shipped
from ductile.config.find import FILE_NAME
from ductile.ctl.session import Session
from ductile.errors import EXIT_IO, EXIT_OK, DuctileError, io_exit_code
from ductile.text import one_line

_DIRECTORY_MODE = 0o755
_FILE_MODE = 0o644
_SECRET_MODE = 0o600
_SECRETS = "secrets.env"
_PIPELINES = ("on-failure.yaml", "on-recovery.yaml", "on-silence.yaml")
_VARIABLE = "ECHO_WEBHOOK_SECRET"
_SECRET_BYTES = 32
_HOST = "127.0.0.1"
_PORT, _LAST_PORT = 8081, 65535
_TEXT = """\
# Ductile's configuration. Relative paths start from the directory of this file.
# All keys are explained in {example}

service:
  log_level: info
  env_file: ./{secrets}

state:
  path: ./data/state.db

workspace:
  path: ./data/ws

# Your own plugins, then the shipped ones; the first directory that has a plugin is used.
plugins_dir:
  - ./plugins
  - {plugins}

# Signed requests from outside, with a secret from {secrets}; the example explains webhooks.
webhooks:
  listen: {listen}
  endpoints:
    - path: /webhooks/echo
      plugin: echo
      secret: ${{{variable}}}
      signature_header: X-Hub-Signature-256

# The directory of the pipelines. The starter pipelines send a notification when a job fails permanently, when a
# schedule is silent, when a plugin cannot be loaded, and when that is over.
pipelines_dir: ./pipelines

# Only plugins that are configured here run. Put secrets into variables: "${{NAME}}".
plugins:
  # `url: log` writes a warning to ductiled's log. The README of notify explains other destinations. The same failure is
  # told once an hour.
  notify:
    config: {{url: log, repeat_after: 1h}}
  echo:
    # Without a success for an hour it is reported as silent.
    schedule: {{every: 5m, alert_after: 1h}}
    config: {{message: hello}}
"""


def init(session: Session, *, directory: Path, port: int = _PORT) -> int:
    """Write a starter configuration into a directory, made if need be; webhooks get `port` or the next free one.

    Raises DuctileError, with nothing done: 77 where that is not permitted, else 74.
    """
    file = directory / FILE_NAME
    secret_file = directory / _SECRETS
    listen = f"{_HOST}:{_free_port(port)}"
    text = _TEXT.format(listen=listen, example=one_line(str(shipped.example_config())),
                        plugins=_quoted(shipped.plugins()), secrets=_SECRETS, variable=_VARIABLE)
    pipelines = {directory / "pipelines" / name: (shipped.pipelines() / name).read_text(encoding="utf-8")
                 for name in _PIPELINES}
    for each in (file, secret_file, *pipelines):
        if os.path.lexists(each):
            raise DuctileError(f"{each} exists already; name another directory, or move it away", exit_code=EXIT_IO)
    made: list[Path] = []
    try:
        _make(directory / "plugins", made)
        _make(directory / "pipelines", made)
        for path, content in pipelines.items():
            _write(path, content, _FILE_MODE, made)
        _write(secret_file, f"{_VARIABLE}={secrets.token_hex(_SECRET_BYTES)}\n", _SECRET_MODE, made)
        _write(file, text, _FILE_MODE, made)
    except (OSError, UnicodeEncodeError) as error:
        _undo(made)
        why = error.strerror if isinstance(error, OSError) else "the path of the shipped plugins is not UTF-8"
        raise DuctileError(f"cannot write {file}: {why}; nothing was written", exit_code=io_exit_code(error)) from error
    if listen != f"{_HOST}:{port}":
        session.err.write(f"port {port} is taken: webhooks.listen is {listen}\n")
    session.emit({"config": str(file), "listen": listen}, _next_steps(file, shlex.quote(str(directory))))
    return EXIT_OK


def _next_steps(file: Path, directory: str) -> str:
    run, look = f"ductiled -c {directory}", f"ductilectl -c {directory} status"
    return (f"Created {file}. Next:\n  {run:{len(look)}}  # runs in the foreground; Ctrl-C stops it\n"
            f"  {look}  # in another terminal\n")


def _free_port(first: int) -> int:
    """Return the first port from there on that nothing listens on; the first where that cannot be found out."""
    for port in range(first, _LAST_PORT + 1):
        try:
            socket.create_server((_HOST, port)).close()
            return port
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                break
    return first


def _quoted(path: Path) -> str:
    """Return a path as YAML's double-quoted text, with nothing in it that is taken for a variable."""
    return json.dumps(str(path).replace("${", "$${"), ensure_ascii=False)


def _make(directory: Path, made: list[Path]) -> None:
    """Make a directory and those above it, noting each that was not there. Raises OSError."""
    missing = [each for each in (directory, *directory.parents) if not each.exists()]
    for each in reversed(missing):
        each.mkdir(mode=_DIRECTORY_MODE)
        made.append(each)


def _write(file: Path, text: str, mode: int, made: list[Path]) -> None:
    with open(file, "x", encoding="utf-8", opener=lambda path, flags: os.open(path, flags, mode)) as writer:
        made.append(file)
        writer.write(text)
        writer.flush()
        os.fsync(writer.fileno())


def _undo(made: list[Path]) -> None:
    for path in reversed(made):
        try:
            path.unlink() if path.is_file() else path.rmdir()
        except OSError:
            # Somebody else has put something there meanwhile: it is not ours to remove.
            continue
