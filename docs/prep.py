"""Notebooks and package -> Sphinx's sources in docs/_src: a page per notebook and, in docs/_src/api, one per module."""
import ast
import importlib
import inspect
import io
import json
import re
import shutil
import sys
from base64 import b64decode
from pathlib import Path

import typer
import yaml
from fastcore.docments import docments
from nbdev.serve import proc_nbs
from PIL import Image
from typer.cli import get_docs_for_click

root = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(root))
made, pages = root/"_proc", root/"docs"/"_src"
card = "mnsp/weights/english/README.md"
syms = importlib.import_module("mnsp._modidx").d["syms"]
modules = {name.removeprefix("mnsp."): importlib.import_module(name) for name in syms}


# What the package exports -------------------------------------------------------------------------------------------
def function(obj):
    "The function that `obj` is or wraps (a cached one, say), else None."
    obj = inspect.unwrap(getattr(obj, "__func__", obj))
    return obj if inspect.isfunction(obj) else None


def members(module):
    "Name -> class or function: what a module defines and exports, in its order; methods written on their own are left out."
    found = {name: getattr(module, name) for name in module.__all__}
    found = {name: obj if inspect.isclass(obj) else function(obj) for name, obj in found.items()}
    return {name: obj for name, obj in found.items() if getattr(obj, "__module__", "") == module.__name__
            and (inspect.isclass(obj) or next(iter(inspect.signature(obj).parameters), "") != "self")}


def methods(cls):
    "Name -> kind, function: the public methods and properties of a class that say, in words or a comment, what they do."
    found = {name: getattr(cls, name) for name in vars(cls) if not name.startswith("_")}
    kinds = {name: ("property", obj.fget) if isinstance(obj, property) else ("method", function(obj))
             for name, obj in found.items()}
    return {name: (kind, f) for name, (kind, f) in kinds.items() if f and f.__module__.startswith("mnsp.")
            and (f.__doc__ or any(docments(f, returns=True).values()))}


objects = {}  # name -> modules that define it
for _short, _module in modules.items():
    for _name in members(_module): objects.setdefault(_name, []).append(_short)
notebooks = {short: re.search(r"File to edit: (?:\.\./)+nbs/(\S+)\.ipynb", Path(module.__file__).read_text("utf-8"))[1]
             for short, module in modules.items()}  # module -> the notebook that makes it
rooms = {}  # name of a notebook -> its page


def linked(text, here=None):
    "Names in backticks become links: a notebook's to its page, an exported one to its description, first that of `here`."
    text = re.sub(r"\]\((\w+)\.html\b", lambda m: f"](/{rooms[m[1]]}" if m[1] in rooms else m[0], text)

    def link(match):
        shown = match["name"] or ""
        name = shown.removesuffix("()")
        if name in rooms: return f"[`{shown}`](/{rooms[name]})"
        found = objects.get(name, [])
        if here not in found and len(found) != 1: return match[0]
        return f"{{py:obj}}`{shown} <mnsp.{here if here in found else found[0]}.{name}>`"
    untouched = r"^(?P<fence>`{3,}).*?^(?P=fence)|^#+ [^\n]*|\[[^\]]*\]\([^)]*\)|\$[^$]*\$"
    return re.sub(rf"(?:{untouched})|(?<![`\w}}])`(?P<name>[\w./]+(?:\(\))?)`(?!`)", link, text, flags=re.M | re.S)


# The reference ------------------------------------------------------------------------------------------------------
class Shown(str):
    "A text that is its own repr."
    __repr__ = str.__str__


def signature(obj):
    "Parameters with types and defaults, in one line."
    def typed(annotation): return Shown(annotation) if isinstance(annotation, str) else annotation
    def readable(p):
        p = p.replace(annotation=typed(p.annotation))
        if p.default is p.empty or isinstance(p.default, str) and len(p.default) < 50: return p
        if isinstance(p.default, str): return p.replace(default=p.default[:20] + "…")
        text = getattr(p.default, "__name__", re.sub(r" at 0x\w+", "", repr(p.default)))
        return p.replace(default=Shown(text if len(text) < 50 else f"{type(p.default).__name__}(…)"))
    try: found = inspect.signature(obj)
    except ValueError: return "()"  # a class that takes what its built-in base takes
    kept = [readable(p) for name, p in found.parameters.items() if name not in ("self", "cls")]
    returned = typed(found.return_annotation) if not inspect.isclass(obj) else found.empty
    text = re.sub(r"\s+", " ", str(found.replace(parameters=kept, return_annotation=returned)))
    return text.replace("torch._C.", "torch.")  # where torch has hidden its Generator


