"""What does a worker know about tenants, catalog and policies while it routes? Frozen data.

Pure. Built from rows by `gateway.snapshots`, replaced whole when configuration changes, never modified.
Catalog entries and policies compare by identity (`eq=False`): they key caches on the hot path, where hashing every
field costs more than the look-up saves.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

from policies.autorouter.tables import RouterTables, empty_tables

Strategy = Literal["fixed", "priority", "weighted", "least_cost", "least_latency", "auto"]

EMPTY: Mapping[str, Any] = {}


class RateTerms(NamedTuple):
    """What a tenant, project, key or deployment may take: in any 60 seconds, and at once. None: not limited."""

    id: int
    name: str
    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    concurrent: int | None = None


@dataclass(frozen=True, slots=True, eq=False)
class ProviderSnapshot:
    """An upstream account. `secret` is the credential in the clear: never logged, never in a repr."""

    id: int
    name: str
    wire_format: str
    base_url: str
    addressing: str = "openai"
    auth_style: str = "bearer"
    api_version: str = ""
    extra_headers: tuple[tuple[str, str], ...] = ()
    secret: str | None = field(default=None, repr=False)
    credential_revision: int = 0
    allow_private_network: bool = False
    takes_stream_options: bool = True


@dataclass(frozen=True, slots=True, eq=False)
class ModelSnapshot:
    """The name a client asks for, and what it can do. `endpoints` is never empty."""

    id: int
    name: str
    context_tokens: int | None = None
    max_output_tokens: int | None = None
    capabilities: frozenset[str] = frozenset()
    endpoints: frozenset[str] = frozenset({"chat", "completions"})
    output_limit_parameter: str = ""
    created_unix_s: int = 0


@dataclass(frozen=True, slots=True, eq=False)
class DeploymentSnapshot:
    """One upstream model at one provider. Rates are for comparing costs; the money is in billing's prices.

    `input_nanousd_per_mtok` / `output_nanousd_per_mtok` are None when the deployment has no price.
    """

    id: int
    name: str
    model: ModelSnapshot
    provider: ProviderSnapshot
    upstream_model: str
    region: str = ""
    retention: str = ""
    input_nanousd_per_mtok: int | None = None
    output_nanousd_per_mtok: int | None = None
    rate_limit: RateTerms | None = None


@dataclass(frozen=True, slots=True)
class Choice:
    """A deployment as a rule names it. `weight` matters to `weighted` only."""

    deployment: DeploymentSnapshot
    weight: float = 1.0


@dataclass(frozen=True, slots=True)
class AutoSettings:
    """How the automatic router weighs a rule's deployments.

    `slider` runs from 0 (quality alone) to 10 (the cheapest that will do). `quality_floor` in 0..1 puts weaker models
    last; None: no floor. `check_answers`: look at a whole answer before it is sent, and try the next model if that
    failed.
    """

    slider: float = 5.0
    quality_floor: float | None = None
    check_answers: bool = False


@dataclass(frozen=True, slots=True, eq=False)
class RuleSnapshot:
    """Condition, strategy, deployments. `condition` is a compiled program; None matches always.

    A condition is called with what `conditions.prepare` made for the policy's `feature_names` and returns a bool; it
    may raise. `missing` are deployments that the document names and that are disabled or gone.
    """

    name: str
    strategy: Strategy
    choices: tuple[Choice, ...]
    when: str = ""
    condition: Callable[[Any], Any] | None = None
    feature_names: frozenset[str] = frozenset()
    fallbacks: tuple[DeploymentSnapshot, ...] = ()
    max_attempts: int | None = None
    timeout_s: float | None = None
    is_enabled: bool = True
    missing: tuple[str, ...] = ()
    auto: AutoSettings | None = None


@dataclass(frozen=True, slots=True, eq=False)
class PolicySnapshot:
    """The live version of a policy. `feature_names`: every feature that any of its rules names.

    `needs_text`: a rule looks at what only the words of a request tell (its workload, its type, its language), or
    conversations matter. `has_auto`: a rule is the automatic router's.
    `canary` serves `canary_percent` of the conversations instead.
    """

    id: int
    public_id: str
    version_id: int
    version_number: int
    rules: tuple[RuleSnapshot, ...]
    feature_names: frozenset[str] = frozenset()
    baseline_model: str = ""
    created_unix_s: int = 0
    session_stickiness: bool = False
    needs_text: bool = False
    has_auto: bool = False
    canary: PolicySnapshot | None = None
    canary_percent: float = 0.0


@dataclass(frozen=True, slots=True)
class TenantSnapshot:
    """Who is billed. `policy_ids` are public ids it may use; `allowed_regions` empty means any.
    `retention_limit` (`policies.retention`): "" for any.

    `shadow_percent` of its requests to automatic rules are asked of a second model as well; 0: it has not opted in.
    `reports_end_users`: what a request names as its end user is kept.
    """

    id: int
    name: str
    time_zone: str = "UTC"
    policy_ids: frozenset[str] = frozenset()
    allowed_regions: frozenset[str] = frozenset()
    retention_limit: str = ""
    shadow_percent: float = 0.0
    reports_end_users: bool = False


class BudgetTerms(NamedTuple):
    """A hard budget into which requests must fit. The money is in billing's tables; this is how to find it.

    `model_id`: only requests that this model may serve must fit, and only its answers count. `deployment_id`: it is the
    deployment's, of all callers, and only calls of it count.
    """

    id: int
    name: str
    window: Literal["day", "week", "month", "total"]
    time_zone: str
    limit_nanousd: int
    counted_from_unix_s: int
    may_lower_limit: bool = True
    model_id: int | None = None
    deployment_id: int | None = None


@dataclass(frozen=True, slots=True)
class KeyGrant:
    """What the holder of one API key may do. `expires_unix_s` None: never. `allowed_models` empty: all.

    `budgets` are the hard ones of the key, its project and its tenant for all models, `model_budgets` those for one;
    `rate_limits` are theirs too, narrowest first.
    """

    key_id: int
    key_name: str
    project_id: int
    project_name: str
    tenant: TenantSnapshot
    is_pinned: bool = False
    expires_unix_s: float | None = None
    allowed_models: frozenset[str] = frozenset()
    budgets: tuple[BudgetTerms, ...] = ()
    rate_limits: tuple[RateTerms, ...] = ()
    model_budgets: tuple[BudgetTerms, ...] = ()


@dataclass(frozen=True, slots=True)
class RoutingSnapshot:
    """Everything a decision needs, at one revision of the change feed.

    `deployments` by deployment name; `deployments_by_model` by model name, in order of preference (name);
    `policies` by public id. Only enabled rows are in it. `router`: the tables in force, with the catalog's ratings.
    `deployment_budgets`: the hard budgets of deployments, by the deployment's id.
    """

    revision: int
    deployments: Mapping[str, DeploymentSnapshot] = field(default_factory=dict)
    deployments_by_model: Mapping[str, tuple[DeploymentSnapshot, ...]] = field(default_factory=dict)
    policies: Mapping[str, PolicySnapshot] = field(default_factory=dict)
    router: RouterTables = field(default_factory=empty_tables)
    deployment_budgets: Mapping[int, tuple[BudgetTerms, ...]] = field(default_factory=dict)
