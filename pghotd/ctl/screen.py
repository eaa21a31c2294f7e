"""Screens of `pghotctl status` and `pghotctl top`, with the most important figures first."""

from collections.abc import Mapping

from rich.console import Group, RenderableType
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from pghotd.ctl.status import NodeStatus, Status, advice, duration, reasons, size
from pghotd.geometry import PAGE_SIZE

#: Number of owners that `top` shows.
_OWNERS = 8


def status(now: Status) -> str:
    """Return the daemon's status as lines of text."""
    lines = [*_head(now), "", *_nodes(now), "", *_totals(now.counters), *_model(now), *advice(now)]
    return "\n".join(lines) + "\n"


def top(now: Status, before: Status | None, elapsed_s: float) -> RenderableType:
    """Return a screen with the rates of what changed since `before`; without it there are no rates yet."""
    grown = {} if before is None else {name: now.counters[name] - before.counters[name] for name in now.counters}

    def rate(name: str) -> str:
        return f"{grown[name] / elapsed_s:,.0f}/s" if name in grown else "-"

    flows = Table(title="pages", title_justify="left", expand=True)
    for column in ("", "now", "total"):
        flows.add_column(column, justify="left" if not column else "right")
    for name, what in (
        ("pghot_recorded_accesses", "accesses recorded"),
        ("pghotd_taken", "taken"),
        ("pgpromote_success", "promoted"),
        ("pgdemote_kswapd", "demoted by kswapd"),
        ("pgdemote_direct", "demoted directly"),
    ):
        flows.add_row(what, rate(name), f"{now.counters[name]:,}")
    for prefix, what in (("pghotd_refused_", "refused: "), ("pghotd_failed_", "failed: ")):
        for reason, value in reasons(now.counters, prefix).items():
            flows.add_row(f"{what}{reason}", rate(f"{prefix}{reason}"), f"{value:,}")
    parts: list[RenderableType] = [Text("\n".join(_head(now))), _node_table(now, before, elapsed_s)]
    comments = [*_model(now), *advice(now)]
    if comments:
        parts.append(Panel("\n".join(comments), title="summary", title_align="left"))
    # The longest comes last, since a small screen ends before it does.
    parts.append(flows)
    if now.owners or now.hot_owners:
        parts.insert(-1, _owner_table(now, before, elapsed_s))
    return Group(*parts)


def _node_table(now: Status, before: Status | None, elapsed_s: float) -> Table:
    table = Table(title="nodes", title_justify="left", expand=True)
    for column in ("node", "tier", "size", "free", "hot", "in", "out", "kmigrated"):
        table.add_column(column, justify="left" if column in ("tier", "kmigrated") else "right")
    earlier = {} if before is None else {node.nid: node for node in before.nodes}
    threshold = now.tunables["freq_threshold"]
    for node in now.nodes:
        old = earlier.get(node.nid)

        def rate(*names: str, node: NodeStatus = node, old: NodeStatus | None = old) -> str:
            if old is None:
                return "-"
            pages = sum(node.counters[name] - old.counters[name] for name in names)
            return f"{size(pages * PAGE_SIZE / elapsed_s)}/s"

        lower = node.tier == "lower"
        table.add_row(
            str(node.nid),
            Text(node.tier, style="yellow" if lower else "green"),
            size(node.bytes_total),
            size(node.bytes_free),
            size(node.hot_pages.get(threshold, 0) * PAGE_SIZE) if lower else "",
            "" if lower else rate("pgpromote_success"),
            rate("pghotd_taken") if lower else rate("pgdemote_kswapd", "pgdemote_direct"),
            f"{node.kmigrated['state']}, {node.kmigrated['in_flight']} in flight" if node.kmigrated else "",
        )
    return table


