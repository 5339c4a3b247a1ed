/* cuda_product.c — see cuda_product.h. */
#include "codegen/cuda_product.h"
#include "lower/schedule.h"
#include <string.h>

/* ---- short forms ---- */

ir_var *cu_var(tn_ctx *ctx, const char *name, int64_t extent) { return ir_var_new(ctx, name, TN_INDEX, 0, extent - 1); }

const ir_stmt *cu_loop(tn_ctx *ctx, ir_var *v, ir_loop_kind kind, const ir_stmt *body) {
  return ir_for(ctx, v, ix_index(ctx, v->lo), ix_index(ctx, v->hi + 1), kind, body);
}

/* A tile statement for what it does to time and order alone: its block computes nothing that anyone reads. */
const ir_stmt *cu_sync(tn_ctx *ctx, const char *atom) {
  ir_buf *nothing = ir_buf_new(ctx, ir_format(ctx, "sync.%u", ir_next_id(ctx)), TN_I32, 0, NULL, NULL, IR_REGISTER);
  return ir_tile(ctx, atom, ir_alloc_stmt(ctx, nothing, ir_store(ctx, nothing, NULL, IR_SET, ix_int(ctx, TN_I32, 0))));
}

static const ir_stmt *let(tn_ctx *ctx, const char *name, ix value, ir_var **v, int number) {
  *v = ir_var_new(ctx, ir_format(ctx, "%s.%d", name, number), TN_INDEX, value->lo, value->hi);
  return NULL;
}

/* ---- the kernel ---- */

/* Whether the loop's size is told at launch, and hangs on no other loop of the kernel. */
static bool is_told(const lw_problem *p, const ir_stmt *loop) {
  int64_t n;
  if (!ix_const_value(loop->lo, &n) || n || ix_const_value(loop->hi, &n)) return false;
  for (int i = 0; i < p->nout; i++)
    if (ix_uses_var(loop->hi, p->out[i]->var)) return false;
  return true;
}

/* Extent below 0: not known, so the first loop or none. */
static bool axis_add(tn_ctx *ctx, const lw_problem *p, cu_axis *a, const ir_stmt *loop, int64_t extent) {
  if (a->n == LW_MAX_LOOPS || (extent < 0 && (a->n || !is_told(p, loop)))) return false;
  if (extent < 0) a->count = ix_max(ctx, loop->hi, ix_index(ctx, 0));
  else if (a->count) a->count = ix_muli(ctx, a->count, extent);
  if (extent < 0) extent = loop->var->hi + 1;
  if (extent < 1) return false;
  a->loops[a->n++] = loop;
  return ir_mul_size(a->extent, extent, &a->extent) && a->extent < INT32_MAX;
}

static ix count_of(tn_ctx *ctx, const cu_axis *a) { return a->count ? a->count : ix_index(ctx, a->extent); }

static bool only_update(const ir_stmt *s, const ir_stmt *update) {
  if (s == update) return true;
  if (s->kind == IR_FOR || (s->kind == IR_IF && !s->other)) return only_update(s->body, update);
  return false;
}

static bool within(ix e, const cu_axis *out) {
  for (int i = 0; i < out->n; i++)
    if (ix_uses_var(e, out->loops[i]->var)) return false;
  return true;
}

static ix strip_cast(ix e) { return e->op == IX_CAST && e->args[0]->op == IX_LOAD ? e->args[0] : e; }

/* The loop of the sum that an operand lies along becomes the fastest: tiles fill by whole vectors. */
static void contiguous_last(tn_ctx *ctx, cu_axis *sum, ix value) {
  ix load = value->op == IX_CAST ? value->args[0] : value;
  if (load->op != IX_LOAD) return;
  for (int i = 0; i < sum->n; i++)
    if (lw_stride(ctx, load, sum->loops[i]->var) == 1) {
      const ir_stmt *fast = sum->loops[i];
      memmove(sum->loops + i, sum->loops + i + 1, (size_t)(sum->n - 1 - i) * sizeof *sum->loops);
      sum->loops[sum->n - 1] = fast;
      return;
    }
}

#define REFUSE(text) return *reason = (text), false

/* 8-bit floats of two kinds: tensor cores take either on either side. */
bool cu_mixed(const cu_product *g) {
  tn_dtype a = (tn_dtype)g->a.value->dtype, b = (tn_dtype)g->b.value->dtype;
  return a != b && (a == TN_F8E4M3FN || a == TN_F8E5M2) && (b == TN_F8E4M3FN || b == TN_F8E5M2);
}

