"""A headless Chromium, driven over the WebDriver protocol by its driver; no host is reachable from it."""

import base64
import contextlib
import json
import shutil
import subprocess
import time
import urllib.error
import urllib.request

BROWSER = next((p for p in map(shutil.which, ("chromium", "chromium-browser", "google-chrome")) if p), None)
DRIVER = shutil.which("chromedriver")
MISSING = "no browser is installed, so that pages are not looked at: apt-get install chromium chromium-driver"
ELEMENT = "element-6066-11e4-a52e-4f735466cecf"  # the key of a reference to an element, by the protocol
KEYS = {"ArrowLeft": "\ue012", "ArrowUp": "\ue013", "ArrowRight": "\ue014", "ArrowDown": "\ue015", "Enter": "\ue007",
        "Escape": "\ue00c"}  # fmt: skip


class Browser:
    """A session of the driver."""

    def __init__(self, address, session):
        self.address = f"{address}/session/{session}"

    def ask(self, method, path, body=None):
        return asked(method, f"{self.address}/{path}", body)

    def open(self, path):
        """Open a file, and wait until its script has said that it is ready."""
        self.ask("POST", "url", {"url": path.resolve().as_uri()})
        for _ in range(200):
            if self.run("return document.documentElement.dataset.ready === 'yes'"):
                return
            time.sleep(0.05)
        raise AssertionError(f"{path} is not ready: {self.run('return document.body.innerText')[:500]} {self.log()}")

    def run(self, script, *arguments):
        """Run the body of a function in the page and return what it returns."""
        return self.ask("POST", "execute/sync", {"script": script, "args": arguments})

    def log(self):
        """Return the errors and warnings of the console since the last call."""
        return [row["message"] for row in self.ask("POST", "se/log", {"type": "browser"})]

    def resize(self, width, height, dark=False):
        for command, told in (
            ("setDeviceMetricsOverride", {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}),
            ("setEmulatedMedia",
             {"features": [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]}),
        ):  # fmt: skip
            self.ask("POST", "goog/cdp/execute", {"cmd": f"Emulation.{command}", "params": told})

    def press(self, *keys):
        """Press keys one after the other."""
        pressed = [{"type": kind, "value": KEYS.get(key, key)} for key in keys for kind in ("keyDown", "keyUp")]
        self.ask("POST", "actions", {"actions": [{"type": "key", "id": "keys", "actions": pressed}]})

    def point(self, selector, x, y, *, click=False, drag=None):
        """Move the pointer to a place of an element, by its share of width and height; click, or drag to another."""
        self.run("document.querySelector(arguments[0]).scrollIntoView({block: 'center'})", selector)
        box = self.run(
            "const b = document.querySelector(arguments[0]).getBoundingClientRect();"
            "return [b.left, b.top, b.width, b.height]", selector)  # fmt: skip

        def at(x, y):
            return {"type": "pointerMove", "duration": 0, "x": round(box[0] + x * box[2]),
                    "y": round(box[1] + y * box[3])}  # fmt: skip

        down, up = {"type": "pointerDown", "button": 0}, {"type": "pointerUp", "button": 0}
        steps = [at(x, y)] + ([down, at(*drag), up] if drag else [down, up] if click else [])
        self.ask("POST", "actions", {"actions": [{"type": "pointer", "id": "mouse", "actions": steps}]})
        self.run("return new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")

    def screenshot(self, path, *, full=True):
        shot = {"captureBeyondViewport": full, "format": "png"}
        found = self.ask("POST", "goog/cdp/execute", {"cmd": "Page.captureScreenshot", "params": shot})
        path.write_bytes(base64.b64decode(found["data"]))


def asked(method, address, body=None):
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(address, data, {"Content-Type": "application/json"}, method=method)
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(request, timeout=60) as answer:
            return json.load(answer)["value"]
    except urllib.error.HTTPError as error:
        raise AssertionError(f"{method} {address}: {error.read().decode()[:2000]}") from None


@contextlib.contextmanager
def browser():
    """Start the driver and a browser; both end with the block."""
    driver = subprocess.Popen([DRIVER, "--port=0"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    try:
        line = next(line for line in driver.stdout if "started successfully on port" in line)
        address = f"http://127.0.0.1:{int(line.rsplit(maxsplit=1)[1].rstrip('.'))}"
        options = {
            "binary": BROWSER,
            "args": ["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--hide-scrollbars",
                     "--host-resolver-rules=MAP * ~NOTFOUND", "--no-first-run", "--disable-background-networking"],
        }  # fmt: skip
        wanted = {"goog:chromeOptions": options, "goog:loggingPrefs": {"browser": "ALL"}}
        told = asked("POST", f"{address}/session", {"capabilities": {"alwaysMatch": wanted}})
        session = Browser(address, told["sessionId"])
        try:
            yield session
        finally:
            asked("DELETE", session.address)
    finally:
        driver.terminate()
        driver.wait()
        driver.stdout.close()
