"""Drawings as inline SVG, written by hand: they take their colours from the page and print.

- `svg`      elements, escaped; the frame with title and description
- `curves`   lines over epsilon with their intervals, and training curves; labels at the lines
- `bars`     rates with their intervals, alone or as claimed beside true
- `heatmap`  confusion matrices
- `foreign`  drawings of other rooms, cut down to what can only draw
"""

from purpleteam.report.figures.bars import Bar, bars
from purpleteam.report.figures.curves import Point, Series, curves
from purpleteam.report.figures.foreign import only_drawing
from purpleteam.report.figures.heatmap import heatmap

__all__ = ["Bar", "Point", "Series", "bars", "curves", "heatmap", "only_drawing"]
