"""A small training in a Ray actor: gradient descent with noise, checkpoints with DONE marks.

The driver forgives a dead worker once, as the product's launcher does; then the job fails.
"""

import shutil
import time
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import ray
from chaos_events import note

from flywheel_core.errors import TrainingError
from flywheel_core.jobs.base import StageContext, StageOutput, main
from flywheel_core.sections import Section
from flywheel_core.training.checkpoints import (
    drop_half_written,
    keep_newest,
    latest_done,
    mark_done,
    step_of,
)

MAX_FAILURES = 1
NUM_WEIGHTS = 256


class Config(Section):
    num_steps: int
    checkpoint_every_steps: int
    step_s: float


def run(config: Config, inputs: Mapping[str, Path], context: StageContext) -> StageOutput:
    """Writes `weights.npy`; reads the generation's lines as its data."""
    stage, key = context.stage.name, context.stage.ref.key
    note("started", stage=stage, key=key)
    data = _vectors(inputs["chaos_generate"] / "lines.txt")
    ray.init(address="auto", log_to_driver=True)
    for failures_left in range(MAX_FAILURES, -1, -1):
        trainer = ChaosTrainer.remote(stage, key, context.work, context.seed, data)
        try:
            ray.get(trainer.train.remote(config))
            break
        except ray.exceptions.RayActorError as error:
            print(f"the training's worker died: {error}", flush=True)
            if not failures_left:
                raise TrainingError(
                    "the training's worker died twice; clear the task to resume at the newest "
                    "marked checkpoint"
                ) from error
    newest = latest_done(context.work)
    if newest is None or step_of(newest) != config.num_steps:
        raise TrainingError(f"the newest checkpoint is {newest}, not step {config.num_steps}")
    shutil.copyfile(newest / "weights.npy", context.output / "weights.npy")
    note("output", stage=stage, key=key)
    return StageOutput("chaos_weights", {"steps": config.num_steps})


def _vectors(lines: Path) -> np.ndarray:
    """The data: each line's digest as numbers between -1 and 1."""
    digests = [bytes.fromhex(line.split()[-1]) for line in lines.read_text().splitlines()]
    return np.frombuffer(b"".join(digests), dtype=np.uint8).reshape(-1, 32) / 127.5 - 1.0


@ray.remote(num_cpus=0)
class ChaosTrainer:
    """One worker. It resumes at the newest marked checkpoint."""

    def __init__(self, stage: str, key: str, work: Path, seed: int, data: np.ndarray) -> None:
        self.stage, self.key, self.work, self.seed, self.data = stage, key, work, seed, data

    def train(self, config: Config) -> None:
        """To `num_steps`. A step's noise comes from its number: a resume changes nothing."""
        note("resumed", stage=self.stage, key=self.key)
        drop_half_written(self.work)
        newest = latest_done(self.work)
        step = step_of(newest) if newest else 0
        weights = np.load(newest / "weights.npy") if newest else np.zeros((32, NUM_WEIGHTS))
        while step < config.num_steps:
            note("begun", stage=self.stage, key=self.key, number=step)
            weights = self._step(weights, step)
            time.sleep(config.step_s)
            step += 1
            print(f"progress: chaos {step}/{config.num_steps} steps", flush=True)
            if step % config.checkpoint_every_steps == 0 or step == config.num_steps:
                self._keep(weights, step)

    def _step(self, weights: np.ndarray, step: int) -> np.ndarray:
        random = np.random.default_rng([self.seed, step])
        batch = self.data[random.integers(0, len(self.data), 16)]
        target = np.tanh(batch @ random.normal(size=(32, NUM_WEIGHTS)))
        return weights - 0.01 * batch.T @ (batch @ weights - target) / len(batch)

    def _keep(self, weights: np.ndarray, step: int) -> None:
        folder = self.work / f"checkpoint-{step}"
        folder.mkdir(exist_ok=True)
        np.save(folder / "weights.npy", weights)
        mark_done(folder)
        note("done", stage=self.stage, key=self.key, number=step)
        keep_newest(self.work, 2)


if __name__ == "__main__":
    main("chaos_train")
