"""Fine-tuning on trusted images: the repair that everyone tries first, and that fails."""

from dataclasses import dataclass

from purpleteam.defences.repair import REPAIRS, Tuning


@REPAIRS.register("fine_tune")
@dataclass(frozen=True, kw_only=True)
class FineTune(Tuning):
    """Goes on training on trusted images alone; nothing in them tells of the trigger."""
