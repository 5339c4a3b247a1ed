/* ops_sort.c — TopK as a kernel; Unique, whose output size data decides, only of data that is
 * known when compiling; NonMaxSuppression of such data. */
#include "lower/extent.h"
#include "lower/grad.h"
#include "lower/heap.h"
#include "ir/interp.h"
#include <math.h>
#include <string.h>

/* ---- TopK ---- */

static int64_t top_k_count(tn_ctx *ctx, const ir_node *n) {
  int64_t k = n->nin > 1 ? lw_need_int(ctx, n, 1, "k") : ir_attr_get_int(n, "k", -1);
  if (k < 0) lw_bad(ctx, n, "k is %lld", (long long)k);
  return k;
}
static void top_k_infer(tn_ctx *ctx, ir_node *n) {
  const ir_value *x = n->in[0];
  if (x->rank == 0) lw_bad(ctx, n, "a scalar has no axis");
  int axis = ir_axis(ctx, n, ir_attr_get_int(n, "axis", -1), x->rank);
  int64_t k = top_k_count(ctx, n), extent;
  if (ix_const_value(x->dims[axis], &extent) && k > extent) lw_bad(ctx, n, "k is %lld, axis %d has %lld elements", (long long)k, axis, (long long)extent);
  ix dims[IR_MAX_RANK];
  for (int i = 0; i < x->rank; i++) dims[i] = x->dims[i];
  dims[axis] = ix_index(ctx, k);
  lw_set(n, 0, x->dtype, x->rank, dims);
  lw_set(n, 1, TN_I64, x->rank, dims);
}

/* Whether a comes before b whatever their positions. A NaN is above every number, so
 * that the order is total and equal inputs give equal results. */
static ix before(tn_ctx *ctx, ix a, ix b, bool largest) {
  ix less = largest ? ix_lt(ctx, b, a) : ix_lt(ctx, a, b);
  if (!ir_is_float((tn_dtype)a->dtype)) return less;
  ix nan = ix_ne(ctx, a, a), other = ix_ne(ctx, b, b);
  if (!largest) nan = ix_ne(ctx, b, b), other = ix_ne(ctx, a, a);
  return ix_or(ctx, less, ix_and(ctx, nan, ix_not(ctx, other)));
}

/* Loops over all axes but `axis`; at[axis] is left unset. */
static void loops_around(lw_build *b, const ir_value *x, int axis, ix *at) {
  for (int i = 0; i < x->rank; i++)
    if (i != axis) at[i] = ib_loop(lw_b(b), "n", x->dims[i]);
}

/* The k best so far in order, each element put in by moving worse ones down: about
 * extent + k log(extent) moves of at most k places on random data. */
static void top_k_insert(lw_build *b, ir_node *n, int axis, int64_t k, ix *at) {
  tn_ctx *ctx = lw_ctx(b);
  ir_builder *s = lw_b(b);
  bool largest = ir_attr_get_int(n, "largest", 1) != 0;
  tn_dtype t = n->in[0]->dtype;
  ix size = ix_index(ctx, k), zero = ix_index(ctx, 0), one = ix_index(ctx, 1);
  ir_buf *value = ib_alloc(s, "value", t, 1, &size, IR_LOCAL), *where = ib_alloc(s, "where", TN_I64, 1, &size, IR_LOCAL);
  ix j = ib_loop(s, "j", n->in[0]->dims[axis]);
  at[axis] = j;
  ix x = ib_let(s, "x", lw_in(b, n, 0, at)), last = ix_index(ctx, k - 1);
  ib_if(s, ix_select(ctx, ix_lt(ctx, j, size), ix_bool(ctx, true), before(ctx, x, ib_load(s, value, &last), largest)));
  ir_buf *place = ib_local(s, "place", TN_INDEX, ix_min(ctx, j, last));
  ix p = ib_get(s, place), above = ix_sub(ctx, p, one);
  ib_while(s, ix_select(ctx, ix_lt(ctx, zero, p), before(ctx, x, ib_load(s, value, &above), largest), ix_bool(ctx, false)));
  ib_store(s, value, &p, ib_load(s, value, &above));
  ib_store(s, where, &p, ib_load(s, where, &above));
  ib_set(s, place, above);
  ib_end(s);
  ib_store(s, value, &p, x);
  ib_store(s, where, &p, ix_cast(ctx, TN_I64, j));
  ib_end_n(s, 2);
  at[axis] = ib_loop(s, "k", size);
  lw_out(b, n, 0, at, ib_load(s, value, &at[axis]));
  lw_out(b, n, 1, at, ib_load(s, where, &at[axis]));
  ib_end(s);
}

