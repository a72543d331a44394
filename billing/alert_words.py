"""What do a mail and a webhook say of a budget?

Pure.
"""

from __future__ import annotations

import datetime as dt
import uuid
from typing import Any, NamedTuple

import orjson

from billing.models import AlertRecipient, BudgetAlert
from billing.money import format_usd, usd_text


class Message(NamedTuple):
    """`body` is the mail's text, or the webhook's JSON."""

    subject: str
    body: str


def message_of(alert: BudgetAlert, channel: str, *, public_url: str) -> Message:
    """An alert as one channel carries it. The alert's window and budget are loaded with it."""
    subject = _subject(alert)
    if channel == AlertRecipient.Channel.WEBHOOK:
        return Message(subject, _json(_kind(alert), alert.noticed_at, _data(alert, public_url)))
    window = alert.window
    budget = window.budget
    ends = "It never begins anew." if window.ends_at is None else f"It begins anew on {_day(window.ends_at)}."
    lines = [
        subject + ".",
        "",
        f"Budget: {budget.scope()}, {budget.get_window_display()}, since {_day(window.starts_at)}. {ends}",
        f"Used: {format_usd(alert.used_nanousd)} of {format_usd(alert.limit_nanousd)}.",
    ]
    if alert.forecast_nanousd is not None:
        lines.append(
            f"Foreseen at its end: {format_usd(alert.forecast_nanousd)}, if every day left costs what"
            " the mean day of this window did."
        )
    if budget.is_hard:
        lines.append(
            "It is a hard budget: what does not fit into it is refused."
            if budget.deployment is None
            else "It is a hard budget: what does not fit into it goes to other deployments, or is refused."
        )
    lines += ["", f"{public_url}/budgets/{budget.pk}"]
    return Message(subject, "\n".join(lines) + "\n")


def test_message(recipient: AlertRecipient, *, now: dt.datetime, public_url: str) -> Message:
    """What is sent to see whether it arrives."""
    subject = f"A test of Pointsman for {recipient.tenant or 'budgets of deployments'}"
    if recipient.channel == AlertRecipient.Channel.WEBHOOK:
        return Message(
            subject,
            _json("test", now, {"tenant": None if recipient.tenant is None else recipient.tenant.name}),
        )
    told = f"{subject}.\n\nThis address hears when budgets near their limit.\n\n{public_url}/budgets/alerts\n"
    return Message(subject, told)


def webhook_id(delivery_id: uuid.UUID) -> str:
    """The same at every try, so that a receiver can drop what it has."""
    return f"msg_{delivery_id.hex}"


def _subject(alert: BudgetAlert) -> str:
    scope = alert.window.budget.scope()
    if alert.kind == BudgetAlert.Kind.FORECAST:
        return f"{scope} will exceed its budget of {format_usd(alert.limit_nanousd)}"
    if alert.kind == BudgetAlert.Kind.ALL and alert.used_nanousd < alert.limit_nanousd:
        return f"{scope} is refused requests: too little is left of its budget of {format_usd(alert.limit_nanousd)}"
    if alert.kind == BudgetAlert.Kind.ALL:
        return f"{scope} has used up its budget of {format_usd(alert.limit_nanousd)}"
    percent = alert.used_nanousd * 100 // alert.limit_nanousd
    return f"{scope} has used {percent} % of its budget of {format_usd(alert.limit_nanousd)}"


def _kind(alert: BudgetAlert) -> str:
    is_forecast = alert.kind == BudgetAlert.Kind.FORECAST
    return "budget.overrun_foreseen" if is_forecast else "budget.threshold_reached"


def _data(alert: BudgetAlert, public_url: str) -> dict[str, Any]:
    window = alert.window
    budget = window.budget
    forecast = alert.forecast_nanousd
    return {
        "alert_id": alert.pk,
        "budget_id": budget.pk,
        "scope": budget.scope(),
        "tenant": None if budget.tenant is None else budget.tenant.name,
        "model": None if budget.model is None else budget.model.name,
        "deployment": None if budget.deployment is None else budget.deployment.name,
        "window": budget.window,
        "is_hard": budget.is_hard,
        "starts_at": window.starts_at.isoformat(),
        "ends_at": None if window.ends_at is None else window.ends_at.isoformat(),
        "threshold_percent": None if forecast is not None else int(alert.kind.removeprefix("used_")),
        "is_refusing": alert.kind == BudgetAlert.Kind.ALL and budget.is_hard,
        "limit_usd": usd_text(alert.limit_nanousd),
        "used_usd": usd_text(alert.used_nanousd),
        "forecast_usd": None if forecast is None else usd_text(forecast),
        "url": f"{public_url}/budgets/{budget.pk}",
    }


def _json(kind: str, at: dt.datetime, data: dict[str, Any]) -> str:
    return orjson.dumps({"type": kind, "timestamp": at.isoformat(), "data": data}).decode()


def _day(at: dt.datetime) -> str:
    return f"{at:%Y-%m-%d %H:%M} UTC"
