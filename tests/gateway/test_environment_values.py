"""Does a wrong environment variable end the start with a line that says what to set?"""

from __future__ import annotations

import pytest

from gateway.environment_values import database_settings, mail_settings, origins, whole_number


@pytest.mark.parametrize("text", ["abc", "-1", "0", "65536", "1.5", "²", "9" * 40])
def test_a_port_that_is_none_is_named_with_what_it_may_be(monkeypatch, text):
    monkeypatch.setenv("POINTSMAN_PORT", text)
    with pytest.raises(SystemExit, match=r"POINTSMAN_PORT is .* a whole number from 1 to 65535"):
        whole_number("POINTSMAN_PORT", 8000, least=1, most=65_535)


def test_an_empty_variable_is_one_that_is_not_set(monkeypatch):
    monkeypatch.setenv("POINTSMAN_PORT", " ")
    assert whole_number("POINTSMAN_PORT", 8000, least=1, most=65_535) == 8000
    monkeypatch.setenv("POINTSMAN_PORT", "18000")
    assert whole_number("POINTSMAN_PORT", 8000, least=1, most=65_535) == 18_000


@pytest.mark.parametrize(
    "address",
    ["pwd-7", "mysql://u:pwd-7@h/n", "sqlite:///pwd-7", "postgres://u:pwd-7@h:x/n", "postgres://pwd-7"],
)
def test_a_wrong_database_address_is_explained_and_not_repeated(monkeypatch, address):
    monkeypatch.setenv("DATABASE_URL", address)
    with pytest.raises(SystemExit, match=r"postgres://USER:PASSWORD@HOST:PORT/NAME") as refusal:
        database_settings("DATABASE_URL")
    assert "pwd-7" not in str(refusal.value)


def test_a_right_database_address_is_taken_apart(monkeypatch):
    monkeypatch.setenv("DATABASE_URL", "postgresql://u:p%40w@h:5433/n")
    found = database_settings("DATABASE_URL")
    assert (found["USER"], found["PASSWORD"], found["HOST"], found["PORT"]) == ("u", "p@w", "h", 5433)
    assert (found["NAME"], found["ENGINE"]) == ("n", "django.db.backends.postgresql")


def test_a_wrong_mail_address_is_explained_and_not_repeated(monkeypatch):
    monkeypatch.setenv("EMAIL_URL", "smtp://u:pwd-7")
    with pytest.raises(SystemExit, match="smtp\\+tls://USER:PASSWORD@HOST:587") as refusal:
        mail_settings("EMAIL_URL")
    assert "pwd-7" not in str(refusal.value)
    monkeypatch.setenv("EMAIL_URL", "")
    assert mail_settings("EMAIL_URL")["EMAIL_BACKEND"].endswith("console.EmailBackend")


@pytest.mark.parametrize(
    "text", ["app.example.com", "https://a.example/", "https://*.a.example", "null", "https://u@a"]
)
def test_what_is_no_origin_is_named_with_what_it_may_be(monkeypatch, text):
    monkeypatch.setenv("POINTSMAN_CORS_ORIGINS", f"https://right.example, {text}")
    with pytest.raises(
        SystemExit, match=r"^POINTSMAN_CORS_ORIGINS holds .*https://app.example.com"
    ) as refusal:
        origins("POINTSMAN_CORS_ORIGINS")
    assert repr(text) in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_origins_are_kept_as_browsers_send_them(monkeypatch):
    monkeypatch.setenv(
        "POINTSMAN_CORS_ORIGINS", " https://A.example:443, http://localhost:5173 ,,tauri://localhost"
    )
    assert origins("POINTSMAN_CORS_ORIGINS") == (
        "https://a.example",
        "http://localhost:5173",
        "tauri://localhost",
    )
    monkeypatch.setenv("POINTSMAN_CORS_ORIGINS", "")
    assert origins("POINTSMAN_CORS_ORIGINS") == ()
