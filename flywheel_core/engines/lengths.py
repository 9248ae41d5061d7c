"""Which prompts an engine has room for, before it is asked: it refuses a whole call for one."""

from collections.abc import Sequence
from pathlib import Path

from flywheel_core.engines.base import Messages
from flywheel_core.engines.checkpoint import inspect_checkpoint
from flywheel_core.engines.config import EngineConfig
from flywheel_core.engines.rendering import encode, render_prompt


def fitting(
    model_dir: Path, prompts: Sequence[Messages], config: EngineConfig, *, room: int
) -> list[bool]:
    """Whether each prompt leaves `room` tokens for the answer, in the checkpoint's own tokens."""
    if not prompts:
        return []
    from flywheel_core.engines.vllm_engine import load_tokenizer

    longest = inspect_checkpoint(model_dir).max_positions or config.max_model_len
    limit = min(longest, config.max_model_len) - room
    tokenizer = load_tokenizer(model_dir)
    texts = [render_prompt(tokenizer, messages) for messages in prompts]
    return [len(ids) <= limit for ids in encode(tokenizer, texts)]
