"""Whose name, address, tax and currency stand on statements?

Writes: billing_profile, change_event; the only writer. The profile without a tenant is the issuer's.
"""

from __future__ import annotations

from decimal import Decimal, InvalidOperation
from typing import Any, Final

from django.db import connection, transaction

from billing.currencies import check_currency
from billing.models import BillingProfile
from policies import changes
from policies.errors import InvalidValueError
from policies.models import Tenant
from policies.row_changes import held, save_checked, set_fields

FIELDS: Final = (
    "legal_name",
    "address",
    "email",
    "tax_id",
    "tax_name",
    "tax_ratio",
    "currency",
    "payment_days",
)
# The issuer has no tax rate, currency or days of its own: those are each tenant's.
ISSUER_FIELDS: Final = ("legal_name", "address", "email", "tax_id")
MAX_ADDRESS_LINES: Final = 8
ISSUER_LOCK: Final = 0x69737375


def profile_of(tenant: Tenant | None) -> BillingProfile:
    """The profile of a tenant, or of the issuer; one with the defaults (not saved) when none was written.

    Its `legal_name` may be empty: `name_of` is what is printed.
    """
    return BillingProfile.objects.filter(tenant=tenant).first() or BillingProfile(tenant=tenant)


def name_of(profile: BillingProfile) -> str:
    """The name on the statement: the legal one, else the tenant's."""
    return profile.legal_name or (profile.tenant.name if profile.tenant is not None else "")


def address_lines(profile: BillingProfile) -> tuple[str, ...]:
    """The address line by line, as `statement_document.Party` takes it."""
    return tuple(line.strip() for line in profile.address.splitlines() if line.strip())


@transaction.atomic
def change_profile(*, tenant: Tenant | None, actor: str, **fields: Any) -> BillingProfile:
    """Change what is named of a tenant's profile (or the issuer's, None). Raises InvalidValueError.

    Statements that are issued stay as they are.
    """
    row = hold_profile(tenant)
    values = {name: _clean(name, value) for name, value in fields.items()}
    before, after = set_fields(row, values, allowed=ISSUER_FIELDS if tenant is None else FIELDS)
    if not after:
        return row
    is_new = row.pk is None
    check_currency(row.currency)
    save_checked(row)
    changes.record_change(
        actor=actor,
        action="create" if is_new else "change",
        object_type="billing_profile",
        object_id=row.pk,
        object_name=tenant.name if tenant is not None else "issuer",
        before=None if is_new else before,
        after=after,
    )
    return row


def hold_profile(tenant: Tenant | None) -> BillingProfile:
    """`profile_of`, changed by nobody else before the transaction ends, also where none was written yet."""
    if tenant is not None:
        held(Tenant.objects.all()).get(pk=tenant.pk)
    else:
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_advisory_xact_lock(%s)", [ISSUER_LOCK])
    return profile_of(tenant)


def _clean(name: str, value: Any) -> Any:
    if isinstance(value, str) and name != "tax_ratio":
        value = value.strip()
        if name == "currency":
            value = value.upper()
        if name == "address":
            value = "\n".join(line.strip() for line in value.splitlines() if line.strip())
            if value.count("\n") >= MAX_ADDRESS_LINES:
                raise InvalidValueError({name: [f"an address has at most {MAX_ADDRESS_LINES} lines"]})
        return value
    if name == "tax_ratio":
        try:
            ratio = Decimal(str(value))
        except InvalidOperation:
            ratio = Decimal("NaN")
        if not ratio.is_finite() or not 0 <= ratio <= 1:
            raise InvalidValueError({name: ["a tax rate is from 0 to 1 (0.19 is 19 %)"]})
        if ratio != ratio.quantize(Decimal("0.000001")):
            raise InvalidValueError({name: ["a tax rate has at most six digits after the point"]})
        return ratio.quantize(Decimal("0.000001"))
    return value
