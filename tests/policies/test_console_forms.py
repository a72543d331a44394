"""Does a form refuse in plain words, and say when somebody else changed what it changes, losing neither?"""

from __future__ import annotations

import re
from typing import Any

import pytest
from django.http import QueryDict
from django.utils import timezone

from policies.access_forms import TenantForm
from policies.name_suggestions import SuggestingInput, list_scope_names
from policies.seen_values import list_changed, marks_of
from tests import make
from tests.console_people import operator


def hidden(response: Any) -> str:
    """The marks that the form on a page carries."""
    found = re.search(r'name="seen" value="([^"]*)"', response.content.decode())
    assert found, "the form carries no marks"
    return found[1]


def test_marks_name_what_changed_and_nothing_else() -> None:
    stored = {"name": "demo", "limit": None, "policies": ["b", "a"], "is_enabled": True}
    seen = marks_of(stored)
    assert list_changed(seen, {**stored, "policies": ["a", "b"]}) == []
    assert list_changed(seen, {**stored, "limit": 0, "is_enabled": False}) == ["limit", "is_enabled"]
    assert list_changed("", {**stored, "limit": 5}) == []
    assert list_changed("nonsense : ::", stored) == []


@pytest.mark.django_db
def test_the_second_of_two_editors_is_told_once_and_decides() -> None:
    world = make.world()
    first, second = operator(), operator()
    address = f"/tenants/{world.tenant.pk}/edit"
    typed = {"name": world.tenant.name, "time_zone": "UTC", "allowed_regions": "", "retention_limit": ""}
    opened_by_first, opened_by_second = hidden(first.get(address)), hidden(second.get(address))
    saved = first.post(address, {**typed, "seen": opened_by_first, "time_zone": "Europe/Berlin"})
    assert saved.status_code == 302
    refused = second.post(address, {**typed, "seen": opened_by_second, "allowed_regions": "eu"})
    assert refused.status_code == 422
    assert "Time zone: Europe/Berlin" in refused.content.decode()
    assert 'value="eu"' in refused.content.decode()
    world.tenant.refresh_from_db()
    assert (world.tenant.time_zone, list(world.tenant.allowed_regions)) == ("Europe/Berlin", [])
    again = second.post(address, {**typed, "seen": hidden(refused), "allowed_regions": "eu"})
    assert again.status_code == 302
    world.tenant.refresh_from_db()
    assert (world.tenant.time_zone, list(world.tenant.allowed_regions)) == ("UTC", ["eu"])


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("table", "typed", "theirs", "said", "mine"),
    [
        ("model", {"name": "m"}, {"context_tokens": 7}, "Context tokens: 7", {"description": "mine"}),
        ("tenant", {"name": "t", "time_zone": "UTC", "shadow_percent": "0", "shadow_daily_budget_usd": "0"},
         {"allowed_regions": ["eu"]}, "Allowed regions: eu", {"retention_limit": "none"}),
    ],
)  # fmt: skip
def test_the_back_office_tells_the_second_editor_too(
    table: str, typed: dict[str, str], theirs: dict[str, Any], said: str, mine: dict[str, str]
) -> None:
    world = make.world()
    row: Any = world.tenant if table == "tenant" else world.deployment.model
    client = operator()
    address = f"/admin/policies/{table}/{row.pk}/change/"
    opened = hidden(client.get(address))
    assert marks_of({"name": row.name}) in opened
    type(row).objects.filter(pk=row.pk).update(**theirs)
    sent = {**typed, **mine, "name": row.name, "is_enabled": "on"}
    refused = client.post(address, {**sent, "seen": opened})
    assert refused.status_code == 200
    assert said in refused.content.decode()
    (name,) = mine
    row.refresh_from_db()
    assert getattr(row, name) == ""
    assert client.post(address, {**sent, "seen": hidden(refused)}).status_code == 302
    row.refresh_from_db()
    assert getattr(row, name) == mine[name]


@pytest.mark.django_db
def test_marks_are_no_value_of_the_row() -> None:
    stored = {"name": "demo", "time_zone": "UTC"}
    form = TenantForm(
        QueryDict("name=demo&time_zone=UTC&seen=" + marks_of(stored).replace(" ", "+")), stored=stored
    )
    assert form.is_valid(), form.errors
    assert "seen" not in form.cleaned_data


@pytest.mark.django_db
def test_a_refused_field_leads_to_its_error() -> None:
    """What `aria-describedby` names is there, so that a screen reader reads the error with the field."""
    page = operator().post("/budgets/new", {"scope": "", "limit_usd": "-1"}).content.decode()
    named = [name for names in re.findall(r'aria-describedby="([^"]+)"', page) for name in names.split()]
    assert "id_scope_error" in named
    assert [name for name in named if f'id="{name}"' not in page] == []


@pytest.mark.django_db
def test_a_name_that_cannot_be_is_refused_in_plain_words() -> None:
    page = operator().post("/tenants/new", {"name": "two words", "time_zone": "UTC"}).content.decode()
    assert "no spaces" in page
    assert "slug" not in page


@pytest.mark.django_db
def test_a_field_for_a_name_offers_what_is_in_use_and_nothing_as_markup() -> None:
    world, gone = make.world(), make.world()
    gone.key.revoked_at = timezone.now()
    gone.key.save()
    names = list_scope_names()
    assert {world.tenant.name, str(world.project), str(world.key)} <= set(names)
    assert str(gone.key) not in names
    html = SuggestingInput(lambda: ['a"b', "<i>"]).render("name", None, {"id": "id_name"})
    assert 'list="id_name-names"' in html
    assert '<option value="a&quot;b"></option><option value="&lt;i&gt;"></option>' in html
