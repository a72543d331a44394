"""Who hears of budgets: how is a recipient added and removed?

Writes: alert_recipient, change_event. The only writer of the first. A webhook's secret leaves `add_recipient` once.
"""

from __future__ import annotations

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
) -> tuple[AlertRecipient, str]:
    """Add an address for one budget, or for all of a tenant; None: of deployments. Returns it with its secret
    ("" for e-mail).

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
    if is_webhook:
        problems = webhooks.problems_of_address(address, allow_private_network=allow_private_network)
    else:
        problems = [] if is_mail_address(address) else ["this is not one e-mail address"]
    if problems:
        raise InvalidValueError({"address": problems})
    # Two that add the same at once: the second waits here, and finds it.
    if tenant is not None:
        Tenant.objects.select_for_update().get(pk=tenant.pk)
    else:
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_advisory_xact_lock(%s)", [RECIPIENTS_LOCK])
    there = AlertRecipient.objects.filter(tenant=tenant)
    if there.filter(budget=budget, address=address).exists():
        raise NameTakenError(f"{address} hears of this already")
    if there.count() >= MAX_RECIPIENTS:
        raise InvalidValueError({"": [f"there are at most {MAX_RECIPIENTS} recipients of a tenant"]})
    secret = webhooks.make_secret() if is_webhook else ""
    row = AlertRecipient.objects.create(
        tenant=tenant,
        budget=budget,
        channel=channel,
        address=address,
        secret_ciphertext=encrypt_credential(secret) if secret else "",
        allow_private_network=is_webhook and allow_private_network,
        created_by=actor[:150],
    )
    _record(row, actor=actor, action="create")
    return row, secret


@transaction.atomic
def remove_recipient(*, recipient: AlertRecipient, actor: str) -> None:
    """Remove an address with its deliveries; what waits is not sent any more."""
    row = AlertRecipient.objects.select_for_update(of=("self",)).get(pk=recipient.pk)
    _record(row, actor=actor, action="delete")
    row.delete()


def list_recipients(budget: Budget) -> list[AlertRecipient]:
    """Who hears of this budget: its own recipients, and those of all of its tenant's, or of deployments'."""
    of_all = Q(tenant=budget.tenant_id) if budget.tenant_id else Q(tenant__isnull=True)
    of_all &= Q(budget__isnull=True)
    found = AlertRecipient.objects.filter(Q(budget=budget.pk) | of_all).select_related("tenant", "budget")
    # Who is named twice hears once.
    return list({row.address: row for row in found.order_by("budget_id", "id")}.values())


def _record(row: AlertRecipient, *, actor: str, action: str) -> None:
    fields = {
        "of": str(row.tenant or "deployments") if row.budget is None else row.budget.scope(),
        "channel": row.channel,
        "address": row.address,
        "allow_private_network": row.allow_private_network,
    }
    changes.record_change(
        actor=actor,
        action=action,
        object_type="alert_recipient",
        object_id=row.pk,
        object_name=row.address[:200],
        before=fields if action == "delete" else None,
        after=fields if action == "create" else None,
    )
