"""Put MathJax, from the npm package, into docs/_static/mathjax, so that the site loads its formulas and fonts from itself.

--try: where npm or its registry cannot be reached, say so and build with the formulas as they were typed.
"""
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

package = "mathjax@3.2.2"
target = Path(__file__).resolve().parent/"_static"/"mathjax"
script = target/"tex-chtml.js"
wanted = ("package/es5/tex-chtml.js", "package/es5/output/chtml/fonts/woff-v2/", "package/LICENSE")
left_out = "// MathJax was left out: formulas show as they were typed.\n"


def fetch(folder):
    "The package's archive, packed by npm into `folder`, or an OSError that says what to do."
    if not shutil.which("npm"): raise OSError("npm is not installed (Debian: apt-get install npm)")
    done = subprocess.run(["npm", "pack", "--silent", package], cwd=folder, capture_output=True, text=True)
    if done.returncode: raise OSError(done.stderr.strip() or "npm pack failed")
    return Path(folder)/done.stdout.split()[-1]


def unpack(archive):
    "The script, its fonts and its licence."
    shutil.rmtree(target, ignore_errors=True)
    for member in archive.getmembers():
        if not (member.isfile() and member.name.startswith(wanted)): continue
        path = target/member.name.removeprefix("package/").removeprefix("es5/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(archive.extractfile(member).read())


def main():
    "Does nothing when MathJax is there already."
    if script.exists() and script.read_text("utf-8") != left_out: return
    try:
        with tempfile.TemporaryDirectory() as folder, tarfile.open(fetch(folder)) as archive: unpack(archive)
    except OSError as error:
        message = f"MathJax cannot be fetched from the npm package {package}: {error}"
        if "--try" not in sys.argv[1:]: sys.exit(f"{message}\nFor a site with its formulas as typed: make docs MATH=try")
        print(f"{message}\nThe site is built without it.")
        target.mkdir(parents=True, exist_ok=True)
        script.write_text(left_out, "utf-8")


if __name__ == "__main__": main()
