/* ops_positions.c — positions that data decides, as many as a run finds: NonZero, Compress and NonMaxSuppression of what is
 * not known when compiling. Kernels give memory for the most there can be, and a count; tenon:Sized says so (extent.h).
 *
 *   tenon:Positions  in: condition (bool)     out: places of the true elements in row-major order, i64 [elements], then zeros; how many
 *   tenon:Suppress   in: boxes, scores, most, overlap, least
 *                    out: i64 [batch x classes x most, 3] of batch, class, box, then zeros; how many */
#include "lower/positions.h"
#include "lower/compose.h"
#include "lower/extent.h"
#include "lower/heap.h"

/* ---- Positions ---- */

ir_value *lw_positions(ir_graph *g, ir_node *n, ir_value *condition, ir_value **count) {
  ir_value *hit = lw_cast_node(g, n, condition, TN_BOOL);
  ir_node *p = lw_node_n(g, n, "tenon:Positions", 1, &hit, 2);
  ir_infer(g->ctx, p);
  *count = p->out[1];
  return p->out[0];
}

static void positions_infer(tn_ctx *ctx, ir_node *n) {
  if (n->in[0]->dtype != TN_BOOL) lw_bad(ctx, n, "the condition is %s, not bool", ir_dtype_name(n->in[0]->dtype));
  lw_set(n, 0, TN_I64, 1, (ix[]){ix_index(ctx, ir_value_elements(ctx, n->in[0]))});
  lw_set(n, 1, TN_I64, 0, NULL);
}

/* Zeros behind what there is: places that can be read, whatever reads them. */
static void zeros_from(lw_build *b, ir_buf *to, ir_buf *place, ix end) {
  tn_ctx *ctx = lw_ctx(b);
  ir_builder *s = lw_b(b);
  ix p = ib_get(s, place);
  ib_while(s, ix_lt(ctx, p, end));
  ib_store(s, to, &p, ix_int(ctx, TN_I64, 0));
  ib_set(s, place, ix_addi(ctx, p, 1));
  ib_end(s);
}

static void positions_build(lw_build *b, ir_node *n) {
  tn_ctx *ctx = lw_ctx(b);
  ir_builder *s = lw_b(b);
  const ir_value *x = n->in[0];
  ir_buf *to = lw_out_buf(b, n, 0), *have = lw_out_buf(b, n, 1), *place = ib_local(s, "place", TN_INDEX, ix_index(ctx, 0));
  ix at[IR_MAX_RANK], p = ib_get(s, place), flat = ix_index(ctx, 0);
  lw_loops(b, NULL, x->rank, x->dims, at);
  for (int i = 0; i < x->rank; i++) flat = ix_add(ctx, ix_mul(ctx, flat, x->dims[i]), at[i]);
  ib_if(s, lw_in(b, n, 0, at));
  ib_store(s, to, &p, ix_cast(ctx, TN_I64, flat));
  ib_set(s, place, ix_addi(ctx, p, 1));
  ib_end_n(s, 1 + x->rank);
  ib_store(s, have, NULL, ix_cast(ctx, TN_I64, p));
  zeros_from(b, to, place, ix_index(ctx, ir_value_elements(ctx, x)));
}

/* ---- Suppress ---- */

enum { BOXES, SCORES, MOST, OVERLAP, LEAST };

static void suppress_infer(tn_ctx *ctx, ir_node *n) {
  int64_t batch = ir_dim(ctx, n->in[BOXES], 0), count = ir_dim(ctx, n->in[BOXES], 1), classes = ir_dim(ctx, n->in[SCORES], 1), most = lw_most(n->in[MOST]);
  for (int k = MOST; k <= LEAST; k++) lw_need_single(ctx, n, k);
  if (most < 0) most = 0;
  if (most > count) most = count;
  lw_set(n, 0, TN_I64, 2, (ix[]){ix_index(ctx, batch * classes * most), ix_index(ctx, 3)});
  lw_set(n, 1, TN_I64, 0, NULL);
}