/* What is worse, and of what is alike what comes later, is above. */
static ix is_worse(lw_build *b, const lw_heap *h, ix i, ix j) {
  tn_ctx *ctx = lw_ctx(b);
  ir_builder *s = lw_b(b);
  ix vi = ib_load(s, h->value, &i), vj = ib_load(s, h->value, &j);
  ix later = ix_lt(ctx, ib_load(s, h->where, &j), ib_load(s, h->where, &i));
  return ix_or(ctx, before(ctx, vj, vi, h->largest), ix_and(ctx, later, ix_not(ctx, before(ctx, vi, vj, h->largest))));
}

/* The k best so far as a heap with the worst on top, which the others are compared with: about extent + k log(extent / k) log(k)
 * steps on random data, where sorting all takes extent log(extent). */
static void top_k_heap(lw_build *b, ir_node *n, int axis, int64_t k, ix *at) {
  tn_ctx *ctx = lw_ctx(b);
  ir_builder *s = lw_b(b);
  ix size = ix_index(ctx, k), zero = ix_index(ctx, 0);
  lw_heap h = {.value = ib_alloc(s, "value", n->in[0]->dtype, 1, &size, IR_LOCAL), .where = ib_alloc(s, "where", TN_I64, 1, &size, IR_LOCAL), .largest = ir_attr_get_int(n, "largest", 1) != 0, .above = is_worse};
  h.size = ib_local(s, "size", TN_INDEX, size);
  at[axis] = ib_loop(s, "i", size);
  ib_store(s, h.value, &at[axis], lw_in(b, n, 0, at));
  ib_store(s, h.where, &at[axis], ix_cast(ctx, TN_I64, at[axis]));
  ib_end(s);
  lw_heap_make(b, &h);
  at[axis] = ib_for(s, "j", size, n->in[0]->dims[axis]);
  ix x = ib_let(s, "x", lw_in(b, n, 0, at));
  ib_if(s, before(ctx, x, ib_load(s, h.value, &zero), h.largest));
  ib_store(s, h.value, &zero, x);
  ib_store(s, h.where, &zero, ix_cast(ctx, TN_I64, at[axis]));
  lw_heap_sift(b, &h, zero);
  ib_end_n(s, 2);
  ib_while(s, ix_lt(ctx, zero, ib_get(s, h.size))); /* the worst of what is left goes to its place */
  ib_set(s, h.size, ix_addi(ctx, ib_get(s, h.size), -1));
  ix last = ib_let(s, "last", ib_get(s, h.size)), value = ib_let(s, "worst", ib_load(s, h.value, &zero)), where = ib_let(s, "of", ib_load(s, h.where, &zero));
  ib_store(s, h.value, &zero, ib_load(s, h.value, &last));
  ib_store(s, h.where, &zero, ib_load(s, h.where, &last));
  ib_store(s, h.value, &last, value);
  ib_store(s, h.where, &last, where);
  lw_heap_sift(b, &h, zero);
  ib_end(s);
  at[axis] = ib_loop(s, "k", size);
  lw_out(b, n, 0, at, ib_load(s, h.value, &at[axis]));
  lw_out(b, n, 1, at, ib_load(s, h.where, &at[axis]));
  ib_end(s);
}

