"""Which views of spend have a name, and who gets them by mail? Pages to save, open, share, delete, schedule and send.

Reads: saved_view, scheduled_mail, mail_delivery. Writes: through `billing.saved_views` and `billing.scheduled_mail`.
"""

from __future__ import annotations

from typing import Any, Final
from urllib.parse import parse_qsl, urlencode

from django.contrib import messages
from django.contrib.auth.models import User
from django.core.exceptions import PermissionDenied
from django.db.models import Count, Q, QuerySet
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.urls import reverse
from django.utils import timezone
from django.views.decorators.http import require_http_methods, require_POST, require_safe

from billing import saved_views, scheduled_mail
from billing.models import MailDelivery, SavedView, ScheduledMail
from billing.notifying import is_mail_set_up
from billing.saved_view_forms import WEEKDAYS, ScheduleForm, ViewForm
from billing.spend_questions import PERIODS, read_question
from policies.permissions import Ability, actor_name, may, needs
from policies.views.answering import edits_a_row, posted, rows_to_edit, run_and_return, show_form

DELIVERIES_SHOWN: Final = 20
GROUPING_WORDS: Final = {"key": "API key"}


@needs(Ability.READ)
@require_safe
def list_views(request: HttpRequest) -> HttpResponse:
    """The person's own views and those that are shared; what was deleted lately can be brought back."""
    me = _person(request)
    views = saved_views.visible_to(me).annotate(
        mail_count=Count("mails", filter=Q(mails__is_enabled=True), distinct=True)
    )
    deleted = SavedView.objects.filter(
        Q(owner=me) | Q(is_shared=True), deleted_at__gt=timezone.now() - saved_views.UNDO
    ).select_related("owner")
    context = {
        "rows": [{"view": view, "address": address_of(view)} for view in views],
        "deleted": [view for view in deleted if saved_views.may_change(me, view)],
        "me": me,
    }
    return render(request, "saved_views/list.html", context)


@needs(Ability.READ)
@require_safe
def show_view(request: HttpRequest, pk: int) -> HttpResponse:
    """One view: its address, its mails and what became of them."""
    view = _view(request, pk)
    now = timezone.now()
    schedules = view.mails.select_related("owner")
    context = {
        "view": view,
        "words": _question_in_words(view),
        "address": address_of(view),
        "may_change": saved_views.may_change(_person(request), view),
        "schedules": [
            {
                "schedule": one,
                "when": _words(one),
                "next_at": scheduled_mail.times_of(one).following(now) if one.is_enabled else None,
            }
            for one in schedules
        ],
        "deliveries": MailDelivery.objects.filter(schedule__view=view)[:DELIVERIES_SHOWN],
        "is_mail_set_up": is_mail_set_up(),
    }
    return render(request, "saved_views/detail.html", context)


@needs(Ability.READ)
@require_http_methods(["GET", "HEAD", "POST"])
def create_view(request: HttpRequest) -> HttpResponse:
    """Give a name to the address in `?page=&query=`."""
    page = request.GET.get("page", SavedView.Page.SPEND)
    query = request.GET.get("query", "")
    if page not in SavedView.Page.values:
        raise Http404
    form = ViewForm(posted(request))
    if request.method == "POST" and form.is_valid():
        data = form.cleaned_data
        view = form.run(
            lambda: saved_views.save_view(
                owner=_person(request), page=page, query=query, now=timezone.now(), **data
            )
        )
        if view is not None:
            messages.success(request, f"{view.name} is saved.")
            return redirect("saved-view", pk=view.pk)
    return show_form(
        request,
        form,
        title="Save this view",
        back=(str(SavedView.Page(page).label), f"{reverse(page)}?{query}"),
        intro="The address is kept, not the numbers: each time you open it, it shows what is true then. Periods such"
        " as the last 7 days move with the calendar.",
    )


@needs(Ability.READ)
@edits_a_row
def change_view(request: HttpRequest, pk: int) -> HttpResponse:
    """Rename a view, share it or keep it for its owner."""
    view = _view(request, pk, to_change=True, rows=rows_to_edit(request, SavedView.objects.all()))
    form = ViewForm(posted(request), stored={"name": view.name, "is_shared": view.is_shared})
    if request.method == "POST" and form.is_valid():
        data = form.cleaned_data
        changed = form.run(lambda: saved_views.change_view(view=view, actor=actor_name(request), **data))
        if changed is not None:
            return redirect("saved-view", pk=pk)
    return show_form(
        request, form, title=f"Change {view.name}", back=(view.name, reverse("saved-view", args=[pk]))
    )


@needs(Ability.READ)
@require_POST
def delete_view(request: HttpRequest, pk: int) -> HttpResponse:
    """Take a view away; the list offers to bring it back."""
    view = _view(request, pk, to_change=True)
    saved_views.delete_view(view=view, actor=actor_name(request), now=timezone.now())
    messages.success(request, f"{view.name} is deleted; bring it back below if that was a mistake.")
    return redirect("saved-views")


