"""Who guessed a password, or a management token, wrong of late? Table: sign_in_tries."""

from __future__ import annotations

from django.db import models


class SignInTries(models.Model):
    """Tries of one name, or of tokens, from one address that led nowhere. `who_hash` tells none of these: people type
    passwords as names.

    `policies.sign_in_tries` is the only writer. Nothing of it is configuration, so nothing of it is in the audit log.
    """

    who_hash = models.CharField(max_length=64, primary_key=True)
    count = models.PositiveSmallIntegerField()
    ends_at = models.DateTimeField(db_index=True)

    class Meta:
        verbose_name_plural = "sign-in tries"

    def __str__(self) -> str:
        return f"{self.count} tries"
