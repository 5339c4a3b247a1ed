"""What the benchmark prints, and its page with charts. Ratios above 1: Tenon is faster."""
import html
import math
import statistics

TITLES = {
    "gemm const": "matrix products, B constant (peers: their packed forms)",
    "gemm var": "matrix products, both operands at run time",
    "conv": "convolutions, each program in its own layouts",
    "conv plain": "convolutions, row-major in and out",
    "model": "whole models",
    "model int8": "quantised models (QDQ)",
}


TINY = "on one pixel"  # below a microsecond: reported, but left out of the means over all


def geomean(values):
    values = [v for v in values if v and v > 0 and math.isfinite(v)]  # a difference of two times below what can be told may be negative
    return math.exp(statistics.fmean(math.log(v) for v in values)) if values else None


def title(kind):
    """Of a kind such as "conv" or "model, 2 threads"."""
    name, _, more = kind.partition(", ")
    return TITLES.get(name, name) + (", " + more if more else "")


def header(kind):
    return "%s\n%-30s %-12s %10s %8s %6s  %-12s %10s %6s" % (
        title(kind), "case", "class", "Tenon ms", "GFLOP/s", "peak", "best peer", "peer ms", "ratio")


def number(x, form):
    return form % x if x is not None and math.isfinite(x) else "-"


def line(row):
    t = row["peers"].get("tenon", {})
    best = row["peers"].get(row.get("best"), {})
    text = "%-30s %-12s %10s %8s %6s  %-12s %10s %6s" % (
        row["name"], row["group"], number(t.get("min_ms"), "%.4f"), number(t.get("gflops"), "%.1f"),
        number(t.get("of_peak", None) and 100 * t["of_peak"], "%.0f%%"), row.get("best") or "-", number(best.get("min_ms"), "%.4f"),
        number(row.get("ratio"), "%.2f"))
    others = ["%s %.2f" % (n, i["ratio"]) for n, i in row["peers"].items() if "ratio" in i and n != row.get("best")]
    if others:
        text += "  (" + ", ".join(others) + ")"
    if t.get("difference") is not None and row["group"] in ("model", "int8"):
        text += "  diff %.1e" % t["difference"]
    if "aot_ratio" in row:
        text += "  object/JIT %.3f" % row["aot_ratio"]
    for name, error in row["errors"].items():
        text += "\n    %s: %s" % (name, error)
    made = row.get("compile")
    if made and "error" in made:
        text += "\n    tenon compile: %s" % made["error"]
    elif made:
        one, two = made["threads_1"], made["threads_2"]
        text += "\n    import to object %.2f s, with two threads %.2f s; peak memory %.0f MB of which weights %.0f MB; arena %.1f MB (live %.1f); %d kernels" % (
            one["total_s"], two["total_s"], one["peak_rss"] / 1e6, made["weights_bytes"] / 1e6, made["arena_bytes"] / 1e6, made["live_peak_bytes"] / 1e6, made["kernels"])
        loads = ["%s %.2f s" % (n, i["load_s"]) for n, i in row["peers"].items() if "load_s" in i]
        text += "\n    load: " + ", ".join(loads)
    return text


def summary(rows):
    """Per kind, and per class in it: geomean and worst of the ratios."""
    out = {}
    for kind in dict.fromkeys(r["kind"] for r in rows):
        mine = [r for r in rows if r["kind"] == kind]
        groups = {}
        for group in ["all", *dict.fromkeys(r["group"] for r in mine)]:
            part = [r for r in mine if group == r["group"] or (group == "all" and r["group"] != TINY)]
            good = [r for r in part if r.get("ratio") and "tenon" not in r["errors"]]
            entry = {"cases": len(part), "compared": len(good), "failed": sum("tenon" in r["errors"] for r in part)}
            if good:
                worst = min(good, key=lambda r: r["ratio"])
                entry.update(geomean=geomean([r["ratio"] for r in good]), worst=worst["ratio"], worst_case=worst["name"])
                by = {}
                for r in good:
                    for n, i in r["peers"].items():
                        if "ratio" in i:
                            by.setdefault(n, []).append(i["ratio"])
                entry["against"] = {n: geomean(v) for n, v in by.items()}
            peak = [r["peers"]["tenon"]["of_peak"] for r in part if "of_peak" in r["peers"].get("tenon", {})]
            if peak:
                entry["of_peak"] = geomean(peak)
            groups[group] = entry
        out[kind] = groups
    return out


