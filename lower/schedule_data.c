/* schedule_data.c — steps that change accumulators, layouts and tiles. */
#include "ir/picked.h"
#include "lower/schedule_internal.h"
#include <math.h>
#include <string.h>

/* ---- distribute a b ... ---- */

typedef struct dist {
  sched *s;
  int n;
  const ir_stmt *loops[SCHED_MAX_ARGS]; /* outermost first */
  ix guards[SCHED_MAX_ARGS];
  int nguards, copies;
  int nbufs;
  ir_buf *old[SCHED_MAX_ARGS], *grown[SCHED_MAX_ARGS];
} dist;

static ix grow_load(void *user, ix load) {
  dist *d = user;
  for (int i = 0; i < d->nbufs; i++)
    if (d->old[i] == load->u.buf) {
      ix index[IR_MAX_RANK];
      for (int k = 0; k < d->n; k++) index[k] = ix_sub(d->s->ctx, d->loops[k]->var->expr, d->loops[k]->lo);
      for (int k = 0; k < load->nargs; k++) index[d->n + k] = load->args[k];
      return ix_load(d->s->ctx, d->grown[i], index);
    }
  return NULL;
}

static ix grow_expr(ir_rewriter *r, ix e) { return ix_subst_loads(r->ctx, e, grow_load, r->user); }

static const ir_stmt *grow_store(ir_rewriter *r, const ir_stmt *st) {
  dist *d = r->user;
  if (st->kind != IR_STORE) return st;
  for (int i = 0; i < d->nbufs; i++)
    if (d->old[i] == st->buf) {
      ix index[IR_MAX_RANK];
      for (int k = 0; k < d->n; k++) index[k] = ix_sub(r->ctx, d->loops[k]->var->expr, d->loops[k]->lo);
      for (int k = 0; k < st->buf->rank; k++) index[d->n + k] = grow_expr(r, st->index[k]);
      return ir_store(r->ctx, d->grown[i], index, st->op, grow_expr(r, st->value));
    }
  return st;
}

/* Statement in the loops (fresh ones but for the first reduction nest, which keeps the names). */
static const ir_stmt *wrap(dist *d, const ir_stmt *body, bool keep) {
  tn_ctx *ctx = d->s->ctx;
  bool done[SCHED_MAX_ARGS] = {false};
  for (int i = d->n; i-- > 0;) {
    const ir_stmt *l = d->loops[i];
    for (int g = d->nguards; g-- > 0;) /* as far out as they are known */
      if (!done[g] && (i == 0 || ix_uses_var(d->guards[g], l->var))) {
        done[g] = true;
        body = ir_if(ctx, d->guards[g], body, NULL);
      }
    ir_var *v = l->var;
    if (!keep) {
      const char *name = ir_format(ctx, "%s.i%d", l->var->name, d->copies);
      for (int k = d->copies; ir_find_loop(d->s->k->body, name); k++) name = ir_format(ctx, "%s.i%d_%d", l->var->name, d->copies, k);
      v = ir_var_new(ctx, name, TN_INDEX, l->var->lo, l->var->hi);
      body = ir_subst_var(ctx, body, l->var, v->expr);
    }
    body = ir_for(ctx, v, l->lo, l->hi, l->loop, body);
  }
  if (!keep) d->copies++;
  return body;
}

static bool uses_loops(const dist *d, ix e) {
  for (int i = 0; i < d->n; i++)
    if (ix_uses_var(e, d->loops[i]->var)) return true;
  return false;
}

static const ir_stmt *push_in(dist *d, const ir_stmt *st, bool *kept) {
  tn_ctx *ctx = d->s->ctx;
  if (st->kind == IR_FOR && st->loop == IR_SERIAL && !uses_loops(d, st->lo) && !uses_loops(d, st->hi))
    return ir_for(ctx, st->var, st->lo, st->hi, st->loop, push_in(d, st->body, kept));
  if (st->kind == IR_IF && !st->other && !uses_loops(d, st->value)) return ir_if(ctx, st->value, push_in(d, st->body, kept), NULL);
  bool keep = !*kept;
  *kept = true;
  return wrap(d, st, keep);
}

