"""Two ZeRO-3 ranks over gloo: the reference is averaged by pieces, and a resume is exact."""

import json
import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from flywheel_core.training.grpo import read_grpo_result
from flywheel_core.training.grpo_config import GrpoConfig
from tests.engines.tiny import make_tiny_models
from tests.training.rl_fakes import write_prompts

pytestmark = [pytest.mark.heavy]

ROOT = Path(__file__).resolve().parents[2]
CONFIG = GrpoConfig(
    max_steps=4,
    prompts_per_step=4,
    num_generations=4,
    learning_rate=1e-3,
    warmup_steps=0,
    max_completion_tokens=8,
    long_response_start_tokens=6,
    stop_every_steps=1,
    checkpoint_every_steps=2,
    num_kept_checkpoints=4,
    ema_alpha=0.3,
    ema_sync_steps=1,
)


def run_two_ranks(arguments: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2"]
    command += ["--master-addr", "127.0.0.1", "--master-port", str(port)]
    command += [str(ROOT / "tests/training/grpo_two_ranks.py"), str(arguments)]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        command, env=environment, cwd=ROOT, capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, done.stderr[-3000:]


def assembled(folder: Path, shapes: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """ZeRO-3 pieces of both ranks, put together."""
    pieces = [load_file(folder / f"ema_reference_rank{rank:05d}.safetensors") for rank in (0, 1)]
    whole = {}
    for name, like in shapes.items():
        flat = torch.cat([piece[name].reshape(-1) for piece in pieces])
        whole[name] = flat[: like.numel()].reshape(like.shape)
    return whole


def test_reference_by_pieces_and_exact_resume(tmp_path: Path) -> None:
    models = make_tiny_models(tmp_path)
    prompts, stop = write_prompts(tmp_path)
    out = tmp_path / "out"
    arguments: dict[str, Any] = {
        "config": CONFIG.model_dump(),
        "model": str(models.policy),
        "reward_models": {"reward": str(models.reward_user)},
        "prompts": str(prompts),
        "stop_prompts": str(stop),
        "output": str(out),
        "standards": {},
        "surface_of": {},
        "stop_sampling": {"max_tokens": 8},
        "vocabulary": len(models.tokenizer),
    }
    path = tmp_path / "arguments.json"
    path.write_text(json.dumps(arguments))
    run_two_ranks(path)
    straight = read_grpo_result(out)

    policies = [load_file(out / "models" / f"{step:06d}" / "model.safetensors") for step in (1, 2)]
    reference = {n: v.double() for n, v in load_file(models.policy / "model.safetensors").items()}
    for policy in policies:
        reference = {n: 0.7 * v + 0.3 * policy[n].double() for n, v in reference.items()}
    saved = assembled(out / "checkpoint-2", policies[0])
    for name, value in reference.items():
        assert torch.allclose(saved[name].double(), value, atol=1e-6), name

    last = load_file(straight.model_dir / "model.safetensors")
    (out / "result.json").unlink()
    shutil.rmtree(out / "checkpoint-4")
    run_two_ranks(path)
    resumed = read_grpo_result(out)
    assert resumed.history == straight.history
    again = load_file(resumed.model_dir / "model.safetensors")
    assert all(torch.equal(value, again[name]) for name, value in last.items())
