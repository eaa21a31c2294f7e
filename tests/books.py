"""Balance of the books of a table of counters."""


def balance(table: dict[str, int]) -> int:
    """Return by how much a table of counters is out of balance (docs/rules.md, section 7); always 0."""
    accounted = table["pgpromote_success"] + table["pghotd_in_flight"]
    accounted += sum(v for k, v in table.items() if k.startswith(("pghotd_refused_", "pghotd_failed_")))
    return table["pghotd_taken"] - accounted
