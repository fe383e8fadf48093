"""A run folder into a report: a pure function, without torch and without re-running.

- `collect`    the run folder, read once and asked by name
- `view`       what a page is made of; a `Number` cannot be made without its record's id
- `numbers`    how figures are written: percent only here, interval and n beside
- `published`  the figures of the two seed reports, to stand beside ours
- `chapters/`  the story in the order of the flow; `blocks` are what they share
- `figures/`   inline SVG; `png`: a PNG writer on zlib alone
- `html`, `markdown`  the same chapters as one self-contained page, and as text
- `tables`     results/*.json into the tables of the README
"""

from __future__ import annotations

from purpleteam.report.render import ReportFiles, differing, render
from purpleteam.report.tables import readme_table, render_results

__all__ = ["ReportFiles", "differing", "readme_table", "render", "render_results"]