static const ir_stmt *spread(dist *d, const ir_stmt *st, bool *kept) {
  tn_ctx *ctx = d->s->ctx;
  if (st->kind == IR_SEQ) {
    const ir_stmt **items = IR_NEW_ARRAY(ctx, const ir_stmt *, st->n);
    for (int i = 0; i < st->n; i++) items[i] = spread(d, st->items[i], kept);
    return ir_seq(ctx, st->n, items);
  }
  if (st->kind == IR_FOR) return push_in(d, st, kept);
  return wrap(d, st, false);
}

/* Whether partial sums stand below an accumulator (chunk): then it is an array in memory. */
static bool has_alloc(const ir_stmt *st) {
  if (!st) return false;
  if (st->kind == IR_FOR && st->body && st->body->kind == IR_ALLOC) return true;
  for (int i = 0; i < st->n; i++)
    if (has_alloc(st->items[i])) return true;
  return has_alloc(st->body) || has_alloc(st->other);
}

/* What stands in the loops, its accumulators as arrays over them (d->grown, not yet allocated). */
static const ir_stmt *grow(sched *s, dist *d, const ir_stmt *body) {
  tn_ctx *ctx = s->ctx;
  for (int i = 0; i < d->n;) {
    if (body && body->kind == IR_FOR && body == d->loops[i]) i++, body = body->body;
    else if (body && body->kind == IR_IF && !body->other && d->nguards < SCHED_MAX_ARGS) d->guards[d->nguards++] = body->value, body = body->body;
    else {
      refuse(s, "'%s' is not directly inside the loop before it", d->loops[i]->var->name);
      return NULL;
    }
  }
  while (body && body->kind == IR_IF && !body->other && d->nguards < SCHED_MAX_ARGS) d->guards[d->nguards++] = body->value, body = body->body;
  for (; body && body->kind == IR_ALLOC; body = body->body) {
    ir_buf *b = body->buf;
    if (d->nbufs == SCHED_MAX_ARGS || d->n + b->rank > IR_MAX_RANK || b->layout) {
      refuse(s, "the accumulator '%s' cannot grow by %d axes", b->name, d->n);
      return NULL;
    }
    ix shape[IR_MAX_RANK];
    for (int k = 0; k < d->n; k++) shape[k] = ix_sub(ctx, d->loops[k]->hi, d->loops[k]->lo);
    for (int k = 0; k < b->rank; k++) shape[d->n + k] = b->shape[k];
    d->old[d->nbufs] = b;
    d->grown[d->nbufs++] = ir_buf_new(ctx, b->name, b->dtype, d->n + b->rank, shape, NULL, has_alloc(b->space == IR_REGISTER ? body->body : NULL) ? IR_LOCAL : b->space);
  }
  if (!d->nbufs) {
    refuse(s, "there is no accumulator inside '%s'", d->loops[d->n - 1]->var->name);
    return NULL;
  }
  ir_rewriter r = {.ctx = ctx, .user = d, .expr = grow_expr, .stmt = grow_store};
  return ir_rewrite(&r, body);
}

static const ir_stmt *allocate(dist *d, const ir_stmt *body) {
  for (int i = d->nbufs; i-- > 0;) body = ir_alloc_stmt(d->s->ctx, d->grown[i], body);
  return body;
}

static const ir_stmt *do_distribute(sched *s, const ir_stmt *outer, void *user) {
  const ir_stmt *body = grow(s, user, outer);
  bool kept = false;
  return body ? allocate(user, spread(user, body, &kept)) : NULL;
}

