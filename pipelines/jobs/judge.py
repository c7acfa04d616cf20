"""The judging job: catalogue, verdicts and reasons for every part, with one keeper for each group of duplicates.

Rules are judged part by part; which of several duplicates stays is settled by range, over what is tied together there,
and then each part is judged with it. Nothing is measured here: moving a threshold re-runs this job alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa

from mixtures.binding import BoundPolicy, bind_policy
from mixtures.catalogue import publish_catalogue, write_catalogue_part
from mixtures.decisions import DecisionParts, commit_decisions, publish_decisions
from mixtures.fitting import fit_policy, limits_from_json, limits_to_json
from mixtures.hosts import count_hosts, open_catalogue
from mixtures.judge import judge_duplicates, judge_rules
from mixtures.licences import load_judging
from pipelines.dedup.range_files import RangeFiles, read_range
from pipelines.duplicates import (
    SETTLED,
    confirm_keepers,
    count_settle_ranges,
    duplicates_of,
    find_members,
    rank_members,
    read_members,
)
from pipelines.jobs.deduplicate import finished_search, run_on_cluster
from pipelines.jobs.driver import PartTask, run_parts
from pipelines.jobs.job import Job
from pipelines.jobs.settle import Settling, settle_ranges
from pipelines.run_folder import RunFolder
from storage.identity import fingerprint
from storage.manifests import Dataset, open_dataset
from storage.parts import Part, part_from_json, part_to_json

VERSION = 4
ASKED = ("scores", "fluency")
"""Attributes that a run has only when it asks for them."""


def run(job: Job) -> dict[str, Any]:
    """Judge all parts by the policy; documents in = kept + dropped."""
    folder = RunFolder(job.run_folder)
    catalogue = _write_catalogue(job, folder)
    policy = load_judging(job.spec["judging"])
    decisions = folder.decisions(policy.identity())
    fitted = _fit(job)
    settled = _settle(job, folder, catalogue, decisions, fitted)
    tasks = [_task(job, "verdicts", part, settled=settled, fitted=fitted) for part in catalogue.parts]
    report = run_parts(job, tasks, judge_part, total=len(tasks), stage="judge")
    report.require_all()
    parts = [DecisionParts(*(part_from_json(p) for p in result["parts"])) for result in report.results if result]
    verdicts, _ = publish_decisions(decisions, policy, parts)
    return {
        "policy": policy.identity(),
        "identity": verdicts.identity,
        "documents": verdicts.rows,
        "fitted": fitted,
        **{name: verdicts.facts[name] for name in ("kept", "dropped", "decided", "failed", "missing")},
    }


def _task(job: Job, phase: str, part: Part, **more: Any) -> PartTask:
    arguments = {"root": str(job.run_folder), "judging": job.spec["judging"], "part": part_to_json(part), **more}
    return PartTask(identity=fingerprint({"phase": phase, "part": part.identity}), arguments=arguments)


def _write_catalogue(job: Job, folder: RunFolder) -> Dataset:
    documents = open_dataset(folder.documents)
    asked = {name: job.spec[name] for name in ASKED}
    tasks = [_task(job, "catalogue", part, **asked) for part in documents.parts]
    report = run_parts(job, tasks, catalogue_documents, total=len(tasks), stage="judge")
    report.require_all()
    parts = [part_from_json(result["part"]) for result in report.results if result]
    publish_catalogue(folder.catalogue, _attributes(folder, asked), parts)
    whole = fingerprint({"phase": "hosts", "of": job.spec["identity"]})
    task = PartTask(identity=whole, arguments={"root": str(job.run_folder)})
    run_parts(job, [task], count_run_hosts, total=1, stage="judge").require_all()
    return open_catalogue(folder.catalogue)


def _attributes(folder: RunFolder, asked: Mapping[str, Any]) -> list[Dataset]:
    places = [folder.measured, folder.quality, *(getattr(folder, name) for name in ASKED if asked[name])]
    return [open_dataset(place) for place in [*places, *folder.of_texts()]]


def catalogue_documents(arguments: dict[str, Any]) -> dict[str, Any]:
    """The catalogue's part for one documents part."""
    folder, part = RunFolder(Path(arguments["root"])), part_from_json(arguments["part"])
    attributes = _attributes(folder, arguments)
    written = write_catalogue_part(folder.catalogue, open_dataset(folder.documents), part, attributes)
    return {"documents": 0, "part": part_to_json(written)}


def count_run_hosts(arguments: dict[str, Any]) -> dict[str, Any]:
    """How many documents and bytes come from each host."""
    counted = count_hosts(open_dataset(RunFolder(Path(arguments["root"])).catalogue))
    return {"documents": 0, "hosts": counted.rows}


