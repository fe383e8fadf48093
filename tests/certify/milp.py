"""The exact least margin over a ball, by mixed-integer programming: an oracle for tiny nets.

Tjeng et al. 2019 (arXiv:1711.07356); solved by HiGHS, whose tolerance is 1e-6.
"""

import numpy as np
import torch
from scipy.optimize import Bounds, LinearConstraint, milp
from scipy.sparse import lil_matrix

from purpleteam.certify.bends import Rectifier
from purpleteam.certify.bounds import Boxes
from purpleteam.certify.layers import Sum
from purpleteam.certify.network import Network

TOLERANCE = 1e-5


def least_margin(network: Network, boxes: Boxes, form: torch.Tensor) -> float:
    """Return the least value of a form in the logits, over the first box of one image (1, ...)."""
    sizes = [box.lower.numel() for box in boxes]
    starts = np.cumsum([0, *sizes])
    total = starts[-1] + sum(sizes)  # a switch for each neuron, used where it is bent
    low, high = (
        np.concatenate(
            [box[side].double().flatten().numpy() for box in boxes]
            + [np.full(sum(sizes), float(side))]
        )
        for side in (0, 1)
    )
    rows: list[tuple[dict[int, float], float, float]] = []
    for number, node in enumerate(network.nodes, 1):
        out, source = starts[number], starts[node.inputs[0]]
        if isinstance(node.layer, Rectifier):
            assert float(node.layer.slope) == 0
            for k in range(sizes[number]):
                x, y, on = source + k, out + k, starts[-1] + out + k
                bottom, top = low[x], high[x]
                if bottom >= 0:
                    rows.append(({y: 1, x: -1}, 0, 0))
                elif top <= 0:
                    rows.append(({y: 1}, 0, 0))
                else:  # y >= x, y >= 0, y <= x - bottom (1 - on), y <= top on
                    rows.append(({y: 1, x: -1}, 0, np.inf))
                    rows.append(({y: 1, x: -1, on: -bottom}, -np.inf, -bottom))
                    rows.append(({y: 1, on: -top}, -np.inf, 0))
            continue
        many = node.inputs if isinstance(node.layer, Sum) else node.inputs[:1]
        rows += [({out + k: 1.0}, 0.0, 0.0) for k in range(sizes[number])]
        for each in many:
            eye = torch.eye(sizes[each], dtype=torch.float64).reshape(-1, *network.shape(each))
            layer = node.layer if not isinstance(node.layer, Sum) else None
            zero = torch.zeros(1, *network.shape(each), dtype=torch.float64)
            offset = layer.value(zero).flatten() if layer else zero.flatten()
            matrix = (layer.value(eye) if layer else eye).flatten(1) - offset
            for k in range(sizes[number]):
                terms, lower, upper = rows[len(rows) - sizes[number] + k]
                for place in matrix[:, k].nonzero().flatten().tolist():
                    terms[starts[each] + place] = terms.get(starts[each] + place, 0.0) - float(
                        matrix[place, k]
                    )
                rows[len(rows) - sizes[number] + k] = (
                    terms,
                    lower + float(offset[k]),
                    upper + float(offset[k]),
                )
    system = lil_matrix((len(rows), total))
    for number, (terms, _, _) in enumerate(rows):
        for place, value in terms.items():
            system[number, place] = value
    cost = np.zeros(total)
    cost[starts[-2] : starts[-1]] = form.double().numpy()
    whole = np.concatenate([np.zeros(starts[-1]), np.ones(total - starts[-1])])
    limits = LinearConstraint(system.tocsr(), [row[1] for row in rows], [row[2] for row in rows])
    solved = milp(cost, constraints=limits, bounds=Bounds(low, high), integrality=whole)
    assert solved.status == 0, solved.message
    return float(solved.fun)
