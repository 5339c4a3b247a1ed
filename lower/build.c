/* build.c — kernels out of groups of nodes: operands, inlining, epilogues. */
#include "lower/build_internal.h"
#include <stdio.h>
#include <string.h>

tn_ctx *lw_ctx(lw_build *b) { return b->ctx; }
ir_builder *lw_b(lw_build *b) { return b->ib; }

/* What a run computes, or a state, and a call of its own may pack: weights that enough pixels meet, pictures that a
 * gradient of weights is summed over. */
static bool packed_in_run(const lw_build *b, const ir_value *v) {
  enum { PIXELS = 32 };
  const ir_node *n = b->root;
  if (!n || n->op->kind != IR_OP_CONTRACTION || n->nin < 2 || n->in[1] == n->in[0] || v->packed || !ir_is_float(v->dtype)) return false;
  if (strcmp(n->op->name, "ConvWeights") == 0) return (n->in[0] == v || n->in[1] == v) && ir_static(v);
  if (n->in[1] != v || v->layout) return false;
  if (!ir_node_is(n, "Conv") && !ir_node_is(n, "ConvTranspose")) return false;
  if (!ir_static(v) || !ir_static(n->out[0])) return false;
  int64_t pixels = ir_dim(b->ctx, n->out[0], 0);
  for (int i = 2; i < n->out[0]->rank; i++) pixels *= ir_dim(b->ctx, n->out[0], i);
  return pixels >= PIXELS;
}

static ir_buf *param_of(lw_build *b, ir_value *v, ir_access access) {
  for (int i = 0; i < b->nparams; i++)
    if (b->params[i].value == v) {
      b->params[i].buf->access |= access;
      return b->params[i].buf;
    }
  char name[32];
  snprintf(name, sizeof name, "%s%d", access == IR_IN ? "in" : "out", b->nparams);
  ir_buf *buf = ir_buf_new(b->ctx, name, v->dtype, v->rank, v->dims, v->layout, IR_GLOBAL);
  buf->access = access;
  buf->constant = access == IR_IN && !b->in_pack && (v->packed || packed_in_run(b, v));
  IR_PUSH(b->ctx, b->params, b->nparams, (lw_param){v, buf});
  return buf;
}

lw_build *lw_build_new(tn_ctx *ctx, bool (*stored)(void *user, const ir_value *v)) {
  lw_build *b = IR_NEW(ctx, lw_build);
  *b = (lw_build){.ctx = ctx, .ib = ir_builder_new(ctx), .group = -1, .stored = stored};
  return b;
}

ir_value *lw_build_operand(const lw_build *b, const ir_buf *buf) {
  for (int i = 0; i < b->nparams; i++)
    if (b->params[i].buf == buf) return b->params[i].value;
  return NULL;
}

static bool same_index(const ix *a, const ix *b, int rank) {
  for (int i = 0; i < rank; i++)
    if (a[i] != b[i]) return false;
  return true;
}

static ix element(lw_build *b, ir_value *v, const ix *index) {
  if (v == b->given_value) {
    bool same = true; /* an axis of extent 1 has one index, however it is written */
    for (int i = 0; i < v->rank; i++) same &= index[i] == b->given_index[i] || ix_is_int(v->dims[i], 1);
    if (same) return b->given;
  }
  double scalar;
  if (v->data && ir_known_float(v, &scalar)) {
    if (ir_is_float(v->dtype)) return ix_float(b->ctx, v->dtype, scalar);
    int64_t i = 0; /* exact for 64-bit integers, which a double is not */
    memcpy(&i, v->data, ir_dtype_bytes(v->dtype));
    return ix_int(b->ctx, v->dtype, i);
  }
  ir_node *d = v->def;
  if (d && d == b->root && b->group >= 0)
    ir_bug(b->ctx, "%s: an epilogue reads '%s' at another index than it is stored at", d->where, v->name);
  if (!d || v->data || d->group != b->group || b->group < 0 || !d->op->value)
    return ix_load(b->ctx, param_of(b, v, IR_IN), index);
  uint64_t h = (uintptr_t)v >> 4;
  for (int i = 0; i < v->rank; i++) h = h * 31 + ((uintptr_t)index[i] >> 4);
  lw_memo **bucket = &b->memo[h % LW_MEMO_BUCKETS];
  for (lw_memo *m = *bucket; m; m = m->next)
    if (m->value == v && same_index(m->index, index, v->rank)) return m->result;
  ix e = d->op->value(b, d, v->def_index, index);
  if (e->dtype != v->dtype)
    ir_bug(b->ctx, "%s: %s gave %s where its output is %s", d->where, d->op->name, ir_dtype_name((tn_dtype)e->dtype), ir_dtype_name(v->dtype));
  lw_memo *m = IR_NEW(b->ctx, lw_memo);
  *m = (lw_memo){v, ir_grow(b->ctx, index, (size_t)v->rank, (size_t)v->rank, sizeof *index), e, *bucket};
  *bucket = m;
  return e;
}

