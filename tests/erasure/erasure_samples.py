"""A small flywheel with ingested traffic and one climb: real traffic and curation, and the rest as
files of the shapes the stages write."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from flywheel_core.artifacts import ArtifactRef, Attempt, InputRecord, read_manifest
from flywheel_core.engines.config import EngineConfig
from flywheel_core.engines.pool import EnginePool
from flywheel_core.ingest.ingest import ingest
from flywheel_core.jobs.base import Site, execute
from flywheel_core.plan import PinnedPlan, resolve
from flywheel_core.pointers import Pointer
from flywheel_core.recipe import Recipe, parse_recipe
from flywheel_core.records import PAIRS, TRAINING_ROWS, write_table
from flywheel_core.store import Store
from flywheel_core.training.config import LaunchConfig

ERASED = "victim-7f3a"
DAYS = ("2026-01-05", "2026-01-06")
SPLITS = ("annotate", "reject", "rl", "stop", "select", "gate")


def row(number: int, user: str, day: str) -> dict[str, Any]:
    return {
        "row_id": f"chat{number}-1",
        "day": day,
        "messages": [
            {"role": "system", "content": "You are Mina."},
            {"role": "user", "content": f"Topic {number}, said by {user}"},
        ],
        "surface": "user",
        "conversation_id": f"chat{number}",
        "turn_index": 1,
        "user_id": user,
        "character_id": f"character{number % 40}",
        "depth": 0,
        "response": f"I see, {number}.",
        "thumb_up": number % 2 == 0,
        "thumb_down": False,
        "continue_10min": True,
    }


def write_traffic(folder: Path) -> list[Path]:
    """A file a day. The one to be erased has 5 rows on the first, and a broken one."""
    paths = []
    for index, day in enumerate(DAYS):
        users = [ERASED if index == 0 and n % 16 == 0 else f"user{n}" for n in range(80)]
        rows = [row(100 * index + n, user, day) for n, user in enumerate(users)]
        broken = [{**row(900, ERASED, day), "depth": -1}] if index == 0 else []
        path = folder / f"{day}.jsonl"
        path.write_text("\n".join(json.dumps(one) for one in rows + broken) + "\n")
        paths.append(path)
    return paths


def make_recipe(base: Path) -> Recipe:
    training = {"learning_rate": 1e-3, "num_epochs": 1, "global_batch_size": 8}
    training["max_length_tokens"] = 64
    sampling = {"max_tokens": 8}
    return parse_recipe(
        {
            "name": "sample",
            "flywheel": "test",
            "model": {"base": str(base)},
            "traffic": {"source": "ingested", "num_days": 2, "sampling": sampling},
            "curation": {
                "embedder": "hash",
                "prompts_per_surface": dict.fromkeys(SPLITS, 20),
            },
            "study": {"name": "readers", "allows": ["user_signals_in_rl"]},
            "annotation": {"source": "signals", "sampling": sampling},
            "reward_models": {
                "preference": {**training, "kind": "pointwise"},
                "pairwise": {**training, "kind": "pairwise"},
                "signal": {**training, "kind": "signal"},
            },
            "rejection_sampling": {"sampling": sampling},
            "sft": training,
            "dpo": training,
            "rl": {},
            "evaluation": {"sampling": sampling, "judge": "rules"},
            "execution": {"launch": {}, "engine": {}},
        },
        "of the tests",
    )


class Sample:
    """A flywheel whose traffic is ingested, and the climbs on it. `user` is whose rows the made-up
    artifacts hold."""

    def __init__(self, store: Store, folder: Path) -> None:
        self.store, self.folder, self.user = store, folder, ERASED
        base = folder / "base"
        base.mkdir()
        (base / "config.json").write_text("{}")
        (base / "model.safetensors").write_bytes(b"base")
        self.recipe = make_recipe(base)
        self.site = Site(
            store=store,
            scratch=folder / "scratch",
            work_root=folder / "scratch" / "work",
            engines=EnginePool(EngineConfig()),
            launch=LaunchConfig(mode="inline", num_workers=1),
            progress=lambda done, total, what="": None,
        )
        for path in write_traffic(folder):
            ingest(path, "contract", store, "test")

    def pin(self, run_id: str) -> PinnedPlan:
        return resolve(self.recipe, self.store, run_id, policy_digest="policy")

    def climb(self, run_id: str, *, until: str = "evaluate") -> PinnedPlan:
        """Pin and make every stage up to `until`."""
        plan = self.pin(run_id)
        for stage in plan.stages:
            if stage.name in ("traffic", "curate"):
                execute(self.site, plan, stage.name)
            else:
                self.make(plan, stage.name)
            if stage.name == until:
                break
        return plan

    def make(self, plan: PinnedPlan, name: str) -> ArtifactRef:
        """A stage's artifact in the shape of the real one."""
        stage = plan.stage(name)
        attempt = Attempt(self.store, stage.ref, self.folder / "attempts")
        WRITERS[name](attempt.folder, self.user)
        inputs = {
            input_name: InputRecord(ref=ref, digest=read_manifest(self.store, ref).digest)
            for input_name, ref in stage.inputs.items()
        }
        attempt.commit(kind=name, stage_version=1, inputs=inputs)
        return stage.ref

    def promote(self, plan: PinnedPlan) -> None:
        value = {"ref": plan.stage("evaluate").ref.model_dump(), "digest": "d"}
        Pointer(self.store, "test", "production").append(value, by="rm", reason="better")

    def where(self, text: str) -> list[str]:
        """Paths in the store whose bytes hold `text`, in any Parquet column or as it is."""
        return [path for path in self.store.list("") if holds(self.store.get(path), text)]


def holds(data: bytes, text: str) -> bool:
    if data.startswith(b"PAR1"):
        import pyarrow as pa
        import pyarrow.parquet as pq

        rows = pq.read_table(pa.BufferReader(data)).to_pylist()
        return text in json.dumps(rows)
    return text.encode() in data


def _model(folder: Path, user: str) -> None:
    for name in ("model", "checkpoints/final"):
        (folder / name).mkdir(parents=True)
        (folder / name / "model.safetensors").write_bytes(b"weights of " + name.encode())


def _annotate(folder: Path, user: str) -> None:
    one = row(0, user, DAYS[0])
    context = {name: one.get(name) for name in PAIRS.names if name in one}
    made = {"response_0": "a", "response_1": "b", "policy_0": "x", "policy_1": "y"}
    pair = context | made | {"prompt_id": "p", "votes": [1], "target": 1.0, "held_out": False}
    write_table(folder / "pairs_user.parquet", [pair], PAIRS)


def _rewards(folder: Path, user: str) -> None:
    (folder / "pointwise_user").mkdir()
    (folder / "pointwise_user" / "model.safetensors").write_bytes(b"reward")
    (folder / "standards.json").write_text("{}")


def _training(folder: Path, user: str) -> None:
    messages = row(0, user, DAYS[0])["messages"]
    rows = [{"messages": messages, "response": "r", "source": "rejection_user"}]
    write_table(folder / "training.parquet", rows, TRAINING_ROWS)


def _evaluate(folder: Path, user: str) -> None:
    _model(folder, user)
    (folder / "metrics.json").write_text("{}")
    (folder / "details.json").write_text(json.dumps(row(0, user, DAYS[0])))
    _training(folder, user)


WRITERS: dict[str, Callable[[Path, str], None]] = {
    "annotate": _annotate,
    "reward_models": _rewards,
    "rejection_sampling": _training,
    "sft": _model,
    "dpo": _model,
    "rl": _model,
    "evaluate": _evaluate,
}
