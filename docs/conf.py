"""Settings of the documentation: ``sphinx-build -W -b html docs OUT``."""

import jaxnlt

project = "jaxnlt"
author = "the jaxnlt authors"
version = release = jaxnlt.__version__

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.mathjax",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
]
exclude_patterns = ["_build", "images"]

myst_enable_extensions = ["colon_fence"]
myst_heading_anchors = 4  # links such as page.md#heading, as on GitHub
# Notes may skip a level of headings.  Links into the source work on GitHub;
# tests/docs checks them.
suppress_warnings = ["myst.header", "myst.xref_missing"]

autodoc_member_order = "bysource"
autodoc_default_options = {"members": True, "show-inheritance": True}
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
napoleon_google_docstring = True
napoleon_numpy_docstring = False
# Attributes as fields, so that a dataclass's are not described twice.
napoleon_use_ivar = True
python_use_unqualified_type_names = True
add_module_names = False

html_theme = "furo"
html_title = "jaxnlt"
