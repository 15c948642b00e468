"""Reads every file in the directory of pipelines and collects all problems."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from ductile import safe_files
from ductile.errors import DuctileError
from ductile.pipeline.spec import PipelineFault, PipelineFile, PipelineSpec, read_inline, read_specs
from ductile.safe_files import printable
from ductile.yamlfile import read_yaml

_ENDINGS = (".yaml", ".yml")
# About ten thousand steps.
PIPELINES_LIMIT_BYTES = 4 * 1024**2


@dataclass(frozen=True, slots=True, kw_only=True)
class Authored:
    """The content of the files, valid or not, in the order of their names.

    `files` are the names and contents that were read, for a digest. The operator sees `problems` sorted together with
    those of the compiler. `unlisted` says why the directory cannot be listed, or is None.
    """

    specs: tuple[PipelineSpec, ...]
    problems: tuple[PipelineFault, ...]
    files: tuple[tuple[str, bytes], ...]
    unlisted: str | None


def read_pipelines(directory: Path, *, config: PipelineFile | None = None, must_exist: bool = False) -> Authored:
    """Return the pipelines of a configuration, and of each `*.yaml` and `*.yml` file in a directory that is not hidden.

    A missing directory is an empty one unless it `must_exist`. Nothing on disk makes this raise.
    """
    specs, problems = ([], []) if config is None else read_inline(config)
    files: list[tuple[str, bytes]] = []
    try:
        names = os.listdir(directory)
    except OSError as error:
        none_needed = isinstance(error, FileNotFoundError) and not must_exist
        unlisted = None if none_needed else safe_files.why_not_listed(directory, error)
        return Authored(specs=tuple(specs), problems=tuple(sorted(problems)), files=(), unlisted=unlisted)
    # Editors give hidden names to their locks and copies.
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
    """Yield a fault for each two files whose names differ only in the suffix: one is probably a leftover."""
    for name in names:
        other = f"{name.removesuffix('.yml')}.yaml"
        if name.endswith(".yml") and other in names:
            path = printable(directory / name)
            text = f"{path}: {printable(directory / other)} exists, too; remove or rename one of them"
            yield PipelineFault(file=path, text=text)
