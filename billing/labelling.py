"""Which labels does a request have, of those that its tenant's reports hold apart?

Reads: tenant. Writes: label, label_name, label_use; all in the ingester's transaction, so that what is refused leaves
nothing. Labels are the rule that decided, the app, the tags that the tenant reports and, where it wants that, the end
user: what callers say of themselves, never a prompt. A record keeps the ids of its labels, so that its sums can be
proved, and taken out again, whatever its tenant reports later.

Rollups stay small: of a kind (of tags: of a name) a tenant's first `MAX_VALUES` values stand apart for good, every
other one counts as “all others”; of tags those named by the tenant, else the first `MAX_TAG_NAMES` that come.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple

from django.db import connection

from billing.journal_lines import Intent
from billing.models import Label, LabelKind, LabelName, LabelUse
from policies.models import Tenant

MAX_VALUES: Final = 1_000
MAX_TAG_NAMES: Final = 5
MAX_NAME_CHARACTERS: Final = 64
MAX_VALUE_CHARACTERS: Final = 200
OTHER: Final = ""
# Plain texts: members of an enumeration take several times as long to hash.
RULE, TAG, APP, USER = (
    str(kind.value) for kind in (LabelKind.RULE, LabelKind.TAG, LabelKind.APP, LabelKind.USER)
)
# Whoever adds labels holds it until the end of the transaction: two must not count the same room twice.
LABEL_LOCK: Final = 0x6C6162656C


class Name(NamedTuple):
    """What a tenant's values are counted under."""

    tenant_id: int
    kind: str
    name: str


class Wanted(NamedTuple):
    """A label as a request says it."""

    tenant_id: int
    kind: str
    name: str
    value: str

    @property
    def of(self) -> Name:
        """What it is counted under."""
        return Name(*self[:3])


class Reporting(NamedTuple):
    """What a tenant wants to see: these tags (none: the first that come), and end users or not."""

    tag_names: frozenset[str] = frozenset()
    has_end_users: bool = False


def label_records(intents: Sequence[Intent]) -> list[list[int]]:
    """The ids of each one's labels, in order; labels that have room are added."""
    tenant_ids = {intent.tenant_id for intent in intents}
    rows = Tenant.objects.filter(pk__in=tenant_ids).order_by()
    reporting = {
        row_id: Reporting(frozenset(names), has_end_users)
        for row_id, names, has_end_users in rows.values_list("pk", "reported_tags", "reports_end_users")
    }
    wanted = [wanted_labels(intent, reporting.get(intent.tenant_id, Reporting())) for intent in intents]
    distinct = list({label: None for labels in wanted for label in labels})
    ids = _look_up(distinct)
    missing = [label for label in distinct if label not in ids]
    if missing:
        ids |= _fold_or_add(missing, chosen={key for key, (names, _) in reporting.items() if names})
    return [sorted({ids[label] for label in labels if label in ids}) for labels in wanted]


def wanted_labels(intent: Intent, reporting: Reporting) -> list[Wanted]:
    """What a request says that may be a label. Tags: those that its tenant names, all where it names none."""
    tenant_id, features = intent.tenant_id, intent.features
    found: list[Wanted] = []
    if intent.rule:
        found.append(Wanted(tenant_id, RULE, "", intent.rule[:MAX_VALUE_CHARACTERS]))
    app = features.get("app")
    if app and isinstance(app, str):
        found.append(Wanted(tenant_id, APP, "", app[:MAX_VALUE_CHARACTERS]))
    if reporting.has_end_users:
        user = features.get("end_user")
        if user and isinstance(user, str):
            found.append(Wanted(tenant_id, USER, "", user[:MAX_VALUE_CHARACTERS]))
    tag_names = reporting.tag_names
    for name, value in intent.tags.items():
        # A name that is too long is no label: cut, two could become one, and a request count twice.
        if (
            value
            and isinstance(value, str)
            and 0 < len(name) <= MAX_NAME_CHARACTERS
            and (not tag_names or name in tag_names)
        ):
            found.append(Wanted(tenant_id, TAG, name, value[:MAX_VALUE_CHARACTERS]))
    return found


def _look_up(wanted: Sequence[Wanted]) -> dict[Wanted, int]:
    if not wanted:
        return {}
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT w.place, l.id"
            " FROM unnest(%s::bigint[], %s::text[], %s::text[], %s::text[]) WITH ORDINALITY"
            " AS w (tenant_id, kind, name, value, place)"
            " JOIN billing_label l ON l.kind = w.kind AND l.name = w.name AND l.value = w.value"
            " JOIN billing_labeluse u ON u.tenant_id = w.tenant_id AND u.label_id = l.id",
            [
                [label.tenant_id for label in wanted],
                [label.kind for label in wanted],
                [label.name for label in wanted],
                [label.value for label in wanted],
            ],
        )
        return {wanted[place - 1]: label_id for place, label_id in cursor.fetchall()}


