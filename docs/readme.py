"""Write README.md from nbs/index.ipynb; with --check only compare, and fail where they differ."""
import json
import re
import sys
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


def output_text(output):
    "The plain text of one output, indented as Markdown wants it; empty for pictures."
    text = "".join(output.get("text") or output.get("data", {}).get("text/plain", ""))
    if "image/png" in output.get("data", {}) or not text.strip(): return ""
    return "\n".join(("    " + line).rstrip() for line in text.rstrip().splitlines())


def cell_parts(cell):
    "What one cell gives to the README: its text, or its code and what that printed."
    source = "".join(cell["source"])
    if cell["cell_type"] == "markdown": return [from_root(source).strip()]
    if cell["cell_type"] != "code" or re.search(r"^#\|\s*hide\b", source, re.MULTILINE): return []
    code = "\n".join(line for line in source.splitlines() if not line.startswith("#|")).strip()
    return [f"```python\n{code}\n```" if code else "", *map(output_text, cell.get("outputs", []))]


def readme_text(path):
    "The README that the notebook at `path` makes."
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    return "\n\n".join(filter(None, [header, *(part for cell in cells for part in cell_parts(cell))])) + "\n"


def main():
    "Write, or with --check compare."
    new, old = readme_text(index), readme.read_text(encoding="utf-8") if readme.exists() else ""
    if "--check" not in sys.argv[1:]:
        readme.write_text(new, encoding="utf-8")
    elif new != old:
        sys.stdout.writelines(unified_diff(old.splitlines(True), new.splitlines(True), "README.md", "nbs/index.ipynb"))
        sys.exit("README.md is not what nbs/index.ipynb says: run `make readme`")


if __name__ == "__main__": main()
