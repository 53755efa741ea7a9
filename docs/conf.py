"""Settings of the documentation's site: `make docs` builds it, `make links` tries links to other sites."""

from pathlib import Path
from typing import TYPE_CHECKING

import fulgurite
from docs import site_docstrings, site_math, site_pages

if TYPE_CHECKING:
    from sphinx.application import Sphinx

project = "Fulgurite"
release = version = fulgurite.__version__
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
exclude_patterns = ["pictures", "notebooks"]

myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 3

# names of other packages are not looked up: that would need the network; our own must be there
nitpicky = True
nitpick_ignore_regex = [("py:.*", r"(?!fulgurite\.).*")]

highlight_language = "text"
default_role = "code"
autodoc_member_order = "bysource"
autodoc_preserve_defaults = True
autodoc_typehints_format = "short"
python_use_unqualified_type_names = True
python_maximum_signature_line_length = 88
napoleon_numpy_docstring = False
napoleon_use_ivar = True

html_theme = "furo"
html_title = "Fulgurite"
html_static_path = ["site.css"]
html_css_files = ["site.css"]
html_copy_source = False
html_show_copyright = False
html_show_sphinx = False
html_math_renderer = "mathml"

linkcheck_timeout = 20
linkcheck_workers = 4


def setup(app: "Sphinx") -> None:
    """Write the pages that are made of the code, and connect what changes the others."""
    site_pages.write(Path(__file__).parent)
    app.connect("source-read", site_pages.resolve_links)
    app.connect("autodoc-process-docstring", site_docstrings.to_rest, priority=400)
    app.add_html_math_renderer("mathml", (site_math.inline, None), (site_math.block, None))
