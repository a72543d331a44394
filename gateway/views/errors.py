"""What does somebody see when a page cannot be shown? 403, 404 and 500 of the console.

Pure, over the templates.
"""

from __future__ import annotations

from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.template import loader

from policies.permissions import list_operators


def forbidden(request: HttpRequest, exception: Exception | None = None) -> HttpResponse:
    """Say what was not allowed and who can help."""
    context = {"ability": str(exception or ""), "operators": list_operators()}
    return render(request, "403.html", context, status=403)


def not_found(request: HttpRequest, exception: Exception | None = None) -> HttpResponse:
    """Say that the address leads nowhere."""
    return render(request, "404.html", status=404)


def failed(request: HttpRequest) -> HttpResponse:
    """Say that it is our fault. Touches neither the database nor the menu: one of them may be what failed."""
    return HttpResponse(loader.render_to_string("500.html"), status=500)
