"""How far has each journal segment been read, and which requests are still open? Tables of the ingester."""

from __future__ import annotations

from django.db import models


class JournalCursor(models.Model):
    """Bytes of one segment that are ingested; moved in the same transaction as the records."""

    worker = models.CharField(max_length=80)
    segment = models.PositiveIntegerField()
    offset_bytes = models.BigIntegerField(default=0)
    updated_at = models.DateTimeField(auto_now=True)

    class Meta:
        constraints = [models.UniqueConstraint(fields=["worker", "segment"], name="journal_cursor_unique")]

    def __str__(self) -> str:
        return f"{self.worker}/{self.segment} @ {self.offset_bytes}"


class OpenIntent(models.Model):
    """A request whose intent line is ingested and whose outcome line is not yet. Deleted by its outcome."""

    id = models.UUIDField(primary_key=True)
    worker = models.CharField(max_length=80, db_index=True)
    line = models.JSONField()

    def __str__(self) -> str:
        return str(self.id)