tn_dtype cu_operand_dtype(const cu_product *g, const cu_operand *o) { return cu_mixed(g) ? (tn_dtype)o->value->dtype : g->dtype; }

bool cu_product_of(tn_ctx *ctx, const ir_kernel *k, bool plain, cu_product *g, const char **reason) {
  if (k->ndims) REFUSE("a size that is told at launch");
  return cu_product_sized(ctx, k, plain, g, reason);
}

bool cu_product_sized(tn_ctx *ctx, const ir_kernel *k, bool plain, cu_product *g, const char **reason) {
  *g = (cu_product){.ctx = ctx, .k = k, .p = lw_problem_of(ctx, k)};
  lw_problem *p = &g->p;
  g->a.rows.extent = g->b.rows.extent = g->batch.extent = g->sum.extent = 1;
  if (p->kind != LW_CONTRACTION) REFUSE("not a product of two tensors");
  const ir_stmt *s = p->body;
  if (s->kind != IR_ALLOC || s->body->kind != IR_SEQ || s->body->n < 3 || s->buf->rank) REFUSE("several accumulators");
  const ir_stmt *const *items = s->body->items;
  g->acc = s->buf;
  if (items[0]->kind != IR_STORE || items[0]->buf != g->acc || items[0]->op != IR_SET || !only_update(items[1], p->update)) REFUSE("more than a sum within the loops");
  g->init = items[0]->value;
  if (g->init->op != IX_CONST) REFUSE("a sum that does not start from a constant");
  g->epilogue = items + 2;
  g->nepilogue = s->body->n - 2;
  ix v = p->update->value;
  ix x = v->op == IX_FMA ? v->args[0] : NULL, y = v->op == IX_FMA ? v->args[1] : NULL;
  if (!x) {
    ix product = v->args[v->args[0]->op == IX_LOAD && v->args[0]->u.buf == g->acc];
    x = product->args[0];
    y = product->args[1];
  }
  /* n is the side whose rows run along the memory of the result */
  const ir_stmt *last = NULL;
  for (int i = 0; i < p->nout; i++) {
    if (lw_loop_dependence(ctx, p->out[i], NULL) != LW_PARALLEL) REFUSE("output loops that are not independent");
    if (p->store && p->store->kind == IR_STORE) {
      int64_t c;
      if (ix_affine_in(ir_buf_offset(ctx, p->store->buf, p->store->index), p->out[i]->var, &c) && c == 1) last = p->out[i];
    }
  }
  if (last && ix_uses_var(x, last->var) && !ix_uses_var(y, last->var)) {
    ix swap = x;
    x = y;
    y = swap;
  }
  g->a.value = plain ? strip_cast(x) : x;
  g->b.value = plain ? strip_cast(y) : y;
  if (plain && (g->a.value->op != IX_LOAD || g->b.value->op != IX_LOAD || (g->a.value->dtype != g->b.value->dtype && !cu_mixed(g)))) REFUSE("operands that are not loaded as they are");
  g->dtype = (tn_dtype)g->a.value->dtype;
  for (int i = 0; i < p->nout; i++) {
    bool in_a = ix_uses_var(x, p->out[i]->var), in_b = ix_uses_var(y, p->out[i]->var);
    cu_axis *to = in_a == in_b ? &g->batch : in_a ? &g->a.rows : &g->b.rows;
    if (!axis_add(ctx, p, to, p->out[i], p->extent[i])) REFUSE("too many rows, or an inner loop of unknown size");
  }
  for (int i = 0; i < p->nred; i++)
    if (p->red_extent[i] < 0 || !axis_add(ctx, p, &g->sum, p->red[i], p->red_extent[i])) REFUSE("a sum that is too long, or of unknown length");
  contiguous_last(ctx, &g->sum, g->b.value);
  contiguous_last(ctx, &g->sum, g->a.value);
  if (p->guard) {
    if (within(p->guard, &g->b.rows)) g->a.guard = p->guard;
    else if (within(p->guard, &g->a.rows)) g->b.guard = p->guard;
    else REFUSE("a guard that hangs on rows of both operands");
  }
  return true;
}

/* ---- tiles ---- */

