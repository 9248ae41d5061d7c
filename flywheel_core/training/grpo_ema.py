"""Eq. 8's π_ref: a moving average of the initial and intermediate checkpoints (§2.4.3).

TRL has such an average, but gathers both whole models on every rank (about 280 GB at 70B), forgets
it in checkpoints (KL jumps after a resume), and in bf16 rounds small steps away. Under ZeRO-3 both
models are cut alike, so each rank averages its own piece, and keeps it in float32 where the
reference is stored in less.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from flywheel_core.errors import TrainingError


class EmaReference:
    """The reference model's weights, averaged in place, saved and restored by rank."""

    def __init__(self, reference: Any, alpha: float, every_steps: int) -> None:
        self.reference = reference
        self.alpha = alpha
        self.every_steps = every_steps
        self._exact = {
            name: piece.float().clone()
            for name, piece in _pieces(reference)
            if piece.dtype != torch.float32
        }

    def after_step(self, policy: Any, step: int) -> bool:
        """π_ref ← (1−α) π_ref + α π_θ when the step is due; says whether it was."""
        if step % self.every_steps:
            return False
        updates = dict(_pieces(policy))
        for name, piece in _pieces(self.reference):
            exact = self._exact.get(name, piece)
            exact.mul_(1.0 - self.alpha).add_(updates[name].to(exact), alpha=self.alpha)
            if exact is not piece:
                piece.copy_(exact)
        self._drop_gathered_copies()
        return True

    def save(self, folder: Path, rank: int) -> None:
        """Write this rank's pieces into a checkpoint folder."""
        pieces = {
            name: self._exact.get(name, piece).detach().cpu().contiguous().clone()
            for name, piece in _pieces(self.reference)
        }
        save_file(pieces, folder / _file_name(rank))

    def restore(self, folder: Path, rank: int) -> None:
        """Read this rank's pieces back; the number of ranks must be the one that saved them."""
        path = folder / _file_name(rank)
        if not path.is_file():
            raise TrainingError(
                f"{path}: the checkpoint holds no reference for rank {rank}; resume with as many "
                "workers as saved it, or remove the checkpoint to start again"
            )
        saved = load_file(path)
        for name, piece in _pieces(self.reference):
            if name not in saved or saved[name].shape != piece.shape:
                found = tuple(saved[name].shape) if name in saved else "nothing"
                raise TrainingError(
                    f"{path}: {name} has shape {found}, the model needs {tuple(piece.shape)}; "
                    "resume with as many workers as saved it"
                )
            piece.copy_(saved[name])
            if name in self._exact:
                self._exact[name].copy_(saved[name])
        self._drop_gathered_copies()

    def _drop_gathered_copies(self) -> None:
        """ZeRO-3 may hold a parameter gathered; let the next forward gather the new pieces."""
        for parameter in self.reference.parameters():
            if hasattr(parameter, "ds_tensor"):
                parameter.partition()


def _pieces(model: Any) -> Iterator[tuple[str, torch.Tensor]]:
    """This rank's piece of each parameter: its ZeRO-3 partition, or the parameter itself."""
    for name, parameter in model.named_parameters():
        piece = getattr(parameter, "ds_tensor", None)
        yield name.removeprefix("module."), (parameter if piece is None else piece).data


def _file_name(rank: int) -> str:
    return f"ema_reference_rank{rank:05d}.safetensors"