/* Loops of a constant extent whose iterations know nothing of each other: arguments `first` on. */
static bool take_loops(sched *s, dist *d, int first) {
  d->s = s;
  for (int i = first; i < s->nargs; i++) {
    const ir_stmt *l = d->loops[d->n++] = sched_loop(s, s->arg[i]);
    int64_t n;
    const char *why;
    if (!l) return false;
    if (!sched_extent(l, &n)) return refuse(s, "'%s' has no constant extent", s->arg[i]);
    if (lw_loop_dependence(s->ctx, l, &why) != LW_PARALLEL) return refuse(s, "'%s': %s", s->arg[i], why ? why : "its iterations meet in one accumulator");
  }
  return true;
}


bool sched_distribute(sched *s) {
  dist d = {0};
  return take_loops(s, &d, 0) && sched_replace(s, s->arg[0], do_distribute, &d);
}

/* ---- raise k a b ... ---- */

static const ir_stmt *do_raise(sched *s, const ir_stmt *outer, void *user) {
  tn_ctx *ctx = s->ctx;
  dist *d = user;
  const ir_stmt *body = grow(s, d, outer), *k = NULL;
  if (!body) return NULL;
  const ir_stmt *const *items = body->kind == IR_SEQ ? body->items : &body;
  int n = body->kind == IR_SEQ ? body->n : 1, at = -1;
  for (int i = 0; i < n; i++)
    if (items[i]->kind == IR_FOR && strcmp(items[i]->var->name, s->arg[0]) == 0) at = i, k = items[i];
  int64_t steps;
  if (!k || k->loop != IR_SERIAL || !sched_extent(k, &steps) || steps < 1 || uses_loops(d, k->lo) || uses_loops(d, k->hi)) {
    refuse(s, k ? "'%s' is no serial loop with a constant number of steps" : "'%s' is not directly beside the accumulator", s->arg[0]);
    return NULL;
  }
  ix first = ix_le(ctx, k->var->expr, k->lo), last = ix_le(ctx, k->hi, ix_addi(ctx, k->var->expr, 1));
  const ir_stmt **inside = IR_NEW_ARRAY(ctx, const ir_stmt *, n);
  for (int i = 0; i < n; i++) inside[i] = i == at ? k->body : ir_if(ctx, i < at ? first : last, items[i], NULL);
  return allocate(d, ir_for(ctx, k->var, k->lo, k->hi, IR_SERIAL, wrap(d, ir_seq(ctx, n, inside), true)));
}

bool sched_raise(sched *s) {
  dist d = {0};
  return take_loops(s, &d, 1) && sched_replace(s, s->arg[1], do_raise, &d);
}

/* ---- rfactor k F -> o i ---- */

static ix identity_of(tn_ctx *ctx, ir_store_op op, tn_dtype t) {
  switch (op) {
  case IR_ADD: return ix_num(ctx, t, ir_is_float(t) ? -0.0 : 0);
  case IR_MUL: return ix_num(ctx, t, 1);
  case IR_MAX:
    if (ir_is_float(t)) return ix_float(ctx, t, -INFINITY);
    return ir_is_unsigned(t) ? ix_int(ctx, t, 0) : ix_int(ctx, t, (int64_t)(~0ull << (ir_dtype_bits(t) - 1)));
  case IR_MIN:
    if (ir_is_float(t)) return ix_float(ctx, t, INFINITY);
    return ix_int(ctx, t, ir_is_unsigned(t) ? -1 : (int64_t)(~(~0ull << (ir_dtype_bits(t) - 1))));
  default: return NULL;
  }
}

/* The one store to a register below s, or null when there is none or more (*count says). */
static const ir_stmt *only_update(const ir_stmt *s, int *count) {
  if (!s) return NULL;
  if (s->kind == IR_STORE && s->buf->space == IR_REGISTER) {
    ++*count;
    return s;
  }
  const ir_stmt *found = NULL, *f;
  for (int i = 0; i < s->n; i++)
    if ((f = only_update(s->items[i], count))) found = f;
  if ((f = only_update(s->body, count))) found = f;
  if ((f = only_update(s->other, count))) found = f;
  return found;
}