/* The candidates of a class are a heap: those with greater scores above, and of equal ones the earlier box. */
static ix comes_first(lw_build *b, const lw_heap *h, ix i, ix j) {
  tn_ctx *ctx = lw_ctx(b);
  ix si = ib_load(lw_b(b), h->value, &i), sj = ib_load(lw_b(b), h->value, &j), bi = ib_load(lw_b(b), h->where, &i), bj = ib_load(lw_b(b), h->where, &j);
  return ix_or(ctx, ix_lt(ctx, sj, si), ix_and(ctx, ix_eq(ctx, si, sj), ix_lt(ctx, bi, bj)));
}

enum { X1, Y1, X2, Y2, CORNERS };

/* Lets of the corners of box j of batch i, lower ones first. */
static void corners(lw_build *b, ir_node *n, ix i, ix j, ix *c) {
  tn_ctx *ctx = lw_ctx(b);
  ix v[4];
  for (int k = 0; k < 4; k++) v[k] = ib_let(lw_b(b), "v", lw_in(b, n, BOXES, (ix[]){i, j, ix_index(ctx, k)}));
  for (int a = 0; a < 2; a++) { /* x, y: given as centre and size, or as corners y before x, in any order */
    bool centre = ir_attr_get_int(n, "center_point_box", 0) != 0;
    ix half = centre ? ix_mul(ctx, v[2 + a], ix_float(ctx, TN_F32, 0.5)) : NULL, lo = centre ? ix_sub(ctx, v[a], half) : v[1 - a], hi = centre ? ix_add(ctx, v[a], half) : v[3 - a];
    c[X1 + a] = ib_let(lw_b(b), "lo", ix_min(ctx, lo, hi));
    c[X2 + a] = ib_let(lw_b(b), "hi", ix_max(ctx, lo, hi));
  }
}

/* Whether two boxes have more than `most` of their union in common. */
static ix overlap_more(lw_build *b, const ix *p, const ix *q, ix most) {
  tn_ctx *ctx = lw_ctx(b);
  ix zero = lw_zero(ctx, TN_F32), side[2], area[2] = {NULL, NULL};
  for (int a = 0; a < 2; a++) {
    ix common = ix_sub(ctx, ix_min(ctx, p[X2 + a], q[X2 + a]), ix_max(ctx, p[X1 + a], q[X1 + a]));
    side[a] = ix_max(ctx, common, zero);
  }
  for (int k = 0; k < 2; k++) {
    const ix *c = k ? q : p;
    area[k] = ix_mul(ctx, ix_sub(ctx, c[X2], c[X1]), ix_sub(ctx, c[Y2], c[Y1]));
  }
  ix both = ib_let(lw_b(b), "both", ix_mul(ctx, side[0], side[1])), all = ib_let(lw_b(b), "all", ix_sub(ctx, ix_add(ctx, area[0], area[1]), both));
  return ix_and(ctx, ix_and(ctx, ix_lt(ctx, zero, both), ix_lt(ctx, zero, all)), ix_lt(ctx, most, ix_div(ctx, both, all)));
}

