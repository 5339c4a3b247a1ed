/* tpu_vector.c — statements over lanes. See tpu_lower.h. */
#include "codegen/tpu_lower.h"
#include "lower/schedule.h"
#include <string.h>

/* ---- lanes and variables ---- */

static tc_bind *bind(tc *c, const ir_var *v, tc_bind_kind kind) {
  tc_bind *b = ir_map_get(&c->binds, v);
  if (!b) ir_map_set(&c->binds, v, b = IR_NEW(c->ctx, tc_bind));
  if (b->kind == TC_UNBOUND) IR_PUSH(c->ctx, c->trail, c->ntrail, b);
  *b = (tc_bind){.kind = kind};
  return b;
}

void tc_bind_const(tc *c, const ir_var *v, int64_t k) { bind(c, v, TC_CONST)->k = k; }

const tc_bind *tc_bound(const tc *c, const ir_var *v) {
  const tc_bind *b = ir_map_get(&c->binds, v);
  return b && b->kind ? b : NULL;
}

void tc_unbind(tc *c, int ntrail) {
  while (c->ntrail > ntrail) c->trail[--c->ntrail]->kind = TC_UNBOUND;
}

int tc_push_lane(tc *c, const ir_var *v, int64_t lo, int64_t n) {
  int l = c->nlanes++;
  c->lane_var[l] = v;
  c->lane_lo[l] = lo;
  c->lane_n[l] = n;
  c->lane_order[l] = l;
  c->box.lo[l] = 0;
  c->box.n[l] = n;
  bind(c, v, TC_LANE)->k = l;
  return l;
}

void tc_pop_lane(tc *c) {
  int l = --c->nlanes;
  for (int i = 0, n = 0; i <= l; i++)
    if (c->lane_order[i] != l) c->lane_order[n++] = c->lane_order[i];
}

/* ---- what loops are ---- */

static bool each_update(const ir_stmt *s, bool (*ok)(void *user, const ir_stmt *store), void *user) {
  if (!s) return true;
  if (s->kind == IR_STORE) return ok(user, s);
  for (int i = 0; i < s->n; i++)
    if (!each_update(s->items[i], ok, user)) return false;
  return each_update(s->body, ok, user) && each_update(s->other, ok, user);
}

static bool allocates(const ir_stmt *s, const ir_buf *b) {
  if (!s) return false;
  if (s->kind == IR_ALLOC && s->buf == b) return true;
  for (int i = 0; i < s->n; i++)
    if (allocates(s->items[i], b)) return true;
  return allocates(s->body, b) || allocates(s->other, b);
}

/* The value added when a store is x = op(x, v) with x first (or op commutes) or x = fma(a, b, x); op and the
 * other operands come out. */
bool tc_update_of(tn_ctx *ctx, const ir_stmt *s, ir_opcode *op, int *n, ix *args) {
  static const ir_opcode ops[] = {[IR_ADD] = IX_ADD, [IR_MUL] = IX_MUL, [IR_MAX] = IX_MAX, [IR_MIN] = IX_MIN, [IR_OR] = IX_OR, [IR_AND] = IX_AND};
  if (s->op != IR_SET) {
    *op = ops[s->op];
    *n = 1;
    args[0] = s->value;
    return true;
  }
  ix self = ix_load(ctx, s->buf, s->index), v = s->value;
  *op = (ir_opcode)v->op;
  if (v->op == IX_FMA && v->args[2] == self) {
    *n = 2;
    args[0] = v->args[0];
    args[1] = v->args[1];
    return !ix_uses_buf(args[0], s->buf) && !ix_uses_buf(args[1], s->buf);
  }
  *n = 1;
  bool commutes = v->op == IX_ADD || v->op == IX_MUL;
  if (!commutes && v->op != IX_MAX && v->op != IX_MIN) return false;
  args[0] = v->args[0] == self ? v->args[1] : v->args[0];
  return (v->args[0] == self || (commutes && v->args[1] == self)) && !ix_uses_buf(args[0], s->buf);
}

typedef struct reduced {
  tc *c;
  const ir_stmt *loop;
  const ir_buf *bufs[16];
  int n;
} reduced;

/* Stores that meet across iterations: each accumulator by one statement, as an update in order. */
static bool updates_in_order(void *user, const ir_stmt *s) {
  reduced *r = user;
  if (allocates(r->loop->body, s->buf)) return true;
  for (int k = 0; k < s->buf->rank; k++)
    if (ix_uses_var(s->index[k], r->loop->var)) return true;
  ir_opcode op;
  ix args[2];
  int n;
  for (int i = 0; i < r->n; i++)
    if (r->bufs[i] == s->buf) return false;
  if (r->n == IR_COUNT(r->bufs)) return false;
  r->bufs[r->n++] = s->buf;
  return tc_update_of(r->c->ctx, s, &op, &n, args);
}