ix lw_in(lw_build *b, ir_node *n, int k, const ix *index) {
  if (!lw_has(n, k)) ir_bug(b->ctx, "%s: %s reads omitted operand %d", n->where, n->op->name, k);
  return element(b, n->in[k], index);
}

ix lw_in_given(lw_build *b, ir_node *n, int k, const ix *index, const ir_value *v, ix value) {
  b->given_value = v;
  b->given_index = ir_grow(b->ctx, index, (size_t)v->rank, (size_t)v->rank, sizeof *index);
  b->given = value;
  memset(b->memo, 0, sizeof b->memo);
  ix e = lw_in(b, n, k, index);
  b->given_value = NULL;
  memset(b->memo, 0, sizeof b->memo);
  return e;
}

ix lw_in_bcast(lw_build *b, ir_node *n, int k, int out_rank, const ix *index) {
  if (!lw_has(n, k)) ir_bug(b->ctx, "%s: %s reads omitted operand %d", n->where, n->op->name, k);
  ir_value *v = n->in[k];
  ix at[IR_MAX_RANK];
  for (int i = 0; i < v->rank; i++) {
    int o = out_rank - v->rank + i;
    at[i] = ix_is_int(v->dims[i], 1) ? ix_index(b->ctx, 0) : index[o];
  }
  return element(b, v, at);
}

bool lw_wants(lw_build *b, const ir_node *n, int k) {
  (void)b;
  return k < n->nout && n->out[k] && n->out[k]->nuses > 0;
}

/* Values of the group computed from the root's output v at the same index, stored where
 * they leave the group. */
static void store_consumers(lw_build *b, ir_value *v, const ix *index, const uint32_t root_id) {
  (void)root_id;
  for (int i = 0; i < v->nuses; i++) {
    ir_node *c = v->uses[i];
    if (!c || c->group != b->group || c == b->root) continue;
    bool again = false; /* a node that reads v twice stands in the list twice */
    for (int j = 0; j < i; j++) again |= v->uses[j] == c;
    if (again) continue;
    for (int k = 0; k < c->nout; k++) {
      ir_value *w = c->out[k];
      if (!w) continue;
      bool done = false; /* reached before through another operand */
      for (int p = 0; p < b->nparams; p++) done |= b->params[p].value == w && (b->params[p].buf->access & IR_OUT);
      if (b->stored(b->user, w) && !done)
        ib_store(b->ib, param_of(b, w, IR_OUT), index, element(b, w, index));
      store_consumers(b, w, index, root_id);
    }
  }
}

void lw_out(lw_build *b, ir_node *n, int k, const ix *index, ix value) {
  if (k >= n->nout || !n->out[k]) return;
  ir_value *v = n->out[k];
  if (value->dtype != v->dtype)
    ir_bug(b->ctx, "%s: %s stores %s where its output is %s", n->where, n->op->name, ir_dtype_name((tn_dtype)value->dtype), ir_dtype_name(v->dtype));
  if (v->nuses == 0) return;
  if (b->group >= 0 && value->op != IX_CONST && value->op != IX_VAR) value = ib_let(b->ib, "r", value);
  if (b->stored(b->user, v)) ib_store(b->ib, param_of(b, v, IR_OUT), index, value);
  if (b->group < 0) return;
  b->given_value = v;
  b->given_index = ir_grow(b->ctx, index, (size_t)v->rank, (size_t)v->rank, sizeof *index);
  b->given = value;
  memset(b->memo, 0, sizeof b->memo);
  store_consumers(b, v, index, n->id);
  b->given_value = NULL;
  memset(b->memo, 0, sizeof b->memo);
}

ir_buf *lw_out_buf(lw_build *b, ir_node *n, int k) {
  ir_assert(b->ctx, n->op->kind == IR_OP_KERNEL);
  return param_of(b, n->out[k], IR_INOUT);
}

void lw_loops(lw_build *b, const char *names, int rank, const ix *dims, ix *idx) {
  for (int i = 0; i < rank; i++) {
    char name[16];
    if (names && i < (int)strlen(names)) snprintf(name, sizeof name, "%c", names[i]);
    else snprintf(name, sizeof name, "i%d", i);
    idx[i] = ib_loop(b->ib, name, dims[i]);
  }
}

tn_dtype lw_compute_type(tn_dtype t) { return ir_is_narrow_float(t) ? TN_F32 : t; }

