import numpy as np
import pytest

from kfpn.export.saved_model import verify_saved_model as verify
from kfpn.export.verify import ExportMismatch


def test_an_export_is_verified_and_refused_once_its_model_has_other_weights(
    trained, exported, reference, monkeypatch, capsys
):
    monkeypatch.setattr(verify, "Reference", lambda _: reference)
    differences = verify.verify_trained(trained, exported)
    assert set(differences) == {"serving_default", "image_tensor", "proposals"}
    assert all(difference.rows > 50 and difference.unmatched == 0 for difference in differences.values())
    assert "verify image_tensor: 120 rows; largest differences: box " in capsys.readouterr().out
    batches = list(verify.image_batches(trained.config))
    monkeypatch.setattr(verify, "image_batches", lambda _: batches[:1])
    bias = trained.unfolded.heads["box"].get_layer("head_logits").bias
    before = np.array(bias)
    bias.assign(before + np.array([0.0, 0.1, 0.0, 0.0]))
    try:
        with pytest.raises(
            ExportMismatch, match=r"must give boxes within 0.05 pixels and .* of 20 rows without counterpart"
        ):
            verify.verify_trained(trained, exported)
    finally:
        bias.assign(before)


def test_a_folder_without_a_model_cannot_be_verified(trained, tmp_path):
    with pytest.raises(ValueError, match="must be a SavedModel, got a folder without one"):
        verify.verify_trained(trained, tmp_path)
