from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from fastseg_runtime.arrays.shared_files import cache_folder
from fastseg_runtime.bundle.reader import open_bundle
from fastseg_web import library
from fastseg_web.server import PageServer, choose_artifact, contents

CACHE = cache_folder()  # the user's own, before tests get one of theirs
FAKE = {name: name.encode() for name in library.FILES}
Serve = Callable[..., PageServer]


@pytest.fixture(scope="session")
def files() -> dict[str, bytes]:
    """The engine for the browser, out of the user's cache."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FASTSEG_CACHE", str(CACHE))
        try:
            return library.read()
        except library.LibraryError as error:
            pytest.skip(f"no engine for the browser: {error}")


@pytest.fixture
def serve() -> Iterator[Serve]:
    """Serves a bundle until the test ends."""
    with ExitStack() as stack:

        def start(bundle: Path, files: dict[str, bytes] = FAKE, tls: Any = None) -> PageServer:
            with open_bundle(bundle) as opened:
                served = contents(opened, choose_artifact(opened), files)
            server = stack.enter_context(PageServer(served, "127.0.0.1", 0, tls))
            Thread(target=server.serve, daemon=True).start()
            stack.callback(server.stop)
            return server

        yield start
