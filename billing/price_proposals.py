"""How do list prices become prices? A source proposes, a person approves row by row; nothing else takes effect.

Writes: price_proposal, proposed_price, change_event; calls `billing.pricing` for the prices themselves.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Collection, Iterable
from dataclasses import dataclass

from django.db import transaction

from billing import pricing
from billing.models import Price, PriceProposal, ProposedPrice
from billing.price_sources.listing import Answer, Called, Listing, Source
from policies import changes
from policies.errors import ConfigurationError, InvalidValueError, NotFoundError
from policies.models import Deployment


class StaleProposalError(ConfigurationError):
    """What a row was compared with is no longer in force."""


@dataclass(frozen=True, slots=True)
class Asked:
    """A deployment and what a source said of it."""

    deployment: Deployment
    answer: Answer


def ask_source(source: Source, *, now: dt.datetime) -> list[Asked]:
    """Look up every deployment that is enabled. Raises SourceError."""
    rows = Deployment.objects.filter(is_enabled=True).select_related("provider")
    return [
        Asked(row, source.find(Called(row.name, row.provider.base_url, row.upstream_model), now=now))
        for row in rows
    ]


@transaction.atomic
def make_proposal(source: Source, *, actor: str, now: dt.datetime) -> PriceProposal:
    """Compare a source with the prices in force and keep what differs. Raises SourceError.

    Rows of older proposals that wait for the same deployments are superseded: there is one question at a time.
    """
    found = ask_source(source, now=now)
    proposal = PriceProposal(
        kind=source.kind, source=source.title[:100], digest=source.digest, made_at=now, made_by=actor[:150]
    )
    rows: list[ProposedPrice] = []
    for asked in found:
        finding, text = asked.answer.finding, asked.answer.text
        new: list[ProposedPrice] = []
        try:
            new = [
                row
                for listing in asked.answer.listings
                if (row := _propose(proposal, asked.deployment, listing, now)) is not None
            ]
        except InvalidValueError as refusal:
            finding, text = "inexpressible", str(refusal)
        if finding == "listed" and not new:
            same = ", ".join(sorted({listing.listed_as for listing in asked.answer.listings}))
            proposal.findings.append(_finding(asked.deployment, "same", f"{same}: as in force"))
        elif finding != "listed":
            proposal.findings.append(_finding(asked.deployment, finding, text))
        rows += new
    proposal.save()
    superseded = ProposedPrice.objects.filter(
        state=ProposedPrice.State.WAITING, deployment__in={row.deployment_id for row in rows}
    ).update(state=ProposedPrice.State.SUPERSEDED, decided_at=now, reason=f"by proposal {proposal.pk}")
    ProposedPrice.objects.bulk_create(rows)
    changes.record_change(
        actor=actor,
        action="propose",
        object_type="price_proposal",
        object_id=proposal.pk,
        object_name=proposal.source,
        after={"rows": len(rows), "superseded": superseded, "digest": proposal.digest},
    )
    return proposal


@transaction.atomic
def approve(
    *, proposal: PriceProposal, row_ids: Collection[int], actor: str, now: dt.datetime
) -> list[Price]:
    """Make prices of these rows: all or none.

    Raises StaleProposalError when another price is in force than the one that the person saw compared,
    NotFoundError for rows that do not wait.
    """
    rows = _lock_waiting(proposal, row_ids)
    made: list[Price] = []
    for row in rows:
        present = pricing.find_price_in_force(deployment=row.deployment, at=row.effective_from or now)
        is_of_this = present is not None and proposal.rows.filter(price=present).exists()
        if (present.pk if present else None) != row.compared_price_id and not is_of_this:
            raise StaleProposalError(
                f"the price of {row.deployment} in force is not the one that was compared: make a new proposal"
            )
        price = pricing.add_price(
            deployment=row.deployment,
            rates=row.rates,
            actor=actor,
            effective_from=row.effective_from or now,
            source=f"{proposal.source}: {row.listed_as}",
        )
        _decide(row, ProposedPrice.State.APPROVED, actor=actor, now=now, price=price)
        made.append(price)
    _record(proposal, "approve", rows, actor)
    return made


@transaction.atomic
def reject(
    *, proposal: PriceProposal, row_ids: Collection[int], actor: str, now: dt.datetime, reason: str = ""
) -> int:
    """Leave the prices of these rows as they are. Raises NotFoundError for rows that do not wait."""
    rows = _lock_waiting(proposal, row_ids)
    for row in rows:
        _decide(row, ProposedPrice.State.REJECTED, actor=actor, now=now, reason=reason[:300])
    _record(proposal, "reject", rows, actor)
    return len(rows)


def count_waiting() -> int:
    """Proposed prices that wait for a person."""
    return ProposedPrice.objects.filter(state=ProposedPrice.State.WAITING).count()


def _propose(
    proposal: PriceProposal, deployment: Deployment, listing: Listing, now: dt.datetime
) -> ProposedPrice | None:
    """A row, None where the price in force at that time already says the same. Raises InvalidValueError."""
    rates = pricing.canonical_rates(listing.rates)
    at = listing.effective_from or now
    present = pricing.find_price_in_force(deployment=deployment, at=at)
    if present is not None and present.rates == rates:
        return None
    if Price.objects.filter(deployment=deployment, book="cost", tenant=None, effective_from=at).exists():
        raise InvalidValueError(
            {"": [f"another price already begins at {at.isoformat()}, and is never changed"]}
        )
    notes = list(listing.notes)
    following = (
        Price.objects.filter(deployment=deployment, book="cost", tenant=None, effective_from__gt=at)
        .order_by("effective_from")
        .first()
    )
    if following is not None:
        notes.append(f"holds until {following.effective_from:%Y-%m-%d %H:%M} UTC, when the next price begins")
    return ProposedPrice(
        proposal=proposal,
        deployment=deployment,
        listed_as=listing.listed_as[:300],
        rates=rates,
        effective_from=listing.effective_from,
        notes=notes,
        compared_price=present,
    )


def _finding(deployment: Deployment, finding: str, text: str) -> dict[str, object]:
    return {"deployment_id": deployment.pk, "deployment": deployment.name, "finding": finding, "text": text}


def _lock_waiting(proposal: PriceProposal, row_ids: Collection[int]) -> list[ProposedPrice]:
    rows = list(
        proposal.rows.select_for_update(of=("self",))
        .select_related("deployment")
        .filter(pk__in=row_ids, state=ProposedPrice.State.WAITING)
    )
    if not rows or len(rows) != len(set(row_ids)):
        raise NotFoundError("some of these prices do not wait any more: look at the proposal again")
    return rows


def _decide(
    row: ProposedPrice,
    state: ProposedPrice.State,
    *,
    actor: str,
    now: dt.datetime,
    price: Price | None = None,
    reason: str = "",
) -> None:
    row.state, row.price, row.decided_at, row.decided_by, row.reason = state, price, now, actor[:150], reason
    row.save(update_fields=["state", "price", "decided_at", "decided_by", "reason"])


def _record(proposal: PriceProposal, action: str, rows: Iterable[ProposedPrice], actor: str) -> None:
    changes.record_change(
        actor=actor,
        action=action,
        object_type="price_proposal",
        object_id=proposal.pk,
        object_name=proposal.source,
        after={"deployments": [row.deployment.name for row in rows]},
    )
