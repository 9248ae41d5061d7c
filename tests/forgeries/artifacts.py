"""Attacks on what was evaluated and decided on: model, metrics, verdicts, manifests."""

import json
from pathlib import Path
from typing import Any

from flywheel_core.artifacts import ArtifactRef, folder_model_digest, read_manifest
from flywheel_core.errors import ArtifactCorrupt, ArtifactMissing, SchemaTooNew, StoreRefused
from flywheel_core.plan import load_plan, plan_path
from flywheel_core.release.decision import DigestMismatch, GatesNotPassed
from flywheel_core.release.gates import GATES
from flywheel_core.release.policy import WaiverRule
from flywheel_core.release.verdict import Verdict
from flywheel_core.release.verdicts import read_metrics, run_and_commit_gate, verdict_ref
from flywheel_core.release.waivers import Waiver, apply_waiver
from tests.airflow.airflow_seeds import gate_metrics
from tests.forgeries.attacks import attack
from tests.forgeries.scene import MANAGER, RUN, Scene

# -- the candidate ---------------------------------------------------------------------------------


def _model(scene: Scene) -> Path:
    return scene.file_in(scene.evaluate, "model/config.json")


@attack(ArtifactCorrupt, "was changed after its evaluation")
def an_edited_model(scene: Scene) -> None:
    _model(scene).write_text('{"candidate_of": "mallory"}')


@attack(ArtifactCorrupt, "was changed after its evaluation")
def a_model_file_removed(scene: Scene) -> None:
    _model(scene).unlink(missing_ok=True)


@attack(StoreRefused, "through a link")
def a_model_file_behind_a_link(scene: Scene) -> None:
    outside = Path(scene.store.root + "-outside")
    outside.write_text(json.dumps({"candidate_of": RUN}))
    _model(scene).unlink(missing_ok=True)
    _model(scene).symlink_to(outside)


@attack(DigestMismatch, "evaluate again")
def another_model_with_its_manifest(scene: Scene) -> None:
    an_edited_model(scene)
    scene.seal(scene.evaluate)


@attack(DigestMismatch, "evaluate again")
def one_file_more_in_the_model(scene: Scene) -> None:
    (_model(scene).parent / "adapter.json").write_text("{}")
    scene.seal(scene.evaluate)


def _rewrite_metrics(scene: Scene, **changes: Any) -> None:
    file = scene.file_in(scene.evaluate, "metrics.json")
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))
    scene.seal(scene.evaluate)


@attack(DigestMismatch, "the verdict was edited")
def another_model_with_its_metrics(scene: Scene) -> None:
    an_edited_model(scene)
    _rewrite_metrics(scene, candidate=folder_model_digest(_model(scene).parent))


def _drop_verdicts(scene: Scene) -> None:
    for gate in GATES:
        for path in scene.store.list(verdict_ref(scene.plan, gate, scene.policy).path):
            scene.store.delete(path)


@attack(DigestMismatch, "what was approved is not")
def another_model_with_metrics_and_verdicts(scene: Scene) -> None:
    another_model_with_its_metrics(scene)
    _drop_verdicts(scene)


@attack(DigestMismatch, "evaluate again")
def the_evaluation_of_another_flywheel_put_in_its_place(scene: Scene) -> None:
    """Its bytes agree with its manifest; the manifest is rewritten to bear this artifact's name."""
    plan = load_plan(scene.untouched, plan_path("other", RUN))
    donor = plan.stage("evaluate").ref
    manifest = read_manifest(scene.untouched, donor)
    own = Path(scene.store.root) / scene.evaluate.path
    for entry in manifest.files:
        target = own / "attempts" / manifest.attempt / entry.name
        target.parent.mkdir(parents=True, exist_ok=True)
        source = Path(scene.untouched.root) / donor.path / "attempts" / manifest.attempt
        target.write_bytes((source / entry.name).read_bytes())
    model = own / "attempts" / manifest.attempt / "model" / "config.json"
    model.write_text('{"candidate_of": "other"}')
    (own / "manifest.json").write_text(
        manifest.model_copy(update={"ref": scene.evaluate}).model_dump_json()
    )
    scene.seal(scene.evaluate)


# -- its manifest ----------------------------------------------------------------------------------


def _manifest(ref: ArtifactRef) -> str:
    return f"{ref.path}/manifest.json"


@attack(ArtifactMissing, "is not done")
def the_evaluation_is_withdrawn(scene: Scene) -> None:
    scene.store.delete(_manifest(scene.evaluate))


@attack(ArtifactCorrupt, "is not JSON")
def a_manifest_of_garbage(scene: Scene) -> None:
    scene.store.put(_manifest(scene.evaluate), b"{")


@attack(ArtifactCorrupt, "was copied or edited")
def the_manifest_of_another_stage(scene: Scene) -> None:
    other = scene.plan.stage("rl").ref
    scene.store.put(_manifest(scene.evaluate), scene.untouched.get(_manifest(other)))


@attack(SchemaTooNew, "upgrade the flywheel")
def a_manifest_of_a_later_version(scene: Scene) -> None:
    scene.edit_json(_manifest(scene.evaluate), lambda data: data.update(schema_version=99))


@attack(StoreRefused, "is not allowed")
def a_manifest_whose_attempt_leaves_the_store(scene: Scene) -> None:
    scene.edit_json(_manifest(scene.evaluate), lambda data: data.update(attempt="../../../x"))


