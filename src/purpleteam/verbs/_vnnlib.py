"""What `purple export --vnnlib` writes for verifiers, and reads back from them."""

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from purpleteam.certify.network import network_of
from purpleteam.certify.onnx_writer import write_onnx
from purpleteam.certify.vnnlib import Property, read_verdicts, write_problem
from purpleteam.core.errors import ModelError, UsageError
from purpleteam.models.black_box import session_of
from purpleteam.models.devices import to_batch
from purpleteam.models.inference import logits
from purpleteam.verbs._subject import Subject
from purpleteam.verbs.outputs import folder_to_write

TOLERANCE = 1e-5  # of the largest difference of two logits, by the model and by ONNX Runtime
FAINTEST = np.finfo(np.float32).tiny


def write(subject: Subject, folder: Path, epsilon: float) -> dict[str, Any]:
    """Write the net and a property for each image; return what was written."""
    module, images = subject.loaded.module, subject.images
    if any(folder_to_write(folder).iterdir()):
        raise UsageError(f"--vnnlib {str(folder)!r} is not empty: name a new folder")
    net = write_onnx(network_of(module, subject.shape))
    session, x = session_of("net.onnx", net), to_batch(images.images[:]).numpy()[:, None]
    scores = np.concatenate([session.run(None, {"images": one})[0] for one in x])
    expected = logits(module, images.images)
    # Properties compare scores: what is added to all of them, as by a last softmax, is nothing.
    told, wanted = (rows - rows.max(1, keepdims=True) for rows in (scores, expected))
    shares = np.exp(told) / np.exp(told).sum(1, keepdims=True)
    apart = [
        np.abs(mine - theirs).max() / max(np.abs(theirs).max(), FAINTEST)
        for mine, theirs in ((told, wanted), (shares, expected))
    ]
    if not (difference := float(min(apart))) <= TOLERANCE:
        raise ModelError(f"the model and its ONNX disagree by {difference:.1g} of their logits")
    labels, outputs = images.labels.tolist(), scores.shape[1]
    properties = [
        Property.around(one, epsilon, label, outputs) for one, label in zip(x, labels, strict=True)
    ]
    more: Any = {"norm": "linf", "labels": labels, "onnx_difference": difference}
    write_problem(folder, net, properties, subject.about(epsilon=epsilon, **more))
    return {"vnnlib": str(folder), "properties": len(labels), "onnx_difference": difference}


def read(folder: Path, verdicts: Path) -> dict[str, Any]:
    """Return how many verdicts there are of each kind, and which witnesses are none."""
    if not verdicts.is_dir():
        raise UsageError(f"--verdicts {str(verdicts)!r} is no folder: name one with 00000.txt, ...")
    found = read_verdicts(folder, verdicts)
    counts = Counter(word or "missing" for word, _ in found.values())
    false = {name: why for name, (_, why) in found.items() if why}
    return {"vnnlib": str(folder), "verdicts": dict(counts), "false_witnesses": false}
