"""The datasets that Purpleteam knows by name, a file each.

- `mnist`   the four files: found, verified against pinned digests, or fetched
- `digits`  scikit-learn's 1,797 digits, placed as MNIST would have them
- `fetch`   a file over HTTPS from the first mirror whose content is what it must be
"""
