"""What `purple export --vnnlib` writes for verifiers, and reads back from them."""

from collections import Counter
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from purpleteam.certify.plain_onnx import plain_onnx
from purpleteam.certify.vnnlib import Property, read_verdicts, write_problem
from purpleteam.core.errors import ModelError, UsageError
from purpleteam.models.black_box import BlackBox, OnnxFile, session_of
from purpleteam.models.devices import to_batch
from purpleteam.models.inference import logits
from purpleteam.models.store import Provenance, store
from purpleteam.verbs._subject import Subject
from purpleteam.verbs.outputs import folder_to_write

TOLERANCE = 1e-5  # of the largest difference of two logits, by the model and by ONNX Runtime


def write(subject: Subject, folder: Path, epsilon: float) -> dict[str, Any]:
    """Write the net and a property for each image; return what was written."""
    module: Any = subject.loaded.module
    images, labels = subject.images, subject.images.labels.tolist()
    if any(folder_to_write(folder).iterdir()):
        raise UsageError(f"--vnnlib {str(folder)!r} is not empty: name a new folder")
    if isinstance(module, OnnxFile):
        net, head = plain_onnx(Path(module.path).read_bytes(), module.output, module.normalisation)
    elif isinstance(module, BlackBox):
        raise UsageError(
            f"model {subject.loaded.name!r} only gives answers: it has no net to export"
        )
    else:
        about: Any = {"shape": subject.shape, "classes": subject.dataset.classes, "recipe": {}}
        with TemporaryDirectory() as place:
            stored = store(module, Path(place) / "net", Provenance(architecture="net", **about))
            net, head = plain_onnx(stored.onnx.read_bytes())
    session, x = session_of("net.onnx", net), to_batch(images.images).numpy()[:, None]
    taken, shape = session.get_inputs()[0], list(x.shape[1:])
    if taken.shape != shape:
        raise ModelError(f"the net takes {taken.shape}, images are {shape}: export it for those")
    scores = np.concatenate([session.run(None, {taken.name: one})[0] for one in x])
    order = getattr(module, "order", None)
    places = list(range(scores.shape[1]) if order is None else order.places)
    told, expected = scores[:, places], logits(module, images.images)
    tiny = np.finfo(np.float32).tiny if head else 0
    if head and (expected >= 0).all():
        expected = np.log(np.maximum(expected, tiny))
    told, expected = (  # properties compare scores: what is added to all of them is no difference
        np.maximum(rows - rows.max(1, keepdims=True), np.log(tiny) if head else -np.inf)
        for rows in (told, expected)
    )
    difference = float(np.abs(told - expected).max() / max(np.abs(expected).max(), 1e-30))
    if not difference <= TOLERANCE:
        raise ModelError(f"the model and its ONNX disagree by {difference:.1g} of their logits")
    properties = [
        Property.around(one, epsilon, places[label], places, scores.shape[1])
        for one, label in zip(x, labels, strict=True)
    ]
    more: Any = {"norm": "linf", "labels": labels, "onnx_difference": difference}
    write_problem(folder, net, properties, subject.about(epsilon=epsilon, **more))
    return {"vnnlib": str(folder), "properties": len(labels), "onnx_difference": difference}


def read(folder: Path, verdicts: Path) -> dict[str, Any]:
    """Return how many verdicts there are of each kind, and which witnesses are none."""
    found = read_verdicts(folder, verdicts)
    counts = Counter(word or "missing" for word, _ in found.values())
    false = {name: why for name, (_, why) in found.items() if why}
    return {"vnnlib": str(folder), "verdicts": dict(counts), "false_witnesses": false}
