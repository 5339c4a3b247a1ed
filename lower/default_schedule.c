/* default_schedule.c — the schedule of a kernel that nobody has tuned.
 *
 * From the problem record and the target alone, by kernel class: contractions have a file of
 * their own, all else is here. Steps are tried one after another: a refused optional step is
 * left out, so the result is always a legal schedule. */
#include "lower/default_schedule.h"
#include <stdio.h>
#include <string.h>

bool lw_step(lw_plan *p, const char *fmt, ...) {
  char line[512];
  va_list ap;
  va_start(ap, fmt);
  vsnprintf(line, sizeof line, fmt, ap);
  va_end(ap);
  const char *why;
  const ir_kernel *k = lw_schedule_apply(p->ctx, p->k, line, &why);
  if (!k) {
    ir_log(p->ctx, "%s: default schedule leaves out %s", p->start->name, why);
    return false;
  }
  p->k = k;
  ir_put(&p->text, "%s\n", line);
  return true;
}

void lw_cut(lw_plan *p, size_t length) {
  p->text.n = length;
  if (p->text.s) p->text.s[length] = 0;
}

bool lw_has_loop(const lw_plan *p, const char *name) { return ir_find_loop(p->k->body, name) != NULL; }

static void kind_of_copies(lw_plan *p, const ir_stmt *s, const char *what, const char *name) {
  if (!s) return;
  size_t n = strlen(name);
  if (s->kind == IR_FOR && strncmp(s->var->name, name, n) == 0 && (!s->var->name[n] || s->var->name[n] == '.')) lw_step(p, "%s %s", what, s->var->name);
  for (int i = 0; i < s->n; i++) kind_of_copies(p, s->items[i], what, name);
  kind_of_copies(p, s->body, what, name);
  kind_of_copies(p, s->other, what, name);
}
void lw_kind(lw_plan *p, const char *what, const char *name) { kind_of_copies(p, p->k->body, what, name); }

/* ---- tasks ---- */

enum { PARALLEL_ELEMENTS = 1 << 15 };

/* False, and nothing changed: there is at most one task. */
static bool share_out(lw_plan *p) {
  const ir_kernel *before = p->k;
  size_t length = p->text.n;
  const char *last = NULL;
  int64_t total = 1, lo, hi;
  for (const ir_stmt *s = p->k->body; s && s->kind == IR_FOR && total < 16;) {
    const char *name = s->var->name;
    if (!ix_const_value(s->lo, &lo) || !ix_const_value(s->hi, &hi) || total * (hi - lo) > 1 << 20) break;
    if (!lw_step(p, "parallel %s", name)) break;
    if (last && !lw_step(p, "fuse %s %s -> par", last, name)) break;
    last = last ? "par" : name;
    total *= hi - lo;
    s = ir_find_loop(p->k->body, last)->body;
  }
  if (total < 2) {
    p->k = before;
    lw_cut(p, length);
    return false;
  }
  if (total > 128) /* the largest divisor that leaves 16 to 128 tasks */
    for (int64_t tasks = 128; tasks >= 16; tasks--)
      if (total % tasks == 0) {
        lw_step(p, "split %s %lld -> task %s.in", last, (long long)(total / tasks), last);
        break;
      }
  return true;
}

/* Loop number `axis` of the outermost perfect nest, the outermost being 1, goes around the others. */
static bool bring_out(lw_plan *p, int axis) {
  ir_text others = {.ctx = p->ctx};
  const ir_stmt *s = p->k->body;
  for (int i = 1; i < axis && s && s->kind == IR_FOR && s->loop == IR_SERIAL; i++, s = s->body) ir_put(&others, " %s", s->var->name);
  return s && s->kind == IR_FOR && s->loop == IR_SERIAL && lw_step(p, "reorder %s%s", s->var->name, ir_text_str(&others));
}

void lw_parallel_outside(lw_plan *p) {
  if (p->p.flops < PARALLEL_ELEMENTS) return;
  const ir_kernel *before = p->k;
  size_t length = p->text.n;
  if (p->u.axis > 1 && bring_out(p, p->u.axis) && share_out(p)) {
    p->axis = p->u.axis;
    return;
  }
  p->k = before;
  lw_cut(p, length);
  share_out(p);
}

