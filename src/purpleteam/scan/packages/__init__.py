"""What a tree says that it installs, and what is published against it; nothing is installed.

- `declared`    the one reader of manifests and locks;  `commands`: images and workflows
- `advisories`  a dated snapshot of published holes;  `audit`: pip-audit, which asks the index
- `checks`      the executed checks of installed packages
"""