static bool contains(const ir_stmt *s, ir_stmt_kind kind) {
  if (!s) return false;
  if (s->kind == kind) return true;
  for (int i = 0; i < s->n; i++)
    if (contains(s->items[i], kind)) return true;
  return contains(s->body, kind) || contains(s->other, kind);
}

const tc_loop *tc_loop_of(tc *c, const ir_stmt *s) {
  tc_loop *l = ir_map_get(&c->loops, s);
  if (l) return l;
  l = IR_NEW(c->ctx, tc_loop);
  ir_map_set(&c->loops, s, l);
  if (contains(s->body, IR_WHILE)) return l;
  lw_dependence d = lw_loop_dependence(c->ctx, s, NULL);
  l->parallel = d == LW_PARALLEL;
  reduced r = {.c = c, .loop = s};
  if (d == LW_REDUCTION && !contains(s->body, IR_IF)) l->reduction = each_update(s->body, updates_in_order, &r);
  return l;
}

/* ---- memory of allocs ---- */

static void exec_alloc(tc *c, const ir_stmt *s) {
  ir_buf *b = s->buf;
  tc_mem *m = ir_map_get(&c->mems, b);
  if (!m) ir_map_set(&c->mems, b, m = IR_NEW(c->ctx, tc_mem));
  *m = (tc_mem){.buf = b, .width = (int)ir_dtype_bytes(b->dtype)};
  ix shape[IR_MAX_RANK];
  m->rank = ir_layout_shape(c->ctx, b->layout, b->rank, b->shape, shape);
  int64_t bytes = m->width;
  for (int d = m->rank - 1; d >= 0; d--) {
    int64_t lo;
    tc_range(c, shape[d], &lo, &m->extent[d]);
    if (m->extent[d] > INT32_MAX) ir_fail(c->ctx, TN_EUNSUPPORTED, "kernel '%s': buffer '%s' has no known size", c->k->name, b->name);
    m->n[d] = m->extent[d];
    m->stride[d] = bytes;
    bytes *= m->extent[d] > 0 ? m->extent[d] : 1;
  }
  for (int i = c->nlanes - 1; i >= 0; i--) { /* lanes inside, where scalars lie side by side, else outside */
    int l = c->lane_order[i];
    if (c->box.n[l] <= 1) continue;
    m->lane[l] = bytes;
    bytes *= bytes == m->width ? tc_pitch(c, c->box.n[l]) : c->box.n[l];
  }
  m->bytes = bytes;
  m->at = m->base = tc_alloc(c, bytes, false);
  for (int l = 0; l < c->nlanes; l++) m->base -= m->lane[l] * c->box.lo[l];
  tc_exec(c, s->body);
  tc_arena_put(&c->scratch, m->at, m->bytes);
}

/* ---- stores ---- */

static bool meets(const tc *c, const tc_val *v) { /* two lanes of the box at one element */
  for (int l = 0; l < c->nlanes; l++)
    if (c->box.n[l] > 1 && !v->stride[l]) return true;
  return false;
}

static void update(tc *c, const ir_stmt *s, const tc_val *dst) {
  ir_opcode op;
  ix e[2];
  int n;
  if (!tc_update_of(c->ctx, s, &op, &n, e)) ir_bug(c->ctx, "kernel '%s': lanes meet in a store to '%s'", c->k->name, s->buf->name);
  tc_eval_begin(c, n, e);
  tc_val a = tc_eval(c, e[0]), b = n == 2 ? tc_eval(c, e[1]) : a;
  c->every = true;
  if (n == 2) te_vector(c, IX_FMA, dst, 3, (tc_val[]){a, b, *dst}, true);
  else te_vector(c, op, dst, 2, (tc_val[]){*dst, a}, true);
  c->every = false;
  tc_eval_end(c);
}

static void store_indexed(tc *c, const ir_stmt *s, const tc_mem *m, tc_place *p) {
  ir_opcode op = IX_CONST;
  ix e = s->value;
  int n = 1;
  if (s->op != IR_SET) tc_update_of(c->ctx, s, &op, &n, &e);
  tc_val v = tc_eval(c, e);
  if (v.space == TPU_IMM || v.space == TPU_IOTA) {
    unsigned lanes = tc_lanes_of(c, &v);
    tc_val t = tc_temp(c, v.t, lanes);
    te_copy(c, &t, &v, true);
    te_scatter(c, &p->view, &t, &p->index, &p->region, op, true);
    tc_release(c, &t);
    return;
  }
  (void)m;
  te_scatter(c, &p->view, &v, &p->index, &p->region, op, true);
}