/* v in `lanes` parts: o * lanes + i. */
static ix in_parts(lw_plan *p, const ir_var *v, int64_t lanes, ir_var **i) {
  tn_ctx *ctx = p->ctx;
  int64_t n = v->hi - v->lo + 1;
  ir_var *o = ir_var_new(ctx, "o", TN_INDEX, 0, (n + lanes - 1) / lanes - 1);
  *i = ir_var_new(ctx, "i", TN_INDEX, 0, lanes - 1);
  return ix_add(ctx, ix_muli(ctx, o->expr, lanes), (*i)->expr);
}

bool lw_contiguous_out(lw_plan *p, const ir_var *v, int64_t lanes) {
  const ir_stmt *s = p->p.store;
  if (!s) return false;
  tn_ctx *ctx = p->ctx;
  int64_t c;
  ir_var *i;
  ix at = in_parts(p, v, lanes, &i);
  ix e = ix_subst1(ctx, ir_buf_offset(ctx, s->buf, s->index), v, at);
  return ix_affine_in(e, i, &c) && c == 1;
}

/* ---- everything else ---- */

static const ir_stmt *innermost(const ir_stmt *s, const char *done[], int ndone) {
  if (!s) return NULL;
  for (int i = 0; i < s->n; i++) {
    const ir_stmt *f = innermost(s->items[i], done, ndone);
    if (f) return f;
  }
  const ir_stmt *f = innermost(s->body, done, ndone);
  if (!f) f = innermost(s->other, done, ndone);
  if (f) return f;
  if (s->kind != IR_FOR || s->loop != IR_SERIAL) return NULL;
  for (int i = 0; i < ndone; i++)
    if (done[i] == s->var->name) return NULL;
  return s;
}

typedef struct strides {
  tn_ctx *ctx;
  const ir_var *v;
  int unit, zero, other;
} strides;

static void count_load(void *user, ix e) {
  strides *s = user;
  if (e->op != IX_LOAD) return;
  int64_t c = lw_stride(s->ctx, e, s->v);
  if (c == 1) s->unit++;
  else if (c == 0 && !ix_uses_var(e, s->v)) s->zero++;
  else s->other++;
}

static void count_strides(strides *s, const ir_stmt *st) {
  if (!st) return;
  if (st->value) ix_walk(s->ctx, st->value, count_load, s);
  if (st->kind == IR_STORE && st->buf->space != IR_REGISTER) count_load(s, ix_load(s->ctx, st->buf, st->index));
  for (int i = 0; i < st->n; i++) count_strides(s, st->items[i]);
  count_strides(s, st->body);
  count_strides(s, st->other);
}

/* Innermost loops, one after another, become vectors where memory allows. */
static void vectorize_inner_loops(lw_plan *p, int64_t lanes) {
  enum { MOST = 256 }; /* names of loops, up to four a turn */
  const char *done[MOST];
  int ndone = 0;
  for (;;) {
    const ir_stmt *l = ndone <= MOST - 4 ? innermost(p->k->body, done, ndone) : NULL;
    if (!l) return;
    const char *name = l->var->name;
    done[ndone++] = name;
    int64_t lo, hi;
    if (!ix_const_value(l->lo, &lo) || !ix_const_value(l->hi, &hi) || hi - lo < 4) continue;
    strides s = {.ctx = p->ctx, .v = l->var};
    count_strides(&s, l->body);
    if (!s.unit || s.other > s.unit) continue;
    const char *why, *o = ir_format(p->ctx, "%s.o", name), *i = ir_format(p->ctx, "%s.v", name);
    lw_dependence d = lw_loop_dependence(p->ctx, l, &why);
    const ir_kernel *before = p->k;
    size_t length = p->text.n;
    bool ok = false;
    int64_t width = lw_min(lanes, hi - lo);
    if (d == LW_PARALLEL) ok = lw_step(p, "split %s %lld -> %s %s", name, (long long)width, o, i) && lw_step(p, "vectorize %s", i);
    else if (d == LW_REDUCTION && hi - lo >= lanes) {
      int64_t wide = width = hi - lo >= 16 * lanes ? 4 * lanes : hi - lo >= 4 * lanes ? 2 * lanes : lanes;
      if (wide > 64) width = wide = 64;
      ok = lw_step(p, "rfactor %s %lld -> %s %s", name, (long long)wide, o, i) && lw_step(p, "vectorize %s", i) &&
           lw_step(p, "vectorize %s.z", i) && lw_step(p, "vectorize %s.r", i);
      if (ok) done[ndone++] = ir_intern(p->ctx, ir_format(p->ctx, "%s.z", i)), done[ndone++] = ir_intern(p->ctx, ir_format(p->ctx, "%s.r", i));
    }
    if (!ok) {
      p->k = before;
      lw_cut(p, length);
    } else {
      done[ndone++] = ir_intern(p->ctx, o);
      /* the masked tail apart, unless the loop is where tasks come from */
      if ((hi - lo) % width && p->k->body->kind == IR_FOR && p->k->body->var->name != ir_intern(p->ctx, o)) lw_step(p, "peel %s 0 1", o);
    }
  }
}

