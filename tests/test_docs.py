"""The built site (`make docs`): complete, without a broken link, and with nothing that is loaded from elsewhere."""
import importlib
import json
import re
from html.parser import HTMLParser
from urllib.parse import unquote, urldefrag

import pytest

LOADED = {("script", "src"), ("img", "src"), ("iframe", "src"), ("source", "src"), ("video", "src"), ("embed", "src"),
          ("object", "data"), ("link", "href")}
NOT_LOADED = {"next", "prev", "index", "search", "author", "canonical", "copyright"}  # relations that fetch nothing


class Page(HTMLParser):
    "What one page names (ids), links to and loads, and its text."
    def __init__(self, path):
        super().__init__()
        self.ids, self.links, self.loads, self.text, self.scripts, self.pictures = set(), set(), [], [], [], []
        self.inside = None
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attributes):
        attributes, self.inside = dict(attributes), tag
        if "id" in attributes: self.ids.add(attributes["id"])
        if tag == "img": self.pictures.append(attributes)
        for name, value in attributes.items():
            fetched = (tag, name) in LOADED and not NOT_LOADED & set(attributes.get("rel", "").split())
            if fetched or name in ("srcset", "poster"): self.loads.append(value)
            elif name in ("href", "src"): self.links.add(value)

    def handle_data(self, data):
        (self.scripts if self.inside in ("script", "style") else self.text).append(data)

    def handle_endtag(self, tag): self.inside = None


@pytest.fixture(scope="module")
def site(root):
    "Folder of the built site; `make test` builds it before the tests run."
    folder = root/"docs"/"_build"/"html"
    if not (folder/"index.html").exists(): pytest.skip("no site here: `make docs` builds it")
    return folder


@pytest.fixture(scope="module")
def pages(site):
    return {path.relative_to(site).as_posix(): Page(path) for path in site.rglob("*.html")
            if "_static" not in path.parts}  # there lie templates of the theme


@pytest.fixture(scope="module")
def notebooks(root):
    return {path.relative_to(root/"nbs").with_suffix("").as_posix(): json.loads(path.read_text(encoding="utf-8"))
            for path in (root/"nbs").rglob("*.ipynb") if ".ipynb_checkpoints" not in path.parts}


def is_elsewhere(address): return bool(re.match(r"(?:[a-z]+:)?//", address))


def broken(site, pages, page, address):
    "Why an address on a page leads nowhere; empty when it leads somewhere."
    if is_elsewhere(address): return "" if address.startswith("https://") else "not https"
    if re.match(r"(data|mailto|javascript):", address): return ""
    target, fragment = urldefrag(address)
    target = target.partition("?")[0]
    path = (site/page).parent/unquote(target) if target else site/page
    if not path.is_file(): return "no such file"
    name = path.resolve().relative_to(site.resolve()).as_posix()
    if fragment and name in pages and unquote(fragment) not in pages[name].ids: return "no such place on the page"
    return ""


def test_no_link_is_broken(site, pages):
    found = [(page, address, why) for page, content in pages.items() for address in content.links.union(content.loads)
             if (why := broken(site, pages, page, address))]
    assert not found
    assert sum(len(content.links) for content in pages.values()) > 1000


def test_nothing_is_loaded_from_elsewhere(site, pages):
    assert not [(page, address) for page, content in pages.items() for address in content.loads if is_elsewhere(address)]
    remote = r"(?:url\(\s*|@import\s+)[\"']?(?:https?:)?//[^\s\"')]+"
    styles = {path: path.read_text(encoding="utf-8") for path in site.rglob("*.css")}
    styles |= {page: "".join(content.scripts) for page, content in pages.items()}
    assert not [(path, found) for path, text in styles.items() if (found := re.findall(remote, text))]
    assert styles


def test_formulas_and_their_fonts_are_local(site, pages):
    script = next(path for path in pages["17_nsp.html"].loads if "mathjax" in path)
    text = (site/script.partition("?")[0]).read_text(encoding="utf-8")
    if "was left out" in text: pytest.skip("MathJax could not be fetched: npm or its registry is missing")
    assert len(text) > 500_000
    assert (site/"_static"/"mathjax"/"output"/"chtml"/"fonts"/"woff-v2"/"MathJax_Main-Regular.woff").is_file()


def test_every_notebook_is_there_with_its_pictures(site, pages, notebooks):
    for name, notebook in notebooks.items():
        content = pages[f"{name}.html"]
        wanted = sum(any(kind.startswith("image/") for kind in output.get("data", {})) for cell in notebook["cells"]
                     if not re.search(r"^#\|\s*hide\b", "".join(cell["source"]), re.MULTILINE)
                     for output in cell.get("outputs", []))
        pictures = [address for address in content.loads if "_images/" in address]
        assert len(pictures) >= wanted, name


def test_every_picture_says_what_it_is(pages):
    shown = [(page, picture) for page, content in pages.items() for picture in content.pictures
             if "_static/" not in picture["src"]]  # signs of the theme, beside text that says the same
    silent = [(page, picture["src"]) for page, picture in shown
              if not picture.get("alt") or "_images/" in picture["alt"]]  # the file's name, where Sphinx knows no text
    assert not silent
    assert len(shown) > 50


def test_every_notebook_is_linked_from_the_front_page(pages, notebooks):
    assert {f"{name}.html" for name in notebooks} <= pages["index.html"].links | {"index.html"}


def test_reference_tells_shapes_of_everything_exported(pages):
    found, text = pages["api/pyramid.html"].ids, " ".join("".join(pages["api/pyramid.html"].text).split())
    module = importlib.import_module("mnsp.pyramid")
    assert {f"mnsp.pyramid.{name}" for name in module.__all__} <= found
    assert "uint8 or float [B, 3, H, W], 0..255" in text and "(height, width) of the finest scale in pixels" in text
    assert "mnsp.pretrain.Pretrainer.forward" in pages["api/pretrain.html"].ids  # methods too
    assert {"mnsp.encoder.EncoderConfig.sizes", "mnsp.encoder.EncoderConfig.grid"} <= pages["api/encoder.html"].ids
    assert "mnsp pretrain" in "".join(pages["api/cli.html"].text)


def test_search_knows_rooms_and_functions(site):
    index = (site/"searchindex.js").read_text(encoding="utf-8")
    index = json.loads(index.removeprefix("Search.setIndex(").rstrip().removesuffix(")"))
    assert {"10_pyramid", "api/pyramid"} <= set(index["docnames"])
    assert "pyramid" in index["titleterms"] and "token_centr" in str(index["terms"].keys())
    assert {"scale_sizes", "token_centres"} <= {entry[-1] for entry in index["objects"]["mnsp.pyramid"]}
    assert "from_pretrained" in {entry[-1] for entry in index["objects"]["mnsp.recognizer.Recognizer"]}
