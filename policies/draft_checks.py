"""What is wrong with a policy document, given the catalog, prices and tenants as they are?

Reads: deployment, model, policy, tenant; prices through a reader that billing hands in, since policies know no money.
Errors forbid publishing, warnings ask.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from policies.conditions import ConditionError, check_readable, compile_condition
from policies.document_checks import Problem, check_document
from policies.models import Deployment, Model, Policy, Tenant
from policies.retention import rank_of_class, rank_of_limit

MAX_NAMED = 3

PriceReader = Callable[[], Collection[str]]
_price_readers: list[PriceReader] = []


class Place(NamedTuple):
    """A deployment that a document names, by the rule (0-based) and the path of the name."""

    rule: int
    path: str
    name: str


class Home(NamedTuple):
    """Where a deployment is, and how long what it is sent is kept there (`policies.retention`)."""

    region: str = ""
    retention: str = ""


class Allowed(NamedTuple):
    """What a tenant accepts: regions (none: any) and a limit of retention ("" for any)."""

    regions: frozenset[str] = frozenset()
    retention_limit: str = ""

    def accepts(self, home: Home) -> bool:
        return (not self.regions or home.region in self.regions) and rank_of_class(
            home.retention
        ) <= rank_of_limit(self.retention_limit)

    def in_words(self) -> str:
        """What must be so of a deployment, after "nothing is …"; empty when anything will do."""
        parts = []
        if self.regions:
            parts.append(f" in the regions they allow ({', '.join(sorted(self.regions))})")
        if self.retention_limit:
            parts.append(f" known to keep prompts as they ask ({self.retention_limit})")
        return " and".join(parts)


def register_price_reader(reader: PriceReader) -> None:
    """Let billing say which deployments (by name) have a cost price now. Called once, when Django starts."""
    _price_readers.append(reader)


def list_problems(document: object, *, policy: Policy | None = None) -> list[Problem]:
    """Check a document against the catalog as it is now; with a policy also against the tenants that use it."""
    homes: dict[str, Home] = {}
    disabled: set[str] = set()
    rows = Deployment.objects.values_list(
        "name", "region", "retention", "is_enabled", "model__is_enabled", "provider__is_enabled"
    )
    for name, region, retention, *are_enabled in rows:
        homes[name] = Home(region, retention)
        if not all(are_enabled):
            disabled.add(name)
    places = list_places(document)
    unknown = {place.name for place in places if place.name not in homes}
    problems = check_document(
        document,
        deployment_names=homes.keys(),
        model_names=set(Model.objects.values_list("name", flat=True)),
        disabled_names=disabled,
        policy_names=set(Policy.objects.filter(public_id__in=unknown).values_list("public_id", flat=True))
        if unknown
        else (),
    )
    if not isinstance(document, Mapping):
        return problems
    places = [place for place in places if place.name in homes]
    problems += _unpriced(places, disabled)
    if policy is not None:
        tenants = Tenant.objects.filter(policies=policy, is_enabled=True).order_by("name")
        usable = {name: home for name, home in homes.items() if name not in disabled}
        allowed = [
            (name, Allowed(frozenset(regions), limit))
            for name, regions, limit in tenants.values_list("name", "allowed_regions", "retention_limit")
        ]
        problems += check_tenants(places, usable=usable, tenants=allowed)
    return problems


def list_condition_problems(document: Mapping[str, Any]) -> list[Problem]:
    """Conditions that do not compile: a draft with one cannot even be saved."""
    rules = document.get("rules")
    problems = []
    for index, rule in enumerate(rules if isinstance(rules, list) else ()):
        when = rule.get("when") if isinstance(rule, Mapping) else None
        if not isinstance(when, str) or not when.strip():
            continue
        try:
            check_readable(when.strip())
            compile_condition(when.strip())
        except ConditionError as error:
            lead = len(when) - len(when.lstrip())
            column = None if error.column is None else error.column + lead
            problems.append(Problem(f"rules[{index}].when", error.message, column=column))
    return problems


def check_tenants(
    places: Sequence[Place], *, usable: Mapping[str, Home], tenants: Sequence[tuple[str, Allowed]]
) -> list[Problem]:
    """Find tenants that a document leaves without a deployment. Pure.

    `usable` are the deployments that are switched on; `tenants` are names with what they allow. Nothing in any rule
    is an error; nothing in one rule a warning, where what they allow is the reason.
    """
    by_allowed: dict[Allowed, list[str]] = {}
    for name, allowed in tenants:
        by_allowed.setdefault(allowed, []).append(name)
    problems: list[Problem] = []
    for allowed, names in by_allowed.items():
        fitting = {place for place in places if _fits(place.name, usable, allowed)}
        who = _listed(names)
        where = allowed.in_words()
        if not fitting:
            message = f"no deployment could serve {who}: every one named is switched off, or not there{where}"
            problems.append(Problem("rules", message))
            continue
        served = {place.rule for place in fitting}
        # Where everything is switched off, that is said at each deployment already.
        living = {place.rule for place in places if place.name in usable}
        for rule in sorted(living - served):
            message = f"requests of {who} that this rule takes are refused: nothing of it is{where}"
            problems.append(Problem(f"rules[{rule}].deployments", message, "warning"))
    return problems


def _fits(name: str, usable: Mapping[str, Home], allowed: Allowed) -> bool:
    return name in usable and allowed.accepts(usable[name])


def _unpriced(places: Sequence[Place], disabled: Collection[str]) -> Iterator[Problem]:
    if not _price_readers:
        return
    priced = frozenset(name for reader in _price_readers for name in reader())
    for place in places:
        if place.name not in priced and place.name not in disabled:
            message = (
                f"{place.name} has no price: its requests count as unpriced, and a key or tenant with a budget "
                "cannot use it"
            )
            yield Problem(place.path, message, "warning")


def list_places(document: object) -> list[Place]:
    """Every deployment that a rule names, of rules that are on."""
    places: list[Place] = []
    rules = document.get("rules") if isinstance(document, Mapping) else None
    for index, rule in enumerate(rules if isinstance(rules, list) else ()):
        if not isinstance(rule, Mapping) or rule.get("is_enabled", True) is False:
            continue
        for member in ("deployments", "fallbacks"):
            entries = rule.get(member)
            for position, entry in enumerate(entries if isinstance(entries, list) else ()):
                name = entry.get("name") if isinstance(entry, Mapping) else entry
                if isinstance(name, str):
                    places.append(Place(index, f"rules[{index}].{member}[{position}]", name))
    return places


def _listed(names: Sequence[str]) -> str:
    shown = ", ".join(names[:MAX_NAMED])
    more = len(names) - MAX_NAMED
    return f"{'tenant' if len(names) == 1 else 'tenants'} {shown}" + (f" and {more} more" if more > 0 else "")