/* The output loop that is contiguous in the stored buffer, by splitting where it is blocked. */
static int vector_loop(lw_plan *p, int64_t lanes) {
  for (int i = p->p.nout; i-- > 0;)
    if (p->p.extent[i] >= (lanes < 8 ? lanes : 4) && lw_contiguous_out(p, p->p.out[i]->var, lanes)) return i;
  return -1;
}

typedef struct divisions {
  tn_ctx *ctx;
  bool found;
} divisions;
static void find_divisions(void *user, ix e) {
  divisions *d = user;
  d->found |= e->op == IX_LOAD ? ir_buf_offset(d->ctx, e->u.buf, e->args)->divides : e->dtype == TN_INDEX && e->divides;
}
static bool any_divisions(lw_plan *p, const ir_stmt *s) {
  if (!s) return false;
  divisions d = {.ctx = p->ctx};
  if (s->value) ix_walk(p->ctx, s->value, find_divisions, &d);
  if (d.found || (s->kind == IR_STORE && ir_buf_offset(p->ctx, s->buf, s->index)->divides)) return true;
  for (int i = 0; i < s->n; i++)
    if (any_divisions(p, s->items[i])) return true;
  return any_divisions(p, s->body) || any_divisions(p, s->other);
}

/* Joins neighbouring loops of the nest, from the inside, while addresses stay linear. */
static void fuse_contiguous(lw_plan *p) {
  for (;;) {
    const ir_stmt *s = p->k->body, *outer = NULL, *inner = NULL;
    for (; s && s->kind == IR_FOR && s->loop == IR_SERIAL; s = s->body) {
      outer = inner;
      inner = s;
    }
    if (!outer || any_divisions(p, outer->body)) return;
    const ir_kernel *before = p->k;
    size_t length = p->text.n;
    if (!lw_step(p, "fuse %s %s -> %s", outer->var->name, inner->var->name, inner->var->name)) return;
    if (!any_divisions(p, p->k->body)) continue;
    p->k = before;
    lw_cut(p, length);
    return;
  }
}

/* ---- transpositions ---- */

typedef struct across {
  tn_ctx *ctx;
  const ir_var *v, *u;
  bool far, along; /* a load that v walks across its rows; and that u walks along them */
} across;

static void look_across(void *user, ix e) {
  across *a = user;
  if (e->op != IX_LOAD || !ix_uses_var(e, a->v)) return;
  int64_t v = lw_stride(a->ctx, e, a->v);
  if (v == INT64_MIN || (v > -16 && v < 16)) return;
  a->far = true;
  a->along |= lw_stride(a->ctx, e, a->u) == 1;
}

/* Elements of a line of the result come from as many lines of an operand. Along v, the result's axis, a
 * line at a time; inside it u, the operand's: so each line that is read serves for several u while it is
 * near, and what is written are whole lines. */
static bool turned(lw_plan *p, int64_t lanes) {
  lw_problem *q = &p->p;
  int last = q->nout - 1;
  if (last < 1 || q->extent[last] < 2 * lanes || !lw_contiguous_out(p, q->out[last]->var, lanes)) return false;
  const char *v = q->out[last]->var->name, *u = NULL;
  for (int i = last - 1; i >= 0 && !u; i--) {
    across a = {.ctx = p->ctx, .v = q->out[last]->var, .u = q->out[i]->var};
    if (q->body->kind == IR_STORE) ix_walk(p->ctx, q->body->value, look_across, &a);
    if (a.far && a.along && q->extent[i] >= lanes) u = q->out[i]->var->name;
  }
  int64_t line = q->extent[last] % (2 * lanes) && q->extent[last] % lanes == 0 ? lanes : 2 * lanes;
  if (!u || !lw_step(p, "split %s %lld -> v.o v.i", v, (long long)line) || !lw_step(p, "split v.i %lld -> v.b v.v", (long long)lanes)) return false;
  ir_text order = {.ctx = p->ctx};
  ir_put(&order, "reorder");
  for (int i = 0; i < last; i++)
    if (q->out[i]->var->name != u) ir_put(&order, " %s", q->out[i]->var->name);
  if (!lw_step(p, "%s v.o %s v.b v.v", ir_text_str(&order), u)) return false;
  lw_step(p, "unroll v.b");
  return lw_step(p, "vectorize v.v");
}

