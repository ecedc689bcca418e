"""Says which precision a machine trains fastest in."""

from kfpn.config.auto_facts import MachineFacts
from kfpn.config.run import Precision


def fast_precision(machine: MachineFacts) -> tuple[Precision, str]:
    """Returns the dtype policy that a machine trains fastest in, and the reason.

    Args:
        machine: what trains.
    """
    device = "GPU" if machine.gpus else "processor"
    if machine.fast_bfloat16:
        return "mixed_bfloat16", f"this {device} is fast in bfloat16"
    return "float32", f"this {device} is not fast in bfloat16"