/* Whether e needs a loop or let of the statement. */
static bool uses_inner(ix e, const ir_stmt *s) {
  if (!s) return false;
  if ((s->kind == IR_FOR || s->kind == IR_LET) && ix_uses_var(e, s->var)) return true;
  for (int i = 0; i < s->n; i++)
    if (uses_inner(e, s->items[i])) return true;
  return uses_inner(e, s->body) || uses_inner(e, s->other);
}

typedef struct swap {
  const ir_stmt *old, *by;
} swap;
static const ir_stmt *swap_stmt(ir_rewriter *r, const ir_stmt *st) {
  swap *w = r->user;
  return st == w->old ? w->by : st;
}

bool sched_find_update(sched *s, const ir_stmt *loop, sched_update *u) {
  int count = 0;
  const ir_stmt *st = only_update(loop->body, &count);
  if (count != 1) return refuse(s, "the loop does not hold one update of a register accumulator");
  ix term = st->value, self = ix_load(s->ctx, st->buf, st->index);
  *u = (sched_update){.st = st, .op = st->op, .term = term};
  if (st->op == IR_SET) {
    if (term->op == IX_FMA && term->args[2] == self) u->fma = true, u->op = IR_ADD;
    else if ((term->op == IX_ADD || term->op == IX_MUL) && (term->args[0] == self || term->args[1] == self))
      u->op = term->op == IX_ADD ? IR_ADD : IR_MUL, u->term = term->args[0] == self ? term->args[1] : term->args[0];
  }
  u->zero = identity_of(s->ctx, u->op, st->buf->dtype);
  if (!u->zero || ix_uses_buf(u->fma ? term->args[0] : u->term, st->buf) || (u->fma && ix_uses_buf(term->args[1], st->buf)))
    return refuse(s, "'%s' is not updated by add, mul, max or min", st->buf->name);
  for (int i = 0; i < st->buf->rank; i++)
    if (ix_uses_var(st->index[i], loop->var) || uses_inner(st->index[i], loop->body))
      return refuse(s, "the element of '%s' that is updated changes inside the loop", st->buf->name);
  return true;
}

static const ir_stmt *do_rfactor(sched *s, const ir_stmt *loop, void *user) {
  (void)user;
  tn_ctx *ctx = s->ctx;
  int64_t factor = s->num[1], extent;
  sched_update u;
  if (!sched_find_update(s, loop, &u)) return NULL;
  const ir_stmt *st = u.st;
  ix none = ix_index(ctx, 0);
  if (!sched_extent(loop, &extent)) {
    refuse(s, "the loop has no constant extent");
    return NULL;
  }
  ix shape[1] = {ix_index(ctx, factor)};
  for (int i = 0; i < 2; i++) {
    const char *copy = ir_format(ctx, "%s.%c", s->arg[3], "zr"[i]);
    if (ir_find_loop(s->k->body, copy)) {
      refuse(s, "there is already a loop '%s'", copy);
      return NULL;
    }
  }
  ir_buf *part = ir_buf_new(ctx, ir_format(ctx, "%s.%s", st->buf->name, s->arg[3]), st->buf->dtype, 1, shape, NULL, IR_REGISTER);
  ir_var *o = sched_var(s, s->arg[2], none, ix_index(ctx, (extent + factor - 1) / factor));
  ir_var *i = ir_var_new(ctx, s->arg[3], TN_INDEX, 0, factor - 1);
  ix lane[1] = {i->expr}, at = ix_add(ctx, loop->lo, ix_add(ctx, ix_muli(ctx, o->expr, factor), i->expr));
  ix old = ix_load(ctx, part, lane);
  const ir_stmt *step = u.fma ? ir_store(ctx, part, lane, IR_SET, ix_fma(ctx, u.term->args[0], u.term->args[1], old)) : ir_store(ctx, part, lane, u.op, u.term);
  ir_rewriter r = {.ctx = ctx, .user = &(swap){st, step}, .stmt = swap_stmt};
  const ir_stmt *body = ir_subst_var(ctx, ir_rewrite(&r, loop->body), loop->var, at);
  if (extent % factor) body = ir_if(ctx, ix_lt(ctx, at, loop->hi), body, NULL);
  ir_var *z = ir_var_new(ctx, ir_format(ctx, "%s.z", s->arg[3]), TN_INDEX, 0, factor - 1);
  ir_var *q = ir_var_new(ctx, ir_format(ctx, "%s.r", s->arg[3]), TN_INDEX, 0, factor - 1);
  const ir_stmt *items[3] = {
      ir_for(ctx, z, none, shape[0], IR_SERIAL, ir_store(ctx, part, (ix[]){z->expr}, IR_SET, u.zero)),
      ir_for(ctx, o, none, ix_index(ctx, (extent + factor - 1) / factor), IR_SERIAL, ir_for(ctx, i, none, shape[0], IR_SERIAL, body)),
      ir_for(ctx, q, none, shape[0], IR_SERIAL, ir_store(ctx, st->buf, st->index, u.op, ix_load(ctx, part, (ix[]){q->expr}))),
  };
  return ir_alloc_stmt(ctx, part, ir_seq(ctx, 3, items));
}