def _fold_or_add(missing: Sequence[Wanted], *, chosen: set[int]) -> dict[Wanted, int]:
    """Labels that their tenants do not use yet: added while there is room, else “all others”, or none at all."""
    ids: dict[Wanted, int] = {}
    if not _is_all_full(missing, chosen):
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_advisory_xact_lock(%s)", [LABEL_LOCK])
        # Another ingester may have added some in the meantime.
        ids = _look_up(missing)
        missing = [label for label in missing if label not in ids]
    counts = _read_counts(missing)
    tag_names = _tag_names_of(counts)
    added: dict[Wanted, None] = {}
    folded: dict[Wanted, Wanted] = {}
    for label in missing:
        of = label.of
        if of not in counts:
            if of.kind == TAG and of.tenant_id not in chosen:
                names = tag_names.setdefault(of.tenant_id, set())
                if len(names) >= MAX_TAG_NAMES:
                    continue
                names.add(of.name)
            counts[of] = 0
        if counts[of] < MAX_VALUES:
            counts[of] += 1
            added[label] = None
        else:
            folded[label] = Wanted(*of, OTHER)
    others = list(dict.fromkeys(folded.values()))
    known = _look_up(others)
    ids |= _add([*added, *(label for label in others if label not in known)])
    _count(added)
    known |= ids
    return ids | {label: known[other] for label, other in folded.items()}


def _is_all_full(missing: Sequence[Wanted], chosen: set[int]) -> bool:
    """Whether nothing can be added: then there is no need to wait for others who add. What is full stays full."""
    counts = _read_counts(missing)
    tag_names = _tag_names_of(counts)
    others = {Wanted(*label.of, OTHER) for label in missing if label.of in counts}
    return all(
        counts[label.of] >= MAX_VALUES
        if label.of in counts
        else label.kind == TAG
        and label.tenant_id not in chosen
        and len(tag_names.get(label.tenant_id, ())) >= MAX_TAG_NAMES
        for label in missing
    ) and len(_look_up(list(others))) == len(others)


def _read_counts(labels: Iterable[Wanted]) -> dict[Name, int]:
    rows = LabelName.objects.filter(tenant__in={label.tenant_id for label in labels}).order_by()
    return {
        Name(tenant_id, kind, name): count
        for tenant_id, kind, name, count in rows.values_list("tenant_id", "kind", "name", "value_count")
    }


def _tag_names_of(counts: Iterable[Name]) -> dict[int, set[str]]:
    found: dict[int, set[str]] = {}
    for tenant_id, kind, name in counts:
        if kind == TAG:
            found.setdefault(tenant_id, set()).add(name)
    return found


def _add(labels: Sequence[Wanted]) -> dict[Wanted, int]:
    if not labels:
        return {}
    texts = list({label[1:]: None for label in labels})
    Label.objects.bulk_create(
        [Label(kind=kind, name=name, value=value) for kind, name, value in texts], ignore_conflicts=True
    )
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT l.kind, l.name, l.value, l.id FROM unnest(%s::text[], %s::text[], %s::text[])"
            " AS w (kind, name, value)"
            " JOIN billing_label l ON l.kind = w.kind AND l.name = w.name AND l.value = w.value",
            [[kind for kind, _, _ in texts], [name for _, name, _ in texts], [v for _, _, v in texts]],
        )
        ids = {(kind, name, value): label_id for kind, name, value, label_id in cursor.fetchall()}
    found = {label: ids[label[1:]] for label in labels}
    LabelUse.objects.bulk_create(
        [LabelUse(tenant_id=label.tenant_id, label_id=label_id) for label, label_id in found.items()],
        ignore_conflicts=True,
    )
    return found


def _count(added: Iterable[Wanted]) -> None:
    more: dict[Name, int] = {}
    for label in added:
        more[label.of] = more.get(label.of, 0) + 1
    if not more:
        return
    with connection.cursor() as cursor:
        cursor.execute(
            "INSERT INTO billing_labelname AS kept (tenant_id, kind, name, value_count)"
            " SELECT * FROM unnest(%s::bigint[], %s::text[], %s::text[], %s::int[])"
            " ON CONFLICT (tenant_id, kind, name) DO UPDATE SET value_count = kept.value_count + excluded.value_count",
            [
                [of.tenant_id for of in more],
                [of.kind for of in more],
                [of.name for of in more],
                list(more.values()),
            ],
        )
