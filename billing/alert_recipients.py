"""Who hears of budgets: how is a recipient added, changed and removed?

Writes: alert_recipient, change_event. The only writer of the first. A webhook's secret that was made
here leaves `add_recipient` once; one that its receiver brought leaves nothing.
"""

from __future__ import annotations

from typing import Any

from django.db import connection, transaction
from django.db.models import Q

from billing import webhooks
from billing.models import AlertRecipient, Budget
from billing.notifying import is_mail_address
from policies import changes
from policies.credentials import encrypt_credential
from policies.errors import InvalidValueError, NameTakenError
from policies.models import Tenant

MAX_RECIPIENTS = 50
# In the place of a tenant's row, for recipients of deployments' budgets.
RECIPIENTS_LOCK = 0x726563697073


@transaction.atomic
def add_recipient(
    *,
    tenant: Tenant | None,
    channel: str,
    address: str,
    actor: str,
    budget: Budget | None = None,
    allow_private_network: bool = False,
    secret: str = "",
) -> tuple[AlertRecipient, str]:
    """Add an address for one budget, or for all of a tenant; None: of deployments. Returns it with the secret that was
    made for it ("" for e-mail, and where `secret` is the receiver's own).

    Raises InvalidValueError, and NameTakenError when it is there already.
    """
    address = address.strip()
    if budget is not None and budget.tenant != tenant:
        raise InvalidValueError({"tenant": [f"the budget of {budget} does not belong to {tenant}"]})
    if channel not in AlertRecipient.Channel.values:
        raise InvalidValueError(
            {"channel": [f"{channel!r} is not one of {', '.join(AlertRecipient.Channel.values)}"]}
        )
    is_webhook = channel == AlertRecipient.Channel.WEBHOOK
    _check(channel, address, allow_private_network=allow_private_network, secret=secret)
    # Two that add the same at once: the second waits here, and finds it.
    _hold_recipients_of(tenant)
    there = AlertRecipient.objects.filter(tenant=tenant)
    if there.filter(budget=budget, address=address).exists():
        raise NameTakenError(f"{address} hears of this already")
    if there.count() >= MAX_RECIPIENTS:
        raise InvalidValueError({"": [f"there are at most {MAX_RECIPIENTS} recipients of a tenant"]})
    made = webhooks.make_secret() if is_webhook and not secret else ""
    row = AlertRecipient.objects.create(
        tenant=tenant,
        budget=budget,
        channel=channel,
        address=address,
        secret_ciphertext=encrypt_credential(secret or made) if is_webhook else "",
        allow_private_network=is_webhook and allow_private_network,
        created_by=actor[:150],
    )
    _record(row, actor=actor, action="create", after=_fields(row))
    return row, made


@transaction.atomic
def change_recipient(
    *,
    recipient: AlertRecipient,
    actor: str,
    address: str | None = None,
    allow_private_network: bool | None = None,
    secret: str = "",
) -> AlertRecipient:
    """Change what is given. What waits to be sent goes to the new address. `secret`: the receiver's own, from now on.

    Raises InvalidValueError, and NameTakenError when the address hears of the same already.
    """
    # The row first, as the console's form has it already.
    row = AlertRecipient.objects.select_for_update(of=("self",)).get(pk=recipient.pk)
    _hold_recipients_of(row.tenant)
    before = _fields(row)
    row.address = row.address if address is None else address.strip()
    is_private = row.allow_private_network if allow_private_network is None else allow_private_network
    _check(row.channel, row.address, allow_private_network=is_private, secret=secret)
    row.allow_private_network = row.channel == AlertRecipient.Channel.WEBHOOK and is_private
    others = AlertRecipient.objects.filter(tenant=row.tenant_id, budget=row.budget_id).exclude(pk=row.pk)
    if others.filter(address=row.address).exists():
        raise NameTakenError(f"{row.address} hears of this already")
    if secret:
        row.secret_ciphertext = encrypt_credential(secret)
    row.save()
    after = _fields(row) | ({"secret": "another one"} if secret else {})
    if after != before:
        _record(row, actor=actor, action="change", before=before, after=after)
    return row


@transaction.atomic
def remove_recipient(*, recipient: AlertRecipient, actor: str) -> None:
    """Remove an address with its deliveries; what waits is not sent any more."""
    row = AlertRecipient.objects.select_for_update(of=("self",)).get(pk=recipient.pk)
    _record(row, actor=actor, action="delete", before=_fields(row))
    row.delete()


def list_recipients(budget: Budget) -> list[AlertRecipient]:
    """Who hears of this budget: its own recipients, and those of all of its tenant's, or of deployments'."""
    of_all = Q(tenant=budget.tenant_id) if budget.tenant_id else Q(tenant__isnull=True)
    of_all &= Q(budget__isnull=True)
    found = AlertRecipient.objects.filter(Q(budget=budget.pk) | of_all).select_related("tenant", "budget")
    # Who is named twice hears once.
    return list({row.address: row for row in found.order_by("budget_id", "id")}.values())


def _check(channel: str, address: str, *, allow_private_network: bool, secret: str) -> None:
    if channel == AlertRecipient.Channel.WEBHOOK:
        problems = webhooks.problems_of_address(address, allow_private_network=allow_private_network)
    else:
        problems = [] if is_mail_address(address) else ["this is not one e-mail address"]
    if problems:
        raise InvalidValueError({"address": problems})
    if secret and channel != AlertRecipient.Channel.WEBHOOK:
        raise InvalidValueError({"secret": ["only webhooks have one"]})
    if secret and (problems := webhooks.problems_of_secret(secret)):
        raise InvalidValueError({"secret": problems})


def _hold_recipients_of(tenant: Tenant | None) -> None:
    if tenant is not None:
        Tenant.objects.select_for_update().get(pk=tenant.pk)
        return
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_advisory_xact_lock(%s)", [RECIPIENTS_LOCK])


def _fields(row: AlertRecipient) -> dict[str, Any]:
    return {
        "of": str(row.tenant or "deployments") if row.budget is None else row.budget.scope(),
        "channel": row.channel,
        "address": row.address,
        "allow_private_network": row.allow_private_network,
    }


def _record(
    row: AlertRecipient,
    *,
    actor: str,
    action: str,
    before: dict[str, Any] | None = None,
    after: dict[str, Any] | None = None,
) -> None:
    changes.record_change(
        actor=actor,
        action=action,
        object_type="alert_recipient",
        object_id=row.pk,
        object_name=row.address[:200],
        before=before,
        after=after,
    )