bool sched_rfactor(sched *s) {
  const ir_stmt *loop = sched_loop(s, s->arg[0]);
  const char *why;
  if (!loop) return false;
  if (s->num[1] < 2 || s->num[1] > 256) return refuse(s, "the factor %lld is not in 2..256", (long long)s->num[1]);
  if (lw_loop_dependence(s->ctx, loop, &why) != LW_REDUCTION) return refuse(s, "%s", why ? why : "the loop reduces nothing");
  for (int i = 2; i < 4; i++)
    if (strcmp(s->arg[i], s->arg[0]) != 0 && !sched_new_name(s, s->arg[i])) return false;
  return sched_replace(s, s->arg[0], do_rfactor, NULL);
}

/* ---- chunk k F -> o i ---- */

static const ir_stmt *do_chunk(sched *s, const ir_stmt *loop, void *user) {
  (void)user;
  tn_ctx *ctx = s->ctx;
  int64_t factor = s->num[1], extent;
  sched_update u;
  if (!sched_find_update(s, loop, &u)) return NULL;
  if (!sched_extent(loop, &extent)) {
    refuse(s, "the loop has no constant extent");
    return NULL;
  }
  ir_buf *part = ir_buf_new(ctx, ir_format(ctx, "%s.%s", u.st->buf->name, s->arg[3]), u.st->buf->dtype, 0, NULL, NULL, IR_REGISTER);
  ix none = ix_index(ctx, 0), trips = ix_index(ctx, (extent + factor - 1) / factor), sum = ix_load(ctx, part, NULL);
  ir_var *o = sched_var(s, s->arg[2], none, trips), *i = ir_var_new(ctx, s->arg[3], TN_INDEX, 0, factor - 1);
  ix at = ix_add(ctx, loop->lo, ix_add(ctx, ix_muli(ctx, o->expr, factor), i->expr));
  const ir_stmt *step = u.fma ? ir_store(ctx, part, NULL, IR_SET, ix_fma(ctx, u.term->args[0], u.term->args[1], sum)) : ir_store(ctx, part, NULL, u.op, u.term);
  ir_rewriter r = {.ctx = ctx, .user = &(swap){u.st, step}, .stmt = swap_stmt};
  const ir_stmt *body = ir_subst_var(ctx, ir_rewrite(&r, loop->body), loop->var, at);
  if (extent % factor) body = ir_if(ctx, ix_lt(ctx, at, loop->hi), body, NULL);
  const ir_stmt *items[3] = {
      ir_store(ctx, part, NULL, IR_SET, u.zero),
      ir_for(ctx, i, none, ix_index(ctx, factor), IR_SERIAL, body),
      ir_store(ctx, u.st->buf, u.st->index, u.op, sum),
  };
  return ir_for(ctx, o, none, trips, IR_SERIAL, ir_alloc_stmt(ctx, part, ir_seq(ctx, 3, items)));
}