static void pointwise(lw_plan *p) {
  int64_t lanes = cg_target_lanes(p->t, p->p.dtype == TN_F64 || p->p.dtype == TN_I64 || p->p.dtype == TN_U64 ? p->p.dtype : TN_F32);
  if (p->u.lanes) lanes = p->u.lanes;
  if (p->p.store && !p->p.store->buf->layout) {
    if (turned(p, lanes)) {
      lw_parallel_outside(p);
      return;
    }
    p->k = p->start;
    lw_cut(p, 0);
    if (!p->u.unfused) fuse_contiguous(p);
    vectorize_inner_loops(p, lanes);
    lw_parallel_outside(p);
    return;
  }
  int v = vector_loop(p, lanes);
  if (v >= 0 && lw_step(p, "split %s %lld -> vo vv", p->p.out[v]->var->name, (long long)lanes)) {
    ir_text t = {.ctx = p->ctx};
    ir_put(&t, "reorder vo");
    for (int i = v + 1; i < p->p.nout; i++) ir_put(&t, " %s", p->p.out[i]->var->name);
    ir_put(&t, " vv");
    if (v + 1 == p->p.nout || lw_step(p, "%s", ir_text_str(&t))) lw_step(p, "vectorize vv");
  }
  lw_parallel_outside(p);
}

typedef struct columns {
  lw_plan *p;
  const ir_var *v, *i;
  ix at;      /* v in parts */
  bool apart; /* what some load reads for one part is not one piece of memory */
} columns;

static void find_apart(void *user, ix e) {
  columns *c = user;
  int64_t step;
  if (e->op != IX_LOAD || !ix_uses_var(e, c->v)) return;
  ix offset = ix_subst1(c->p->ctx, ir_buf_offset(c->p->ctx, e->u.buf, e->args), c->v, c->at);
  c->apart |= !ix_affine_in(offset, c->i, &step) || step != 1;
}

static void walk_columns(columns *c, const ir_stmt *s) {
  if (!s) return;
  if (s->value) ix_walk(c->p->ctx, s->value, find_apart, c);
  for (int i = 0; i < s->n; i++) walk_columns(c, s->items[i]);
  walk_columns(c, s->body);
  walk_columns(c, s->other);
}

/* Lanes for sums down the columns of a matrix: as many as a few vectors have, so that whole lines are read and
 * additions need not wait for each other, where enough columns stay to be tasks and no columns lie in narrower blocks. */
static int64_t column_lanes(lw_plan *p, int v, int64_t lanes) {
  enum { VECTORS = 4, TASKS = 8 };
  const lw_problem *q = &p->p;
  for (int64_t wide = VECTORS * lanes; wide > lanes && v == q->nout - 1; wide /= 2) {
    if (wide > 64 || q->extent[v] % wide || q->extent[v] / wide < TASKS || !lw_contiguous_out(p, q->out[v]->var, wide)) continue;
    ir_var *i;
    columns c = {.p = p, .v = q->out[v]->var, .at = in_parts(p, q->out[v]->var, wide, &i)};
    c.i = i;
    walk_columns(&c, q->body);
    if (!c.apart) return wide;
  }
  return lanes;
}

/* The one sum (or maximum, ..) of a kernel, without a guard: its loops outermost first; 0: something else. */
static int loops_of_sum(const ir_stmt *s, const ir_stmt *loops[LW_MAX_LOOPS]) {
  const ir_stmt *outer = NULL;
  int n = 0;
  if (!s || s->kind != IR_ALLOC || !s->body || s->body->kind != IR_SEQ) return 0;
  for (int i = 0; i < s->body->n; i++) {
    const ir_stmt *item = s->body->items[i];
    if (item->kind == IR_FOR && outer) return 0;
    if (item->kind == IR_FOR) outer = item;
    else if (item->kind != IR_STORE && item->kind != IR_LET) return 0;
  }
  for (s = outer; s && s->kind == IR_FOR && n < LW_MAX_LOOPS; s = s->body) loops[n++] = s;
  return s && s->kind == IR_STORE ? n : 0;
}

typedef struct bends {
  tn_ctx *ctx;
  const ir_var *v;
  bool found;
} bends;
static void find_bends(void *user, ix e) {
  bends *b = user;
  b->found |= e->op == IX_LOAD && ix_uses_var(e, b->v) && lw_stride(b->ctx, e, b->v) == INT64_MIN;
}

