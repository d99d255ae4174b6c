"""How Sphinx builds these pages: ``sphinx-build -W docs build/docs``."""

import re
from importlib.metadata import version as _version

project = "ntkest"
author = "the ntkest developers"
version = release = _version("ntkest")

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.viewcode"]
myst_heading_anchors = 3

html_theme = "furo"
html_title = "ntkest"

autodoc_member_order = "bysource"
autodoc_typehints = "none"  # signatures stay readable; numpydoc sections have the types
napoleon_google_docstring = False
napoleon_use_rtype = False


def setup(app):
    """On the site there is nothing outside docs/, so that links to there become plain text."""

    def stay_inside(app, name, source):
        source[0] = re.sub(r"\[([^\]]+)\]\(\.\./[^)]*\)", r"\1", source[0])

    app.connect("source-read", stay_inside)