def summary_text(rows):
    text = ["geometric means of the ratios to the best peer of each case (above 1: Tenon is faster)",
            "%-14s %-14s %6s %8s %6s  %s" % ("kind", "class", "cases", "geomean", "worst", "")]
    for kind, groups in summary(rows).items():
        for group, e in groups.items():
            if group != "all" and len(groups) <= 2:
                continue
            against = ", ".join("%s %.2f" % x for x in e.get("against", {}).items())
            failed = "; %d FAILED" % e["failed"] if e["failed"] else ""
            text.append("%-14s %-14s %6d %8s %6s  %s%s" % (
                kind, group, e["compared"], number(e.get("geomean"), "%.3f"), number(e.get("worst"), "%.2f"),
                ("against " + against + "; worst " + e["worst_case"]) if against else "", failed))
    text += speedups(rows)
    return "\n".join(text)


def speedups(rows):
    """How much faster each program is with more threads, where a case was measured so."""
    first = rows[0].get("threads") if rows else None
    base = {(r["kind"].split(", ")[0], r["name"]): r for r in rows if r.get("threads") == first}
    text = []
    for r in rows:
        b = base.get((r["kind"].split(", ")[0], r["name"]))
        if not b or b is r:
            continue
        gain = {n: b["peers"][n]["min_ms"] / i["min_ms"] for n, i in r["peers"].items() if "min_ms" in i and "min_ms" in b["peers"].get(n, {})}
        if gain:
            if not text:
                text.append("\nspeed-up from %d to %d threads" % (first, r["threads"]))
            text.append("%-30s %s" % (r["name"], ", ".join("%s %.2f" % x for x in sorted(gain.items(), key=lambda x: x[0] != "tenon"))))
    return text


def why(rows, below):
    """The schedules of what is slow."""
    text = ["\nschedules of cases with a ratio below %g" % below]
    for r in rows:
        if r.get("ratio") and r["ratio"] < below:
            text.append("%s %s: %.2f of %s %s" % (r["kind"], r["name"], r["ratio"], r["best"], r["peers"][r["best"]].get("implementation", "")))
            for kernel, steps in r.get("schedules", {}).items():
                if not kernel.startswith(("relayout", "pack")):
                    text.append("  %s\n    %s" % (kernel, steps.strip().replace("\n", "\n    ")))
    return "\n".join(text)


# ---- Markdown, for the README ----

def markdown(results):
    rows, machine = results["rows"], results["machine"]
    out = ["%s, %s, threads: %s; multiply-add peak %.1f GFLOP/s per core; load average at the start %.1f. `bench/run %s`" % (
        results["started"][:10], machine["cpu"], results["threads"], machine["peak_gflops"], machine["load_average"], " ".join(results["command"])), "",
        "| kind | class | cases | ratio to the best peer (geomean) | worst | share of peak |", "|---|---|---|---|---|---|"]
    for kind, groups in results["summary"].items():
        for group, e in groups.items():
            if group == "all" or len(groups) > 2:
                out.append("| %s | %s | %d | %s | %s | %s |" % (
                    title(kind), group, e["compared"], number(e.get("geomean"), "%.2f"),
                    number(e.get("worst"), "%.2f") + (" (%s)" % e["worst_case"] if "worst" in e else ""), number(e.get("of_peak") and 100 * e["of_peak"], "%.0f %%")))
    models = [r for r in rows if r["group"] == "model"]
    if models:
        names = [n for n in dict.fromkeys(n for r in models for n in r["peers"]) if n not in ("tenon", "tenon aot")]
        out += ["", "| model | threads | Tenon ms | %s | ratio to the best | import to object | peak memory | weights |" % " | ".join(n + " ms" for n in names),
                "|---|---|---|%s---|---|---|---|" % ("---|" * len(names))]
        for r in models:
            c = r.get("compile") or {}
            one = c.get("threads_1")
            ms = [number(r["peers"].get(n, {}).get("min_ms"), "%.2f") for n in ["tenon", *names]]
            out.append("| `%s` | %d | %s | %s | %s | %s | %s |" % (
                r["name"], r["threads"], " | ".join(ms), number(r.get("ratio"), "%.2f"), "%.2f s" % one["total_s"] if one else "-",
                "%.0f MB" % (one["peak_rss"] / 1e6) if one else "-", "%.0f MB" % (c["weights_bytes"] / 1e6) if one else "-"))
    return "\n".join(out) + "\n"


