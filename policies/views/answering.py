"""How do the console's form pages answer? The few steps that all of them share.

Pure, except: Writes: flash messages.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any, Concatenate, ParamSpec, TypeVar

from django.contrib import messages
from django.db import transaction
from django.db.models import Model, QuerySet
from django.http import HttpRequest, HttpResponse, QueryDict
from django.shortcuts import redirect, render
from django.views.decorators.http import require_http_methods

from policies.errors import ConfigurationError
from policies.forms import ConsoleForm
from policies.row_changes import held

P = ParamSpec("P")
Row = TypeVar("Row", bound=Model)


def edits_a_row(
    view: Callable[Concatenate[HttpRequest, P], HttpResponse],
) -> Callable[Concatenate[HttpRequest, P], HttpResponse]:
    """For a form over a row: what is sent is compared with the row and saved in one transaction.

    The view reads the row through `rows_to_edit`.
    """

    @require_http_methods(["GET", "HEAD", "POST"])
    @wraps(view)
    def run(request: HttpRequest, /, *args: P.args, **kwargs: P.kwargs) -> HttpResponse:
        if request.method != "POST":
            return view(request, *args, **kwargs)
        with transaction.atomic():
            return view(request, *args, **kwargs)

    return run


def rows_to_edit(request: HttpRequest, rows: QuerySet[Row]) -> QuerySet[Row]:
    """The rows among which the form's one is; held for the form that is sent."""
    return held(rows) if request.method == "POST" else rows


def posted(request: HttpRequest) -> QueryDict | None:
    """What was sent, None when the page is only opened: an empty form that is sent has mistakes to show."""
    return request.POST if request.method == "POST" else None


def show_form(
    request: HttpRequest,
    form: ConsoleForm,
    *,
    title: str,
    back: tuple[str, str],
    submit: str = "Save",
    intro: str = "",
) -> HttpResponse:
    """Show a form on a page of its own; `back` is the (title, address) that it came from."""
    context = {
        "form": form,
        "title": title,
        "back_title": back[0],
        "back_url": back[1],
        "submit": submit,
        "intro": intro,
    }
    return render(request, "partials/form_page.html", context, status=422 if form.errors else 200)


def is_confirmed(request: HttpRequest, name: str) -> bool:
    """Say whether the name of what will stop was typed; tell the person when it was not."""
    if request.POST.get("confirm_name", "").strip() == name:
        return True
    messages.error(request, f"Nothing changed: the name typed was not {name}.")
    return False


def tell_refusal(request: HttpRequest, refusal: ConfigurationError) -> None:
    """Say why nothing changed."""
    messages.error(request, f"Nothing changed: {str(refusal).removesuffix('.')}.")


def run_and_return(
    request: HttpRequest, verb: Callable[[], Any], *, done: str, to: str, pk: int | None = None
) -> HttpResponse:
    """Call a verb, say `done` or why it was refused, and go back to a page."""
    try:
        verb()
    except ConfigurationError as refusal:
        tell_refusal(request, refusal)
    else:
        messages.success(request, done)
    return redirect(to) if pk is None else redirect(to, pk=pk)
