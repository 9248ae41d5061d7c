"""How models are sampled and served. Light: imports nothing but pydantic."""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

BUILTIN_EMBEDDERS = ("minilm", "hash")


class SamplingConfig(BaseModel):
    """How responses are drawn. *Semantic*: part of a stage's key.

    The defaults draw from the model's own distribution (Eq. 8 needs exactly that: top-p below 1
    would bias π_old/π_gen); `max_tokens` is ours. `seed` is the call's: each request gets its own,
    derived from it, from the prompt's tokens and from the number of the sample.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    temperature: float = Field(default=1.0, ge=0)
    top_p: float = Field(default=1.0, gt=0, le=1)
    max_tokens: int = Field(default=128, ge=1)
    num_samples: int = Field(default=1, ge=1)
    seed: int = 0

    @model_validator(mode="after")
    def _greedy_has_one_answer(self) -> "SamplingConfig":
        if self.temperature == 0 and self.num_samples > 1:
            raise ValueError(
                f"temperature 0 always gives the same answer, so num_samples must be 1, "
                f"not {self.num_samples}; raise temperature or ask for one sample"
            )
        return self


class EmbedderConfig(BaseModel):
    """Which sentence embeddings. *Semantic*: part of a stage's key.

    `model` is `minilm` (its weights come with a package), `hash` (a fake: hashed bags of words) or
    the folder of any sentence-transformers model, whose own configuration says how tokens are
    pooled. `prompt` goes before each text where a model wants an instruction, `dimension` keeps the
    first so many numbers of models trained for that (Matryoshka), and `max_tokens` cuts texts
    shorter than the model would. The paper's DRAMA-1B (§2.2.1) is a folder like any other and wants
    a GPU; both of its prompts ("Query: ", and none for documents) serve here, and its licence
    (CC BY-NC 4.0) does not allow commercial use.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: str = "minilm"
    prompt: str = ""
    dimension: int | None = Field(default=None, ge=1)
    max_tokens: int | None = Field(default=None, ge=1)

    @model_validator(mode="before")
    @classmethod
    def _by_name_alone(cls, data: Any) -> Any:
        return {"model": data} if isinstance(data, str) else data

    @model_validator(mode="after")
    def _known_or_a_path(self) -> "EmbedderConfig":
        if self.model not in BUILTIN_EMBEDDERS and "/" not in self.model:
            raise ValueError(
                f"model {self.model!r} is none of {', '.join(BUILTIN_EMBEDDERS)}; give one of "
                "these, or the path of a model's folder (with a '/')"
            )
        return self


class EngineConfig(BaseModel):
    """Where and how wide a model is served. *Execution*: part of no key.

    `max_model_len` (tokens) is a ceiling: a model with a shorter context keeps its own.
    `kv_cache_gib` is the cache of one engine on a CPU; on a GPU the cache takes what
    `gpu_memory_utilization` leaves. `num_threads` limits the CPU engine (0: as torch decides).
    What a stage samples is kept every `shard_prompts` prompts, so that a retry loses no more.
    Texts are embedded `embedding_batch_texts` at a time: 32 is best on a CPU (measured: 64 cost
    13 % more there), more fill a GPU better.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    device: Literal["cpu", "cuda"] = "cpu"
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    max_model_len: int = Field(default=1024, ge=2)
    max_num_seqs: int = Field(default=256, ge=1)
    max_num_batched_tokens: int | None = Field(default=None, ge=1)
    gpu_memory_utilization: float = Field(default=0.85, gt=0, le=1)
    tensor_parallel_size: int = Field(default=1, ge=1)
    kv_cache_gib: int = Field(default=1, ge=1)
    num_threads: int = Field(default=0, ge=0)
    shard_prompts: int = Field(default=2048, ge=1)
    embedding_batch_texts: int = Field(default=32, ge=1)
    enforce_eager: bool = True

    @model_validator(mode="after")
    def _one_cpu_shard(self) -> "EngineConfig":
        if self.device == "cpu" and self.tensor_parallel_size > 1:
            raise ValueError(
                f"tensor_parallel_size {self.tensor_parallel_size} needs device 'cuda'; "
                "a CPU engine has one shard"
            )
        return self


class ExecutorConfig(BaseModel):
    """Where and how wide functions over rows are mapped. *Execution*: part of no key.

    `num_workers` shards of at least `shard_rows` rows are made at a time, each on one CPU, in
    batches of `batch_rows`. `object_store_gib` caps Ray's object store where this process starts
    Ray; on a cluster it is Ray Data's share of it.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["in_process", "ray_data"] = "in_process"
    num_workers: int = Field(default=2, ge=1)
    shard_rows: int = Field(default=20_000, ge=1)
    batch_rows: int = Field(default=1_000, ge=1)
    object_store_gib: float = Field(default=1.0, gt=0)
