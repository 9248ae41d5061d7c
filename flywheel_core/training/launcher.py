"""Run a training function on every rank: under Ray Train with DeepSpeed, or in this process.

A training function takes one dictionary of plain values and returns nothing: what it makes it
writes. It is the same function in both modes; only `LaunchConfig` differs.
"""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from flywheel_core.errors import TrainingError
from flywheel_core.training.config import LaunchConfig

TrainFunction = Callable[[dict[str, Any]], None]


def launch(
    train: TrainFunction, arguments: dict[str, Any], config: LaunchConfig, storage: Path
) -> None:
    """Run `train(arguments)` to its end on every rank; `TrainingError` carries a rank's error.

    `arguments` gets one more entry, `launch`: the configuration as a dictionary.
    """
    arguments = arguments | {"launch": config.model_dump()}
    storage.mkdir(parents=True, exist_ok=True)
    if config.mode == "inline":
        train(arguments)
        return
    _launch_ray_train(train, arguments, config, storage)


def _launch_ray_train(
    train: TrainFunction, arguments: dict[str, Any], config: LaunchConfig, storage: Path
) -> None:
    os.environ.setdefault("RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S", str(config.start_timeout_s))
    os.environ.setdefault("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", "1")
    import ray
    from ray.train import FailureConfig, RunConfig, ScalingConfig
    from ray.train.torch import TorchConfig, TorchTrainer

    join_ray(config)
    resources = {"CPU": config.cpus_per_worker}
    if config.gpus_per_worker:
        resources["GPU"] = config.gpus_per_worker
    trainer = TorchTrainer(
        _rank_entry,
        train_loop_config={"train": train, "arguments": arguments},
        scaling_config=ScalingConfig(
            num_workers=config.num_workers,
            use_gpu=config.gpus_per_worker > 0,
            resources_per_worker=resources,
        ),
        torch_config=TorchConfig(backend="nccl" if config.device == "cuda" else "gloo"),
        run_config=RunConfig(
            name="ray",
            storage_path=str(storage),
            failure_config=FailureConfig(max_failures=config.max_failures),
        ),
    )
    try:
        trainer.fit()
    except (ray.exceptions.RayError, ray.train.TrainingFailedError) as error:
        raise TrainingError(
            f"training in {storage} failed on a rank: {_last_line(error)}"
        ) from error


def join_ray(config: LaunchConfig) -> None:
    """Join the cluster this job runs on, or start one on this machine."""
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
    if config.device == "cpu":
        os.environ["DS_ACCELERATOR"] = "cpu"
    import deepspeed
    import torch

    if config.device == "cpu":
        torch.set_num_threads(max(1, int(config.cpus_per_worker)))
    deepspeed.init_distributed(dist_backend="nccl" if config.device == "cuda" else "gloo")
    loop["train"](loop["arguments"])


def _last_line(error: BaseException) -> str:
    """The line of a remote traceback that names the error."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    named = [line for line in lines if "Error" in line.split(":", 1)[0]]
    return (named or lines or [type(error).__name__])[-1]


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