bool sched_chunk(sched *s) {
  const ir_stmt *loop = sched_loop(s, s->arg[0]);
  const char *why;
  if (!loop) return false;
  if (s->num[1] < 1 || s->num[1] > 1 << 24) return refuse(s, "the factor %lld is not in 1..2^24", (long long)s->num[1]);
  if (lw_loop_dependence(s->ctx, loop, &why) != LW_REDUCTION) return refuse(s, "%s", why ? why : "the loop reduces nothing");
  if (strcmp(s->arg[2], s->arg[3]) == 0) return refuse(s, "both new loops are called '%s'", s->arg[2]);
  for (int i = 2; i < 4; i++)
    if (strcmp(s->arg[i], s->arg[0]) != 0 && !sched_new_name(s, s->arg[i])) return false;
  return sched_replace(s, s->arg[0], do_chunk, NULL);
}

/* ---- layout buf "steps" ---- */

typedef struct rebuf {
  ir_rewriter r;
  ir_buf *old, *by;
} rebuf;
static ix rebuf_load(void *user, ix load) {
  rebuf *b = user;
  return load->u.buf == b->old ? ix_load(b->r.ctx, b->by, load->args) : NULL;
}
static ix rebuf_expr(ir_rewriter *r, ix e) { return ix_subst_loads(r->ctx, e, rebuf_load, r); }

static const ir_stmt *rebuf_stmt(ir_rewriter *r, const ir_stmt *st) {
  rebuf *b = (rebuf *)r;
  if (st->kind == IR_ALLOC && st->buf == b->old) return ir_alloc_stmt(r->ctx, b->by, ir_rewrite(r, st->body));
  if (st->kind != IR_STORE || st->buf != b->old) return st;
  ix index[IR_MAX_RANK];
  for (int i = 0; i < st->buf->rank; i++) index[i] = rebuf_expr(r, st->index[i]);
  return ir_store(r->ctx, b->by, index, st->op, rebuf_expr(r, st->value));
}

/* The local buffer of that name; null: none, or several. */
static ir_buf *find_local(const ir_stmt *st, const char *name, int *count) {
  if (!st) return NULL;
  ir_buf *found = NULL, *f;
  if (st->kind == IR_ALLOC && st->buf->space == IR_LOCAL && strcmp(st->buf->name, name) == 0) found = st->buf, ++*count;
  for (int i = 0; i < st->n; i++)
    if ((f = find_local(st->items[i], name, count))) found = f;
  if ((f = find_local(st->body, name, count))) found = f;
  if ((f = find_local(st->other, name, count))) found = f;
  return *count == 1 ? found : NULL;
}

bool sched_layout(sched *s) {
  tn_ctx *ctx = s->ctx;
  int operand = -1, count = 0;
  for (int i = 0; i < s->k->nbufs; i++)
    if (strcmp(s->k->bufs[i]->name, s->arg[0]) == 0) operand = i;
  ir_buf *b = operand >= 0 ? s->k->bufs[operand] : find_local(s->k->body, s->arg[0], &count);
  if (!b) return refuse(s, "there is no buffer '%s'", s->arg[0]);
  if (operand >= 0 && !b->constant) return refuse(s, "'%s' is not a constant operand: its memory is given", b->name);
  ir_buf *by = ir_buf_new(ctx, b->name, b->dtype, b->rank, b->shape, ir_layout_parse(ctx, s->arg[1]), b->space);
  by->access = b->access;
  by->constant = b->constant;
  by->made = b->made;
  ir_buf_elements(ctx, by); /* throws when the steps do not fit the shape */
  rebuf w = {.r = {.ctx = ctx, .expr = rebuf_expr, .stmt = rebuf_stmt}, .old = b, .by = by};
  s->k->body = ir_rewrite(&w.r, s->k->body);
  if (operand >= 0) s->k->bufs[operand] = by;
  return true;
}