# ---- the page ----

COLOURS = {"tenon": "#c2410c", "mkl": "#1d4ed8", "onednn": "#0891b2", "onnxruntime": "#4d7c0f", "openvino": "#7c3aed", "inductor": "#be185d", "tenon aot": "#ea580c"}
STYLE = """body{font:14px/1.45 system-ui,sans-serif;margin:24px auto;max-width:1100px;padding:0 16px;color:#1c1917;background:#fafaf9}
h1{font-size:22px}h2{font-size:17px;margin-top:32px}table{border-collapse:collapse;font-variant-numeric:tabular-nums}
td,th{padding:2px 10px;text-align:right;border-bottom:1px solid #e7e5e4}td:first-child,th:first-child,td.l{text-align:left}
.slow{color:#b91c1c}.bad{color:#b91c1c;text-align:left}svg text{font:11px system-ui,sans-serif}"""


def bars(rows):
    """A chart of ratios on a logarithmic axis: right of the line Tenon is faster."""
    told = lambda i: (i.get("ratio") or 0) > 0  # times below what can be told come out as nothing, or less
    rows = [r for r in rows if told(r)]
    if not rows:
        return ""
    width, left, height = 1060, 230, 16
    values = [i["ratio"] for r in rows for i in r["peers"].values() if told(i)]
    lo, hi = math.log2(min(0.5, *values)) - 0.1, math.log2(max(2.0, *values)) + 0.1
    x = lambda v: left + (math.log2(v) - lo) / (hi - lo) * (width - left - 60)
    total = 24 + height * len(rows)
    out = ['<svg viewBox="0 0 %d %d" width="100%%" role="img">' % (width, total)]
    tick = math.ceil(lo)
    while tick <= hi:
        v = 2.0 ** tick
        out.append('<line x1="%.1f" x2="%.1f" y1="18" y2="%d" stroke="%s"/><text x="%.1f" y="12" text-anchor="middle">%g</text>' % (
            x(v), x(v), total, "#1c1917" if v == 1 else "#d6d3d1", x(v), v))
        tick += 1
    for k, r in enumerate(rows):
        y = 20 + k * height
        a, b = sorted((x(1), x(r["ratio"])))
        out.append('<text x="%d" y="%d" text-anchor="end">%s</text>' % (left - 6, y + 11, html.escape(r["name"])))
        out.append('<rect x="%.1f" y="%d" width="%.1f" height="%d" fill="%s" opacity="0.75"/>' % (
            a, y + 2, max(b - a, 0.5), height - 4, "#4d7c0f" if r["ratio"] >= 1 else "#b91c1c"))
        for n, i in r["peers"].items():
            if told(i):
                out.append('<circle cx="%.1f" cy="%.1f" r="3.5" fill="%s"><title>%s: %.3f</title></circle>' % (
                    x(i["ratio"]), y + height / 2, COLOURS.get(n, "#57534e"), html.escape(n), i["ratio"]))
        out.append('<text x="%d" y="%d">%.2f</text>' % (width - 50, y + 11, r["ratio"]))
    out.append("</svg>")
    return "".join(out)