/* Whether the innermost loop `name` walks through memory evenly: blocks of channels, say, may divide other variables. */
static bool walks_evenly(lw_plan *p, const char *name) {
  const ir_stmt *l = ir_find_loop(p->k->body, name);
  bends b = {.ctx = p->ctx, .v = l->var};
  if (l->body->value) ix_walk(p->ctx, l->body->value, find_bends, &b);
  return !b.found;
}

/* Sums of several elements side by side, added in the end: additions to one wait for each other, three cycles or four
 * each, in which two vectors a cycle could be read. */
static void side_by_side(lw_plan *p) {
  enum { MOST = 8, MOST_ODD = 13 };
  const ir_stmt *loops[LW_MAX_LOOPS];
  int n = loops_of_sum(p->p.body, loops);
  if (!n) return;
  const char *sum = loops[n - 1]->var->name;
  for (int i = n - 1; i-- > 0;) { /* what lies one after another is one loop */
    const ir_kernel *before = p->k;
    size_t length = p->text.n;
    bool fused = lw_step(p, "fuse %s %s -> %s", loops[i]->var->name, sum, sum);
    if (fused && walks_evenly(p, sum)) continue;
    p->k = before;
    lw_cut(p, length);
    break;
  }
  const ir_stmt *l = ir_find_loop(p->k->body, sum);
  int64_t lo, hi, each = 0;
  if (!ix_const_value(l->lo, &lo) || !ix_const_value(l->hi, &hi)) return;
  for (int64_t d = MOST; d > 1 && !each; d--)
    if ((hi - lo) % d == 0) each = d;
  for (int64_t d = MOST + 1; d <= MOST_ODD && !each; d++)
    if ((hi - lo) % d == 0) each = d;
  if (!each || hi - lo < 2 * each) return;
  const char *inner = ir_format(p->ctx, "%s.u", sum);
  if (lw_step(p, "rfactor %s %lld -> %s.o %s", sum, (long long)each, sum, inner)) lw_kind(p, "unroll", inner);
}

/* Is something added to a single number here, outside the loops inside? */
static bool adds(const ir_stmt *s) {
  bool any = s && s->kind == IR_STORE && s->op == IR_ADD && ir_is_float(s->buf->dtype) && !s->buf->rank;
  for (int i = 0; s && i < s->n; i++) any |= adds(s->items[i]);
  return any || (s && s->kind != IR_FOR && (adds(s->body) || adds(s->other)));
}

/* Long sums among several reductions, as of a softmax over columns: each is some sums side by side, whose rounding errors are
 * those of shorter ones (default_sums.c). */
static void long_sums(lw_plan *p, const ir_stmt *s) {
  enum { LONG = 144, LONGER = 1024 };
  int64_t lo, hi;
  if (!s) return;
  for (int i = 0; i < s->n; i++) long_sums(p, s->items[i]);
  long_sums(p, s->body);
  long_sums(p, s->other);
  if (s->kind != IR_FOR || !adds(s->body) || !ix_const_value(s->lo, &lo) || !ix_const_value(s->hi, &hi) || hi - lo <= LONG) return;
  const char *name = s->var->name;
  int sides = hi - lo > LONGER ? 8 : 4;
  if (!lw_step(p, "rfactor %s %d -> %s.o %s.u", name, sides, name, name)) return;
  lw_kind(p, "unroll", ir_format(p->ctx, "%s.u", name));
  if ((hi - lo) % sides) lw_step(p, "peel %s.o 0 1", name);
}

/* { accumulators; reductions; store } that is no contraction: vectors along an output loop
 * when memory runs along it, else along the reductions. */
