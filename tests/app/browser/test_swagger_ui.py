"""Swagger UI in a real browser with the network cut off: choose files, execute, and see the sheet."""

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest
from pydantic import SecretStr
from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.select import Select
from selenium.webdriver.support.wait import WebDriverWait

from app.settings import Settings
from tests.app.factories import encoded, picture
from tests.app.running import jpeg, search, stored

Run = Callable[[Settings], httpx.Client]

CHROMIUM, CHROMEDRIVER = shutil.which("chromium"), shutil.which("chromedriver")

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(
        not (CHROMIUM and CHROMEDRIVER), reason="needs Chromium and its driver (Debian: chromium-driver)"
    ),
]


@pytest.fixture
def database_url(tmp_path: Path) -> str:
    """SQLite is enough here."""
    return f"sqlite:///{tmp_path / 'test.sqlite3'}"


@pytest.fixture
def browser(tmp_path: Path) -> Iterator[webdriver.Chrome]:
    """Chromium that can reach this machine and nothing else."""
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM or ""
    for flag in (
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-quic",
        "--disable-dev-shm-usage",
        "--no-first-run",
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-sync",
        "--window-size=1400,2400",
        "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
        f"--user-data-dir={tmp_path / 'profile'}",
    ):
        options.add_argument(flag)
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(CHROMEDRIVER))
    driver.set_page_load_timeout(60)
    yield driver
    driver.quit()


class Operation:
    """One operation of the page, unfolded."""

    def __init__(self, browser: webdriver.Chrome, name: str) -> None:
        self.browser = browser
        self.block = self.wait(lambda: browser.find_element(By.CSS_SELECTOR, f".opblock[id$='-{name}']"))
        self.block.find_element(By.CSS_SELECTOR, ".opblock-summary-control").click()
        self.wait(lambda: self.block.find_element(By.CSS_SELECTOR, "button.execute"))

    def wait(self, find: Callable[[], WebElement | None]) -> WebElement:
        def found(_: webdriver.Chrome) -> WebElement | None:
            return find()

        waiting = WebDriverWait(self.browser, 30, ignored_exceptions=[Exception])
        element = waiting.until(found)
        assert element is not None
        return element

    def field(self, name: str) -> WebElement:
        return self.block.find_element(
            By.CSS_SELECTOR, f"tr[data-property-name='{name}'], tr[data-param-name='{name}']"
        )

    def choose_files(self, name: str, *paths: Path) -> None:
        for number, path in enumerate(paths):
            row = self.field(name)
            if len(row.find_elements(By.CSS_SELECTOR, "input[type=file]")) <= number:
                row.find_element(By.CSS_SELECTOR, ".json-schema-form-item-add").click()

            def picker(number: int = number) -> WebElement:
                return self.field(name).find_elements(By.CSS_SELECTOR, "input[type=file]")[number]

            self.wait(picker).send_keys(str(path))

    def type(self, name: str, text: str) -> None:
        field = self.field(name).find_element(By.CSS_SELECTOR, "input[type=text], textarea")
        field.clear()
        field.send_keys(text)

    def execute(self) -> str:
        """Press Execute; gives the answer's status."""
        for clear in self.block.find_elements(By.CSS_SELECTOR, "button.btn-clear"):  # the answer before
            clear.click()
        self.block.find_element(By.CSS_SELECTOR, "button.execute").click()
        status = ".live-responses-table .response-col_status"
        return self.wait(lambda: self.block.find_elements(By.CSS_SELECTOR, status)[1]).text.split()[0]

    def drawn_width(self) -> int:
        """The natural width in pixels of the picture that is drawn as the answer, once it is loaded."""
        picture = self.wait(lambda: self.block.find_element(By.CSS_SELECTOR, ".live-responses-table img"))
        width = "return arguments[0].naturalWidth"
        WebDriverWait(self.browser, 30).until(lambda driver: driver.execute_script(width, picture) > 0)
        return int(self.browser.execute_script(width, picture))

    def choose_media_type(self, name: str) -> None:
        """Choose what Execute asks for."""
        menu = self.block.find_element(By.CSS_SELECTOR, ".response-control-media-type--accept-controller select")
        Select(menu).select_by_value(name)

    def body(self) -> str:
        return self.wait(lambda: self.block.find_element(By.CSS_SELECTOR, ".live-responses-table code")).text


