"""Runs `kfpn export tf_trt`. TensorFlow is imported when it runs."""

from kfpn.export.tf_trt.trt_options import TfTrtOptions


def run(options: TfTrtOptions) -> int:
    """Prints the report on what would convert, or exports and prints what was written and how it compares.

    Returns:
        0.

    Raises:
        ValueError: see `kfpn.export.tf_trt.write_tf_trt.write_tf_trt` and `checked_report`.
    """
    from kfpn.export.tf_trt.write_tf_trt import checked_report, write_tf_trt
    from kfpn.runs.load import require_trained, task_of
    from kfpn.runs.workdir import Workdir

    if task_of(options.workdir) != "detections":  # said before what is missing on this machine
        require_trained(Workdir(options.workdir))
    print(checked_report(options) if options.report else write_tf_trt(options))
    return 0