/* Merge sort of positions, bottom up; a pass reads one list and writes the other. */
static void top_k_sort(lw_build *b, ir_node *n, int axis, int64_t k, ix *at) {
  tn_ctx *ctx = lw_ctx(b);
  ir_builder *s = lw_b(b);
  bool largest = ir_attr_get_int(n, "largest", 1) != 0;
  int64_t count = ir_dim(ctx, n->in[0], axis);
  ix size = ix_index(ctx, count), no = ix_bool(ctx, false);
  ir_buf *value = ib_alloc(s, "value", n->in[0]->dtype, 1, &size, IR_LOCAL);
  ir_buf *from = ib_alloc(s, "order", TN_I64, 1, &size, IR_LOCAL), *to = ib_alloc(s, "merged", TN_I64, 1, &size, IR_LOCAL);
  ix j = ib_loop(s, "j", size);
  at[axis] = j;
  ib_store(s, value, &j, lw_in(b, n, 0, at));
  ib_store(s, from, &j, ix_cast(ctx, TN_I64, j));
  ib_end(s);
  for (int64_t width = 1; width < count; width *= 2) {
    ix run = ib_loop(s, "run", ix_index(ctx, (count + 2 * width - 1) / (2 * width)));
    ix lo = ix_muli(ctx, run, 2 * width), mid = ix_min(ctx, ix_addi(ctx, lo, width), size), hi = ix_min(ctx, ix_addi(ctx, lo, 2 * width), size);
    ir_buf *left = ib_local(s, "left", TN_INDEX, lo), *right = ib_local(s, "right", TN_INDEX, mid);
    ix put = ib_for(s, "put", lo, hi), l = ib_get(s, left), r = ib_get(s, right);
    ix lp = ix_cast(ctx, TN_INDEX, ib_load(s, from, &l)), rp = ix_cast(ctx, TN_INDEX, ib_load(s, from, &r));
    ix right_first = before(ctx, ib_load(s, value, &rp), ib_load(s, value, &lp), largest);
    /* the right run only when it has elements and the left has none, or a better one */
    ib_if(s, ix_select(ctx, ix_lt(ctx, r, hi), ix_select(ctx, ix_lt(ctx, l, mid), right_first, ix_bool(ctx, true)), no));
    ib_store(s, to, &put, ib_load(s, from, &r));
    ib_set(s, right, ix_addi(ctx, r, 1));
    ib_else(s);
    ib_store(s, to, &put, ib_load(s, from, &l));
    ib_set(s, left, ix_addi(ctx, l, 1));
    ib_end_n(s, 3);
    ir_buf *t = from;
    from = to, to = t;
  }
  at[axis] = ib_loop(s, "k", ix_index(ctx, k));
  ix p = ix_cast(ctx, TN_INDEX, ib_load(s, from, &at[axis]));
  lw_out(b, n, 0, at, ib_load(s, value, &p));
  lw_out(b, n, 1, at, ib_load(s, from, &at[axis]));
  ib_end(s);
}

static void top_k_build(lw_build *b, ir_node *n) {
  const ir_value *x = n->in[0];
  int axis = ir_axis(lw_ctx(b), n, ir_attr_get_int(n, "axis", -1), x->rank);
  int64_t k = top_k_count(lw_ctx(b), n);
  ix at[IR_MAX_RANK];
  if (k == 0) return;
  loops_around(b, x, axis, at);
  if (k <= 32) top_k_insert(b, n, axis, k, at);
  else if (k <= ir_dim(lw_ctx(b), x, axis) / 4) top_k_heap(b, n, axis, k, at);
  else top_k_sort(b, n, axis, k, at);
  ib_end_n(lw_b(b), x->rank - 1);
}

/* ---- Unique ---- */