/* ---- tensorize atom v ---- */

/* fma: a nest of constant loops around acc[...] = fma(a, b, acc[...]). */
static const char *not_fma(const ir_stmt *st) {
  int64_t n;
  for (; st && (st->kind == IR_FOR || (st->kind == IR_IF && !st->other)); st = st->body)
    if (st->kind == IR_FOR && !sched_extent(st, &n)) return "a loop inside has no constant extent";
  if (!st || st->kind != IR_STORE || st->op != IR_SET || st->value->op != IX_FMA) return "its body is not acc = fma(a, b, acc)";
  ix c = st->value->args[2];
  if (c->op != IX_LOAD || c->u.buf != st->buf || st->buf->space != IR_REGISTER) return "the accumulator is not in registers";
  for (int i = 0; i < st->buf->rank; i++)
    if (c->args[i] != st->index[i]) return "it does not add to what it stores";
  return NULL;
}

/* dot: for d in 0..2, 0..4 or, of picked bytes, 0..8: acc = acc + i32(a[.. d]) * i32(b[.. d]), bytes or words that lie side by side, or bytes
 * that a table picks (ir/picked.h); a condition that is the same for all d goes outside. */
static bool dot_operand(tn_ctx *ctx, ix e, const ir_var *d) {
  int64_t c;
  if (e->op != IX_CAST || e->dtype != TN_I32 || e->args[0]->op != IX_LOAD) return false;
  ix load = e->args[0];
  tn_dtype t = load->u.buf->dtype;
  return (t == TN_U8 || t == TN_I8 || t == TN_I16) && ix_affine_in(ir_buf_offset(ctx, load->u.buf, load->args), d, &c) && c == 1;
}

static bool dot_operands(tn_ctx *ctx, ix product, const ir_var *d, int64_t n) {
  const ir_var *i = ir_var_new(ctx, "i", TN_INDEX, 0, IR_PICKED_STEP - 1);
  ix part[2], table[2], from;
  bool picked = false;
  for (int k = 0; k < 2; k++) {
    ix e = product->args[k];
    if (e->op == IX_CAST && e->dtype == TN_I32 && ir_picked_step(ctx, e->args[0], d, n, i, part, table, &from)) picked = true;
    else if (n < 8 ? !dot_operand(ctx, e, d) : !dot_operand(ctx, ix_subst1(ctx, e, d, i->expr), i) || !dot_operand(ctx, ix_subst1(ctx, e, d, ix_addi(ctx, i->expr, IR_PICKED_STEP)), i)) return false;
  }
  return picked || n < 8;
}

static const char *not_dot(tn_ctx *ctx, const ir_stmt *loop, const ir_stmt *st) {
  int64_t n;
  if (!sched_extent(loop, &n) || (n != 2 && n != 4 && n != 8) || !ix_is_int(loop->lo, 0)) return "the loop does not run from 0 to 2, 4 or 8";
  if (!st || st->kind != IR_STORE || st->op != IR_SET || st->value->op != IX_ADD || st->value->dtype != TN_I32 || st->buf->space != IR_REGISTER) return "its body is not acc = acc + a * b in i32";
  ix acc = ix_load(ctx, st->buf, st->index), product = st->value->args[st->value->args[0] == acc];
  if ((st->value->args[0] != acc && st->value->args[1] != acc) || product->op != IX_MUL || ix_uses_var(acc, loop->var)) return "it does not add to what it stores";
  return dot_operands(ctx, product, loop->var, n) ? NULL : "its operands are no bytes or words side by side";
}