/* Elements along `v` (the last loop of an axis) that one copy may take: contiguous, aligned, all or none of them real. */
static int vector_along(cu_product *g, const cu_operand *o, const cu_axis *axis, int64_t limit) {
  tn_ctx *ctx = g->ctx;
  if (!axis->n || o->value->op != IX_LOAD) return 0;
  const ir_var *v = axis->loops[axis->n - 1]->var;
  int size = (int)ir_dtype_bytes((tn_dtype)o->value->dtype);
  ix at = ir_buf_offset(ctx, o->value->u.buf, o->value->args);
  int64_t coef[64], c0, lo, hi;
  ix term[64];
  int n = ix_linear(at, &c0, coef, term, 64);
  for (int vec = 16 / size; vec * size >= 4; vec /= 2) {
    bool good = axis->loops[axis->n - 1]->var->hi % vec == vec - 1 && limit % vec == 0 && c0 % vec == 0;
    good &= vec == 1 || (ix_const_value(axis->loops[axis->n - 1]->lo, &lo) && lo == 0 && ix_const_value(axis->loops[axis->n - 1]->hi, &hi));
    good &= vec == 1 || !o->guard || !ix_uses_var(o->guard, v);
    bool found = false;
    for (int i = 0; i < n; i++) {
      if (term[i]->op == IX_VAR && term[i]->u.var == v) {
        good &= coef[i] == 1 || vec == 1;
        found = true;
      } else good &= vec == 1 || (coef[i] % vec == 0 && !ix_uses_var(term[i], v));
    }
    if (good && (found || vec == 1)) return vec;
  }
  return 0;
}

static void operand_tile(cu_product *g, cu_operand *o, const char *name) {
  int along_k = vector_along(g, o, &g->sum, g->bk), along_rows = vector_along(g, o, &o->rows, o->block);
  o->inner_k = g->along_k || along_k >= along_rows;
  o->vec = o->inner_k ? along_k : along_rows;
  ix shape[3] = {ix_index(g->ctx, g->stages * (g->cluster ? g->cluster : 1)), ix_index(g->ctx, o->inner_k ? o->block : g->bk), ix_index(g->ctx, (o->inner_k ? g->bk : o->block) + g->pad)};
  const ir_layout *layout = g->swizzle ? ir_layout_parse(g->ctx, ir_format(g->ctx, "split 2 %d; xor 2 1 8", 16 / (int)ir_dtype_bytes(g->dtype))) : NULL;
  o->shared = ir_buf_new(g->ctx, name, cu_operand_dtype(g, o), 3, shape, layout, IR_SHARED);
}

void cu_product_tiles(cu_product *g) {
  operand_tile(g, &g->a, "tile.a");
  operand_tile(g, &g->b, "tile.b");
  int64_t n = g->batch.extent;
  g->block_b = cu_var(g->ctx, "block.b", n);
  g->block_m = cu_var(g->ctx, "block.m", (g->a.rows.extent + g->a.block - 1) / g->a.block);
  g->block_n = cu_var(g->ctx, "block.n", (g->b.rows.extent + g->b.block - 1) / g->b.block);
}

const ir_stmt *cu_product_grid(const cu_product *g, const ir_stmt *s) {
  tn_ctx *ctx = g->ctx;
  ix none = ix_index(ctx, 0);
  s = ir_for(ctx, g->block_n, none, ix_ceil_div(ctx, count_of(ctx, &g->b.rows), g->b.block), IR_GRID, s);
  s = ir_for(ctx, g->block_m, none, ix_ceil_div(ctx, count_of(ctx, &g->a.rows), g->a.block), IR_GRID, s);
  return ir_for(ctx, g->block_b, none, count_of(ctx, &g->batch), IR_GRID, s);
}

int64_t cu_product_shared_bytes(const cu_product *g) {
  int64_t a = 0, b = 0;
  ix_const_value(ir_buf_elements(g->ctx, g->a.shared), &a);
  ix_const_value(ir_buf_elements(g->ctx, g->b.shared), &b);
  return (a + b) / (g->cluster ? g->cluster : 1) * (int64_t)ir_dtype_bytes(g->dtype) + 2048;
}

ix cu_product_at(const cu_product *g, const cu_operand *o, ix stage, ix row, ix k) {
  ix at[3] = {stage, o->inner_k ? row : k, o->inner_k ? k : row};
  return ix_load(g->ctx, o->shared, at);
}

/* ---- loop variables from counts ---- */

