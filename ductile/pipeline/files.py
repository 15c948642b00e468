"""The directory of pipelines: reads every file in it and gathers all that is wrong."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from ductile import safe_files
from ductile.errors import DuctileError
from ductile.pipeline.spec import PipelineFault, PipelineFile, PipelineSpec, read_specs
from ductile.safe_files import printable
from ductile.yamlfile import read_yaml

_ENDINGS = (".yaml", ".yml")
# Some ten thousand steps; what is larger is something else.
PIPELINES_LIMIT_BYTES = 4 * 1024**2


@dataclass(frozen=True, slots=True, kw_only=True)
class Authored:
    """What the files say, right or wrong, in the order of their names.

    `files` are the names and contents of what was read, for a digest. Problems that the compiler finds are of the
    same kind: the two lists, put together and sorted, are what the operator reads. `unlisted` is the reason why the
    directory cannot be listed, None where it can.
    """

    specs: tuple[PipelineSpec, ...]
    problems: tuple[PipelineFault, ...]
    files: tuple[tuple[str, bytes], ...]
    unlisted: str | None


def read_pipelines(directory: Path, *, must_exist: bool = False) -> Authored:
    """Return every pipeline of every `*.yaml` and `*.yml` in a directory, hidden ones apart.

    One that is not there holds none, unless it `must_exist`. Nothing on disk makes this raise; every fault is a
    problem, or the reason why the directory cannot be listed.
    """
    specs: list[PipelineSpec] = []
    problems: list[PipelineFault] = []
    files: list[tuple[str, bytes]] = []
    try:
        names = os.listdir(directory)
    except OSError as error:
        none_needed = isinstance(error, FileNotFoundError) and not must_exist
        unlisted = None if none_needed else safe_files.why_not_listed(directory, error)
        return Authored(specs=(), problems=(), files=(), unlisted=unlisted)
    # Editors keep their locks and copies under hidden names.
    names = sorted(name for name in names if name.endswith(_ENDINGS) and not name.startswith("."))
    problems += _same_stems(directory, names)
    for name in names:
        path = directory / name
        try:
            content = safe_files.read(path, PIPELINES_LIMIT_BYTES)
            files.append((name, content))
            document = read_yaml(content, printable(path))
        except OSError as error:
            problems.append(PipelineFault(file=printable(path), text=safe_files.why_unreadable(path, error)))
        except DuctileError as error:
            problems.append(PipelineFault(file=printable(path), text=error.lines[0]))
        else:
            found, faults = read_specs(PipelineFile(name=printable(path), document=document))
            specs += found
            problems += faults
    return Authored(specs=tuple(specs), problems=tuple(sorted(problems)), files=tuple(files), unlisted=None)


def _same_stems(directory: Path, names: Sequence[str]) -> Iterator[PipelineFault]:
    """Yield a fault for each two files whose names differ in the ending alone: one of them is a leftover."""
    for name in names:
        other = f"{name.removesuffix('.yml')}.yaml"
        if name.endswith(".yml") and other in names:
            path = printable(directory / name)
            text = f"{path}: {printable(directory / other)} exists, too; remove or rename one of them"
            yield PipelineFault(file=path, text=text)
