"""The environment variables the engines need, set in one place before vLLM or DeepSpeed load.

Everything that listens does so on 127.0.0.1 when a job has one node, and nothing calls home.
"""

import os
import sys
import warnings

from flywheel_core.engines.config import EngineConfig

OFFLINE = {
    "HF_HUB_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "HF_DATASETS_OFFLINE": "1",
    "DO_NOT_TRACK": "1",
    "VLLM_NO_USAGE_STATS": "1",
    "RAY_USAGE_STATS_ENABLED": "0",
    "WANDB_DISABLED": "true",
}
"""No model hub, no usage statistics."""

QUIET = {
    "VLLM_LOGGING_LEVEL": "ERROR",
    "TORCH_CPP_LOG_LEVEL": "ERROR",
    "TOKENIZERS_PARALLELISM": "false",
    "TRANSFORMERS_VERBOSITY": "error",
    "TRL_EXPERIMENTAL_SILENCE": "1",
    # Ray Train otherwise prints each line of a rank twice.
    "RAY_TRAIN_ENABLE_PRINT_PATCH": "0",
}
"""A job's log is read by people: progress and errors, not start-up chatter."""

LOOPBACK = {
    "VLLM_HOST_IP": "127.0.0.1",
    "GLOO_SOCKET_IFNAME": "lo",
}
"""One machine talks to itself. On a cluster these stay as the cluster sets them."""

CPU = {
    # In-process engine core: up in seconds instead of a minute, and shared with the trainer.
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
    # Without it vLLM pins its threads to the first cores and neighbours collide.
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    # Not ACCELERATE_USE_CPU: with it accelerate drops DeepSpeed without a word.
    "DS_ACCELERATOR": "cpu",
}


def variables(engine: EngineConfig) -> dict[str, str]:
    """What `prepare_environment` sets where the variable is not set already."""
    chosen = OFFLINE | QUIET
    if engine.device == "cpu":
        chosen |= LOOPBACK | CPU
        chosen["VLLM_CPU_KVCACHE_SPACE"] = str(engine.kv_cache_gib)
        if engine.num_threads:
            chosen["OMP_NUM_THREADS"] = str(engine.num_threads)
    elif engine.tensor_parallel_size == 1:
        chosen["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"
    return chosen


def prepare_environment(engine: EngineConfig) -> None:
    """Set the variables, keeping what the user has set. Call before vLLM or DeepSpeed load."""
    late = [name for name in ("vllm", "deepspeed") if name in sys.modules]
    chosen = variables(engine)
    missing = [name for name in chosen if name not in os.environ]
    if late and missing:
        warnings.warn(
            f"{', '.join(late)} was imported before prepare_environment: "
            f"{', '.join(sorted(missing))} may be ignored; call it earlier",
            stacklevel=2,
        )
    for name in missing:
        os.environ[name] = chosen[name]