typedef struct mapping {
  ir_var *var[3 * LW_MAX_LOOPS];
  ix by[3 * LW_MAX_LOOPS];
  int n;
  ix acc;            /* what loads of the accumulator become, or null */
  const ir_buf *acc_buf;
  const ir_buf *from; /* stores to it go to `to` instead */
  ir_buf *to;
  const ix *at;
} mapping;

static int64_t extent_of(const ir_stmt *loop) { return loop->var->hi - loop->var->lo + 1; }

ix cu_axis_at(tn_ctx *ctx, const cu_axis *a, int i, ix p) {
  int64_t inner = 1;
  for (int k = a->n - 1; k > i; k--) inner *= extent_of(a->loops[k]);
  ix at = ix_divi(ctx, p, inner);
  if (i) at = ix_remi(ctx, at, extent_of(a->loops[i]));
  return ix_add(ctx, at, a->loops[i]->lo);
}

static void map_loop(mapping *m, const ir_stmt *loop, ix by) {
  m->var[m->n] = loop->var;
  m->by[m->n++] = by;
}

static void map_axis(tn_ctx *ctx, mapping *m, const cu_axis *a, ix p) {
  for (int i = a->n - 1; i >= 0; i--) map_loop(m, a->loops[i], cu_axis_at(ctx, a, i, p));
}

static ix map_var(void *user, ir_var *v) {
  mapping *m = user;
  for (int i = 0; i < m->n; i++)
    if (m->var[i] == v) return m->by[i];
  return NULL;
}

static ix map_load(void *user, ix load) {
  mapping *m = user;
  return load->u.buf == m->acc_buf ? m->acc : NULL;
}

static ix mapped(tn_ctx *ctx, mapping *m, ix e) { return ix_subst(ctx, e, map_var, m); }

/* ---- copying ---- */

static ix zero(tn_ctx *ctx, tn_dtype t) { return ix_num(ctx, t, 0); }

const ir_stmt *cu_product_copy_one(cu_product *g, const cu_operand *o, const ir_var *block, ix kt, ix stage) {
  tn_ctx *ctx = g->ctx;
  int id = g->copies++;
  int64_t vec = o->vec ? o->vec : 1, fast = (o->inner_k ? g->bk : o->block) / vec, pieces = fast * (o->inner_k ? o->block : g->bk);
  int64_t turns = (pieces + g->threads - 1) / g->threads;
  ir_var *t = cu_var(ctx, ir_format(ctx, "copy.%d", id), g->threads), *turn = cu_var(ctx, ir_format(ctx, "turn.%d", id), turns);
  ir_var *v = cu_var(ctx, ir_format(ctx, "near.%d", id), vec), *row, *kk, *m, *k;
  ix piece = ix_add(ctx, ix_muli(ctx, turn->expr, g->threads), t->expr);
  ix slow = ix_divi(ctx, piece, fast), quick = ix_muli(ctx, ix_remi(ctx, piece, fast), vec);
  ix row_of = o->inner_k ? slow : quick, k_of = o->inner_k ? quick : slow;
  let(ctx, "row", row_of, &row, id);
  let(ctx, "step", k_of, &kk, id);
  ix at_m = ix_add(ctx, ix_muli(ctx, block->expr, o->block), row->expr), at_k = ix_add(ctx, ix_muli(ctx, kt, g->bk), kk->expr);
  let(ctx, "m", at_m, &m, id);
  let(ctx, "k", at_k, &k, id);
  mapping map = {0};
  bool more = vec > 1;
  map_axis(ctx, &map, &o->rows, more && !o->inner_k ? ix_add(ctx, m->expr, v->expr) : m->expr);
  map_axis(ctx, &map, &g->sum, more && o->inner_k ? ix_add(ctx, k->expr, v->expr) : k->expr);
  map_axis(ctx, &map, &g->batch, g->block_b->expr);
  ix to_row = o->inner_k ? row->expr : ix_add(ctx, row->expr, v->expr), to_k = o->inner_k ? ix_add(ctx, kk->expr, v->expr) : kk->expr;
  ix to[3] = {stage, o->inner_k ? to_row : to_k, o->inner_k ? to_k : to_row};
  const ir_stmt *real = cu_loop(ctx, v, IR_UNROLL, ir_store(ctx, o->shared, to, IR_SET, mapped(ctx, &map, o->value)));
  if (o->vec) real = ir_tile(ctx, "cp.async", real);
  ir_var *w = cu_var(ctx, ir_format(ctx, "none.%d", id), vec);
  const ir_stmt *none = ir_subst_var(ctx, cu_loop(ctx, w, IR_UNROLL, ir_store(ctx, o->shared, to, IR_SET, zero(ctx, o->shared->dtype))), v, w->expr);
  ix cond = ix_and(ctx, ix_lt(ctx, m->expr, count_of(ctx, &o->rows)), ix_lt(ctx, k->expr, ix_index(ctx, g->sum.extent)));
  const ir_stmt *s;
  if (o->guard) { /* its addresses make sense within the borders alone */
    ix guard = ix_subst1(ctx, mapped(ctx, &map, o->guard), v, ix_index(ctx, 0));
    s = ir_if(ctx, ix_and(ctx, cond, guard), real, none);
  } else s = ir_if(ctx, cond, real, none);
  s = ir_let(ctx, row, row_of, ir_let(ctx, kk, k_of, ir_let(ctx, m, at_m, ir_let(ctx, k, at_k, s))));
  if (pieces % g->threads) s = ir_if(ctx, ix_lt(ctx, piece, ix_index(ctx, pieces)), s, NULL);
  return cu_loop(ctx, t, IR_LANE, cu_loop(ctx, turn, turns <= 4 ? IR_UNROLL : IR_SERIAL, s));
}

