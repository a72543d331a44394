"""What did it cost to find out how good models are? Evaluation sets and shadow requests.

Reads: evidence, shadow_spend. Shadow requests count whether or not they told anything, running ones at the most they
can cost: so savings that are net of this are never overstated.
"""

from __future__ import annotations

import datetime as dt

from django.db import connection

_COST = """
SELECT (SELECT coalesce(sum(cost_nanousd), 0) FROM billing_evidence
        WHERE source <> 'shadow' AND at >= %(begins_at)s AND at < %(ends_at)s)
     + (SELECT coalesce(sum(spent_nanousd), 0) FROM billing_shadowspend
        WHERE day >= %(first_day)s AND day <= %(last_day)s)
"""


def learning_nanousd(first_day: dt.date, last_day: dt.date = dt.date(9998, 12, 31)) -> int:
    """Return what learning cost on these UTC days, for all tenants together."""
    midnight = dt.time(tzinfo=dt.UTC)
    with connection.cursor() as cursor:
        cursor.execute(
            _COST,
            {
                "begins_at": dt.datetime.combine(first_day, midnight),
                "ends_at": dt.datetime.combine(last_day + dt.timedelta(days=1), midnight),
                "first_day": first_day,
                "last_day": last_day,
            },
        )
        (total,) = cursor.fetchone()
    return int(total)
