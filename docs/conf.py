"""Sphinx settings: `sphinx-build -c docs . build/site` builds a site with search from the Markdown files.

The sources begin at the top folder, so that the README and the pages link to each other by the same paths as on GitHub.
"""

project = "itwin-mcp"
author = "The itwin-mcp authors"
project_copyright = author
extensions = ["myst_parser"]
root_doc = "docs/index"
include_patterns = ["*.md", "docs/**", "capabilities/README.md", "benchmarks/README.md"]
exclude_patterns = [".*", "build", "src", "tests", "docs/conf.py"]
myst_heading_anchors = 3
html_theme = "furo"
html_title = "itwin-mcp"
html_extra_path = ["site-root"]
html_favicon = "../icon.png"
html_theme_options = {"navigation_with_keys": True}
html_copy_source = False
html_show_sphinx = False