@needs(Ability.READ)
@require_POST
def restore_view(request: HttpRequest, pk: int) -> HttpResponse:
    """Bring a deleted view back."""
    view = get_object_or_404(SavedView, pk=pk, deleted_at__isnull=False)
    if not saved_views.may_change(_person(request), view):
        raise PermissionDenied("change a view of somebody else")
    return run_and_return(
        request,
        lambda: saved_views.restore_view(view=view, actor=actor_name(request)),
        done=f"{view.name} is back.",
        to="saved-views",
    )


@needs(Ability.MAIL_REPORTS)
@require_http_methods(["GET", "HEAD", "POST"])
def create_schedule(request: HttpRequest, pk: int) -> HttpResponse:
    """Send a view by mail from now on."""
    view = _view(request, pk)
    form = ScheduleForm(posted(request), initial={"recipients": _person(request).email})
    if request.method == "POST" and form.is_valid():
        data = form.cleaned_data
        schedule = form.run(
            lambda: scheduled_mail.make_schedule(
                view=view, owner=_person(request), now=timezone.now(), **data
            )
        )
        if schedule is not None:
            messages.success(request, "The mail is scheduled.")
            return redirect("saved-view", pk=pk)
    return show_form(
        request,
        form,
        title=f"Send {view.name} by mail",
        back=(view.name, reverse("saved-view", args=[pk])),
        submit="Schedule",
        intro="The whole table is attached, its first rows are in the text. It is sent only for as long as you may see"
        " the view yourself.",
    )


@needs(Ability.MAIL_REPORTS)
@require_POST
def pause_schedule(request: HttpRequest, pk: int) -> HttpResponse:
    """Stop sending, or go on."""
    schedule = _schedule(request, pk)
    scheduled_mail.pause_schedule(
        schedule=schedule,
        is_enabled=request.POST.get("enabled") == "yes",
        actor=actor_name(request),
        now=timezone.now(),
    )
    return redirect("saved-view", pk=schedule.view_id)


@needs(Ability.MAIL_REPORTS)
@require_POST
def delete_schedule(request: HttpRequest, pk: int) -> HttpResponse:
    """Stop sending for good."""
    schedule = _schedule(request, pk)
    scheduled_mail.delete_schedule(schedule=schedule, actor=actor_name(request))
    messages.success(request, "The mail is not sent any more.")
    return redirect("saved-view", pk=schedule.view_id)


@needs(Ability.MAIL_REPORTS)
@require_POST
def send_now(request: HttpRequest, pk: int) -> HttpResponse:
    """Send a mail now, beside those that are due."""
    schedule = _schedule(request, pk)
    scheduled_mail.send_now(schedule=schedule, actor=actor_name(request), now=timezone.now())
    messages.success(request, "The mail is on its way; reload to see whether the mail server took it.")
    return redirect("saved-view", pk=schedule.view_id)


def address_of(view: SavedView) -> str:
    """Where a view opens."""
    return f"{reverse(view.page)}?{view.query}"


def save_link(page: str, query: str) -> str:
    """Where an address gets a name."""
    return f"{reverse('saved-view-new')}?{urlencode({'page': page, 'query': query})}"


def _person(request: HttpRequest) -> User:
    assert isinstance(request.user, User)
    return request.user


def _view(
    request: HttpRequest, pk: int, *, to_change: bool = False, rows: QuerySet[SavedView] | None = None
) -> SavedView:
    me = _person(request)
    view: SavedView = get_object_or_404(saved_views.visible_to(me, rows), pk=pk)
    if to_change and not saved_views.may_change(me, view):
        raise PermissionDenied("change a view of somebody else")
    return view


def _schedule(request: HttpRequest, pk: int) -> ScheduledMail:
    """A mail of a view that the person sees, if it is theirs or they are an operator."""
    me = _person(request)
    schedule: ScheduledMail = get_object_or_404(
        ScheduledMail.objects.select_related("view", "owner").filter(view__in=saved_views.visible_to(me)),
        pk=pk,
    )
    if schedule.owner_id != me.pk and not may(me, Ability.CONFIGURE):
        raise PermissionDenied("change a mail of somebody else")
    return schedule


def _question_in_words(view: SavedView) -> str:
    """Last month by model, of one tenant."""
    question = read_question(dict(parse_qsl(view.query)), today=timezone.now().date())
    period = question.period
    title = PERIODS.get(period.name, f"{period.first_day} to {period.last_day}")
    by = GROUPING_WORDS.get(question.by, question.by)
    filters = " and ".join(f"one {GROUPING_WORDS.get(name, name)}" for name in question.filters)
    return f"{title} by {by}" + (f", of {filters}" if filters else "")


def _words(schedule: ScheduledMail) -> str:
    days: dict[str, Any] = {
        "daily": "Every day",
        "weekly": f"Every {WEEKDAYS[schedule.weekday]}",
        "monthly": f"On day {schedule.month_day} of every month",
    }
    return f"{days[schedule.rhythm]} at {schedule.hour:02d}:00, {schedule.time_zone}"
