import pytest
from parity import Reference, import_reference

from tests.weights.foreign import detectron2, heads, trunk, write


@pytest.fixture(scope="module")
def imported(request, shared):
    """Returns the network of a folder of reference numbers, which a test names by `indirect` parameters."""
    return import_reference(Reference(shared(f"parity/{request.param}")))


@pytest.fixture(scope="module")
def coco(tmp_path_factory):
    """Returns a file of tiny weights, a detector of COCO's classes as detectron2 writes it."""
    units = trunk()
    content = {"model": detectron2(units, heads(units, classes=80, background_first=False))}
    return write(tmp_path_factory.mktemp("init") / "coco.pkl", content)
