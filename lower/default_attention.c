/* default_attention.c — the default schedule of attention: blocks and register tiles for schedule_attention.c.
 *
 * Scores are tiles of keys by vectors of queries, results tiles of queries by vectors of columns. A block of queries is
 * taken such that both fit it, and few queries are computed twice; a block of keys such that its scores stay near. */
#include "lower/attend.h"
#include "lower/default_schedule.h"
#include <string.h>

enum {
  MAX_ROWS = 256,
  MAX_KEYS = 256,  /* scores of a group of 16 take 16 KiB, a panel of values as much */
  MIN_KEYS = 32,
  EXP_CYCLES = 14  /* of a vector of scores: the exponential, its sum, the largest */
};

typedef struct shape {
  int64_t rows, group, keys;
  int64_t score_rows, result_rows; /* of tiles */
  double cycles;
} shape;

static int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

/* The keys that vectors of queries see, [from, to), where that is known. */
typedef struct spans {
  int64_t n, *from, *to;
} spans;

static int64_t bound_at(tn_ctx *ctx, const lw_attention_parts *a, ix e, int64_t row, int64_t otherwise) {
  int64_t v;
  if (!ix_const_value(ix_subst1(ctx, e, a->row->var, ix_index(ctx, row)), &v)) return otherwise;
  return v < 0 ? 0 : lw_min(v, a->keys);
}

static spans spans_of(const lw_plan *p, const lw_attention_parts *a, int64_t lanes) {
  lw_attention_span span = lw_attention_span_of(p->ctx, a);
  spans s = {0};
  if (span.whole) return s;
  s.n = ceil_div(a->queries, lanes);
  s.from = IR_NEW_ARRAY(p->ctx, int64_t, s.n);
  s.to = IR_NEW_ARRAY(p->ctx, int64_t, s.n);
  for (int64_t i = 0; i < s.n; i++) {
    s.from[i] = bound_at(p->ctx, a, span.from, i * lanes, 0);
    s.to[i] = bound_at(p->ctx, a, span.to, lw_min((i + 1) * lanes, a->queries) - 1, a->keys);
  }
  return s;
}

/* The part of the keys that blocks of queries go over, on the average. */
static double part_seen(const spans *s, const lw_attention_parts *a, int64_t rows, int64_t keys, int64_t lanes) {
  double sum = 0, n = 0;
  if (!s->n) return 1;
  for (int64_t i = 0; i < s->n; i += rows / lanes, n++) {
    int64_t from = s->from[i] / keys * keys, to = lw_min(ceil_div(s->to[lw_min(i + rows / lanes, s->n) - 1], keys) * keys, a->keys);
    sum += to > from ? (double)(to - from) : 0;
  }
  return sum / n / (double)a->keys;
}

/* Tiles for groups of nv vectors of queries, and what all blocks of one head take. */
static shape shape_of(const lw_plan *p, const lw_attention_parts *a, int64_t rows, int64_t keys, int64_t nv, int64_t lanes, const spans *seen) {
  int64_t regs = p->t->vector_regs, group = nv * lanes, panel = a->columns > lanes ? 2 : 1;
  lw_tile s = lw_window_tile(keys, group, lanes, regs, nv, false, 1), o = lw_best_tile(group, panel * lanes, lanes, regs, panel);
  shape h = {rows, group, keys, s.mr, o.mr, 0};
  double blocks = (double)ceil_div(a->queries, rows), all = part_seen(seen, a, rows, keys, lanes) * (double)a->keys, parts = all / (double)keys, groups = (double)rows / (double)group;
  if (s.nr != nv || o.nr != panel) return (shape){.cycles = 1e300};
  double scores = s.cost * groups * (double)a->depth * parts, results = o.cost * groups * (double)ceil_div(a->columns, panel * lanes) * all;
  double copies = (double)(rows * a->depth) * 1.5 + all * (double)a->columns / (double)lanes * 4; /* rows of values lie far apart */
  double rest = (double)rows * all / (double)lanes * EXP_CYCLES + (double)(rows * a->columns) / (double)lanes * 4 * parts;
  double heads = 1;
  for (int i = 0; i < a->nbatch; i++) heads *= (double)a->extent[i];
  h.cycles = blocks * (scores + results + copies + rest) * lw_task_cost((int64_t)(heads * blocks));
  return h;
}

