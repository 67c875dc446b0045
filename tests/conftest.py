"""For all tests: no deadline for property tests, Ctrl-C as in a terminal, slow files first."""

import signal
from collections.abc import Iterator

import pytest
from hypothesis import settings

# Machines under load are slow.
settings.register_profile("house", deadline=None)
settings.load_profile("house")

# A shell that starts the tests in the background has Ctrl-C ignored, and children inherit that.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:  # nohup: so does every command under test
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


@pytest.fixture(autouse=True, scope="session")
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keeps what passed a self-test out of the user's cache, and the user's boards out of tests."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("FASTSEG_CACHE", "XDG_CACHE_HOME", "XDG_CONFIG_HOME"):
            patch.setenv(name, str(tmp_path_factory.mktemp("own")))
        patch.setenv("no_proxy", "127.0.0.1,localhost,::1")  # many networks have a proxy
        yield


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put files with slow tests first, so that what two processes end with are short ones."""
    slow = {
        i.path for i in items if i.get_closest_marker("slow") or i.get_closest_marker("engines")
    }
    items.sort(key=lambda item: item.path not in slow)