def page(results):
    rows, machine = results["rows"], results["machine"]
    names = [n for n in dict.fromkeys(n for r in rows for n in r["peers"]) if n != "tenon"]
    out = ["<!doctype html><meta charset=utf-8><title>Tenon: measurements</title><style>%s</style>" % STYLE,
           "<h1>Tenon against its peers</h1><p>%s; %s; threads: %s; %d rounds; multiply-add peak %.1f GFLOP/s per core; load average at the start %.1f. "
           "Command: <code>bench/run %s</code>.</p>" % (
               html.escape(results["started"]), html.escape(machine["cpu"]), results["threads"], results["rounds"],
               machine["peak_gflops"], machine["load_average"], html.escape(" ".join(results["command"]))),
           "<p>Ratios are peer's time / Tenon's, medians over rounds; above 1 Tenon is faster. The bar is the best peer of the case, the dots are all: %s.</p>" % (
               ", ".join('<span style="color:%s">&#9679; %s</span>' % (COLOURS.get(n, "#57534e"), html.escape(n)) for n in names))]
    out.append("<h2>Geometric means</h2><table><tr><th>kind<th>class<th>cases<th>geomean<th>worst<th>of peak<th>worst case</tr>")
    for kind, groups in results["summary"].items():
        for group, e in groups.items():
            out.append("<tr><td>%s<td class=l>%s<td>%d<td>%s<td>%s<td>%s<td class=l>%s</tr>" % (
                kind, group, e["compared"], number(e.get("geomean"), "%.3f"), number(e.get("worst"), "%.2f"),
                number(e.get("of_peak") and 100 * e["of_peak"], "%.0f %%"), html.escape(e.get("worst_case", ""))))
    out.append("</table>")
    for kind in dict.fromkeys(r["kind"] for r in rows):
        mine = [r for r in rows if r["kind"] == kind]
        out.append("<h2>%s</h2>%s" % (html.escape(title(kind)), bars(mine)))
        out.append("<table><tr><th>case<th>class<th>Tenon ms<th>GFLOP/s<th>of peak%s<th>ratio</tr>" % "".join("<th>%s ms" % html.escape(n) for n in names))
        for r in mine:
            t = r["peers"].get("tenon", {})
            cells = "".join("<td>%s" % number(r["peers"].get(n, {}).get("min_ms"), "%.4f") for n in names)
            slow = " class=slow" if r.get("ratio") and r["ratio"] < 1 else ""
            out.append("<tr><td>%s<td class=l>%s<td>%s<td>%s<td>%s%s<td%s>%s</tr>" % (
                html.escape(r["name"]), html.escape(r["group"]), number(t.get("min_ms"), "%.4f"), number(t.get("gflops"), "%.1f"),
                number(t.get("of_peak") and 100 * t["of_peak"], "%.0f %%"), cells, slow, number(r.get("ratio"), "%.2f")))
            for n, e in r["errors"].items():
                out.append("<tr><td colspan=%d class=bad>%s: %s</tr>" % (6 + len(names), html.escape(n), html.escape(str(e))))
        out.append("</table>")
        if any("compile" in r for r in mine):
            out.append("<table><tr><th>compiling<th>import to object<th>two threads<th>peak memory<th>weights<th>arena<th>kernels</tr>")
            for r in mine:
                c = r.get("compile")
                if c and "error" not in c:
                    out.append("<tr><td>%s<td>%.2f s<td>%.2f s<td>%.0f MB<td>%.0f MB<td>%.1f MB<td>%d</tr>" % (
                        html.escape(r["name"]), c["threads_1"]["total_s"], c["threads_2"]["total_s"], c["threads_1"]["peak_rss"] / 1e6,
                        c["weights_bytes"] / 1e6, c["arena_bytes"] / 1e6, c["kernels"]))
            out.append("</table>")
    return "\n".join(out) + "\n"
