"""Write README.md and its pictures from nbs/index.ipynb; with --check only compare, and fail where they differ."""
import base64
import json
import re
import sys
import zlib
from difflib import unified_diff
from pathlib import Path

root = Path(__file__).resolve().parent.parent
index, readme = root/"nbs"/"index.ipynb", root/"README.md"
header = "<!-- Written by docs/readme.py from nbs/index.ipynb: edit the notebook. -->"


def from_root(text):
    "Links of the notebook, which are relative to nbs/, made relative to the top of the repository."
    def link(match):
        target = match[1]
        if re.match(r"[a-z]+:|#|/", target): return match[0]
        return f"]({target[3:] if target.startswith('../') else 'nbs/' + target})"
    return re.sub(r"\]\(([^)\s]+)\)", link, text)


def picture_name(output):
    "Where a picture of the notebook lies, by its content."
    return f"docs/readme-{zlib.crc32(output['data']['image/png'].encode()):08x}.png"


def output_text(output):
    "One output: a link to a picture, or plain text, indented as Markdown wants it."
    text = "".join(output.get("text") or output.get("data", {}).get("text/plain", ""))
    if "image/png" in output.get("data", {}): return f"![words and what was read in them]({picture_name(output)})"
    if "text/markdown" in output.get("data", {}): return "".join(output["data"]["text/markdown"])
    if not text.strip(): return ""
    return "\n".join(("    " + line).rstrip() for line in text.rstrip().splitlines())


def cell_parts(cell):
    "What one cell gives to the README: its text, or its code and what that printed."
    source = "".join(cell["source"])
    if cell["cell_type"] == "markdown": return [from_root(source).strip()]
    if cell["cell_type"] != "code" or re.search(r"^#\|\s*hide\b", source, re.MULTILINE): return []
    code = "\n".join(line for line in source.splitlines() if not line.startswith("#|")).strip()
    if re.search(r"^#\|\s*echo:\s*false\b", source, re.MULTILINE): code = ""
    return [f"```python\n{code}\n```" if code else "", *map(output_text, cell.get("outputs", []))]


def readme_text(path):
    "The README that the notebook at `path` makes."
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    return "\n\n".join(filter(None, [header, *(part for cell in cells for part in cell_parts(cell))])) + "\n"


def pictures(path):
    "Name -> bytes of the notebook's pictures."
    outputs = [o for cell in json.loads(path.read_text(encoding="utf-8"))["cells"] for o in cell.get("outputs", [])]
    return {picture_name(o): base64.b64decode(o["data"]["image/png"]) for o in outputs if "image/png" in o.get("data", {})}


def write():
    "The README and its pictures; those of before go."
    readme.write_text(readme_text(index), encoding="utf-8")
    for old in root.glob("docs/readme-*.png"): old.unlink()
    for name, data in pictures(index).items(): (root/name).write_bytes(data)


def main():
    "Write, or with --check compare."
    if "--check" not in sys.argv[1:]: return write()
    new, old = readme_text(index), readme.read_text(encoding="utf-8") if readme.exists() else ""
    if lacking := [name for name in pictures(index) if not (root/name).exists()]:
        sys.exit(f"README.md lacks {', '.join(lacking)}: run `make readme`")
    if new != old:
        sys.stdout.writelines(unified_diff(old.splitlines(True), new.splitlines(True), "README.md", "nbs/index.ipynb"))
        sys.exit("README.md is not what nbs/index.ipynb says: run `make readme`")


if __name__ == "__main__": main()