def described(kind, name, obj, inside=()):
    "A class, function or method as Sphinx wants it: signature, docstring, what the comments say of each parameter."
    here = obj.__module__.removeprefix("mnsp.")
    said = {p: linked(text, here) for p, text in docments(obj, returns=True).items() if text and p not in ("self", "cls")}
    fields = [f":returns: {text}" if p == "return" else f":param {p}: {text}" for p, text in said.items()]
    fence = ":::::" if kind == "class" else ":::"
    head = name if kind == "property" else name + signature(obj)
    doc = linked(inspect.cleandoc(obj.__doc__), here) if obj.__doc__ and not obj.__doc__.startswith(f"{name}(") else ""
    return "\n".join([f"{fence}{{py:{kind}}} {head}", "", doc, "", *fields, "", *inside, fence, ""])


def described_class(name, cls):
    inside = [described(kind, key, f) for key, (kind, f) in methods(cls).items()]
    return described("class", name, cls, inside)


def commands(app):
    "What `mnsp --help` and the help of each command say, as Markdown."
    command = typer.main.get_command(app)
    return re.sub(r"^# .*", "", get_docs_for_click(obj=command, ctx=typer.Context(command), name="mnsp"))


def reference(short, module, room):
    "The reference page of one module."
    parts = [f"# mnsp.{short}", f"*{linked(module.__doc__ or '')}*", f"From the notebook [{room}](/{rooms[room]}).",
             f"```{{py:module}} mnsp.{short}\n```"]
    if short == "cli": return "\n\n".join([*parts, commands(module.app)])
    first = short.rpartition(".")[2].replace("_", "")  # the class or function that the module is named after comes first
    parts += [described_class(name, obj) if inspect.isclass(obj) else described("function", name, obj)
              for name, obj in sorted(members(module).items(), key=lambda pair: pair[0].lower() != first)]
    return "\n\n".join(parts)


def reference_index(order):
    "The front page of the reference, modules in the order of the rooms."
    rows = [f"| [mnsp.{short}]({short}.md) | {linked(modules[short].__doc__ or '')} |" for short in order]
    return "\n".join(["# Reference", "", "| module | |", "|---|---|", *rows, "", "```{toctree}", ":hidden:", "", *order, "```"])


# The notebooks ------------------------------------------------------------------------------------------------------
def front_matter(notebook):
    "What nbdev put in front: title, description."
    raw = next(("".join(c["source"]) for c in notebook["cells"] if c["cell_type"] == "raw"), "")
    return yaml.safe_load(raw.strip().strip("-")) or {}


def told_before(cells, title):
    "For each cell what the text told last: the section's heading and the first sentence of the last paragraph."
    section, sentence = title, ""
    for cell in cells:
        blocks = re.split(r"\n\s*\n", "".join(cell["source"])) if cell["cell_type"] == "markdown" else []
        for block in blocks:
            text = re.sub(r"[`*$]|\[([^]]*)\]\([^)]*\)", r"\1", " ".join(block.split()))
            if block.startswith("#"): section, sentence = text.lstrip("# "), ""
            elif re.match(r"\w|\[cls\]", text): sentence = re.match(r".*?[.?](?= [A-Z]|$)|.*", text)[0]
        yield f"{section} – {sentence}".rstrip("–: ")


def picture_options(cell, alt):
    """Width and alternative text of a cell's pictures: 100 pixels for an inch as drawn, whatever the resolution they are
    stored in; the words that lead to them."""
    found = [data for output in cell.get("outputs", []) for kind, data in output.get("data", {}).items()
             if kind in ("image/png", "image/jpeg")]
    pictures = [Image.open(io.BytesIO(b64decode("".join(data)))) for data in found]
    widths = [100 * picture.width / picture.info["dpi"][0] for picture in pictures if "dpi" in picture.info]
    width = dict(width=f"{max(widths):.0f}px") if widths else {}
    return dict(mystnb=dict(image=dict(alt=alt) | width)) if found else {}


def shown_cell(cell, here, told):
    "A cell without directives; those that the tests leave out say so. `told` is what its pictures are about."
    text = "".join(cell["source"])
    if cell["cell_type"] == "markdown": return {**cell, "source": linked(text, here).replace(f"../{card}", "/weights.md")}
    skipped = [flag for flag in ("slow", "cuda") if re.search(rf"^#\|\s*{flag}\b", text, re.M)]
    code = re.sub(r"^#\|.*\n?", "", text, flags=re.M).strip("\n")
    tags = ["remove-input"] if re.search(r"^#\|\s*echo:\s*false\b", text, re.M) else []
    note = f"# {' and '.join(skipped)}: runs only when asked for\n" if skipped else ""
    return {**cell, "metadata": dict(tags=tags) | picture_options(cell, told), "source": note + code}


def prepares(part):
    "Does a statement only import, or say how figures look?"
    if isinstance(part, (ast.With, ast.Try)): return all(map(prepares, part.body))
    look = ("plt.style.use(", "set_matplotlib_formats(")
    return isinstance(part, (ast.Import, ast.ImportFrom)) or ast.unparse(part).startswith(look)