/* transpose: for a: for b: x[.. b .. a] = y[.. a .. b]: constant loops, each side in memory along another one. */
static const char *not_transpose(tn_ctx *ctx, const ir_stmt *a) {
  const ir_stmt *b = a->body, *st = b && b->kind == IR_FOR ? b->body : NULL;
  int64_t n, c;
  if (!st || st->kind != IR_STORE || st->op != IR_SET || st->value->op != IX_LOAD) return "its body is not one loop around x[..] = y[..]";
  if (!sched_extent(a, &n) || !ix_is_int(a->lo, 0) || !sched_extent(b, &n) || !ix_is_int(b->lo, 0)) return "its loops do not run from 0 to constants";
  const ir_buf *y = st->value->u.buf;
  if (y == st->buf || y->space == IR_REGISTER || st->buf->space == IR_REGISTER || y->dtype != st->buf->dtype) return "it does not move elements from one memory to another";
  if (!ix_affine_in(ir_buf_offset(ctx, y, st->value->args), b->var, &c) || c != 1) return "what it reads does not lie along the inner loop";
  return ix_affine_in(ir_buf_offset(ctx, st->buf, st->index), a->var, &c) && c == 1 ? NULL : "what it writes does not lie along the outer loop";
}

/* The conditions that do not use v move out of a tile around `body`. */
static const ir_stmt *guarded_tile(sched *s, const ir_stmt *loop, const ir_stmt *body, const ir_stmt *core) {
  if (body == core) return ir_tile(s->ctx, s->arg[0], ir_for(s->ctx, loop->var, loop->lo, loop->hi, IR_SERIAL, core));
  return ir_if(s->ctx, body->value, guarded_tile(s, loop, body->body, core), NULL);
}

static const ir_stmt *do_tensorize(sched *s, const ir_stmt *loop, void *user) {
  const ir_stmt *core = loop->body;
  bool dot = strcmp(s->arg[0], "dot") == 0;
  while (dot && core && core->kind == IR_IF && !core->other && !ix_uses_var(core->value, loop->var)) core = core->body;
  const char *why = dot ? not_dot(s->ctx, loop, core) : strcmp(s->arg[0], "transpose") == 0 ? not_transpose(s->ctx, loop) : not_fma(loop);
  if (why) {
    refuse(s, "%s", why);
    return NULL;
  }
  return dot ? guarded_tile(s, loop, loop->body, core) : ir_tile(s->ctx, s->arg[0], loop);
}

bool sched_tensorize(sched *s) {
  static const char *const atoms[] = {"dot", "fma", "transpose"};
  for (int i = 0; i < IR_COUNT(atoms); i++)
    if (strcmp(s->arg[0], atoms[i]) == 0) return sched_replace(s, s->arg[1], do_tensorize, NULL);
  return refuse(s, "there is no atom '%s'", s->arg[0]);
}

/* ---- muladd ---- */

static const ir_stmt *mul_add(ir_rewriter *r, const ir_stmt *st) {
  if (st->kind != IR_STORE || st->op != IR_SET || st->value->op != IX_FMA) return st;
  ix f = st->value;
  if (f->args[2] != ix_load(r->ctx, st->buf, st->index)) return st; /* no reduction: its rounding is its meaning */
  *(bool *)r->user = true;
  return ir_store(r->ctx, st->buf, st->index, IR_SET, ix_add(r->ctx, ix_mul(r->ctx, f->args[0], f->args[1]), f->args[2]));
}

bool sched_muladd(sched *s) {
  bool any = false;
  ir_rewriter r = {.ctx = s->ctx, .user = &any, .stmt = mul_add};
  const ir_stmt *body = ir_rewrite(&r, s->k->body);
  if (!any) return refuse(s, "there is no acc = fma(a, b, acc)");
  s->k->body = body;
  return true;
}