static void suppress_build(lw_build *b, ir_node *n) {
  tn_ctx *ctx = lw_ctx(b);
  ir_builder *s = lw_b(b);
  ix zero = ix_index(ctx, 0), room = n->out[0]->dims[0], *dims = n->in[SCORES]->dims, count = dims[2];
  int64_t classes = ir_dim(ctx, n->in[SCORES], 0) * ir_dim(ctx, n->in[SCORES], 1);
  ix each = ix_index(ctx, classes ? ir_dim(ctx, n->out[0], 0) / classes : 0);
  ir_buf *to = lw_out_buf(b, n, 0), *have = lw_out_buf(b, n, 1), *taken = ib_local(s, "taken", TN_INDEX, zero);
  if (ix_is_int(room, 0)) {
    ib_store(s, have, NULL, ix_int(ctx, TN_I64, 0));
    return;
  }
  lw_heap h = {.value = ib_alloc(s, "score", TN_F32, 1, &count, IR_LOCAL), .where = ib_alloc(s, "box", TN_INDEX, 1, &count, IR_LOCAL), .above = comes_first};
  ir_buf *kept = ib_alloc(s, "kept", TN_F32, 2, (ix[]){each, ix_index(ctx, CORNERS)}, IR_LOCAL);
  ix most = ib_let(s, "most", lw_clamp(ctx, ix_cast(ctx, TN_INDEX, lw_scalar_in(b, n, MOST)), zero, each));
  ix limit = ib_let(s, "limit", lw_scalar_in(b, n, OVERLAP)), least = ib_let(s, "least", lw_scalar_in(b, n, LEAST));
  ix i = ib_loop(s, "i", dims[0]), c = ib_loop(s, "c", dims[1]);
  h.size = ib_local(s, "size", TN_INDEX, zero);
  ix size = ib_get(s, h.size);
  ix j = ib_loop(s, "j", count), x = ib_let(s, "x", lw_in(b, n, SCORES, (ix[]){i, c, j}));
  ib_if(s, ix_lt(ctx, least, x));
  ib_store(s, h.value, &size, x);
  ib_store(s, h.where, &size, j);
  ib_set(s, h.size, ix_addi(ctx, size, 1));
  ib_end_n(s, 2);
  lw_heap_make(b, &h);
  ir_buf *found = ib_local(s, "found", TN_INDEX, zero);
  ib_while(s, ix_and(ctx, ix_lt(ctx, zero, size), ix_lt(ctx, ib_get(s, found), most)));
  ix best = ib_let(s, "best", ib_load(s, h.where, &zero)), last = ix_addi(ctx, size, -1);
  ib_store(s, h.value, &zero, ib_load(s, h.value, &last));
  ib_store(s, h.where, &zero, ib_load(s, h.where, &last));
  ib_set(s, h.size, last);
  lw_heap_sift(b, &h, zero);
  ix own[CORNERS], other[CORNERS];
  corners(b, n, i, best, own);
  ir_buf *q = ib_local(s, "q", TN_INDEX, zero), *apart = ib_local(s, "apart", TN_BOOL, ix_bool(ctx, true));
  ib_while(s, ix_and(ctx, ib_get(s, apart), ix_lt(ctx, ib_get(s, q), ib_get(s, found))));
  for (int k = 0; k < CORNERS; k++) other[k] = ib_let(s, "o", ib_load(s, kept, (ix[]){ib_get(s, q), ix_index(ctx, k)}));
  ib_set(s, apart, ix_not(ctx, overlap_more(b, own, other, limit)));
  ib_set(s, q, ix_addi(ctx, ib_get(s, q), 1));
  ib_end(s);
  ib_if(s, ib_get(s, apart));
  for (int k = 0; k < CORNERS; k++) ib_store(s, kept, (ix[]){ib_get(s, found), ix_index(ctx, k)}, own[k]);
  ix row[3] = {i, c, best};
  for (int k = 0; k < 3; k++) ib_store(s, to, (ix[]){ib_get(s, taken), ix_index(ctx, k)}, ix_cast(ctx, TN_I64, row[k]));
  ib_set(s, found, ix_addi(ctx, ib_get(s, found), 1));
  ib_set(s, taken, ix_addi(ctx, ib_get(s, taken), 1));
  ib_end_n(s, 4); /* if, while, c, i */
  ib_store(s, have, NULL, ix_cast(ctx, TN_I64, ib_get(s, taken)));
  ib_while(s, ix_lt(ctx, ib_get(s, taken), room));
  for (int k = 0; k < 3; k++) ib_store(s, to, (ix[]){ib_get(s, taken), ix_index(ctx, k)}, ix_int(ctx, TN_I64, 0));
  ib_set(s, taken, ix_addi(ctx, ib_get(s, taken), 1));
  ib_end(s);
}

const ir_op lw_ops_positions[] = {
    {.name = "Positions", .domain = "tenon", .kind = IR_OP_KERNEL, .since = 1, .min_in = 1, .max_in = 1, .min_out = 2, .max_out = 2, .infer = positions_infer, .build = positions_build},
    {.name = "Suppress", .domain = "tenon", .kind = IR_OP_KERNEL, .since = 1, .min_in = 5, .max_in = 5, .min_out = 2, .max_out = 2, .attrs = "center_point_box:i", .infer = suppress_infer, .build = suppress_build},
    {0}};
