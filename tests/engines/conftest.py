"""Tiny random models, and one vLLM of each kind for the whole session."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from flywheel_core.engines.config import EngineConfig
from flywheel_core.engines.environment import prepare_environment
from tests.engines.tiny import TinyModels, make_tiny_models


@pytest.fixture(scope="session")
def engine_config() -> EngineConfig:
    config = EngineConfig(num_threads=1, max_model_len=256)
    prepare_environment(config)
    return config


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory, engine_config: EngineConfig) -> TinyModels:
    return make_tiny_models(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="session")
def generator(engine_config: EngineConfig, tiny: TinyModels) -> Iterator[Any]:
    from flywheel_core.engines.vllm_generator import VllmGenerator

    generator = VllmGenerator(engine_config)
    generator.load(tiny.policy)
    yield generator
    generator.close()


@pytest.fixture(scope="session")
def scorer(engine_config: EngineConfig) -> Iterator[Any]:
    from flywheel_core.engines.vllm_scorer import VllmScorer

    scorer = VllmScorer(engine_config)
    yield scorer
    scorer.close()


@pytest.fixture
def empty_dir(tmp_path: Path) -> Path:
    folder = tmp_path / "empty"
    folder.mkdir()
    return folder
