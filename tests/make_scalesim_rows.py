#!/usr/bin/env python3
"""Samples the rows of a table of layers that SCALE-Sim executed: make_scalesim_rows.py TABLE.csv > scalesim_rows.h

The table has config, dataflow, R, C, topology, layer_id, layer_name, M, N, K, total_cycles, overall_util_pct,
sram_ifmap_reads, sram_filter_reads, sram_ofmap_writes, provenance. Of each configuration and provenance the
shortest, the longest and some in between are taken, the same ones each time."""
import csv
import random
import sys

EACH = 12
groups = {}
with open(sys.argv[1], newline="") as f:
    for row in csv.DictReader(f):
        groups.setdefault((row["config"], row["provenance"]), {})[row["M"], row["N"], row["K"]] = row
print("""/* scalesim_rows.h — layers that SCALE-Sim 3.0.0 executed in its CALC mode, and what it reported. Made by
 * make_scalesim_rows.py: a sample over seven configurations. `full`: by its whole run, else by its demand matrices.
 *
 *   ROW(dataflow, R, C, topology, layer, M, N, K, cycles, utilization %, ifmap reads, filter reads, ofmap writes, how) */""")
for key in sorted(groups):
    rows = sorted(groups[key].values(), key=lambda r: int(r["total_cycles"]))
    picked = rows if len(rows) <= EACH else [rows[0], rows[-1]] + random.Random(" ".join(key)).sample(rows[1:-1], EACH - 2)
    for r in sorted(picked, key=lambda r: int(r["total_cycles"])):
        print('ROW(%s, %s, %s, "%s", "%s", %s, %s, %s, %s, %.12g, %s, %s, %s, "%s")' % (
            r["dataflow"].upper(), r["R"], r["C"], r["topology"], r["layer_name"], r["M"], r["N"], r["K"], r["total_cycles"],
            float(r["overall_util_pct"]), r["sram_ifmap_reads"], r["sram_filter_reads"], r["sram_ofmap_writes"],
            "full" if "full" in r["provenance"] else "demand"))
