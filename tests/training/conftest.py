"""A random Llama of 0.1M parameters, and tables of the shapes the trainings read."""

import os

os.environ.setdefault("DS_ACCELERATOR", "cpu")
os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")  # a local Ray on 127.0.0.1

import pytest

from tests.training.toy import Toy, make_toy


@pytest.fixture(scope="session")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Toy:
    import torch

    torch.set_num_threads(1)
    return make_toy(tmp_path_factory.mktemp("toy"))
