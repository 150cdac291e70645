"""Build the package from settings.ini; the version is read from mnsp/__init__.py without importing it."""
import re
from configparser import ConfigParser
from pathlib import Path

from setuptools import find_packages, setup

root = Path(__file__).parent
parser = ConfigParser(delimiters=["="])
parser.read_string((root/"settings.ini").read_text(encoding="utf-8"))
settings = parser["DEFAULT"]
package = settings["lib_path"]


def lines(key): return [line.strip() for line in settings[key].splitlines() if line.strip()]


# X_requirements are the extra X; dev has them all.
extras = {key.removesuffix("_requirements"): lines(key) for key in settings if key.endswith("_requirements")}


def version():
    "The `__version__` of the package, or an error that says where it should be."
    path = root/package/"__init__.py"
    found = re.search(r'^__version__\s*=\s*["\']([^"\']+)', path.read_text(encoding="utf-8"), re.MULTILINE)
    if not found: raise ValueError(f'{path}: no line `__version__ = "..."`; run `nbdev-export`')
    return found[1]


setup(
    name=settings["lib_name"],
    version=version(),
    description=settings["description"],
    long_description=(root/"README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    author=settings["author"],
    license=settings["license"],
    license_files=["LICENSE"],
    keywords=settings["keywords"],
    classifiers=lines("classifiers"),
    python_requires=f">={settings['min_python']}",
    packages=find_packages(include=[package, f"{package}.*"], exclude=[f"{package}.lab"]),
    exclude_package_data={package: ["lab/*"]},  # for experiments, which the source has
    include_package_data=True,
    zip_safe=False,
    install_requires=lines("requirements"),
    extras_require={**extras, "dev": [line for name, extra in extras.items() if name != "detect" for line in extra]}, # OpenCV
    entry_points={
        "console_scripts": lines("console_scripts"),
        "nbdev": [f"{package}={package}._modidx:d"],
    },
)
