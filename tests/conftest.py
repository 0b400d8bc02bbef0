from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.device_tests.core.signed import Signed

# Many small networks on few cores: threads that wait for each other cost more than they bring. Before torch loads.
os.environ.setdefault("OMP_NUM_THREADS", "1")

NEEDS_TOOL = "needs Debian's "


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--require-tools",
        action="store_true",
        help=f"fail if a test was skipped because a system package is missing (its reason begins with {NEEDS_TOOL!r})",
    )


def pytest_sessionfinish(session: pytest.Session) -> None:
    if not session.config.getoption("--require-tools"):
        return
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    reasons = [str(report.longrepr) for report in reporter.stats.get("skipped", [])]
    if any(NEEDS_TOOL in reason for reason in reasons):
        reporter.write_line("a test was skipped for want of a system package", red=True)
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


@pytest.fixture(scope="session")
def signed(tmp_path_factory: pytest.TempPathFactory) -> Signed:
    """A signed bundle for all tests of the apps' core; made on demand, as it takes torch and both runtimes."""
    from tests.device_tests.core.signed import signed_bundle

    return signed_bundle(tmp_path_factory.mktemp("signed"))