lw_kernel lw_build_group(tn_ctx *ctx, const char *name, ir_node *root, int group, int nnodes, ir_node *const *nodes,
                         bool in_pack, bool (*stored)(void *user, const ir_value *v), void *user) {
  lw_build b = {.ctx = ctx, .ib = ir_builder_new(ctx), .root = root, .group = group, .in_pack = in_pack, .stored = stored, .user = user};
  if (root) root->op->build(&b, root);
  else {
    /* values alone: one nest per stored value; nodes of equal shape share it */
    for (int i = 0; i < nnodes; i++)
      for (int k = 0; k < nodes[i]->nout; k++) {
        ir_value *v = nodes[i]->out[k];
        if (!v || !v->nuses || !stored(user, v)) continue;
        ix idx[IR_MAX_RANK];
        lw_loops(&b, NULL, v->rank, v->dims, idx);
        ix e = nodes[i]->op->value(&b, nodes[i], k, idx);
        if (e->dtype != v->dtype)
          ir_bug(ctx, "%s: %s gave %s where its output is %s", nodes[i]->where, nodes[i]->op->name, ir_dtype_name((tn_dtype)e->dtype), ir_dtype_name(v->dtype));
        ib_store(b.ib, param_of(&b, v, IR_OUT), idx, e);
        ib_end_n(b.ib, v->rank);
        memset(b.memo, 0, sizeof b.memo);
      }
  }
  lw_kernel r = {0};
  ir_kernel *k = r.kernel = IR_NEW(ctx, ir_kernel);
  k->name = ir_intern(ctx, name);
  k->body = ib_finish(b.ib);
  k->nbufs = r.nvalues = b.nparams;
  k->bufs = IR_NEW_ARRAY(ctx, ir_buf *, b.nparams);
  r.values = IR_NEW_ARRAY(ctx, ir_value *, b.nparams);
  for (int i = 0; i < b.nparams; i++) {
    k->bufs[i] = b.params[i].buf;
    r.values[i] = b.params[i].value;
  }
  return r;
}

/* ---- shape-rule helpers ---- */

void lw_set(ir_node *n, int out, tn_dtype t, int rank, const ix *dims) {
  if (out >= n->nout || !n->out[out]) return;
  if (rank > IR_MAX_RANK - 3)
    ir_fail(n->graph->ctx, TN_EUNSUPPORTED, "%s: %s: output of rank %d; at most %d is supported", n->where, n->op->name, rank, IR_MAX_RANK - 3);
  ir_value *v = n->out[out];
  v->dtype = t;
  v->rank = rank;
  for (int i = 0; i < rank; i++) v->dims[i] = dims[i];
}

void lw_set_like(ir_node *n, int out, tn_dtype t, const ir_value *shape_of) { lw_set(n, out, t, shape_of->rank, shape_of->dims); }

int lw_broadcast(tn_ctx *ctx, const ir_node *n, int first, int count, ix *dims) {
  int rank = 0;
  for (int k = first; k < first + count; k++)
    if (lw_has(n, k) && n->in[k]->rank > rank) rank = n->in[k]->rank;
  for (int i = 0; i < rank; i++) {
    dims[i] = ix_index(ctx, 1);
    for (int k = first; k < first + count; k++) {
      if (!lw_has(n, k)) continue;
      int a = i - (rank - n->in[k]->rank);
      if (a < 0) continue;
      ix d = n->in[k]->dims[a];
      if (ix_is_int(d, 1) || d == dims[i]) continue;
      if (!ix_is_int(dims[i], 1))
        lw_bad(ctx, n, "operands do not broadcast: axis %d has extents %s and %s", i, ix_print(ctx, dims[i]), ix_print(ctx, d));
      dims[i] = d;
    }
  }
  return rank;
}

static void complain(tn_ctx *ctx, const ir_node *n, tn_status status, const char *fmt, va_list ap) IR_NORETURN;
static void complain(tn_ctx *ctx, const ir_node *n, tn_status status, const char *fmt, va_list ap) {
  char text[1024];
  vsnprintf(text, sizeof text, fmt, ap);
  ir_fail(ctx, status, "%s: %s (opset %d): %s", n->where, n->op->name, n->opset, text);
}
void lw_bad(tn_ctx *ctx, const ir_node *n, const char *fmt, ...) {
  va_list ap;
  va_start(ap, fmt);
  complain(ctx, n, TN_EINPUT, fmt, ap);
}
void lw_unsupported(tn_ctx *ctx, const ir_node *n, const char *fmt, ...) {
  va_list ap;
  va_start(ap, fmt);
  complain(ctx, n, TN_EUNSUPPORTED, fmt, ap);
}

/* ---- making nodes inside expand() ---- */

ir_node *lw_node_n(ir_graph *g, ir_node *n, const char *op, int nin, ir_value *const *in, int nout) {
  ir_node *m = ir_node_new(g, op, ir_format(g->ctx, "%s/%s", n->name, op), nin, in, nout);
  m->where = n->where;
  return m;
}
ir_value *lw_node(ir_graph *g, ir_node *n, const char *op, int nin, ir_value *const *in) {
  ir_node *m = lw_node_n(g, n, op, nin, in, 1);
  ir_infer(g->ctx, m);
  return m->out[0];
}

void lw_replace(ir_graph *g, ir_node *n, int out, ir_value *by) {
  ir_value *old = n->out[out];
  if (old) {
    for (int i = 0; i < g->noutputs; i++) /* an output keeps its name */
      if (g->outputs[i] == old && by->kind == IR_VALUE_NODE) by->name = old->name;
    ir_graph_replace(g, old, by);
  }
  n->out[out] = NULL;
  for (int i = 0; i < n->nout; i++)
    if (n->out[i] && i != out) return;
  n->dead = true;
}