def _fit(job: Job) -> dict[str, Any]:
    """The limits of the policy's percentile rules, over all parts."""
    if not any(rule.percentiles for rule in load_judging(job.spec["judging"]).rules):
        return {}
    arguments = {"root": str(job.run_folder), "judging": job.spec["judging"], "refit": job.spec["refit"]}
    task = PartTask(identity=fingerprint({"phase": "fit", "of": job.spec["identity"]}), arguments=arguments)
    report = run_parts(job, [task], fit_limits, total=1, stage="judge")
    report.require_all()
    (found,) = report.results
    assert found is not None
    limits: dict[str, Any] = found["limits"]
    return limits


def fit_limits(arguments: dict[str, Any]) -> dict[str, Any]:
    """Fit the policy's percentiles, or find them."""
    folder = RunFolder(Path(arguments["root"]))
    catalogue, policy = open_catalogue(folder.catalogue), load_judging(arguments["judging"])
    fitted = fit_policy(policy, catalogue, folder.percentiles, refit=arguments["refit"])
    return {"documents": 0, "limits": limits_to_json(fitted)}


def _bound(catalogue: Dataset, part: Part, arguments: dict[str, Any]) -> tuple[pa.Table, BoundPolicy]:
    fitted = limits_from_json(arguments["fitted"])
    policy = bind_policy(load_judging(arguments["judging"]), catalogue.schema(part), fitted)
    return catalogue.read(part, list(dict.fromkeys(["doc_id", "source", *policy.columns]))), policy


def rank_part(arguments: dict[str, Any]) -> dict[str, Any]:
    """What the policy ranks duplicates by, for one part's documents that resemble another."""
    folder, part = RunFolder(Path(arguments["root"])), part_from_json(arguments["part"])
    files = arguments["files"]
    if files.facts("ranks", 0) is None:
        table, policy = _bound(open_catalogue(folder.catalogue), part, arguments)
        members = read_members(folder, part_from_json(arguments["members"]))
        files.commit("ranks", 0, rank_members(table, policy, members))
    return {"documents": 0, "ranked": str(files.path("ranks", 0))}


def _settle(job: Job, folder: RunFolder, catalogue: Dataset, decisions: Path, fitted: dict[str, Any]) -> list[str]:
    """Choose keepers; returns the SETTLED file of each range."""
    members = {part.identity: find_members(folder, part) for part in catalogue.parts}
    policy = load_judging(job.spec["judging"]).identity()
    basis = {"version": VERSION, "policy": policy, "fitted": fitted}
    target, tasks = decisions / "settled", []
    for part in catalogue.parts:
        here = members[part.identity]
        files = RangeFiles(target, fingerprint({**basis, "catalogue": part.sha256, "members": here.sha256}))
        tasks.append(_task(job, "ranks", part, files=files, members=part_to_json(here), fitted=fitted))
    report = run_parts(job, tasks, rank_part, total=len(tasks), stage="judge")
    report.require_all()
    ranked = tuple(Path(result["ranked"]) for result in report.results if result)
    kinds = ("pairs", "copies", "crowds", "urls", "semantic")
    search, found = finished_search(folder), [open_dataset(folder.duplicates / kind) for kind in kinds]
    base = fingerprint(
        {**basis, "ranks": [file.name for file in ranked], "found": [d.manifest.identity for d in found]}
    )
    settling = Settling(
        root=job.run_folder,
        judging=job.spec["judging"],
        fitted=fitted,
        files=RangeFiles(target, base),
        ranked=ranked,
        groups=-(-search.now.groups // search.now.nodes),
        search=search,
    )
    return settle_ranges(settling, run_on_cluster(job, "judge"), count_settle_ranges(folder))


def judge_part(arguments: dict[str, Any]) -> dict[str, Any]:
    """Verdicts and reasons of one catalogue part."""
    folder, part = RunFolder(Path(arguments["root"])), part_from_json(arguments["part"])
    table, policy = _bound(open_catalogue(folder.catalogue), part, arguments)
    number = find_members(folder, part).facts["number"]
    settled = read_range([Path(file) for file in arguments["settled"]], number, SETTLED)
    decided = judge_duplicates(table, policy, judge_rules(table, policy), **duplicates_of(settled))
    confirm_keepers(decided.verdicts, settled)
    written = commit_decisions(folder.decisions(policy.identity), part, policy, decided)
    return {
        "documents": written.verdicts.rows,
        "dropped": written.verdicts.facts["dropped"],
        "parts": [part_to_json(written.verdicts), part_to_json(written.reasons)],
    }
