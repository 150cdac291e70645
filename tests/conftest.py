"""What the tests share: no display, one thread, slow tests only when asked for, the top of the tree, published files."""
import os
from pathlib import Path

import pytest

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
    from mnsp.published import published_state
    return lambda model, layout: published_state(model.state_dict(), layout)


@pytest.fixture
def fault():
    "`with fault('fsync', k=3, how=errno.ENOSPC) as f: ...`: the third fsync fails; `f.met` tells whether it came to that"
    from faults import Fault
    return Fault