@attack(StoreRefused, "is not allowed")
def a_manifest_whose_file_leaves_the_artifact(scene: Scene) -> None:
    def leave(data: dict[str, Any]) -> None:
        data["files"][0]["name"] = "../../../../etc/passwd"

    scene.edit_json(_manifest(scene.evaluate), leave)


@attack(ArtifactCorrupt, "was changed after its evaluation")
def a_manifest_with_another_digest(scene: Scene) -> None:
    def change(data: dict[str, Any]) -> None:
        for entry in data["files"]:
            entry["sha256"] = "0" * 64

    scene.edit_json(_manifest(scene.evaluate), change)


# -- its metrics -----------------------------------------------------------------------------------


@attack(ArtifactCorrupt, "metrics.json differs")
def edited_metrics(scene: Scene) -> None:
    file = scene.file_in(scene.evaluate, "metrics.json")
    file.write_text(file.read_text().replace('"wins":1160', '"wins":1200'))


def _better(scene: Scene) -> dict[str, Any]:
    metrics = read_metrics(scene.untouched, scene.plan)
    return gate_metrics(metrics.candidate, metrics.parent, 1200, 1190).model_dump(mode="json")


@attack(DigestMismatch, "the verdict was edited")
def better_metrics_with_their_manifest(scene: Scene) -> None:
    _rewrite_metrics(scene, **_better(scene))


@attack(DigestMismatch, "what was approved is not")
def better_metrics_with_manifest_and_verdicts(scene: Scene) -> None:
    better_metrics_with_their_manifest(scene)
    _drop_verdicts(scene)


@attack(DigestMismatch, "pins")
def metrics_against_another_parent(scene: Scene) -> None:
    _rewrite_metrics(scene, parent="0" * 64)


# -- its verdicts ----------------------------------------------------------------------------------


def _verdict(scene: Scene, gate: str) -> tuple[ArtifactRef, Path]:
    ref = verdict_ref(scene.plan, gate, scene.policy)
    return ref, scene.file_in(ref, "verdict.json")


def _put_verdict(scene: Scene, gate: str, text: str) -> None:
    ref, file = _verdict(scene, gate)
    file.write_text(text)
    scene.seal(ref)


@attack(ArtifactCorrupt, "verdict.json differs")
def an_edited_verdict(scene: Scene) -> None:
    _, file = _verdict(scene, "safety")
    file.write_text(file.read_text().replace("pass", "warn"))


@attack(ArtifactCorrupt, "is not a verdict")
def an_edited_verdict_with_its_manifest(scene: Scene) -> None:
    _, file = _verdict(scene, "safety")
    _put_verdict(scene, "safety", file.read_text().replace("pass", "warn"))


@attack(ArtifactCorrupt, "is not a verdict")
def a_verdict_of_garbage(scene: Scene) -> None:
    _put_verdict(scene, "data", "{}")


def _resealed(verdict: Verdict, **changes: Any) -> str:
    """The verdict with fields replaced and its own digest worked out anew."""
    data = verdict.model_dump(mode="json", exclude={"digest"}) | changes
    return Verdict.model_validate(data).model_dump_json()


@attack(DigestMismatch, "the verdict was edited")
def a_resealed_verdict(scene: Scene) -> None:
    genuine = run_and_commit_gate(scene.untouched, scene.plan, "safety", scene.policy)
    _put_verdict(scene, "safety", _resealed(genuine, reason="Safer than ever."))


@attack(DigestMismatch, "the verdict was edited")
def the_verdict_of_another_gate(scene: Scene) -> None:
    genuine = run_and_commit_gate(scene.untouched, scene.plan, "data", scene.policy)
    _put_verdict(scene, "safety", _resealed(genuine, gate="safety"))


# -- a candidate that a gate blocks ----------------------------------------------------------------


@attack(GatesNotPassed, "rm_win_rate (block)", seed="blocked")
def a_blocked_candidate_that_a_manager_approved(scene: Scene) -> None:
    """Its gate is marked success by hand, so that the approval is asked at all."""


@attack(DigestMismatch, "the verdict was edited", seed="blocked")
def a_block_turned_into_a_pass(scene: Scene) -> None:
    genuine = run_and_commit_gate(scene.untouched, scene.plan, "rm_win_rate", scene.policy)
    _put_verdict(scene, "rm_win_rate", _resealed(genuine, outcome="pass"))


def _waived(scene: Scene, policy_allows: float | None) -> str:
    lenient = scene.policy.model_copy(
        update={"waivers": WaiverRule(rm_win_rate_up_to_rate=policy_allows)}
    )
    genuine = run_and_commit_gate(scene.untouched, scene.plan, "rm_win_rate", scene.policy)
    waiver = Waiver(
        gate="rm_win_rate", verdict_digest=genuine.digest, waived_by=MANAGER, reason="It is fine."
    )
    return apply_waiver(genuine, waiver, lenient).model_dump_json()


@attack(DigestMismatch, "the verdict was edited", seed="blocked")
def a_waiver_that_the_policy_does_not_allow(scene: Scene) -> None:
    _put_verdict(scene, "rm_win_rate", _waived(scene, 0.70))


@attack(GatesNotPassed, "rm_win_rate (block)", seed="blocked", alone=True)
def a_policy_that_allows_waivers_but_no_waiver(scene: Scene) -> None:
    scene.policy = scene.policy.model_copy(
        update={"waivers": WaiverRule(rm_win_rate_up_to_rate=0.70)}
    )
    scene.ask_again()
