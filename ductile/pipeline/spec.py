"""Reads pipelines as their authors wrote them: from a document to a tree of steps, with every problem."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from ductile.config.values import as_name
from ductile.pipeline import templates
from ductile.protocol import ANNOUNCED, reserved_prefix
from ductile.validation import Path, Problem, Section, as_text, kind_of, nearest
from ductile.yamlfile import Document


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class PipelineFault:
    """One problem in a file of pipelines; faults sort in the order of the files.

    `text` is the whole line for the operator. `line` is 0 if the whole file is wrong.
    """

    file: str
    line: int = 0
    column: int = 0
    text: str

    def __str__(self) -> str:
        return self.text


@dataclass(frozen=True, slots=True, kw_only=True)
class PipelineFile:
    """A file of pipelines, known to the operator as `name`."""

    name: str
    document: Document = field(repr=False)

    def fault(self, problem: Problem) -> PipelineFault:
        """Return a problem in this file as a fault."""
        line, column = self.document.where(problem.path, problem.at_key)
        number = self.document.source(problem.path)
        return PipelineFault(file=self.document.names[number - 1] if number else self.name, line=line, column=column,
                             text=self.document.locate(self.name, problem))

    def location(self, path: Path) -> str:
        """Return where a value is: `file:line:column`."""
        return self.document.place(self.name, path)


@dataclass(frozen=True, slots=True, kw_only=True)
class Uses:
    """A step that runs a plugin; `command` is None for the default, `template` is its `with`, None if it has none."""

    path: Path
    id: str | None
    plugin: str
    command: str | None
    deep_copy: bool
    template: Mapping[str, Any] | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """A step that runs the steps of another pipeline."""

    path: Path
    id: str | None
    pipeline: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Steps:
    """Steps one after another. An invalid step is read as an empty one, so that checking goes on."""

    path: Path
    id: str | None
    steps: tuple[Step, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Split:
    """Steps side by side."""

    path: Path
    id: str | None
    branches: tuple[Step, ...]


Step = Uses | Call | Steps | Split


@dataclass(frozen=True, slots=True, kw_only=True)
class PipelineSpec:
    """One pipeline as written, at `path` in its file. `name` is empty if it is missing or invalid."""

    file: PipelineFile
    path: Path
    name: str
    on: str | None
    steps: tuple[Step, ...]

    def fault(self, path: Path, text: str) -> PipelineFault:
        """Return a problem at a path of the file as a fault."""
        return self.file.fault(Problem(path, text))


def walk(steps: tuple[Step, ...]) -> Iterator[Step]:
    """Yield every step at every level, in the order of the file."""
    for step in steps:
        yield step
        if isinstance(step, Steps):
            yield from walk(step.steps)
        elif isinstance(step, Split):
            yield from walk(step.branches)


def read_specs(file: PipelineFile) -> tuple[list[PipelineSpec], list[PipelineFault]]:
    """Return the pipelines of a file, one or a list under `pipelines`, and every problem with them.

    An invalid pipeline is returned, too, with what was valid in it. The limit on nested steps is YAML's on levels.
    """
    problems: list[Problem] = list(file.document.problems)
    value = file.document.value
    specs: list[PipelineSpec] = []
    if not value and not isinstance(value, list) and not problems:
        problems.append(Problem((), "expected a pipeline, or a list of them under 'pipelines', got an empty file"))
    elif not isinstance(value, Mapping):
        problems.append(Problem((), f"expected a mapping, got {kind_of(value)}"))
    elif "pipelines" in value:
        specs = _read_list(file, Section(value, (), problems))
    else:
        specs = [_read_pipeline(file, Section(value, (), problems))]
    return specs, [file.fault(problem) for problem in problems]


def read_inline(file: PipelineFile) -> tuple[list[PipelineSpec], list[PipelineFault]]:
    """Return the pipelines in the list `pipelines` of a configuration, and every problem with them."""
    problems: list[Problem] = []
    value = file.document.value
    if not isinstance(value, Mapping) or value.get("pipelines") is None:
        return [], []
    specs = _read_list(file, Section({"pipelines": value["pipelines"]}, (), problems))
    return specs, [file.fault(problem) for problem in problems]


def _read_list(file: PipelineFile, root: Section) -> list[PipelineSpec]:
    value = root.raw("pipelines")
    if not isinstance(value, list):
        root.wrong("pipelines", f"expected a list, got {kind_of(value)}")
        value = []
    elif not value:
        root.wrong("pipelines", "expected at least one pipeline, got an empty list")
    specs = []
    for index, item in enumerate(value):
        path = ("pipelines", index)
        if isinstance(item, Mapping):
            specs.append(_read_pipeline(file, Section(item, path, root.problems)))
        else:
            root.problems.append(Problem(path, f"expected a mapping, got {kind_of(item)}"))
    root.finish()
    return specs


def _read_pipeline(file: PipelineFile, section: Section) -> PipelineSpec:
    if not section.path:
        # Makes the key known, so that a misspelt one gets a hint.
        section.has("pipelines")
    if not section.has("name"):
        section.require("name")
    if "steps" not in section:
        section.require("steps")
    spec = PipelineSpec(
        file=file,
        path=section.path,
        name=section.read("name", "", as_name),
        on=section.read("on", None, _as_trigger),
        steps=_read_steps(section, "steps", "step") if "steps" in section else (),
    )
    section.finish()
    return spec


def _as_trigger(value: Any) -> str:
    event_type = as_text(value)
    if "*" in event_type:
        raise ValueError(f"expected one event type, as types match exactly and not by patterns, got {event_type!r}")
    if reserved_prefix(event_type) is not None and event_type not in ANNOUNCED:
        hint = nearest(event_type, ANNOUNCED)
        raise ValueError(f"expected a plugin's event or one of {', '.join(ANNOUNCED)}, got {event_type!r}{hint}")
    return event_type


def _read_steps(section: Section, key: str, what: str) -> tuple[Step, ...]:
    value = section.raw(key)
    if not isinstance(value, list):
        section.wrong(key, f"expected a list, got {kind_of(value)}")
        return ()
    if not value:
        section.wrong(key, f"expected at least one {what}, got an empty list")
    return tuple(_read_step(item, (*section.path, key, index), section.problems) for index, item in enumerate(value))


def _read_step(value: Any, path: Path, problems: list[Problem]) -> Step:
    if not isinstance(value, Mapping):
        problems.append(Problem(path, f"expected a mapping, got {kind_of(value)}"))
        return Steps(path=path, id=None, steps=())
    section = Section(value, path, problems)
    step_id = section.read("id", None, as_name)
    kinds = [kind for kind in _READERS if kind in value]
    if len(kinds) != 1:
        section.wrong(None, f"expected exactly one of {', '.join(_READERS)}, got {' and '.join(kinds) or 'none'}")
    steps = [_READERS[kind](section, step_id) for kind in kinds]
    if kinds and "uses" not in kinds:
        problems += (Problem((*path, key), "belongs to 'uses' only", at_key=True) for key in _OF_USES if key in value)
    for key in (*_READERS, *_OF_USES):
        section.has(key)
    section.finish()
    return steps[0] if len(steps) == 1 else Steps(path=path, id=step_id, steps=())


def _read_uses(section: Section, step_id: str | None) -> Step:
    plugin = _read_name(section, "uses")
    problems_before = len(section.problems)
    command = section.read("command", None, as_text)
    deep_copy = section.read("workspace", False, _as_deep_copy)
    template = section.read("with", None, _as_template)
    if template is not None:
        section.problems += templates.faults(template, (*section.path, "with"))
    # Otherwise the default command would be checked in place of an invalid one.
    if not plugin or len(section.problems) > problems_before:
        return Steps(path=section.path, id=step_id, steps=())
    return Uses(path=section.path, id=step_id, plugin=plugin, command=command, deep_copy=deep_copy,
                template=template or None)


def _read_call(section: Section, step_id: str | None) -> Step:
    pipeline = _read_name(section, "call")
    if not pipeline:
        return Steps(path=section.path, id=step_id, steps=())
    return Call(path=section.path, id=step_id, pipeline=pipeline)


def _read_group(section: Section, step_id: str | None) -> Step:
    return Steps(path=section.path, id=step_id, steps=_read_steps(section, "steps", "step"))


def _read_split(section: Section, step_id: str | None) -> Step:
    return Split(path=section.path, id=step_id, branches=_read_steps(section, "split", "branch"))


def _read_name(section: Section, key: str) -> str:
    """Return a step's name of a plugin or pipeline, empty if it is no string; the compiler knows the names."""
    if not section.has(key):
        section.wrong(key, "expected a string, got null")
    return section.text(key)


def _as_template(value: Any) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise ValueError(f"expected a mapping, got {kind_of(value)}")
    return value


def _as_deep_copy(value: Any) -> bool:
    if value != "copy":
        raise ValueError(f"expected copy (leave the key out for hard links), got {kind_of(value)}")
    return True


_READERS = {"uses": _read_uses, "call": _read_call, "steps": _read_group, "split": _read_split}
_OF_USES = ("command", "workspace", "with")
