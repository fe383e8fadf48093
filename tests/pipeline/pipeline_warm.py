"""What a run does once in a process and takes long, so that it is done before the forks."""

from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from purpleteam.models import build
from purpleteam.models.store import _export

SHAPE = (1, 28, 28)

net = build("small_cnn", SHAPE, 10, seed=0)
torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9).zero_grad()
with TemporaryDirectory() as folder:
    _export(net, SHAPE, Path(folder) / "net.onnx", traced=False)