def wait_for_docs(browser: webdriver.Chrome) -> None:
    WebDriverWait(browser, 30).until(lambda driver: driver.find_elements(By.CSS_SELECTOR, ".opblock"))


def authorize(browser: webdriver.Chrome, key: str) -> None:
    browser.find_element(By.CSS_SELECTOR, ".auth-wrapper .authorize").click()
    form = ".auth-container"
    WebDriverWait(browser, 30).until(lambda driver: driver.find_elements(By.CSS_SELECTOR, f"{form} input"))
    browser.find_element(By.CSS_SELECTOR, f"{form} input").send_keys(key)
    browser.find_element(By.CSS_SELECTOR, f"{form} button.authorize").click()
    browser.find_element(By.CSS_SELECTOR, f"{form} button.btn-done").click()


@pytest.mark.parametrize("key", [pytest.param(None, marks=pytest.mark.slow), "a key of this test"])
def test_a_search_shows_the_contact_sheet_where_its_answer_is(
    run: Run, settings: Settings, browser: webdriver.Chrome, tmp_path: Path, key: str | None
) -> None:
    client = run(settings.model_copy(update={"api_key": key and SecretStr(key)}))
    client.headers.update({"X-API-Key": key} if key else {})
    pictures = [tmp_path / "one.jpg", tmp_path / "two.jpg"]
    for seed, path in enumerate(pictures):
        path.write_bytes(jpeg(seed))
    browser.get(str(client.base_url))
    wait_for_docs(browser)
    if key:
        authorize(browser, key)

    embed = Operation(browser, "embed")
    embed.choose_files("files", *pictures)
    assert embed.execute() == "201", embed.body()
    crops = client.get("/crops").json()["items"]
    assert len(crops) == 2
    assert {crop["camera_id"] for crop in crops} == {"gate-north"}, "the examples run as they are"

    search = Operation(browser, "search")
    search.choose_files("files", pictures[0])
    assert search.execute() == "200", search.body()
    assert search.drawn_width() > 300, "the sheet"

    search.choose_media_type("application/json")
    assert search.execute() == "200"
    answer = json.loads(search.body())
    assert len(answer["matches"]) == 2
    for link in (answer["sheet_url"], answer["matches"][0]["crop"]["image_url"]):
        browser.get(str(client.base_url.join(link)))
        picture = browser.find_element(By.TAG_NAME, "img")
        assert browser.execute_script("return arguments[0].naturalWidth", picture) > 0, "the link opens by itself"


@pytest.mark.slow
def test_the_sheet_of_an_earlier_search_is_drawn(client: httpx.Client, browser: webdriver.Chrome) -> None:
    stored(client, 1)
    search_id = search(client, jpeg(1)).json()["search_id"]
    browser.get(str(client.base_url))
    sheet = Operation(browser, "get_sheet")
    sheet.type("search_id", search_id)
    assert sheet.execute() == "200"
    assert sheet.drawn_width() > 300


@pytest.mark.slow
@pytest.mark.parametrize("width", [390, 1400])
def test_the_page_is_not_wider_than_the_screen(client: httpx.Client, browser: webdriver.Chrome, width: int) -> None:
    stored(client, 1)
    browser.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride",
        {"width": width, "height": 844, "deviceScaleFactor": 1, "mobile": width < 500},
    )
    browser.get(str(client.base_url))
    for name in ("search", "embed", "list_crops", "get_crop_image", "begin_reindex", "put_camera"):
        Operation(browser, name)
    search_form = browser.find_element(By.CSS_SELECTOR, "[id$='-search'] .opblock-section-request-body")
    assert search_form.find_elements(By.CSS_SELECTOR, "input[type=file]"), "a picker is there at once"
    assert browser.execute_script("return document.documentElement.scrollWidth") <= width


def test_a_frame_goes_in_with_its_boxes(client: httpx.Client, browser: webdriver.Chrome, tmp_path: Path) -> None:
    path = tmp_path / "frame.png"
    path.write_bytes(encoded(picture(1, 240, 320), "PNG"))
    browser.get(str(client.base_url.join("/docs")))
    embed = Operation(browser, "embed")
    embed.choose_files("frame", path)
    embed.type("boxes", "[[10, 20, 64, 128], [100.5, 20, 64, 128]]")
    assert embed.execute() == "201", embed.body()
    assert [item["box"] for item in json.loads(embed.body())["items"]] == [[10, 20, 64, 128], [101, 20, 64, 128]]
