import functools

import numpy as np
import pytest
import tensorflow as tf

from kfpn.export.saved_model import op_devices
from kfpn.export.saved_model.op_devices import cpu_operation, device_rows, device_table, exported_nodes
from kfpn.export.saved_model.write_saved_model import export_saved_model


@pytest.fixture(scope="module")
def for_gpus(tiny_workdir, tmp_path_factory):
    """Returns the tiny detector's SavedModel of --nms-on gpu. Its files are decoded as those of any other."""
    signatures = ("image_tensor", "proposals")
    return export_saved_model(
        tiny_workdir, tmp_path_factory.mktemp("gpu") / "tiny", signatures=signatures, nms_on="gpu"
    )


rows_of = functools.cache(device_rows)


@functools.cache
def signatures_of(path):
    return tf.saved_model.load(str(path)).signatures


def cpu_only(path, part):
    return next(row.cpu_only for row in rows_of(path) if row.part == part)


def test_an_export_for_gpus_selects_with_operations_that_have_kernels_there(exported, for_gpus):
    assert cpu_only(exported, "detections") == {"CombinedNonMaxSuppression": 1}
    assert cpu_only(for_gpus, "detections") == {}
    for path in (exported, for_gpus):
        assert set(cpu_only(path, "proposals")) <= {"Pow of int32", "Split of int32"}
        assert cpu_only(path, "backbone, pyramid, RPN") == {}
        assert cpu_only(path, "RoIAlign and heads") == {}
        assert "ScaleAndTranslate" in cpu_only(path, "reading, resizing, padding")


def test_an_export_for_gpus_gives_the_detections_of_the_default(exported, for_gpus, photo):
    images = tf.constant(np.stack([photo(96, 128), photo(96, 128, seed=3)]))
    ours, theirs = (signatures_of(path)["image_tensor"](images=images) for path in (exported, for_gpus))
    assert ours["num_detections"].numpy().min() > 0
    for name, values in ours.items():
        np.testing.assert_array_equal(values.numpy(), theirs[name].numpy(), err_msg=name)


def test_the_table_has_a_row_for_each_part(exported):
    rows = device_table(exported).splitlines()
    assert rows[0] == "| part | operations | without a kernel for GPUs |"
    assert [row.split(" | ")[0][2:] for row in rows[2:]] == [part for part, _ in op_devices.PARTS]
    assert rows[5].endswith("| 1 CombinedNonMaxSuppression |")


@pytest.mark.skipif(not tf.sysconfig.get_build_info()["is_cuda_build"], reason="needs a TensorFlow built for CUDA")
def test_the_stated_operations_are_those_that_this_tensorflow_registers_no_kernel_for(exported, for_gpus):
    from tensorflow.python.framework import kernels

    def fits(kernel, node):
        return all(
            constraint.name == "index_type"  # of sizes, which are on the host
            or not constraint.allowed_values.list.type
            or constraint.name not in node.attr
            or node.attr[constraint.name].type in constraint.allowed_values.list.type
            for constraint in kernel.constraint
        )

    kernels_of = functools.cache(lambda op: kernels.get_registered_kernels_for_op(op).kernel)
    wrong = {}
    for path in (exported, for_gpus):
        for _, node in exported_nodes(signatures_of(path)):
            registered = kernels_of(node.op)
            on_gpu = any(k.device_type in ("GPU", "DEFAULT") and not k.label and fits(k, node) for k in registered)
            if on_gpu != (cpu_operation(node) is None):
                wrong[node.op, *op_devices.value_types(node)] = on_gpu
    assert wrong == {}


def test_another_device_is_refused(tiny_workdir, tmp_path):
    with pytest.raises(ValueError, match="nms_on must be cpu or gpu, got 'tpu'"):
        export_saved_model(tiny_workdir, tmp_path / "served", nms_on="tpu")
    assert not (tmp_path / "served").exists()
