"""Which page or control-plane call answers which path? The data plane's paths are in dataplane/app.py."""

from django.contrib import admin
from django.urls import path

urlpatterns = [
    path("admin/", admin.site.urls),
]
