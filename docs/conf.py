"""Sphinx settings: ``python -m sphinx -W -b html docs OUT``."""

project = "jaxnlt"
author = "the jaxnlt authors"
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 4
html_theme = "furo"
exclude_patterns = ["images"]
autodoc_default_options = {"members": True, "member-order": "bysource"}
autodoc_typehints = "none"
# Headings of notes start where their paper's do; links may leave docs/.
suppress_warnings = ["myst.header", "myst.xref_missing"]
napoleon_use_ivar = True
