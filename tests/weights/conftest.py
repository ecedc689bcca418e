import pytest
from parity import Reference, import_reference


@pytest.fixture(scope="module")
def imported(request, shared):
    """Returns the network of a folder of reference numbers, which a test names by `indirect` parameters."""
    return import_reference(Reference(shared(f"parity/{request.param}")))
