"""Who is at the console? Sign in and out.

Calls: Django's own authentication; tries are limited (`policies.sign_in_tries`).
"""

from __future__ import annotations

from django.contrib.auth.forms import AuthenticationForm
from django.contrib.auth.views import LoginView
from django.core.exceptions import PermissionDenied, ValidationError
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.urls import reverse
from django.utils import timezone

from policies.sign_in_tries import forget_tries, take_try


def address_of(request: HttpRequest) -> str:
    """Where a request comes from; behind a proxy, that is the proxy."""
    return str(request.META.get("REMOTE_ADDR", ""))


class SignInForm(AuthenticationForm):
    """Name and password, with sentences that say what to do."""

    error_messages = {
        "invalid_login": "This name and password do not belong together. Check both; the password knows capitals.",
        "inactive": "This account is disabled. An operator can enable it.",
        "blocked": "Too many tries for this name. Wait five minutes; an operator can give you a new password.",
    }

    def clean(self) -> dict[str, object]:
        username = str(self.cleaned_data.get("username", ""))
        if self.request is not None and username and self.cleaned_data.get("password"):
            address = address_of(self.request)
            if not take_try(username=username, address=address, now=timezone.now()):
                raise ValidationError(self.error_messages["blocked"], code="blocked")
        return super().clean()


def enter_back_office(request: HttpRequest) -> HttpResponse:
    """Where the back office sends who may not enter: its own sign-in page would count no failed tries."""
    if request.user.is_authenticated:
        # The sign-in page would send them back here.
        raise PermissionDenied("open the back office")
    return redirect(f"{reverse('sign-in')}?{request.META.get('QUERY_STRING', '')}")


class SignIn(LoginView):
    template_name = "registration/sign_in.html"
    authentication_form = SignInForm
    redirect_authenticated_user = True

    def form_valid(self, form: AuthenticationForm) -> HttpResponse:
        # As it was typed: tries are counted under that.
        forget_tries(username=str(form.cleaned_data["username"]), address=address_of(self.request))
        return super().form_valid(form)

    def form_invalid(self, form: AuthenticationForm) -> HttpResponse:
        response = super().form_invalid(form)
        if any(error.code == "blocked" for error in form.non_field_errors().as_data()):
            response.status_code = 429
        return response
