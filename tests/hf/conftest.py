import pytest
import torch

from operant.hf.rollouts.policy import Policy, encode, load_policy
from operant.hf.rollouts.prompts import DataConfig, load_prompts


@pytest.fixture(autouse=True)
def one_thread():
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def prompts():
    return load_prompts(DataConfig())


@pytest.fixture
def policy() -> Policy:
    return load_policy("embedded", seed=3, device="cpu")


@pytest.fixture
def encoded(policy, prompts):
    return encode(policy, prompts[0][:64], DataConfig(), 64)
