"""The page of a study in a real browser, without a network."""

from collections.abc import Callable
from pathlib import Path

import pytest
from selenium.webdriver import ActionChains, Chrome, Keys
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webelement import WebElement

from controller.plots.front import front_html
from controller.report_details import ReportDetails
from controller.storage import Repository, open_database
from controller.study_summary import summarise
from controller.study_view import PointRole, StudyView
from controller.summary_view import view_of

Screenshot = Callable[[str], None]
HOSTILE = "<img src=x onerror=window.hit=1></script><script>window.hit=1</script>"


@pytest.fixture(scope="module")
def view(stored_study: str) -> StudyView:
    database = open_database(stored_study)
    found = view_of(summarise(Repository(database), "simulated"))
    database.dispose()
    return found


@pytest.fixture
def open_page(browser: Chrome, tmp_path: Path) -> Callable[[StudyView], None]:
    """Returns what opens a study's page with the network cut."""

    def open_it(view: StudyView) -> None:
        policies = {p.as_policy.digest: p.policy.values() for p in view.points if p.policy}
        times = {digest: (*(u.keep / u.groups for u in units), 0.5) for digest, units in policies.items()}
        path = tmp_path / "front.html"
        details = ReportDetails(units=tuple(view.points[0].policy), unit_times=times)
        path.write_text(front_html(view, details), encoding="utf-8")
        browser.execute_cdp_cmd("Network.enable", {})
        offline = {"offline": True, "latency": 0, "downloadThroughput": 0, "uploadThroughput": 0}
        browser.execute_cdp_cmd("Network.emulateNetworkConditions", offline)
        browser.get(path.as_uri())

    return open_it


def marks(browser: Chrome, kind: str = "") -> list[WebElement]:
    return browser.find_elements(By.CSS_SELECTOR, f"#scatter .mark[data-point]{kind}")


def chosen_name(browser: Chrome) -> str:
    return browser.find_element(By.CSS_SELECTOR, "#policy h3").text


def name_of(view: StudyView, mark: WebElement) -> str:
    return view.points[int(mark.get_attribute("data-point"))].name


def focused(browser: Chrome) -> WebElement:
    return browser.switch_to.active_element


def test_every_trial_is_a_point_and_nothing_is_loaded(
    browser: Chrome, open_page: Callable, view: StudyView, screenshot: Screenshot
) -> None:
    open_page(view)
    assert len(marks(browser)) == len(view.points)
    assert len(marks(browser, ".front")) == sum(p.role is PointRole.TRIAL for p in view.front)
    assert len(marks(browser, ".unscored")) == sum(not p.drawable for p in view.points) > 0
    assert browser.execute_script("return performance.getEntriesByType('resource').length") == 0
    assert browser.get_log("browser") == []
    assert not browser.execute_script("return document.documentElement.scrollWidth > window.innerWidth")


def test_hovering_tells_and_a_click_shows_the_policy(
    browser: Chrome, open_page: Callable, view: StudyView, screenshot: Screenshot
) -> None:
    open_page(view)
    browser.find_element(By.ID, "zoom").click()
    shown = marks(browser, ".front")
    mark = next(m for m in shown if name_of(view, m) != chosen_name(browser))
    ActionChains(browser).move_to_element(mark).perform()
    tip = browser.find_element(By.CSS_SELECTOR, "#scatter .tip")
    assert tip.is_displayed()
    assert "kept on average" in tip.text
    screenshot("hover")
    told = tip.find_element(By.CSS_SELECTOR, "div").text.partition(" (")[0]
    ActionChains(browser).click(mark).perform()
    assert chosen_name(browser) == told
    units = len(view.points[0].policy)
    assert len(browser.find_elements(By.CSS_SELECTOR, "#policy .bar")) == units
    assert len(browser.find_elements(By.CSS_SELECTOR, "#policy rect.now")) == units + 1


def test_points_are_reached_and_chosen_by_the_keyboard(
    browser: Chrome, open_page: Callable, view: StudyView, screenshot: Screenshot
) -> None:
    open_page(view)
    browser.find_element(By.ID, "zoom").send_keys(Keys.ENTER)
    for _ in range(20):
        ActionChains(browser).send_keys(Keys.TAB).perform()
        if focused(browser).get_attribute("data-point"):
            break
    start = focused(browser)
    assert "mark" in start.get_attribute("class"), "Tab comes to a point"
    assert name_of(view, start) == chosen_name(browser)
    ActionChains(browser).send_keys(Keys.ARROW_DOWN).perform()
    there = focused(browser)
    assert name_of(view, there) != name_of(view, start)
    assert view.points[int(there.get_attribute("data-point"))].on_front
    assert "latency" in there.get_attribute("aria-label")
    assert browser.find_element(By.CSS_SELECTOR, "#scatter .tip").is_displayed()
    ActionChains(browser).send_keys(Keys.ENTER).perform()
    assert chosen_name(browser) == name_of(view, there)
    ActionChains(browser).send_keys(Keys.END).perform()
    latest = [p.latency_ms for p in view.points]
    assert latest[int(focused(browser).get_attribute("data-point"))] == max(
        latest[int(m.get_attribute("data-point"))] for m in marks(browser)
    )


def test_axis_kinds_and_rows_can_be_chosen(
    browser: Chrome, open_page: Callable, view: StudyView, screenshot: Screenshot
) -> None:
    open_page(view)
    cost = browser.find_element(By.ID, "cost")
    cost.find_elements(By.TAG_NAME, "option")[1].click()
    assert "size (" in browser.find_element(By.CSS_SELECTOR, "#scatter svg").text
    assert len(marks(browser)) == len(view.points)
    button = next(b for b in browser.find_elements(By.CSS_SELECTOR, "#legend button") if b.text.startswith("front"))
    button.click()
    assert marks(browser, ".front") == []
    assert button.get_attribute("aria-pressed") == "false"
    row = browser.find_elements(By.CSS_SELECTOR, "tr[data-point]")[-1]
    row.send_keys(Keys.ENTER)
    assert chosen_name(browser) == view.points[int(row.get_attribute("data-point"))].name


@pytest.mark.usefixtures("dark")
def test_a_dark_screen_gets_a_dark_page_and_paper_a_light_one(
    browser: Chrome, open_page: Callable, view: StudyView, screenshot: Screenshot
) -> None:
    open_page(view)
    ground = "return getComputedStyle(document.body).backgroundColor"
    assert browser.execute_script(ground) == "rgb(20, 23, 26)"
    browser.execute_cdp_cmd(
        "Emulation.setEmulatedMedia",
        {"media": "print", "features": [{"name": "prefers-color-scheme", "value": "dark"}]},
    )
    assert browser.execute_script(ground) == "rgb(255, 255, 255)"
    assert not browser.find_element(By.ID, "zoom").is_displayed()
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "screen"})


def test_texts_of_a_study_never_become_elements(
    browser: Chrome, open_page: Callable, make_view: Callable[[str], StudyView], screenshot: Screenshot
) -> None:
    view = make_view(HOSTILE)
    open_page(view)
    mark = next(m for m in marks(browser, ".front") if HOSTILE in name_of(view, m))
    ActionChains(browser).move_to_element(mark).click().perform()
    assert HOSTILE in chosen_name(browser)
    assert HOSTILE in browser.find_element(By.CSS_SELECTOR, "#scatter .tip").text
    assert browser.execute_script("return window.hit") is None
    assert browser.find_elements(By.TAG_NAME, "img") == []
