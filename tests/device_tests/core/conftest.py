from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.device_tests.core.capi import Speaker, open_bundle
from tests.device_tests.core.signed import Signed, public_pem


@pytest.fixture
def speaker(signed: Signed) -> Iterator[Speaker]:
    opened = open_bundle(signed.folder, public_pem())
    yield opened
    opened.close()