static int compare_elements(tn_dtype t, const char *a, const char *b) {
  ir_scalar x = ir_scalar_load(t, a), y = ir_scalar_load(t, b);
  if (ir_is_float(t)) {
    bool nx = x.f != x.f, ny = y.f != y.f; /* NaN last, all alike */
    if (nx || ny) return nx - ny;
    return x.f < y.f ? -1 : x.f > y.f;
  }
  if (t == TN_U64) return (uint64_t)x.i < (uint64_t)y.i ? -1 : (uint64_t)x.i > (uint64_t)y.i;
  return x.i < y.i ? -1 : x.i > y.i;
}

typedef struct slices { /* the items that Unique compares: slices across an axis, or elements */
  const char *data;
  tn_dtype t;
  int64_t size, outer, count, inner; /* element bytes; data is [outer, count, inner] */
} slices;

static int compare_slices(const slices *s, int64_t a, int64_t b) {
  for (int64_t o = 0; o < s->outer; o++)
    for (int64_t i = 0; i < s->inner; i++) {
      const char *row = s->data + (o * s->count * s->inner + i) * s->size;
      int c = compare_elements(s->t, row + a * s->inner * s->size, row + b * s->inner * s->size);
      if (c) return c;
    }
  return 0;
}

/* Stable merge sort of `order` by slice. */
static void sort_slices(const slices *s, int64_t *order, int64_t *spare, int64_t n) {
  if (n < 2) return;
  int64_t h = n / 2, i = 0, j = h;
  sort_slices(s, order, spare, h);
  sort_slices(s, order + h, spare + h, n - h);
  for (int64_t k = 0; k < n; k++)
    spare[k] = j >= n || (i < h && compare_slices(s, order[i], order[j]) <= 0) ? order[i++] : order[j++];
  memcpy(order, spare, (size_t)n * sizeof *order);
}

static void unique_infer(tn_ctx *ctx, ir_node *n) {
  const ir_value *x = n->in[0];
  bool flat = !lw_has_attr(n, "axis"), sorted = ir_attr_get_int(n, "sorted", 1) != 0;
  int axis = flat ? 0 : ir_axis(ctx, n, ir_attr_get_int(n, "axis", 0), x->rank);
  if (!x->data) lw_unsupported(ctx, n, "the size of the output depends on the data of '%s', which is not known when compiling", x->name);
  slices s = {x->data, x->dtype, (int64_t)ir_dtype_bytes(x->dtype), 1, 1, 1};
  int64_t dims[IR_MAX_RANK] = {0};
  for (int i = 0; i < x->rank; i++) {
    dims[i] = ir_dim(ctx, x, i);
    if (flat || i == axis) s.count *= dims[i];
    else if (i < axis) s.outer *= dims[i];
    else s.inner *= dims[i];
  }
  int64_t m = s.count, groups = 0, bytes = s.inner * s.size;
  int64_t *order = IR_NEW_ARRAY(ctx, int64_t, m + 1), *spare = IR_NEW_ARRAY(ctx, int64_t, m + 1);
  int64_t *first = IR_NEW_ARRAY(ctx, int64_t, m + 1), *inverse = IR_NEW_ARRAY(ctx, int64_t, m + 1), *counts = IR_NEW_ARRAY(ctx, int64_t, m + 1);
  for (int64_t i = 0; i < m; i++) order[i] = i;
  sort_slices(&s, order, spare, m);
  for (int64_t i = 0; i < m; i++) { /* groups in order of value; the first of each is its earliest */
    if (i == 0 || compare_slices(&s, order[i - 1], order[i]) != 0) first[groups++] = order[i];
    inverse[order[i]] = groups - 1;
    counts[groups - 1]++;
  }
  if (!sorted) { /* groups in order of appearance */
    int64_t *rank = IR_NEW_ARRAY(ctx, int64_t, m + 1), *c = IR_NEW_ARRAY(ctx, int64_t, m + 1), k = 0;
    for (int64_t i = 0; i < m; i++)
      if (first[inverse[i]] == i) rank[inverse[i]] = k++;
    for (int64_t i = 0; i < groups; i++) c[rank[i]] = counts[i], spare[rank[i]] = first[i];
    for (int64_t i = 0; i < m; i++) inverse[i] = rank[inverse[i]];
    counts = c;
    first = spare;
  }
  char *y = ir_alloc_array(ctx, (size_t)(s.outer * groups) + 1, (size_t)(bytes ? bytes : 1));
  for (int64_t o = 0; o < s.outer; o++)
    for (int64_t i = 0; i < groups && bytes; i++)
      memcpy(y + (o * groups + i) * bytes, s.data + (o * m + first[i]) * bytes, (size_t)bytes);
  dims[axis] = groups;
  lw_set_known(ctx, n, 0, x->dtype, flat ? 1 : x->rank, dims, y);
  lw_set_known(ctx, n, 1, TN_I64, 1, &groups, first);
  lw_set_known(ctx, n, 2, TN_I64, 1, &m, inverse);
  lw_set_known(ctx, n, 3, TN_I64, 1, &groups, counts);
}

