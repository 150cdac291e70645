"""Put into docs/_static what the site needs besides its pages, so that it loads everything from itself: MathJax and
onnxruntime-web, from their npm packages, and the packaged reader as an ONNX file for the page that reads words.

--try: where npm or its registry cannot be reached, say so and build without what is missing.
"""
import json
import shutil
import subprocess
import sys
import tarfile
import tempfile
from dataclasses import dataclass
from pathlib import Path

root = Path(__file__).resolve().parent.parent
static = root/"docs"/"_static"


@dataclass(frozen=True)
class Vendored:
    "What is taken from an npm package."
    package: str  # with its version
    script: str   # what pages load, below docs/_static
    wanted: dict  # a file or folder in the package -> its name beside the script
    without: str  # what happens on the site when it is missing

    @property
    def left_out(self): return f"// {self.package} was left out: {self.without}.\n"


mathjax = Vendored("mathjax@3.2.2", "mathjax/tex-chtml.js",
                   {"es5/tex-chtml.js": "tex-chtml.js", "LICENSE": "LICENSE",
                    "es5/output/chtml/fonts/woff-v2/": "output/chtml/fonts/woff-v2/"},
                   "formulas show as they were typed")
# WebAssembly alone: the builds for WebGPU are twice as large. No .mjs, which some servers do not know for a script.
runtime = Vendored("onnxruntime-web@1.22.0", "onnxruntime/ort.js",
                   {"dist/ort.wasm.min.mjs": "ort.js", "dist/ort-wasm-simd-threaded.mjs": "wasm.js",
                    "dist/ort-wasm-simd-threaded.wasm": "ort.wasm"},
                   "words cannot be read in the page")


def fetch(package, folder):
    "The package's archive, packed by npm into `folder`, or an OSError that says what to do."
    if not shutil.which("npm"): raise OSError("npm is not installed (Debian: apt-get install npm)")
    done = subprocess.run(["npm", "pack", "--silent", package], cwd=folder, capture_output=True, text=True)
    if done.returncode: raise OSError(done.stderr.strip() or "npm pack failed")
    return Path(folder)/done.stdout.split()[-1]


def unpack(archive, target, wanted):
    "The files that are wanted, into an empty folder."
    shutil.rmtree(target, ignore_errors=True)
    for member in archive.getmembers():
        name = member.name.removeprefix("package/")
        found = [target/(new + name.removeprefix(old)) for old, new in wanted.items()
                 if name == old or old.endswith("/") and name.startswith(old)]
        if not found or not member.isfile(): continue
        path, = found
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(archive.extractfile(member).read())


def vendor(what):
    "True when it is there, from now on or already; with --try it may be missing."
    script = static/what.script
    if script.exists() and script.read_text("utf-8") != what.left_out: return True
    try:
        with tempfile.TemporaryDirectory() as folder, tarfile.open(fetch(what.package, folder)) as archive:
            unpack(archive, script.parent, what.wanted)
    except OSError as error:
        message = f"The npm package {what.package} cannot be fetched: {error}"
        if "--try" not in sys.argv[1:]: sys.exit(f"{message}\nFor a site without it ({what.without}): make docs NPM=try")
        print(f"{message}\nThe site is built without it: {what.without}.")
        script.parent.mkdir(parents=True, exist_ok=True)
        script.write_text(what.left_out, "utf-8")
        return False
    return True


def export(folder=static/"reader"):
    "The packaged reader, and what the page has to know of it; made again when code or weights have changed."
    model = folder/"reader.onnx"
    made_from = [Path(__file__), *root.glob("mnsp/*.py"), *root.glob("mnsp/weights/english/*")]
    if model.exists() and model.stat().st_mtime > max(path.stat().st_mtime for path in made_from): return
    sys.path.insert(0, str(root))
    from mnsp.graph import export_onnx
    from mnsp.recognizer import Recognizer
    recognizer = Recognizer.from_pretrained()
    recognizer.prior = None  # the page reads once
    folder.mkdir(exist_ok=True)
    height, width = recognizer.cfg.encoder.img_size
    about = dict(chars=recognizer.charset.chars, height=height, width=width)
    (folder/"reader.json").write_text(json.dumps(about), "utf-8")
    export_onnx(recognizer, model)


if __name__ == "__main__":
    vendor(mathjax)
    if vendor(runtime): export()
