"""Sphinx's settings. The pages come from docs/prep.py, the rest from docs/vendor.py; nothing is loaded from
elsewhere."""
import re
from pathlib import Path

docs = Path(__file__).resolve().parent
project, author, copyright = "mnsp", "mnsp contributors", "mnsp contributors"
release = re.search(r'__version__ = "(.+)"', (docs.parent/"mnsp"/"__init__.py").read_text("utf-8"))[1]

extensions = ["myst_nb", "sphinx_copybutton", "sphinx.ext.mathjax"]
nb_render_markdown_format = "myst"
nb_execution_mode = "off"  # the notebooks are committed with their outputs
myst_enable_extensions = ["dollarmath", "amsmath", "colon_fence", "fieldlist"]
myst_heading_anchors = 3
mathjax_path = "mathjax/tex-chtml.js"
suppress_warnings = ["mystnb.unknown_mime_type"]

python_maximum_signature_line_length = 60
add_module_names = False
python_use_unqualified_type_names = True
toc_object_entries_show_parents = "hide"

html_theme = "sphinx_book_theme"
html_title = "mnsp"
html_static_path = [str(docs/"_static"), str(docs.parent/"mnsp"/"samples")]
html_css_files = ["mnsp.css"]
html_search_scorer = str(docs/"_static"/"scorer.js")
html_js_files = [("mnsp.js", dict(defer="defer"))]
html_favicon = str(docs/"_static"/"favicon.svg")
html_context = dict(default_mode="auto")
html_copy_source = False
html_show_sphinx = False
html_theme_options = dict(home_page_in_toc=False, show_toc_level=2, navbar_persistent=[], use_fullscreen_button=False,
                          use_download_button=False, footer_content_items=["copyright"],
                          pygments_light_style="a11y-high-contrast-light", pygments_dark_style="github-dark")