static void accumulate(lw_plan *p) {
  int64_t lanes = p->u.lanes ? p->u.lanes : cg_target_lanes(p->t, TN_F32);
  int v = vector_loop(p, lanes);
  if (v >= 0 && !p->u.lanes && !p->p.guard) lanes = column_lanes(p, v, lanes);
  const ir_kernel *before = p->k;
  size_t length = p->text.n;
  if (v >= 0 && p->p.extent[v] >= lanes / 2) {
    const char *name = p->p.out[v]->var->name;
    strides s = {.ctx = p->ctx};
    if (lanes == cg_target_lanes(p->t, TN_F32) && p->p.extent[v] % lanes == 0 && !p->u.unfused) side_by_side(p);
    if (lanes == cg_target_lanes(p->t, TN_F32)) long_sums(p, p->k->body); /* wider, the registers are full */
    if (lw_step(p, "split %s %lld -> vo vv", name, (long long)lanes)) {
      const ir_stmt *l = ir_find_loop(p->k->body, "vv");
      s.v = l->var;
      count_strides(&s, l->body);
      /* as many of either: a window's few taps leave nothing to vectorize but this */
      bool taps = s.unit == s.other;
      for (int i = 0; i < p->p.nred; i++) taps &= p->p.red_extent[i] < lanes;
      if (s.unit > s.other || taps) {
        ir_text t = {.ctx = p->ctx};
        ir_put(&t, "reorder vo");
        for (int i = v + 1; i < p->p.nout; i++) ir_put(&t, " %s", p->p.out[i]->var->name);
        ir_put(&t, " vv");
        if ((v + 1 == p->p.nout || lw_step(p, "%s", ir_text_str(&t))) && lw_step(p, "distribute vv")) {
          lw_kind(p, "vectorize", "vv");
          if (lw_has_loop(p, "r") && p->p.guard) lw_step(p, "narrow r");
          if (!ir_kernel_verify(p->ctx, p->k)) { /* a part that is no vector still indexes the accumulators */
            lw_parallel_outside(p);
            return;
          }
        }
      }
    }
    p->k = before;
    lw_cut(p, length);
  }
  vectorize_inner_loops(p, p->u.lanes ? p->u.lanes : cg_target_lanes(p->t, TN_F32));
  lw_parallel_outside(p);
}

const char *lw_default_schedule(tn_ctx *ctx, const ir_kernel *k, const cg_target *t, double accuracy) {
  return lw_schedule_with(ctx, k, t, &(lw_tunables){.accuracy = accuracy}, NULL, NULL);
}

static const char *default_steps(lw_plan *p);

const char *lw_schedule_with(tn_ctx *ctx, const ir_kernel *k, const cg_target *t, const lw_tunables *u, lw_tunables *got, const ir_kernel **scheduled) {
  lw_plan p = {.ctx = ctx, .start = k, .k = k, .t = t, .u = *u, .text = {.ctx = ctx}, .p = lw_problem_of(ctx, k)};
  const char *text = k->body ? default_steps(&p) : "";
  if (p.p.kind == LW_CONTRACTION && u->parts != 1) { /* too few tasks, perhaps */
    lw_plan parts = {.ctx = ctx, .start = k, .k = k, .t = t, .u = *u, .text = {.ctx = ctx}, .p = lw_problem_of(ctx, k)};
    if (lw_default_splitk(&parts, lw_tasks_of(p.k))) p = parts, text = ir_text_str(&p.text);
  }
  p.got.axis = p.axis;
  if (got) *got = p.got;
  if (scheduled) *scheduled = p.k;
  return text;
}

static void start_again(lw_plan *p) {
  p->k = p->start;
  p->got = (lw_tunables){0};
  p->axis = 0;
  lw_cut(p, 0);
}

static const char *default_steps(lw_plan *p) {
  switch (p->p.kind) {
  case LW_CONTRACTION:
    if (lw_default_winograd(p)) return ir_text_str(&p->text);
    start_again(p);
    if (lw_default_winograd_weights(p)) return ir_text_str(&p->text);
    start_again(p);
    if (lw_default_int8(p)) break;
    start_again(p);
    p->p = lw_problem_of(p->ctx, p->k);
    if (lw_default_dots(p)) break;
    start_again(p);
    p->p = lw_problem_of(p->ctx, p->k);
    if (lw_default_gemm(p)) break;
    start_again(p);
    p->p = lw_problem_of(p->ctx, p->k);
    if (lw_default_contraction(p)) break;
    start_again(p);
    accumulate(p);
    break;
  case LW_POINTWISE: pointwise(p); break;
  case LW_ACCUMULATE:
    if (lw_default_attention(p)) return ir_text_str(&p->text);
    start_again(p);
    if (lw_default_pool(p)) break;
    start_again(p);
    accumulate(p);
    break;
  default:
    vectorize_inner_loops(p, p->u.lanes ? p->u.lanes : cg_target_lanes(p->t, TN_F32));
    lw_parallel_outside(p);
  }
  if (p->p.update && !p->t->fma) lw_step(p, "muladd");
  if (p->p.kind != LW_CONTRACTION) p->got.lanes = p->u.lanes ? p->u.lanes : cg_target_lanes(p->t, TN_F32), p->got.unfused = p->u.unfused;
  return ir_text_str(&p->text);
}
