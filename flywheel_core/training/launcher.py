"""Run a training function on every rank: under Ray Train with DeepSpeed, or in this process.

A training function takes one dictionary of plain values and returns nothing: what it makes it
writes. It is the same function in both modes; only `LaunchConfig` differs.

Retries are ours, not Ray's. Ray starts a group of ranks again whatever went wrong and resumes from
the checkpoints reported to it, a record that can lag behind a crash (FACTS). Here a rank that died
is tried again from the newest checkpoint with a DONE mark, and an error that would only repeat
itself is not tried again.
"""

import gc
import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flywheel_core.errors import FlywheelError, TrainingError, TrainingLost
from flywheel_core.training.config import LaunchConfig

TrainFunction = Callable[[dict[str, Any]], None]

REPEATING = (
    FlywheelError,
    ArithmeticError,
    AssertionError,
    AttributeError,
    ImportError,
    LookupError,
    FileNotFoundError,
    TypeError,
    ValueError,
)
"""Errors of code, configuration or data: the next try would meet them again."""

DEAD_RANK = {"ActorDiedError", "RayActorError", "WorkerHealthCheckFailedError"}
"""What Ray calls a rank whose process is gone; each comes with a page of text."""

CONTROLLER = {
    # Each of these is one more Python process that imports Ray Train: seconds on a small machine.
    "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0",
    "RAY_TRAIN_METRICS_ENABLED": "0",
}
"""Set on the CPU, where one machine is all there is."""


def launch(
    train: TrainFunction, arguments: dict[str, Any], config: LaunchConfig, storage: Path
) -> None:
    """Run `train(arguments)` to its end on every rank; `TrainingError` carries a rank's error.

    `arguments` gets one more entry, `launch`: the configuration as a dictionary. Paths in it must
    be absolute: a rank's working folder is Ray's.
    """
    arguments = arguments | {"launch": config.model_dump()}
    storage.mkdir(parents=True, exist_ok=True)
    if config.mode == "inline":
        train(arguments)
        return
    join_ray(config)
    for failures_left in range(config.max_failures, -1, -1):
        failure = _fit(train, arguments, config, storage.resolve())
        if failure is None:
            return
        if failure.repeats or not failures_left:
            kind = TrainingError if failure.repeats else TrainingLost
            raise kind(f"training in {storage} failed on {failure}") from failure.error
        print(f"training failed on {failure}; resuming, {failures_left} tries left", flush=True)


@dataclass(frozen=True)
class Failure:
    """The one error that explains a failed launch."""

    where: str
    error: BaseException

    @property
    def repeats(self) -> bool:
        return isinstance(self.error, REPEATING)

    @property
    def died(self) -> bool:
        return type(self.error).__name__ in DEAD_RANK

    def __str__(self) -> str:
        if self.died:
            return (
                f"{self.where}: its process died without an error of its own; look for the "
                "out-of-memory killer (dmesg) or a crash in Ray's worker logs"
            )
        lines = [line.strip() for line in str(self.error).splitlines() if line.strip()]
        return f"{self.where}: {type(self.error).__name__}: {lines[-1] if lines else 'no message'}"


def _fit(
    train: TrainFunction, arguments: dict[str, Any], config: LaunchConfig, storage: Path
) -> Failure | None:
    """One group of ranks, from its start to its end."""
    os.environ["RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S"] = str(config.start_timeout_s)
    os.environ.setdefault("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", "0.5")
    os.environ.setdefault("RAY_TRAIN_ENABLE_PRINT_PATCH", "0")  # or every line comes twice
    if config.device == "cpu":
        for name, value in CONTROLLER.items():
            os.environ.setdefault(name, value)
    import ray
    from ray.train import FailureConfig, RunConfig, ScalingConfig, TrainingFailedError
    from ray.train.torch import TorchTrainer

    resources = {"CPU": config.cpus_per_worker}
    if config.gpus_per_worker:
        resources["GPU"] = config.gpus_per_worker

    class Trainer(TorchTrainer):
        def _create_default_callbacks(self) -> list[Any]:
            """Without the placement group cleaner on one machine: another process, which logs a
            warning a second where Ray has no dashboard. The group ends with the job anyway."""
            found = super()._create_default_callbacks()
            unneeded = "PlacementGroupCleanerCallback" if config.device == "cpu" else ""
            return [callback for callback in found if type(callback).__name__ != unneeded]

    trainer = Trainer(
        _rank_entry,
        train_loop_config={"train": train, "arguments": arguments, "launched_s": time.time()},
        scaling_config=ScalingConfig(
            num_workers=config.num_workers,
            use_gpu=config.gpus_per_worker > 0,
            resources_per_worker=resources,
        ),
        torch_config=_torch_config(config),
        run_config=RunConfig(
            name="ray",
            storage_path=str(storage),
            failure_config=FailureConfig(max_failures=0),
            worker_runtime_env={"env_vars": _rank_environment(config)},
        ),
    )
    try:
        trainer.fit()
    except TrainingFailedError as error:
        return first_failure(error)
    except ray.exceptions.RayError as error:
        return Failure("the controller", error)
    return None


