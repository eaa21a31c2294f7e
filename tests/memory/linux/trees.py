"""Trees of /sys and /proc of fake machines."""

from pathlib import Path


def write(root: Path, path: str, text: str) -> None:
    file = root / path
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)


def machine(
    root: Path,
    nodes: dict[int, list[int]],
    *,
    cpus: str = "0",
    tiers: dict[int, str] | None = None,
    distances: dict[int, list[int]] | None = None,
    speeds: dict[int, tuple[int, int]] | None = None,
    offline: tuple[int, ...] = (),
    block_size: int = 128 << 20,
    total_kb: dict[int, int] | None = None,
    hotplug: bool = True,
) -> str:
    """Make a /sys with `nodes` by nid and their memory blocks; the rest as the kernel writes it; return its path."""
    online = ",".join(map(str, sorted(nodes)))
    write(root, "devices/system/node/online", f"{online}\n")
    write(root, "devices/system/node/has_cpu", f"{cpus}\n")
    if hotplug:
        write(root, "devices/system/memory/block_size_bytes", f"{block_size:x}\n")
    for nid, blocks in nodes.items():
        base = f"devices/system/node/node{nid}"
        row = (distances or {}).get(nid) or [10 if other == nid else 20 for other in sorted(nodes)]
        write(root, f"{base}/distance", " ".join(map(str, row)) + "\n")
        total = (total_kb or {}).get(nid)
        write(root, f"{base}/meminfo", f"Node {nid} MemTotal: {total:>14} kB\n" if total else "")
        for block in blocks:
            write(root, f"devices/system/memory/memory{block}/state", "offline\n" if block in offline else "online\n")
            (root / base / f"memory{block}").symlink_to(f"../../memory/memory{block}")
        if speeds and nid in speeds:
            latency, bandwidth = speeds[nid]
            write(root, f"{base}/access0/initiators/read_latency", f"{latency}\n")
            write(root, f"{base}/access0/initiators/read_bandwidth", f"{bandwidth}\n")
    for tier, nids in (tiers or {}).items():
        write(root, f"devices/virtual/memory_tiering/memory_tier{tier}/nodelist", f"{nids}\n")
    write(root, "devices/virtual/memory_tiering/uevent", "")
    return str(root)
