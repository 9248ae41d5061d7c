"""Run by torchrun: two ZeRO-3 ranks over gloo with fake engines. See test_grpo_ranks.py."""

import json
import sys
from pathlib import Path

from flywheel_core.engines.config import EngineConfig
from flywheel_core.engines.environment import prepare_environment

prepare_environment(EngineConfig())

import deepspeed  # noqa: E402
import torch  # noqa: E402

from flywheel_core.training.config import LaunchConfig  # noqa: E402
from flywheel_core.training.grpo import train_grpo  # noqa: E402
from tests.training.rl_fakes import FakeRlEngines  # noqa: E402


def main() -> None:
    """argv: a JSON file with the arguments of `train_grpo`, without engines."""
    arguments = json.loads(Path(sys.argv[1]).read_text())
    torch.set_num_threads(1)
    deepspeed.init_distributed(dist_backend="gloo")
    launch = LaunchConfig(mode="ray_train", num_workers=2)
    engines = FakeRlEngines(arguments.pop("vocabulary"))
    train_grpo(arguments | {"engines": engines, "launch": launch.model_dump()})


if __name__ == "__main__":
    main()