static void exec_store(tc *c, const ir_stmt *s) {
  const tc_mem *m = ir_map_get(&c->mems, s->buf);
  if (!m) ir_bug(c->ctx, "kernel '%s': buffer '%s' is not in scope", c->k->name, s->buf->name);
  ir_opcode op;
  ix args[2];
  int n;
  if (m->far) {
    ix e = s->value;
    if (s->op != IR_SET) {
      tc_update_of(c->ctx, s, &op, &n, args);
      e = ix_binary(c->ctx, op, ix_load(c->ctx, s->buf, s->index), e);
    }
    tc_eval_begin(c, 1, &e);
    tc_val v = tc_eval(c, e);
    tc_store_far(c, m, s, s->index, &v);
    tc_eval_end(c);
    return;
  }
  tc_eval_begin(c, 1, &s->value);
  tc_place p = tc_place_of(c, m, s, s->index);
  if (p.kind == TC_INDEXED) {
    store_indexed(c, s, m, &p);
    tc_release(c, &p.index);
    tc_eval_end(c);
    return;
  }
  tc_box box = c->box;
  c->box = p.inside;
  if (meets(c, &p.view)) update(c, s, &p.view);
  else if (s->op == IR_SET) tc_eval_into(c, s->value, &p.view);
  else {
    tc_update_of(c->ctx, s, &op, &n, args);
    tc_val v = tc_eval(c, args[0]);
    te_vector(c, op, &p.view, 2, (tc_val[]){p.view, v}, true);
  }
  c->box = box;
  tc_eval_end(c);
}

/* ---- lets and conditions ---- */

static bool stores_to(const ir_stmt *s, ix e) { /* a buffer that e loads from */
  if (!s) return false;
  if (s->kind == IR_STORE && ix_uses_buf(e, s->buf)) return true;
  for (int i = 0; i < s->n; i++)
    if (stores_to(s->items[i], e)) return true;
  return stores_to(s->body, e) || stores_to(s->other, e);
}

static int uses_in(ix e, const ir_var *v) { /* 0, 1 or 2 for more */
  if (e->op == IX_VAR) return e->u.var == v;
  if (!(e->vars >> (v->id & 63) & 1)) return 0;
  int n = 0;
  for (int i = 0; i < e->nargs && n < 2; i++) n += uses_in(e->args[i], v);
  return n < 2 ? n : 2;
}

static int uses_below(const ir_stmt *s, const ir_var *v) {
  if (!s) return 0;
  int n = s->value ? uses_in(s->value, v) : 0;
  if (s->lo) n += uses_in(s->lo, v) + uses_in(s->hi, v);
  for (int i = 0; s->kind == IR_STORE && i < s->buf->rank; i++) n += uses_in(s->index[i], v);
  for (int i = 0; i < s->n; i++) n += uses_below(s->items[i], v);
  int below = uses_below(s->body, v) + uses_below(s->other, v);
  return n + (s->kind == IR_FOR || s->kind == IR_WHILE ? 2 * below : below);
}

/* A let may stand for its expression: an index without data, or a value used once, of elements that stay. */
static bool is_text(const ir_stmt *s) {
  if (!s->value->loads && (s->value->dtype == TN_INDEX || s->value->dtype == TN_BOOL)) return true;
  return s->value->dtype != TN_INDEX && !stores_to(s->body, s->value) && uses_below(s->body, s->var) <= 1;
}

static void exec_let(tc *c, const ir_stmt *s) {
  int trail = c->ntrail;
  if (is_text(s)) {
    tc_affine a;
    bool constant = s->value->dtype == TN_INDEX && tc_affine_of(c, s->value, &a);
    for (int l = 0; constant && l < c->nlanes; l++) constant = !a.coef[l];
    if (constant) tc_bind_const(c, s->var, a.c0);
    else bind(c, s->var, TC_EXPR)->e = s->value;
    tc_exec(c, s->body);
    tc_unbind(c, trail);
    return;
  }
  tc_eval_begin(c, 1, &s->value);
  tc_val v = tc_eval(c, s->value);
  if (v.owned) tc_keep(c, s->value);
  else if (v.space == TPU_UB && stores_to(s->body, s->value)) {
    unsigned lanes = tc_lanes_of(c, &v);
    tc_val t = tc_temp(c, v.t, lanes);
    te_copy(c, &t, &v, true);
    v = t;
  }
  tc_eval_end(c);
  bind(c, s->var, TC_VAL)->v = v;
  tc_exec(c, s->body);
  tc_unbind(c, trail);
  tc_release(c, &v);
}

