"""A headless Chromium, driven over ChromeDriver's HTTP interface."""

import base64
import contextlib
import json
import pathlib
import re
import subprocess
import tempfile
import urllib.request

CHROMIUM, DRIVER = map(
    pathlib.Path, ("/usr/bin/chromium", "/usr/bin/chromedriver")
)
# Nothing is looked up on a network; the sandbox does not work as root.
_FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
)
#: Keys without a character, as WebDriver writes them.
ENTER, RIGHT, DOWN = "\ue007", "\ue014", "\ue015"


def there() -> bool:
    return CHROMIUM.exists() and DRIVER.exists()


class Browser:
    """One window; ``opened`` makes it."""

    def __init__(self, address):
        self._address = address

    def _ask(self, path, content=None):
        data = None if content is None else json.dumps(content).encode()
        request = urllib.request.Request(
            self._address + path, data, {"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=60) as answer:
            return json.load(answer)["value"]

    def open(self, url):
        self._ask("/url", {"url": url})

    def run(self, script):
        """The value of ``return ...;`` in the page."""
        return self._ask("/execute/sync", {"script": script, "args": []})

    def press(self, *keys):
        actions = [
            {"type": kind, "value": key}
            for key in keys
            for kind in ("keyDown", "keyUp")
        ]
        source = {"type": "key", "id": "keys", "actions": actions}
        self._ask("/actions", {"actions": [source]})

    def click(self, selector):
        using = {"using": "css selector", "value": selector}
        (element,) = self._ask("/element", using).values()
        self._ask(f"/element/{element}/click", {})

    def text(self, selector):
        return self.run(
            f"return document.querySelector({json.dumps(selector)}).innerText;"
        )

    def tool(self, command, **options):
        """A command of the DevTools."""
        content = {"cmd": command, "params": options}
        return self._ask("/goog/cdp/execute", content)

    def errors(self):
        """What the console said since it was asked last."""
        return [e["message"] for e in self._ask("/se/log", {"type": "browser"})]

    def picture(self, file):
        data = base64.b64decode(self._ask("/screenshot"))
        pathlib.Path(file).write_bytes(data)


@contextlib.contextmanager
def opened(downloads, width=1280, height=820):
    """A browser that saves its downloads in a folder."""
    with (
        tempfile.TemporaryDirectory() as profile,
        subprocess.Popen(
            [str(DRIVER), "--port=0"], stdout=subprocess.PIPE, text=True
        ) as driver,
    ):
        try:
            port = next(
                match[1]
                for line in driver.stdout
                if (match := re.search(r"successfully on port (\d+)", line))
            )
            address = f"http://127.0.0.1:{port}/session"
            flags = [f"--user-data-dir={profile}"]
            flags.append(f"--window-size={width},{height}")
            options = {
                "binary": str(CHROMIUM),
                "args": [*_FLAGS, *flags],
                "prefs": {"download.default_directory": str(downloads)},
            }
            wanted = {"goog:chromeOptions": options}
            wanted["goog:loggingPrefs"] = {"browser": "ALL"}
            content = {"capabilities": {"alwaysMatch": wanted}}
            made = Browser(address)._ask("", content)
            address += f"/{made['sessionId']}"
            yield Browser(address)
            request = urllib.request.Request(address, method="DELETE")
            urllib.request.urlopen(request, timeout=60).close()
        finally:
            driver.terminate()
