"""The plain page: what its HTML says for given rows."""

from __future__ import annotations

import html
import re
from pathlib import Path
from typing import get_args

import pytest
from support.page_rows import FAILED, STORY, STUCK, TRACE, Rows, get

from failpath_otel.server import display, page
from failpath_otel.server.rows import MissingReason


def text_of(markup: str) -> str:
    """What a reader sees: without tags, white space as one space."""
    body = re.sub(r"(?s)<head>.*?</head>|<[^>]*>", " ", markup)
    return " ".join(html.unescape(body).split())


def test_list_shows_each_run_with_status_and_first_error() -> None:
    _, markup = get(Rows(FAILED, STORY, STUCK), "/")
    shown = text_of(markup)
    assert "error req_failed checkout charge-card CardDeclined : insufficient funds 1 success 1 error 1 missing" in shown
    assert "success req_story checkout 2 success 1 skipped" in shown
    assert "stuck req_stuck" in shown
    assert "1.23 s" in shown


def test_filters_and_cursor_of_the_address_reach_the_query_and_stay_in_the_links() -> None:
    rows = Rows(FAILED, next_cursor="c2/=")
    _, markup = get(rows, "/", flow="checkout", status="error", q="req", cursor="c1")
    assert rows.asked == {"flow": "checkout", "status": "error", "q": "req", "cursor": "c1"}
    links = [html.unescape(found) for found in re.findall(r'href="([^"]*)"', markup)]
    assert "/?flow=checkout&status=error&q=req&cursor=c2%2F%3D" in links
    assert "/?flow=checkout&status=error&q=req" in links
    assert '<option value="checkout" selected>' in markup
    assert "<option selected>error</option>" in markup
    assert 'value="req"' in markup


def test_only_the_newest_runs_renew_themselves() -> None:
    """An older page is a place in the past: it must not move under the reader."""
    assert "/static/live.js" in get(Rows(FAILED), "/")[1]
    assert "/static/live.js" not in get(Rows(FAILED), "/", cursor="c1")[1]


def test_empty_store_says_what_to_paste_with_this_servers_address() -> None:
    _, markup = get(Rows(), "/")
    pasted = html.unescape(re.search(r"(?s)<code>(from .*?)</code>", markup)[1])  # type: ignore[index]
    assert pasted.splitlines() == [
        "from failpath_otel import FailpathClient",
        'failpath = FailpathClient(endpoint="http://127.0.0.1:4600")',
        'failpath.run("hello").step("say-hello", lambda: print("hello"))',
    ]


def test_filter_without_matches_offers_all_runs() -> None:
    _, markup = get(Rows(FAILED), "/", status="success")
    assert "No run matches this filter." in text_of(markup)


def test_unknown_status_is_a_bad_request_that_names_it() -> None:
    status, markup = get(Rows(FAILED), "/", status="<b>")
    assert status == 400
    assert "got '<b>'" in text_of(markup.replace("&lt;b&gt;", "&lt;b&gt;"))
    assert "<b>" not in markup


def test_run_shows_its_steps_in_the_order_given_with_error_stack_and_reason() -> None:
    _, markup = get(Rows(FAILED), "/run", flow="checkout", run_id="req_failed")
    shown = text_of(markup)
    order = [
        shown.index(key)
        for key in ("Validate Cart validate-cart success", "Charge Card charge-card error", "create-order missing")
    ]
    assert order == sorted(order)
    assert "Failed at charge-card : CardDeclined : insufficient funds" in shown
    assert 'Stack Traceback File "shop.py", line 1' in shown
    assert "create-order missing a step before it failed" in shown
    assert f"service shop trace {TRACE} span 00f067aa0ba902b1" in shown
    assert 'cart c_17 nested { "items": [ 1, null ] }' in shown
    assert "12.5 ms" in shown


def test_run_shows_attempts_skip_reason_and_discovered_steps() -> None:
    _, markup = get(Rows(STORY), "/run", flow="checkout", run_id="req_story")
    shown = text_of(markup)
    assert "validate-cart success 2 attempts" in shown
    assert "1 error 2026-01-31 09:30:00.125 12.5 ms CardDeclined : insufficient funds" in shown
    assert "send-receipt-email skipped opted out" in shown
    assert "fraud/check success discovered" in shown


def test_stuck_step_is_marked_and_explained() -> None:
    shown = text_of(get(Rows(STUCK), "/run", flow="checkout", run_id="req_stuck")[1])
    assert "Status stuck" in shown
    assert "validate-cart stuck" in shown
    assert "charge-card missing no run of this flow has ever reported this step" in shown


def test_every_missing_reason_has_words() -> None:
    assert set(display.MISSING_REASONS) == set(get_args(MissingReason))


def test_unknown_run_is_not_found_and_says_so() -> None:
    status, markup = get(Rows(FAILED), "/run", flow="checkout", run_id="nope")
    assert status == 404
    assert "No event of run 'nope' of flow 'checkout' has arrived." in text_of(markup)


def test_run_without_its_two_parameters_is_a_bad_request() -> None:
    assert get(Rows(FAILED), "/run", flow="checkout")[0] == 400


@pytest.mark.parametrize(
    ("millis", "shown"),
    [
        (None, "–"),
        (0.0, "0.0 ms"),
        (99.94, "99.9 ms"),
        (999.0, "999 ms"),
        (999.9, "1.00 s"),
        (61_000.0, "1 min 1 s"),
        (7_260_000.0, "2 h 1 min"),
        (90_000_000.0, "1 d 1 h"),
    ],
)
def test_duration_reads_in_its_best_unit(millis: float | None, shown: str) -> None:
    assert display.duration(millis) == shown


@pytest.mark.parametrize("hidden", ["\u202e", "\u2066", "\u200b", "\x00", "\x1b", "\ufeff", "\u2028"])
def test_invisible_characters_are_spelled_out(hidden: str) -> None:
    shown = str(display.identifier(f"a{hidden}b"))
    assert hidden not in shown
    assert "invisible" in shown


def test_names_of_any_script_stay_as_they_are() -> None:
    assert "سفارش ۱۲ 👩\u200d💻" in display.identifier("سفارش ۱۲ 👩\u200d💻")


def test_blank_id_can_be_seen_and_followed() -> None:
    assert r"\x20\x20" in display.identifier("  ")


def contrast(one: str, other: str) -> float:
    """The contrast ratio of two colours as WCAG 2 defines it."""

    def luminance(colour: str) -> float:
        channels = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
        linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in channels]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    high, low = sorted((luminance(one), luminance(other)), reverse=True)
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("scheme", [0, 1], ids=["light", "dark"])
def test_every_text_colour_has_aa_contrast_on_every_ground(scheme: int) -> None:
    css = (Path(page.__file__).parent / "static" / "page.css").read_text()
    colours = dict(re.findall(r"--([a-z-]+): (#[0-9a-f]{6});", css.split(":root {")[scheme + 1].split("}")[0]))
    inks = ("text", "quiet", "link", "success", "error", "running", "skipped", "missing", "incomplete", "stuck")
    for ink in inks:
        for ground in ("ground", "sheet"):
            assert contrast(colours[ink], colours[ground]) >= 4.5, (ink, ground)
    for ink, ground in (
        ("error", "error-ground"),
        ("text", "error-ground"),
        ("link", "error-ground"),
        ("stuck", "stuck-ground"),
    ):
        assert contrast(colours[ink], colours[ground]) >= 4.5, (ink, ground)