def first_failure(error: BaseException) -> Failure:
    """The cause among the ranks' errors: when one rank fails, the others lose their connection."""
    failures: dict[int, BaseException] = getattr(error, "worker_failures", {})
    found = [
        Failure(f"rank {rank}", getattr(failure, "_base_exc", failure))
        for rank, failure in sorted(failures.items())
    ]
    if not found:
        return Failure("the controller", getattr(error, "controller_failure", error))
    return next(
        (failure for failure in found if failure.repeats),
        next((failure for failure in found if failure.died), found[0]),
    )


def _rank_environment(config: LaunchConfig) -> dict[str, str]:
    """Variables that must be set before a rank imports anything or joins its group."""
    from flywheel_core.engines.environment import OFFLINE, QUIET

    chosen = {name: os.environ.get(name, value) for name, value in (OFFLINE | QUIET).items()}
    if config.device == "cpu":
        # Not ACCELERATE_USE_CPU: with it accelerate drops DeepSpeed without a word.
        chosen["DS_ACCELERATOR"] = "cpu"
        chosen["PYTHONWARNINGS"] = "ignore::FutureWarning"  # DeepSpeed calls torch's old names
        chosen["OMP_NUM_THREADS"] = str(max(1, int(config.cpus_per_worker)))
        if _is_one_machine(config):
            chosen["GLOO_SOCKET_IFNAME"] = "lo"
    return chosen


def _is_one_machine(config: LaunchConfig) -> bool:
    """Whether the ranks talk to nobody but this machine, so that nothing need be reachable."""
    import ray

    return config.device == "cpu" and len(ray.nodes()) == 1


def _torch_config(config: LaunchConfig) -> Any:
    if _is_one_machine(config):
        from flywheel_core.training.loopback import loopback_torch_config

        return loopback_torch_config("gloo")
    from ray.train.torch import TorchConfig

    return TorchConfig(backend="nccl" if config.device == "cuda" else "gloo")


def join_ray(config: LaunchConfig) -> None:
    """Join the cluster this job runs on, or start one on this machine, on the loopback address."""
    if "RAY_ADDRESS" not in os.environ and "ray" not in sys.modules:
        # Read when ray is imported: without it Ray replaces 127.0.0.1 by the outward address.
        os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")
    import ray

    if ray.is_initialized():
        return
    if "RAY_ADDRESS" in os.environ:
        ray.init(log_to_driver=True)
        return
    ray.init(
        num_cpus=max(2, round(config.num_workers * config.cpus_per_worker)),
        include_dashboard=False,
        _node_ip_address="127.0.0.1",
        log_to_driver=True,
    )


def _rank_entry(loop: dict[str, Any]) -> None:
    """What each rank runs. DeepSpeed must know the process group before any model is loaded:
    zero.Init otherwise sees a world of one and fails on the batch arithmetic."""
    config = LaunchConfig.model_validate(loop["arguments"]["launch"])
    started_s = time.time()
    gc.disable()  # thousands of modules survive every collection: 7 % of the import time
    try:
        _start_deepspeed(config)
        import transformers.trainer  # noqa: F401
    finally:
        gc.enable()
    if os.environ.get("RANK", "0") == "0":
        print(
            f"start-up: ranks up after {started_s - loop['launched_s']:.1f}s, "
            f"libraries {time.time() - started_s:.1f}s",
            flush=True,
        )
    loop["train"](loop["arguments"])


def _start_deepspeed(config: LaunchConfig) -> None:
    import deepspeed
    import torch

    if config.device == "cpu":
        torch.set_num_threads(max(1, int(config.cpus_per_worker)))
        # DeepSpeed would compile a C++ extension at every first start; only inference uses it.
        deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    deepspeed.init_distributed(dist_backend="nccl" if config.device == "cuda" else "gloo")


def deepspeed_config(config: LaunchConfig) -> dict[str, Any] | None:
    """The DeepSpeed dictionary for `TrainingArguments`; None inline, where there is none."""
    if config.mode == "inline":
        return None
    return {
        "zero_optimization": {
            "stage": config.zero_stage,
            "stage3_gather_16bit_weights_on_model_save": True,
            "overlap_comm": config.device == "cuda",
            "contiguous_gradients": True,
            "reduce_bucket_size": "auto",
            "stage3_prefetch_bucket_size": "auto",
            "stage3_param_persistence_threshold": "auto",
        },
        "bf16": {"enabled": config.precision == "bf16"},
        "train_batch_size": "auto",
        "train_micro_batch_size_per_gpu": "auto",
        "gradient_accumulation_steps": "auto",
        "gradient_clipping": "auto",
        "zero_allow_untested_optimizer": True,
        "wall_clock_breakdown": False,
    }


def num_ranks(config: LaunchConfig) -> int:
    """How many ranks train together."""
    return 1 if config.mode == "inline" else config.num_workers
