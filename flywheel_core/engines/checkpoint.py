"""What the engines know of a checkpoint folder without loading it."""

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flywheel_core.errors import EngineError

NOT_ARCHITECTURE = frozenset(
    {
        "_name_or_path",
        "bos_token_id",
        "dtype",
        "eos_token_id",
        "id2label",
        "label2id",
        "pad_token_id",
        "torch_dtype",
        "transformers_version",
        "use_cache",
    }
)
"""Fields of config.json that differ between checkpoints which fit in the same engine."""


@dataclass(frozen=True)
class Checkpoint:
    """A readable checkpoint: what fits where (`architecture`) and which weights (`version`).

    `max_positions` is the longest context the model was made for, in tokens.
    """

    path: Path
    architecture: str
    version: str
    num_labels: int
    max_positions: int | None
    eos_token_ids: tuple[int, ...]


def inspect_checkpoint(model_dir: Path) -> Checkpoint:
    """Check that a checkpoint can be loaded.

    `version` changes whenever a weight file is replaced: it covers names, sizes, modification
    times and headers, not every byte, because a 70B model would take minutes to read.
    """
    config = _read_config(model_dir)
    weights = sorted(model_dir.glob("*.safetensors"))
    if not weights:
        found = ", ".join(sorted(path.name for path in model_dir.iterdir())) or "nothing"
        raise EngineError(
            f"model_dir {model_dir}: no *.safetensors file (found {found}); give the folder of a "
            "saved Hugging Face model, or run the stage that writes it again"
        )
    if not (model_dir / "tokenizer.json").is_file():
        raise EngineError(
            f"model_dir {model_dir}: no tokenizer.json; save the tokenizer beside the weights"
        )
    shape = {name: value for name, value in config.items() if name not in NOT_ARCHITECTURE}
    return Checkpoint(
        path=model_dir,
        architecture=_digest(json.dumps(shape, sort_keys=True).encode()),
        version=_digest(*(_weight_mark(path) for path in weights)),
        num_labels=len(config.get("id2label") or {}) or int(config.get("num_labels", 2)),
        max_positions=config.get("max_position_embeddings"),
        eos_token_ids=_eos_token_ids(model_dir, config),
    )


PROBE = (
    "Hello there, it's 9:05 — I'd pay $1,234.50 for 20000 of them!!! (we'll see)\n\n\n  Well\tthen"
    "...\n\nSo HTTPServer_v2 isn't foo-bar; naïve nai\u0308ve ﬁne ½ Ünder\u00a0ground can’t “quote”"
    " \r\nनमस्ते दुनिया, kya haal hai? ¿Qué tal? 你好，世界。こんにちは 안녕하세요 مرحبا 🙂🙃 :)\n- a "
)
"""What tokenizers of equal vocabularies split differently: digits, contractions, runs of spaces and
newlines, capitals, punctuation, scripts without spaces, emoji, composed and decomposed letters."""


def require_same_tokenizer(policies: Iterable[Path], reward_models: Mapping[str, Path]) -> None:
    """Refuse reward models that read other tokens than the policies write.

    A response then reaches them as pieces they were not trained on, and the policy's own special
    tokens as plain text; the scores would look like scores.
    """
    read = {name: tokenizer_digest(path) for name, path in sorted(reward_models.items())}
    for policy in dict.fromkeys(policies):
        written = tokenizer_digest(policy)
        differing = [name for name, digest in read.items() if digest != written]
        if differing:
            raise EngineError(
                f"reward model {', '.join(differing)}: its tokenizer (vocabulary, merges, special "
                f"tokens, or how it splits text) differs from that of the policy {policy}; train "
                "the reward models from checkpoints with the policy's tokenizer (model.base, "
                "model.signal_base)"
            )


def tokenizer_digest(model_dir: Path) -> str:
    """Digest of a tokenizer's vocabulary, merges and added tokens, and of the pieces it splits
    `PROBE` into. The other fields of its file are not compared, because saving changes them
    (padding, truncation) or writes the same splitting in another way."""
    from tokenizers import Tokenizer

    path = model_dir / "tokenizer.json"
    try:
        tokenizer = Tokenizer.from_str(path.read_text(encoding="utf-8"))
    except Exception as error:  # the library's own errors have no narrower type
        raise EngineError(
            f"{path}: not a readable tokenizer ({type(error).__name__}: {error}); save the "
            "tokenizer beside the weights again"
        ) from error
    tokenizer.no_truncation()
    tokenizer.no_padding()
    content = json.loads(tokenizer.to_str())  # in this library's form, whichever wrote the file
    model, added = content["model"], content["added_tokens"]
    pieces = tokenizer.encode(PROBE, add_special_tokens=False).tokens
    parts = [model["vocab"], model.get("merges"), sorted(t["content"] for t in added), pieces]
    return _digest(json.dumps(parts, sort_keys=True).encode())


def _read_config(model_dir: Path) -> dict[str, Any]:
    path = model_dir / "config.json"
    if not model_dir.is_dir():
        raise EngineError(
            f"model_dir {model_dir}: no such folder; give the folder of a saved model, or run the "
            "stage that writes it first"
        )
    try:
        config = json.loads(path.read_text())
    except FileNotFoundError as error:
        raise EngineError(
            f"model_dir {model_dir}: no config.json; give the folder of a saved Hugging Face model"
        ) from error
    except (OSError, ValueError) as error:
        raise EngineError(
            f"{path}: not readable as JSON ({error}); save the model again"
        ) from error
    if not isinstance(config, dict) or "architectures" not in config:
        raise EngineError(f"{path}: has no 'architectures'; save the model again")
    return config


def tensor_shapes(weights_dir: Path) -> dict[str, tuple[int, ...]]:
    """Name and shape of every tensor in a folder's safetensors files, from their headers."""
    shapes: dict[str, tuple[int, ...]] = {}
    for path in sorted(weights_dir.glob("*.safetensors")):
        for name, entry in json.loads(_header(path)).items():
            if name != "__metadata__":
                shapes[name] = tuple(entry["shape"])
    return shapes


def _header(path: Path) -> bytes:
    """A safetensors file's header: 8 bytes of length, then JSON."""
    size = path.stat().st_size
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        header = file.read(length) if 0 < length < size else b""
    if not header.startswith(b"{"):
        raise EngineError(
            f"{path}: not a whole safetensors file ({size} bytes); "
            "run the stage that writes it again"
        )
    return header


def _weight_mark(path: Path) -> bytes:
    header, status = _header(path), path.stat()
    return f"{path.name} {status.st_size} {status.st_mtime_ns} {status.st_ino} ".encode() + header


def _eos_token_ids(model_dir: Path, config: dict[str, Any]) -> tuple[int, ...]:
    path = model_dir / "generation_config.json"
    value = json.loads(path.read_text()).get("eos_token_id") if path.is_file() else None
    value = config.get("eos_token_id") if value is None else value
    if value is None:
        return ()
    return tuple(value) if isinstance(value, list) else (int(value),)


def _digest(*parts: bytes) -> str:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(len(part).to_bytes(8, "little") + part)
    return digest.hexdigest()[:16]
