"""A run folder into a report: a pure function, without torch and without re-running.

- `render`     the two pages of a run: one self-contained HTML file, and `markdown`
- `tables`     results/*.json into the tables of the README
- `collect`    the run folder, read once and asked by name;  `swept`: the table of a sweep
- `view`       what a page is made of; a `Number` cannot be made without its record's id
- `numbers`    how figures are written: percent only here, interval and n beside
- `chapter`    a chapter is a declaration in CHAPTERS;  `chapters/`: one file each
- `blocks`     what chapters share;  `figures`: inline SVG;  `png`: a PNG writer
"""

from purpleteam.report.chapter import CHAPTERS, Chapter, Sheet
from purpleteam.report.render import ReportFiles, differing, render
from purpleteam.report.tables import readme_table, render_results

__all__ = ["CHAPTERS", "Chapter", "ReportFiles", "Sheet", "differing", "readme_table", "render"]
__all__ += ["render_results"]
