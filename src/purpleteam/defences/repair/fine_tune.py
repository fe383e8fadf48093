"""Fine-tuning on trusted images: the repair that everyone tries first, and that fails."""

from purpleteam.defences.repair import REPAIRS, Tuning, part_of


@part_of(REPAIRS, "fine_tune")
class FineTune(Tuning):
    """Goes on training on trusted images alone; nothing in them tells of the trigger."""