static void exec_under(tc *c, const tc_val *cond, const ir_stmt *s) {
  if (!s) return;
  tc_val mask = c->mask, both = *cond;
  bool masked = c->masked;
  if (masked) {
    both = tc_temp(c, TN_BOOL, tc_lanes_of(c, &mask) | tc_lanes_of(c, cond));
    te_vector(c, IX_SELECT, &both, 3, (tc_val[]){mask, *cond, tc_imm(TN_BOOL, (ir_scalar){0})}, false);
  }
  c->mask = both;
  c->masked = true;
  tc_exec(c, s);
  c->mask = mask;
  c->masked = masked;
  if (masked) tc_release(c, &both);
}

static void exec_if(tc *c, const ir_stmt *s) {
  int known = tc_decide(c, s->value);
  if (known >= 0) {
    tc_exec(c, known ? s->body : s->other);
    return;
  }
  tc_box inside = c->box, box = c->box;
  if (!s->other && tc_restrict(c, s->value, &inside)) {
    for (int l = 0; l < c->nlanes; l++)
      if (inside.n[l] <= 0) return;
    c->box = inside;
    tc_exec(c, s->body);
    c->box = box;
    return;
  }
  tc_eval_begin(c, 1, &s->value);
  tc_val v = tc_eval(c, s->value), t = tc_temp(c, TN_BOOL, tc_lanes_of(c, &v));
  te_copy(c, &t, &v, true);
  tc_eval_end(c);
  exec_under(c, &t, s->body);
  if (s->other) {
    te_vector(c, IX_NOT, &t, 1, (tc_val[]){t}, true);
    exec_under(c, &t, s->other);
  }
  tc_release(c, &t);
}

/* ---- loops ---- */

int64_t tc_trips(tc *c, const ir_stmt *s, int64_t *lo) {
  int64_t a0, a1, b0, b1;
  tc_range(c, s->lo, &a0, &a1);
  tc_range(c, s->hi, &b0, &b1);
  *lo = a0;
  if (a0 == INT64_MIN || b1 == INT64_MAX)
    ir_fail(c->ctx, TN_EUNSUPPORTED, "kernel '%s': loop '%s' has no known bounds", c->k->name, s->var->name);
  return b1 > a0 ? b1 - a0 : 0;
}

bool tc_uniform(tc *c, ix e) { /* the same number for all lanes */
  int64_t lo, hi;
  tc_range(c, e, &lo, &hi);
  return lo == hi;
}

/* Elements that the body makes for each iteration: allocs and inner lanes. */
int64_t tc_weight(tc *c, const ir_stmt *s) {
  if (!s) return 1;
  int64_t most = 1, w;
  for (int i = 0; i < s->n; i++)
    if ((w = tc_weight(c, s->items[i])) > most) most = w;
  if ((w = tc_weight(c, s->body)) > most) most = w;
  if ((w = tc_weight(c, s->other)) > most) most = w;
  if (s->kind == IR_FOR && most < ((int64_t)1 << 40)) {
    const tc_loop *l = tc_loop_of(c, s);
    int64_t n = s->var->hi - s->var->lo + 1;
    if ((l->parallel || l->reduction) && s->var->lo != INT64_MIN && s->var->hi != INT64_MAX && n > 1 && n < INT32_MAX) most *= n;
  }
  if (s->kind == IR_ALLOC) {
    int64_t n = 1, v;
    for (int d = 0; d < s->buf->rank; d++)
      if (ix_const_value(s->buf->shape[d], &v) && v > 0 && n < INT32_MAX) n *= v;
    if (n > most) most = n;
  }
  return most;
}

static int64_t lanes_now(const tc *c) {
  int64_t n = 1;
  for (int l = 0; l < c->nlanes; l++) n *= c->box.n[l];
  return n;
}

