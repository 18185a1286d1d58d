"""A page in the browser and everything it did, for the tests to judge."""

from __future__ import annotations

from urllib.parse import urlsplit

from playwright.sync_api import Page, Request

from tests.page.serving import PageServer

WATCH_POLICY = """
window.violations = [];
document.addEventListener("securitypolicyviolation", (event) => window.violations.push(event.violatedDirective));
"""


UNTIL = """async () => {
    const deadline = performance.now() + 10_000;
    while (!(%s)) {
        if (performance.now() > deadline) throw new Error("never came true");
        await new Promise(requestAnimationFrame);
    }
}"""


def until(page: Page, condition: str) -> None:
    """Waits for a condition in the page. (Playwright's own wait evaluates strings there, which the policy forbids.)"""
    page.evaluate(UNTIL % condition)


class Watched:
    """A page and what was seen of it: console errors, exceptions, requests."""

    def __init__(self, page: Page, server: PageServer) -> None:
        self.page, self.server = page, server
        self.errors: list[str] = []
        self.requests: list[Request] = []
        page.add_init_script(WATCH_POLICY)
        page.on("console", lambda message: self.errors.append(message.text) if message.type == "error" else None)
        page.on("pageerror", lambda error: self.errors.append(str(error)))
        page.on("request", self._sent)

    def _sent(self, request: Request) -> None:
        self.requests.append(request)

    def go(self, address: str = "#/") -> Page:
        """Opens an address of the page anew and waits until its view is drawn."""
        self.page.goto("about:blank")
        self.page.goto(f"{self.server.url}/{address}")
        self.page.wait_for_selector("#view > :not(.loading, noscript)")
        return self.page

    def turn_to(self, address: str) -> Page:
        """Goes to another address within the page, as a link does, and waits until its view is read and drawn."""
        if not self.page.url.startswith(self.server.url):
            return self.go(address)
        self.page.evaluate(
            """(address) => address === location.hash || new Promise((turned) => {
                window.addEventListener("hashchange", turned, { once: true });
                location.hash = address;
            }).then(() => true)""",
            address,
        )
        self.page.wait_for_selector("#view[aria-busy=false]")
        return self.page

    def violations(self) -> list[str]:
        found: list[str] = self.page.evaluate("window.violations")
        return found

    def hosts(self) -> set[str]:
        return {urlsplit(request.url).netloc for request in self.requests if not request.url.startswith("about:")}

    def forget(self) -> None:
        """Judge only what comes from here on."""
        self.errors.clear()
        self.requests.clear()

    def assert_clean(self) -> None:
        assert self.errors == []
        assert self.violations() == []
        assert self.hosts() <= {urlsplit(self.server.url).netloc}