/* Keys of a block: all where they are no more than `most`, else parts of about one size, of divisors if there are some. */
static int64_t keys_of_block(int64_t keys, int64_t most) {
  if (keys <= most) return keys;
  for (int64_t k = most; k > most / 2; k--)
    if (keys % k == 0) return k;
  return ceil_div(keys, ceil_div(keys, most));
}

static void unroll_sum(lw_plan *p, const char *name, int64_t ku, int64_t extent) {
  while (extent % ku) ku /= 2;
  if (ku > 1 && lw_has_loop(p, name) && lw_step(p, "split %s %lld -> %s.o %s.u", name, (long long)ku, name, name)) lw_step(p, "unroll %s.u", name);
}

/* One product of a block: rows r of tiles, vectors along v, the sum over k. */
static bool product(lw_plan *p, const char *r, const char *v, const char *k, int64_t rows, int64_t mr, int64_t nr, int64_t lanes, int64_t depth) {
  bool tiled = mr > 1;
  if (!lw_step(p, "split %s %lld -> %s.b %s.v", v, (long long)lanes, v, v) || (tiled && !lw_step(p, "split %s %lld -> %s %s.i", r, (long long)mr, r, r))) return false;
  const char *tile = ir_format(p->ctx, "%s%s%s.b %s.v", tiled ? r : "", tiled ? ".i " : "", v, v);
  if (!lw_step(p, "distribute %s", tile)) return false;
  if (tiled) lw_kind(p, "unroll", ir_format(p->ctx, "%s.i", r));
  lw_kind(p, "unroll", ir_format(p->ctx, "%s.b", v));
  lw_kind(p, "vectorize", ir_format(p->ctx, "%s.v", v));
  if (tiled && rows % mr) lw_step(p, "peel %s 0 1", r);
  int64_t ku = p->u.ku ? p->u.ku : lw_steps_at_once(mr, nr);
  unroll_sum(p, k, ku, depth);
  unroll_sum(p, ir_format(p->ctx, "%s.b", k), ku, depth);
  return true;
}

bool lw_default_attention(lw_plan *p) {
  lw_attention_parts a;
  const char *why;
  int64_t lanes = cg_target_lanes(p->t, TN_F32);
  if (lanes < 4 || !lw_attention_of(p->ctx, p->k, &a, &why)) return false;
  shape best = {.cycles = 1e300};
  spans seen = spans_of(p, &a, lanes);
  for (int64_t most = MAX_KEYS; most >= (seen.n && !p->u.kc ? MIN_KEYS : MAX_KEYS); most /= 2) /* small ones leave more out */
    for (int64_t rows = lanes; rows <= MAX_ROWS; rows += lanes)
      for (int64_t nv = 1; nv <= 4; nv++) {
        if (rows / lanes % nv || (p->u.mb && p->u.mb * nv * lanes != rows) || (p->u.nr && p->u.nr != nv)) continue;
        shape s = shape_of(p, &a, rows, p->u.kc ? lw_min(p->u.kc, a.keys) : keys_of_block(a.keys, most), nv, lanes, &seen);
        if (s.cycles < best.cycles) best = s;
      }
  int64_t keys = best.keys;
  if (best.cycles > 1e299) return false;
  if (p->u.mr) best.score_rows = p->u.mr;
  if (!lw_step(p, "algorithm attention %lld %lld %lld %lld", (long long)best.rows, (long long)keys, (long long)lanes, (long long)best.group)) return false;
  int64_t rest = a.keys % keys, nv = best.group / lanes, panel = a.columns > lanes ? 2 : 1;
  for (int part = 0; part < (rest ? 2 : 1); part++) {
    const char *names[6] = {"st", "si", "sd", "oi", "oc", "ot"};
    for (int i = 0; i < 6 && part; i++) names[i] = ir_format(p->ctx, "%s.r", names[i]);
    int64_t n = part ? rest : keys;
    if (!product(p, names[0], names[1], names[2], n, best.score_rows, nv, lanes, a.depth)) return false;
    if (!product(p, names[3], names[4], names[5], best.group, best.result_rows, panel, lanes, n)) return false;
  }
  if (lw_step(p, "split fn %lld -> fn fv", (long long)lanes)) lw_step(p, "vectorize fv");
  lw_parallel_outside(p);
  p->got = (lw_tunables){.mr = (int)best.score_rows, .nr = (int)nv, .ku = p->u.ku, .kc = (int)keys, .mb = (int)(best.rows / best.group)};
  return true;
}
