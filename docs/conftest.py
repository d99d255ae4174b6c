"""Scripts are run as scripts, in processes of their own; looking for doctests would import them."""

collect_ignore_glob = ["examples/*.py", "conf.py"]
