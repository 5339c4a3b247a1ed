#!/usr/bin/env python3
"""digits.py FILE: the handwritten digits that the package scikit-learn carries (UCI, 8 x 8 pixels, 0 to 16),
shuffled, as one file: two int32 (images to train with, to test with), then the pixels as f32 in [0, 1), then the labels as int32.
Reads the package's own digits.csv.gz; nothing of the package is run. TENON_DIGITS names another copy of that file."""
import gzip, importlib.util, os, random, struct, sys

path = os.environ.get("TENON_DIGITS")
if not path:
    spec = importlib.util.find_spec("sklearn")
    if not spec:
        sys.exit("digits.py: the package scikit-learn is not installed")
    path = os.path.join(os.path.dirname(spec.origin), "datasets", "data", "digits.csv.gz")
with gzip.open(path, "rt") as f:
    rows = [[float(v) for v in line.split(",")] for line in f]
random.Random(1).shuffle(rows)
test = 360
with open(sys.argv[1], "wb") as out:
    out.write(struct.pack("<2i", len(rows) - test, test))
    for row in rows:
        out.write(struct.pack("<64f", *(v / 16.0 for v in row[:64])))
    out.write(struct.pack(f"<{len(rows)}i", *(int(row[64]) for row in rows)))
