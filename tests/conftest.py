"""What the tests share: no display, one thread, slow tests only when asked for, the top of the tree, published files."""
import os
from pathlib import Path

import pytest
import torch

os.environ.setdefault("MPLBACKEND", "agg")
os.environ.setdefault("OMP_NUM_THREADS", "1")


def pytest_addoption(parser):
    parser.addoption("--slow", action="store_true", help="run the tests marked slow as well")


def pytest_collection_modifyitems(config, items):
    if config.getoption("--slow"): return
    for item in items:
        if "slow" in item.keywords: item.add_marker(pytest.mark.skip(reason="slow: run with --slow"))


@pytest.fixture(scope="session")
def root():
    "The top of the repository."
    return Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def as_published():
    "A function (model with stored positions, layout) -> the tensors under their published names and in their shapes"
    def convert(model, layout):
        from mnsp.hub import published_name
        state = {published_name(name, layout): tensor.clone() for name, tensor in model.state_dict().items()}
        for name, tensor in state.items():
            if name.endswith("pos_embed"): state[name] = torch.nn.functional.pad(tensor, (0, 0, 1, 0))[None]  # [cls]'s row
            if name.endswith("position_table"): state[name] = tensor[None]
        return state
    return convert


@pytest.fixture
def fault():
    "`with fault('fsync', k=3, how=errno.ENOSPC) as f: ...`: the third fsync fails; `f.met` tells whether it came to that"
    from faults import Fault
    return Fault