static bool inner_lanes(tc *c, const ir_stmt *s) { /* all loops inside can be lanes of a reduction around them */
  if (!s) return true;
  if (s->kind == IR_WHILE || s->kind == IR_IF) return false;
  if (s->kind == IR_FOR) {
    const tc_loop *l = tc_loop_of(c, s);
    if (!l->parallel && !l->reduction) return false;
    if (!tc_uniform(c, s->lo) || !tc_uniform(c, s->hi)) return false;
  }
  for (int i = 0; i < s->n; i++)
    if (!inner_lanes(c, s->items[i])) return false;
  return inner_lanes(c, s->body) && inner_lanes(c, s->other);
}

static void bound_check(tc *c, const ir_stmt *s) { /* the body where lo <= var < hi, for bounds that lanes differ in */
  ix ok = ix_bool(c->ctx, true);
  if (!tc_uniform(c, s->lo)) ok = ix_and(c->ctx, ok, ix_le(c->ctx, s->lo, s->var->expr));
  if (!tc_uniform(c, s->hi)) ok = ix_and(c->ctx, ok, ix_lt(c->ctx, s->var->expr, s->hi));
  if (ix_is_const(ok)) tc_exec(c, s->body);
  else {
    const ir_stmt guarded = {.kind = IR_IF, .value = ok, .body = s->body};
    exec_if(c, &guarded);
  }
}

static void for_lanes(tc *c, const ir_stmt *s, int64_t lo, int64_t n, int64_t room) {
  for (int64_t i = 0; i < n; i += room) {
    tc_box box = c->box;
    int trail = c->ntrail;
    tc_push_lane(c, s->var, lo + i, n - i < room ? n - i : room);
    bound_check(c, s);
    tc_pop_lane(c);
    tc_unbind(c, trail);
    c->box = box;
  }
}

static void exec_for(tc *c, const ir_stmt *s) {
  int64_t lo, n = tc_trips(c, s, &lo);
  const tc_loop *l = tc_loop_of(c, s);
  bool even = tc_uniform(c, s->lo) && tc_uniform(c, s->hi);
  int64_t room = c->limit / lanes_now(c) / tc_weight(c, s->body);
  bool lane = c->nlanes < TC_LANES && (l->parallel || (l->reduction && even && inner_lanes(c, s->body))) && room > 1;
  if (n > 1 && lane) {
    for_lanes(c, s, lo, n, room);
    return;
  }
  int trail = c->ntrail;
  for (int64_t i = 0; i < n; i++) {
    tc_bind_const(c, s->var, lo + i);
    bound_check(c, s);
  }
  tc_unbind(c, trail);
}

/* A loop of the machine: while any lane goes on, the body for those that do. Nothing is under way at its ends, so
 * that the semaphores of an iteration meet among themselves. */
static void exec_while(tc *c, const ir_stmt *s) {
  unsigned all = 0;
  for (int l = 0; l < c->nlanes; l++) all |= 1u << l;
  tc_val go = tc_temp(c, TN_BOOL, all), any = tc_temp(c, TN_BOOL, 0), no = tc_imm(TN_BOOL, (ir_scalar){0});
  te_fence(c);
  int64_t head = te_here(c);
  tc_eval_begin(c, 1, &s->value);
  tc_val v = tc_eval(c, s->value);
  if (c->masked) te_vector(c, IX_SELECT, &go, 3, (tc_val[]){c->mask, v, no}, false);
  else te_copy(c, &go, &v, false);
  tc_eval_end(c);
  tc_box box = c->box;
  for (int l = 0; l < c->nlanes; l++) c->box.n[l] = 1;
  te_copy(c, &any, &no, false);
  c->box = box;
  te_vector(c, IX_OR, &any, 2, (tc_val[]){any, go}, false);
  int64_t out = te_exit_unless(c, any.at);
  tc_val mask = c->mask;
  bool masked = c->masked;
  c->mask = go;
  c->masked = true;
  tc_exec(c, s->body);
  c->mask = mask;
  c->masked = masked;
  te_fence(c);
  te_jump(c, head);
  te_land(c, out);
  te_fence(c);
  tc_release(c, &go);
  tc_release(c, &any);
}

void tc_exec(tc *c, const ir_stmt *s) {
  if (!s) return;
  switch (s->kind) {
  case IR_SEQ:
    for (int i = 0; i < s->n; i++) tc_exec(c, s->items[i]);
    return;
  case IR_FOR: exec_for(c, s); return;
  case IR_WHILE: exec_while(c, s); return;
  case IR_IF: exec_if(c, s); return;
  case IR_LET: exec_let(c, s); return;
  case IR_ALLOC: exec_alloc(c, s); return;
  case IR_STORE: exec_store(c, s); return;
  case IR_TILE: tc_exec(c, s->body); return;
  }
}
