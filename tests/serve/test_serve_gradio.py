"""The example under Gradio gives the answers of the engine, where Gradio is installed."""

from __future__ import annotations

import gc
import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from purpleteam.data.drawing import strokes
from purpleteam.serve.engine import Engine

EXAMPLE = Path(__file__).parents[2] / "examples" / "gradio_app.py"


@pytest.mark.filterwarnings("ignore")  # of Gradio's own, and a loop that it never closes
def test_the_example_reads_what_is_drawn(engine: Engine) -> None:
    pytest.importorskip("gradio", reason="needs the extra gradio")
    spec = importlib.util.spec_from_file_location("gradio_app", EXAMPLE)
    assert spec and spec.loader
    module: Any = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    (read,) = [function.fn for function in module.build(engine).fns.values()]
    lines = [[(40.0, 40.0), (240.0, 40.0)], [(140.0, 40.0), (140.0, 240.0)]]
    layer = np.zeros((280, 280, 4), np.uint8)
    assert read({"layers": [layer]}) == read({"layers": []}) == "Nothing is drawn yet."
    layer[..., 3] = strokes(lines)
    assert read({"layers": [layer]}) == "Read as 0."
    gc.collect()
