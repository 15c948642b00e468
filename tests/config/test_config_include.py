"""What a configuration of several files says, and where its problems are."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from config.config_files import ENVIRON
from ductile.config.load import Loaded, load


def loaded(directory: Path, **files: str) -> Loaded:
    """Write `NAME_yaml` files, `sub_NAME_yaml` in a directory of their own, and load the first."""
    for name, text in files.items():
        path = directory / name.replace("sub_", "sub/").replace("_yaml", ".yaml")
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    return load(directory / "config.yaml", ENVIRON)


def lines(directory: Path, **files: str) -> list[str]:
    found = loaded(directory, **files)
    return [found.locate(problem).replace(f"{directory}/", "") for problem in found.problems]


def test_mappings_are_merged_by_key_and_lists_appended(tmp_path: Path) -> None:
    found = loaded(
        tmp_path,
        config_yaml="include: [more.yaml, sub/last.yaml]\nservice: {name: mine}\nplugins: {echo: {}}\n"
                    "routes: [{from: echo, event_type: a, to: note}]\n",
        more_yaml="service: {max_hops: 7}\nplugins:\n  note: {}\nroutes: [{from: note, event_type: b, to: echo}]\n",
        sub_last_yaml="plugins: {last: {}}\nroutes: [{from: last, event_type: c, to: echo}]\nworkspace: {ttl: 1h}\n")
    assert found.problems == ()
    config = found.config
    assert (config.service.name, config.service.max_hops, config.workspace_ttl) == ("mine", 7, 3600)
    assert list(config.plugins) == ["echo", "note", "last"]
    assert [route.event_type for route in config.routes] == ["a", "b", "c"]
    assert [name for name, _ in found.files] == ["config.yaml", "more.yaml", "sub/last.yaml"]
    assert found.files[1][1] == (tmp_path / "more.yaml").read_bytes()


def test_paths_in_a_file_are_relative_to_that_file(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "env").write_text("NAME=value\n")
    (tmp_path / "sub" / "env").chmod(0o600)
    found = loaded(
        tmp_path, config_yaml="include: [sub/a.yaml]\nplugins_dir: [one]\nplugins: {echo: {}}\n",
        sub_a_yaml="plugins_dir: [two, /three, ../four]\npipelines_dir: pipes\nworkspace: {path: ws}\n"
                   "service: {env_file: env, log: the.log}\ninclude: [b.yaml]\n",
        sub_b_yaml="plugins: {note: {config: {name: '${NAME}'}}}\n")
    sub, config = tmp_path / "sub", found.config
    assert found.problems == ()
    assert config.plugins_dirs == (tmp_path / "one", sub / "two", Path("/three"), sub / "../four")
    assert (config.pipelines_dir, config.workspace_path) == (sub / "pipes", sub / "ws")
    assert (config.service.env_file, config.service.log) == (sub / "env", sub / "the.log")
    assert config.plugins["note"].config == {"name": "value"}
    assert config.state_path == tmp_path / "data/state.db"


def test_each_problem_has_the_file_that_it_is_in(tmp_path: Path) -> None:
    assert lines(
        tmp_path, config_yaml="include: [a.yaml, b.yaml]\nplugins: {echo: {}}\nroutes:\n  - {from: echo, to: echo}\n",
        a_yaml="plugins:\n  note:\n    timeouts: {poll: 5}\nsrvice: {}\n",
        b_yaml="# this\nroutes:\n  - {from: nobody, event_type: a, to: echo}\n  - 5\nservice: {max_hops: 0}\n",
    ) == [
        "config.yaml:4:5: routes[0]: the key 'event_type' is missing",
        "a.yaml:3:22: plugins.note.timeouts.poll: expected a duration such as 30s, got 5",
        "a.yaml:4:1: srvice: unknown key (did you mean 'service'?)",
        "b.yaml:3:12: routes[1].from: expected a configured plugin, got 'nobody'",
        "b.yaml:4:5: routes[2]: expected a mapping, got 5",
        "b.yaml:5:21: service.max_hops: expected a number from 1 to 1000, got 0",
    ]


@pytest.mark.parametrize(("config", "more", "expected"), [
    ("plugins: {echo: {}}", "plugins:\n  note: {}\n  echo: {}\n",
     "config.yaml:2:11: plugins.echo: expected once, got it again at more.yaml:3:3"),
    ("plugins: {echo: {}}\nservice:\n  name: mine", "service: {name: yours}\n",
     "config.yaml:4:3: service.name: expected once, got it again at more.yaml:1:11"),
    ("plugins: {echo: {}}\nplugins_dir: a", "plugins_dir: b\n",
     "config.yaml:3:1: plugins_dir: expected once, got it again at more.yaml:1:1"),
    ("plugins: {echo: {}}", "state: {path: x.db}\n",
     "config.yaml:1:11: include[0]: more.yaml:1:1: state: belongs into the main file, where commands look for the"
     " database"),
    ("plugins: {echo: {}}", "", "config.yaml:1:11: include[0]: more.yaml: expected a mapping, got an empty file"),
    ("plugins: {echo: {}}", "[a]", "config.yaml:1:11: include[0]: more.yaml: expected a mapping, got a list"),
    ("plugins: {echo: {}}", "service: {name: a}\nservice: {log: b}\n",
     "config.yaml:1:11: include[0]: more.yaml:2:1: service: repeated key, also at line 1, column 1"),
    ("plugins: {echo: {}}", "include: other.yaml\n",
     "config.yaml:1:11: include[0]: more.yaml:1:10: include: expected a list of files, got 'other.yaml'"),
    ("plugins: {echo: {}}", "service: {name: a}\ninclude: [gone.yaml]\n",
     "more.yaml:2:11: include[1]: gone.yaml: cannot be read: No such file or directory"),
    ("plugins: {echo: {}}", "service: {name: a}\ninclude: [more.yaml]\n",
     "more.yaml:2:11: include[1]: expected no circle, got more.yaml -> more.yaml"),
    ("plugins: {echo: {}}", "service: {name: a}\ninclude: [./config.yaml]\n",
     "more.yaml:2:11: include[1]: expected no circle, got config.yaml -> more.yaml -> config.yaml"),
])
def test_what_cannot_be_merged_is_named_with_both_places(
        tmp_path: Path, config: str, more: str, expected: str) -> None:
    found = lines(tmp_path, config_yaml=f"include: [more.yaml]\n{config}\n", more_yaml=more)
    assert found == [expected]


@pytest.mark.parametrize(("include", "expected"), [
    ("a.yaml", "1:10: include: expected a list of files, got 'a.yaml'"),
    ("[5]", "1:11: include[0]: expected a string, got 5"),
    ("['${SECRET}.yaml']", "1:11: include[0]: expected a path without variables"),
    ("[a.yaml, ./a.yaml]", "1:19: include[1]: expected each file once, got a.yaml again"),
    ("[sub/]", "1:11: include[0]: expected the path of a file, got 'sub/', which is a directory"),
])
def test_an_entry_that_names_no_file_is_a_problem(tmp_path: Path, include: str, expected: str) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "a.yaml").write_text("service: {name: a}\n")
    found = lines(tmp_path, config_yaml=f"include: {include}\nplugins: {{echo: {{}}}}\n")
    assert found == [f"config.yaml:{expected}"]


@pytest.mark.parametrize(("depth", "allowed"), [(8, True), (9, False)])
def test_files_include_each_other_eight_deep(tmp_path: Path, depth: int, allowed: bool) -> None:
    for number in range(1, depth + 1):
        more = f"include: [f{number + 1}.yaml]\n" if number < depth else ""
        (tmp_path / f"f{number}.yaml").write_text(f"{more}plugins: {{p{number}: {{}}}}\n")
    found = loaded(tmp_path, config_yaml="include: [f1.yaml]\n")
    assert len(found.config.plugins) == (depth if allowed else 8)
    assert [problem.text for problem in found.problems] == (
        [] if allowed else ["expected at most 8 levels of files that include others, got more"])


def test_an_included_file_is_not_where_workspaces_are(tmp_path: Path) -> None:
    (line,) = lines(tmp_path, config_yaml="include: [sub/a.yaml]\nworkspace: {path: sub}\nplugins: {echo: {}}\n",
                    sub_a_yaml="service: {name: a}\n")
    assert line.startswith("config.yaml:2:19: workspace.path: expected a directory for workspaces alone, apart from an"
                           " included file")
    assert os.path.isabs(loaded(tmp_path).config.workspace_path)