static ix tile_at(ix at, const ir_var *block) { return at ? at : block->expr; }

const ir_stmt *cu_product_box(cu_product *g, const cu_operand *o, const cu_box *box) {
  tn_ctx *ctx = g->ctx;
  int id = g->copies++;
  ir_var *r = cu_var(ctx, ir_format(ctx, "box.r.%d", id), box->rows), *c = cu_var(ctx, ir_format(ctx, "box.c.%d", id), g->bk);
  const ir_stmt *last = g->sum.loops[g->sum.n - 1];
  ix m = ix_add(ctx, box->first, r->expr), k = ix_add(ctx, box->inner, c->expr);
  cu_axis before = g->sum;
  before.n--;
  mapping map = {0};
  map_axis(ctx, &map, &o->rows, m);
  map_axis(ctx, &map, &before, box->outer);
  map_loop(&map, last, ix_add(ctx, k, last->lo));
  map_axis(ctx, &map, &g->batch, tile_at(g->at_b, g->block_b));
  ix to[3] = {box->stage, ix_add(ctx, box->to, r->expr), c->expr};
  ix inside = ix_and(ctx, ix_lt(ctx, m, ix_index(ctx, o->rows.extent)), ix_lt(ctx, k, ix_index(ctx, extent_of(last))));
  if (o->guard) inside = ix_and(ctx, inside, mapped(ctx, &map, o->guard));
  const ir_stmt *s = ir_if(ctx, inside, ir_store(ctx, o->shared, to, IR_SET, mapped(ctx, &map, o->value)), ir_store(ctx, o->shared, to, IR_SET, zero(ctx, o->shared->dtype)));
  s = cu_loop(ctx, r, IR_SERIAL, cu_loop(ctx, c, IR_SERIAL, s));
  return box->peer ? cu_loop(ctx, box->peer, IR_SERIAL, s) : s;
}

const ir_stmt *cu_product_copy(cu_product *g, ix kt, ix stage) {
  const ir_stmt *both[2] = {cu_product_copy_one(g, &g->a, g->block_m, kt, stage), cu_product_copy_one(g, &g->b, g->block_n, kt, stage)};
  return ir_seq(g->ctx, 2, both);
}

/* ---- the end ---- */

static ix end_expr(ir_rewriter *r, ix e) {
  mapping *m = r->user;
  return ix_subst_loads(r->ctx, ix_subst(r->ctx, e, map_var, m), map_load, m);
}

static const ir_stmt *end_store(ir_rewriter *r, const ir_stmt *s) {
  mapping *m = r->user;
  return s->kind == IR_STORE && s->buf == m->from ? ir_store(r->ctx, m->to, m->at, IR_SET, end_expr(r, s->value)) : s;
}

static ix inside(const cu_product *g, ix m, ix n) {
  return ix_and(g->ctx, ix_lt(g->ctx, m, count_of(g->ctx, &g->a.rows)), ix_lt(g->ctx, n, count_of(g->ctx, &g->b.rows)));
}

static void map_result(cu_product *g, mapping *map, ix m, ix n) {
  map_axis(g->ctx, map, &g->a.rows, m);
  map_axis(g->ctx, map, &g->b.rows, n);
  map_axis(g->ctx, map, &g->batch, tile_at(g->at_b, g->block_b));
}

