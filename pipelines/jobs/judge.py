"""The judging job: catalogue, verdicts and reasons for every part, with one keeper for each group of duplicates.

Rules are judged part by part; which of several duplicates stays is settled once over the documents that resemble
another, and then each part is judged with it. Nothing is measured here: moving a threshold re-runs this job alone.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from mixtures.binding import BoundPolicy, bind_policy
from mixtures.catalogue import publish_catalogue, write_catalogue_part
from mixtures.decisions import DecisionParts, check_keepers, commit_decisions, publish_decisions
from mixtures.fitting import fit_policy, limits_from_json, limits_to_json
from mixtures.hosts import count_hosts, open_catalogue
from mixtures.judge import CLUSTERS, DUPLICATES, judge_duplicates, judge_rules
from mixtures.policy import load_policy
from mixtures.ranking import candidate_keys, rank_candidates
from pipelines.duplicates import Keepers, choose_by_policy, members, ranking_of
from pipelines.jobs.deduplicate import verify_more
from pipelines.jobs.driver import PartTask, run_parts
from pipelines.jobs.job import Job
from pipelines.run_folder import RunFolder
from storage.identity import fingerprint
from storage.manifests import Dataset, open_dataset
from storage.parts import Part, commit_table, find_part, part_from_json, part_to_json

VERSION = 2


def run(job: Job) -> dict[str, Any]:
    """Judge all parts by the policy; documents in = kept + dropped."""
    folder = RunFolder(job.run_folder)
    catalogue = _write_catalogue(job, folder)
    policy = load_policy(job.spec["policy"])
    decisions = folder.decisions(policy.identity())
    fitted = _fit(job)
    settled = _settle(job, folder, catalogue, decisions, fitted)
    tasks = [_task(job, "verdicts", part, duplicates=settled, fitted=fitted) for part in catalogue.parts]
    report = run_parts(job, tasks, judge_part, total=len(tasks), stage="judge")
    report.require_all()
    parts = [DecisionParts(*(part_from_json(p) for p in result["parts"])) for result in report.results if result]
    verdicts, _ = publish_decisions(decisions, policy, parts)
    check_keepers(decisions)
    return {
        "policy": policy.identity(),
        "identity": verdicts.identity,
        "documents": verdicts.rows,
        "fitted": fitted,
        **{name: verdicts.facts[name] for name in ("kept", "dropped", "decided", "failed", "missing")},
    }


def _task(job: Job, phase: str, part: Part, **more: Any) -> PartTask:
    arguments = {"root": str(job.run_folder), "policy": job.spec["policy"], "part": part_to_json(part), **more}
    return PartTask(identity=fingerprint({"phase": phase, "part": part.identity}), arguments=arguments)


def _write_catalogue(job: Job, folder: RunFolder) -> Dataset:
    documents = open_dataset(folder.documents)
    tasks = [_task(job, "catalogue", part, fluency=job.spec["fluency"]) for part in documents.parts]
    report = run_parts(job, tasks, catalogue_documents, total=len(tasks), stage="judge")
    report.require_all()
    parts = [part_from_json(result["part"]) for result in report.results if result]
    publish_catalogue(folder.catalogue, _attributes(folder, job.spec["fluency"]), parts)
    whole = fingerprint({"phase": "hosts", "of": job.spec["identity"]})
    task = PartTask(identity=whole, arguments={"root": str(job.run_folder)})
    run_parts(job, [task], count_run_hosts, total=1, stage="judge").require_all()
    return open_catalogue(folder.catalogue)


def _attributes(folder: RunFolder, fluency: bool) -> list[Dataset]:
    places = [folder.measured, folder.quality, *([folder.fluency] if fluency else [])]
    return [open_dataset(place) for place in [*places, *folder.of_texts()]]


def catalogue_documents(arguments: dict[str, Any]) -> dict[str, Any]:
    """The catalogue's part for one documents part."""
    folder, part = RunFolder(Path(arguments["root"])), part_from_json(arguments["part"])
    attributes = _attributes(folder, arguments["fluency"])
    written = write_catalogue_part(folder.catalogue, open_dataset(folder.documents), part, attributes)
    return {"documents": 0, "part": part_to_json(written)}


def count_run_hosts(arguments: dict[str, Any]) -> dict[str, Any]:
    """How many documents and bytes come from each host."""
    counted = count_hosts(open_dataset(RunFolder(Path(arguments["root"])).catalogue))
    return {"documents": 0, "hosts": counted.rows}


