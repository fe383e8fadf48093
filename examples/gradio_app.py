"""The predictor of `purple serve` under Gradio: pip install 'purpleteam[serve,gradio]', run this.

No guard is around it: no content policy, no limits, no log, no sandbox. For your own desk.
"""

from typing import Any

import gradio as gr
import numpy as np

from purpleteam.data.drawing import EmptyDrawing, place
from purpleteam.serve.engine import Engine


def build(engine: Engine) -> gr.Blocks:
    """Return an app that shows a label, or why there is none, after each stroke."""

    def read(drawing: dict[str, Any]) -> str:
        alpha = [layer[..., 3] for layer in drawing["layers"]]  # each (280, 280); ink is opaque
        try:
            image = place(np.max(alpha, axis=0).astype(np.uint8))
        except (EmptyDrawing, ValueError):
            return "Nothing is drawn yet."
        answer = engine.classify(image.tobytes())
        return f"No label: {answer.reason}" if answer.label is None else f"Read as {answer.label}."

    with gr.Blocks(title="Draw a digit", analytics_enabled=False) as app:
        pad = gr.Sketchpad(canvas_size=(280, 280), image_mode="RGBA", brush=gr.Brush(10))
        pad.change(read, pad, gr.Textbox(label="The model reads"))
    return app


if __name__ == "__main__":
    build(Engine.load("standard")).launch(server_name="127.0.0.1")
