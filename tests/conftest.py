"""What the tests share: no display, one thread, slow tests only when asked for, and the command line as a function."""
import os
import subprocess
import sys
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
def run_mnsp(root):
    "Run `python -m mnsp ...` in a process of its own; answers the finished process with its text in stdout and stderr."
    def run(*args, cwd=None, env=None, timeout=300):
        env = {**os.environ, "PYTHONPATH": str(root), "NO_COLOR": "1", "COLUMNS": "120", **(env or {})}
        command = [sys.executable, "-m", "mnsp", *map(str, args)]
        return subprocess.run(command, cwd=cwd, env=env, timeout=timeout, capture_output=True, text=True,
                              stdin=subprocess.DEVNULL)
    return run
