"""Fronts in notebooks: complete, escaped, and without anything from elsewhere."""

import html.parser

from controller.results import FrontRow, PickSummary, SearchResult

HOSTILE = "<script>alert(1)</script>\"'><img src=x onerror=alert(1)>"


def row(name: str, quality: float, latency_ms: float, trial: int | None = None, **more: object) -> FrontRow:
    return FrontRow(
        trial=trial,
        name=name,
        policy_digest=name,
        quality=quality,
        latency_ms=latency_ms,
        size_bytes=2_000_000,
        latency_ratio=latency_ms / 10,
        **more,  # type: ignore[arg-type]
    )


class Tags(html.parser.HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)

    def handle_data(self, data: str) -> None:
        self.text += data + " "


def shown(result: SearchResult) -> Tags:
    tags = Tags()
    tags.feed(result._repr_html_())
    return tags


def test_members_and_baselines_are_drawn_and_listed() -> None:
    front = (row("trial 3", 0.91, 4.0, knee=True, holdout_quality=0.9), row("dense", 0.92, 10.0))
    result = SearchResult(
        study="demo",
        metric="accuracy",
        front=front,
        baselines=(row("dense", 0.92, 10.0), row("keep 1, w8a8", 0.9, 6.0, trial=2)),
    )
    tags = shown(result)
    assert tags.tags.count("circle") == 3
    assert tags.tags.count("tr") == 4
    names = ("trial 3 (knee)", "keep 1, w8a8 (trial 2)")
    for text in ("demo: 2 policies on the front", *names, "0.9100", "0.9000", "2 MB"):
        assert text in tags.text


def test_hostile_text_stays_text() -> None:
    picked = PickSummary(rule="knee", trial=1, runner_up=None, explanation=HOSTILE)
    tags = shown(SearchResult(study=HOSTILE, metric=HOSTILE, front=(row(HOSTILE, 0.5, 1.0),), picked=picked))
    assert not {"script", "img"} & set(tags.tags)
    assert tags.text.count("<script>") >= 3


def test_an_empty_front_is_shown_too() -> None:
    assert "0 policies on the front" in shown(SearchResult(study="demo", metric="m", front=())).text
