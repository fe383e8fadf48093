"""L2 radii from a Lipschitz bound of the net (Tsuzuku et al. 2018, arXiv:1802.04034).

If the scores of images x and x' differ by at most L |x - x'| in L2, the difference of two scores
moves by at most sqrt(2) L |x - x'|, so no change below margin / (sqrt(2) L) moves the answer. L is
a product along the layers, with one change: of a last linear layer the rows' differences are taken,
not its norm. The bound is cheap and loose: it says little of a net that was not trained for it.
"""

from __future__ import annotations

import math
import time

import torch
from torch import Tensor

from purpleteam.certify.bends import Clip, MaxPool, Rectifier
from purpleteam.certify.folding import folded
from purpleteam.certify.layers import Convolution, Dense, Layer, Rearranged, Stacked, Sum
from purpleteam.certify.network import Network, Shape, Unsupported, network_of
from purpleteam.certify.radii import Certificate, RadiusCertificate
from purpleteam.certify.scaling import Scaling
from purpleteam.core.errors import ModelError, UsageError, unknown
from purpleteam.core.progress import SILENT, Progress
from purpleteam.data.images import ImageSet, check_is_set
from purpleteam.models.devices import to_batch
from purpleteam.models.guard import Classifier

ROUNDING = 1e-9  # relative; far above what float64 makes of norms and their products
TINY = 1e-12  # a constant net's radius is finite
TOGETHER = 100  # images
NORMS = ("l2", "linf")
NOTHING = "there is no image to certify"


def spectral_norm(layer: Layer, out: Shape, place: str = "") -> float:
    """Return an upper bound of the L2 norm of a linear layer that returns `out` for an image.

    Exact for a matrix and for a scaling. A convolution of an image with zeros around it is a part
    of the circular one with a period so long that no product wraps around: rows and columns of it
    are left out, which never makes a norm larger. The circular one is block diagonal in the Fourier
    basis, one block (out, in) for each frequency (Sedghi et al. 2019, arXiv:1805.10408). A stride s
    is a convolution of stride 1 on the s * s shifted images of every s-th pixel: the same numbers
    in another order, so nothing is lost by it.
    """
    if isinstance(layer, Dense):
        return float(torch.linalg.matrix_norm(layer.weight, 2))
    if isinstance(layer, Scaling):
        return float(layer.factor.abs().max())
    if not isinstance(layer, Convolution):
        raise Unsupported(f"no Lipschitz bound of layer {place} ({type(layer).__name__})")
    kernel = layer.weight  # (out, in, height, width)
    for axis in (0, 1):
        reach = layer.dilation[axis] * (kernel.shape[2] - 1) + 1
        stride = layer.stride[axis] if out[1 + axis] > 1 else reach  # of one place alone it is free
        size, channels, _, other = kernel.shape
        taps = kernel.new_zeros(size, channels, -(-reach // stride) * stride, other)
        taps[:, :, : reach : layer.dilation[axis]] = kernel
        taps = taps.reshape(size, channels, -1, stride, other).movedim(3, 2).flatten(1, 2)
        kernel = taps.transpose(2, 3)  # (out, in * stride, the other axis, taps)
    kernel = kernel.reshape(layer.groups, -1, *kernel.shape[1:])  # (groups, out, in, height, width)
    rows, columns = (side + taps - 1 for side, taps in zip(out[1:], kernel.shape[3:], strict=True))
    waves = torch.fft.rfft(kernel, rows, 3).unbind(3)  # a real kernel's other half is conjugate
    blocks = (torch.fft.fft(wave, columns, 3).movedim(3, 0) for wave in waves)
    return max(float(torch.linalg.matrix_norm(block, 2).max()) for block in blocks)


def lipschitz_bounds(network: Network) -> Tensor:
    """Return how far each two logits' difference moves at most per L2 of the image, (K, K)."""
    network = folded(network.to(torch.float64, torch.device("cpu")))
    bounds = [1.0]  # of each node
    for node in network.nodes:
        layer, before = node.layer, [bounds[source] for source in node.inputs]
        if isinstance(layer, Rectifier | Clip | Rearranged):  # no slope is above 1
            bound = before[0]
        elif isinstance(layer, Sum):
            bound = sum(before)
        elif isinstance(layer, Stacked):
            bound = math.hypot(*before)
        elif isinstance(layer, MaxPool):  # a value moves the windows that it is in, each once
            sides = zip(layer.kernel, layer.stride, strict=True)
            bound = before[0] * math.sqrt(math.prod(-(-side // step) for side, step in sides))
        else:
            bound = before[0] * spectral_norm(layer, node.shape, node.place)
        bounds.append(bound)
    last = network.nodes[-1]
    if isinstance(last.layer, Dense):
        weight, exact = last.layer.weight, "donot_use_mm_for_euclid_dist"
        gaps = torch.cdist(weight, weight, compute_mode=exact) * bounds[last.inputs[0]]
    else:
        gaps = torch.full((network.classes,) * 2, math.sqrt(2) * bounds[-1], dtype=torch.float64)
    return gaps * (1 + ROUNDING)


def certify_lipschitz(
    model: Classifier,
    images: ImageSet,
    *,
    norm: str = "l2",
    digest: str = "",
    progress: Progress = SILENT,
) -> RadiusCertificate:
    """Certify a net on images by its Lipschitz bound, in L2 or, through sqrt(pixels), in linf.

    Raises:
        Unsupported: no bound goes through a layer; it is named with its place.
        ModelError: the model only answers, or its scores are not finite.
        UsageError: there is no image, or the norm is another.
    """
    check_is_set(images)
    if norm not in NORMS or not len(images):
        raise UsageError(unknown("norm", norm, NORMS) if len(images) else NOTHING)
    started, found = time.process_time(), []
    shape = to_batch(images.images[:1]).shape[1:]
    network = network_of(model, shape).to(torch.float64, torch.device("cpu"))
    gaps = lipschitz_bounds(network).clamp_min(TINY)
    share = 1 / math.sqrt(shape.numel()) if norm == "linf" else 1.0
    with progress.task("certify by the Lipschitz bound", len(images)) as task, torch.no_grad():
        for start in range(0, len(images), TOGETHER):
            scores = network(to_batch(images.images[start : start + TOGETHER]).double())
            if not scores.isfinite().all():
                raise ModelError("the model returned NaN or infinite logits")
            best, label = scores.max(1)
            margin = best[:, None] - scores - ROUNDING * scores.abs().amax(1, keepdim=True)
            radii = (margin.clamp_min(0) / gaps[label]).scatter(1, label[:, None], torch.inf)
            pairs = zip(label.tolist(), (share * radii.amin(1)).tolist(), strict=True)
            found += [Certificate(label=label, radius=radius) for label, radius in pairs]
            task.advance(len(scores))
    claim = {"complete": False, "deterministic": True, "arithmetic": "real"}
    return RadiusCertificate(
        images=tuple(found),
        labels=images.labels,
        how={"method": "lipschitz", "norm": norm, **claim},
        classifier=digest,
        seconds=time.process_time() - started,
    )
