"""How are backtests started, watched, cancelled and read over HTTP?

Reads: backtest. Writes: nothing itself, calls `billing.backtesting`.
"""

from __future__ import annotations

from typing import Any

from rest_framework import serializers, status
from rest_framework.request import Request
from rest_framework.response import Response

from billing.backtesting import MAX_DAYS, cancel_backtest, start_backtest
from billing.models import Backtest, BacktestState
from policies.api.access import EDIT_POLICIES, READ, Operation
from policies.api.policy import DocumentField, draft_of
from policies.api.resources import (
    CollectionView,
    ManagementView,
    StrictSerializer,
    find_named,
    invalid,
    row_id,
)
from policies.models import Policy, PolicyVersion

DEFAULT_DAYS = 7


class BacktestSummarySerializer(StrictSerializer):
    """One run of a policy document over recorded requests, and how far it is."""

    id = row_id(read_only=True)
    policy_id = row_id(read_only=True)
    policy = serializers.CharField(source="policy.public_id", read_only=True)
    label = serializers.CharField(read_only=True)  # type: ignore[assignment]  # a member, not the label of a field
    version = serializers.IntegerField(
        source="version.number",
        read_only=True,
        allow_null=True,
        default=None,
        help_text="null: never published.",
    )
    traffic_policy_id = row_id(source="source.pk", read_only=True)
    traffic_policy = serializers.CharField(
        source="source.public_id", read_only=True, help_text="Whose requests it runs over."
    )
    days = serializers.IntegerField(read_only=True)
    since = serializers.DateTimeField(read_only=True)
    until = serializers.DateTimeField(read_only=True)
    state = serializers.ChoiceField(choices=BacktestState.values, read_only=True)
    is_cancel_wanted = serializers.BooleanField(read_only=True)
    done_count = serializers.IntegerField(read_only=True)
    total_count = serializers.IntegerField(
        read_only=True, allow_null=True, help_text="null: not counted yet."
    )
    error = serializers.CharField(read_only=True, help_text="Why it failed or who cancelled it.")
    started_by = serializers.CharField(read_only=True)
    created_at = serializers.DateTimeField(read_only=True)
    finished_at = serializers.DateTimeField(read_only=True, allow_null=True)


class BacktestSerializer(BacktestSummarySerializer):
    """A run with the document that it ran, and what it found: amounts in whole nano-USD, latencies in ms."""

    document = DocumentField(read_only=True)
    result = serializers.DictField(
        read_only=True,
        allow_null=True,
        help_text="null until the run is done. Its members: billing/backtest_results.py.",
    )


class StartBacktestSerializer(StrictSerializer):
    """What runs, over whose requests, over how many of the last days."""

    traffic_policy_id = row_id(
        required=False,
        allow_null=True,
        help_text="null: the policy's own requests; when it has none, those of the policy that its tenants use most.",
    )

    version = serializers.IntegerField(
        min_value=1, max_value=2**31 - 1, required=False, allow_null=True, help_text="null: the draft."
    )
    days = serializers.IntegerField(min_value=1, max_value=MAX_DAYS, default=DEFAULT_DAYS)


class BacktestsView(CollectionView):
    tag = "backtests"
    location = "/api/v1/backtests"
    queryset = Backtest.objects.select_related("policy", "version", "traffic").defer("document", "result")
    serializer_class = BacktestSummarySerializer
    is_newest_first = True
    operations = {
        "GET": Operation("list_backtests", "List the backtests of a policy", READ),
        "POST": Operation("start_backtest", "Start a backtest", EDIT_POLICIES),
    }
    sent = {"POST": StartBacktestSerializer}

    def get(self, request: Request, **kwargs: Any) -> Response:
        """Newest first, without documents and results."""
        policy = self.find_row(of=Policy.objects.all())
        return self.show_page(self.get_queryset().filter(policy=policy))

    def post(self, request: Request, pk: int) -> Response:
        """Run the draft, or a version, over recorded requests. A policy has one run at a time; watch its address."""
        policy: Policy = self.find_row(of=Policy.objects.select_related("draft", "live_version"))
        fields = self.read_body(StartBacktestSerializer)
        number = fields.get("version")
        if number is None:
            document = draft_of(policy).document
        else:
            version = PolicyVersion.objects.filter(policy=policy, number=number).first()
            if version is None:
                raise invalid("version", f"{policy} has no version {number}.")
            document = version.document
        source_id = fields.get("traffic_policy_id")
        run = start_backtest(
            policy=policy,
            document=document,
            days=fields["days"],
            actor=self.actor,
            traffic=None
            if source_id is None
            else find_named(Policy.objects.all(), source_id, path="traffic_policy_id"),
        )
        return self.show_added(self.reread(run))


class BacktestView(ManagementView):
    tag = "backtests"
    queryset = Backtest.objects.select_related("policy", "version", "traffic")
    serializer_class = BacktestSerializer
    operations = {"GET": Operation("get_backtest", "Read a backtest", READ)}

    def get(self, request: Request, pk: int) -> Response:
        """How far it is, and, once it is done, what it found."""
        return self.show(self.find_row())


class BacktestCancellationView(ManagementView):
    tag = "backtests"
    queryset = Backtest.objects.select_related("policy", "version", "traffic")
    serializer_class = BacktestSerializer
    operations = {"POST": Operation("cancel_backtest", "Cancel a backtest", EDIT_POLICIES)}
    takes_no_body = True

    def post(self, request: Request, pk: int) -> Response:
        """End a run that waits, and tell one that runs to stop (202). One that is over stays as it is."""
        run = self.find_row()
        was_active = cancel_backtest(run=run, actor=self.actor)
        run.refresh_from_db()
        is_stopping = was_active and run.state == BacktestState.RUNNING
        return self.show(run, code=status.HTTP_202_ACCEPTED if is_stopping else status.HTTP_200_OK)
