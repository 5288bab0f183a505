"""Where user names and passwords are masked, and which addresses are refused."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from quantai_tui.engine.desk import SettingsDesk
from quantai_tui.masking import masked, masked_value
from quantai_tui.settings import Layers, Settings, SettingsProblems, load, load_file, shown
from quantai_tui.stream.config import public_address
from quantai_tui.stream.failures import LinkFault, Phase, classify
from quantai_tui.stream.proxies import parse_proxy


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("http://joe:s3cret@h:1", "http://***@h:1"),
        ("joe:s3cret@h:1", "***@h:1"),
        ("cannot connect to 'joe:s3@cret@h:1'", "cannot connect to '***@h:1'"),
        ("(http://joe:s3#cret@h:1, socks5://joe:s3/cret@g)", "(http://***@h:1, socks5://***@g)"),
        ('Proxy(joe:s3"cret@h)', "Proxy(***@h)"),
        ("joe:s3cret@h,http://bob:s3cret@g", "***@g"),
        ('PROXY_URL = "joe:my s3cret@h:1"  # home', 'PROXY_URL = "***@h:1"  # home'),
        ("x = 1\nAPI_TOKEN = s3cret\ny = 2", "x = 1\nAPI_TOKEN = ***\ny = 2"),
        ("export HTTPS_PROXY=joe:s3cret@h", "export HTTPS_PROXY=***@h"),
    ],
)
def test_user_and_password_are_masked_in_any_text(text: str, left: str) -> None:
    assert masked(text) == left
    assert masked(left) == left


@pytest.mark.parametrize(
    "text",
    [
        '{"stream":"ethusdt@aggTrade","data":{"e":"aggTrade"}}',
        '{"method":"SUBSCRIBE","params":["ethusdt@aggTrade"],"id":1}',
        "12:34:56 mail me@example.org",
        "/home/me@here/engine.log",
        "wss://stream.binance.com:9443",
        "max_tokens: 5; passed",
    ],
)
def test_text_without_a_password_stays_as_it_is(text: str) -> None:
    assert masked(text) == text


@pytest.mark.parametrize(
    ("name", "value", "left"),
    [
        ("PROXY_URL", "joe:s3cret", "***"),
        ("PROXY_URL", "http://joe:s3cret", "http://***"),
        ("PROXY_URL", "joe:s3 cret@h:1", "***@h:1"),
        ("PROXY_URL", "http://[::1]:3128/", "http://[::1]:3128/"),
        ("HTTP_PROXY_", "joe:s3cret@h:1", "***@h:1"),
        ("proxy_ur", "joe:s3cret@h:1", "***@h:1"),
        ("EXCHANGE_REST_URL", "https://h:1/x?key=s3cret", "https://h:1/x?***"),
        ("BINANCE_API_KEY", "s3cret", "***"),
        ("SYMBOLS", ["joe:s3cret@h"], "***@h"),
        ("PROXY_URL", {"x": "joe:s3cret"}, "{...}"),
        ("SYMBOLS", [{"x": "s3cret"}], "[...]"),
        ("KEYS", ("rotate=ctrl+r",), "rotate=ctrl+r"),
    ],
)
def test_value_is_masked_by_its_name_and_shape(name: str, value: object, left: str) -> None:
    assert shown(name, value) == left


@pytest.mark.parametrize("text", ["PASS", "a:", "://@", "PROXY_URL='x\n", "export ", "a=  ", '"', "joe:"])
def test_masking_hostile_text_takes_linear_time(text: str) -> None:
    began = time.process_time()
    for long in (text * 30_000, text * 30_000 + "=@"):
        masked(long)
        masked_value("PROXY_URL", long)
    assert time.process_time() - began < 5.0


@pytest.mark.parametrize(
    "text",
    [
        '[PROXY_URL]\nx = "joe:s3cret"\n',
        '[HTTP_PROXY]\nx = "joe:s3cret"\n',
        'PROXY_URL = ["joe:s3cret@h"]\n',
        'PROXY_URL = [["joe:s3cret"]]\n',
        'PROXY_URL = "joe:s3cret"\n',
        'HTTP_PROXY_ = "joe:s3cret@h:1"\n',
        '"joe:s3cret@h" = 1\n',
        'MY_PASSWORD = "s3cret"\n',
        'SYMBOLS = "joe:s3cret@h"\n',
        'EXCHANGE_WS_URL = "wss://joe:s3cret@h"\n',
        'EXCHANGE_REST_URL = "https://joe:12/s3cret@h"\n',
    ],
)
def test_problems_of_a_file_never_show_a_password(tmp_path: Path, text: str) -> None:
    path = tmp_path / "config.toml"
    path.write_text(text)
    with pytest.raises(SettingsProblems) as caught:
        load_file(path)
    assert "s3cret" not in str(caught.value) + repr(caught.value.problems)


@pytest.mark.parametrize(
    "override", ["HTTP_PROXY_=joe:s3cret@h:1", "PROXY_URL joe:s3cret@h", "PROXY_URL:http://joe:s3cret", "WS_TOKEN=s3cret"]
)
def test_problems_of_an_override_never_show_a_password(override: str) -> None:
    with pytest.raises(SettingsProblems) as caught:
        load(layers=Layers(overrides=(override,)))
    assert "s3cret" not in str(caught.value)


def test_errors_of_bare_settings_do_not_show_the_password(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PROXY_URL", "ftp://joe:s3cret@h:1")
    with pytest.raises(ValueError) as caught:
        Settings()
    assert "PROXY_URL" in str(caught.value)
    assert "s3cret" not in str(caught.value)


CUT = ["http://joe:12#s3cret@h:1", "http://joe:12/s3cret@h:1", "socks5://joe:12?s3cret@h:1", "http://jo#e:s3cret@h:1"]


@pytest.mark.parametrize("url", CUT)
def test_proxy_with_unescaped_password_is_refused(url: str) -> None:
    with pytest.raises(SettingsProblems) as caught:
        load(layers=Layers(overrides=(f"PROXY_URL={url}",)))
    said = str(caught.value)
    assert "write them as %23, %2F and %3F" in said
    assert "s3cret" not in said
    assert "12" not in said


@pytest.mark.parametrize("url", [*CUT, "joe:12#s3cret@h:1"])
def test_environment_proxy_with_unescaped_password_is_refused(url: str) -> None:
    with pytest.raises(LinkFault) as caught:
        parse_proxy(url if "://" in url else f"http://{url}", "HTTPS_PROXY")
    failure = classify(caught.value, Phase.CONNECT)
    assert (failure.kind, failure.fatal) == ("config", True)
    assert "HTTPS_PROXY" in failure.message
    assert "%23" in failure.message
    assert "s3cret" not in failure.message + failure.advice
    assert "12" not in failure.message + failure.advice


def test_password_with_escaped_special_characters_is_accepted() -> None:
    url = "http://joe:%23a%2Fb%3Fc%40d@h:1"
    assert url == load(layers=Layers(overrides=(f"PROXY_URL={url}",))).settings.PROXY_URL
    assert parse_proxy(url, "PROXY_URL").password == "#a/b?c@d"


@pytest.mark.parametrize(
    "setting",
    ["EXCHANGE_WS_URL=wss://joe:s3cret@h:1", "EXCHANGE_WS_URL=wss://joe:12#s3cret@h:1", "EXCHANGE_REST_URL=https://joe@h/x"],
)
def test_venue_address_with_user_and_password_is_refused(setting: str) -> None:
    with pytest.raises(SettingsProblems, match="must be an address without user and password") as caught:
        load(layers=Layers(overrides=(setting,)))
    assert "joe" not in str(caught.value)


@pytest.mark.parametrize("url", ["wss://joe:1/s3cret@h:2/x", "wss://joe:1#s3cret@h:2/x?k=s3cret", "wss://joe:s3cret@h:2/x"])
def test_an_address_is_shown_from_its_last_at_sign_on(url: str) -> None:
    assert public_address(url) == "wss://h:2/x"


def test_library_error_quoting_an_address_is_masked() -> None:
    failure = classify(OSError(f"Cannot connect to proxy {CUT[0]}, joe:s3cret@h"), Phase.CONNECT)
    assert "s3cret" not in failure.message


def test_the_editor_previews_a_bare_password_masked(tmp_path: Path) -> None:
    path = tmp_path / "config.toml"
    path.write_text('THEME = "beacon"\n# PROXY_URL = "joe:s3cret pw@h:1"\n')
    preview = SettingsDesk(path, Layers()).preview({"THEME": "harbor"})
    assert preview.diff
    assert "s3cret" not in str(preview)