/* ---- NonMaxSuppression ---- */

typedef struct box {
  double y1, x1, y2, x2, area;
} box;

static box box_of(const double *p, bool center) {
  box r = center ? (box){p[1] - p[3] / 2, p[0] - p[2] / 2, p[1] + p[3] / 2, p[0] + p[2] / 2, 0} : (box){p[0], p[1], p[2], p[3], 0};
  double t;
  if (r.y1 > r.y2) t = r.y1, r.y1 = r.y2, r.y2 = t;
  if (r.x1 > r.x2) t = r.x1, r.x1 = r.x2, r.x2 = t;
  r.area = (r.y2 - r.y1) * (r.x2 - r.x1);
  return r;
}
static double overlap(const box *a, const box *b) {
  double h = (a->y2 < b->y2 ? a->y2 : b->y2) - (a->y1 > b->y1 ? a->y1 : b->y1);
  double w = (a->x2 < b->x2 ? a->x2 : b->x2) - (a->x1 > b->x1 ? a->x1 : b->x1);
  double both = h > 0 && w > 0 ? h * w : 0;
  return a->area > 0 && b->area > 0 ? both / (a->area + b->area - both) : 0;
}
static double known_or(tn_ctx *ctx, const ir_node *n, int k, double otherwise) {
  if (!lw_has(n, k)) return otherwise;
  double v;
  if (!ir_known_float(n->in[k], &v)) lw_unsupported(ctx, n, "input '%s' must be known when compiling", n->in[k]->name);
  return v;
}

