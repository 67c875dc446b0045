"""A headless Chromium, which stands in for whatever browser somebody has."""

import fcntl
import json
import os
import select
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any, Self

CHROMIUM = shutil.which("chromium")
_SILENT_S = 120  # a page of ours may compute for so long


class Browser:
    """A browser with one page, spoken to by its pipe of debugging messages; a context manager.

    Args:
        profile: a folder of its own.
        url: of the page.
        options: further ones of its command line.
    """

    def __init__(self, profile: Path, url: str, *options: str) -> None:
        (theirs_in, self._out), (self._in, theirs_out) = os.pipe(), os.pipe()
        ends = [fcntl.fcntl(end, fcntl.F_DUPFD, 20) for end in (theirs_in, theirs_out)]
        common = ["--headless", "--no-sandbox", "--disable-gpu", "--no-first-run"]
        common += ["--disable-background-networking", f"--user-data-dir={profile}"]
        shell = f'exec "$@" 3<&{ends[0]} 4>&{ends[1]}'  # the pipes' numbers are fixed
        command = ["bash", "-c", shell, "-", str(CHROMIUM), *common, *options]
        self._process = subprocess.Popen(
            [*command, "--remote-debugging-pipe"], pass_fds=ends, stderr=subprocess.DEVNULL
        )
        for end in (theirs_in, theirs_out, *ends):
            os.close(end)
        self._number, self._session, self._left = 0, "", b""
        try:
            target = self.ask("Target.createTarget", url="about:blank")["targetId"]
            attached = self.ask("Target.attachToTarget", targetId=target, flatten=True)
            self._session = attached["sessionId"]
            self.ask("Page.navigate", url=url)
        except BaseException:
            self.__exit__()
            raise

    def ask(self, method: str, **parameters: Any) -> Any:
        """Send a message of Chromium's debugging protocol and return its result."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        content = json.dumps(message).encode() + b"\0"
        while content:
            content = content[os.write(self._out, content) :]
        while True:
            found = json.loads(self._message())
            if found.get("id") == self._number:
                assert "result" in found, found
                return found["result"]

    def _message(self) -> bytes:
        while b"\0" not in self._left:
            assert select.select([self._in], [], [], _SILENT_S)[0], "the browser is silent"
            part = os.read(self._in, 1 << 16)
            assert part, "the browser has ended"
            self._left += part
        message, _, self._left = self._left.partition(b"\0")
        return message

    def value(self, expression: str) -> Any:
        """Return what JavaScript on the page gives, of a promise what comes of it."""
        answer = self.ask(
            "Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True
        )
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def wait_for(self, expression: str) -> None:
        """Wait until an expression is true on the page, which may be loading yet."""
        end_s = time.monotonic() + 60
        tried = f"(() => {{ try {{ return {expression}; }} catch {{ return false; }} }})()"
        while self.value(tried) is not True:
            assert time.monotonic() < end_s, f"never true: {expression}"
            time.sleep(0.1)

    def __enter__(self) -> Self:
        """Return the browser itself."""
        return self

    def __exit__(self, *error: object) -> None:
        """End it."""
        self._process.kill()
        self._process.wait()
        os.close(self._in)
        os.close(self._out)
