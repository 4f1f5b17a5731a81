"""What a release stands on: one version, a changelog, workflows and forms that are whole."""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

import latentart

ROOT = Path(__file__).parents[1]
WORKFLOWS = sorted((ROOT / ".github/workflows").glob("*.yml"))
FORMS = [path for path in sorted((ROOT / ".github/ISSUE_TEMPLATE").glob("*.yml")) if path.stem != "config"]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
CONTEXTS = {"github", "matrix", "runner"}
FIELDS = {"name", "if", "uses", "with", "run", "env", "id"}


def read(path: Path) -> Any:
    """Return the content of a YAML file, with the key `on` as text."""
    text = path.read_text(encoding="utf-8")
    return yaml.safe_load(re.sub(r"^on:", '"on":', text, flags=re.MULTILINE))


def test_the_version_is_that_of_changelog_and_citation() -> None:
    """The newest entry is this version's, and README cites it."""
    entries = re.findall(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.MULTILINE)

    assert entries[0] == latentart.__version__
    assert f"version = {{{latentart.__version__}}}" in (ROOT / "README.md").read_text(encoding="utf-8")
    assert len(set(entries)) == len(entries)


def test_the_deposit_says_what_the_package_says() -> None:
    """License and keywords are one."""
    deposit = json.loads((ROOT / ".zenodo.json").read_text(encoding="utf-8"))

    assert deposit["license"] == PROJECT["project"]["license"]
    assert deposit["keywords"] == PROJECT["project"]["keywords"]


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_a_workflow_is_whole(path: Path) -> None:
    """Every job has a runner, a limit of time and few rights; every step is one action with a version, or one line."""
    flow = read(path)

    assert set(flow) <= {"name", "on", "permissions", "concurrency", "jobs"}
    assert flow["permissions"] == {"contents": "read"}
    for job in flow["jobs"].values():
        assert {"runs-on", "timeout-minutes", "steps"} <= set(job)
        assert {job["needs"]} <= set(flow["jobs"]) if "needs" in job else True
        matrix = job.get("strategy", {}).get("matrix", {})
        assert set(re.findall(r"matrix\.(\w+)", json.dumps(job))) == set(matrix)
        for step in job["steps"]:
            assert set(step) <= FIELDS
            assert ("uses" in step) != ("run" in step)
            assert re.fullmatch(r"[\w.-]+/[\w.-]+@[\w./-]+", step.get("uses", "a/b@v1"))


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_expressions_close_and_know_their_contexts(path: Path) -> None:
    """What stands between the braces begins with a context that there is."""
    text = path.read_text(encoding="utf-8")
    expressions = re.findall(r"\$\{\{ (\w+)\.[\w.]+ \}\}", text)

    assert len(expressions) == text.count("${{") == text.count("}}")
    assert set(expressions) <= CONTEXTS


def test_the_pythons_tried_are_those_allowed() -> None:
    """The oldest is the package's floor."""
    flow = read(ROOT / ".github/workflows/test.yml")
    pythons = flow["jobs"]["test"]["strategy"]["matrix"]["python"]

    assert f">={pythons[0]}" == PROJECT["project"]["requires-python"]


def test_the_nightly_markers_exist() -> None:
    """A marker that no test has would run nothing."""
    flow = read(ROOT / ".github/workflows/nightly.yml")
    known = {line.partition(":")[0] for line in PROJECT["tool"]["pytest"]["ini_options"]["markers"]}

    assert set(flow["jobs"]["long"]["strategy"]["matrix"]["marker"]) < known


def test_only_publishing_may_sign() -> None:
    """The right to publish goes to one job, behind an environment, and no token lies anywhere."""
    jobs = read(ROOT / ".github/workflows/release.yml")["jobs"]

    assert [name for name, job in jobs.items() if job.get("permissions") == {"id-token": "write"}] == ["publish"]
    assert jobs["publish"]["environment"] == "pypi"
    assert not any("secrets." in path.read_text(encoding="utf-8") for path in WORKFLOWS)


@pytest.mark.parametrize("path", FORMS, ids=lambda path: path.stem)
def test_a_form_is_whole(path: Path) -> None:
    """Every field has an id of its own, a label and a known type."""
    form = read(path)
    ids = [field["id"] for field in form["body"]]

    assert form["name"]
    assert form["description"]
    assert len(set(ids)) == len(ids)
    assert all(field["type"] in ("textarea", "input", "dropdown", "markdown") for field in form["body"])
    assert all(field["attributes"]["label"] for field in form["body"])
