"""Compose what `pghotctl status` and `pghotctl top` show: on one screen, what a person wants to know first."""

from collections.abc import Mapping

from pghotd.ctl.client import Client

_PAGE = 4096


def status(client: Client) -> str:
    """Return the daemon's standing as lines of text."""
    standing, total = client.values("status"), client.counters("vmstat")
    return "\n".join([*_head(client, standing), "", *_nodes(client), "", *_totals(total), *_model(client)]) + "\n"


class Top:
    """Compose screens with rates: what changed since the one before."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._before: dict[str, int] | None = None
        self._at = 0.0

    def screen(self, now: float) -> str:
        """Return the next screen; `now` is in seconds."""
        client = self._client
        total = client.counters("vmstat")
        lines = [*_head(client, client.values("status")), "", *_nodes(client), ""]
        elapsed = now - self._at
        before = self._before
        self._before, self._at = total, now
        if before is None:
            lines += ["the rates follow with the next screen"]
        else:
            lines += [f"{'each second':<34}{'now':>12}{'in all':>16}"]
            for name, value in total.items():
                if value or before[name]:
                    lines.append(f"{name:<34}{(value - before[name]) / elapsed:>12.0f}{value:>16}")
        return "\n".join([*lines, *_model(client)]) + "\n"


def _head(client: Client, standing: Mapping[str, str]) -> list[str]:
    version = client.value("version").split()[1]
    state = standing["state"]
    if state == "paused":
        state += f" ({standing['pause_reason']})"
    sources = [_source(client, name) for name in standing["sources"].split() if name != "-"]
    return [
        f"pghotd {version}  {state} for {duration(int(standing['uptime_ms']) // 1000)}, "
        f"{standing['mode']} mode on the {standing['backend']} backend",
        f"sources    {', '.join(sources) or 'inject only'}",
        f"own cost   {int(standing['cpu_ppm']) / 10_000:.1f} % of a core, {size(int(standing['rss_bytes']))} resident, "
        f"{size(int(standing['record_bytes']))} of records",
    ]


def _source(client: Client, name: str) -> str:
    off = "" if client.value(f"sources/{name}/enabled") == "1" else ", off"
    return f"{name} ({client.value(f'sources/{name}/kind')}{off})"


def _nodes(client: Client) -> list[str]:
    lines = [f"{'node':<6}{'tier':<7}{'size':>10}{'free':>10}  promoted to / kmigrated"]
    for name in client.names("nodes"):
        tier = client.value(f"nodes/{name}/tier")
        meminfo = {
            line.split()[2].rstrip(":"): int(line.split()[3]) * 1024
            for line in client.text(f"nodes/{name}/meminfo").splitlines()
        }
        if tier == "lower":
            task = client.values(f"nodes/{name}/kmigrated")
            doing = f"{task['state']}, {task['in_flight']} pages in flight, {task['passes']} passes"
        else:
            counters = client.counters(f"nodes/{name}/vmstat")
            doing = f"{size(counters['pgpromote_success'] * _PAGE)} in, "
            doing += f"{size((counters['pgdemote_kswapd'] + counters['pgdemote_direct']) * _PAGE)} out"
        nid = name.removeprefix("node")
        lines.append(f"{nid:<6}{tier:<7}{size(meminfo['MemTotal']):>10}{size(meminfo['MemFree']):>10}  {doing}")
    return lines


def _totals(total: Mapping[str, int]) -> list[str]:
    refused, failed = reasons(total, "pghotd_refused_"), reasons(total, "pghotd_failed_")
    kinds = reasons(total, "pghot_recorded_")
    kinds.pop("accesses", None)
    return [
        f"recorded   {total['pghot_recorded_accesses']} accesses; reports: {listed(kinds)}",
        f"promoted   {total['pgpromote_success']} pages ({size(total['pgpromote_success'] * _PAGE)}), "
        f"{total['pghotd_in_flight']} in flight, of {total['pghotd_taken']} taken",
        f"refused    {sum(refused.values())} pages: {listed(refused)}",
        f"failed     {sum(failed.values())} pages: {listed(failed)}",
    ]


def _model(client: Client) -> list[str]:
    if "model" not in client.names(""):
        return []
    felt = {name: int(value) for name, value in client.values("model/stat").items()}
    accesses = felt["accesses_top"] + felt["accesses_lower"]
    return [
        f"felt       {felt['hit_ratio_ppm'] / 10_000:.1f} % of {accesses} accesses hit the top tier, "
        f"{felt['mean_latency_ns']} ns on average",
    ]


def reasons(table: Mapping[str, int], prefix: str) -> dict[str, int]:
    """Return the counters that begin with `prefix` and are not 0, by what follows it."""
    return {name.removeprefix(prefix): value for name, value in table.items() if name.startswith(prefix) and value}


def listed(values: Mapping[str, int]) -> str:
    """Return `name value, name value`, the largest first."""
    ordered = sorted(values.items(), key=lambda item: -item[1])
    return ", ".join(f"{name} {value}" for name, value in ordered) or "none"


def size(number: int) -> str:
    """Return a size as a person reads it."""
    amount = float(number)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if amount < 1024:
            return f"{amount:.0f} {unit}" if unit == "B" or amount >= 100 else f"{amount:.1f} {unit}"
        amount /= 1024
    return f"{amount:.1f} TiB"


def duration(seconds: int) -> str:
    """Return a duration as a person reads it."""
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= length:
            return f"{seconds / length:.1f} {unit}"
    return f"{seconds} s"
