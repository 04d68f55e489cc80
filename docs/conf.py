"""The site's settings; `make docs` builds it without a network. What is written from code stands in `pages.py`."""

import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parent)]

from pages import docstring, skip, write  # noqa: E402

import jaxfit  # noqa: E402

write(HERE, HERE.parent / "figures")

project = "jaxfit"
author = "the jaxfit developers"
copyright = "the jaxfit developers, Apache-2.0"
version = release = jaxfit.__version__
extensions = [
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.napoleon",
    "sphinx_copybutton",
    "myst_nb",
]
exclude_patterns = ["_build", "_templates", "explorers"]
html_extra_path = ["explorers"]
templates_path = ["_templates"]
suppress_warnings = ["mystnb.unknown_mime_type"]

html_theme = "furo"
html_title = "jaxfit"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_copy_source = False
html_show_sphinx = False
html_theme_options = {
    "light_css_variables": {"color-brand-primary": "#0072b2", "color-brand-content": "#0072b2"},
    "dark_css_variables": {"color-brand-primary": "#56b4e9", "color-brand-content": "#56b4e9"},
}

autosummary_generate = True
autodoc_typehints = "none"  # the signature has them as the source spells them
autodoc_member_order = "bysource"
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_custom_sections = ["Returns", "Yields"]  # prose, in which a colon does not end a type
default_role = "code"

myst_enable_extensions = ["colon_fence", "deflist", "attrs_inline"]
myst_heading_anchors = 3
nb_execution_mode = "cache"
nb_execution_raise_on_error = True
nb_execution_timeout = 600
nb_merge_streams = True
copybutton_exclude = ".linenos, .gp, .go"


def setup(app):
    app.connect("autodoc-process-docstring", docstring, priority=100)  # before napoleon
    app.connect("autodoc-skip-member", skip)
