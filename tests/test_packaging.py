"""The wheel: what is in it, and that it works where none of the tools of development is installed."""
import configparser
import os
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from email.parser import Parser

import pytest

BUILD_FILES = "settings.ini setup.py pyproject.toml constraints.txt MANIFEST.in LICENSE README.md CHANGELOG.md".split()

EXTRAS = "app", "onnx", "hub", "watch", "detect", "chinese", "docs", "dev"

# Runs one statement in a process in which the tools of development cannot be imported.
BLOCKED = """
import sys
class Blocked:
    names = set("nbdev execnb nbformat nbclient nbconvert notebook jupyterlab jupyter_server jupyter_client ipykernel "
                "IPython pytest".split())
    def find_spec(self, name, path=None, target=None):
        if name.partition('.')[0] in self.names: raise ModuleNotFoundError(f'{name} is a tool of development', name=name)
sys.meta_path.insert(0, Blocked())
"""


def settings(root):
    parser = configparser.ConfigParser(delimiters=["="])
    parser.read(root/"settings.ini", encoding="utf-8")
    return parser["DEFAULT"]


@pytest.fixture(scope="module")
def tree(root, tmp_path_factory):
    "A copy of what is built, so that nothing is left in the tree and nothing old gets in."
    tree = tmp_path_factory.mktemp("tree")
    for name in BUILD_FILES: shutil.copy(root/name, tree)
    shutil.copytree(root/"mnsp", tree/"mnsp", ignore=shutil.ignore_patterns("__pycache__"))
    return tree


@pytest.fixture(scope="module")
def wheel(tree, tmp_path_factory):
    "The wheel of this tree."
    out = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-index", "--no-build-isolation",
               "--wheel-dir", str(out), str(tree)]
    built = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    assert built.returncode == 0, built.stdout + built.stderr
    found, = out.glob("*.whl")
    return found


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory):
    "The wheel unpacked into a folder of its own."
    folder = tmp_path_factory.mktemp("installed")
    zipfile.ZipFile(wheel).extractall(folder)
    return folder


def run_blocked(installed, code, cwd):
    env = {**os.environ, "PYTHONPATH": str(installed), "NO_COLOR": "1", "OMP_NUM_THREADS": "1"}
    return subprocess.run([sys.executable, "-c", BLOCKED + code], cwd=cwd, env=env, capture_output=True, text=True,
                          stdin=subprocess.DEVNULL)


def test_wheel_holds_the_package_and_nothing_else(root, wheel):
    names = zipfile.ZipFile(wheel).namelist()
    kinds = "*.py", "*.csv", "*.mplstyle", "*.safetensors", "*.json"
    files = [path.relative_to(root).as_posix() for kind in kinds for path in (root/"mnsp").rglob(kind)]
    wanted = {name for name in files if not name.startswith("mnsp/lab/")}
    assert wanted <= set(names)
    assert {"mnsp/published.csv", "mnsp/weights/english/model.safetensors", "mnsp/weights/english/config.json"} <= wanted
    assert {"mnsp/__init__.py", "mnsp/__main__.py", "mnsp/cli.py", "mnsp/py.typed"} <= set(names)
    assert any(re.fullmatch(r"mnsp-[^/]+\.dist-info/(licenses/)?LICENSE", name) for name in names)
    assert not [name for name in names if name.endswith((".ipynb", ".pyc")) or name.startswith("mnsp/lab/")]
    assert {name.split("/")[0].partition("-")[0] for name in names} == {"mnsp"}


def test_source_holds_what_experiments_need_besides(tree):
    code = "from setuptools import build_meta; build_meta.build_sdist('dist')"
    built = subprocess.run([sys.executable, "-c", code], cwd=tree, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    assert built.returncode == 0, built.stdout + built.stderr
    names = {name.partition("/")[2] for name in tarfile.open(next((tree/"dist").iterdir())).getnames()}
    assert {"mnsp/lab/__init__.py", "mnsp/lab/study.py", "mnsp/lab/speed.py", "mnsp/cli.py"} <= names


def test_metadata_is_that_of_settings(root, installed):
    info, = installed.glob("mnsp-*.dist-info")
    metadata, wanted = Parser().parsestr((info/"METADATA").read_text(encoding="utf-8")), settings(root)
    version = re.search(r'__version__ = "(.+)"', (root/"mnsp"/"__init__.py").read_text(encoding="utf-8"))[1]
    assert (metadata["Name"], metadata["Version"], metadata["Summary"]) == ("mnsp", version, wanted["description"])
    assert metadata["Requires-Python"] == f">={wanted['min_python']}"
    assert wanted["license"] in (metadata["License-Expression"], metadata["License"])
    needed = {re.match(r"[\w-]+", line)[0] for line in metadata.get_all("Requires-Dist") if "extra ==" not in line}
    assert needed == {re.match(r"[\w-]+", line)[0] for line in wanted["requirements"].split()}
    assert set(metadata.get_all("Provides-Extra")) == set(EXTRAS)
    assert "mnsp = mnsp.cli:main" in (info/"entry_points.txt").read_text(encoding="utf-8")


def test_constraints_are_pins_without_addresses(root):
    lines = [line for line in (root/"constraints.txt").read_text(encoding="utf-8").splitlines()
             if line and not line.startswith("#")]
    assert not [line for line in lines if not re.fullmatch(r'[\w-]+==[\w.]+( ; python_version >= "3\.\d+")?', line)]
    pinned = {line.partition("==")[0].replace("-", "_") for line in lines}
    for key in ("requirements", *(f"{extra}_requirements" for extra in EXTRAS)):
        assert {re.match(r"[\w-]+", line)[0].replace("-", "_") for line in settings(root)[key].split()} <= pinned


def test_imports_without_tools_of_development(installed, tmp_path):
    done = run_blocked(installed, "import mnsp; print(mnsp.__file__)", tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip().startswith(str(installed))


def test_every_module_imports_without_tools_of_development(installed, tmp_path):
    code = ("import importlib, pkgutil, mnsp\n"
            "for m in pkgutil.walk_packages(mnsp.__path__, 'mnsp.'):\n"
            "    if not m.name.endswith('__main__'): importlib.import_module(m.name)\n")
    done = run_blocked(installed, code, tmp_path)
    assert done.returncode == 0, done.stderr


def test_help_without_tools_of_development(installed, tmp_path):
    code = "import runpy; sys.argv = ['mnsp', '--help']; runpy.run_module('mnsp', run_name='__main__', alter_sys=True)"
    done = run_blocked(installed, code, tmp_path)
    assert done.returncode == 0, done.stderr
    assert "Usage" in done.stdout


def test_reads_with_the_packaged_weights(installed, tmp_path):
    "Three lines, as in the README; the package itself is imported in no time"
    code = ("import mnsp; assert 'torch' not in sys.modules\n"
            "from mnsp import Recognizer\n"
            "from PIL import Image, ImageDraw\n"
            "picture = Image.new('RGB', (90, 30), 'white'); ImageDraw.Draw(picture).text((30, 8), 'word', 'black')\n"
            "reader = Recognizer.from_pretrained(); print(repr(reader.read(picture)), reader.__class__.__module__)")
    done = run_blocked(installed, code, tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("Reading(text='") and done.stdout.strip().endswith("mnsp.recognizer")
