from pathlib import Path

import pytest

from tests.device_tests.bundles import make_bundle


@pytest.fixture(scope="session")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny bundle of both formats; not to be changed."""
    return make_bundle(tmp_path_factory.mktemp("bundle"))
