"""What people see under the address that a search prints, in the page of a real MLflow server."""

from collections.abc import Callable
from pathlib import Path

import pytest
from selenium.webdriver import Chrome
from selenium.webdriver.common.by import By
from selenium.webdriver.support.wait import WebDriverWait

from controller.plots.picture import PICTURE_COLOURS
from controller.report_files import write_report_files
from controller.storage import Repository, open_database
from controller.study_summary import summarise
from controller.study_view import StudyView
from controller.summary_view import view_of
from controller.tracking.tracker import Tracker

pytestmark = pytest.mark.slow

LONGEST_S = 90


@pytest.fixture
def view(stored_study: str) -> StudyView:
    database = open_database(stored_study)
    found = view_of(summarise(Repository(database), "simulated"))
    database.dispose()
    return found


@pytest.fixture
def address(view: StudyView, mlflow_server: Callable[..., str], outbox, tmp_path: Path) -> str:
    """The printed address of a study that is recorded on a server."""
    tracker = Tracker(mlflow_server(), outbox, study=view.study, experiment="demo", say=print)
    tracker.begin(name=view.title, metric=view.metric, params={"model": "m"}, job_yaml="name: simulated\n")
    tracker.finish(view, write_report_files(view, tmp_path / "files"))
    tracker.start()
    try:
        assert tracker.flush(LONGEST_S)
        return tracker.address.url
    finally:
        tracker.stop(10)


def colour(text: str) -> str:
    red, green, blue = (int(text[at : at + 2], 16) for at in (1, 3, 5))
    return f"rgb({red}, {green}, {blue})"


def test_the_printed_address_shows_the_front_in_colour(
    browser: Chrome, address: str, view: StudyView, screenshot: Callable[[str], None]
) -> None:
    browser.get(address)
    wait = WebDriverWait(browser, LONGEST_S)
    shown = {p.as_policy.digest for p in (*view.front, *view.baselines)}
    wait.until(lambda b: len(b.find_elements(By.CSS_SELECTOR, ".scatterlayer .point")) >= len(shown))
    screenshot("runs")
    fills = [
        point.value_of_css_property("fill") for point in browser.find_elements(By.CSS_SELECTOR, ".scatterlayer .point")
    ]
    assert len(fills) == len(shown)
    blue = colour(PICTURE_COLOURS["front"])
    assert fills.count(blue) == len(view.front)
    assert fills.count(colour(PICTURE_COLOURS["dense"])) == 1, "the dense model is too slow for the front here"
    titles = browser.find_element(By.CSS_SELECTOR, ".js-plotly-plot .infolayer").text
    assert "latency_ms" in titles
    assert "quality" in titles
    fastest = view.front[0].name
    assert browser.find_elements(By.LINK_TEXT, fastest), "children are seen without a click"


def test_the_page_of_the_study_works_within_mlflows(
    browser: Chrome, address: str, view: StudyView, screenshot: Callable[[str], None]
) -> None:
    from mlflow import MlflowClient

    server, experiment = address.partition("/#/")[0], address.partition("/experiments/")[2].partition("/")[0]
    (parent,) = MlflowClient(server).search_runs([experiment], "tags.`paretrim.role` = 'study'")
    run = f"{server}/#/experiments/{experiment}/runs/{parent.info.run_id}"
    browser.get(f"{run}/artifacts/front.html?workflowType=machine_learning")
    wait = WebDriverWait(browser, LONGEST_S)
    wait.until(lambda b: b.find_elements(By.CSS_SELECTOR, "iframe[sandbox]"))
    browser.switch_to.frame(browser.find_element(By.CSS_SELECTOR, "iframe[sandbox]"))
    wait.until(lambda b: len(b.find_elements(By.CSS_SELECTOR, "#scatter .mark[data-point]")) == len(view.points))
    browser.find_element(By.CSS_SELECTOR, "tr[data-point]").click()
    assert browser.find_element(By.CSS_SELECTOR, "#policy h3").text == view.front[0].name
    browser.switch_to.default_content()
    screenshot("artifact")