def folded(cells):
    "The cells with neighbouring ones of nothing but imports made one that is folded."
    def imports(cell):
        begins = r"(import|from) |plt\.style\.use\(|set_matplotlib_formats\("  # others may be no Python, as `!command`
        if cell["cell_type"] != "code" or not re.match(begins, cell["source"]): return False
        return all(map(prepares, ast.parse(cell["source"]).body))
    kept = []
    for cell in cells:
        if imports(cell) and kept and imports(kept[-1]):
            kept[-1]["source"] += "\n\n" + cell["source"]
            continue
        if imports(cell): cell["metadata"] = dict(tags=["hide-input"], mystnb=dict(code_prompt_show="Imports"))
        kept.append(cell)
    return kept


def room_page(notebook, short):
    "The page of a notebook: title, what it is about, the module it makes, its cells."
    front = front_matter(notebook)
    title = f"# {front['title']}\n\n*{linked(front.get('description', ''))}*\n"
    if short: title += f"\nThe code of this room is the module [mnsp.{short}](/api/{short}.md).\n"
    told = told_before(notebook["cells"], front["title"])
    cells = [shown_cell(c, short, t) for c, t in zip(notebook["cells"], told) if c["cell_type"] != "raw"]
    cells = [c for c in cells if c["source"].strip()]
    language = dict(name="python", pygments_lexer="ipython3")  # knows `!command`
    return {**notebook, "metadata": {**notebook["metadata"], "language_info": language},
            "cells": [dict(cell_type="markdown", metadata={}, id="title", source=title), *folded(cells)]}


def navigation(front):
    "The front page's tables of links, as Sphinx's tables of contents: a caption and pages for each heading."
    trees = []
    for heading, body in re.findall(r"^###? ([^\n]+)\n(.*?)(?=^##|\Z)", front, re.M | re.S):
        links = [target.removesuffix(".ipynb") for target in re.findall(r"^\| \[[^]]*\]\(([^)]+\.ipynb)\)", body, re.M)]
        if links: trees.append((heading, links))
    missing = set(rooms.values()) - {f"{page}.ipynb" for _, links in trees for page in links} - {"index.ipynb"}
    if missing: sys.exit(f"nbs/index.ipynb has no row for {', '.join(sorted(missing))}")
    trees = [("Read", ["try"]), *trees, ("Project", ["api/index", "weights", "CONTRIBUTING", "CHANGELOG", "LICENSE"])]
    return "\n".join(f"```{{toctree}}\n:hidden:\n:caption: {name}\n\n" + "\n".join(links) + "\n```\n" for name, links in trees)


def front_page(notebook):
    "The page of nbs/index.ipynb, with the navigation of the whole site."
    page = room_page(notebook, None)
    text = "\n".join("".join(c["source"]) for c in notebook["cells"] if c["cell_type"] == "markdown")
    for cell in page["cells"]: cell["source"] = re.sub(r"\]\(\.\./(?:docs/)?(\w+)(\.md)?\)", r"](\1.md)", cell["source"])
    tree = dict(cell_type="markdown", metadata={}, id="navigation", source=navigation(text))
    return {**page, "cells": [*page["cells"], tree]}


def main():
    shutil.rmtree(pages, ignore_errors=True)
    proc_nbs(n_workers=0, force=True)
    found = {path.relative_to(made): json.loads(path.read_text("utf-8")) for path in sorted(made.rglob("*.ipynb"))}
    rooms.update({path.with_suffix("").as_posix(): path.as_posix() for path in found})
    for path, notebook in found.items():
        short = {room: name for name, room in notebooks.items()}.get(path.with_suffix("").as_posix())
        page = front_page(notebook) if path.name == "index.ipynb" else room_page(notebook, short)
        (pages/path).parent.mkdir(parents=True, exist_ok=True)
        (pages/path).write_text(json.dumps(page), "utf-8")
    (pages/"api").mkdir()
    order = sorted(modules, key=lambda short: notebooks[short])
    (pages/"api"/"index.md").write_text(reference_index(order), "utf-8")
    for short, module in modules.items():
        (pages/"api"/f"{short}.md").write_text(reference(short, module, notebooks[short]), "utf-8")
    for path in (root/"CONTRIBUTING.md", root/"CHANGELOG.md", root/"docs"/"try.md"):
        (pages/path.name).write_text(linked(path.read_text("utf-8")), "utf-8")
    (pages/"weights.md").write_text((root/card).read_text("utf-8"), "utf-8")
    (pages/"LICENSE.md").write_text(f"# Licence\n\n```text\n{(root/'LICENSE').read_text('utf-8')}\n```\n", "utf-8")


if __name__ == "__main__": main()
