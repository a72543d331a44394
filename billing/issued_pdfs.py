"""Which bytes are a statement's PDF? Those that were written when it was issued, for good.

Writes: issued_pdf, and the hash in the statement's own row. Reads: issued_pdf.
"""

from __future__ import annotations

import hashlib

from billing.models import Invoice, IssuedPdf
from billing.statement_document import StatementDocument
from billing.statement_pdf import write_pdf


def keep_pdf(row: Invoice, document: StatementDocument) -> None:
    """Write a statement's PDF and keep it, with its hash. Saves the row. Call where it is issued."""
    content = write_pdf(document)
    row.pdf_sha256 = hashlib.sha256(content).hexdigest()
    row.save()
    IssuedPdf.objects.create(invoice=row, content=content)


def find_pdf(row: Invoice) -> bytes | None:
    """The PDF as it was issued; None for drafts, and for what was issued before PDFs were kept."""
    kept = IssuedPdf.objects.filter(invoice=row).values_list("content", flat=True).first()
    return None if kept is None else bytes(kept)
