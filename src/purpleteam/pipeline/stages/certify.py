"""Stage certify: what no adversary within a stated bound can change."""

from dataclasses import asdict
from functools import partial

from purpleteam import verbs
from purpleteam.pipeline.state import Run


def certify_partition(run: Run) -> None:
    """Certify the test images against changes of the training set, as one cell."""
    asked, seed = asdict(run.config.certify), run.config.seed
    doing = {key: run.doing[key] for key in ("threads", "run", "progress")}
    if asked["changes"]:
        certify = partial(verbs.certify, run.dataset, **asked, seed=seed, **doing)
        run.cell("certify", "partitions", asked, lambda: certify().records)