const ir_stmt *cu_product_stage(cu_product *g, ix m, ix n, ix value, const ir_stmt *store, ir_buf *to, const ix *at) {
  tn_ctx *ctx = g->ctx;
  int id = g->copies++;
  ix at_m = ix_add(ctx, ix_muli(ctx, tile_at(g->at_m, g->block_m), g->a.block), m), at_n = ix_add(ctx, ix_muli(ctx, tile_at(g->at_n, g->block_n), g->b.block), n);
  ir_var *vm, *vn;
  let(ctx, "m", at_m, &vm, id);
  let(ctx, "n", at_n, &vn, id);
  mapping map = {.acc = value, .acc_buf = g->acc, .from = store ? store->buf : NULL, .to = to, .at = at};
  map_result(g, &map, vm->expr, vn->expr);
  ir_rewriter r = {.ctx = ctx, .user = &map, .expr = end_expr, .stmt = store ? end_store : NULL};
  const ir_stmt *s = ir_rewrite(&r, ir_stmt_fresh(ctx, ir_seq(ctx, g->nepilogue, g->epilogue), ".end"));
  return ir_let(ctx, vm, at_m, ir_let(ctx, vn, at_n, ir_if(ctx, inside(g, vm->expr, vn->expr), s, NULL)));
}

const ir_stmt *cu_product_store(cu_product *g, ix m, ix n, ix value) { return cu_product_stage(g, m, n, value, NULL, NULL, NULL); }

const ir_stmt *cu_product_put(cu_product *g, const ir_stmt *store, ix m, ix n, ix value) {
  tn_ctx *ctx = g->ctx;
  mapping map = {0};
  ix index[IR_MAX_RANK];
  m = ix_add(ctx, ix_muli(ctx, tile_at(g->at_m, g->block_m), g->a.block), m);
  n = ix_add(ctx, ix_muli(ctx, tile_at(g->at_n, g->block_n), g->b.block), n);
  map_result(g, &map, m, n);
  for (int i = 0; i < store->buf->rank; i++) index[i] = mapped(ctx, &map, store->index[i]);
  return ir_if(ctx, inside(g, m, n), ir_store(ctx, store->buf, index, IR_SET, value), NULL);
}

/* Of a short sum all tiles are brought in before the loop; else each step asks for the tile that is `ahead` steps away. */
const ir_stmt *cu_product_pipeline(cu_product *g, const ir_stmt *start, const ir_stmt *(*step)(cu_product *g, ix stage, void *user), void *user,
                                   const ir_stmt *end) {
  tn_ctx *ctx = g->ctx;
  int64_t tiles = (g->sum.extent + g->bk - 1) / g->bk;
  int ahead = g->stages - 1;
  bool async = g->a.vec || g->b.vec, more = tiles > ahead;
  const ir_stmt *all[64];
  int n = 0;
  for (int s = 0; s < ahead && s < tiles; s++) {
    all[n++] = cu_product_copy(g, ix_index(ctx, s), ix_index(ctx, s));
    if (async && (more || s == tiles - 1)) all[n++] = cu_sync(ctx, "cp.commit");
  }
  all[n++] = start;
  ir_var *kt = cu_var(ctx, "tile", tiles);
  const ir_stmt *body[8];
  int m = 0;
  if (async) body[m++] = cu_sync(ctx, ir_format(ctx, "cp.wait %d", more ? ahead - 1 : 0));
  if (g->swizzle) body[m++] = cu_sync(ctx, "fence.proxy"); /* the products read by the asynchronous proxy */
  body[m++] = cu_sync(ctx, "barrier");
  if (more) {
    ix next = ix_addi(ctx, kt->expr, ahead);
    body[m++] = ir_if(ctx, ix_lt(ctx, next, ix_index(ctx, tiles)), cu_product_copy(g, next, ix_remi(ctx, next, g->stages)), NULL);
    if (async) body[m++] = cu_sync(ctx, "cp.commit");
  }
  body[m++] = step(g, ix_remi(ctx, kt->expr, g->stages), user);
  all[n++] = cu_loop(ctx, kt, IR_SERIAL, ir_seq(ctx, m, body));
  all[n++] = end;
  const ir_stmt *s = ir_seq(ctx, n, all);
  s = ir_alloc_stmt(ctx, g->a.shared, ir_alloc_stmt(ctx, g->b.shared, s));
  return s;
}