def _fit(job: Job) -> dict[str, Any]:
    """The limits of the policy's percentile rules, over all parts."""
    if not any(rule.percentiles for rule in load_policy(job.spec["policy"]).rules):
        return {}
    arguments = {"root": str(job.run_folder), "policy": job.spec["policy"], "refit": job.spec["refit"]}
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
    catalogue, policy = open_catalogue(folder.catalogue), load_policy(arguments["policy"])
    fitted = fit_policy(policy, catalogue, folder.percentiles, refit=arguments["refit"])
    return {"documents": 0, "limits": limits_to_json(fitted)}


def _bound(catalogue: Dataset, part: Part, arguments: dict[str, Any]) -> tuple[pa.Table, BoundPolicy]:
    fitted = limits_from_json(arguments["fitted"])
    policy = bind_policy(load_policy(arguments["policy"]), catalogue.schema(part), fitted)
    return catalogue.read(part, list(dict.fromkeys(["doc_id", "source", *policy.columns]))), policy


def rank_part(arguments: dict[str, Any]) -> dict[str, Any]:
    """What the policy ranks duplicates by, for one part's documents that resemble another."""
    folder, part = RunFolder(Path(arguments["root"])), part_from_json(arguments["part"])
    target = Path(arguments["target"])
    done = find_part(target, arguments["identity"])
    if done is None:
        table, policy = _bound(open_catalogue(folder.catalogue), part, arguments)
        keys = candidate_keys(table, policy, judge_rules(table, policy), ranking_of(policy), members(folder, policy))
        done = commit_table(target, arguments["identity"], keys, schema=keys.schema)
    return {"documents": 0, "part": part_to_json(done)}


def _settle(job: Job, folder: RunFolder, catalogue: Dataset, decisions: Path, fitted: dict[str, Any]) -> str:
    """Choose keepers; returns the identity under which DUPLICATES and CLUSTERS lie in `decisions/settled`."""
    policy = bind_policy(load_policy(job.spec["policy"]), catalogue.schema(catalogue.parts[0]))
    target = decisions / "settled"
    base = {
        "version": VERSION,
        "policy": policy.identity,
        "catalogue": catalogue.manifest.identity,
        "pairs": open_dataset(folder.duplicates / "pairs").manifest.identity,
        "fitted": fitted,
    }
    identity = fingerprint(base)
    if find_part(target, f"{identity}-duplicates"):
        return identity
    tasks = [
        _task(
            job,
            "ranks",
            part,
            target=str(target),
            identity=fingerprint({**base, "ranks": part.sha256}),
            fitted=fitted,
        )
        for part in catalogue.parts
    ]
    report = run_parts(job, tasks, rank_part, total=len(tasks), stage="judge")
    report.require_all()
    ranked = Dataset(target, catalogue.manifest)
    keys = pa.concat_tables([ranked.read(part_from_json(result["part"])) for result in report.results if result])
    keepers = _keepers(job, folder, policy, rank_candidates(keys, policy, ranking_of(policy)))
    commit_table(target, f"{identity}-clusters", keepers.clusters, schema=CLUSTERS)
    commit_table(target, f"{identity}-duplicates", keepers.duplicates, schema=DUPLICATES)
    return identity


def _keepers(job: Job, folder: RunFolder, policy: BoundPolicy, ranked: pa.Table) -> Keepers:
    """Who stays by the policy's order, after verifying the pairs that the order turned out to need."""
    facts = open_dataset(folder.duplicates / "pairs").manifest
    sizes = job.spec["sizes"]
    return choose_by_policy(
        folder,
        policy,
        ranked,
        num_groups=sizes["groups"],
        verify=lambda missing: verify_more(job, facts.stage["config"], facts.facts["base"], missing, sizes),
    )


def judge_part(arguments: dict[str, Any]) -> dict[str, Any]:
    """Verdicts and reasons of one catalogue part."""
    folder, part = RunFolder(Path(arguments["root"])), part_from_json(arguments["part"])
    table, policy = _bound(open_catalogue(folder.catalogue), part, arguments)
    target = folder.decisions(policy.identity)
    settled, here = arguments["duplicates"], table["doc_id"].combine_chunks()
    duplicates = _settled(target / "settled", f"{settled}-duplicates", here)
    clusters = _settled(target / "settled", f"{settled}-clusters", here)
    decided = judge_duplicates(table, policy, judge_rules(table, policy), duplicates=duplicates, clusters=clusters)
    written = commit_decisions(target, part, policy, decided)
    return {
        "documents": written.verdicts.rows,
        "dropped": written.verdicts.facts["dropped"],
        "parts": [part_to_json(written.verdicts), part_to_json(written.reasons)],
    }


def _settled(folder: Path, identity: str, here: pa.Array) -> pa.Table:
    part = find_part(folder, identity)
    assert part is not None, "written before the parts are judged"
    table = Dataset(folder, None).read(part)  # type: ignore[arg-type]  # read by its marker: it is in no manifest
    return table.filter(pc.is_in(table["doc_id"], value_set=here))