def _owner_table(now: Status, before: Status | None, elapsed_s: float) -> Table:
    table = Table(title="owners", title_justify="left", expand=True)
    table.add_column("memory cgroup")
    table.add_column("of the hottest pages", justify="right")
    table.add_column("promoted now", justify="right")
    table.add_column("total", justify="right")
    hot = now.hot_owners
    ranked = sorted({**now.owners, **hot}, key=lambda one: (-hot.get(one, 0), -now.owners.get(one, 0)))
    for owner in ranked[:_OWNERS]:
        pages = now.owners.get(owner, 0)
        grown = "-" if before is None else f"{size((pages - before.owners.get(owner, 0)) * PAGE_SIZE / elapsed_s)}/s"
        table.add_row(owner, f"{hot.get(owner, 0):,}", grown, size(pages * PAGE_SIZE))
    return table


def _head(now: Status) -> list[str]:
    given = now.status
    state = given["state"]
    if state == "paused":
        state += f" ({given['pause_reason']})"
    sources = [f"{name} ({stat['kind']}{_works(stat)})" for name, stat in now.sources.items()]
    lines = [
        f"pghotd {now.version}  {state} for {duration(int(given['uptime_ms']) // 1000)}, "
        f"{given['mode']} mode on the {given['backend']} backend",
        f"sources    {', '.join(sources) or 'inject only'}",
        f"own cost   {int(given['cpu_ppm']) / 10_000:.1f} % of a core, {size(int(given['rss_bytes']))} resident, "
        f"{size(int(given['record_bytes']))} of records",
    ]
    if given.get("dry_run") == "1":
        lines.append("dry run    nothing is moved")
    if given.get("left_out_reason", "-") != "-":
        lines.append(f"memory     {given['left_out_reason']}")
    if given.get("unmatched", "-") != "-":
        lines.append(f"unmatched  no matching process for 30 s or longer: {given['unmatched']}")
    return lines


def _works(stat: Mapping[str, str]) -> str:
    """Return what keeps a source from reporting everything, empty if nothing does."""
    if stat["enabled"] != "1":
        return ", off"
    works = {"yes": "", "partly": ", works partly", "no": ", does not work"}[stat["works"]]
    return works and f"{works}: {stat['why']}"


def _nodes(now: Status) -> list[str]:
    lines = [f"{'node':<6}{'tier':<7}{'size':>10}{'free':>10}  promoted to / kmigrated"]
    for node in now.nodes:
        if node.kmigrated:
            task = node.kmigrated
            doing = f"{task['state']}, {task['in_flight']} pages in flight, {task['passes']} passes"
        else:
            doing = f"{size(node.counters['pgpromote_success'] * PAGE_SIZE)} in, "
            doing += f"{size((node.counters['pgdemote_kswapd'] + node.counters['pgdemote_direct']) * PAGE_SIZE)} out"
        total, free = size(node.bytes_total), size(node.bytes_free)
        lines.append(f"{node.nid:<6}{node.tier:<7}{total:>10}{free:>10}  {doing}")
    return lines


def _totals(total: Mapping[str, int]) -> list[str]:
    refused, failed = reasons(total, "pghotd_refused_"), reasons(total, "pghotd_failed_")
    kinds = reasons(total, "pghot_recorded_")
    kinds.pop("accesses", None)
    return [
        f"recorded   {total['pghot_recorded_accesses']} accesses; reports: {listed(kinds)}",
        f"promoted   {total['pgpromote_success']} pages ({size(total['pgpromote_success'] * PAGE_SIZE)}), "
        f"{total['pghotd_in_flight']} in flight, of {total['pghotd_taken']} taken",
        f"refused    {sum(refused.values())} pages: {listed(refused)}",
        f"failed     {sum(failed.values())} pages: {listed(failed)}",
    ]


def _model(now: Status) -> list[str]:
    model = now.model
    if not model:
        return []
    accesses = model["accesses_top"] + model["accesses_lower"]
    return [
        f"hit ratio  {model['hit_ratio_ppm'] / 10_000:.1f} % of {accesses} accesses, "
        f"{model['mean_latency_ns']} ns on average",
    ]


def listed(values: Mapping[str, int]) -> str:
    """Return `name value, name value`, in the order given."""
    return ", ".join(f"{name} {value}" for name, value in values.items()) or "none"