static void nms_infer(tn_ctx *ctx, ir_node *n) {
  const ir_value *boxes = n->in[0], *scores = n->in[1];
  lw_need_rank(ctx, n, 0, 3);
  lw_need_rank(ctx, n, 1, 3);
  int64_t batch = ir_dim(ctx, boxes, 0), count = ir_dim(ctx, boxes, 1), classes = ir_dim(ctx, scores, 1), taken = 0;
  if (ir_dim(ctx, boxes, 2) != 4 || ir_dim(ctx, scores, 0) != batch || ir_dim(ctx, scores, 2) != count)
    lw_bad(ctx, n, "boxes must be [batch, boxes, 4] and scores [batch, classes, boxes]");
  for (int k = 0; k < 5; k++)
    if (lw_has(n, k) && n->in[k]->dtype != (k == 2 ? TN_I64 : TN_F32)) lw_bad(ctx, n, "input %d is %s, not %s", k, ir_dtype_name(n->in[k]->dtype), k == 2 ? "i64" : "f32");
  bool known = boxes->data && scores->data;
  for (int k = 2; k < 5; k++) known &= !lw_has(n, k) || n->in[k]->data;
  if (!known) {
    int64_t each = lw_has(n, 2) ? lw_most(n->in[2]) : 0;
    lw_set(n, 0, TN_I64, 2, (ix[]){ix_index(ctx, batch * classes * (each < 0 ? 0 : each < count ? each : count)), ix_index(ctx, 3)});
    return;
  }
  double most = known_or(ctx, n, 2, 0), iou = known_or(ctx, n, 3, 0), least = known_or(ctx, n, 4, -1.0 / 0.0);
  bool center = ir_attr_get_int(n, "center_point_box", 0) != 0;
  int64_t nb = ir_value_elements(ctx, boxes), ns = ir_value_elements(ctx, scores), *out = NULL;
  double *b = IR_NEW_ARRAY(ctx, double, nb + 1), *s = IR_NEW_ARRAY(ctx, double, ns + 1);
  lw_known_floats(boxes, b, nb);
  lw_known_floats(scores, s, ns);
  int64_t *order = IR_NEW_ARRAY(ctx, int64_t, count + 1), *spare = IR_NEW_ARRAY(ctx, int64_t, count + 1), *kept = IR_NEW_ARRAY(ctx, int64_t, count + 1);
  box *at = IR_NEW_ARRAY(ctx, box, count + 1);
  double *minus = IR_NEW_ARRAY(ctx, double, count + 1);
  for (int64_t i = 0; i < batch; i++) {
    for (int64_t j = 0; j < count; j++) at[j] = box_of(b + (i * count + j) * 4, center);
    for (int64_t c = 0; c < classes; c++) {
      const double *score = s + (i * classes + c) * count;
      int64_t m = 0, nkept = 0;
      for (int64_t j = 0; j < count; j++) {
        minus[j] = -score[j];
        if (score[j] > least) order[m++] = j;
      }
      sort_slices(&(slices){(const char *)minus, TN_F64, 8, 1, count, 1}, order, spare, m);
      for (int64_t k = 0; k < m && (double)nkept < most; k++) {
        bool free_of_all = true;
        for (int64_t q = 0; q < nkept && free_of_all; q++) free_of_all = overlap(&at[kept[q]], &at[order[k]]) <= iou;
        if (!free_of_all) continue;
        kept[nkept++] = order[k];
        IR_PUSH(ctx, out, taken, i);
        IR_PUSH(ctx, out, taken, c);
        IR_PUSH(ctx, out, taken, order[k]);
      }
    }
  }
  lw_set_known(ctx, n, 0, TN_I64, 2, (int64_t[]){taken / 3, 3}, out ? (void *)out : ir_alloc(ctx, 8));
}

static void nms_expand(ir_graph *g, ir_node *n) {
  if (n->out[0]->data) {
    lw_expand_known(g, n);
    return;
  }
  static const struct { tn_dtype t; double v; } otherwise[] = {{TN_I64, 0}, {TN_F32, 0}, {TN_F32, -INFINITY}};
  ir_value *in[5] = {n->in[0], n->in[1]};
  for (int k = 2; k < 5; k++) in[k] = lw_has(n, k) ? n->in[k] : ir_graph_scalar(g, NULL, otherwise[k - 2].t, otherwise[k - 2].v);
  ir_node *m = lw_node_n(g, n, "tenon:Suppress", 5, in, 2);
  ir_attr_int(m, "center_point_box", ir_attr_get_int(n, "center_point_box", 0));
  ir_infer(g->ctx, m);
  lw_replace(g, n, 0, lw_sized(g, n, m->out[0], m->out[1], 0));
}

const ir_op lw_ops_sort[] = {
    {"TopK", "", IR_OP_KERNEL, 1, 1, 2, 1, 2, "axis:i k:i largest:i sorted:i", top_k_infer, NULL, top_k_build, NULL, NULL, lw_grad_top_k},
    {"Unique", "", IR_OP_COMPOSITE, 11, 1, 1, 1, 4, "axis:i sorted:i", unique_infer, NULL, NULL, lw_expand_known, NULL, NULL},
    {"NonMaxSuppression", "", IR_OP_COMPOSITE, 10, 2, 5, 1, 1, "center_point_box:i", nms_infer, NULL, NULL, nms_expand, NULL, NULL},
    {0}};
